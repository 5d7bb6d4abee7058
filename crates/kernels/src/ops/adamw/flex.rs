//! AdamW in one pass, in place; a squared norm in one pass.

use burn::backend::Flex;
use burn::tensor::Shape;
use rayon::prelude::*;

use super::{AdamW, AdamWStep};
use crate::flex::Primitive;
use crate::flex::buffer::{all_f32, block_of_rows, dense, owned, tensor, values, values_mut};
use crate::flex::simd::{reduce, vectorised};

impl AdamW for Flex {
    fn adamw(
        parameter: Primitive,
        gradient: Primitive,
        first: Primitive,
        second: Primitive,
        step: AdamWStep,
    ) -> (Primitive, Primitive, Primitive) {
        if all_f32(&[&parameter, &gradient, &first, &second]) {
            adamw(parameter, gradient, first, second, step)
        } else {
            super::updated::<Self>(parameter, gradient, first, second, step)
        }
    }

    fn sum_of_squares(x: Primitive) -> Primitive {
        if all_f32(&[&x]) {
            sum_of_squares(x)
        } else {
            super::squares::<Self>(x)
        }
    }
}

/// The formula's numbers in f32.
#[derive(Clone, Copy)]
pub(crate) struct Factors {
    scale: f32,
    beta_1: f32,
    beta_2: f32,
    rest_1: f32,
    rest_2: f32,
    keep: f32,
    rate: f32,
    spread: f32,
    eps: f32,
}

vectorised! {
    fn update_block(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = f.scale * g;
            *m = f.beta_1 * *m + f.rest_1 * g;
            *v = f.beta_2 * *v + f.rest_2 * (g * g);
            *p = f.keep * *p - f.rate * *m / (v.sqrt() * f.spread + f.eps);
        }
    }

    fn squares(x: &[f32]) -> f32 {
        reduce(x, 0.0, |x| x * x, |a, b| a + b)
    }
}

fn adamw(
    parameter: Primitive,
    gradient: Primitive,
    first: Primitive,
    second: Primitive,
    step: AdamWStep,
) -> (Primitive, Primitive, Primitive) {
    let f = step.factors();
    let factors = Factors {
        scale: f.scale as f32,
        beta_1: f.beta_1 as f32,
        beta_2: f.beta_2 as f32,
        rest_1: (1.0 - f.beta_1) as f32,
        rest_2: (1.0 - f.beta_2) as f32,
        keep: f.keep as f32,
        rate: f.rate as f32,
        spread: f.spread as f32,
        eps: f.eps as f32,
    };
    let gradient = dense(gradient);
    let [mut p, mut m, mut v] = [parameter, first, second].map(owned);
    let block = block_of_rows(1);
    values_mut(&mut p)
        .par_chunks_mut(block)
        .zip(values(&gradient).par_chunks(block))
        .zip(values_mut(&mut m).par_chunks_mut(block))
        .zip(values_mut(&mut v).par_chunks_mut(block))
        .for_each(|(((p, g), m), v)| update_block(p, g, m, v, factors));
    (p, m, v)
}

/// Blocks are added up in f64, so that the sum over a long vector keeps its precision.
fn sum_of_squares(x: Primitive) -> Primitive {
    let x = dense(x);
    let parts: Vec<f32> = values(&x)
        .par_chunks(block_of_rows(1))
        .map(squares)
        .collect();
    let sum: f64 = parts.into_iter().map(f64::from).sum();
    tensor(vec![sum as f32], Shape::from(vec![1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_in_place() {
        let x = || tensor(vec![1.0f32; 3], Shape::from(vec![3]));
        let step = AdamWStep {
            lr: 0.1,
            beta_1: 0.9,
            beta_2: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
            scale: 1.0,
            update: 1,
        };
        let p = x();
        let before = values(&p).as_ptr();
        let (p, m, v) = adamw(p, x(), x(), x(), step);
        assert_eq!(values(&p).as_ptr(), before);
        assert_eq!(values(&p).len(), 3);
        // m = v = 1 stay; m / (1 - 0.9) = 10 and sqrt(v / (1 - 0.99)) = 10.
        assert_eq!((values(&m)[0], values(&v)[0]), (1.0, 1.0));
        assert!((values(&p)[0] - 0.9).abs() < 1e-6);
    }
}
