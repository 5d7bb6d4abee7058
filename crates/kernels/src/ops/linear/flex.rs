//! Projections: one matrix product over all rows, into memory that is not cleared first.
//!
//! Products of operands of one type read them as they are; operands of different types are widened to f32 first.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, bf16, f16};

use super::{Linear, with_width};
use crate::flex::buffer::{all_f32, dense, owned, tensor, values_mut};
use crate::flex::gemm::{Entry, Then, Threads, View, ViewMut, gemm, product};
use crate::flex::halves::{all_bf16, all_f16, at_most_f32, rounded, widened};
use crate::flex::{Primitive, few_rows};

impl Linear for Flex {
    fn project(x: Primitive, weight: Primitive) -> Primitive {
        if !at_most_f32([&x, &weight]) {
            super::forward::<Self>(x, weight)
        } else if few_rows::are(&x) {
            // Half-precision weights too are read in place: decoding is limited by memory
            // bandwidth.
            let dtype = x.dtype();
            rounded(few_rows::product(widened(x), weight), dtype)
        } else {
            forward(x, weight)
        }
    }

    fn weight_gradient(x: Primitive, dy: Primitive) -> Primitive {
        if at_most_f32([&x, &dy]) {
            weight_gradient(x, dy)
        } else {
            super::weight_gradient::<Self>(x, dy)
        }
    }

    fn add_weight_gradient(sum: Primitive, x: Primitive, dy: Primitive) -> Primitive {
        if all_f32(&[&sum]) && at_most_f32([&x, &dy]) {
            add_weight_gradient(sum, x, dy)
        } else {
            super::add_weight_gradient::<Self>(sum, x, dy)
        }
    }
}

/// A matrix in its memory layout.
pub(crate) fn matrix<T: Entry>(x: &Primitive) -> View<'_, T> {
    let [rows, columns] = x.shape().dims();
    let layout = x.layout();
    let stride = |axis: usize| layout.strides()[axis].unsigned_abs();
    View::new(T::memory(x), [rows, columns], [stride(0), stride(1)])
}

/// `[.., d]` as `[rows, d]`.
fn rows<T: Entry>(x: &Primitive) -> View<'_, T> {
    let shape = x.shape();
    let d = shape[shape.num_dims() - 1];
    let rows = shape.num_elements() / d.max(1);
    View::rows(T::memory(x), rows, d)
}

/// The tensor with non-negative strides on every axis.
pub(crate) fn upright(x: Primitive) -> Primitive {
    match x.layout().strides().iter().all(|&s| s >= 0) {
        true => x,
        false => dense(x),
    }
}

fn forward(x: Primitive, weight: Primitive) -> Primitive {
    let (x, weight) = (dense(x), upright(weight));
    let (dtype, shape) = (x.dtype(), with_width(x.shape(), weight.shape()[1]));
    if all_bf16(&[&x, &weight]) {
        return tensor(bf16::product(rows(&x), matrix(&weight)), shape);
    }
    if all_f16(&[&x, &weight]) {
        return tensor(f16::product(rows(&x), matrix(&weight)), shape);
    }
    let (x, weight) = (widened(x), widened(weight));
    rounded(
        tensor(f32::product(rows(&x), matrix(&weight)), shape),
        dtype,
    )
}

fn weight_gradient(x: Primitive, dy: Primitive) -> Primitive {
    let (x, dy) = (dense(x), dense(dy));
    if all_bf16(&[&x, &dy]) {
        turned_product(rows::<bf16>(&x), rows(&dy))
    } else if all_f16(&[&x, &dy]) {
        turned_product(rows::<f16>(&x), rows(&dy))
    } else {
        let (x, dy) = (widened(x), widened(dy));
        turned_product(rows::<f32>(&x), rows(&dy))
    }
}

/// `x^T dy`.
fn turned_product<T: Entry>(x: View<T>, dy: View<T>) -> Primitive {
    let shape = Shape::from(vec![x.shape()[1], dy.shape()[1]]);
    tensor(product(1.0, x.transposed(), dy), shape)
}

fn add_weight_gradient(sum: Primitive, x: Primitive, dy: Primitive) -> Primitive {
    let (mut sum, x, dy) = (owned(sum), dense(x), dense(dy));
    if all_bf16(&[&x, &dy]) {
        add_transposed_product(values_mut(&mut sum), rows::<bf16>(&x), rows(&dy));
    } else if all_f16(&[&x, &dy]) {
        add_transposed_product(values_mut(&mut sum), rows::<f16>(&x), rows(&dy));
    } else {
        let (x, dy) = (widened(x), widened(dy));
        add_transposed_product(values_mut(&mut sum), rows::<f32>(&x), rows(&dy));
    }
    sum
}

fn add_transposed_product<T: Entry>(sum: &mut [f32], x: View<T>, dy: View<T>) {
    let to = ViewMut::rows(sum, x.shape()[1], dy.shape()[1]);
    gemm(to, Then::Add, 1.0, x.transposed(), dy, Threads::All);
}
