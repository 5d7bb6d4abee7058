//! [`TargetDecoder`] for `iiet-model`'s sequence-to-sequence models.

use std::cmp::Reverse;
use std::ops::ControlFlow;

use burn::tensor::Device;
use iiet_model::{
    EncoderDecoderConfig, MemoryEstimate, ModelError, Precision, Source, padded, token_ids,
};
use iiet_text::{BeamBatch, BeamSearch, EngineOptions, TextError, TextToText};

use crate::error::EvalError;
use crate::scorer::{Progress, RollingScore, TargetDecoder, Unscorable};
use crate::token_scorer::BATCH_TOKENS;
use crate::token_scores::score_tokens;

/// Sources that are decoded in one batch.
pub(crate) const ROWS: usize = 8;
/// Characters of a text in messages.
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

    /// The tokens of a source, if the model can read it.
    fn source(&self, source: &str) -> Result<Result<Vec<u32>, Unscorable>, EvalError> {
        let context = self.model.model().sizes().seq_len;
        let refuse = |tokens| Ok(Err(unscorable("the source", source, tokens, context)));
        match self.model.encode(source) {
            Ok(ids) => Ok(Ok(ids)),
            Err(TextError::SourceTooLong { tokens, .. }) => refuse(tokens),
            Err(TextError::Source { .. }) => refuse(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The tokens of a pair, if both sides fit into the context.
    fn pair(&self, source: &str, target: &str) -> Result<Result<Pair, Unscorable>, EvalError> {
        let source = match self.source(source)? {
            Ok(source) => source,
            Err(reason) => return Ok(Err(reason)),
        };
        let tokens = self.model.tokenizer().encode(target)?;
        let (ends, context) = (self.model.ends(), self.model.model().sizes().seq_len);
        // The end token is predicted, and the start token read.
        if tokens.len() >= context {
            let reason = unscorable("the reference", target, tokens.len() + 1, context);
            return Ok(Err(reason));
        }
        let inputs = [&[ends.start], &tokens[..]].concat();
        let outputs = [&tokens[..], &ends.end[..1]].concat();
        Ok(Ok(Pair {
            source,
            inputs,
            outputs,
        }))
    }

    /// `log p(target | source)` of each pair of a batch, in nats.
    fn log_likelihoods(&self, pairs: &[&Pair]) -> Result<Vec<f64>, EvalError> {
        let (model, device) = (self.model.model(), self.model.device());
        let sources: Vec<&[u32]> = pairs.iter().map(|pair| &*pair.source).collect();
        let inputs: Vec<&[u32]> = pairs.iter().map(|pair| &*pair.inputs).collect();
        let (ids, [batch, seq]) = padded(&inputs);
        let ids = token_ids(&ids, [batch, seq], device);
        let hidden = model.hidden(&Source::of(&sources, device), ids);
        let [_, _, d_model] = hidden.dims();
        let wanted = pairs.iter().enumerate().flat_map(|(row, pair)| {
            let outputs = pair.outputs.iter().enumerate();
            outputs.map(move |(place, token)| (row * seq + place, *token))
        });
        let wanted: Vec<(usize, u32)> = wanted.collect();
        let hidden = hidden.reshape([batch * seq, d_model]);
        let logits = |hidden| model.logits(hidden);
        let scores = score_tokens(&hidden, &wanted, model.sizes().vocab_size, logits)?;
        let mut scores = scores.iter().map(|score| f64::from(score.log_probability));
        let of_pair = |pair: &&Pair| scores.by_ref().take(pair.outputs.len()).sum();
        Ok(pairs.iter().map(of_pair).collect())
    }
}

/// A source and its target in tokens.
struct Pair {
    source: Vec<u32>,
    /// The start token and those of the target.
    inputs: Vec<u32>,
    /// The target's tokens and the end token.
    outputs: Vec<u32>,
}

impl Pair {
    /// The tokens of the longer side.
    fn longer(&self) -> usize {
        self.source.len().max(self.outputs.len())
    }

    /// The tokens of both sides.
    fn tokens(&self) -> u64 {
        (self.source.len() + self.outputs.len()) as u64
    }
}

impl TargetDecoder for ModelDecoder {
    fn best_targets(
        &self,
        sources: &[String],
        search: &BeamSearch,
        progress: &dyn Progress,
    ) -> Result<Vec<Result<String, Unscorable>>, EvalError> {
        let mut targets: Vec<Result<String, Unscorable>> = Vec::with_capacity(sources.len());
        // The sources that can be encoded, with their number and length.
        let (mut asked, mut places) = (Vec::new(), Vec::new());
        for (number, source) in sources.iter().enumerate() {
            targets.push(self.source(source)?.map(|ids| {
                asked.push(source);
                places.push((number, ids.len() as u64));
                String::new()
            }));
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
    fn target_scores(
        &self,
        pairs: &[(&str, &str)],
        progress: &dyn Progress,
    ) -> Result<Vec<Result<RollingScore, Unscorable>>, EvalError> {
        let mut scores = Vec::with_capacity(pairs.len());
        let mut fits: Vec<(usize, Pair)> = Vec::new();
        for (number, (source, target)) in pairs.iter().enumerate() {
            scores.push(self.pair(source, target)?.map(|pair| {
                let tokens = pair.outputs.len() as u64;
                fits.push((number, pair));
                RollingScore {
                    log_likelihood: 0.0,
                    tokens,
                }
            }));
        }
        progress.start(fits.iter().map(|(_, pair)| pair.tokens()).sum());
        // The longest first: what needs the most memory is tried first.
        fits.sort_by_key(|(_, pair)| Reverse(pair.longer()));
        let mut rest = &fits[..];
        while let Some((_, longest)) = rest.first() {
            let size = (BATCH_TOKENS / longest.longer()).clamp(1, rest.len());
            let (batch, after) = rest.split_at(size);
            let together: Vec<&Pair> = batch.iter().map(|(_, pair)| pair).collect();
            for ((number, _), nats) in batch.iter().zip(self.log_likelihoods(&together)?) {
                if let Ok(score) = &mut scores[*number] {
                    score.log_likelihood = nats;
                }
            }
            progress.advance(together.iter().map(|pair| pair.tokens()).sum());
            rest = after;
        }
        Ok(scores)
    }
}

fn unscorable(what: &'static str, text: &str, tokens: usize, context: usize) -> Unscorable {
    let from = text.char_indices().rev().nth(SHOWN - 1);
    Unscorable {
        what,
        tokens,
        allowed: format!("1 to {context}"),
        context: text[from.map_or(0, |(at, _)| at)..].to_owned(),
        continuation: String::new(),
    }
}
