//! A model directory with its tokenizer: what text is read and written with.

use std::path::Path;

use anyhow::{Context, bail};
use burn::tensor::Device;
use iiet_data::Tokenizer;
use iiet_eval::SpecialTokens;
use iiet_model::{LanguageModel, ModelConfig, Precision, load_in};

/// A model, its tokenizer, and what starts and ends its texts.
pub(crate) struct TextModel {
    pub(crate) model: LanguageModel,
    pub(crate) config: ModelConfig,
    pub(crate) tokenizer: Tokenizer,
    /// The special tokens before a prompt.
    start: Vec<u32>,
}

impl TextModel {
    pub(crate) fn open(precision: Precision, dir: &Path, device: &Device) -> anyhow::Result<Self> {
        // The small files first: reading the weights takes longer.
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
fn start(dir: &Path, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let special = SpecialTokens::read(dir, |token| tokenizer.id(token))?;
    let template = special.template.map(|template| template.before);
    Ok(template.unwrap_or_else(|| tokenizer.start()))
}
