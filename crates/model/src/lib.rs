//! ODE transformer models: blocks x solver.
//!
//! [`LanguageModel`] embeds tokens, integrates `dy/dt = F(y)` with one solver step per layer, and
//! projects the normalised result to logits. [`ModelConfig`] defines the sizes and the solver.
//! [`load`] reads a model directory in Hugging Face layout and [`save`] writes one; a plain LLaMA
//! checkpoint is a model with the explicit Euler solver. [`EncoderDecoder`] is a sequence-to-sequence model of
//! the same blocks and solvers, in directories of the same kind.
//!
//! ```no_run
//! # // Needs a backend, which an application chooses by a feature of `burn`.
//! use burn::tensor::{Device, Int, Tensor};
//!
//! let (model, config) = iiet_model::load("runs/tiny/model".as_ref(), &Device::default())?;
//! let ids = Tensor::<2, Int>::from_data([[1, 2, 3]], &Device::default());
//! assert_eq!(model.forward(ids).dims(), [1, 3, config.vocab_size]);
//! # Ok::<(), iiet_model::ModelError>(())
//! ```

mod by_layers;
mod checkpoint;
mod compress;
mod config;
mod convert;
mod copy;
mod corrections;
mod cost;
mod decoder;
mod encoder_decoder;
mod error;
#[cfg(feature = "hub")]
mod hub;
mod init;
mod language_model;
mod memory;
mod names;
mod objective;
mod precision;
mod projections;
mod smoothing;
mod stack;
mod token_embedding;
mod token_ids;
mod training_memory;
mod walk;

pub use checkpoint::{
    ModelKind, SaveOptions, SavedModel, StoredTensors, load, load_as, load_config, load_in,
    model_directory, model_hash, model_kind, of_floats, parse_safetensors, quantisation, save,
    weight_bytes, write_safetensors,
};
pub use compress::{PruneMethod, prune_by_magnitude, round_to_bits, treat_inputs, widen};
pub use config::ModelConfig;
pub use corrections::CorrectionCount;
pub use cost::Cost;
pub use decoder::Cache;
pub use encoder_decoder::{
    EncoderDecoder, EncoderDecoderConfig, EncoderDecoderCost, SequenceInference, Side, Source,
    SourceCache, StackConfig, padded,
};
pub use error::{ModelError, TensorFault};
#[cfg(feature = "hub")]
pub use hub::{fetch_model, is_hub_name};
pub use iiet_blocks::{
    AttentionBias, Dropout, DropoutRates, Llama3Scaling, LlamaConfig, Precision,
};
pub use iiet_ode::Role;
pub use language_model::{Backbone, ConfigOf, LanguageModel};
pub use memory::{Inference, MemoryEstimate, available_memory};
pub use names::{ParameterMapper, ParameterVisitor, map_parameters, visit_parameters};
pub use objective::{CrossEntropy, Objective};
pub use projections::Projections;
pub use smoothing::SmoothedCrossEntropy;
pub use stack::Stack;
pub use token_embedding::{PackedEmbedding, TokenEmbedding};
pub use token_ids::token_ids;
pub use training_memory::{MicroBatch, TrainingMemory};
pub use walk::{At, Observer, Pass};

/// The examples in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The example of the workspace's README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct WorkspaceReadme;
