//! The traversal of the layers, shared by forward passes, objectives, recomputation, decoding and
//! the measurement of influence.

use burn::tensor::{Int, Tensor};
use iiet_blocks::{Block, BlockField, Dropout, Tokens};
use iiet_ode::{Layer, NetworkSolver, Solver, Trajectory};

use crate::{Backbone, LanguageModel, ModelError};

/// The state of a traversal.
pub type At<S> = Trajectory<Tensor<3>, <S as Solver<Tensor<3>>>::Memory>;

/// What a traversal passes to the blocks, and what it collects from them.
#[derive(Debug)]
pub struct Pass<'a, B: Block> {
    /// What all layers share in this pass.
    pub context: B::Context,
    /// In decoding, a cache for each evaluation of each layer.
    pub caches: Option<&'a mut [Vec<B::Cache>]>,
    /// Loss terms that blocks have added so far, `[1]` each.
    pub terms: Vec<Tensor<1>>,
    /// How many corrections each column of each row, padding included, took in all layers so far, one
    /// row after the other. Empty where corrections do not stop by a tolerance: then the solver's
    /// schedule says it.
    pub corrections: Vec<u32>,
    /// What is dropped, of the embedding and, by the context, of the layers.
    pub(crate) dropout: Option<Dropout>,
}

impl<B: Block> Pass<'_, B> {
    /// A pass over whole texts.
    pub fn over(context: B::Context) -> Self {
        Self {
            context,
            caches: None,
            terms: Vec::new(),
            corrections: Vec::new(),
            dropout: None,
        }
    }

    /// The same pass with dropout; without one, or with rates of zero, it stays as it is.
    ///
    /// # Errors
    ///
    /// [`ModelError::Block`] if the block has no dropout.
    pub fn with_dropout(self, dropout: Option<&Dropout>) -> Result<Self, ModelError> {
        let Some(dropout) = dropout.filter(|dropout| !dropout.rates().are_zero()) else {
            return Ok(self);
        };
        Ok(Self {
            context: B::with_dropout(self.context, dropout)?,
            dropout: Some(*dropout),
            ..self
        })
    }

    /// `y_0` in this pass: the embedding, after dropout if there is any.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    pub fn embedded(&self, y: Tensor<3>) -> Tensor<3> {
        match &self.dropout {
            None => y,
            Some(dropout) => dropout.embedding(y),
        }
    }
}

/// An observer of the traversal.
pub trait Observer<M> {
    /// Called before the step of layer `at.layer`.
    fn before(&mut self, at: &Trajectory<Tensor<3>, M>) {
        let _ = at;
    }

    /// Whether to call [`correction`](Self::correction), which costs one more output per
    /// correction.
    fn watches_corrections(&self) -> bool {
        false
    }

    /// Called with the output that the layer would give if it stopped after 0, 1, .. r corrections,
    /// in turn.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, seq, d_model]`
    fn correction(&mut self, layer: Layer, output: Tensor<3>) {
        let _ = (layer, output);
    }

    /// Called after the step, with its result.
    ///
    /// # Shapes
    ///
    /// - y: `[batch, seq, d_model]`
    fn after(&mut self, layer: Layer, y: &Tensor<3>) {
        let _ = (layer, y);
    }
}

/// Observes nothing.
impl<M> Observer<M> for () {}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// What all layers share in a pass over whole texts.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`
    pub fn pass<'a>(&self, ids: &Tensor<2, Int>) -> Pass<'a, B> {
        let [_, seq] = ids.dims();
        let device = ids.device();
        Pass::over(self.context(Tokens::Whole { seq }, &device))
    }

    /// The state before the first layer, at `y_0`, without dropout.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    pub fn start(&self, ids: Tensor<2, Int>) -> At<S> {
        self.model.solver.start(self.embed(ids))
    }

    /// The state before the first layer, at `y_0` in this pass.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    pub fn start_in(&self, ids: Tensor<2, Int>, pass: &Pass<'_, B>) -> At<S> {
        let y = pass.embedded(self.embed(ids));
        self.model.solver.start(y)
    }

    /// Advances through the next `layers` layers, with one step of size 1 each.
    ///
    /// # Panics
    ///
    /// If fewer layers follow `at`.
    pub fn walk(
        &self,
        at: At<S>,
        layers: usize,
        pass: &mut Pass<'_, B>,
        observer: &mut impl Observer<S::Memory>,
    ) -> At<S> {
        let Backbone {
            layers: blocks,
            solver,
            ..
        } = &self.model;
        advance(blocks, solver, at, layers, pass, observer)
    }
}

/// Advances through the next `steps` of these layers with one step of size 1 each.
///
/// # Panics
///
/// If fewer layers follow `at`.
pub(crate) fn advance<B: Block, S: NetworkSolver>(
    layers: &[B],
    solver: &S,
    mut at: At<S>,
    steps: usize,
    pass: &mut Pass<'_, B>,
    observer: &mut impl Observer<S::Memory>,
) -> At<S> {
    for _ in 0..steps {
        observer.before(&at);
        let layer = at.layer;
        let block = &layers[layer.index()];
        let caches = pass.caches.as_deref_mut();
        let caches = caches.map(|caches| caches[layer.index()].as_mut_slice());
        let of_layer = block.at_layer(&pass.context, layer);
        let context = of_layer.as_ref().unwrap_or(&pass.context);
        let mut field = BlockField::new(block, context, caches, &mut pass.terms)
            .counting(&mut pass.corrections);
        at = match observer.watches_corrections() {
            true => solver.step_watched(&mut field, at, 1.0, &mut |output| {
                observer.correction(layer, output);
            }),
            false => solver.step(&mut field, at, 1.0),
        };
        observer.after(layer, &at.y);
    }
    at
}
