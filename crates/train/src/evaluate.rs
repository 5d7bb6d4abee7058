//! The loss on held-out text, in units that compare across tokenizers, and what to compare it with.

use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_data::{Batch, Batches, Prepared, Tokenizer, evaluation_windows, statistics};
use iiet_model::LanguageModel;

use crate::TrainError;

/// A loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean nats per token.
    pub loss: f64,
    /// Bits per byte of text.
    pub bits_per_byte: f64,
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
    pub(crate) fn new(prepared: &Prepared) -> Self {
        let file = &prepared.validation;
        Self {
            per_token: prepared.tokenizer.token_bytes(),
            mean: file.text_bytes() as f64 / file.len().max(1) as f64,
        }
    }

    /// The bytes of a batch's valid targets.
    pub(crate) fn of(&self, batch: &Batch) -> f64 {
        let targets = batch
            .targets
            .iter()
            .zip(&batch.valid)
            .filter(|(_, valid)| **valid);
        let bytes = targets.map(|(token, _)| match &self.per_token {
            Some(bytes) => f64::from(bytes[*token as usize]),
            None => self.mean,
        });
        bytes.sum()
    }
}

/// A batch on a device: inputs, targets, and weights of 1 or, for padding, 0.
pub(crate) struct BatchTensors {
    pub(crate) ids: Tensor<2, Int>,
    pub(crate) targets: Tensor<2, Int>,
    pub(crate) weights: Tensor<2>,
    /// Valid targets.
    pub(crate) tokens: u64,
}

pub(crate) fn batch_tensors(batch: &Batch, device: &Device) -> BatchTensors {
    let shape = [batch.batch, batch.seq];
    let ids = |tokens: &[u32]| {
        let ids: Vec<i64> = tokens.iter().map(|id| i64::from(*id)).collect();
        Tensor::<2, Int>::from_data(TensorData::new::<i64, _>(ids, shape), device)
    };
    let weights: Vec<f32> = batch
        .valid
        .iter()
        .map(|v| f32::from(u8::from(*v)))
        .collect();
    let weights = Tensor::from_data(TensorData::new::<f32, _>(weights, shape), device);
    let tokens = batch.valid.iter().filter(|valid| **valid).count() as u64;
    BatchTensors {
        ids: ids(&batch.inputs),
        targets: ids(&batch.targets),
        weights,
        tokens,
    }
}

/// A fixed, evenly spread part of the held-out text.
#[derive(Debug)]
pub struct Validation {
    batches: Vec<Batch>,
    tokens: u64,
    bytes: f64,
}

impl Validation {
    /// At most `max_tokens` tokens of the held-out text, in windows of `seq` tokens.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] if the tokens cannot be read.
    pub(crate) fn new(
        prepared: &Prepared,
        text: &TextBytes,
        batch: usize,
        seq: usize,
        max_tokens: u64,
    ) -> Result<Self, TrainError> {
        let source = Batches::new(prepared.validation.clone(), batch, seq, 0)?;
        let windows = evaluation_windows(source.windows(), seq, max_tokens);
        let batches: Vec<Batch> = windows
            .chunks(batch)
            .map(|windows| source.of_windows(windows))
            .collect::<Result<_, _>>()?;
        let valid = batches
            .iter()
            .flat_map(|batch| &batch.valid)
            .filter(|valid| **valid);
        let tokens = valid.count() as u64;
        let bytes = batches.iter().map(|batch| text.of(batch)).sum();
        Ok(Self {
            batches,
            tokens,
            bytes,
        })
    }

    /// Tokens predicted.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The model's loss; the model should be free of autodiff.
    pub fn evaluate(&self, model: &LanguageModel, device: &Device) -> Evaluation {
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
        let loss = sums.sum::<f64>() / self.tokens as f64;
        Evaluation {
            loss,
            bits_per_byte: self.bits_per_byte(loss),
        }
    }

    /// What the text yields without a model.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] if a token cannot be decoded.
    pub fn baselines(&self, tokenizer: &Tokenizer) -> Result<Baselines, TrainError> {
        let mut counts = vec![0u64; tokenizer.vocab_size()];
        let mut text = String::new();
        for batch in &self.batches {
            for row in 0..batch.batch {
                let row = row * batch.seq..(row + 1) * batch.seq;
                let targets = batch.targets[row.clone()].iter().zip(&batch.valid[row]);
                let tokens: Vec<u32> = targets
                    .filter(|(_, valid)| **valid)
                    .map(|(token, _)| *token)
                    .collect();
                for token in &tokens {
                    counts[*token as usize] += 1;
                }
                text.push_str(&tokenizer.decode(&tokens)?);
            }
        }
        let unigram_loss = statistics::unigram_entropy(&counts);
        let gzip = statistics::gzip_bits_per_byte(text.as_bytes());
        Ok(Baselines {
            unigram_loss,
            unigram_bits_per_byte: self.bits_per_byte(unigram_loss),
            gzip_bits_per_byte: gzip.expect("invariant: reading from memory does not fail"),
        })
    }

    fn bits_per_byte(&self, loss: f64) -> f64 {
        statistics::bits_per_byte(loss, self.tokens, self.bytes)
    }
}
