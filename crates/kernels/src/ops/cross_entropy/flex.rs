//! Linear cross-entropy, a chunk of tokens at a time: one matrix product writes the logits, each row of
//! logits is replaced by its gradient, and two more products read it.

use std::marker::PhantomData;

use burn::backend::tensor::IntTensor;
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{DType, Shape, bf16};
use rayon::prelude::*;

use super::LinearCrossEntropy;
use super::tokens_per_chunk;
use crate::flex::Primitive;
use crate::flex::buffer::{
    all_f32, block_of_rows, dense, for_blocks, owned, tensor, values, values_mut,
};
use crate::flex::exp::exp;
use crate::flex::gemm::{Entry, Then, Threads, View, ViewMut, gemm, product};
use crate::flex::halves::{all_bf16, rounded};
use crate::flex::simd::{larger, map_sum, reduce, vectorised};
use crate::ops::linear::flex::{matrix, upright};

impl LinearCrossEntropy for Flex {
    fn linear_cross_entropy(
        hidden: Primitive,
        projection: Primitive,
        targets: IntTensor<Self>,
        weights: Primitive,
    ) -> Primitive {
        if all_f32(&[&hidden, &projection, &weights]) {
            forward::<f32>(hidden, projection, targets, weights)
        } else if all_bf16(&[&hidden, &projection]) && all_f32(&[&weights]) {
            forward::<bf16>(hidden, projection, targets, weights)
        } else {
            super::forward::<Self>(hidden, projection, targets, weights)
        }
    }

    fn linear_cross_entropy_with_gradients(
        hidden: Primitive,
        projection: Primitive,
        targets: IntTensor<Self>,
        weights: Primitive,
    ) -> (Primitive, Primitive, Primitive) {
        if all_f32(&[&hidden, &projection, &weights]) {
            with_gradients::<f32>(hidden, projection, targets, weights)
        } else if all_bf16(&[&hidden, &projection]) && all_f32(&[&weights]) {
            with_gradients::<bf16>(hidden, projection, targets, weights)
        } else {
            super::with_gradients::<Self>(hidden, projection, targets, weights)
        }
    }

    fn scaled(x: Primitive, factor: Primitive) -> Primitive {
        if all_f32(&[&x, &factor]) {
            scaled(x, factor)
        } else {
            super::scaled::<Self>(x, factor)
        }
    }
}

vectorised! {
    /// `log sum exp` of a row.
    fn log_sum_exp(z: &[f32]) -> f32 {
        let max = reduce(z, f32::NEG_INFINITY, |z| z, larger);
        let sum = reduce(z, 0.0, |z| exp(z - max), |a, b| a + b);
        max + sum.ln()
    }

    /// Replaces a row of logits by `weight * softmax`; returns its `log sum exp`.
    fn soften(z: &mut [f32], weight: f32) -> f32 {
        let max = reduce(z, f32::NEG_INFINITY, |z| z, larger);
        let sum = map_sum(z, |z| exp(z - max));
        let factor = weight / sum;
        for p in z {
            *p *= factor;
        }
        max + sum.ln()
    }

    fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

/// The operation's inputs as slices and views; hidden states and projection are of type `T`.
pub(crate) struct Inputs<T = f32> {
    pub(crate) hidden: Primitive,
    projection: Primitive,
    pub(crate) targets: Vec<usize>,
    pub(crate) weights: Primitive,
    pub(crate) tokens: usize,
    pub(crate) d_model: usize,
    pub(crate) vocab: usize,
    of: PhantomData<T>,
}

impl<T: Entry> Inputs<T> {
    pub(crate) fn new(
        hidden: Primitive,
        projection: Primitive,
        targets: IntTensor<Flex>,
        weights: Primitive,
    ) -> Self {
        let [tokens, d_model] = hidden.shape().dims();
        let vocab = projection.shape()[1];
        Self {
            hidden: dense(hidden),
            projection: upright(projection),
            targets: ids(targets, vocab),
            weights: dense(weights),
            tokens,
            d_model,
            vocab,
            of: PhantomData,
        }
    }

    pub(crate) fn projection(&self) -> View<'_, T> {
        matrix(&self.projection)
    }

    /// Calls `f` with the first token of each chunk, its hidden states and its logits.
    pub(crate) fn for_chunks(&self, mut f: impl FnMut(usize, View<T>, &mut [f32])) {
        let chunk = tokens_per_chunk(self.tokens, self.vocab);
        let hidden = &T::memory(&self.hidden)[..self.tokens * self.d_model];
        let chunks = hidden.chunks(chunk * self.d_model);
        for (i, hidden) in chunks.enumerate() {
            let n = hidden.len() / self.d_model;
            let hidden = View::rows(hidden, n, self.d_model);
            let mut logits = product(1.0, hidden, self.projection());
            f(i * chunk, hidden, &mut logits);
        }
    }

    /// Whether the projection is stored as its transpose. Then its gradient is too, so that it can be added
    /// to the gradient of a tied embedding.
    fn lies_transposed(&self) -> bool {
        let strides = self.projection.layout().strides();
        strides[0] < strides[1]
    }

    /// The gradient to the projection as a tensor.
    pub(crate) fn projection_tensor(&self, values: Vec<f32>) -> Primitive {
        if self.lies_transposed() {
            tensor(values, Shape::from(vec![self.vocab, self.d_model])).transpose(0, 1)
        } else {
            tensor(values, Shape::from(vec![self.d_model, self.vocab]))
        }
    }

    /// Multiplies the gradients to a chunk's logits to get those to its hidden states, and adds to the
    /// gradient to the projection, which is empty before the first chunk.
    pub(crate) fn add_gradients(
        &self,
        first: usize,
        hidden: View<T>,
        dz: &[T],
        d_hidden: &mut [f32],
        d_projection: &mut Vec<f32>,
    ) {
        let Self { d_model, vocab, .. } = *self;
        let n = dz.len() / vocab;
        let dz = View::rows(dz, n, vocab);
        let part = &mut d_hidden[first * d_model..(first + n) * d_model];
        let part = ViewMut::rows(part, n, d_model);
        let back = self.projection().transposed();
        gemm(part, Then::Replace, 1.0, dz, back, Threads::All);
        let (x, y) = match self.lies_transposed() {
            true => (dz.transposed(), hidden),
            false => (hidden.transposed(), dz),
        };
        if d_projection.is_empty() {
            *d_projection = product(1.0, x, y);
        } else {
            let sum = ViewMut::rows(d_projection, x.shape()[0], y.shape()[1]);
            gemm(sum, Then::Add, 1.0, x, y, Threads::All);
        }
    }

    /// Applies `f` to the chunk's rows with their target and weight, in parallel; results are in the tokens'
    /// order.
    fn losses(
        &self,
        first: usize,
        logits: &mut [f32],
        f: impl Fn(&mut [f32], usize, f32) -> f32 + Sync,
    ) -> Vec<f32> {
        let weights = &values(&self.weights)[first..];
        logits
            .par_chunks_exact_mut(self.vocab)
            .zip(&self.targets[first..])
            .zip(weights)
            .map(|((z, &target), &weight)| f(z, target, weight))
            .collect()
    }
}

/// Token ids, every one below `vocab`.
fn ids(targets: IntTensor<Flex>, vocab: usize) -> Vec<usize> {
    let targets = dense(targets);
    let wide: Vec<i64> = match targets.dtype() {
        DType::I32 => each(targets.as_slice::<i32>()),
        DType::I64 => each(targets.as_slice::<i64>()),
        DType::U32 => each(targets.as_slice::<u32>()),
        DType::I16 => each(targets.as_slice::<i16>()),
        DType::U16 => each(targets.as_slice::<u16>()),
        DType::U8 => each(targets.as_slice::<u8>()),
        dtype => panic!("linear_cross_entropy: targets of type {dtype:?}"),
    };
    let id = |id: i64| match usize::try_from(id) {
        Ok(id) if id < vocab => id,
        _ => panic!("linear_cross_entropy: target {id} in a vocabulary of {vocab}"),
    };
    wide.into_iter().map(id).collect()
}

fn each<T: Copy + Into<i64>>(ids: Option<&[T]>) -> Vec<i64> {
    let ids = ids.expect("invariant: dense, of this type");
    ids.iter().map(|&id| id.into()).collect()
}

/// In f64, so that the sum over a large batch keeps its precision.
pub(crate) fn total(losses: &[f32]) -> f64 {
    losses.iter().map(|&loss| f64::from(loss)).sum()
}

pub(crate) fn scalar(loss: f64) -> Primitive {
    tensor(vec![loss as f32], Shape::from(vec![1]))
}

fn forward<T: Entry>(
    hidden: Primitive,
    projection: Primitive,
    targets: IntTensor<Flex>,
    weights: Primitive,
) -> Primitive {
    let inputs = Inputs::<T>::new(hidden, projection, targets, weights);
    let mut loss = 0.0;
    inputs.for_chunks(|first, _, logits| {
        let losses = inputs.losses(first, logits, |z, target, weight| {
            weight * (log_sum_exp(z) - z[target])
        });
        loss += total(&losses);
    });
    scalar(loss)
}

fn with_gradients<T: Entry>(
    hidden: Primitive,
    projection: Primitive,
    targets: IntTensor<Flex>,
    weights: Primitive,
) -> (Primitive, Primitive, Primitive) {
    let inputs = Inputs::<T>::new(hidden, projection, targets, weights);
    let (tokens, d_model) = (inputs.tokens, inputs.d_model);
    let mut loss = 0.0;
    let mut d_hidden = vec![0.0; tokens * d_model];
    let mut d_projection = Vec::new();
    let mut rounded_logits = Vec::new();
    inputs.for_chunks(|first, hidden, logits| {
        let losses = inputs.losses(first, logits, |z, target, weight| {
            let picked = z[target];
            let lse = soften(z, weight);
            z[target] -= weight;
            weight * (lse - picked)
        });
        loss += total(&losses);
        let dz = T::rounded(logits, &mut rounded_logits);
        inputs.add_gradients(first, hidden, dz, &mut d_hidden, &mut d_projection);
    });
    let d_projection = inputs.projection_tensor(d_projection);
    let d_hidden = tensor(d_hidden, Shape::from(vec![tokens, d_model]));
    let d_hidden = rounded(d_hidden, inputs.hidden.dtype());
    (scalar(loss), d_hidden, d_projection)
}

fn scaled(x: Primitive, factor: Primitive) -> Primitive {
    let factor = values(&dense(factor))[0];
    // A transposed matrix is scaled in memory order.
    let shape = x.shape();
    let flip = shape.num_dims() == 2 && !x.is_contiguous();
    let x = if flip {
        let flipped = x.transpose(0, 1);
        drop(x);
        flipped
    } else {
        x
    };
    let mut x = owned(x);
    if factor != 1.0 {
        for_blocks(values_mut(&mut x), block_of_rows(1), |_, x| {
            scale(x, factor)
        });
    }
    if flip { x.transpose(0, 1) } else { x }
}
