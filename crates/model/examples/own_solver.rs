//! A solver from outside this workspace in a language model: trained for a few steps, saved,
//! loaded, and decoded with caches.
//!
//! The solver is the momentum residual network (Sander et al., *Momentum Residual Neural Networks*,
//! arXiv 2102.07870, equation 2) with a learned step size for each layer:
//!
//! ```text
//! v_n = gamma v_{n-1} + (1 - gamma) F_n(y_{n-1})        v_0 = 0
//! y_n = y_{n-1} + a_n v_n                               a_n learned, initially 1
//! ```
//!
//! `cargo run --example own_solver`

mod own;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use iiet_blocks::LlamaBlock;
use iiet_ode::{
    Layer, NetworkSolver, OdeError, Options, Parameter, Parameters, Role, Solver, State,
    Trajectory, VectorField,
};
use serde::{Deserialize, Serialize};

/// The solver's options in `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MomentumOptions {
    gamma: f64,
}

impl Default for MomentumOptions {
    fn default() -> Self {
        Self { gamma: 0.5 }
    }
}

impl Options for MomentumOptions {
    const NAMES: &'static [&'static str] = &["momentum"];

    fn validate(&self, _depth: usize) -> Result<(), OdeError> {
        match (0.0..1.0).contains(&self.gamma) {
            true => Ok(()),
            false => Err(OdeError::Option {
                key: "gamma",
                found: self.gamma.to_string(),
                allowed: "0 up to but not including 1".into(),
            }),
        }
    }
}

#[derive(Module, Debug)]
struct Momentum {
    /// `a`, one for each layer.
    step_sizes: Param<Tensor<1>>,
    #[module(skip)]
    gamma: f64,
}

impl Solver<Tensor<3>> for Momentum {
    /// `v`, from the second layer on.
    type Memory = Option<Tensor<3>>;

    fn memory(&self) -> Self::Memory {
        None
    }

    fn step(
        &self,
        field: &mut impl VectorField<Tensor<3>>,
        at: Trajectory<Tensor<3>, Self::Memory>,
        h: f64,
    ) -> Trajectory<Tensor<3>, Self::Memory> {
        let Trajectory { y, layer, memory } = at;
        let new = field.slope(y.clone()).scale(1.0 - self.gamma);
        let v = match memory {
            Some(v) => new.axpy(self.gamma, v),
            None => new,
        };
        let a = self.step_sizes.val().narrow(0, layer.index(), 1);
        let y = y + v.clone() * a.reshape([1, 1, 1]) * h;
        Trajectory {
            y,
            layer: layer.next(),
            memory: Some(v),
        }
    }

    fn evaluations(&self, _: Layer) -> usize {
        1
    }

    fn order(&self) -> Option<usize> {
        None
    }
}

impl Parameters for Momentum {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            ["step_sizes"] => Some(Parameter::new("momentum.step_sizes", Role::COEFFICIENT)),
            _ => None,
        }
    }
}

impl NetworkSolver for Momentum {
    type Options = MomentumOptions;

    fn init(options: &MomentumOptions, depth: usize, _d_model: usize, device: &Device) -> Self {
        Self {
            step_sizes: Param::from_tensor(Tensor::ones([depth], device)),
            gamma: options.gamma,
        }
    }

    fn options(&self) -> MomentumOptions {
        let gamma = self.gamma;
        MomentumOptions { gamma }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    own::train_save_load_decode::<LlamaBlock, Momentum>(own::llama(), MomentumOptions::default())
}
