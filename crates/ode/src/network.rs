//! Solvers as parts of a network, which may have parameters for each layer.

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

use crate::{Layer, Options, Parameters, Solver};

/// A solver for hidden states `[batch, seq, d_model]`, as a module.
///
/// It can be implemented outside this workspace: a language model accepts any such solver.
pub trait NetworkSolver:
    Solver<Tensor<3>> + Module + ModuleDisplay + Parameters + Sync + 'static
{
    /// The options that it is built from.
    type Options: Options;

    /// The solver with newly initialised parameters for `depth` layers of width `d_model`. The
    /// options are valid for that depth.
    fn init(options: &Self::Options, depth: usize, d_model: usize, device: &Device) -> Self;

    /// Its current options: those that [`init`](Self::init) received, unless they were changed
    /// since.
    fn options(&self) -> Self::Options;

    /// Takes over from other options what can be changed without other parameters: a schedule, and
    /// how corrections are taken. The rest stays as it is.
    fn adopt(&mut self, options: &Self::Options) {
        let _ = options;
    }

    /// The solver of the network that has only some of the layers, in their order: what belongs to the others is
    /// gone. By default nothing belongs to a layer.
    fn keeping(&self, layers: &[Layer]) -> Self {
        let _ = layers;
        self.clone()
    }
}
