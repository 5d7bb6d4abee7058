//! What a model must tell so that a directory can hold it, and which kind of model a directory holds.

use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use iiet_blocks::Block;
use iiet_files::Manifest;
use iiet_ode::{NetworkSolver, Parameters};

use super::directory::Directory;
use super::transformers;
use crate::{
    ConfigOf, EncoderDecoder, EncoderDecoderConfig, LanguageModel, ModelConfig, ModelError,
    Projections,
};

/// A model that directories hold: [`LanguageModel`] and [`EncoderDecoder`].
pub trait SavedModel: Module + Parameters + Projections {
    /// What its `config.json` says.
    type Config: Clone;

    /// Reads the text of a `config.json`; `path` is used in messages.
    ///
    /// # Errors
    ///
    /// [`ModelError`] with the key, what was found and what is allowed.
    fn config_from_json(text: &str, path: &Path) -> Result<Self::Config, ModelError>;

    /// The configuration with what a `generation_config.json` says.
    ///
    /// # Errors
    ///
    /// [`ModelError`] with the key, what was found and what is allowed.
    fn with_generation_json(
        config: Self::Config,
        text: &str,
        path: &Path,
    ) -> Result<Self::Config, ModelError>;

    /// A model with zero matrices.
    ///
    /// # Errors
    ///
    /// [`ModelError`] for an invalid configuration.
    fn empty(config: &Self::Config, device: &Device) -> Result<Self, ModelError>;

    /// The layers of all sides.
    fn layers(config: &Self::Config) -> usize;

    /// Copies that some tools write although they equal another tensor: their names, and the other's.
    fn tied(config: &Self::Config) -> &'static [(&'static str, &'static str)];

    /// The text of `config.json`. Files that other programs read the model with are written, and entered in
    /// the manifest.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`] for a file that cannot be written.
    fn write_config(&self, dir: &Path, manifest: &mut Manifest) -> Result<String, ModelError>;
}

impl<B: Block, S: NetworkSolver> SavedModel for LanguageModel<B, S> {
    type Config = ConfigOf<B, S>;

    fn config_from_json(text: &str, path: &Path) -> Result<Self::Config, ModelError> {
        ModelConfig::from_json(text, path)
    }

    fn with_generation_json(
        config: Self::Config,
        text: &str,
        path: &Path,
    ) -> Result<Self::Config, ModelError> {
        config.with_generation_json(text, path)
    }

    fn empty(config: &Self::Config, device: &Device) -> Result<Self, ModelError> {
        Self::empty(config, device)
    }

    fn layers(config: &Self::Config) -> usize {
        config.n_layers
    }

    fn tied(config: &Self::Config) -> &'static [(&'static str, &'static str)] {
        match config.tie_embeddings {
            true => &[("lm_head.weight", "model.embed_tokens.weight")],
            false => &[],
        }
    }

    fn write_config(&self, dir: &Path, manifest: &mut Manifest) -> Result<String, ModelError> {
        transformers::write(&self.config(), dir, manifest)
    }
}

impl SavedModel for EncoderDecoder {
    type Config = EncoderDecoderConfig;

    fn config_from_json(text: &str, path: &Path) -> Result<Self::Config, ModelError> {
        EncoderDecoderConfig::from_json(text, path)
    }

    fn with_generation_json(
        config: Self::Config,
        text: &str,
        path: &Path,
    ) -> Result<Self::Config, ModelError> {
        config.with_generation_json(text, path)
    }

    fn empty(config: &Self::Config, device: &Device) -> Result<Self, ModelError> {
        Self::empty(config, device)
    }

    fn layers(config: &Self::Config) -> usize {
        config.encoder.n_layers + config.decoder.n_layers
    }

    fn tied(_: &Self::Config) -> &'static [(&'static str, &'static str)] {
        &[
            ("lm_head.weight", "model.shared.weight"),
            ("model.encoder.embed_tokens.weight", "model.shared.weight"),
            ("model.decoder.embed_tokens.weight", "model.shared.weight"),
        ]
    }

    fn write_config(&self, _: &Path, _: &mut Manifest) -> Result<String, ModelError> {
        Ok(self.config().to_json())
    }
}

/// What a model directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelKind {
    /// A [`LanguageModel`].
    LanguageModel,
    /// An [`EncoderDecoder`].
    EncoderDecoder,
}

/// What a directory's `config.json` says it holds; whether it can be read is another matter.
///
/// # Errors
///
/// [`ModelError`] if the file is missing, is not JSON, or differs from its record in the manifest.
pub fn model_kind(dir: &Path) -> Result<ModelKind, ModelError> {
    Directory::open(dir)?.kind()
}
