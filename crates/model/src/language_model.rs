//! Tokens in, logits out: an embedding, one solver step a layer, a norm, a projection.
//!
//! ```text
//! y_0    = E[ids]
//! y_n    = solver step of size 1 through F_n         n = 1..N
//! logits = RMSNorm(y_N) W^T                          W = E when embeddings are tied
//! ```

use burn::module::Module;
use burn::nn::{
    Embedding, EmbeddingConfig, Initializer, Linear, LinearConfig, RmsNorm, RmsNormConfig,
};
use burn::tensor::{Device, Int, Tensor};
use iiet_blocks::{Block, BlockField, Positions, normalise};
use iiet_kernels::{embedding, in_f32, linear};
use iiet_ode::{AnySolver, Solver, Trajectory};

use crate::{ModelConfig, ModelError};

/// A causal language model.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Everything below the output projection.
    pub model: Backbone,
    /// The output projection, unless it is the embedding.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: ModelConfig,
}

/// The embedding, the layers and the solver that integrates through them.
#[derive(Module, Debug)]
pub struct Backbone {
    /// `E`.
    pub embed_tokens: Embedding,
    /// `F_1, .., F_N`.
    pub layers: Vec<Block>,
    /// How a layer takes its step.
    pub solver: AnySolver,
    /// The norm after the last layer.
    pub norm: RmsNorm,
}

impl LanguageModel {
    /// A model whose matrices are zero, to be filled from a checkpoint or by
    /// [`init`](Self::init).
    ///
    /// Memory for the parameters is taken when they are first used.
    ///
    /// # Errors
    ///
    /// Those of [`ModelConfig::validate`].
    pub fn empty(config: &ModelConfig, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let ModelConfig {
            vocab_size,
            d_model,
            n_layers,
            ..
        } = *config;
        let embed_tokens = EmbeddingConfig::new(vocab_size, d_model)
            .with_initializer(Initializer::Zeros)
            .init(device);
        let layers = (0..n_layers).map(|_| config.block().init(device)).collect();
        let solver = config.solver.init(n_layers, d_model, device)?;
        let norm = RmsNormConfig::new(d_model)
            .with_epsilon(config.rms_norm_eps)
            .init(device);
        let lm_head = (!config.tie_embeddings).then(|| {
            LinearConfig::new(d_model, vocab_size)
                .with_bias(false)
                .with_initializer(Initializer::Zeros)
                .init(device)
        });
        Ok(Self {
            model: Backbone {
                embed_tokens,
                layers,
                solver,
                norm,
            },
            lm_head,
            config: config.clone(),
        })
    }

    /// What the model was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Logits of the next token at every position.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq]`, ids below `vocab_size`
    /// - output: `[batch, seq, vocab]`
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.logits(self.hidden(ids))
    }

    /// The normalised hidden states before the output projection.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq]`, ids below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    pub fn hidden(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let positions = self.positions(&ids);
        let mut at = Trajectory::start(self.embed(ids));
        for n in 0..self.model.layers.len() {
            at = self.layer(n, at, &positions);
        }
        normalise(&self.model.norm, at.y)
    }

    /// Where the tokens stand.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq]`
    pub fn positions(&self, ids: &Tensor<2, Int>) -> Positions {
        let [_, seq] = ids.dims();
        Positions::at(&self.config.frequencies(), 0..seq, &ids.device())
    }

    /// `y_0`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq]`, ids below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        embedding(self.model.embed_tokens.weight.val(), ids)
    }

    /// One step of the solver through layer `n`, counted from 0.
    pub(crate) fn layer(
        &self,
        n: usize,
        at: Trajectory<Tensor<3>>,
        positions: &Positions,
    ) -> Trajectory<Tensor<3>> {
        let solver = &self.model.solver;
        solver.step(&mut self.field(n, positions), at, 1.0)
    }

    /// The right-hand side of `dy/dt = F(y)` in layer `n`, counted from 0.
    ///
    /// # Panics
    ///
    /// If there is no such layer.
    pub fn field<'a>(&'a self, n: usize, positions: &'a Positions) -> BlockField<'a> {
        BlockField {
            block: &self.model.layers[n],
            positions,
        }
    }

    /// Projects hidden states on the vocabulary. Logits are never halves.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: `[batch, seq, vocab]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        in_f32(linear(hidden, self.projection()))
    }

    /// `W^T`, `[d_model, vocab]`: what hidden states are projected with.
    pub fn projection(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.model.embed_tokens.weight.val().transpose(),
        }
    }
}
