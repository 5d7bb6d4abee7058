//! The output projections of a student and its teacher and the distillation loss as one operation.
//!
//! With logits `z_t = h_t W` of the student and `u_t = g_t V` of the teacher, weights a and b, and
//! `q = softmax(z / T)`, `p = softmax(u / T)` at a temperature T,
//!
//! ```text
//! L    = sum_t c_t (a (-log softmax(z_t)[target_t]) + b T^2 KL(p_t || q_t))
//! KL   = sum_i p_i (log p_i - log q_i)
//! dz_t = c_t (a (softmax(z_t) - onehot(target_t)) + b T (q_t - p_t))
//! ```
//!
//! Hinton, Vinyals and Dean, *Distilling the Knowledge in a Neural Network* (arXiv 1503.02531): the factor
//! `T^2` keeps the scale of the divergence's gradient roughly independent of the temperature. As in
//! [`linear_cross_entropy`](crate::linear_cross_entropy), the logits of both models exist for one chunk of
//! tokens at a time, and gradients are computed in the forward pass; they flow to the student only.

#[cfg(feature = "flex")]
mod flex;

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Int, Shape, Tensor};

use super::cross_entropy::{LinearCrossEntropy, chunks};
use super::rows::leading;
use crate::precision::{rounded, widened};
use crate::record::ComputeBound;
use crate::route::{composed, operation, routed};

/// The weights of a distillation loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DistillationMix {
    /// `a`, the weight of the cross-entropy.
    pub cross_entropy: f64,
    /// `b`, the weight of `T^2 KL(teacher || student)`.
    pub divergence: f64,
    /// `T`, above 0; it softens both models' distributions in the divergence.
    pub temperature: f64,
}

/// A distillation loss, sums over tokens in nats.
#[derive(Debug, Clone)]
pub struct DistillationLoss {
    /// `a cross_entropy + b divergence`, `[1]`; the value to differentiate.
    pub loss: Tensor<1>,
    /// The cross-entropy and `T^2 KL(teacher || student)`, both without their weights, `[2]`; a constant, for
    /// logging.
    pub parts: Tensor<1>,
}

/// `sum_t token_weights[t] * (a cross_entropy_t + b T^2 KL(teacher_t || student_t))`.
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
/// If the shapes do not match, there are no tokens, the temperature is not above 0 or, on flex, a target is
/// not below `vocab`.
pub fn linear_distillation(
    [hidden, projection]: [Tensor<2>; 2],
    [teacher_hidden, teacher_projection]: [Tensor<2>; 2],
    targets: Tensor<1, Int>,
    token_weights: Tensor<1>,
    mix: DistillationMix,
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
         and token_weights {:?} do not match",
        hidden.dims(),
        projection.dims(),
        targets.dims(),
        token_weights.dims()
    );
    assert!(
        mix.temperature > 0.0,
        "linear_distillation: temperature {}",
        mix.temperature
    );
    let (h, w) = (hidden.into_dispatch(), projection.into_dispatch());
    let (g, v) = (
        teacher_hidden.detach().into_dispatch(),
        teacher_projection.detach().into_dispatch(),
    );
    let (targets, weights) = (targets.into_dispatch(), token_weights.into_dispatch());
    let (loss, parts) = routed!(
        LinearDistillation::linear_distillation(h, w, g, v, targets, weights, mix),
        else forward
    );
    DistillationLoss {
        loss: Tensor::from_dispatch(loss),
        parts: Tensor::from_dispatch(parts),
    }
}

operation! {
    /// The loss over a backend's own tensors.
    pub trait LinearDistillation: Backend {
        /// The loss, and its two parts.
        fn linear_distillation(
            hidden: FloatTensor<Self>,
            projection: FloatTensor<Self>,
            teacher_hidden: FloatTensor<Self>,
            teacher_projection: FloatTensor<Self>,
            targets: IntTensor<Self>,
            token_weights: FloatTensor<Self>,
            mix: DistillationMix,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            let (h, w, g, v) = (hidden, projection, teacher_hidden, teacher_projection);
            forward::<Self>(h, w, g, v, targets, token_weights, mix)
        }

        /// The loss, its two parts, and its gradients to `hidden` and `projection`.
        fn linear_distillation_with_gradients(
            hidden: FloatTensor<Self>,
            projection: FloatTensor<Self>,
            teacher_hidden: FloatTensor<Self>,
            teacher_projection: FloatTensor<Self>,
            targets: IntTensor<Self>,
            token_weights: FloatTensor<Self>,
            mix: DistillationMix,
        ) -> (
            FloatTensor<Self>,
            FloatTensor<Self>,
            FloatTensor<Self>,
            FloatTensor<Self>,
        ) {
            let (h, w, g, v) = (hidden, projection, teacher_hidden, teacher_projection);
            with_gradients::<Self>(h, w, g, v, targets, token_weights, mix)
        }
    }
}

composed!(LinearDistillation: NdArray, Cube);

pub(super) fn forward<B: Backend>(
    hidden: FloatTensor<B>,
    projection: FloatTensor<B>,
    teacher_hidden: FloatTensor<B>,
    teacher_projection: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    mix: DistillationMix,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [tokens, _] = hidden.shape().dims();
    let sums = chunks(tokens, projection.shape()[1]).map(|range| {
        let student = Logits::<B>::new(&hidden, &projection, range);
        let teacher = Logits::<B>::new(&teacher_hidden, &teacher_projection, range);
        let of = part::<B>(&targets, &weights, range);
        losses::<B>(
            &student.at(1.0),
            &Pair::new(&student, &teacher, mix),
            of,
            mix,
        )
    });
    let parts = sums
        .reduce(B::float_add)
        .expect("invariant: at least one chunk");
    (weighted::<B>(parts.clone(), mix), parts)
}

/// The loss, its parts, and the gradients to `hidden` and `projection`.
#[allow(clippy::type_complexity, reason = "four tensors")]
pub(crate) fn with_gradients<B: Backend>(
    hidden: FloatTensor<B>,
    projection: FloatTensor<B>,
    teacher_hidden: FloatTensor<B>,
    teacher_projection: FloatTensor<B>,
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    mix: DistillationMix,
) -> (
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
    FloatTensor<B>,
) {
    let [tokens, _] = hidden.shape().dims();
    let mut d_hidden = Vec::new();
    let mut sums: Option<[FloatTensor<B>; 2]> = None;
    for range in chunks(tokens, projection.shape()[1]) {
        let student = Logits::<B>::new(&hidden, &projection, range);
        let teacher = Logits::<B>::new(&teacher_hidden, &teacher_projection, range);
        let (targets, weights) = part::<B>(&targets, &weights, range);
        let log_softmax = student.at(1.0);
        let pair = Pair::new(&student, &teacher, mix);
        let of = (targets.clone(), weights.clone());
        let parts = losses::<B>(&log_softmax, &pair, of, mix);
        let times = |x, factor: f64| B::float_mul_scalar(x, factor.into());
        let softmax = times(B::float_exp(log_softmax), mix.cross_entropy);
        let apart = B::float_sub(B::float_exp(pair.log_q), B::float_exp(pair.log_p));
        let apart = times(apart, mix.divergence * mix.temperature);
        let dz = B::float_mul(B::float_add(softmax, apart), weights.clone());
        let taken = times(weights, -mix.cross_entropy);
        let dz = B::float_scatter(1, dz, targets, taken, IndexingUpdateOp::Add);
        let dz = rounded::<B>(dz, projection.dtype());
        let back = B::float_swap_dims(projection.clone(), 0, 1);
        d_hidden.push(B::float_matmul(dz.clone(), back));
        let back = B::float_swap_dims(student.hidden, 0, 1);
        let d_projection = widened::<B>(B::float_matmul(back, dz));
        sums = Some(match sums {
            None => [parts, d_projection],
            Some([a, b]) => [B::float_add(a, parts), B::float_add(b, d_projection)],
        });
    }
    let [parts, d_projection] = sums.expect("invariant: at least one chunk");
    let loss = weighted::<B>(parts.clone(), mix);
    (loss, parts, B::float_cat(d_hidden, 0), d_projection)
}

/// `a cross_entropy + b divergence` of `[cross_entropy, divergence]`.
fn weighted<B: Backend>(parts: FloatTensor<B>, mix: DistillationMix) -> FloatTensor<B> {
    let part = |at, factor: f64| {
        let part = B::float_slice(parts.clone(), &[leading(at, at + 1)]);
        B::float_mul_scalar(part, factor.into())
    };
    B::float_add(part(0, mix.cross_entropy), part(1, mix.divergence))
}

/// A chunk of tokens with their logits.
struct Logits<B: Backend> {
    /// `[chunk, d_model]`
    hidden: FloatTensor<B>,
    /// `[chunk, vocab]`
    z: FloatTensor<B>,
}

impl<B: Backend> Logits<B> {
    fn new(
        hidden: &FloatTensor<B>,
        projection: &FloatTensor<B>,
        (from, to): (usize, usize),
    ) -> Self {
        let hidden = B::float_slice(hidden.clone(), &[leading(from, to)]);
        let z = widened::<B>(B::float_matmul(hidden.clone(), projection.clone()));
        Self { hidden, z }
    }

    /// `log softmax(z / temperature)`, `[chunk, vocab]`
    fn at(&self, temperature: f64) -> FloatTensor<B> {
        let z = B::float_mul_scalar(self.z.clone(), temperature.recip().into());
        let z = B::float_sub(z.clone(), B::float_max_dim(B::float_detach(z), 1));
        let sum = B::float_sum_dim(B::float_exp(z.clone()), 1);
        B::float_sub(z, B::float_log(sum))
    }
}

/// Both models' log-probabilities at the temperature, `[chunk, vocab]`.
struct Pair<B: Backend> {
    log_q: FloatTensor<B>,
    log_p: FloatTensor<B>,
}

impl<B: Backend> Pair<B> {
    fn new(student: &Logits<B>, teacher: &Logits<B>, mix: DistillationMix) -> Self {
        Self {
            log_q: student.at(mix.temperature),
            log_p: teacher.at(mix.temperature),
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

/// A chunk's cross-entropy and divergence, `[2]`.
fn losses<B: Backend>(
    log_softmax: &FloatTensor<B>,
    pair: &Pair<B>,
    (targets, weights): (IntTensor<B>, FloatTensor<B>),
    mix: DistillationMix,
) -> FloatTensor<B> {
    let sum = |x, factor: f64| {
        let sum = B::float_sum(B::float_mul(x, weights.clone()));
        let sum = B::float_mul_scalar(sum, factor.into());
        B::float_reshape(sum, Shape::from(vec![1]))
    };
    let taken = B::float_gather(1, log_softmax.clone(), targets);
    let apart = B::float_sub(pair.log_p.clone(), pair.log_q.clone());
    let terms = B::float_mul(B::float_exp(pair.log_p.clone()), apart);
    let divergence = sum(B::float_sum_dim(terms, 1), mix.temperature.powi(2));
    B::float_cat(vec![sum(taken, -1.0), divergence], 0)
}

impl<B, C> LinearDistillation for Autodiff<B, C>
where
    B: LinearDistillation + LinearCrossEntropy,
    C: CheckpointStrategy,
{
    /// The second output is not tracked.
    fn linear_distillation(
        hidden: FloatTensor<Self>,
        projection: FloatTensor<Self>,
        teacher_hidden: FloatTensor<Self>,
        teacher_projection: FloatTensor<Self>,
        targets: IntTensor<B>,
        token_weights: FloatTensor<Self>,
        mix: DistillationMix,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let loss = Distillation::<B> {
            teacher: [teacher_hidden, teacher_projection].map(|x| x.into_primitive()),
            targets,
            weights: token_weights.into_primitive(),
            mix,
        };
        let (loss, parts) = loss.record::<C>([hidden, projection]);
        (loss, Self::from_inner(parts))
    }
}

#[derive(Debug)]
struct Distillation<B: Backend> {
    teacher: [FloatTensor<B>; 2],
    targets: IntTensor<B>,
    weights: FloatTensor<B>,
    mix: DistillationMix,
}

impl<B> ComputeBound<B, 2, 0> for Distillation<B>
where
    B: LinearDistillation + LinearCrossEntropy,
{
    /// The gradients, before multiplication by the incoming one.
    type Memory = [FloatTensor<B>; 2];
    /// The two parts.
    type Aside = FloatTensor<B>;

    fn forward(self, [hidden, projection]: [FloatTensor<B>; 2]) -> (FloatTensor<B>, Self::Aside) {
        let (h, w, [g, v]) = (hidden, projection, self.teacher);
        B::linear_distillation(h, w, g, v, self.targets, self.weights, self.mix)
    }

    fn forward_with_memory(
        self,
        [hidden, projection]: [FloatTensor<B>; 2],
    ) -> (FloatTensor<B>, Self::Aside, Self::Memory) {
        let (h, w, [g, v]) = (hidden, projection, self.teacher);
        let (targets, weights) = (self.targets, self.weights);
        let (loss, parts, d_hidden, d_projection) =
            B::linear_distillation_with_gradients(h, w, g, v, targets, weights, self.mix);
        (loss, parts, [d_hidden, d_projection])
    }

    fn backward(
        gradients: Self::Memory,
        []: [FloatTensor<B>; 0],
        dy: FloatTensor<B>,
    ) -> [FloatTensor<B>; 2] {
        gradients.map(|gradient| B::scaled(gradient, dy.clone()))
    }
}
