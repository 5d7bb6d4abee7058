//! A sequence-to-sequence model with its tokenizer: text in, text out.
//!
//! ```text
//! source   tokens of the text, end of document
//! target   decoder_start_token_id, else end of document | tokens | one of eos_token_id, else end of document
//! ```
//!
//! The end of a document is the tokenizer's (`</s>`, `<|endoftext|>` and their like), or else the first of
//! `eos_token_id`.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use iiet_data::{TextStream, Tokenizer};
use iiet_model::{EncoderDecoder, EncoderDecoderConfig, Precision};

use crate::beam::check_source;
use crate::text_model::open_tokenizer;
use crate::{BeamSearch, EngineOptions, Hypothesis, TargetEnds, TextError};

/// A sequence-to-sequence model on its device, and its tokenizer. A clone shares the parameters.
#[derive(Debug, Clone)]
pub struct TextToText {
    model: EncoderDecoder,
    device: Device,
    tokenizer: Tokenizer,
    document_end: u32,
    ends: TargetEnds,
}

/// A target that a search has found, and its text.
#[derive(Debug, Clone, PartialEq)]
pub struct TextHypothesis {
    /// Its text, without special tokens.
    pub text: String,
    /// Its tokens and its score.
    pub hypothesis: Hypothesis,
}

impl TextToText {
    /// Reads a model directory.
    ///
    /// # Errors
    ///
    /// [`TextError::Tokenizer`] if there is no usable `tokenizer.json`, or no token for the end of a
    /// document; [`TextError::Vocabulary`] if it has ids outside the model's vocabulary;
    /// [`TextError::Model`] if the configuration or the weights cannot be used.
    pub fn open(precision: Precision, dir: &Path, device: &Device) -> Result<Self, TextError> {
        // Small files first, because reading the weights takes longer.
        let config = EncoderDecoder::load_config(dir)?;
        let tokenizer = open_tokenizer(dir)?;
        let (document_end, ends) = ends(dir, &config, &tokenizer)?;
        Ok(Self {
            model: EncoderDecoder::load_in(precision, dir, device)?,
            device: device.clone(),
            tokenizer,
            document_end,
            ends,
        })
    }

    /// How text becomes tokens in such a directory, in a sentence, from its small files. Results should have
    /// it beside them.
    ///
    /// # Errors
    ///
    /// The same as for [`open`](Self::open), except those of the weights.
    pub fn rule(dir: &Path) -> Result<String, TextError> {
        let config = EncoderDecoder::load_config(dir)?;
        let (document_end, TargetEnds { start, end }) = ends(dir, &config, &open_tokenizer(dir)?)?;
        Ok(format!(
            "text is encoded as tokenizer.json says; a source ends with the token {document_end}, a target \
             begins with {start} and ends with {}",
            end.iter()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(" or ")
        ))
    }

    /// The model.
    pub fn model(&self) -> &EncoderDecoder {
        &self.model
    }

    /// The device that its parameters are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens between which a target stands.
    pub fn ends(&self) -> &TargetEnds {
        &self.ends
    }

    /// The tokens of a source, and the end of a document after them. Special tokens that are spelled out in
    /// the source are treated as plain text.
    ///
    /// # Errors
    ///
    /// [`TextError::Source`] if the source is empty, [`TextError::SourceTooLong`] if it is longer than the
    /// context, [`TextError::Data`] if a part of it cannot be encoded.
    pub fn encode(&self, source: &str) -> Result<Vec<u32>, TextError> {
        let mut ids = self.tokenizer.encode(source)?;
        if ids.is_empty() {
            let reason = "is empty; allowed: one token and more".into();
            return Err(TextError::Source { reason });
        }
        ids.push(self.document_end);
        check_source(&ids, self.model.sizes())?;
        Ok(ids)
    }

    /// The best targets of each source, the best first, by [`BeamSearch::search`].
    ///
    /// `batch.rows` sources of similar length are decoded together. `on_target` is called with the number of
    /// a source and its targets as soon as they are found, which is not in the order of the sources, and may
    /// end the work.
    ///
    /// # Errors
    ///
    /// The same as for [`encode`](Self::encode), before any source is decoded, and for
    /// [`BeamSearch::search`].
    ///
    /// # Panics
    ///
    /// If `batch.rows` is 0.
    pub fn search<S: AsRef<str>>(
        &self,
        sources: &[S],
        options: &BeamSearch,
        batch: EngineOptions,
        mut on_target: impl FnMut(usize, Vec<TextHypothesis>) -> ControlFlow<()>,
    ) -> Result<(), TextError> {
        let sources = sources.iter().map(|source| self.encode(source.as_ref()));
        let sources: Vec<Vec<u32>> = sources.collect::<Result<_, _>>()?;
        let mut order: Vec<usize> = (0..sources.len()).collect();
        // The longest first: what needs the most memory is tried first.
        order.sort_by_key(|number| std::cmp::Reverse(sources[*number].len()));
        for numbers in order.chunks(batch.rows) {
            let together: Vec<&[u32]> = numbers.iter().map(|n| &*sources[*n]).collect();
            let found = options.search(
                &self.model,
                &together,
                &self.ends,
                batch.cache,
                &self.device,
            )?;
            for (number, found) in numbers.iter().zip(found) {
                let texts = found.into_iter().map(|found| self.text(found));
                let texts = texts.collect::<Result<_, _>>()?;
                if on_target(*number, texts).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The target of a source by [`BeamSearch::greedy`], in pieces of whole characters as they are found.
    /// `on_text` is called with each, and may end the target.
    ///
    /// # Errors
    ///
    /// The same as for [`search`](Self::search).
    pub fn greedy(
        &self,
        source: &str,
        options: &BeamSearch,
        cache: Precision,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<TextHypothesis, TextError> {
        let source = self.encode(source)?;
        let mut stream = TextStream::new(&self.tokenizer, &[])?;
        let (mut text, mut failed, mut stopped) = (String::new(), None, false);
        let on_token = |token| {
            let new = match self.is_text(token) {
                true => stream.push(token),
                false => Ok(String::new()),
            };
            match new {
                Ok(new) => {
                    text.push_str(&new);
                    let go_on = on_text(&new);
                    stopped = go_on.is_break();
                    go_on
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        };
        let (model, device) = (&self.model, &self.device);
        let hypothesis = options.greedy(model, &source, &self.ends, cache, device, on_token)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let rest = stream.finish()?;
        if !stopped && !rest.is_empty() {
            // The target ends here in any case.
            let _ = on_text(&rest);
        }
        text.push_str(&rest);
        Ok(TextHypothesis { text, hypothesis })
    }

    fn text(&self, hypothesis: Hypothesis) -> Result<TextHypothesis, TextError> {
        let tokens = hypothesis.tokens.iter().copied();
        let tokens: Vec<u32> = tokens.filter(|id| self.is_text(*id)).collect();
        let text = self.tokenizer.decode(&tokens)?;
        Ok(TextHypothesis { text, hypothesis })
    }

    /// Whether the tokenizer has the token. Ids beyond its vocabulary, as in padded vocabularies, have no
    /// text.
    fn is_text(&self, id: u32) -> bool {
        (id as usize) < self.tokenizer.vocab_size()
    }
}

/// The end of a document, and the tokens between which a target stands.
fn ends(
    dir: &Path,
    config: &EncoderDecoderConfig,
    tokenizer: &Tokenizer,
) -> Result<(u32, TargetEnds), TextError> {
    let path = dir.join("tokenizer.json");
    let vocab_size = config.vocab_size;
    if tokenizer.vocab_size() > vocab_size {
        let found = (tokenizer.vocab_size() - 1) as u32;
        return Err(TextError::Vocabulary {
            path,
            found,
            vocab_size,
        });
    }
    let eos = &config.eos_token_ids;
    let end = tokenizer.document_end().or(eos.first().copied());
    let Some(end) = end else {
        let message =
            "has no token for the end of a document, such as </s>, and config.json names no \
                       eos_token_id; a source and a target end with one"
                .into();
        return Err(TextError::Tokenizer { path, message });
    };
    let ends = TargetEnds {
        start: config.decoder_start_token_id.unwrap_or(end),
        end: match eos.is_empty() {
            true => vec![end],
            false => eos.clone(),
        },
    };
    Ok((end, ends))
}
