//! The distillation loss, a chunk of tokens at a time: both models' logits by one matrix product
//! each, the student's turned into their own gradients a row at a time.

use burn::backend::Flex;
use burn::backend::tensor::IntTensor;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::Primitive;
use super::buffer::{tensor, values};
use super::cross_entropy::{Inputs, log_sum_exp, scalar, total};
use super::exp::exp;
use super::gemm::{Then, Threads, View, ViewMut, gemm};
use super::simd::vectorised;

vectorised! {
    /// `KL(p || q)` of `p = softmax(u)` and `q = softmax(z)` from the logits and their `log sum exp`.
    /// Logits of the student become `of_q q - of_p p` where they are wanted.
    fn diverge(z: &mut [f32], u: &[f32], lse: [f32; 2], factors: Option<[f32; 2]>) -> f32 {
        let [lse_z, lse_u] = lse;
        let mut parts = [0.0; 32];
        let (chunks, tail) = z.as_chunks_mut::<32>();
        let (others, other_tail) = u.as_chunks::<32>();
        let [of_q, of_p] = factors.unwrap_or_default();
        for (z, u) in chunks.iter_mut().zip(others) {
            for l in 0..32 {
                let (log_q, log_p) = (z[l] - lse_z, u[l] - lse_u);
                let p = exp(log_p);
                parts[l] += p * (log_p - log_q);
                z[l] = of_q * exp(log_q) - of_p * p;
            }
        }
        for ((part, z), &u) in parts.iter_mut().zip(tail).zip(other_tail) {
            let (log_q, log_p) = (*z - lse_z, u - lse_u);
            let p = exp(log_p);
            *part += p * (log_p - log_q);
            *z = of_q * exp(log_q) - of_p * p;
        }
        parts.iter().sum()
    }
}

/// Student and teacher, whose logits are projected chunk by chunk.
pub(super) struct Pair {
    student: Inputs,
    teacher: Inputs,
    factor: f32,
}

impl Pair {
    pub(super) fn new(
        [hidden, projection]: [Primitive; 2],
        [teacher_hidden, teacher_projection]: [Primitive; 2],
        targets: IntTensor<Flex>,
        weights: Primitive,
        factor: f64,
    ) -> Self {
        let (ids, token_weights) = (targets.clone(), weights.clone());
        Self {
            student: Inputs::new(hidden, projection, targets, weights),
            teacher: Inputs::new(teacher_hidden, teacher_projection, ids, token_weights),
            factor: factor as f32,
        }
    }

    /// The sums of loss and divergence; `f` gets each chunk's first token, hidden states and the
    /// gradients to its logits.
    fn for_chunks(&self, gradients: bool, mut f: impl FnMut(usize, View, &[f32])) -> [f64; 2] {
        let Self {
            student,
            teacher,
            factor,
        } = self;
        let (vocab, d_teacher) = (student.vocab, teacher.d_model);
        let mut teacher_logits = Vec::new();
        let (mut loss, mut divergence) = (0.0, 0.0);
        student.for_chunks(|first, hidden, logits| {
            let n = logits.len() / vocab;
            teacher_logits.resize(logits.len(), 0.0);
            let states = &values(&teacher.hidden)[first * d_teacher..(first + n) * d_teacher];
            gemm(
                ViewMut::rows(&mut teacher_logits, n, vocab),
                Then::Replace,
                1.0,
                View::rows(states, n, d_teacher),
                teacher.projection(),
                Threads::All,
            );
            let weights = &values(&student.weights)[first..];
            let terms: Vec<[f32; 2]> = logits
                .par_chunks_exact_mut(vocab)
                .zip(teacher_logits.par_chunks_exact(vocab))
                .zip(&student.targets[first..])
                .zip(weights)
                .map(|(((z, u), &target), &weight)| {
                    let lse = [log_sum_exp(z), log_sum_exp(u)];
                    let picked = z[target];
                    let factors = gradients.then_some([weight * (1.0 + factor), weight * factor]);
                    let divergence = diverge(z, u, lse, factors);
                    z[target] -= weight;
                    [weight * (lse[0] - picked), weight * divergence]
                })
                .collect();
            let [ce, kl] = [0, 1].map(|i| terms.iter().map(|t| t[i]).collect::<Vec<_>>());
            divergence += total(&kl);
            loss += total(&ce) + f64::from(*factor) * total(&kl);
            f(first, hidden, logits);
        });
        [loss, divergence]
    }
}

pub(super) fn forward(pair: &Pair) -> (Primitive, Primitive) {
    let [loss, divergence] = pair.for_chunks(false, |_, _, _| {});
    (scalar(loss), scalar(divergence))
}

pub(super) fn with_gradients(pair: &Pair) -> (Primitive, Primitive, Primitive, Primitive) {
    let student = &pair.student;
    let (tokens, d_model) = (student.tokens, student.d_model);
    let mut d_hidden = vec![0.0; tokens * d_model];
    let mut d_projection = student.projection_gradient();
    let [loss, divergence] = pair.for_chunks(true, |first, hidden, dz| {
        student.add_gradients(first, hidden, dz, &mut d_hidden, &mut d_projection);
    });
    let d_hidden = tensor(d_hidden, Shape::from(vec![tokens, d_model]));
    let d_projection = student.projection_tensor(d_projection);
    (scalar(loss), scalar(divergence), d_hidden, d_projection)
}
