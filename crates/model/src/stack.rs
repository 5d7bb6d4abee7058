//! A stack of layers and the solver that integrates through them: a side of an encoder-decoder.
//!
//! ```text
//! y_n = solver step of size 1 through F_n         n = 1..N
//! m   = RMSNorm(y_N)
//! ```
//!
//! The walk through the layers is that of the language model, whose backbone is such a stack and an
//! embedding ([`advance`](crate::walk::advance)).

use burn::module::Module;
use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Tensor};
use iiet_blocks::{Block, BlockConfig, LlamaBlock, normalise};
use iiet_ode::{AnySolver, Layer, NetworkSolver, Parameter, Parameters, Role, norm_parameter};

use crate::walk::advance;
use crate::{Observer, Pass};

/// The layers, their solver, and the norm after the last.
#[derive(Module, Debug)]
pub struct Stack<B: Block = LlamaBlock, S: NetworkSolver = AnySolver> {
    /// `F_1, .., F_N`.
    pub layers: Vec<B>,
    /// The solver, which computes the step of each layer.
    pub solver: S,
    /// The norm after the last layer.
    pub norm: RmsNorm,
}

impl<B: Block, S: NetworkSolver> Stack<B, S> {
    pub(crate) fn empty(
        block: &B::Config,
        solver: &S::Options,
        n_layers: usize,
        d_model: usize,
        device: &Device,
    ) -> Self {
        Self {
            layers: Layer::all(n_layers)
                .map(|_| B::init(block, d_model, device))
                .collect(),
            solver: S::init(solver, n_layers, d_model, device),
            norm: RmsNormConfig::new(d_model)
                .with_epsilon(block.norm_eps())
                .init(device),
        }
    }

    /// The normalised states after the last layer.
    ///
    /// # Shapes
    ///
    /// - input: `y_0`, `[batch, seq, d_model]`
    /// - output: the same
    pub fn hidden(&self, y: Tensor<3>, pass: &mut Pass<'_, B>) -> Tensor<3> {
        self.observed(y, pass, &mut ())
    }

    /// [`hidden`](Self::hidden), with an observer of the layers.
    pub(crate) fn observed(
        &self,
        y: Tensor<3>,
        pass: &mut Pass<'_, B>,
        observer: &mut impl Observer<S::Memory>,
    ) -> Tensor<3> {
        let start = self.solver.start(y);
        let depth = self.layers.len();
        let at = advance(&self.layers, &self.solver, start, depth, pass, observer);
        normalise(&self.norm, at.y)
    }

    /// Evaluations of each layer's block, n = 1..N.
    pub fn evaluations(&self) -> Vec<usize> {
        Layer::all(self.layers.len())
            .map(|layer| self.solver.evaluations(layer))
            .collect()
    }
}

/// `layers.0.mlp.up_proj.weight`, `history.weight`, `norm.weight`.
impl<B: Block, S: NetworkSolver> Parameters for Stack<B, S> {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        match path {
            ["layers", n, path @ ..] => {
                let Parameter { name, role } = B::parameter(path)?;
                Some(Parameter::new(format!("layers.{n}.{name}"), role))
            }
            // The solver does not add a path segment: `history`, `alpha`.
            ["solver", path @ ..] => S::parameter(path),
            ["norm", field] => {
                let name = format!("norm.{}", norm_parameter(field)?);
                Some(Parameter::new(name, Role::COEFFICIENT))
            }
            _ => None,
        }
    }
}
