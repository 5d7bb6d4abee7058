//! Reports of a run: records, validation losses, samples.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;

use iiet_files::append_regular;
use iiet_model::{Cost, Precision};
use iiet_text::{Request, Sampler, Sampling, generate};

use super::{Trainer, stage_config};
use crate::evaluate::Evaluation;
use crate::metrics::Record;
use crate::{Event, Figures, SourceUse, Started, TextUse, TrainError};

/// Tokens per sample of text.
const SAMPLE_TOKENS: usize = 64;
/// The temperature of samples: varied, but mostly coherent.
const SAMPLE_TEMPERATURE: f64 = 0.8;

impl Trainer<'_> {
    pub(super) fn announce(&mut self) {
        let cost = Cost::of(self.state().model());
        let train = &self.config.train;
        let micro_batch = train.batch as u64 * self.config.model.seq_len as u64;
        let started = Started {
            run: &self.run,
            model: stage_config(self.config, &self.corpus, train.steps),
            parameters: cost.parameters,
            evaluations: cost.total_evaluations(),
            step: self.state().step(),
            steps: train.steps,
            tokens_per_step: micro_batch.saturating_mul(train.accumulation as u64),
            sources: self.sources(),
            peak: self.peak,
            baselines: self.baselines,
        };
        self.observer.on(&Event::Started(&started));
    }

    /// The number of epochs of each source.
    fn sources(&self) -> Vec<SourceUse> {
        let train = &self.config.train;
        let micro_batches = train.steps * train.accumulation as u64;
        let epochs = self.batches.epochs_before(micro_batches);
        let sources = self.corpus.sources.iter().zip(self.batches.shares());
        sources
            .zip(epochs)
            .map(|((source, share), epochs)| SourceUse {
                name: source.name.clone(),
                share,
                text: source.train().text().map(|tokens| TextUse {
                    epochs,
                    tokens: tokens.len(),
                }),
            })
            .collect()
    }

    /// The loss on held-out text, in the precision of training.
    ///
    /// # Errors
    ///
    /// [`TrainError::Broken`] if it is not finite: the last update damaged the model.
    pub(super) fn evaluate(&self) -> Result<Evaluation, TrainError> {
        let model = self.state().valid();
        let model = model.in_precision(self.config.train.precision);
        let evaluation = self.validation.evaluate(&model, self.device);
        match evaluation.loss {
            loss if loss.is_finite() => Ok(evaluation),
            loss => Err(self.broken(format!("the validation loss is {loss}"))),
        }
    }

    pub(super) fn log_step(
        &mut self,
        figures: &Figures,
        bits_per_byte: Option<f64>,
        tokens_per_second: f64,
        validate: bool,
    ) -> Result<Option<Evaluation>, TrainError> {
        let (evaluation, broken) = match validate.then(|| self.evaluate()) {
            Some(Err(error)) => (None, Some(error)),
            Some(Ok(evaluation)) => (Some(evaluation), None),
            None => (None, None),
        };
        let cost = Cost::of(self.state().model());
        // The backward pass computes two products for each of the forward pass.
        let per_token =
            3.0 * cost.forward_flops_per_token + self.objective.footprint().flops_per_token;
        let flops = per_token * tokens_per_second;
        let record = Record {
            step: self.state().step(),
            tokens: self.state().tokens(),
            loss: figures.loss,
            terms: figures.terms.clone(),
            accuracy: figures.accuracy,
            bits_per_byte,
            lr: figures.lr,
            grad_norm: figures.grad_norm,
            tokens_per_second,
            flops_utilisation: self.peak.map(|peak| flops / peak),
            evaluations: cost.total_evaluations(),
            validation_loss: evaluation.as_ref().map(|e| e.loss),
            validation_accuracy: evaluation.as_ref().and_then(|e| e.accuracy),
            validation_bits_per_byte: evaluation.as_ref().and_then(|e| e.bits_per_byte),
            validation_by_source: match &evaluation {
                Some(evaluation) if evaluation.by_source.len() > 1 => evaluation.by_source.clone(),
                _ => BTreeMap::new(),
            },
        };
        self.log.append(record)?;
        self.observer.on(&Event::Logged {
            records: &self.log.records,
        });
        // The step itself is logged, for diagnosis.
        if let Some(error) = broken {
            return Err(error);
        }
        Ok(evaluation)
    }

    pub(super) fn sample(&mut self) -> Result<(), TrainError> {
        let step = self.state().step();
        let tokenizer = &self.corpus.tokenizer;
        let end = tokenizer.document_end();
        let mut prompt = tokenizer.encode(&self.config.train.sample_prompt)?;
        if prompt.is_empty() {
            // The token that starts a document, or any token if documents are not marked.
            prompt.push(end.unwrap_or(0));
        }
        let sampling = Sampling {
            temperature: SAMPLE_TEMPERATURE,
            seed: self.config.train.seed ^ step,
            ..Sampling::default()
        };
        let request = Request {
            prompt,
            max_tokens: SAMPLE_TOKENS,
            end: end.into_iter().collect(),
            sliding: true,
            sampler: Sampler::new(&sampling),
        };
        let model = self.state().valid();
        let go_on = |_| ControlFlow::Continue(());
        let (sample, _) = generate(&model, request, Precision::F32, self.device, go_on)?;
        let text = format!(
            "{}{}",
            self.config.train.sample_prompt,
            tokenizer.decode(&sample.ids)?
        );
        let text = text.trim_end();
        let entry = format!("--- step {step}\n{text}\n");
        let path = self.run.samples();
        append_regular(&path)
            .and_then(|mut file| file.write_all(entry.as_bytes()))
            .map_err(TrainError::io(&path))?;
        self.observer.on(&Event::Sample { step, text });
        Ok(())
    }
}
