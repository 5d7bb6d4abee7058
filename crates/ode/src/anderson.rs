//! Anderson acceleration of a fixed-point iteration.
//!
//! With the residuals `f_j = g(s_j) - s_j` of the last iterates,
//!
//! ```text
//! gamma   = argmin | f_i - sum_j gamma_j (f_{j+1} - f_j) |
//! s_{i+1} = g(s_i) - sum_j gamma_j (g(s_{j+1}) - g(s_j))        j = i-m .. i-1
//! ```
//!
//! On a linear map whose differences are all kept it is GMRES, and exact after as many steps as the
//! space has dimensions. Walker and Ni, *Anderson acceleration for fixed-point iterations*, SIAM J.
//! Numer. Anal. 49 (2011), section 2 and theorem 2.2; for transformers, Bai et al., *Deep Equilibrium
//! Models*, arXiv 1909.01377.
//!
//! Each part of a state ([`State::dots`]) has its own coefficients: those of a token depend on that
//! token alone, so that neither its neighbours in a batch nor later tokens change it. They are numbers
//! that no gradient flows through.

use std::collections::VecDeque;

use crate::State;

/// Differences that are shorter than so many rounding errors once the others are taken out of them
/// say nothing.
const DEPENDENT: f64 = 100.0;

/// What the acceleration remembers of the iterates.
#[derive(Debug, Clone)]
pub(crate) struct Anderson<S> {
    depth: usize,
    /// `f` and `g` of the last iterate.
    last: Option<[S; 2]>,
    /// Differences of `f` and of `g`, the oldest first.
    differences: VecDeque<[S; 2]>,
}

impl<S: State> Anderson<S> {
    /// With at most `depth` differences, m.
    pub(crate) fn new(depth: usize) -> Self {
        Self {
            depth,
            last: None,
            differences: VecDeque::new(),
        }
    }

    /// `s_{i+1}` from `s_i` and `g(s_i)`.
    pub(crate) fn mix(&mut self, s: &S, g: &S) -> S {
        let minus = |a: &S, b: &S| a.clone().axpy(-1.0, b.clone());
        let g = g.clone().untracked();
        let f = minus(&g, &s.clone().untracked());
        if let Some([f_last, g_last]) = &self.last {
            let difference = [minus(&f, f_last), minus(&g, g_last)];
            self.differences.push_back(difference);
        }
        if self.differences.len() > self.depth {
            self.differences.pop_front();
        }
        self.last = Some([f.clone(), g.clone()]);

        // Gram-Schmidt from the newest difference to the oldest; what is done to those of f is done to
        // those of g, so that no triangular system is left to solve.
        let (mut f, mut mixed) = (f, g);
        let mut basis: Vec<[S; 2]> = Vec::with_capacity(self.differences.len());
        for [df, dg] in self.differences.iter().rev() {
            let (mut q, mut p) = (df.clone(), dg.clone());
            for [q_l, p_l] in &basis {
                let along = negated(q_l.dots(&q));
                q = q.plus(q_l.clone().scale_parts(&along));
                p = p.plus(p_l.clone().scale_parts(&along));
            }
            let least = DEPENDENT * df.epsilon();
            let lengths = q.dots(&q).into_iter().zip(df.dots(df));
            let scales: Vec<f64> = lengths
                .map(|(left, whole)| match left > least * least * whole {
                    true => 1.0 / left.sqrt(),
                    false => 0.0,
                })
                .collect();
            let [q, p] = [q, p].map(|x| x.scale_parts(&scales));
            let along = negated(q.dots(&f));
            f = f.plus(q.clone().scale_parts(&along));
            mixed = mixed.plus(p.clone().scale_parts(&along));
            basis.push([q, p]);
        }
        mixed
    }
}

fn negated(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|x| -x).collect()
}
