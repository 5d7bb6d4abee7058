//! Causal attention with grouped queries, `softmax(scale q k^T + mask) v`.
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
//! Consecutive query heads share a key/value head (Ainslie et al., *GQA*, arXiv 2305.13245).

#[cfg(feature = "flex")]
pub(super) mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata, get_device_settings};
use burn::tensor::{Shape, Tensor};

use crate::precision::{rounded, widened};
use crate::record::ComputeBound;
use crate::route::{composed, operation, routed};

/// Attention of every token to itself and to earlier tokens: `softmax(scale q k^T + mask) v`.
///
/// # Shapes
///
/// - q and output: `[batch, n_heads, seq, head_dim]`
/// - k and v: `[batch, n_kv_heads, seq, head_dim]`; `n_heads / n_kv_heads` consecutive query heads
///   share a key/value head
///
/// Any memory layout is accepted. On flex the output is a view of `[batch, seq, n_heads,
/// head_dim]`, so that merging the heads is free.
///
/// # Panics
///
/// If the shapes do not match, or an axis is empty.
pub fn causal_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, scale: f64) -> Tensor<4> {
    let [batch, n_heads, seq, head_dim] = q.dims();
    let n_kv_heads = k.dims()[1];
    assert!(
        seq > 0
            && head_dim > 0
            && k.dims() == [batch, n_kv_heads, seq, head_dim]
            && v.dims() == k.dims()
            && n_kv_heads > 0
            && n_heads.is_multiple_of(n_kv_heads),
        "causal_attention: q {:?}, k {:?} and v {:?} do not match",
        q.dims(),
        k.dims(),
        v.dims()
    );
    let (q, k, v) = (q.into_dispatch(), k.into_dispatch(), v.into_dispatch());
    let (y, _) = routed!(CausalAttention::causal_attention(q, k, v, scale), else forward);
    Tensor::from_dispatch(y)
}

operation! {
    /// Attention over a backend's own tensors.
    pub trait CausalAttention: Backend {
        /// The mixed values, and the logarithm of each row's softmax denominator
        /// `[batch, n_heads, seq]`.
        fn causal_attention(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            v: FloatTensor<Self>,
            scale: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            forward::<Self>(q, k, v, scale)
        }

        /// Gradients to `q`, `k` and `v`.
        fn causal_attention_backward(
            q: FloatTensor<Self>,
            k: FloatTensor<Self>,
            v: FloatTensor<Self>,
            out: FloatTensor<Self>,
            lse: FloatTensor<Self>,
            dy: FloatTensor<Self>,
            scale: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
            backward::<Self>(q, k, v, out, lse, dy, scale)
        }
    }
}

composed!(CausalAttention: NdArray, Cube);

/// Merges the query heads of a group into the rows of one product with their shared keys, so that
/// keys and values are never repeated: `[batch, n_kv_heads, group * seq, columns]`.
pub(super) fn grouped<B: Backend>(x: FloatTensor<B>, n_kv_heads: usize) -> FloatTensor<B> {
    let [batch, n_heads, seq, columns] = x.shape().dims();
    let rows = n_heads / n_kv_heads * seq;
    B::float_reshape(x, Shape::from(vec![batch, n_kv_heads, rows, columns]))
}

/// Scores by query head, `[batch, n_heads, queries, keys]`, with -inf where the key comes after the
/// query; never in half precision. The first query has index `first` among the keys.
pub(super) fn scores<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    first: usize,
    scale: f64,
) -> FloatTensor<B> {
    let [batch, n_heads, queries, _] = q.shape().dims();
    let keys = k.shape()[2];
    let q = grouped::<B>(q, k.shape()[1]);
    let s = widened::<B>(B::float_matmul(q, B::float_swap_dims(k, 2, 3)));
    let s = B::float_reshape(s, Shape::from(vec![batch, n_heads, queries, keys]));
    let s = B::float_mul_scalar(s, scale.into());
    let hidden = B::bool_expand(future::<B>(&s, first), s.shape());
    B::float_mask_fill(s, hidden, f64::NEG_INFINITY.into())
}

/// True where the key comes after the query, `[1, 1, queries, keys]`.
fn future<B: Backend>(scores: &FloatTensor<B>, first: usize) -> BoolTensor<B> {
    let [_, _, queries, keys] = scores.shape().dims();
    let device = scores.device();
    let settings = get_device_settings::<B>(&device);
    let positions = |from: usize, n: usize, shape| {
        let positions = B::int_arange(from as i64..(from + n) as i64, &device, settings.int_dtype);
        B::int_reshape(positions, Shape::from(shape))
    };
    let queries = positions(first, queries, vec![1, 1, queries, 1]);
    let keys = positions(0, keys, vec![1, 1, 1, keys]);
    B::int_lower_elem(B::int_sub(queries, keys), 0.into(), settings.bool_dtype)
}

pub(super) fn forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    scale: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let shape = q.shape();
    let [batch, n_heads, seq, _] = shape.dims();
    let s = scores::<B>(q, k, 0, scale);
    let max = B::float_max_dim(B::float_detach(s.clone()), 3);
    let p = B::float_exp(B::float_sub(s, max.clone()));
    let sum = B::float_sum_dim(p.clone(), 3);
    let p = rounded::<B>(B::float_div(p, sum.clone()), v.dtype());
    let y = B::float_matmul(grouped::<B>(p, v.shape()[1]), v);
    let lse = B::float_add(B::float_log(sum), max);
    (
        B::float_reshape(y, shape),
        B::float_reshape(lse, Shape::from(vec![batch, n_heads, seq])),
    )
}

pub(super) fn backward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    dy: FloatTensor<B>,
    scale: f64,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let (shape, dtype) = (q.shape(), q.dtype());
    let [batch, n_heads, seq, _] = shape.dims();
    let n_kv_heads = k.shape()[1];
    let lse = B::float_reshape(lse, Shape::from(vec![batch, n_heads, seq, 1]));
    let p = B::float_exp(B::float_sub(
        scores::<B>(q.clone(), k.clone(), 0, scale),
        lse,
    ));
    let along = B::float_mul(widened::<B>(dy.clone()), widened::<B>(out));
    let delta = B::float_sum_dim(along, 3);
    let dy = grouped::<B>(dy, n_kv_heads);
    let dp = widened::<B>(B::float_matmul(dy.clone(), B::float_swap_dims(v, 2, 3)));
    let dp = B::float_reshape(dp, p.shape());
    let ds = B::float_mul(p.clone(), B::float_sub(dp, delta));
    let ds = rounded::<B>(B::float_mul_scalar(ds, scale.into()), dtype);
    let (ds, p) = (grouped::<B>(ds, n_kv_heads), rounded::<B>(p, dtype));
    let dv = B::float_matmul(B::float_swap_dims(grouped::<B>(p, n_kv_heads), 2, 3), dy);
    let dq = B::float_reshape(B::float_matmul(ds.clone(), k), shape);
    let dk = B::float_matmul(B::float_swap_dims(ds, 2, 3), grouped::<B>(q, n_kv_heads));
    (dq, dk, dv)
}

impl<B: CausalAttention, C: CheckpointStrategy> CausalAttention for Autodiff<B, C> {
    /// The second output, the rows' `lse`, is not differentiable and is not tracked.
    fn causal_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        scale: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (y, lse) = Attention { scale }.record::<C>([q, k, v]);
        (y, Self::from_inner(lse))
    }
}

#[derive(Debug)]
struct Attention {
    scale: f64,
}

impl<B: CausalAttention> ComputeBound<B, 3, 3> for Attention {
    /// The output, its rows' `lse` and the scale.
    type Memory = (FloatTensor<B>, FloatTensor<B>, f64);
    type Aside = FloatTensor<B>;

    fn forward(self, [q, k, v]: [FloatTensor<B>; 3]) -> (FloatTensor<B>, Self::Aside) {
        B::causal_attention(q, k, v, self.scale)
    }

    fn forward_with_memory(
        self,
        [q, k, v]: [FloatTensor<B>; 3],
    ) -> (FloatTensor<B>, Self::Aside, Self::Memory) {
        let (y, lse) = B::causal_attention(q, k, v, self.scale);
        let memory = (y.clone(), lse.clone(), self.scale);
        (y, lse, memory)
    }

    fn backward(
        (out, lse, scale): Self::Memory,
        [q, k, v]: [FloatTensor<B>; 3],
        dy: FloatTensor<B>,
    ) -> [FloatTensor<B>; 3] {
        B::causal_attention_backward(q, k, v, out, lse, dy, scale).into()
    }
}
