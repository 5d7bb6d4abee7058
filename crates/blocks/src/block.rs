//! The seam between a block and all that integrates through it.
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
use iiet_ode::Parameters;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::BlockError;

/// A transformer block. Implementable outside this workspace: a language model takes any.
pub trait Block: Module + ModuleDisplay + Parameters + Sync + 'static {
    /// Its sizes.
    type Config: BlockConfig;
    /// What it must know of the tokens of a pass, the same in all layers.
    type Context: Clone + Send + Sync + 'static;
    /// What one evaluation remembers of earlier tokens.
    type Cache: BlockCache;

    /// A block for hidden states of width `d_model`. What [`Parameters`] declares as
    /// [`Start::Normal`](iiet_ode::Start) is filled afterwards.
    fn init(config: &Self::Config, d_model: usize, device: &Device) -> Self;

    /// What all layers of a pass over these tokens share.
    fn context(
        config: &Self::Config,
        d_model: usize,
        tokens: Tokens,
        device: &Device,
    ) -> Self::Context;

    /// `G(y)`.
    ///
    /// # Shapes
    ///
    /// - input: `[batch, seq, d_model]`
    /// - output: the same
    fn forward(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3>;

    /// `F(y)`. A residual block computes this more directly than by the subtraction.
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
}

/// The sizes of a block, and what they cost.
///
/// The serde form is the block's part of `config.json`, which other parts share: unknown keys
/// must be ignored, and the names must not be those of a model's own keys.
pub trait BlockConfig:
    Clone + Debug + PartialEq + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// What `config.json` calls the block, if it is not the LLaMA layer.
    const NAME: &'static str;

    /// Values of `model_type`, beside `llama` and `iiet`, that `transformers` has for models of such
    /// blocks; [`read`](Self::read) is given their files too.
    const MODEL_TYPES: &'static [&'static str] = &[];

    /// Reads the block's part of the text of `config.json`.
    ///
    /// # Errors
    ///
    /// [`BlockError::Json`] with line and column; [`BlockError::Unsupported`] for a block that is
    /// not this one.
    fn read(json: &str) -> Result<Self, BlockError> {
        Ok(serde_json::from_str(json)?)
    }

    /// What `transformers` calls a model of such blocks under explicit Euler, if it knows one:
    /// `model_type` and the class among `architectures`.
    fn transformers(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// The block's keys of `config.json`.
    fn write(&self) -> Map<String, Value> {
        table(self)
    }

    /// Whether there can be such a block for states of width `d_model`. Sizes above `2^20` must be
    /// refused, so that products of three of them do not overflow.
    ///
    /// # Errors
    ///
    /// [`BlockError::Value`], naming the key, what was found and what is allowed.
    fn validate(&self, d_model: usize) -> Result<(), BlockError>;

    /// What RMSNorm adds to the mean square, also in the norm after the last layer.
    fn norm_eps(&self) -> f64;

    /// What one evaluation costs in texts of `seq` tokens.
    fn cost(&self, d_model: usize, seq: usize) -> BlockCost;
}

/// A configuration as a table.
pub(crate) fn table(config: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(keys)) => keys,
        _ => panic!("the configuration of a block serialises as a table"),
    }
}

/// The costs of one evaluation of a block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockCost {
    /// Floating-point operations for each token of a forward pass, averaged over the text. A
    /// multiplication and an addition count as two; norms and activations are left out.
    pub flops_per_token: f64,
    /// Bytes for each token of the cache, in f32.
    pub cache_bytes_per_token: u64,
    /// Numbers for each token that a backward pass keeps of the forward pass.
    pub activations_per_token: u64,
}

/// What one evaluation of a block remembers of a batch of texts.
pub trait BlockCache: Clone + Debug + Send + Sync + 'static {
    /// An empty cache with elements of this type.
    fn new(stored: Precision) -> Self;

    /// Keeps these rows of the batch, in this order.
    fn keep_rows(&mut self, rows: &[usize]);

    /// Replaces a row by the only row of another cache.
    fn put_row(&mut self, row: usize, other: Self);

    /// Adds the rows of another cache behind its own.
    fn append(&mut self, other: Self);

    /// Tokens that each row has room for; the larger of that and its tokens if there is no limit.
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
    /// New tokens of texts whose earlier tokens are in caches.
    New {
        /// What each row's columns are.
        rows: Vec<CacheRow>,
        /// Columns of the batch.
        seq: usize,
        /// The most tokens that any row will ever have.
        limit: usize,
    },
}

/// All that a block is told about one evaluation besides its input.
#[derive(Debug)]
pub struct Evaluation<'a, B: Block> {
    /// Where the tokens stand.
    pub context: &'a B::Context,
    /// What the same evaluation remembers of earlier tokens, in decoding.
    pub cache: Option<&'a mut B::Cache>,
    /// Where the block may add terms of the loss, `[1]` each: sums over the tokens of the batch,
    /// in nats, as all losses here. Nobody reads them outside training.
    pub terms: &'a mut Vec<Tensor<1>>,
}
