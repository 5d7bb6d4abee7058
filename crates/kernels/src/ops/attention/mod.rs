//! Attention with grouped queries, `softmax(scale q k^T + mask) v`: causal, over padded keys, and crossed,
//! where queries and keys come from different texts. [`Visibility`] is the mask.
//!
//! Forward and backward passes are those of Dao, *FlashAttention-2* (arXiv 2307.08691), algorithms
//! 1 and 2: only the inputs, the output and each row's `lse = log sum_j exp(s_j)` are kept. The
//! weights `p = exp(s - lse)` are recomputed, a tile at a time in the flex kernel:
//!
//! ```text
//! dv = p^T dy          dp = dy v^T          delta = rowsum(dy * y)
//! ds = p * (dp - delta)        dq = scale ds k        dk = scale ds^T q
//! ```
//!
//! With dropout the weights are multiplied by a mask m after the softmax, `y = (m * p) v`. The mask is computed
//! again in the backward pass ([`DropoutMask`]), and delta remains a sum over the output:
//!
//! ```text
//! dv = (m * p)^T dy    dp = m * (dy v^T)    delta = rowsum(p * dp) = rowsum(dy * y)
//! ```
//!
//! Consecutive query heads share a key/value head (Ainslie et al., *GQA*, arXiv 2305.13245).

#[cfg(feature = "flex")]
pub(super) mod flex;
mod visibility;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::{Shape, Tensor, TensorData};

pub use self::visibility::Visibility;
pub(super) use self::visibility::future;
use crate::dropout::DropoutMask;
use crate::precision::{rounded, widened};
use crate::record::ComputeBound;
use crate::route::{composed, operation, routed};

/// Attention of every token to itself and to earlier tokens: [`attention`] where
/// [`Visibility::Causal`] says who sees whom.
///
/// # Shapes
///
/// - q and output: `[batch, n_heads, seq, head_dim]`
/// - k and v: `[batch, n_kv_heads, seq, head_dim]`
///
/// # Panics
///
/// The same as for [`attention`].
pub fn causal_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, scale: f64) -> Tensor<4> {
    attention(q, k, v, &Visibility::Causal, scale)
}

/// `softmax(scale q k^T + mask) v`, where a query attends to the keys that are visible to it.
///
/// # Shapes
///
/// - q and output: `[batch, n_heads, queries, head_dim]`
/// - k and v: `[batch, n_kv_heads, keys, head_dim]`; `n_heads / n_kv_heads` consecutive query heads
///   share a key/value head
///
/// Any memory layout is accepted. On flex the output is a view of `[batch, queries, n_heads,
/// head_dim]`, so that merging the heads is free.
///
/// # Panics
///
/// If the shapes or the visibility do not match, an axis is empty, or a row has no visible key.
pub fn attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    visible: &Visibility,
    scale: f64,
) -> Tensor<4> {
    mixed(q, k, v, visible, scale, None)
}

/// [`attention`] with dropout of the weights, `(m * softmax(scale q k^T + mask)) v`.
///
/// Row `(b n_heads + head) queries + query` of the mask m has that query's weights, and its columns are the
/// keys. Backends without a kernel compute the mask on the CPU, once in each pass.
///
/// # Shapes
///
/// The same as for [`attention`].
///
/// # Panics
///
/// The same as for [`attention`]; and if there are more than `2^32` rows.
pub fn dropped_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    visible: &Visibility,
    scale: f64,
    mask: &DropoutMask,
) -> Tensor<4> {
    let [batch, n_heads, queries, _] = q.dims();
    assert!(
        batch * n_heads * queries <= 1 << 32,
        "dropped_attention: q {:?} has more than 2^32 rows",
        q.dims()
    );
    mixed(q, k, v, visible, scale, Some(*mask))
}

fn mixed(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    visible: &Visibility,
    scale: f64,
    dropout: Option<DropoutMask>,
) -> Tensor<4> {
    let [batch, n_heads, queries, head_dim] = q.dims();
    let [_, n_kv_heads, keys, _] = k.dims();
    let mismatch = visible.mismatch(batch, queries, keys);
    assert!(
        queries > 0
            && keys > 0
            && head_dim > 0
            && k.dims() == [batch, n_kv_heads, keys, head_dim]
            && v.dims() == k.dims()
            && n_kv_heads > 0
            && n_heads.is_multiple_of(n_kv_heads)
            && mismatch.is_none(),
        "attention: q {:?}, k {:?} and v {:?} do not match{}",
        q.dims(),
        k.dims(),
        v.dims(),
        mismatch.map_or_else(String::new, |reason| format!(": {reason}"))
    );
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    let mix = Mix {
        visible: visible.clone(),
        scale,
        dropout,
    };
    let (y, _) = routed!(Attention::attend(q, k, v, &mix), else forward);
    Tensor::from_dispatch(y)
}

/// The constants of the operation.
#[derive(Debug, Clone)]
pub struct Mix {
    pub(super) visible: Visibility,
    pub(super) scale: f64,
    /// Of the weights.
    pub(super) dropout: Option<DropoutMask>,
}

operation! {
    /// Attention over a backend's own tensors.
    pub trait Attention: Backend {
        /// The mixed values, and the logarithm of each row's softmax denominator
        /// `[batch, n_heads, queries]`.
        fn attend(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            v: FloatTensor<Self>,
            mix: &Mix,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            forward::<Self>(q, k, v, mix)
        }

        /// Gradients to `q`, `k` and `v`.
        fn attend_backward(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            v: FloatTensor<Self>,
            out: FloatTensor<Self>,
            lse: FloatTensor<Self>,
            dy: FloatTensor<Self>,
            mix: &Mix,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            backward::<Self>(q, k, v, out, lse, dy, mix)
        }
    }
}

composed!(Attention: NdArray, Cube);

/// Merges the query heads of a group into the rows of one product with their shared keys, so that
/// keys and values are never repeated: `[batch, n_kv_heads, group * seq, columns]`.
pub(super) fn grouped<B: Backend>(x: FloatTensor<B>, n_kv_heads: usize) -> FloatTensor<B> {
    let [batch, n_heads, seq, columns] = x.shape().dims();
    let rows = n_heads / n_kv_heads * seq;
    B::float_reshape(x, Shape::from(vec![batch, n_kv_heads, rows, columns]))
}

/// Scores by query head, `[batch, n_heads, queries, keys]`, with -inf where the key is hidden from the
/// query; never in half precision. The mask broadcasts to the scores.
pub(super) fn scores<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    hidden: Option<BoolTensor<B>>,
    scale: f64,
) -> FloatTensor<B> {
    let [batch, n_heads, queries, _] = q.shape().dims();
    let keys = k.shape()[2];
    let q = grouped::<B>(q, k.shape()[1]);
    let s = widened::<B>(B::float_matmul(q, B::float_swap_dims(k, 2, 3)));
    let s = B::float_reshape(s, Shape::from(vec![batch, n_heads, queries, keys]));
    let s = B::float_mul_scalar(s, scale.into());
    match hidden {
        Some(hidden) => {
            let hidden = B::bool_expand(hidden, s.shape());
            B::float_mask_fill(s, hidden, f64::NEG_INFINITY.into())
        }
        None => s,
    }
}

/// The scores of a pass over whole texts.
fn visible_scores<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, mix: &Mix) -> FloatTensor<B> {
    let (queries, keys) = (q.shape()[2], k.shape()[2]);
    let hidden = mix.visible.hidden::<B>(queries, keys, &q.device());
    scores::<B>(q, k, hidden, mix.scale)
}

/// The weights, or gradients to them, times dropout's mask if there is one: `[batch, n_heads, queries, keys]`.
fn dropped<B: Backend>(weights: FloatTensor<B>, mix: &Mix) -> FloatTensor<B> {
    let Some(mask) = &mix.dropout else {
        return weights;
    };
    let shape = weights.shape();
    let [batch, n_heads, queries, keys] = shape.dims();
    let kept = mask.kept(batch * n_heads * queries, keys);
    let kept = TensorData::new::<f32, _>(kept, shape).convert_dtype(weights.dtype());
    let kept = B::float_from_data(kept, &weights.device());
    B::float_mul_scalar(B::float_mul(weights, kept), mask.scale().into())
}

pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    mix: &Mix,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = q.shape();
    let [batch, n_heads, queries, _] = shape.dims();
    let s = visible_scores::<B>(q, k, mix);
    let max = B::float_max_dim(B::float_detach(s.clone()), 3);
    let p = B::float_exp(B::float_sub(s, max.clone()));
    let sum = B::float_sum_dim(p.clone(), 3);
    let p = dropped::<B>(B::float_div(p, sum.clone()), mix);
    let p = rounded::<B>(p, v.dtype());
    let y = B::float_matmul(grouped::<B>(p, v.shape()[1]), v);
    let lse = B::float_add(B::float_log(sum), max);
    (
        B::float_reshape(y, shape),
        B::float_reshape(lse, Shape::from(vec![batch, n_heads, queries])),
    )
}

pub(super) fn backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    dy: FloatTensor<B>,
    mix: &Mix,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (shape, dtype) = (q.shape(), q.dtype());
    let [batch, n_heads, queries, _] = shape.dims();
    let n_kv_heads = k.shape()[1];
    let lse = B::float_reshape(lse, Shape::from(vec![batch, n_heads, queries, 1]));
    let p = B::float_exp(B::float_sub(
        visible_scores::<B>(q.clone(), k.clone(), mix),
        lse,
    ));
    let along = B::float_mul(widened::<B>(dy.clone()), widened::<B>(out));
    let delta = B::float_sum_dim(along, 3);
    let dy = grouped::<B>(dy, n_kv_heads);
    let dp = widened::<B>(B::float_matmul(dy.clone(), B::float_swap_dims(v, 2, 3)));
    let dp = dropped::<B>(B::float_reshape(dp, p.shape()), mix);
    let ds = B::float_mul(p.clone(), B::float_sub(dp, delta));
    let ds = rounded::<B>(B::float_mul_scalar(ds, mix.scale.into()), dtype);
    let (ds, p) = (
        grouped::<B>(ds, n_kv_heads),
        rounded::<B>(dropped::<B>(p, mix), dtype),
    );
    let dv = B::float_matmul(B::float_swap_dims(grouped::<B>(p, n_kv_heads), 2, 3), dy);
    let dq = B::float_reshape(B::float_matmul(ds.clone(), k), shape);
    let dk = B::float_matmul(B::float_swap_dims(ds, 2, 3), grouped::<B>(q, n_kv_heads));
    (dq, dk, dv)
}

impl<B: Attention, C: CheckpointStrategy> Attention for Autodiff<B, C> {
    /// The second output, the rows' `lse`, is not differentiable and is not tracked.
    fn attend(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        mix: &Mix,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (y, lse) = mix.clone().record::<C>([q, k, v]);
        (y, Self::from_inner(lse))
    }
}

impl<B: Attention> ComputeBound<B, 3, 3> for Mix {
    /// The output, its rows' `lse` and the constants.
    type Memory = (FloatTensor<B>, FloatTensor<B>, Self);
    type Aside = FloatTensor<B>;

    fn forward(self, [q, k, v]: [FloatTensor<B>; 3]) -> (FloatTensor<B>, Self::Aside) {
        B::attend(q, k, v, &self)
    }

    fn forward_with_memory(
        self,
        [q, k, v]: [FloatTensor<B>; 3],
    ) -> (FloatTensor<B>, Self::Aside, Self::Memory) {
        let (y, lse) = B::attend(q, k, v, &self);
        let memory = (y.clone(), lse.clone(), self);
        (y, lse, memory)
    }

    fn backward(
        (out, lse, mix): Self::Memory,
        [q, k, v]: [FloatTensor<B>; 3],
        dy: FloatTensor<B>,
    ) -> [FloatTensor<B>; 3] {
        B::attend_backward(q, k, v, out, lse, dy, &mix).into()
    }
}
