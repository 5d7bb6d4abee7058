//! Reports of a run: records, validation losses, samples.

use std::collections::BTreeMap;
use std::io::Write;

use iiet_data::SequencePairs;
use iiet_files::append_regular;

use super::Trainer;
use crate::evaluate::Evaluation;
use crate::metrics::Record;
use crate::{
    Event, Figures, SourceUse, Started, StepCost, TextUse, TrainError, TrainedModel, Vocabulary,
};

impl<M: TrainedModel> Trainer<'_, M> {
    pub(super) fn announce(&mut self) {
        let cost = self.state().model().step_cost();
        let train = &self.config.train;
        let micro_batch = match train.batch_tokens {
            Some(tokens) => tokens as u64,
            None => train.batch as u64 * self.config.model.seq_len as u64,
        };
        let vocabulary = Vocabulary::of(&self.corpus.tokenizer);
        let last = M::of_run(self.config, vocabulary, train.steps);
        let started = Started {
            run: &self.run,
            solver: M::solver_name(&last),
            layers: cost.layers,
            parameters: cost.parameters,
            evaluations: cost.evaluations,
            step: self.state().step(),
            steps: train.steps,
            tokens_per_step: micro_batch.saturating_mul(train.accumulation as u64),
            sources: self.sources(),
            left_out: self.batches.pairs().map_or(0, SequencePairs::left_out),
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
        let model = model.rounded(self.config.train.precision);
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
        let StepCost {
            evaluations,
            flops_per_token,
            flops_per_source_token,
            ..
        } = self.state().model().step_cost();
        let of_sources = figures.source_tokens as f64 / figures.tokens as f64;
        let forward = flops_per_token + of_sources * flops_per_source_token;
        // The backward pass computes two products for each of the forward pass.
        let per_token = 3.0 * forward + self.objective.footprint().flops_per_token;
        let flops = per_token * tokens_per_second;
        // Other load can only have slowed the products down that were timed, so a faster step is a better peak.
        self.peak = self.peak.map(|peak| peak.max(flops));
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
            evaluations,
            exchange_seconds: (self.ranks.size() > 1).then_some(figures.exchange.as_secs_f64()),
            validation_loss: evaluation.as_ref().map(|e| e.loss),
            validation_accuracy: evaluation.as_ref().and_then(|e| e.accuracy),
            validation_bits_per_byte: evaluation.as_ref().and_then(|e| e.bits_per_byte),
            validation_by_source: match &evaluation {
                Some(evaluation) if evaluation.by_source.len() > 1 => evaluation.by_source.clone(),
                _ => BTreeMap::new(),
            },
        };
        if let Some(log) = &mut self.log {
            log.append(record)?;
            let records = &log.records;
            self.observer.on(&Event::Logged { records });
        }
        // The step itself is logged, for diagnosis.
        if let Some(error) = broken {
            return Err(error);
        }
        Ok(evaluation)
    }

    pub(super) fn sample(&mut self) -> Result<(), TrainError> {
        let step = self.state().step();
        let text = self.state().valid().sample(
            &self.config.train.sample_prompt,
            &self.corpus.tokenizer,
            self.config.train.seed ^ step,
            self.device,
        )?;
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
