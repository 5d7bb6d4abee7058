//! A tensor as rows along its last axis, for the default bodies.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice};

/// `[.., d]` as `[rows, d]`.
pub(crate) fn as_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / d.max(1);
    B::float_reshape(x, Shape::from(vec![rows, d]))
}

/// `[d]` as `[1, d]`.
pub(crate) fn as_row<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let d = x.shape()[0];
    B::float_reshape(x, Shape::from(vec![1, d]))
}

/// The sum of all rows of `[rows, d]`, as `[d]`.
pub(crate) fn sum_of_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let d = x.shape()[1];
    B::float_reshape(B::float_sum_dim(x, 0), Shape::from(vec![d]))
}

/// Entries `from..to` along the first axis.
pub(crate) fn leading(from: usize, to: usize) -> Slice {
    Slice::new(from as isize, Some(to as isize), 1)
}
