//! Fixed-point iteration, and how it is stopped, sped up and differentiated.
//!
//! ```text
//! s^(i) = g(s^(i-1))        i = 1..r
//! ```
//!
//! The corrections of both implicit methods are such an iteration, and so is the gradient at a fixed
//! point. Three things may be asked of it, none of which is by default:
//!
//! - *Stopping.* A part of the state that has changed by no more than a tolerance, relative to its
//!   size, keeps its value. In hidden states each token is a part and stops by itself.
//! - *Acceleration*, by [`Anderson`], also for each part by itself. The last iterate is not mixed.
//! - *Truncation.* Only the last k steps are recorded for a backward pass. With k = 1 it is the
//!   one-step gradient (Bolte, Pauwels and Vaiter, arXiv 2305.13768; Fung et al., *JFB*, arXiv
//!   2103.12803).

use crate::State;
use crate::anderson::Anderson;

/// A map whose fixed point is sought: `g(s) = at(point(s), s)`.
pub trait FixedPointMap<S> {
    /// Where the vector field is evaluated for `g(s)`.
    fn point(&mut self, s: S) -> S {
        s
    }

    /// `g(s)` with the field evaluated at `z`.
    fn at(&mut self, z: S, s: S) -> S;

    /// In place of [`at`](Self::at) where all parts have settled, at what they were last evaluated at.
    fn skip(&mut self, z: S) {
        let _ = z;
    }

    /// Which parts took the step that was just made. Not called without a tolerance.
    fn taken(&mut self, parts: &[bool]) {
        let _ = parts;
    }

    /// Whether what follows is recorded for a backward pass.
    fn record(&mut self, on: bool) {
        let _ = on;
    }
}

/// How a fixed-point iteration is made.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FixedPoint {
    /// The most steps, r.
    pub iterations: usize,
    /// The change relative to its size at which a part has settled.
    pub tolerance: Option<f64>,
    /// The depth of Anderson acceleration; 0 for none.
    pub anderson: usize,
    /// How many of the last steps are recorded; all if absent.
    pub backprop: Option<usize>,
}

impl FixedPoint {
    /// Whether what comes before the last recorded step is left out, the start included.
    pub fn truncates(&self) -> bool {
        self.backprop.is_some_and(|k| k < self.iterations)
    }

    /// How many evaluations a backward pass keeps, that of the start included.
    pub(crate) fn recorded_evaluations(&self) -> usize {
        match self.backprop {
            Some(k) if k < self.iterations => k,
            _ => 1 + self.iterations,
        }
    }

    /// The iterate after r steps from `s`. `watch` sees what fewer steps would give, `s^(0)` to
    /// `s^(r-1)`. A pair `(s, g(s))` that is known from before helps the acceleration.
    pub fn iterate<S: State>(
        &self,
        map: &mut impl FixedPointMap<S>,
        mut s: S,
        known: Option<(S, S)>,
        watch: &mut dyn FnMut(&S),
    ) -> S {
        let r = self.iterations;
        let mut anderson = (self.anderson > 0).then(|| Anderson::new(self.anderson));
        if let (Some(anderson), Some((s, g))) = (&mut anderson, &known) {
            anderson.mix(s, g);
        }
        let mut settled: Option<Settled<S>> = None;
        // What the iteration would give if it stopped here, where that is not s.
        let mut unmixed: Option<S> = None;
        for i in 1..=r {
            watch(unmixed.as_ref().unwrap_or(&s));
            if self.backprop.is_some_and(|k| i + k == r + 1) && i > 1 {
                s = s.untracked();
                map.record(true);
            }
            let mut z = map.point(s.clone());
            if let Some(settled) = &settled {
                z = z.with_parts(&settled.z, &settled.parts);
                if settled.parts.iter().all(|settled| *settled) {
                    map.skip(z);
                    continue;
                }
            }
            let Some(tolerance) = self.tolerance else {
                s = match &mut anderson {
                    Some(anderson) if i < r => {
                        let next = map.at(z, s.clone());
                        let mixed = anderson.mix(&s, &next);
                        unmixed = Some(next);
                        mixed
                    }
                    _ => map.at(z, s),
                };
                continue;
            };
            let next = map.at(z.clone(), s.clone());
            let mut parts = within(&next, &s, tolerance);
            let before = settled.map_or_else(|| vec![false; parts.len()], |settled| settled.parts);
            let active: Vec<bool> = before.iter().map(|settled| !settled).collect();
            map.taken(&active);
            let next = next.with_parts(&s, &before);
            // What has settled stays so.
            for (part, before) in parts.iter_mut().zip(&before) {
                *part |= before;
            }
            s = match &mut anderson {
                Some(anderson) if i < r => {
                    let mixed = anderson.mix(&s, &next);
                    unmixed = Some(next.clone());
                    mixed.with_parts(&next, &parts)
                }
                _ => next,
            };
            settled = Some(Settled { parts, z });
        }
        s
    }
}

/// The parts that change no more.
struct Settled<S> {
    parts: Vec<bool>,
    /// What they were last evaluated at.
    z: S,
}

/// Which parts satisfy `|after - before| <= tolerance |before|`.
fn within<S: State>(after: &S, before: &S, tolerance: f64) -> Vec<bool> {
    let change = after.clone().axpy(-1.0, before.clone());
    let (changes, sizes) = (change.dots(&change), before.dots(before));
    changes
        .iter()
        .zip(sizes)
        .map(|(change, size)| change.sqrt() <= tolerance * size.sqrt())
        .collect()
}
