//! Projections: one matrix product over all rows, into memory that nobody clears first.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;

use super::Primitive;
use super::buffer::{dense, owned, tensor, values, values_mut};
use super::gemm::{Then, Threads, View, ViewMut, gemm, product};
use crate::linear::with_width;

/// A matrix as it lies in memory.
fn matrix(x: &Primitive) -> View<'_> {
    let [rows, columns] = x.shape().dims();
    let layout = x.layout();
    let data = &x.storage::<f32>()[layout.start_offset()..];
    let stride = |axis: usize| layout.strides()[axis].unsigned_abs();
    View::new(data, [rows, columns], [stride(0), stride(1)])
}

/// `[.., d]` as `[rows, d]`.
fn rows(x: &Primitive) -> View<'_> {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    let x = values(x);
    View::rows(x, x.len() / d.max(1), d)
}

/// The tensor with no axis running backwards.
fn upright(x: Primitive) -> Primitive {
    match x.layout().strides().iter().all(|&s| s >= 0) {
        true => x,
        false => dense(x),
    }
}

pub(super) fn forward(x: Primitive, weight: Primitive) -> Primitive {
    let (x, weight) = (dense(x), upright(weight));
    let shape = with_width(x.shape(), weight.shape()[1]);
    tensor(product(1.0, rows(&x), matrix(&weight)), shape)
}

pub(super) fn weight_gradient(x: Primitive, dy: Primitive) -> Primitive {
    let (x, dy) = (dense(x), dense(dy));
    let (x, dy) = (rows(&x).transposed(), rows(&dy));
    let shape = Shape::from(vec![x.shape()[0], dy.shape()[1]]);
    tensor(product(1.0, x, dy), shape)
}

pub(super) fn add_weight_gradient(sum: Primitive, x: Primitive, dy: Primitive) -> Primitive {
    let (mut sum, x, dy) = (owned(sum), dense(x), dense(dy));
    let (x, dy) = (rows(&x).transposed(), rows(&dy));
    let to = ViewMut::rows(values_mut(&mut sum), x.shape()[0], dy.shape()[1]);
    gemm(to, Then::Add, 1.0, x, dy, Threads::All);
    sum
}
