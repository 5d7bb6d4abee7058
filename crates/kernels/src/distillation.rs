//! Output projections of a student and its teacher and the distillation loss as one operation.
//!
//! With logits `z_t = h_t W` of the student and `u_t = g_t V` of the teacher, `q = softmax(z)`,
//! `p = softmax(u)` and a factor `f`,
//!
//! ```text
//! L    = sum_t c_t (-log q_t[target_t] + f KL(p_t || q_t))      KL = sum_i p_i (log p_i - log q_i)
//! dz_t = c_t ((1 + f) q_t - f p_t - onehot(target_t))
//! ```
//!
//! Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network* (arXiv 1503.02531), at
//! temperature one. As in [`linear_cross_entropy`](crate::linear_cross_entropy) the logits of both
//! exist for a chunk of tokens at a time, and gradients are formed in the forward pass; they flow to
//! the student alone.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::ops::{Backward, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Int, Shape, Tensor};

use crate::cross_entropy::{LossBackward, chunks};
use crate::ops::{FusedOps, is_routed};
use crate::rows::leading;

/// The two parts of a distillation loss, sums over tokens in nats, `[1]` each.
#[derive(Debug, Clone)]
pub struct DistillationLoss {
    /// Cross-entropy plus `factor` times the divergence; what to differentiate.
    pub loss: Tensor<1>,
    /// `KL(teacher || student)` alone, for the record; a constant.
    pub divergence: Tensor<1>,
}

/// `sum_t token_weights[t] * (cross_entropy_t + factor * KL(teacher_t || student_t))`.
///
/// # Shapes
///
/// - hidden: `[tokens, d_model]`, projection: `[d_model, vocab]`, the student's
/// - teacher_hidden: `[tokens, d_teacher]`, teacher_projection: `[d_teacher, vocab]`; constants
/// - targets: `[tokens]`, ids below `vocab`
/// - token_weights: `[tokens]`, 0 for padding; a constant
///
/// # Panics
///
/// If the shapes do not fit together, there are no tokens or, on flex, a target is no id below `vocab`.
pub fn linear_distillation(
    [hidden, projection]: [Tensor<2>; 2],
    [teacher_hidden, teacher_projection]: [Tensor<2>; 2],
    targets: Tensor<1, Int>,
    token_weights: Tensor<1>,
    factor: f64,
) -> DistillationLoss {
    let ([tokens, d_model], [d_in, vocab]) = (hidden.dims(), projection.dims());
    let (g, v) = (teacher_hidden.dims(), teacher_projection.dims());
    assert!(
        tokens > 0
            && d_in == d_model
            && g == [tokens, v[0]]
            && v[1] == vocab
            && targets.dims() == [tokens]
            && token_weights.dims() == [tokens],
        "linear_distillation: hidden {:?}, projection {:?}, teacher {g:?} and {v:?}, targets {:?} \
         and token_weights {:?} do not fit together",
        hidden.dims(),
        projection.dims(),
        targets.dims(),
        token_weights.dims()
    );
    let (h, w) = (hidden.into_dispatch(), projection.into_dispatch());
    let (g, v) = (
        teacher_hidden.detach().into_dispatch(),
        teacher_projection.detach().into_dispatch(),
    );
    let (targets, weights) = (targets.into_dispatch(), token_weights.into_dispatch());
    let (loss, divergence) = if is_routed(&h) {
        <Dispatch as FusedOps>::linear_distillation(h, w, g, v, targets, weights, factor)
    } else {
        forward::<Dispatch>([h, w], [g, v], targets, weights, factor)
    };
    DistillationLoss {
        loss: Tensor::from_dispatch(loss),
        divergence: Tensor::from_dispatch(divergence),
    }
}

pub(crate) fn forward<B: Backend>(
    [hidden, projection]: [FloatTensor<B>; 2],
    [teacher_hidden, teacher_projection]: [FloatTensor<B>; 2],
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    factor: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [tokens, _] = hidden.shape().dims();
    let sums = chunks(tokens, projection.shape()[1]).map(|range| {
        let student = LogSoftmax::<B>::new(&hidden, &projection, range);
        let teacher = LogSoftmax::<B>::new(&teacher_hidden, &teacher_projection, range);
        losses::<B>(&student, &teacher, &targets, &weights, range, factor)
    });
    sums.reduce(|(l, d), (loss, divergence)| (B::float_add(l, loss), B::float_add(d, divergence)))
        .expect("invariant: at least one chunk")
}

/// The loss, the divergence, and the gradients to `hidden` and `projection`.
#[allow(clippy::type_complexity, reason = "four tensors")]
pub(crate) fn with_gradients<B: Backend>(
    [hidden, projection]: [FloatTensor<B>; 2],
    [teacher_hidden, teacher_projection]: [FloatTensor<B>; 2],
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    factor: f64,
) -> (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
) {
    let [tokens, _] = hidden.shape().dims();
    let mut d_hidden = Vec::new();
    let mut sums: Option<[FloatTensor<B>; 3]> = None;
    for range in chunks(tokens, projection.shape()[1]) {
        let student = LogSoftmax::<B>::new(&hidden, &projection, range);
        let teacher = LogSoftmax::<B>::new(&teacher_hidden, &teacher_projection, range);
        let (loss, divergence) = losses::<B>(&student, &teacher, &targets, &weights, range, factor);
        let (targets, weights) = part::<B>(&targets, &weights, range);
        let q = B::float_mul_scalar(B::float_exp(student.log_p), (1.0 + factor).into());
        let p = B::float_mul_scalar(B::float_exp(teacher.log_p), factor.into());
        let dz = B::float_mul(B::float_sub(q, p), weights.clone());
        let taken = B::float_neg(weights);
        let dz = B::float_scatter(1, dz, targets, taken, IndexingUpdateOp::Add);
        let back = B::float_swap_dims(projection.clone(), 0, 1);
        d_hidden.push(B::float_matmul(dz.clone(), back));
        let d_projection = B::float_matmul(B::float_swap_dims(student.hidden, 0, 1), dz);
        let terms = [loss, divergence, d_projection];
        sums = Some(match sums {
            None => terms,
            Some([a, b, c]) => {
                let [x, y, z] = terms;
                [B::float_add(a, x), B::float_add(b, y), B::float_add(c, z)]
            }
        });
    }
    let [loss, divergence, d_projection] = sums.expect("invariant: at least one chunk");
    (loss, divergence, B::float_cat(d_hidden, 0), d_projection)
}

/// A few tokens with the logarithms of their probabilities.
struct LogSoftmax<B: Backend> {
    /// `[chunk, d_model]`
    hidden: FloatTensor<B>,
    /// `[chunk, vocab]`
    log_p: FloatTensor<B>,
}

impl<B: Backend> LogSoftmax<B> {
    fn new(
        hidden: &FloatTensor<B>,
        projection: &FloatTensor<B>,
        (from, to): (usize, usize),
    ) -> Self {
        let hidden = B::float_slice(hidden.clone(), &[leading(from, to)]);
        let z = B::float_matmul(hidden.clone(), projection.clone());
        let z = B::float_sub(z.clone(), B::float_max_dim(B::float_detach(z), 1));
        let sum = B::float_sum_dim(B::float_exp(z.clone()), 1);
        Self {
            hidden,
            log_p: B::float_sub(z, B::float_log(sum)),
        }
    }
}

/// A chunk's targets and weights as columns.
fn part<B: Backend>(
    targets: &IntTensor<B>,
    weights: &FloatTensor<B>,
    (from, to): (usize, usize),
) -> (IntTensor<B>, FloatTensor<B>) {
    let (range, column) = ([leading(from, to)], Shape::from(vec![to - from, 1]));
    (
        B::int_reshape(B::int_slice(targets.clone(), &range), column.clone()),
        B::float_reshape(B::float_slice(weights.clone(), &range), column),
    )
}

/// A chunk's loss and divergence, `[1]` each.
fn losses<B: Backend>(
    student: &LogSoftmax<B>,
    teacher: &LogSoftmax<B>,
    targets: &IntTensor<B>,
    weights: &FloatTensor<B>,
    range: (usize, usize),
    factor: f64,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let (targets, weights) = part::<B>(targets, weights, range);
    let sum = |x| {
        let sum = B::float_sum(B::float_mul(x, weights.clone()));
        B::float_reshape(sum, Shape::from(vec![1]))
    };
    let apart = B::float_sub(teacher.log_p.clone(), student.log_p.clone());
    let terms = B::float_mul(B::float_exp(teacher.log_p.clone()), apart);
    let divergence = sum(B::float_sum_dim(terms, 1));
    let taken = sum(B::float_gather(1, student.log_p.clone(), targets));
    let weighted = B::float_mul_scalar(divergence.clone(), factor.into());
    (B::float_sub(weighted, taken), divergence)
}

/// The second output goes untracked.
pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    [hidden, projection]: [FloatTensor<Autodiff<B, C>>; 2],
    teacher: [FloatTensor<Autodiff<B, C>>; 2],
    targets: IntTensor<B>,
    weights: FloatTensor<Autodiff<B, C>>,
    factor: f64,
) -> [FloatTensor<Autodiff<B, C>>; 2] {
    let nodes = [hidden.node(), projection.node()];
    let prepared = Backward::<B, 2>::prepare::<C>(LossBackward, nodes)
        .compute_bound()
        .stateful();
    let (h, w) = (hidden.into_primitive(), projection.into_primitive());
    let [g, v] = teacher.map(|x| x.into_primitive());
    let weights = weights.into_primitive();
    let (loss, divergence) = match prepared {
        OpsKind::Tracked(prepared) => {
            let (loss, divergence, dh, dw) =
                B::linear_distillation_with_gradients(h, w, g, v, targets, weights, factor);
            (prepared.finish((dh, dw), loss), divergence)
        }
        OpsKind::UnTracked(prepared) => {
            let (loss, divergence) = B::linear_distillation(h, w, g, v, targets, weights, factor);
            (prepared.finish(loss), divergence)
        }
    };
    let divergence = <Autodiff<B, C> as AutodiffBackend>::from_inner(divergence);
    [loss, divergence]
}
