//! A block as the right-hand side of an equation.

use std::slice::IterMut;

use burn::tensor::Tensor;
use iiet_kernels::{backward_from, with_pullback};
use iiet_ode::{FixedPoint, FixedPointMap, State, VectorField};

use crate::{Block, Evaluation};

/// A block at work in one layer: the right-hand side of `dy/dt = F(y)`.
///
/// It counts its evaluations, so that the first uses the first cache, the second the second,
/// whatever the solver does between them.
#[derive(Debug)]
pub struct BlockField<'a, B: Block> {
    block: &'a B,
    context: &'a B::Context,
    caches: Option<IterMut<'a, B::Cache>>,
    terms: &'a mut Vec<Tensor<1>>,
    /// Whether evaluations are recorded for a backward pass.
    recorded: bool,
    /// How many corrections each token took, if that is asked for.
    corrections: Option<&'a mut Vec<u32>>,
}

impl<'a, B: Block> BlockField<'a, B> {
    /// The field of one step. `caches`, in decoding, are those of the layer: as many as the solver
    /// evaluates it.
    pub fn new(
        block: &'a B,
        context: &'a B::Context,
        caches: Option<&'a mut [B::Cache]>,
        terms: &'a mut Vec<Tensor<1>>,
    ) -> Self {
        let caches = caches.map(|caches| caches.iter_mut());
        Self {
            block,
            context,
            caches,
            terms,
            recorded: true,
            corrections: None,
        }
    }

    /// The same field that adds to `corrections` how many each token takes, padding included, where
    /// they stop by a tolerance.
    pub fn counting(self, corrections: &'a mut Vec<u32>) -> Self {
        let corrections = Some(corrections);
        Self {
            corrections,
            ..self
        }
    }

    fn evaluation(&mut self) -> Evaluation<'_, B> {
        let cache = self.caches.as_mut().map(|caches| {
            caches
                .next()
                .expect("invariant: a layer has a cache for every evaluation")
        });
        Evaluation {
            context: self.context,
            cache,
            terms: self.terms,
        }
    }

    /// One evaluation of the block, with or without autodiff.
    fn evaluate(
        &mut self,
        y: Tensor<3>,
        map: impl FnOnce(&B, Tensor<3>, Evaluation<'_, B>) -> Tensor<3>,
    ) -> Tensor<3> {
        let block = self.block;
        if self.recorded || !y.is_autodiff() {
            return map(block, y, self.evaluation());
        }
        let known = self.terms.len();
        let context = B::constant(self.context);
        let evaluation = Evaluation {
            context: &context,
            ..self.evaluation()
        };
        let value = map(&block.valid(), y.inner(), evaluation);
        for term in &mut self.terms[known..] {
            *term = term.clone().inner().autodiff();
        }
        value.inner().autodiff()
    }
}

impl<B: Block> VectorField<Tensor<3>> for BlockField<'_, B> {
    fn slope(&mut self, y: Tensor<3>) -> Tensor<3> {
        self.evaluate(y, B::slope)
    }

    fn euler(&mut self, y: Tensor<3>, h: f64) -> Tensor<3> {
        if h == 1.0 {
            self.evaluate(y, B::forward)
        } else {
            y.clone() + self.slope(y) * h
        }
    }

    fn skip(&mut self, z: Tensor<3>) {
        if self.caches.is_some() {
            let block = self.block;
            block.remember(z, self.evaluation());
        }
    }

    fn taken(&mut self, parts: &[bool]) {
        if let Some(corrections) = &mut self.corrections {
            corrections.resize(parts.len(), 0);
            for (count, taken) in corrections.iter_mut().zip(parts) {
                *count += u32::from(*taken);
            }
        }
    }

    fn record(&mut self, on: bool) {
        self.recorded = on;
    }

    fn solved(&mut self, y: Tensor<3>, z: Tensor<3>, h: f64, adjoint: FixedPoint) -> Tensor<3> {
        let z = z.untracked();
        let value = y.axpy(h, self.slope(z.clone()));
        if !value.is_autodiff() {
            return value;
        }
        let (block, context, z) = (self.block.valid(), B::constant(self.context), z.inner());
        with_pullback(value, move |v: Tensor<3>| {
            let mut map = Adjoint {
                block: &block,
                context: &context,
                z: &z,
                v: &v,
                h,
            };
            adjoint.iterate(&mut map, v.clone(), None, &mut |_| ())
        })
    }
}

/// `v + h J^T u` with `J = dF/dz`: each evaluation runs the block forward and backward once.
struct Adjoint<'a, B: Block> {
    block: &'a B,
    context: &'a B::Context,
    z: &'a Tensor<3>,
    v: &'a Tensor<3>,
    h: f64,
}

impl<B: Block> FixedPointMap<Tensor<3>> for Adjoint<'_, B> {
    fn at(&mut self, u: Tensor<3>, _: Tensor<3>) -> Tensor<3> {
        let z = self.z.clone().autodiff().require_grad();
        let evaluation = Evaluation {
            context: self.context,
            cache: None,
            // Terms of the loss have their gradient from the recorded evaluation.
            terms: &mut Vec::new(),
        };
        let slope = self.block.slope(z.clone(), evaluation);
        let mut gradients = backward_from([(slope, u)]);
        match z.grad_remove(&mut gradients) {
            Some(along) => self.v.clone().axpy(self.h, along),
            None => self.v.clone(),
        }
    }
}
