//! What a run trains: a [`LanguageModel`](iiet_model::LanguageModel) or an
//! [`EncoderDecoder`](iiet_model::EncoderDecoder).
//!
//! The trainer, its checkpoints and its steps know a model only as a [`TrainedModel`].

mod encoder_decoder;
mod language_model;

use std::fmt::Debug;
use std::path::Path;

use burn::tensor::{Device, Gradients, Tensor};
use iiet_data::Tokenizer;
use iiet_model::{
    DropoutRates, MicroBatch, ModelError, Objective, Precision, SavedModel, TrainingMemory,
};

use crate::{BatchTensors, ModelSection, Recompute, RunConfig, TrainError, TrainSection};

/// A model that can be trained.
pub trait TrainedModel: SavedModel + Debug + Sync + 'static {
    /// The configuration for the update after `step`: that of its stage.
    fn of_run(config: &RunConfig, vocabulary: Vocabulary, step: u64) -> Self::Config;

    /// A newly initialised model: a matrix depends on the RNG seed and on its own name only.
    ///
    /// # Errors
    ///
    /// [`ModelError`] for an invalid configuration.
    fn initialised(config: &Self::Config, seed: u64, device: &Device) -> Result<Self, ModelError>;

    /// A model of another configuration that takes over every parameter of this one with the same name and
    /// shape; the others are newly initialised.
    ///
    /// # Errors
    ///
    /// [`ModelError`] for an invalid configuration.
    fn configured(
        &self,
        config: &Self::Config,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError>;

    /// The model in a directory.
    ///
    /// # Errors
    ///
    /// [`ModelError`] with the file, what was found and what is allowed.
    fn read(dir: &Path, device: &Device) -> Result<Self, ModelError>;

    /// The configuration, with the solvers' current options.
    fn current(&self) -> Self::Config;

    /// The text of `config.json`.
    fn json(config: &Self::Config) -> String;

    /// The section of a run's configuration that describes the model.
    fn section(config: &Self::Config) -> ModelSection;

    /// Size of the vocabulary, in tokens.
    fn vocab_size(config: &Self::Config) -> usize;

    /// What is called the solver in messages.
    fn solver_name(config: &Self::Config) -> String;

    /// The same weights with `r` corrections in each layer that takes any.
    fn with_corrections(self, r: usize) -> Self;

    /// A bitwise identical copy on a device.
    fn copied_to(&self, device: &Device) -> Self;

    /// The model with its matrices in the given precision.
    fn rounded(self, precision: Precision) -> Self;

    /// The loss of a batch: the sum of an objective's terms and of those that blocks add, `[1]`.
    ///
    /// # Panics
    ///
    /// If the model needs sources and the batch has none.
    fn loss_of(&self, batch: &BatchTensors, objective: &mut dyn Objective) -> Tensor<1>;

    /// The same loss, without autodiff. Its gradients are passed to the callback in parts, while the
    /// activations of one layer at a time are kept.
    ///
    /// # Panics
    ///
    /// If the model needs sources and the batch has none.
    fn loss_by_layers(
        &self,
        batch: &BatchTensors,
        objective: &mut dyn Objective,
        collect: &mut dyn FnMut(Gradients),
    ) -> Tensor<1>;

    /// What a step costs.
    fn step_cost(&self) -> StepCost;

    /// An estimate of the memory for the micro-batches of a device, `micro_batches` of them a step.
    fn training_memory(
        &self,
        train: &TrainSection,
        seq_len: usize,
        micro_batches: usize,
    ) -> TrainingMemory;

    /// What the names of the parameters of layers that take corrections begin with.
    fn iterated_layers(&self) -> Vec<String>;

    /// A text that the model makes of a prompt, to be looked at during training.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if the prompt cannot be encoded, or the text cannot be decoded.
    fn sample(
        &self,
        prompt: &str,
        tokenizer: &Tokenizer,
        seed: u64,
        device: &Device,
    ) -> Result<String, TrainError>;
}

/// What a model's configuration takes from a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    /// Number of tokens.
    pub size: usize,
    /// The token that ends a document.
    pub document_end: Option<u32>,
}

impl Vocabulary {
    /// That of a tokenizer.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        Self {
            size: tokenizer.vocab_size(),
            document_end: tokenizer.document_end(),
        }
    }
}

/// A micro-batch of a configuration, of which a device has `micro_batches` a step; sources have as many tokens as
/// targets, padding included.
fn micro_batch(train: &TrainSection, seq_len: usize, micro_batches: usize) -> MicroBatch {
    let tokens = train.micro_batch_tokens(seq_len);
    MicroBatch {
        source_tokens: tokens,
        precision: train.precision,
        by_layers: train.recompute == Recompute::Layer,
        accumulated: micro_batches > 1,
        ..MicroBatch::of(tokens)
    }
}

/// Adds the masks that dropout keeps, in bytes per token.
fn with_masks(memory: TrainingMemory, bytes: u64, tokens: usize) -> TrainingMemory {
    let masks = bytes.saturating_mul(tokens as u64);
    TrainingMemory {
        activations: memory.activations.saturating_add(masks),
        ..memory
    }
}

/// Bytes of the masks that dropout keeps for a layer, per token: `places` of the width of the states, and one of the
/// feed-forward layer's. Attention's are computed again where they are needed.
fn mask_bytes(rates: DropoutRates, places: usize, d_model: usize, d_ff: usize) -> u64 {
    let of = |rate: f64, values: usize| if rate > 0.0 { values as u64 } else { 0 };
    4 * (of(rates.residual, places * d_model) + of(rates.activation, d_ff))
}

/// The cost of a training step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCost {
    /// Number of parameters.
    pub parameters: u64,
    /// Evaluations of blocks per token, summed over the layers of all sides.
    pub evaluations: usize,
    /// Number of layers of all sides.
    pub layers: usize,
    /// Floating-point operations of a forward pass per token of a text or a target.
    pub flops_per_token: f64,
    /// The same per token of a source; 0 for a language model.
    pub flops_per_source_token: f64,
}
