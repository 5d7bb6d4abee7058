//! A model directory with its tokenizer.

use std::path::Path;

use burn::tensor::Device;
use iiet_data::{TextStream, Tokenizer};
use iiet_model::{LanguageModel, ModelConfig, Precision, load_in};
use iiet_ode::SolverConfig;

use crate::engine::Limits;
use crate::{SpecialTokens, TextError, TextRequest};

/// A model, its tokenizer, and the special tokens that start a text. A clone shares the parameters.
#[derive(Debug, Clone)]
pub struct TextModel {
    model: LanguageModel,
    config: ModelConfig,
    tokenizer: Tokenizer,
    /// The special tokens before a prompt.
    start: Vec<u32>,
}

impl TextModel {
    /// Reads a model directory.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if there is no usable `tokenizer.json`, [`TextError::Model`] if the
    /// configuration or weights cannot be used.
    pub fn open(precision: Precision, dir: &Path, device: &Device) -> Result<Self, TextError> {
        // Small files first, because reading the weights takes longer.
        iiet_model::load_config(dir)?;
        let tokenizer = open_tokenizer(dir)?;
        let start = start(dir, &tokenizer)?;
        let (model, config) = load_in(precision, dir, device)?;
        Ok(Self {
            model,
            config,
            tokenizer,
            start,
        })
    }

    /// The same with other options of the model's solver, of those that need no other parameters.
    ///
    /// # Errors
    ///
    /// [`TextError::Model`] for options that the model cannot have.
    pub fn with_solver_options(self, options: &SolverConfig) -> Result<Self, TextError> {
        let config = ModelConfig {
            solver: options.clone(),
            ..self.config
        };
        Ok(Self {
            model: self.model.with_solver_options(options)?,
            config,
            ..self
        })
    }

    /// The model.
    pub fn model(&self) -> &LanguageModel {
        &self.model
    }

    /// Its configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a prompt, preceded by those that start a text. Special tokens that are spelled
    /// out in the prompt are treated as plain text.
    ///
    /// # Errors
    ///
    /// [`TextError::Data`] if a part of the text cannot be encoded, [`TextError::Prompt`] if the
    /// prompt is empty and the model has no start token.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = self.start.clone();
        ids.extend(self.tokenizer.encode(prompt)?);
        if ids.is_empty() {
            // The token that ends a document also precedes the next.
            let end = self.tokenizer.document_end();
            let end = end.or(self.config.eos_token_ids.first().copied());
            ids.push(end.ok_or_else(|| TextError::Prompt {
                reason: "is empty, and the model has no start token".into(),
            })?);
        }
        Ok(ids)
    }

    /// Checks that the model can continue the request's prompt.
    ///
    /// # Errors
    ///
    /// The same as for [`encode`](Self::encode) and [`Engine::admit`](crate::Engine::admit).
    pub fn check(&self, request: &TextRequest) -> Result<(), TextError> {
        let prompt = self.encode(&request.prompt)?;
        Limits::of(&self.config).check(&prompt, request.sliding)
    }

    /// A decoder for the text that follows these tokens.
    ///
    /// # Errors
    ///
    /// [`TextError::Data`] if the tokenizer cannot decode them.
    pub(crate) fn stream(&self, prompt: &[u32]) -> Result<TextStream, TextError> {
        let known = prompt.iter().copied().filter(|id| self.is_text(*id));
        let known: Vec<u32> = known.collect();
        Ok(TextStream::new(&self.tokenizer, &known)?)
    }

    /// Whether the tokenizer has the token. Ids beyond its vocabulary, as in padded vocabularies,
    /// have no text.
    pub(crate) fn is_text(&self, id: u32) -> bool {
        (id as usize) < self.tokenizer.vocab_size()
    }
}

pub(crate) fn open_tokenizer(dir: &Path) -> Result<Tokenizer, TextError> {
    let path = dir.join("tokenizer.json");
    if path.exists() {
        return Ok(Tokenizer::open(&path)?);
    }
    let found = match dir.join("tokenizer.model").exists() {
        true => {
            "only tokenizer.model; transformers converts it with \
             AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        }
        false => "none",
    };
    let message = format!("no such file; a tokenizer is required, found {found}");
    Err(TextError::Tokenizer { path, message })
}

/// The special tokens before a prompt, as in `transformers`.
fn start(dir: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>, TextError> {
    let special = SpecialTokens::read(dir, |token| tokenizer.id(token))?;
    let template = special.template.map(|template| template.before);
    Ok(template.unwrap_or_else(|| tokenizer.start()))
}
