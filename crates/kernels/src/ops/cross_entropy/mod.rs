//! The output projection and the loss as one operation, without the logits between them.
//!
//! `L = sum_t c_t (lse(z_t) - z_t[target_t])` with `z_t = h_t W`. The logits of a chunk of tokens exist only
//! until they have been turned into the loss and, if gradients are needed, into
//!
//! ```text
//! dz_t = c_t (softmax(z_t) - onehot(target_t))       dh_t = dz_t W^T       dW += h_t^T dz_t
//! ```
//!
//! in the forward pass already; the backward pass multiplies them by the incoming gradient. This is the
//! scheme of Hsu et al., *Liger Kernel* (arXiv 2410.10989), section 3.2. Recomputing the logits in the
//! backward pass would save memory for a gradient but costs a third more arithmetic.

#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Int, Shape, Tensor};

use super::rows::leading;
use crate::precision::{rounded, widened};
use crate::record::ComputeBound;
use crate::route::{composed, operation, routed};

/// `sum_t token_weights[t] * -log softmax(hidden[t] projection)[targets[t]]`, in nats.
///
/// A sum; for a mean over tokens, scale the weights or divide. Logits `[tokens, vocab]` never exist in full,
/// only those of a chunk of tokens.
///
/// # Shapes
///
/// - hidden: `[tokens, d_model]`
/// - projection: `[d_model, vocab]`, possibly a transposed view of an embedding
/// - targets: `[tokens]`, ids below `vocab`
/// - token_weights: `[tokens]`, 0 for padding; a constant, no gradient flows to it
/// - output: `[1]`
///
/// # Panics
///
/// If the shapes do not match, there are no tokens or, on flex, a target is not below `vocab`.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    projection: Tensor<2>,
    targets: Tensor<1, Int>,
    token_weights: Tensor<1>,
) -> Tensor<1> {
    let [tokens, d_model] = hidden.dims();
    assert!(
        tokens > 0
            && projection.dims()[0] == d_model
            && targets.dims() == [tokens]
            && token_weights.dims() == [tokens],
        "linear_cross_entropy: hidden {:?}, projection {:?}, targets {:?} and token_weights {:?} \
         do not match",
        hidden.dims(),
        projection.dims(),
        targets.dims(),
        token_weights.dims()
    );
    let (hidden, projection) = (hidden.into_dispatch(), projection.into_dispatch());
    let (targets, weights) = (targets.into_dispatch(), token_weights.into_dispatch());
    Tensor::from_dispatch(routed!(
        LinearCrossEntropy::linear_cross_entropy(hidden, projection, targets, weights),
        else forward
    ))
}

operation! {
    /// The loss over a backend's own tensors.
    pub trait LinearCrossEntropy: Backend {
        fn linear_cross_entropy(
            hidden: FloatTensor<Self>,
            projection: FloatTensor<Self>,
            targets: IntTensor<Self>,
            token_weights: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            forward::<Self>(hidden, projection, targets, token_weights)
        }

        /// The loss, and its gradients to `hidden` and `projection`.
        fn linear_cross_entropy_with_gradients(
            hidden: FloatTensor<Self>,
            projection: FloatTensor<Self>,
            targets: IntTensor<Self>,
            token_weights: FloatTensor<Self>,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            with_gradients::<Self>(hidden, projection, targets, token_weights)
        }

        /// `x` times a tensor of one element; the last operation of a loss's backward pass.
        fn scaled(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
            scaled::<Self>(x, factor)
        }
    }
}

composed!(LinearCrossEntropy: NdArray, Cube);

/// The number of tokens whose logits [`linear_cross_entropy`] computes together, of `tokens` in all: such that they
/// take at most 64 MiB of f32, but at least 16.
pub fn tokens_per_chunk(tokens: usize, vocab: usize) -> usize {
    const LOGITS: usize = 1 << 24;
    (LOGITS / vocab.max(1)).clamp(16, tokens.max(16))
}

pub(super) fn forward<B: Backend>(
    hidden: FloatTensor<B>,
    projection: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
) -> FloatTensor<B> {
    let [tokens, _] = hidden.shape().dims();
    let losses = chunks(tokens, projection.shape()[1]).map(|(from, to)| {
        Chunk::<B>::new(&hidden, &projection, &targets, &weights, from, to).loss()
    });
    let sum = losses
        .reduce(B::float_add)
        .expect("invariant: at least one chunk");
    B::float_reshape(sum, Shape::from(vec![1]))
}

pub(crate) fn with_gradients<B: Backend>(
    hidden: FloatTensor<B>,
    projection: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [tokens, _] = hidden.shape().dims();
    let mut d_hidden = Vec::new();
    let mut sums: Option<(FloatTensor<B>, FloatTensor<B>)> = None;
    for (from, to) in chunks(tokens, projection.shape()[1]) {
        let chunk = Chunk::<B>::new(&hidden, &projection, &targets, &weights, from, to);
        let loss = chunk.loss();
        let dz = rounded::<B>(chunk.gradient(), projection.dtype());
        d_hidden.push(B::float_matmul(
            dz.clone(),
            B::float_swap_dims(projection.clone(), 0, 1),
        ));
        let back = B::float_swap_dims(chunk.hidden, 0, 1);
        let d_projection = widened::<B>(B::float_matmul(back, dz));
        sums = Some(match sums {
            None => (loss, d_projection),
            Some((l, d)) => (B::float_add(l, loss), B::float_add(d, d_projection)),
        });
    }
    let (loss, d_projection) = sums.expect("invariant: at least one chunk");
    (
        B::float_reshape(loss, Shape::from(vec![1])),
        B::float_cat(d_hidden, 0),
        d_projection,
    )
}

pub(crate) fn scaled<B: Backend>(x: FloatTensor<B>, factor: FloatTensor<B>) -> FloatTensor<B> {
    let (rank, dtype) = (x.shape().num_dims(), x.dtype());
    let factor = B::float_reshape(factor, Shape::from(vec![1; rank]));
    rounded::<B>(B::float_mul(widened::<B>(x), factor), dtype)
}

/// Ranges of tokens.
pub(crate) fn chunks(tokens: usize, vocab: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = tokens_per_chunk(tokens, vocab);
    (0..tokens)
        .step_by(size)
        .map(move |from| (from, (from + size).min(tokens)))
}

/// A chunk of tokens with their logits.
struct Chunk<B: Backend> {
    /// `[chunk, d_model]`
    hidden: FloatTensor<B>,
    /// `[chunk, 1]`
    targets: IntTensor<B>,
    /// `[chunk, 1]`
    weights: FloatTensor<B>,
    /// Logits minus their row's maximum, `[chunk, vocab]`.
    z: FloatTensor<B>,
    /// `exp(z)`.
    exp: FloatTensor<B>,
    /// The sums of its rows, `[chunk, 1]`.
    sum: FloatTensor<B>,
}

impl<B: Backend> Chunk<B> {
    fn new(
        hidden: &FloatTensor<B>,
        projection: &FloatTensor<B>,
        targets: &IntTensor<B>,
        weights: &FloatTensor<B>,
        from: usize,
        to: usize,
    ) -> Self {
        let column = Shape::from(vec![to - from, 1]);
        let range = [leading(from, to)];
        let hidden = B::float_slice(hidden.clone(), &range);
        let targets = B::int_slice(targets.clone(), &range);
        let weights = B::float_slice(weights.clone(), &range);
        let z = widened::<B>(B::float_matmul(hidden.clone(), projection.clone()));
        let max = B::float_max_dim(B::float_detach(z.clone()), 1);
        let z = B::float_sub(z, max);
        let exp = B::float_exp(z.clone());
        Self {
            hidden,
            targets: B::int_reshape(targets, column.clone()),
            weights: B::float_reshape(weights, column),
            z,
            sum: B::float_sum_dim(exp.clone(), 1),
            exp,
        }
    }

    fn loss(&self) -> FloatTensor<B> {
        let target = B::float_gather(1, self.z.clone(), self.targets.clone());
        let losses = B::float_sub(B::float_log(self.sum.clone()), target);
        B::float_sum(B::float_mul(losses, self.weights.clone()))
    }

    /// `dz`.
    fn gradient(&self) -> FloatTensor<B> {
        let p = B::float_mul(
            self.exp.clone(),
            B::float_div(self.weights.clone(), self.sum.clone()),
        );
        let taken = B::float_neg(self.weights.clone());
        B::float_scatter(1, p, self.targets.clone(), taken, IndexingUpdateOp::Add)
    }
}

impl<B: LinearCrossEntropy, C: CheckpointStrategy> LinearCrossEntropy for Autodiff<B, C> {
    fn linear_cross_entropy(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        targets: IntTensor<B>,
        token_weights: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let weights = token_weights.into_primitive();
        let loss = CrossEntropy::<B> { targets, weights };
        loss.record::<C>([hidden, projection]).0
    }
}

#[derive(Debug)]
struct CrossEntropy<B: Backend> {
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
}

impl<B: LinearCrossEntropy> ComputeBound<B, 2, 0> for CrossEntropy<B> {
    /// The gradients, before multiplication by the incoming one.
    type Memory = [FloatTensor<B>; 2];
    type Aside = ();

    fn forward(self, [hidden, projection]: [FloatTensor<B>; 2]) -> (FloatTensor<B>, ()) {
        let Self { targets, weights } = self;
        (
            B::linear_cross_entropy(hidden, projection, targets, weights),
            (),
        )
    }

    fn forward_with_memory(
        self,
        [hidden, projection]: [FloatTensor<B>; 2],
    ) -> (FloatTensor<B>, (), Self::Memory) {
        let Self { targets, weights } = self;
        let (loss, d_hidden, d_projection) =
            B::linear_cross_entropy_with_gradients(hidden, projection, targets, weights);
        (loss, (), [d_hidden, d_projection])
    }

    fn backward(
        gradients: Self::Memory,
        []: [FloatTensor<B>; 0],
        dy: FloatTensor<B>,
    ) -> [FloatTensor<B>; 2] {
        gradients.map(|gradient| B::scaled(gradient, dy.clone()))
    }
}
