//! [`TargetDecoder`] for `iiet-model`'s sequence-to-sequence models.

use std::ops::ControlFlow;

use burn::tensor::Device;
use iiet_model::{EncoderDecoderConfig, MemoryEstimate, ModelError, Precision};
use iiet_text::{BeamBatch, BeamSearch, EngineOptions, TextError, TextToText};

use crate::error::EvalError;
use crate::scorer::{Progress, TargetDecoder, Unscorable};

/// Sources that are decoded in one batch.
const ROWS: usize = 8;
/// Characters of a source in messages.
const SHOWN: usize = 40;

/// A sequence-to-sequence model with its tokenizer.
pub struct ModelDecoder {
    model: TextToText,
    cache: Precision,
}

impl ModelDecoder {
    /// Decodes with this model. `cache` is the dtype of the targets' keys and values.
    pub fn new(model: TextToText, cache: Precision) -> Self {
        Self { model, cache }
    }

    /// The model.
    pub fn text_to_text(&self) -> &TextToText {
        &self.model
    }

    /// The memory for decoding with such a model.
    ///
    /// # Errors
    ///
    /// The errors of [`EncoderDecoderConfig::validate`].
    pub fn memory(
        work: String,
        search: &BeamSearch,
        precision: Precision,
        config: &EncoderDecoderConfig,
        device: &Device,
    ) -> Result<MemoryEstimate, ModelError> {
        let batch = BeamBatch {
            sources: ROWS,
            longest: config.seq_len,
            precision,
            cache: precision,
        };
        search.memory(batch, work, config, device)
    }
}

impl TargetDecoder for ModelDecoder {
    fn best_targets(
        &self,
        sources: &[String],
        search: &BeamSearch,
        progress: &dyn Progress,
    ) -> Result<Vec<Result<String, Unscorable>>, EvalError> {
        let context = self.model.model().sizes().seq_len;
        let mut targets: Vec<Result<String, Unscorable>> = Vec::with_capacity(sources.len());
        // The sources that can be encoded, with their number and length.
        let (mut asked, mut places) = (Vec::new(), Vec::new());
        for (number, source) in sources.iter().enumerate() {
            targets.push(match self.model.encode(source) {
                Ok(ids) => {
                    asked.push(source);
                    places.push((number, ids.len() as u64));
                    Ok(String::new())
                }
                Err(TextError::SourceTooLong { tokens, .. }) => {
                    Err(unscorable(source, tokens, context))
                }
                Err(TextError::Source { .. }) => Err(unscorable(source, 0, context)),
                Err(error) => return Err(error.into()),
            });
        }
        progress.start(places.iter().map(|(_, tokens)| tokens).sum());
        let batch = EngineOptions {
            rows: ROWS,
            cache: self.cache,
        };
        self.model.search(&asked, search, batch, |at, found| {
            let (number, tokens) = places[at];
            if let (Ok(target), Some(best)) = (&mut targets[number], found.into_iter().next()) {
                *target = best.text;
            }
            progress.advance(tokens);
            ControlFlow::Continue(())
        })?;
        Ok(targets)
    }
}

fn unscorable(source: &str, tokens: usize, context: usize) -> Unscorable {
    let from = source.char_indices().rev().nth(SHOWN - 1);
    Unscorable {
        what: "the source",
        tokens,
        allowed: format!("1 to {context}"),
        context: source[from.map_or(0, |(at, _)| at)..].to_owned(),
        continuation: String::new(),
    }
}
