//! The flex backend's kernels: f32, multithreaded, vectorised; halves pass through them where a
//! decoder meets them, and are otherwise left to the composed bodies.
//!
//! All work is cut into blocks whose size depends on the shapes alone, and sums over blocks are
//! taken in the blocks' order, so a result is the same whatever the number of threads.

mod adamw;
mod attention;
mod buffer;
pub(crate) mod cached_attention;
mod cross_entropy;
mod distillation;
mod exp;
mod few_rows;
mod gemm;
mod halves;
mod layer_norm;
mod linear;
mod rms_norm;
mod rope;
mod simd;
mod swiglu;
mod weighted_sum;

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};

use crate::DistillationMix;
use crate::adamw::AdamWStep;
use crate::ops::FusedOps;
use crate::weighted_sum::States;
use buffer::all_f32;
use distillation::Pair;
use halves::{at_most_f32, in_f32};

type Primitive = FloatTensor<Flex>;

impl FusedOps for Flex {
    fn project(x: Primitive, weight: Primitive) -> Primitive {
        if at_most_f32(&[&x, &weight]) {
            in_f32([x], |[x]| match few_rows::are(&x) {
                // Halves too are read where they lie: a decoder's time is that of fetching them.
                true => few_rows::product(x, weight),
                false => linear::forward(x, halves::widened(weight)),
            })
        } else {
            crate::linear::forward::<Self>(x, weight)
        }
    }

    fn weight_gradient(x: Primitive, dy: Primitive) -> Primitive {
        if all_f32(&[&x, &dy]) {
            linear::weight_gradient(x, dy)
        } else {
            crate::linear::weight_gradient::<Self>(x, dy)
        }
    }

    fn add_weight_gradient(sum: Primitive, x: Primitive, dy: Primitive) -> Primitive {
        if all_f32(&[&sum, &x, &dy]) {
            linear::add_weight_gradient(sum, x, dy)
        } else {
            Self::float_add(sum, crate::linear::weight_gradient::<Self>(x, dy))
        }
    }

    fn swiglu(gate: Primitive, up: Primitive) -> Primitive {
        if at_most_f32(&[&gate, &up]) {
            in_f32([gate, up], |[gate, up]| swiglu::forward(gate, up))
        } else {
            crate::swiglu::forward::<Self>(gate, up)
        }
    }

    fn swiglu_backward(gate: Primitive, up: Primitive, dy: Primitive) -> (Primitive, Primitive) {
        if all_f32(&[&gate, &up, &dy]) {
            swiglu::backward(gate, up, dy)
        } else {
            crate::swiglu::backward::<Self>(gate, up, dy)
        }
    }

    fn rms_norm(x: Primitive, gamma: Primitive, eps: f64) -> Primitive {
        if at_most_f32(&[&x, &gamma]) {
            in_f32([x, gamma], |[x, gamma]| {
                rms_norm::forward(x, gamma, eps as f32)
            })
        } else {
            crate::rms_norm::forward::<Self>(x, gamma, eps)
        }
    }

    fn rms_norm_backward(
        x: Primitive,
        gamma: Primitive,
        dy: Primitive,
        eps: f64,
    ) -> (Primitive, Primitive) {
        if all_f32(&[&x, &gamma, &dy]) {
            rms_norm::backward(x, gamma, dy, eps as f32)
        } else {
            crate::rms_norm::backward::<Self>(x, gamma, dy, eps)
        }
    }

    fn layer_norm(x: Primitive, gamma: Primitive, beta: Primitive, eps: f64) -> Primitive {
        if all_f32(&[&x, &gamma, &beta]) {
            layer_norm::forward(x, gamma, beta, eps as f32)
        } else {
            crate::layer_norm::forward::<Self>(x, gamma, beta, eps)
        }
    }

    fn layer_norm_backward(
        x: Primitive,
        gamma: Primitive,
        dy: Primitive,
        eps: f64,
    ) -> (Primitive, Primitive, Primitive) {
        if all_f32(&[&x, &gamma, &dy]) {
            layer_norm::backward(x, gamma, dy, eps as f32)
        } else {
            crate::layer_norm::backward::<Self>(x, gamma, dy, eps)
        }
    }

    fn rotate(x: Primitive, cos: Primitive, sin: Primitive, inverse: bool) -> Primitive {
        if at_most_f32(&[&x, &cos, &sin]) {
            in_f32([x, cos, sin], |[x, cos, sin]| {
                rope::rotate(x, cos, sin, inverse)
            })
        } else {
            crate::rope::forward::<Self>(x, cos, sin, inverse)
        }
    }

    fn weighted_sum(states: States<Self>, weights: Primitive) -> Primitive {
        if all_f32(&[&weights]) && states.0.iter().all(|s| all_f32(&[s])) {
            weighted_sum::forward(states.0, weights)
        } else {
            crate::weighted_sum::forward::<Self>(states, weights)
        }
    }

    fn weighted_sum_backward(
        states: States<Self>,
        weights: Primitive,
        dy: Primitive,
    ) -> (States<Self>, Primitive) {
        if all_f32(&[&weights, &dy]) && states.0.iter().all(|s| all_f32(&[s])) {
            let (d_states, d_weights) = weighted_sum::backward(states.0, weights, dy);
            (States(d_states), d_weights)
        } else {
            crate::weighted_sum::backward::<Self>(states, weights, dy)
        }
    }

    fn causal_attention(
        q: Primitive,
        k: Primitive,
        v: Primitive,
        scale: f64,
    ) -> (Primitive, Primitive) {
        if all_f32(&[&q, &k, &v]) {
            attention::forward(q, k, v, scale as f32)
        } else {
            crate::attention::forward::<Self>(q, k, v, scale)
        }
    }

    fn causal_attention_backward(
        q: Primitive,
        k: Primitive,
        v: Primitive,
        out: Primitive,
        lse: Primitive,
        dy: Primitive,
        scale: f64,
    ) -> (Primitive, Primitive, Primitive) {
        if all_f32(&[&q, &k, &v, &out, &lse, &dy]) {
            attention::backward([q, k, v, out, dy], lse, scale as f32)
        } else {
            crate::attention::backward::<Self>(q, k, v, out, lse, dy, scale)
        }
    }

    fn linear_cross_entropy(
        hidden: Primitive,
        projection: Primitive,
        targets: IntTensor<Self>,
        weights: Primitive,
    ) -> Primitive {
        if all_f32(&[&hidden, &projection, &weights]) {
            cross_entropy::forward(hidden, projection, targets, weights)
        } else {
            crate::cross_entropy::forward::<Self>(hidden, projection, targets, weights)
        }
    }

    fn linear_cross_entropy_with_gradients(
        hidden: Primitive,
        projection: Primitive,
        targets: IntTensor<Self>,
        weights: Primitive,
    ) -> (Primitive, Primitive, Primitive) {
        if all_f32(&[&hidden, &projection, &weights]) {
            cross_entropy::with_gradients(hidden, projection, targets, weights)
        } else {
            crate::cross_entropy::with_gradients::<Self>(hidden, projection, targets, weights)
        }
    }

    fn linear_distillation(
        h: Primitive,
        w: Primitive,
        g: Primitive,
        v: Primitive,
        targets: IntTensor<Self>,
        weights: Primitive,
        mix: DistillationMix,
    ) -> (Primitive, Primitive) {
        if all_f32(&[&h, &w, &g, &v, &weights]) {
            distillation::forward(&Pair::new([h, w], [g, v], targets, weights, mix))
        } else {
            crate::distillation::forward::<Self>([h, w], [g, v], targets, weights, mix)
        }
    }

    fn linear_distillation_with_gradients(
        h: Primitive,
        w: Primitive,
        g: Primitive,
        v: Primitive,
        targets: IntTensor<Self>,
        weights: Primitive,
        mix: DistillationMix,
    ) -> (Primitive, Primitive, Primitive, Primitive) {
        if all_f32(&[&h, &w, &g, &v, &weights]) {
            distillation::with_gradients(&Pair::new([h, w], [g, v], targets, weights, mix))
        } else {
            crate::distillation::with_gradients::<Self>([h, w], [g, v], targets, weights, mix)
        }
    }

    fn scaled(x: Primitive, factor: Primitive) -> Primitive {
        if all_f32(&[&x, &factor]) {
            cross_entropy::scaled(x, factor)
        } else {
            crate::cross_entropy::scaled::<Self>(x, factor)
        }
    }

    fn adamw(
        parameter: Primitive,
        gradient: Primitive,
        first: Primitive,
        second: Primitive,
        step: AdamWStep,
    ) -> (Primitive, Primitive, Primitive) {
        if all_f32(&[&parameter, &gradient, &first, &second]) {
            adamw::adamw(parameter, gradient, first, second, step)
        } else {
            crate::adamw::updated::<Self>(parameter, gradient, first, second, step)
        }
    }

    fn sum_of_squares(x: Primitive) -> Primitive {
        if all_f32(&[&x]) {
            adamw::sum_of_squares(x)
        } else {
            crate::adamw::squares::<Self>(x)
        }
    }
}
