//! What a run tells on the way: records, curves, samples.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::ControlFlow;

use burn::module::Module;
use iiet_model::{Cost, Precision};
use iiet_ode::Options;
use iiet_text::{Request, Sampler, Sampling, generate};

use super::Trainer;
use super::step::Step;
use crate::evaluate::Evaluation;
use crate::metrics::Record;
use crate::{TrainError, curve};

/// Tokens in a sample of text.
const SAMPLE_TOKENS: usize = 64;
/// The temperature of samples: lively, but seldom off the rails.
const SAMPLE_TEMPERATURE: f64 = 0.8;

impl Trainer<'_> {
    pub(super) fn announce(&self) {
        let cost = Cost::of(&self.replicas.first.model);
        let train = &self.config.train;
        let per_step = train.batch * train.accumulation * self.config.model.seq_len;
        self.progress.say(&format!(
            "{}, {} parameters, {} evaluations a token; {} steps of {per_step} tokens, {}; into {}",
            self.config.model.solver.name(),
            cost.parameters,
            cost.total_evaluations(),
            train.steps,
            self.epochs(),
            self.run.path().display(),
        ));
        if let Some(peak) = self.peak {
            self.progress.say(&format!(
                "large matrix products reach {:.0} GFLOP/s here; shares below are of that",
                peak / 1e9
            ));
        }
    }

    /// How often the run sees its data; by source, where there are several.
    fn epochs(&self) -> String {
        let train = &self.config.train;
        let epochs = self
            .batches
            .epochs_before(train.steps * train.accumulation as u64);
        let sources = self.corpus.sources.iter().zip(self.batches.shares());
        let lines = sources.zip(epochs).map(|((source, share), epochs)| {
            let tokens = source.prepared.train.len();
            match self.corpus.sources.len() {
                1 => format!("{epochs:.2} epochs of {tokens} tokens"),
                _ => format!(
                    "{:.1} % {} ({epochs:.2} epochs of {tokens} tokens)",
                    100.0 * share,
                    source.name
                ),
            }
        });
        lines.collect::<Vec<_>>().join(", ")
    }

    /// The loss on held-out text, in the precision of the training.
    pub(super) fn evaluate(&self) -> Evaluation {
        let model = self.replicas.first.model.valid();
        let model = model.in_precision(self.config.train.precision);
        self.validation.evaluate(&model, self.device)
    }

    pub(super) fn log_step(
        &mut self,
        update: &Step,
        tokens_per_second: f64,
        validate: bool,
    ) -> Result<Option<Evaluation>, TrainError> {
        let evaluation = validate.then(|| self.evaluate());
        let cost = Cost::of(&self.replicas.first.model);
        // The backward pass takes two products for each of the forward pass.
        let per_token =
            3.0 * cost.forward_flops_per_token + self.objective.footprint().flops_per_token;
        let flops = per_token * tokens_per_second;
        let record = Record {
            step: self.step,
            tokens: self.tokens,
            loss: update.loss,
            terms: update.terms.clone(),
            bits_per_byte: update.bits_per_byte,
            lr: update.lr,
            grad_norm: update.grad_norm,
            tokens_per_second,
            flops_utilisation: self.peak.map(|peak| flops / peak),
            evaluations: cost.total_evaluations(),
            validation_loss: evaluation.as_ref().map(|e| e.loss),
            validation_bits_per_byte: evaluation.as_ref().map(|e| e.bits_per_byte),
            validation_by_source: match &evaluation {
                Some(evaluation) if evaluation.by_source.len() > 1 => evaluation.by_source.clone(),
                _ => BTreeMap::new(),
            },
        };
        self.progress.record(&record);
        self.log.append(record)?;
        if validate {
            curve::draw(
                &self.run.curve(),
                &self.log.records,
                self.baselines.unigram_loss,
            )?;
        }
        Ok(evaluation)
    }

    pub(super) fn sample(&mut self) -> Result<(), TrainError> {
        let tokenizer = &self.corpus.tokenizer;
        let end = tokenizer.document_end();
        let mut prompt = tokenizer.encode(&self.config.train.sample_prompt)?;
        if prompt.is_empty() {
            // The start of a document, or any token where documents have no mark.
            prompt.push(end.unwrap_or(0));
        }
        let sampling = Sampling {
            temperature: SAMPLE_TEMPERATURE,
            seed: self.config.train.seed ^ self.step,
            ..Sampling::default()
        };
        let request = Request {
            prompt,
            max_tokens: SAMPLE_TOKENS,
            end: end.into_iter().collect(),
            sliding: true,
            sampler: Sampler::new(&sampling),
        };
        let model = self.replicas.first.model.valid();
        let go_on = |_| ControlFlow::Continue(());
        let (sample, _) = generate(&model, request, Precision::F32, self.device, go_on)?;
        let text = format!(
            "{}{}",
            self.config.train.sample_prompt,
            tokenizer.decode(&sample.ids)?
        );
        let entry = format!("--- step {}\n{}\n", self.step, text.trim_end());
        self.progress.say(entry.trim_end());
        let path = self.run.samples();
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(TrainError::io(&path))?;
        file.write_all(entry.as_bytes())
            .map_err(TrainError::io(&path))
    }
}
