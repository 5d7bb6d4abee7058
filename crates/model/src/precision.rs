//! Models in half precision.
//!
//! The embedding and all projections are converted, and hidden states follow. Norms and solver
//! coefficients, a few thousand values, stay f32, because they scale everything.

use burn::module::Param;
use burn::tensor::Tensor;
use iiet_blocks::Block;
use iiet_ode::{NetworkSolver, Role};

use crate::names::{ParameterMapper, map_parameters};
use crate::{EncoderDecoder, LanguageModel, Precision};

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// The model with its matrices in the given precision.
    ///
    /// A trainable parameter stays trainable: gradients are taken with respect to the rounded
    /// values and are f32, to be applied to the unrounded ones.
    pub fn in_precision(self, precision: Precision) -> Self {
        map_parameters(self, &mut Round { precision })
    }
}

impl EncoderDecoder {
    /// The model with its matrices in the given precision, as
    /// [`LanguageModel::in_precision`] does it.
    pub fn in_precision(self, precision: Precision) -> Self {
        map_parameters(self, &mut Round { precision })
    }
}

/// The dtype of such a parameter in a model of this precision.
pub(crate) fn precision_of(role: Role, of_model: Precision) -> Precision {
    match role.halves {
        true => of_model,
        false => Precision::F32,
    }
}

struct Round {
    precision: Precision,
}

impl ParameterMapper for Round {
    fn map<const D: usize>(
        &mut self,
        _name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let dtype = precision_of(role, self.precision).dtype();
        parameter.map(|tensor| match tensor.is_require_grad() {
            _ if tensor.dtype() == dtype => tensor,
            true => tensor.inner().cast(dtype).autodiff().require_grad(),
            false => tensor.cast(dtype),
        })
    }
}
