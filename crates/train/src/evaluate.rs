//! The loss on held-out text, in units that compare across tokenizers, and what to compare it with.

use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_data::{Batch, Batches, Corpus, HeldOut, Tokenizer, evaluation_windows, statistics};
use iiet_model::{LanguageModel, token_ids};

use crate::TrainError;

/// A loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean nats per token; over several sources, their mean by weight.
    pub loss: f64,
    /// Bits per byte of text.
    pub bits_per_byte: f64,
    /// Mean nats per token of each source, by name.
    pub by_source: BTreeMap<String, f64>,
}

/// Yardsticks on the same text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baselines {
    /// The entropy of the text's own token frequencies, in nats per token: no model that ignores
    /// context can do better.
    pub unigram_loss: f64,
    /// The same in bits per byte.
    pub unigram_bits_per_byte: f64,
    /// `gzip -9`, in bits per byte.
    pub gzip_bits_per_byte: f64,
}

/// How many bytes of text tokens stand for.
#[derive(Debug, Clone)]
pub(crate) struct TextBytes {
    per_token: Option<Vec<u32>>,
    /// Where the tokenizer does not say: the mean over the validation file.
    mean: f64,
}

impl TextBytes {
    pub(crate) fn new(corpus: &Corpus) -> Self {
        let held_out = corpus.held_out();
        let sum = |of: fn(&HeldOut) -> u64| held_out.iter().map(of).sum::<u64>() as f64;
        Self {
            per_token: corpus.tokenizer.token_bytes(),
            mean: sum(|text| text.tokens.text_bytes()) / sum(|text| text.tokens.len()).max(1.0),
        }
    }

    /// The bytes of a batch's targets that count.
    pub(crate) fn of(&self, batch: &Batch) -> f64 {
        let targets = batch.counted_targets().flatten();
        let bytes = targets.map(|token| match &self.per_token {
            Some(bytes) => f64::from(bytes[token as usize]),
            None => self.mean,
        });
        bytes.sum()
    }
}

/// A batch on a device.
#[derive(Debug, Clone)]
pub struct BatchTensors {
    /// `[batch, seq]`, the inputs.
    pub ids: Tensor<2, Int>,
    /// `[batch, seq]`, what to predict at each place; in text, the token after the input.
    pub targets: Tensor<2, Int>,
    /// `[batch, seq]`, by how much each loss counts: 1, and 0 for padding and prompts.
    pub weights: Tensor<2>,
    /// Targets of a weight above 0.
    pub tokens: u64,
}

impl BatchTensors {
    /// The batch with its weights, and so the loss, multiplied by a factor.
    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        if factor != 1.0 {
            self.weights = self.weights * factor;
        }
        self
    }
}

pub(crate) fn batch_tensors(batch: &Batch, device: &Device) -> BatchTensors {
    let shape = [batch.batch, batch.seq];
    let weights = TensorData::new::<f32, _>(batch.weights.clone(), shape);
    let weights = Tensor::from_data(weights, device);
    BatchTensors {
        ids: token_ids(&batch.inputs, shape, device),
        targets: token_ids(&batch.targets, shape, device),
        weights,
        tokens: batch.counted(),
    }
}

/// A fixed, evenly spread part of the held-out text of each source.
///
/// The total over several sources is the mean of their losses by the weights of the mixture, that
/// is the loss to expect on text mixed as the training text is. Bits per byte are of the same mean:
/// nats of an expected token over its expected bytes.
#[derive(Debug)]
pub struct Validation {
    parts: Vec<Part>,
}

/// The text of one source.
#[derive(Debug)]
struct Part {
    name: String,
    /// Of the total; the shares sum to 1.
    share: f64,
    batches: Vec<Batch>,
    tokens: u64,
    bytes: f64,
}

impl Validation {
    /// At most `max_tokens` tokens of the held-out text in all (but at least a window of each
    /// source), in windows of `seq` tokens.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] if the tokens cannot be read.
    pub(crate) fn new(
        held_out: &[HeldOut],
        text: &TextBytes,
        batch: usize,
        seq: usize,
        max_tokens: u64,
    ) -> Result<Self, TrainError> {
        let weights: f64 = held_out.iter().map(|source| source.weight).sum();
        let part = |HeldOut {
                        name,
                        weight,
                        tokens,
                    }: &HeldOut| {
            let share = weight / weights;
            let source = Batches::new(tokens.clone(), batch, seq, 0)?;
            let max_tokens = (share * max_tokens as f64) as u64;
            let windows = evaluation_windows(source.windows(), seq, max_tokens);
            let batches: Vec<Batch> = windows
                .chunks(batch)
                .map(|windows| source.of_windows(windows))
                .collect::<Result<_, _>>()?;
            Ok(Part {
                name: name.clone(),
                share,
                tokens: batches.iter().map(Batch::counted).sum(),
                bytes: batches.iter().map(|batch| text.of(batch)).sum(),
                batches,
            })
        };
        let parts = held_out.iter().map(part);
        Ok(Self {
            parts: parts.collect::<Result<_, TrainError>>()?,
        })
    }

    /// Tokens predicted.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.tokens).sum()
    }

    /// The model's loss on each source; the model should be free of autodiff.
    pub fn evaluate(&self, model: &LanguageModel, device: &Device) -> Evaluation {
        let losses = self.parts.iter().map(|part| part.loss(model, device));
        let losses: Vec<f64> = losses.collect();
        let (loss, bits_per_byte) = self.total(&losses);
        let by_source = self.parts.iter().zip(&losses);
        Evaluation {
            loss,
            bits_per_byte,
            by_source: by_source
                .map(|(part, loss)| (part.name.clone(), *loss))
                .collect(),
        }
    }

    /// What the text yields without a model.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] if a token cannot be decoded.
    pub fn baselines(&self, tokenizer: &Tokenizer) -> Result<Baselines, TrainError> {
        let (mut unigram, mut gzip) = (Vec::new(), Vec::new());
        for part in &self.parts {
            let (counts, text) = part.counts_and_text(tokenizer)?;
            unigram.push(statistics::unigram_entropy(&counts));
            let bits = statistics::gzip_bits_per_byte(text.as_bytes())
                .expect("invariant: reading from memory does not fail");
            // As nats a token, so that sources are weighed as their losses are.
            let tokens_per_byte = part.tokens as f64 / part.bytes;
            gzip.push(bits * std::f64::consts::LN_2 / tokens_per_byte);
        }
        let (unigram_loss, unigram_bits_per_byte) = self.total(&unigram);
        let gzip_bits_per_byte = self.total(&gzip).1;
        Ok(Baselines {
            unigram_loss,
            unigram_bits_per_byte,
            gzip_bits_per_byte,
        })
    }

    /// The weighted mean of the sources' nats a token, and the same in bits per byte.
    fn total(&self, losses: &[f64]) -> (f64, f64) {
        let mean = |of: &dyn Fn(usize, &Part) -> f64| -> f64 {
            let parts = self.parts.iter().enumerate();
            parts.map(|(at, part)| part.share * of(at, part)).sum()
        };
        let loss = mean(&|at, _| losses[at]);
        let bytes = mean(&|_, part| part.bytes / part.tokens as f64);
        (loss, loss / bytes / std::f64::consts::LN_2)
    }
}

impl Part {
    fn loss(&self, model: &LanguageModel, device: &Device) -> f64 {
        let sums = self.batches.iter().map(|batch| {
            let BatchTensors {
                ids,
                targets,
                weights,
                ..
            } = batch_tensors(batch, device);
            let loss = model.loss(ids, targets, weights);
            f64::from(loss.into_scalar::<f32>())
        });
        sums.sum::<f64>() / self.tokens as f64
    }

    /// How often each token is a target, and the targets' text.
    fn counts_and_text(&self, tokenizer: &Tokenizer) -> Result<(Vec<u64>, String), TrainError> {
        let mut counts = vec![0u64; tokenizer.vocab_size()];
        let mut text = String::new();
        for batch in &self.batches {
            for row in batch.counted_targets() {
                let tokens: Vec<u32> = row.collect();
                for token in &tokens {
                    counts[*token as usize] += 1;
                }
                text.push_str(&tokenizer.decode(&tokens)?);
            }
        }
        Ok((counts, text))
    }
}
