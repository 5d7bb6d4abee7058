//! Products with packed weights: few rows from the codes, more rows from blocks of widened weights, or from the codes
//! if inputs are rounded and the processor multiplies integers faster.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, bf16, f16};
use iiet_compress::kernel::{
    Dequantised, dequantise, many_rows_pay, product, product_of_many, rounded_inputs,
};
use iiet_compress::{Activations, PackedView, Scheme};

use super::PackedLinear;
use crate::Products;
use crate::flex::Primitive;
use crate::flex::buffer::{dense, for_blocks, tensor, values};
use crate::flex::gemm::{Entry, Then, Threads, View, ViewMut, gemm};
use crate::flex::halves::{all_bf16, at_most_f32, rounded, widened};
use crate::ops::linear::with_width;

/// Up to this many rows are multiplied from the codes. Each of them costs arithmetic for every code; widening
/// costs a pass over the weights once.
const FEW_ROWS: usize = 8;
/// The same for rounded inputs where more rows are not widened either.
const FEW_ROUNDED_ROWS: usize = 16;
/// Weights that are widened at a time: 1 MiB of f32, so that the product finds them in a cache.
const BLOCK: usize = 1 << 18;
/// Rows of W that a thread widens at a time.
const STRIP: usize = 8;

impl PackedLinear for Flex {
    fn project_packed(
        x: Primitive,
        codes: Primitive,
        scales: Primitive,
        zeros: Primitive,
        scheme: Scheme,
        activations: Activations,
    ) -> Primitive {
        let stored = scales.dtype() == DType::F16 && zeros.dtype() == DType::U8;
        if !stored || !at_most_f32([&x]) {
            return super::forward::<Self>(x, codes, scales, zeros, scheme, activations);
        }
        let [x, codes, scales, zeros] = [x, codes, scales, zeros].map(dense);
        let weight = view(&codes, &scales, &zeros, scheme);
        let (dtype, shape) = (x.dtype(), with_width(x.shape(), weight.d_out()));
        let rows = x.shape().num_elements() / weight.d_in();
        // Tiles of bf16 are faster still than products of integers.
        let tiles = all_bf16(&[&x]) && Products::in_use() == Products::Amx;
        let integers = activations == Activations::Int8 && many_rows_pay() && !tiles;
        let few = if integers { FEW_ROUNDED_ROWS } else { FEW_ROWS };
        if rows <= few || integers {
            let x = widened(x);
            let mut y = vec![0.0; rows * weight.d_out()];
            match rows <= few {
                true => product(&mut y, values(&x), &weight, activations),
                false => product_of_many(&mut y, values(&x), &weight),
            }
            .expect(LENGTHS);
            return rounded(tensor(y, shape), dtype);
        }
        let x = match activations {
            Activations::F32 => x,
            Activations::Int8 => {
                let x = widened(x);
                let values = rounded_inputs(values(&x), scheme).expect(LENGTHS);
                rounded(tensor(values, x.shape()), dtype)
            }
        };
        let y = if all_bf16(&[&x]) {
            by_blocks::<bf16>(&x, rows, &weight)
        } else {
            by_blocks::<f32>(&widened(x), rows, &weight)
        };
        rounded(tensor(y, shape), dtype)
    }
}

const LENGTHS: &str = "invariant: the lengths follow from the shapes of the tensors";

/// The matrix as `iiet-compress` takes it.
fn view<'a>(
    codes: &'a Primitive,
    scales: &'a Primitive,
    zeros: &'a Primitive,
    scheme: Scheme,
) -> PackedView<'a> {
    let [d_out, words] = codes.shape().dims();
    let d_in = words * 32 / scheme.bits().count();
    let from = codes.layout().start_offset() * size_of::<i32>();
    let bytes = &codes.bytes()[from..][..d_out * words * size_of::<i32>()];
    let dense = "invariant: dense, types checked before";
    let scales = scales.as_slice::<f16>().expect(dense);
    let zeros = match scheme.symmetric() {
        true => &[],
        false => zeros.as_slice::<u8>().expect(dense),
    };
    PackedView::new(scheme, d_out, d_in, bytes, scales, zeros).expect(LENGTHS)
}

/// `x W^T`, with some rows of W widened at a time.
fn by_blocks<T: Entry + Dequantised>(x: &Primitive, rows: usize, weight: &PackedView) -> Vec<f32> {
    let (d_out, d_in) = (weight.d_out(), weight.d_in());
    let x = View::rows(T::memory(x), rows, d_in);
    let mut y = vec![0.0; rows * d_out];
    let block = (BLOCK / d_in)
        .next_multiple_of(STRIP)
        .clamp(STRIP, d_out.max(STRIP));
    let mut wide = vec![T::default(); block.min(d_out) * d_in];
    for from in (0..d_out).step_by(block) {
        let count = block.min(d_out - from);
        let wide = &mut wide[..count * d_in];
        for_blocks(wide, STRIP * d_in, |i, part| {
            let first = from + i * STRIP;
            dequantise(part, weight, first..first + part.len() / d_in).expect(LENGTHS);
        });
        let to = ViewMut::new(&mut y[from..], [rows, count], [d_out, 1]);
        let w = View::rows(wide, count, d_in).transposed();
        gemm(to, Then::Replace, 1.0, x, w, Threads::All);
    }
    y
}
