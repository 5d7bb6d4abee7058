//! PCformer: a Runge-Kutta predictor with EMA coefficients, then one learned multistep correction.
//!
//! ```text
//! k_j   = LN_j(G(z_j))           z_0 = y,  z_{j+1} = y + c_j k_j
//! guess = y + sum_j alpha (1 - alpha)^(order-1-j) k_j
//! ```
//!
//! with `c = (1)` at order 2 and `(1/2, 1/2, 1)` at order 4. The stages keep the block's own
//! residual: `k_j` is a normalised state, not a slope. The correction is that of [`Multistep`]
//! with r = 1.
//!
//! Li et al., *Predictor-Corrector Enhanced Transformers with Exponential Moving Average
//! Coefficient Learning*, NeurIPS 2024 (arXiv 2411.03042).

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};
use iiet_kernels::weighted_sum;

use crate::learned_history::normalise;
use crate::solver::Layered;
use crate::{
    LearnedHistory, Multistep, Solver, SolverOption, SolverOptions, State, Trajectory, VectorField,
};

/// How the predictor treats and weighs its stages j = 0..order.
pub trait EmaStages<S: State> {
    /// The number of stages, 2 or 4.
    fn order(&self) -> usize;

    /// `LN_j(k)`.
    fn normalise_stage(&self, j: usize, k: S) -> S;

    /// `y + sum_j alpha (1 - alpha)^(order-1-j) k_j`: later stages weigh more.
    fn combine(&self, y: S, stages: Vec<S>) -> S;

    /// The predictor's guess at the next state.
    fn predict(&self, field: &mut impl VectorField<S>, y: S, h: f64) -> S {
        let (mut z, mut stages) = (y.clone(), Vec::with_capacity(self.order()));
        for j in 0..self.order() {
            let k = self.normalise_stage(j, field.euler(z, h));
            // The nodes of the classical tableaus: half steps to the two middle stages of order 4.
            let c = if self.order() == 4 && j < 2 { 0.5 } else { 1.0 };
            z = y.clone().axpy(c, k.clone());
            stages.push(k);
        }
        self.combine(y, stages)
    }
}

/// Given alpha and no normalisation: what the learned predictor is compared with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FixedEma {
    /// The number of stages, 2 or 4.
    pub order: usize,
    /// The decay of the moving average.
    pub alpha: f64,
}

impl<S: State> EmaStages<S> for FixedEma {
    fn order(&self) -> usize {
        self.order
    }

    fn normalise_stage(&self, _j: usize, k: S) -> S {
        k
    }

    fn combine(&self, y: S, stages: Vec<S>) -> S {
        let weight = |age: usize| self.alpha * (1.0 - self.alpha).powi(age as i32);
        let ages = (0..self.order).rev();
        ages.zip(stages)
            .fold(y, |guess, (age, k)| guess.axpy(weight(age), k))
    }
}

/// A learned alpha, shared by all layers, and a LayerNorm for each stage.
#[derive(Module, Debug)]
pub struct LearnedEma {
    /// `alpha`, `[1]`, starting at 0.5.
    pub alpha: Param<Tensor<1>>,
    /// `LN_j`, one for each stage.
    pub rk_norm: Vec<LayerNorm>,
}

impl<const D: usize> EmaStages<Tensor<D>> for LearnedEma {
    fn order(&self) -> usize {
        self.rk_norm.len()
    }

    fn normalise_stage(&self, j: usize, k: Tensor<D>) -> Tensor<D> {
        normalise(&self.rk_norm[j], k)
    }

    fn combine(&self, y: Tensor<D>, stages: Vec<Tensor<D>>) -> Tensor<D> {
        let alpha = self.alpha.val();
        let decay = alpha.clone().neg().add_scalar(1.0);
        // A product rather than a power: its gradient is defined at alpha = 1.
        let mut weights = vec![alpha];
        for age in 1..stages.len() {
            weights.push(weights[age - 1].clone() * decay.clone());
        }
        weights.push(Tensor::ones([1], &y.device()));
        weights.reverse();
        let terms = [y].into_iter().chain(stages).collect();
        weighted_sum(terms, Tensor::cat(weights, 0))
    }
}

/// `order + 1` evaluations a layer; what order it reaches is learned.
#[derive(Module, Debug)]
pub struct PredictorCorrector<P = LearnedEma, H = LearnedHistory> {
    /// The predictor's coefficients.
    pub stages: P,
    /// The corrector's coefficients.
    pub history: H,
}

impl<S: State, P: EmaStages<S>, H: Multistep<S>> Solver<S> for PredictorCorrector<P, H> {
    fn step(&self, field: &mut impl VectorField<S>, at: Trajectory<S>, h: f64) -> Trajectory<S> {
        let guess = self.stages.predict(field, at.y.clone(), h);
        self.history.correct(field, at, guess, 1, h, None)
    }

    fn evaluations(&self, _n: usize) -> usize {
        self.stages.order() + 1
    }

    fn order(&self) -> Option<usize> {
        None
    }
}

impl Layered for PredictorCorrector {
    const READS: &'static [SolverOption] = &[SolverOption::PredictorOrder];

    fn init(options: &SolverOptions, layers: usize, d_model: usize, device: &Device) -> Self {
        Self {
            stages: LearnedEma {
                alpha: Param::from_data([0.5f32], device),
                rk_norm: (0..options.predictor_order)
                    .map(|_| LayerNormConfig::new(d_model).init(device))
                    .collect(),
            },
            history: LearnedHistory::init(layers, d_model, device),
        }
    }
}
