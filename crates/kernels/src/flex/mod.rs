//! The flex backend's kernels: f32, multithreaded, vectorised. Halves are read as f32 and results rounded;
//! products of bf16 are the processor's own where it has them.
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
use burn::tensor::bf16;

use crate::DistillationMix;
use crate::adamw::AdamWStep;
use crate::ops::FusedOps;
use crate::weighted_sum::States;
use buffer::all_f32;
use distillation::Pair;
use halves::{all_bf16, at_most_f32, in_f32, rounded, widened};

type Primitive = FloatTensor<Flex>;

impl FusedOps for Flex {
    fn project(x: Primitive, weight: Primitive) -> Primitive {
        if at_most_f32(&[&x, &weight]) {
            match few_rows::are(&x) {
                // Halves too are read where they lie: a decoder's time is that of fetching them.
                true => in_f32([x], |[x]| few_rows::product(x, weight)),
                false => linear::forward(x, weight),
            }
        } else {
            crate::linear::forward::<Self>(x, weight)
        }
    }

    fn weight_gradient(x: Primitive, dy: Primitive) -> Primitive {
        if at_most_f32(&[&x, &dy]) {
            linear::weight_gradient(x, dy)
        } else {
            crate::linear::weight_gradient::<Self>(x, dy)
        }
    }

    fn add_weight_gradient(sum: Primitive, x: Primitive, dy: Primitive) -> Primitive {
        if all_f32(&[&sum]) && at_most_f32(&[&x, &dy]) {
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
        if at_most_f32(&[&gate, &up, &dy]) {
            let dtype = gate.dtype();
            let (d_gate, d_up) = swiglu::backward(widened(gate), widened(up), widened(dy));
            (rounded(d_gate, dtype), rounded(d_up, dtype))
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
        if at_most_f32(&[&x, &gamma, &dy]) {
            let dtype = x.dtype();
            let (x, gamma, dy) = (widened(x), widened(gamma), widened(dy));
            let (dx, d_gamma) = rms_norm::backward(x, gamma, dy, eps as f32);
            (rounded(dx, dtype), d_gamma)
        } else {
            crate::rms_norm::backward::<Self>(x, gamma, dy, eps)
        }
    }

    fn layer_norm(x: Primitive, gamma: Primitive, beta: Primitive, eps: f64) -> Primitive {
        if at_most_f32(&[&x, &gamma, &beta]) {
            in_f32([x, gamma, beta], |[x, gamma, beta]| {
                layer_norm::forward(x, gamma, beta, eps as f32)
            })
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
        if at_most_f32(&[&x, &gamma, &dy]) {
            let dtype = x.dtype();
            let (x, gamma, dy) = (widened(x), widened(gamma), widened(dy));
            let (dx, d_gamma, d_beta) = layer_norm::backward(x, gamma, dy, eps as f32);
            (rounded(dx, dtype), d_gamma, d_beta)
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
        if at_most_f32(&[&weights]) && states.0.iter().all(|s| at_most_f32(&[s])) {
            let dtype = states.0[0].dtype();
            let states = states.0.into_iter().map(widened).collect();
            rounded(weighted_sum::forward(states, widened(weights)), dtype)
        } else {
            crate::weighted_sum::forward::<Self>(states, weights)
        }
    }

    fn weighted_sum_backward(
        states: States<Self>,
        weights: Primitive,
        dy: Primitive,
    ) -> (States<Self>, Primitive) {
        if at_most_f32(&[&weights, &dy]) && states.0.iter().all(|s| at_most_f32(&[s])) {
            let dtypes: Vec<_> = states.0.iter().map(|s| s.dtype()).collect();
            let states = states.0.into_iter().map(widened).collect();
            let (d_states, d_weights) =
                weighted_sum::backward(states, widened(weights), widened(dy));
            let d_states = d_states.into_iter().zip(dtypes);
            let d_states = d_states.map(|(d, dtype)| rounded(d, dtype)).collect();
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
        if at_most_f32(&[&q, &k, &v]) {
            let dtype = q.dtype();
            let (q, k, v) = (widened(q), widened(k), widened(v));
            let (y, lse) = attention::forward(q, k, v, scale as f32);
            (rounded(y, dtype), lse)
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
        if all_f32(&[&lse]) && at_most_f32(&[&q, &k, &v, &out, &dy]) {
            let dtype = q.dtype();
            let tensors = [q, k, v, out, dy].map(widened);
            let (dq, dk, dv) = attention::backward(tensors, lse, scale as f32);
            (rounded(dq, dtype), rounded(dk, dtype), rounded(dv, dtype))
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
            cross_entropy::forward::<f32>(hidden, projection, targets, weights)
        } else if all_bf16(&[&hidden, &projection]) && all_f32(&[&weights]) {
            cross_entropy::forward::<bf16>(hidden, projection, targets, weights)
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
            cross_entropy::with_gradients::<f32>(hidden, projection, targets, weights)
        } else if all_bf16(&[&hidden, &projection]) && all_f32(&[&weights]) {
            cross_entropy::with_gradients::<bf16>(hidden, projection, targets, weights)
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
