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

#[cfg(feature = "burn")]
use burn::{module::Module, tensor::Device};
use serde::{Deserialize, Serialize};

#[cfg(not(feature = "burn"))]
use crate::FixedMultistep as Coefficients;
use crate::options::check_order;
use crate::{
    FixedPoint, Layer, Multistep, OdeError, Options, Solver, State, Trajectory, VectorField,
};
#[cfg(feature = "burn")]
use crate::{
    LearnedEma as Stages, LearnedHistory as Coefficients, NetworkSolver, Parameter, Parameters,
};

/// The options of `predictor_corrector`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PredictorCorrectorOptions {
    /// The number of the predictor's stages, 2 or 4.
    pub predictor_order: usize,
}

impl Default for PredictorCorrectorOptions {
    fn default() -> Self {
        Self { predictor_order: 2 }
    }
}

impl Options for PredictorCorrectorOptions {
    const NAMES: &'static [&'static str] = &["predictor_corrector"];

    fn validate(&self, _: usize) -> Result<(), OdeError> {
        check_order(self.predictor_order)
    }
}

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

#[cfg(not(feature = "burn"))]
use FixedEma as Stages;

/// `order + 1` evaluations a layer; what order it reaches is learned.
#[derive(Debug)]
#[cfg_attr(feature = "burn", derive(Module))]
#[cfg_attr(not(feature = "burn"), derive(Clone))]
pub struct PredictorCorrector<P = Stages, H = Coefficients> {
    /// The predictor's coefficients.
    pub stages: P,
    /// The corrector's coefficients.
    pub history: H,
}

impl<S: State, P: EmaStages<S>, H: Multistep<S>> Solver<S> for PredictorCorrector<P, H> {
    /// The states `s_0, s_1, ..` that the layers so far settled on.
    type Memory = Vec<S>;

    fn memory(&self) -> Vec<S> {
        Vec::new()
    }

    fn step(
        &self,
        field: &mut impl VectorField<S>,
        at: Trajectory<S, Vec<S>>,
        h: f64,
    ) -> Trajectory<S, Vec<S>> {
        let guess = self.stages.predict(field, at.y.clone(), h);
        let one = FixedPoint {
            iterations: 1,
            ..FixedPoint::default()
        };
        self.history.correct(field, at, guess, one, h, None)
    }

    fn evaluations(&self, _: Layer) -> usize {
        self.stages.order() + 1
    }

    fn order(&self) -> Option<usize> {
        None
    }
}

#[cfg(feature = "burn")]
impl Parameters for PredictorCorrector {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            ["stages", path @ ..] => Stages::parameter(path),
            ["history", path @ ..] => Coefficients::parameter(path),
            _ => None,
        }
    }
}

#[cfg(feature = "burn")]
impl NetworkSolver for PredictorCorrector {
    type Options = PredictorCorrectorOptions;

    fn init(
        options: &PredictorCorrectorOptions,
        depth: usize,
        d_model: usize,
        device: &Device,
    ) -> Self {
        Self {
            stages: Stages::init(options.predictor_order, d_model, device),
            history: Coefficients::init(depth, d_model, device),
        }
    }

    fn options(&self) -> PredictorCorrectorOptions {
        let predictor_order = self.stages.rk_norm.len();
        PredictorCorrectorOptions { predictor_order }
    }

    fn keeping(&self, layers: &[Layer]) -> Self {
        Self {
            stages: self.stages.clone(),
            history: self.history.keeping(layers),
        }
    }
}
