//! A language model: an embedding, one solver step per layer, a norm, a projection.
//!
//! ```text
//! y_0    = E[ids]
//! y_n    = solver step of size 1 through F_n         n = 1..N
//! logits = RMSNorm(y_N) W^T                          W = E when embeddings are tied
//! ```

use burn::module::Module;
use burn::nn::{Initializer, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Int, Tensor};
use iiet_blocks::{Block, BlockConfig, LlamaBlock, Projection, Tokens, normalise};
use iiet_kernels::in_f32;
use iiet_ode::{AnySolver, Layer, NetworkSolver};

use crate::names::check_declarations;
use crate::{ModelConfig, ModelError, Pass, TokenEmbedding};

/// The configuration of a language model with such blocks and such a solver.
pub type ConfigOf<B, S> = ModelConfig<<B as Block>::Config, <S as NetworkSolver>::Options>;

/// A causal language model.
#[derive(Module, Debug)]
pub struct LanguageModel<B: Block = LlamaBlock, S: NetworkSolver = AnySolver> {
    /// Everything except the output projection.
    pub model: Backbone<B, S>,
    /// The output projection, unless it is tied to the embedding.
    pub lm_head: Option<Projection>,
    /// The configuration; the solver's options are read from the solver.
    #[module(skip)]
    sizes: ModelConfig<B::Config, ()>,
}

/// The embedding, the layers and the solver that integrates through them.
#[derive(Module, Debug)]
pub struct Backbone<B: Block = LlamaBlock, S: NetworkSolver = AnySolver> {
    /// `E`.
    pub embed_tokens: TokenEmbedding,
    /// `F_1, .., F_N`.
    pub layers: Vec<B>,
    /// The solver, which computes the step of each layer.
    pub solver: S,
    /// The norm after the last layer.
    pub norm: RmsNorm,
}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// A model with zero matrices, to be filled from a checkpoint or by [`init`](Self::init).
    ///
    /// Memory for parameters is allocated when they are first used.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelConfig::validate`], and [`ModelError::Declaration`] if the block or the
    /// solver has a parameter that it does not declare.
    pub fn empty(config: &ConfigOf<B, S>, device: &Device) -> Result<Self, ModelError> {
        config.validate()?;
        let ModelConfig {
            vocab_size,
            d_model,
            n_layers,
            ref block,
            ref solver,
            ..
        } = *config;
        let embed_tokens = TokenEmbedding::empty(vocab_size, d_model, device);
        let layers = Layer::all(n_layers)
            .map(|_| B::init(block, d_model, device))
            .collect();
        let solver = S::init(solver, n_layers, d_model, device);
        let norm = RmsNormConfig::new(d_model)
            .with_epsilon(block.norm_eps())
            .init(device);
        let lm_head = (!config.tie_embeddings).then(|| {
            let config = LinearConfig::new(d_model, vocab_size).with_bias(false);
            let config = config.with_initializer(Initializer::Zeros);
            Projection::Dense(config.init(device))
        });
        let model = Self {
            model: Backbone {
                embed_tokens,
                layers,
                solver,
                norm,
            },
            lm_head,
            sizes: config.clone().with(block.clone(), ()),
        };
        check_declarations(&model)?;
        Ok(model)
    }

    /// The model's configuration, with the solver's current options.
    pub fn config(&self) -> ConfigOf<B, S> {
        let sizes = self.sizes.clone();
        let block = sizes.block.clone();
        sizes.with(block, self.model.solver.options())
    }

    /// The same head on another backbone of the same widths.
    pub(crate) fn with_backbone(&self, model: Backbone<B, S>) -> Self {
        let mut sizes = self.sizes.clone();
        sizes.n_layers = model.layers.len();
        Self {
            model,
            lm_head: self.lm_head.clone(),
            sizes,
        }
    }

    /// The configuration without the solver's options.
    pub fn sizes(&self) -> &ModelConfig<B::Config, ()> {
        &self.sizes
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
        let mut pass = self.pass(&ids);
        self.hidden_in(ids, &mut pass)
    }

    /// [`hidden`](Self::hidden) in a [`pass`](Self::pass) over the ids, which then holds what was
    /// counted.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq]`, ids below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    pub fn hidden_in(&self, ids: Tensor<2, Int>, pass: &mut Pass<'_, B>) -> Tensor<3> {
        let start = self.start_in(ids, pass);
        let at = self.walk(start, self.sizes.n_layers, pass, &mut ());
        normalise(&self.model.norm, at.y)
    }

    /// What all layers share in a pass over these tokens.
    pub fn context(&self, tokens: Tokens, device: &Device) -> B::Context {
        B::context(&self.sizes.block, self.sizes.d_model, tokens, device)
    }

    /// `y_0`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq]`, ids below `vocab_size`
    /// - output: `[batch, seq, d_model]`
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.model.embed_tokens.rows(ids)
    }

    /// Projects hidden states to logits, which are f32 in every precision.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: `[batch, seq, vocab]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        in_f32(match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => self.model.embed_tokens.project(hidden),
        })
    }

    /// `W^T`, `[d_model, vocab]`, the output projection; a packed one is widened to f32.
    pub fn projection(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.matrix(),
            None => self.model.embed_tokens.matrix().transpose(),
        }
    }
}
