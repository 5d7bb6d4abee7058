//! The distillation loss, a chunk of tokens at a time: one matrix product for each model's logits, and the
//! student's are replaced by their gradients row by row.

use burn::backend::Flex;
use burn::backend::tensor::IntTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{DistillationMix, LinearDistillation};
use crate::flex::Primitive;
use crate::flex::buffer::{all_f32, tensor, values};
use crate::flex::exp::exp;
use crate::flex::gemm::{View, product};
use crate::flex::simd::{larger, reduce, vectorised};
use crate::ops::cross_entropy::flex::{Inputs, scalar, total};

impl LinearDistillation for Flex {
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
            forward(&Pair::new([h, w], [g, v], targets, weights, mix))
        } else {
            super::forward::<Self>(h, w, g, v, targets, weights, mix)
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
            with_gradients(&Pair::new([h, w], [g, v], targets, weights, mix))
        } else {
            super::with_gradients::<Self>(h, w, g, v, targets, weights, mix)
        }
    }
}

vectorised! {
    /// `log sum exp` of a row times `beta`.
    fn log_sum_exp_at(z: &[f32], beta: f32) -> f32 {
        let max = reduce(z, f32::NEG_INFINITY, |z| z, larger);
        let sum = reduce(z, 0.0, |z| exp((z - max) * beta), |a, b| a + b);
        max * beta + sum.ln()
    }

    /// `KL(p || q)` of `p = softmax(beta u)` and `q = softmax(beta z)` from the logits and the `log sum exp`
    /// of z, of `beta z` and of `beta u`. Replaces the student's logits by `of_softmax softmax(z) +
    /// of_difference (q - p)`.
    fn diverge(z: &mut [f32], u: &[f32], lse: [f32; 3], beta: f32, factors: [f32; 2]) -> f32 {
        let [lse_z, lse_q, lse_p] = lse;
        let [of_softmax, of_difference] = factors;
        let mut parts = [0.0; 32];
        let (chunks, tail) = z.as_chunks_mut::<32>();
        let (others, other_tail) = u.as_chunks::<32>();
        for (z, u) in chunks.iter_mut().zip(others) {
            for l in 0..32 {
                let (log_q, log_p) = (beta * z[l] - lse_q, beta * u[l] - lse_p);
                let p = exp(log_p);
                parts[l] += p * (log_p - log_q);
                z[l] = of_softmax * exp(z[l] - lse_z) + of_difference * (exp(log_q) - p);
            }
        }
        for ((part, z), &u) in parts.iter_mut().zip(tail).zip(other_tail) {
            let (log_q, log_p) = (beta * *z - lse_q, beta * u - lse_p);
            let p = exp(log_p);
            *part += p * (log_p - log_q);
            *z = of_softmax * exp(*z - lse_z) + of_difference * (exp(log_q) - p);
        }
        parts.iter().sum()
    }
}

/// Student and teacher, whose logits are computed chunk by chunk.
struct Pair {
    student: Inputs,
    teacher: Inputs,
    mix: DistillationMix,
}

impl Pair {
    fn new(
        [hidden, projection]: [Primitive; 2],
        [teacher_hidden, teacher_projection]: [Primitive; 2],
        targets: IntTensor<Flex>,
        weights: Primitive,
        mix: DistillationMix,
    ) -> Self {
        let (ids, token_weights) = (targets.clone(), weights.clone());
        Self {
            student: Inputs::new(hidden, projection, targets, weights),
            teacher: Inputs::new(teacher_hidden, teacher_projection, ids, token_weights),
            mix,
        }
    }

    /// The sums of cross-entropy and divergence; `f` receives each chunk's first token, hidden states and the
    /// gradients to its logits.
    fn for_chunks(&self, mut f: impl FnMut(usize, View, &[f32])) -> [f64; 2] {
        let Self {
            student,
            teacher,
            mix,
        } = self;
        let (square, beta) = (mix.temperature.powi(2), mix.temperature.recip() as f32);
        let (vocab, d_teacher) = (student.vocab, teacher.d_model);
        let (mut cross_entropy, mut divergence) = (0.0, 0.0);
        student.for_chunks(|first, hidden, logits| {
            let n = logits.len() / vocab;
            let states = &values(&teacher.hidden)[first * d_teacher..(first + n) * d_teacher];
            let states = View::rows(states, n, d_teacher);
            let teacher_logits = product(1.0, states, teacher.projection());
            let weights = &values(&student.weights)[first..];
            let terms: Vec<[f32; 2]> = logits
                .par_chunks_exact_mut(vocab)
                .zip(teacher_logits.par_chunks_exact(vocab))
                .zip(&student.targets[first..])
                .zip(weights)
                .map(|(((z, u), &target), &weight)| {
                    let lse = [(&*z, 1.0), (z, beta), (u, beta)];
                    let lse = lse.map(|(z, beta)| log_sum_exp_at(z, beta));
                    let picked = z[target];
                    let factors = [mix.cross_entropy, mix.divergence * mix.temperature];
                    let factors = factors.map(|factor| weight * factor as f32);
                    let divergence = diverge(z, u, lse, beta, factors);
                    z[target] -= factors[0];
                    [weight * (lse[0] - picked), weight * divergence]
                })
                .collect();
            let [ce, kl] = [0, 1].map(|i| total(&terms.iter().map(|t| t[i]).collect::<Vec<_>>()));
            cross_entropy += ce;
            divergence += square * kl;
            f(first, hidden, logits);
        });
        [cross_entropy, divergence]
    }
}

/// The weighted sum, and its two parts.
fn outputs(pair: &Pair, [cross_entropy, divergence]: [f64; 2]) -> (Primitive, Primitive) {
    let DistillationMix {
        cross_entropy: a,
        divergence: b,
        ..
    } = pair.mix;
    let parts = vec![cross_entropy as f32, divergence as f32];
    let loss = a * cross_entropy + b * divergence;
    (scalar(loss), tensor(parts, Shape::from(vec![2])))
}

fn forward(pair: &Pair) -> (Primitive, Primitive) {
    outputs(pair, pair.for_chunks(|_, _, _| {}))
}

fn with_gradients(pair: &Pair) -> (Primitive, Primitive, Primitive, Primitive) {
    let student = &pair.student;
    let (tokens, d_model) = (student.tokens, student.d_model);
    let mut d_hidden = vec![0.0; tokens * d_model];
    let mut d_projection = Vec::new();
    let sums = pair.for_chunks(|first, hidden, dz| {
        student.add_gradients(first, hidden, dz, &mut d_hidden, &mut d_projection);
    });
    let d_hidden = tensor(d_hidden, Shape::from(vec![tokens, d_model]));
    let d_projection = student.projection_tensor(d_projection);
    let (loss, parts) = outputs(pair, sums);
    (loss, parts, d_hidden, d_projection)
}
