//! The same model on another device.

use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::LanguageModel;
use crate::names::{ParameterMapper, Role, map_parameters, with_value};

impl LanguageModel {
    /// This model on a device, to the last bit.
    ///
    /// What lies there already is shared, the rest is copied through the host's memory, parameter by
    /// parameter.
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
        let value = parameter.val();
        match value.device() == *self.device {
            true => parameter,
            false => with_value(parameter, value.into_data(), self.device),
        }
    }
}
