//! Copying a model to another device.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use iiet_blocks::Block;
use iiet_ode::{NetworkSolver, Role};

use crate::names::{ParameterMapper, map_parameters};
use crate::{EncoderDecoder, LanguageModel};

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// A bitwise identical copy of this model on a device.
    ///
    /// Parameters that are on the device already are shared; the others are copied through host memory, one at
    /// a time.
    pub fn on(&self, device: &Device) -> Self {
        map_parameters(self.clone(), &mut On { device })
    }
}

impl EncoderDecoder {
    /// A bitwise identical copy of this model on a device, as [`LanguageModel::on`] makes it.
    pub fn on(&self, device: &Device) -> Self {
        map_parameters(self.clone(), &mut On { device })
    }
}

struct On<'a> {
    device: &'a Device,
}

impl ParameterMapper for On<'_> {
    fn map<const D: usize>(
        &mut self,
        _name: &str,
        _role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        // Not `transform_for_load`, which moves a value to the parameter's own device.
        parameter.map(|value| match value.device() == *self.device {
            true => value,
            false => Tensor::from_data(value.into_data(), self.device),
        })
    }
}
