//! A language model in training.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{Device, Gradients, Tensor};
use iiet_data::Tokenizer;
use iiet_model::{
    Cost, LanguageModel, ModelConfig, ModelError, Objective, Precision, TrainingMemory, load,
    of_floats,
};
use iiet_ode::{Options, SolverConfig};
use iiet_text::{Request, Sampler, Sampling, generate};

use super::{StepCost, TrainedModel, Vocabulary, mask_bytes, micro_batch, with_masks};
use crate::{
    BatchTensors, DrawnIterations, ModelSection, Recompute, RunConfig, TrainError, TrainSection,
};

/// Why a pass with dropout is possible.
pub(super) const DROPS: &str = "invariant: LLaMA's blocks have dropout in passes over whole texts";
/// Tokens per sample of text.
const SAMPLE_TOKENS: usize = 64;
/// The temperature of samples: varied, but mostly coherent.
const SAMPLE_TEMPERATURE: f64 = 0.8;

impl TrainedModel for LanguageModel {
    fn of_run(config: &RunConfig, vocabulary: Vocabulary, step: u64) -> ModelConfig {
        let mut wanted = config
            .model
            .config(vocabulary.size, vocabulary.document_end);
        if let Some(stage) = config.train.stage_at(step) {
            let solver = config.train.stages[stage].solver(&config.model.solver);
            wanted.solver = solver.expect("invariant: the configuration was validated");
        }
        wanted
    }

    fn initialised(config: &ModelConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::init(config, seed, device)
    }

    fn configured(
        &self,
        config: &ModelConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        self.with_config(config, seed, device)
    }

    fn read(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        of_floats(load(dir, device)?.0, dir)
    }

    fn current(&self) -> ModelConfig {
        self.config()
    }

    fn json(config: &ModelConfig) -> String {
        config.to_json()
    }

    fn section(config: &ModelConfig) -> ModelSection {
        ModelSection::of(config)
    }

    fn vocab_size(config: &ModelConfig) -> usize {
        config.vocab_size
    }

    fn solver_name(config: &ModelConfig) -> String {
        config.solver.name().to_owned()
    }

    fn with_corrections(self, r: usize) -> Self {
        let config = self.config();
        let drawn = DrawnIterations::with_corrections(&config.solver, config.n_layers, r);
        self.with_solver_options(&drawn)
            .expect("invariant: the most corrections are checked with the configuration")
    }

    fn copied_to(&self, device: &Device) -> Self {
        self.on(device)
    }

    fn rounded(self, precision: Precision) -> Self {
        self.in_precision(precision)
    }

    fn loss_of(&self, batch: &BatchTensors, objective: &mut dyn Objective) -> Tensor<1> {
        self.objective_with(batch.ids.clone(), objective, batch.dropout.as_ref())
            .expect(DROPS)
    }

    fn loss_by_layers(
        &self,
        batch: &BatchTensors,
        objective: &mut dyn Objective,
        collect: &mut dyn FnMut(Gradients),
    ) -> Tensor<1> {
        self.objective_by_layers_with(
            batch.ids.clone(),
            objective,
            batch.dropout.as_ref(),
            collect,
        )
        .expect(DROPS)
    }

    fn step_cost(&self) -> StepCost {
        let cost = Cost::of(self);
        StepCost {
            parameters: cost.parameters,
            evaluations: cost.total_evaluations(),
            layers: self.sizes().n_layers,
            flops_per_token: cost.forward_flops_per_token,
            flops_per_source_token: 0.0,
        }
    }

    fn training_memory(
        &self,
        train: &TrainSection,
        seq_len: usize,
        micro_batches: usize,
    ) -> TrainingMemory {
        let batch = micro_batch(train, seq_len, micro_batches);
        let sizes = self.sizes();
        let of_layer = mask_bytes(train.dropout, 2, sizes.d_model, sizes.block.d_ff);
        let masks = of_layer.saturating_mul(kept_layers(train, sizes.n_layers));
        with_masks(TrainingMemory::of(self, &batch), masks, batch.tokens)
    }

    fn iterated_layers(&self) -> Vec<String> {
        iterated(&self.config().solver, self.sizes().n_layers, "model.layers")
    }

    fn sample(
        &self,
        prompt: &str,
        tokenizer: &Tokenizer,
        seed: u64,
        device: &Device,
    ) -> Result<String, TrainError> {
        let end = tokenizer.document_end();
        let mut ids = tokenizer.encode(prompt)?;
        if ids.is_empty() {
            // The token that starts a document, or any token if documents are not marked.
            ids.push(end.unwrap_or(0));
        }
        let sampling = Sampling {
            temperature: SAMPLE_TEMPERATURE,
            seed,
            ..Sampling::default()
        };
        let request = Request {
            prompt: ids,
            max_tokens: SAMPLE_TOKENS,
            end: end.into_iter().collect(),
            sliding: true,
            sampler: Sampler::new(&sampling),
        };
        let go_on = |_| ControlFlow::Continue(());
        let (sample, _) = generate(self, request, Precision::F32, device, go_on)?;
        Ok(format!("{prompt}{}", tokenizer.decode(&sample.ids)?))
    }
}

/// The layers of a stack whose activations are kept at a time.
pub(super) fn kept_layers(train: &TrainSection, n_layers: usize) -> u64 {
    match train.recompute {
        Recompute::None => n_layers as u64,
        Recompute::Layer => 1,
    }
}

/// What the names of the parameters of the layers begin with that take corrections, in a stack of
/// `n_layers` layers under `prefix`.
pub(super) fn iterated(solver: &SolverConfig, n_layers: usize, prefix: &str) -> Vec<String> {
    let corrections = solver.iterations();
    let corrections = corrections.map(|schedule| schedule.per_layer(n_layers));
    let layers = corrections.into_iter().flatten().enumerate();
    layers
        .filter(|(_, corrections)| *corrections > 0)
        .map(|(n, _)| format!("{prefix}.{n}."))
        .collect()
}
