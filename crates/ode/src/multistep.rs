//! Correction with a memory: a linear multistep method over the states of all layers so far.
//!
//! Let `s_0 = y_0` and let `s_1, .., s_{n-1}` be the states that the earlier layers settled on.
//! Layer n brings a guess and improves it r times, then mixes its output from all states:
//!
//! ```text
//! s_n^(0) = LN_n^pred(guess)
//! z       = sum_{k<n} w[n,k] s_k + w[n,n] s_n^(i-1)        i = 1..r
//! s_n^(i) = LN_n^corr(G_n(z))
//! y_n     = sum_{k<=n} wc[n,k] s_k                         s_n = s_n^(r)
//! ```
//!
//! IIET (arXiv 2509.22463, section 3) guesses with explicit Euler and takes r corrections;
//! PCformer (arXiv 2411.03042) guesses with Runge-Kutta and takes one.

use crate::{FixedPoint, FixedPointMap, Layer, State, Trajectory, VectorField};

/// The coefficients of a linear multistep correction.
pub trait Multistep<S: State> {
    /// `s_0`, the first of the states: `y_0` itself, or normalised like the others.
    fn first(&self, y: S) -> S {
        y
    }

    /// `LN_n^pred(s)`, applied to the guess.
    fn normalise_guess(&self, layer: Layer, s: S) -> S;

    /// `LN_n^corr(s)`, applied to every correction.
    fn normalise_correction(&self, layer: Layer, s: S) -> S;

    /// `sum_{k<n} w[n,k] s_k`, over the states of the layers before.
    fn past(&self, layer: Layer, states: &[S]) -> S;

    /// `past + w[n,n] s`, with the layer's own latest state.
    fn with_present(&self, layer: Layer, past: S, s: S) -> S;

    /// `s_n^(i)` from `s_n^(i-1)` and the normalised correction: the correction itself, or a step
    /// towards it.
    fn relax(&self, layer: Layer, before: S, corrected: S) -> S {
        let _ = (layer, before);
        corrected
    }

    /// `sum_{k<=n} wc[n,k] s_k`, the layer's output.
    fn output(&self, layer: Layer, states: &[S]) -> S;

    /// Takes layer n from its guess to its output in r corrections. `watch`, if there is one, sees
    /// the output that each number of corrections from 0 to r would give.
    fn correct(
        &self,
        field: &mut impl VectorField<S>,
        mut at: Trajectory<S, Vec<S>>,
        guess: S,
        corrections: FixedPoint,
        h: f64,
        mut watch: Option<&mut dyn FnMut(S)>,
    ) -> Trajectory<S, Vec<S>> {
        if at.memory.is_empty() {
            at.memory.push(self.first(at.y.clone()));
        }
        let n = at.layer;
        let mut s = self.normalise_guess(n, guess);
        if corrections.iterations > 0 {
            let mut map = Correction {
                history: self,
                field,
                layer: n,
                // The earlier states do not change while the layer iterates: their sum is taken once.
                past: self.past(n, &at.memory),
                h,
            };
            s = corrections.iterate(&mut map, s, None, &mut |s: &S| {
                if let Some(watch) = &mut watch {
                    at.memory.push(s.clone());
                    watch(self.output(n, &at.memory));
                    at.memory.pop();
                }
            });
        }
        at.memory.push(s);
        let y = self.output(n, &at.memory);
        if let Some(watch) = watch {
            watch(y.clone());
        }
        at.advance(|_| y)
    }
}

/// `s_n^(i)` from `s_n^(i-1)`.
struct Correction<'a, S, F, H: ?Sized> {
    history: &'a H,
    field: &'a mut F,
    layer: Layer,
    /// `sum_{k<n} w[n,k] s_k`.
    past: S,
    h: f64,
}

impl<S, F, H> FixedPointMap<S> for Correction<'_, S, F, H>
where
    S: State,
    F: VectorField<S>,
    H: Multistep<S> + ?Sized,
{
    fn point(&mut self, s: S) -> S {
        self.history.with_present(self.layer, self.past.clone(), s)
    }

    fn at(&mut self, z: S, s: S) -> S {
        let next = self.field.euler(z, self.h);
        let corrected = self.history.normalise_correction(self.layer, next);
        self.history.relax(self.layer, s, corrected)
    }

    fn skip(&mut self, z: S) {
        self.field.skip(z);
    }

    fn taken(&mut self, parts: &[bool]) {
        self.field.taken(parts);
    }

    fn record(&mut self, on: bool) {
        self.field.record(on);
    }
}

/// Given coefficients and no normalisation: what a learned history is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedMultistep {
    /// `w[n,k]`, k <= n; row 0 is unused, as in the learned weights.
    pub w: Vec<Vec<f64>>,
    /// `wc[n,k]`, k <= n.
    pub wc: Vec<Vec<f64>>,
}

impl<S: State> Multistep<S> for FixedMultistep {
    fn normalise_guess(&self, _: Layer, s: S) -> S {
        s
    }

    fn normalise_correction(&self, _: Layer, s: S) -> S {
        s
    }

    fn past(&self, layer: Layer, states: &[S]) -> S {
        weighted_sum(&self.w[layer.n()], states)
    }

    fn with_present(&self, layer: Layer, past: S, s: S) -> S {
        let n = layer.n();
        past.axpy(self.w[n][n], s)
    }

    fn output(&self, layer: Layer, states: &[S]) -> S {
        weighted_sum(&self.wc[layer.n()], states)
    }
}

fn weighted_sum<S: State>(w: &[f64], states: &[S]) -> S {
    let zero = states[0].clone().scale(0.0);
    states
        .iter()
        .zip(w)
        .fold(zero, |sum, (s_k, w_k)| sum.plus(s_k.clone().scale(*w_k)))
}
