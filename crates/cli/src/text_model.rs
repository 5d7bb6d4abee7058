//! A model directory with its tokenizer: what text is read and written with.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use iiet_data::Tokenizer;
use iiet_model::{LanguageModel, ModelConfig, load};
use serde_json::Value;

/// A model, its tokenizer, and what starts and ends its texts.
pub(crate) struct TextModel {
    pub(crate) model: LanguageModel,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Tokenizer,
    /// The special tokens before a prompt.
    start: Vec<u32>,
}

impl TextModel {
    pub(crate) fn open(dir: &Path, device: &Device) -> anyhow::Result<Self> {
        // The tokenizer first: reading the weights takes longer.
        let config = iiet_model::load_config(dir)?;
        let tokenizer = open_tokenizer(dir)?;
        let start = start(dir, &tokenizer, &config)?;
        let (model, config) = load(dir, device)?;
        Ok(Self {
            model,
            config,
            tokenizer,
            start,
        })
    }

    /// The tokens of a prompt, with those that start a text before them.
    pub(crate) fn encode(&self, prompt: &str) -> anyhow::Result<Vec<u32>> {
        let mut ids = self.start.clone();
        ids.extend(self.tokenizer.encode(prompt)?);
        if ids.is_empty() {
            // What ends a document also comes before the next.
            let end = self.tokenizer.document_end();
            let end = end.or(self.config.eos_token_ids.first().copied());
            ids.push(end.context("the prompt is empty, and the model has no token for a start")?);
        }
        Ok(ids)
    }
}

fn open_tokenizer(dir: &Path) -> anyhow::Result<Tokenizer> {
    let path = dir.join("tokenizer.json");
    if !path.exists() {
        let found = match dir.join("tokenizer.model").exists() {
            true => {
                "tokenizer.model alone; transformers writes the other from it, with \
                AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            }
            false => "none",
        };
        bail!(
            "{}: no such file; a tokenizer is needed, and there is {found}",
            path.display()
        );
    }
    Ok(Tokenizer::open(&path)?)
}

/// The tokens before a prompt, as `transformers` would put them.
///
/// The template in `tokenizer.json` says it, except that LLaMA's own tokenizer class makes its
/// template from `add_bos_token` in `tokenizer_config.json`. Where there is neither a template nor
/// that file, the configuration's beginning-of-text token is it.
fn start(dir: &Path, tokenizer: &Tokenizer, config: &ModelConfig) -> anyhow::Result<Vec<u32>> {
    let template = tokenizer.start();
    let beginning = || match config.bos_token_id {
        Some(id) => vec![id],
        None => template.clone(),
    };
    let path = dir.join("tokenizer_config.json");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(if template.is_empty() {
                beginning()
            } else {
                template
            });
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let json: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let class = json["tokenizer_class"].as_str().unwrap_or_default();
    if !class.starts_with("LlamaTokenizer") && !class.starts_with("CodeLlamaTokenizer") {
        return Ok(template);
    }
    match json["add_bos_token"].as_bool() {
        Some(false) => Ok(Vec::new()),
        _ => Ok(beginning()),
    }
}
