//! The loss on held-out text, in units that are comparable across tokenizers, and baselines for it.

use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_data::{Batch, BatchSize, Corpus, HeldOut, TokenFile, Tokenizer, statistics};
use iiet_model::{CrossEntropy, Dropout, Source, token_ids};

use crate::accuracy::Counting;
use crate::{TrainError, TrainedModel};

/// A loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Mean nats per token; for several sources, the weighted mean.
    pub loss: f64,
    /// Bits per byte of text; none for a task.
    pub bits_per_byte: Option<f64>,
    /// The share of targets that are the most likely token; for a task alone.
    pub accuracy: Option<f64>,
    /// Mean nats per token of each source, by name.
    pub by_source: BTreeMap<String, f64>,
}

/// Baselines on the same text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Baselines {
    /// The unigram entropy of the text's tokens, in nats per token: the lowest loss of any model that ignores
    /// context.
    pub unigram_loss: f64,
    /// The same in bits per byte; none for a task.
    pub unigram_bits_per_byte: Option<f64>,
    /// `gzip -9`, in bits per byte; none for a task.
    pub gzip_bits_per_byte: Option<f64>,
}

/// The number of text bytes that tokens represent.
#[derive(Debug, Clone)]
pub(crate) struct TextBytes {
    per_token: Option<Vec<u32>>,
    /// Where the tokenizer does not say: the mean over the validation file; 0 for a task, whose tokens
    /// stand for no text.
    mean: f64,
}

impl TextBytes {
    pub(crate) fn new(corpus: &Corpus) -> Self {
        let held_out = corpus.held_out();
        let texts = || held_out.iter().filter_map(|held_out| held_out.rows.text());
        let sum = |of: fn(&TokenFile) -> u64| texts().map(of).sum::<u64>() as f64;
        Self {
            per_token: corpus.tokenizer.token_bytes(),
            mean: sum(TokenFile::text_bytes) / sum(TokenFile::len).max(1.0),
        }
    }

    /// The bytes of a batch's targets with a positive weight.
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
    /// `[batch, seq]`, the target at each position; in text, the token after the input.
    pub targets: Tensor<2, Int>,
    /// `[batch, seq]`, the weight of each loss: 1, and 0 for padding and prompts.
    pub weights: Tensor<2>,
    /// Number of targets with a positive weight.
    pub tokens: u64,
    /// The texts that targets are made from, if the model needs them.
    pub source: Option<Source>,
    /// The share of the targets' probability that is spread over the vocabulary.
    pub label_smoothing: f64,
    /// What the model drops.
    pub dropout: Option<Dropout>,
}

impl BatchTensors {
    /// A batch of texts, in which each of the `tokens` targets with a positive weight counts.
    ///
    /// # Shapes
    ///
    /// - ids, targets and weights: `[batch, seq]`
    pub fn of_texts(
        ids: Tensor<2, Int>,
        targets: Tensor<2, Int>,
        weights: Tensor<2>,
        tokens: u64,
    ) -> Self {
        Self {
            ids,
            targets,
            weights,
            tokens,
            source: None,
            label_smoothing: 0.0,
            dropout: None,
        }
    }

    /// The batch without autodiff and without dropout, for a model that is not trained.
    pub fn inner(&self) -> Self {
        Self {
            ids: self.ids.clone().inner(),
            targets: self.targets.clone().inner(),
            weights: self.weights.clone().inner(),
            source: self.source.as_ref().map(Source::inner),
            dropout: None,
            ..*self
        }
    }

    /// The batch with its weights, and so the loss, multiplied by a factor.
    pub(crate) fn scaled(mut self, factor: f64) -> Self {
        if factor != 1.0 {
            self.weights = self.weights * factor;
        }
        self
    }

    /// The batch with this share of the targets' probability spread over the vocabulary.
    pub(crate) fn smoothed(mut self, label_smoothing: f64) -> Self {
        self.label_smoothing = label_smoothing;
        self
    }

    /// The batch with dropout.
    pub(crate) fn dropped(mut self, dropout: Option<Dropout>) -> Self {
        self.dropout = dropout;
        self
    }

    /// Number of tokens of the sources, without padding.
    pub(crate) fn source_tokens(&self) -> u64 {
        let lengths = self.source.iter().flat_map(Source::lengths);
        lengths.map(|length| *length as u64).sum()
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
        source: batch.source.as_ref().map(|source| {
            let shape = [source.lengths.len(), source.seq];
            Source::new(
                token_ids(&source.ids, shape, device),
                source.lengths.clone(),
            )
        }),
        label_smoothing: 0.0,
        dropout: None,
    }
}

/// A fixed part of each source's held-out text, evenly spaced.
///
/// The total over several sources is the mean of their losses by the weights of the mixture, which is the
/// expected loss on text mixed like the training text. Bits per byte are based on the same mean: nats of an
/// expected token over its expected bytes.
#[derive(Debug)]
pub struct Validation {
    parts: Vec<Part>,
    /// Whether accuracy is measured: on a task.
    accuracy: bool,
}

/// The text of one source.
#[derive(Debug)]
struct Part {
    name: String,
    /// The share of the total; shares sum to 1.
    share: f64,
    batches: Vec<Batch>,
    tokens: u64,
    bytes: f64,
}

impl Validation {
    /// At most `max_tokens` tokens of the held-out text in total (but at least one window of each source), in
    /// windows of `seq` tokens.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`] if the tokens cannot be read.
    pub(crate) fn new(
        held_out: &[HeldOut],
        text: &TextBytes,
        size: BatchSize,
        seq: usize,
        max_tokens: u64,
    ) -> Result<Self, TrainError> {
        let weights: f64 = held_out.iter().map(|source| source.weight).sum();
        let part = |HeldOut { name, weight, rows }: &HeldOut| {
            let share = weight / weights;
            let max_tokens = (share * max_tokens as f64) as u64;
            let batches = rows.evaluation_batches(seq, size, max_tokens)?;
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
            accuracy: held_out.iter().any(|source| source.rows.text().is_none()),
        })
    }

    /// Number of predicted tokens.
    pub fn tokens(&self) -> u64 {
        self.parts.iter().map(|part| part.tokens).sum()
    }

    /// The model's loss on each source; the model should not track gradients.
    pub fn evaluate<M: TrainedModel>(&self, model: &M, device: &Device) -> Evaluation {
        let measured = self.parts.iter();
        let measured: Vec<(f64, f64)> = measured
            .map(|part| part.loss_and_accuracy(model, self.accuracy, device))
            .collect();
        let losses: Vec<f64> = measured.iter().map(|(loss, _)| *loss).collect();
        let (loss, bits_per_byte) = self.total(&losses);
        let accuracies = self.parts.iter().zip(&measured);
        let accuracy: f64 = accuracies
            .map(|(part, (_, share))| part.share * share)
            .sum();
        let by_source = self.parts.iter().zip(&losses);
        Evaluation {
            loss,
            bits_per_byte,
            accuracy: self.accuracy.then_some(accuracy),
            by_source: by_source
                .map(|(part, loss)| (part.name.clone(), *loss))
                .collect(),
        }
    }

    /// The baselines of the text, which need no model.
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
            // In nats per token, so that sources are weighted as in the loss.
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

    /// The weighted mean of the sources' nats a token, and the same in bits per byte of text.
    fn total(&self, losses: &[f64]) -> (f64, Option<f64>) {
        let mean = |of: &dyn Fn(usize, &Part) -> f64| -> f64 {
            let parts = self.parts.iter().enumerate();
            parts.map(|(at, part)| part.share * of(at, part)).sum()
        };
        let loss = mean(&|at, _| losses[at]);
        let bytes = mean(&|_, part| part.bytes / part.tokens as f64);
        let bits_per_byte = (bytes > 0.0).then(|| loss / bytes / std::f64::consts::LN_2);
        (loss, bits_per_byte)
    }
}

impl Part {
    /// Mean nats per token, and the share of targets that are right if that is asked for, else 0.
    fn loss_and_accuracy<M: TrainedModel>(
        &self,
        model: &M,
        accuracy: bool,
        device: &Device,
    ) -> (f64, f64) {
        let (mut nats, mut right) = (0.0, 0);
        for batch in &self.batches {
            let batch = batch_tensors(batch, device);
            let mut objective = CrossEntropy {
                targets: batch.targets.clone(),
                weights: batch.weights.clone(),
            };
            let loss = match accuracy {
                false => model.loss_of(&batch, &mut objective),
                true => {
                    let mut counting = Counting::new(&mut objective, &batch);
                    let loss = model.loss_of(&batch, &mut counting);
                    right += counting.right();
                    loss
                }
            };
            nats += f64::from(loss.into_scalar::<f32>());
        }
        let tokens = self.tokens as f64;
        (nats / tokens, right as f64 / tokens)
    }

    /// The number of occurrences of each token among the targets, and the targets' text.
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
