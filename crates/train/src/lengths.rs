//! The lengths of a model's parameters.

use burn::module::Param;
use burn::tensor::Tensor;
use iiet_model::{ParameterVisitor, Role, SavedModel, visit_parameters};

/// The number of elements of each parameter by name, in the order of the forward pass.
pub(crate) fn lengths<M: SavedModel>(model: &M) -> Vec<(String, usize)> {
    let mut lengths = Lengths(Vec::new());
    visit_parameters(model, &mut lengths);
    lengths.0
}

struct Lengths(Vec<(String, usize)>);

impl ParameterVisitor for Lengths {
    fn visit<const D: usize>(&mut self, name: &str, _role: Role, parameter: &Param<Tensor<D>>) {
        let elements = parameter.lazy_shape().num_elements();
        self.0.push((name.to_owned(), elements));
    }
}
