//! The interface between a block and the solvers that integrate it.
//!
//! ```text
//! G(y)                    the block, a map of hidden states
//! F(y) = G(y) - y         its vector field
//! ```
//!
//! A block sees more than its input: where the tokens stand, and in decoding what it computed for
//! the tokens before. The former is its [`Context`](Block::Context), computed once for all layers of
//! a pass; the latter a [`BlockCache`], one for each evaluation of each layer. What a solver calls is
//! a [`BlockField`](crate::BlockField).

use std::fmt::Debug;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};
use iiet_kernels::{CacheRow, Precision};
use iiet_ode::{Layer, Parameters};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{BlockError, Dropout, Projection};

/// A transformer block. It can be implemented outside this workspace: a language model accepts any block.
pub trait Block: Module + ModuleDisplay + Parameters + Sync + 'static {
    /// The sizes of the block.
    type Config: BlockConfig;
    /// What the block needs to know about the tokens of a pass, the same in all layers.
    type Context: Clone + Send + Sync + 'static;
    /// What one evaluation keeps of earlier tokens.
    type Cache: BlockCache;

    /// A block for hidden states of width `d_model`. Parameters that [`Parameters`] declares as
    /// [`Start::Normal`](iiet_ode::Start) are initialised afterwards.
    fn init(config: &Self::Config, d_model: usize, device: &Device) -> Self;

    /// What all layers share in a pass over these tokens.
    fn context(
        config: &Self::Config,
        d_model: usize,
        tokens: Tokens,
        device: &Device,
    ) -> Self::Context;

    /// The context of a pass with dropout, whose masks must be the same in all evaluations of a layer:
    /// [`ContextDropout`](crate::ContextDropout) keeps them in a context.
    ///
    /// # Errors
    ///
    /// [`BlockError::Unsupported`] if the block has no dropout, as by default, or none in such a pass.
    fn with_dropout(
        context: Self::Context,
        dropout: &Dropout,
    ) -> Result<Self::Context, BlockError> {
        let _ = context;
        Err(BlockError::Unsupported {
            key: "dropout".into(),
            found: dropout.rates().to_string(),
            allowed: format!("the block {:?} has no dropout", Self::Config::NAME),
        })
    }

    /// What the evaluations of this layer share beside what all layers share, computed once before the
    /// first of them; `None` if there is nothing, or the context has it already. The block sees it in the
    /// place of the context of the pass.
    fn at_layer(&self, context: &Self::Context, layer: Layer) -> Option<Self::Context> {
        let _ = (context, layer);
        None
    }

    /// The context without autodiff: no gradient flows to what it was computed from.
    fn constant(context: &Self::Context) -> Self::Context {
        context.clone()
    }

    /// `G(y)`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    fn forward(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3>;

    /// `F(y)`. A residual block computes this directly instead of by the subtraction.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    fn slope(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3> {
        self.forward(y.clone(), at) - y
    }

    /// Leaves in the cache what an evaluation at `y` leaves there, where its value is not needed.
    fn remember(&self, y: Tensor<3>, at: Evaluation<'_, Self>) {
        let _ = self.forward(y, at);
    }

    /// The projections that can be quantised and pruned, in the order of computation, with their names in
    /// checkpoints, such as `mlp.up_proj`. By default none: then the block keeps its weights as they are.
    fn projections(&self) -> Vec<(String, &Projection)> {
        Vec::new()
    }

    /// The same projections, to be changed.
    fn projections_mut(&mut self) -> Vec<(String, &mut Projection)> {
        Vec::new()
    }
}

/// The sizes of a block, and its costs.
///
/// The serde form is the block's part of `config.json`, which has other keys too: unknown keys must be
/// ignored, and the names must not collide with those of a model's own keys.
pub trait BlockConfig:
    Clone + Debug + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// The block's name in `config.json`, unless it is the LLaMA layer.
    const NAME: &'static str;

    /// Values of `model_type`, beside `llama` and `iiet`, that `transformers` has for models of such
    /// blocks; [`read`](Self::read) is given their files too.
    const MODEL_TYPES: &'static [&'static str] = &[];

    /// Reads the block's part of `config.json`, given its text.
    ///
    /// # Errors
    ///
    /// [`BlockError::Json`] with line and column; [`BlockError::Unsupported`] if the file describes another
    /// block.
    fn read(json: &str) -> Result<Self, BlockError> {
        Ok(serde_json::from_str(json)?)
    }

    /// What `transformers` calls a model of such blocks under explicit Euler, if it knows one:
    /// `model_type` and the class among `architectures`.
    fn transformers(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// The block's keys in `config.json`.
    fn write(&self) -> Map<String, Value> {
        table(self)
    }

    /// Checks that the sizes are valid for states of width `d_model`. Sizes above `2^20` must be rejected, so
    /// that products of three of them do not overflow.
    ///
    /// # Errors
    ///
    /// [`BlockError::Value`], with the key, its value and the allowed values.
    fn validate(&self, d_model: usize) -> Result<(), BlockError>;

    /// RMSNorm's epsilon, also in the norm after the last layer.
    fn norm_eps(&self) -> f64;

    /// The cost of one evaluation on texts of `seq` tokens.
    fn cost(&self, d_model: usize, seq: usize) -> BlockCost;
}

/// A configuration as a table.
pub(crate) fn table(config: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(keys)) => keys,
        _ => panic!("a block's configuration must serialise as a table"),
    }
}

/// The costs of one evaluation of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockCost {
    /// Floating-point operations per token of a forward pass, averaged over the text. A multiplication and an
    /// addition count as two; norms and activations are not counted.
    pub flops_per_token: f64,
    /// Bytes of cache per token, in f32.
    pub cache_bytes_per_token: u64,
    /// Values per token that the forward pass keeps for the backward pass.
    pub activations_per_token: u64,
}

/// What one evaluation of a block keeps of a batch of texts.
pub trait BlockCache: Clone + Debug + Send + Sync + 'static {
    /// An empty cache with elements of this type.
    fn new(stored: Precision) -> Self;

    /// Keeps these rows of the batch, in this order, of which none has more than `tokens` tokens.
    fn keep_rows(&mut self, rows: &[usize], tokens: usize);

    /// Replaces a row by the only row of another cache.
    fn put_row(&mut self, row: usize, other: Self);

    /// Appends the rows of another cache.
    fn append(&mut self, other: Self);

    /// The capacity per row, in tokens. Without a limit it may exceed the number of tokens.
    fn capacity(&self) -> usize;
}

/// The tokens of a pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Tokens {
    /// Texts from their beginning, at positions `0..seq`.
    Whole {
        /// Columns of the batch.
        seq: usize,
    },
    /// Texts whose tokens see each other, later ones too, as those of a source; shorter ones are padded at
    /// their end.
    Source {
        /// The number of tokens of each row, from 1 to `seq`.
        lengths: Vec<usize>,
        /// Columns of the batch.
        seq: usize,
    },
    /// New tokens of texts whose earlier tokens are in caches.
    New {
        /// The tokens of each row.
        rows: Vec<CacheRow>,
        /// Columns of the batch.
        seq: usize,
        /// The maximum number of tokens that any row will have.
        limit: usize,
    },
}

/// The arguments of one evaluation in addition to its input.
#[derive(Debug)]
pub struct Evaluation<'a, B: Block> {
    /// What all layers share in this pass.
    pub context: &'a B::Context,
    /// In decoding, what the same evaluation has kept of earlier tokens.
    pub cache: Option<&'a mut B::Cache>,
    /// The block may add loss terms here, `[1]` each: sums over the tokens of the batch, in nats, like all
    /// losses. They are only read in training.
    pub terms: &'a mut Vec<Tensor<1>>,
}
