//! An encoder-decoder in training.

use std::path::Path;

use burn::tensor::{Device, Gradients, Tensor};
use iiet_data::Tokenizer;
use iiet_model::{
    EncoderDecoder, EncoderDecoderConfig, EncoderDecoderCost, ModelError, Objective, Precision,
    Source, StackConfig, TrainingMemory, of_floats,
};
use iiet_ode::{Options, SolverConfig};

use super::language_model::{DROPS, iterated, kept_layers};
use super::{StepCost, TrainedModel, Vocabulary, mask_bytes, micro_batch, with_masks};
use crate::{BatchTensors, DrawnIterations, ModelSection, RunConfig, TrainError, TrainSection};

/// The most tokens of a sample.
const SAMPLE_TOKENS: usize = 64;

impl TrainedModel for EncoderDecoder {
    fn of_run(config: &RunConfig, vocabulary: Vocabulary, step: u64) -> EncoderDecoderConfig {
        let mut wanted = config.model.sequence_config(vocabulary);
        wanted.label_smoothing = config.train.label_smoothing;
        if let Some(stage) = config.train.stage_at(step) {
            let stage = &config.train.stages[stage];
            let valid = "invariant: the configuration was validated";
            wanted.decoder.solver = stage.solver(&wanted.decoder.solver).expect(valid);
            wanted.encoder.solver = stage.encoder(&wanted.encoder.solver).expect(valid);
        }
        wanted
    }

    fn initialised(
        config: &EncoderDecoderConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::init(config, seed, device)
    }

    fn configured(
        &self,
        config: &EncoderDecoderConfig,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        self.with_config(config, seed, device)
    }

    fn read(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        of_floats(Self::load(dir, device)?, dir)
    }

    fn current(&self) -> EncoderDecoderConfig {
        self.config()
    }

    fn json(config: &EncoderDecoderConfig) -> String {
        config.to_json()
    }

    fn section(config: &EncoderDecoderConfig) -> ModelSection {
        ModelSection::of_sequences(config)
    }

    fn vocab_size(config: &EncoderDecoderConfig) -> usize {
        config.vocab_size
    }

    fn solver_name(config: &EncoderDecoderConfig) -> String {
        let [encoder, decoder] = [&config.encoder, &config.decoder].map(|side| side.solver.name());
        match encoder == decoder {
            true => format!("{encoder} in encoder and decoder"),
            false => format!("{encoder} in the encoder, {decoder} in the decoder"),
        }
    }

    fn with_corrections(mut self, r: usize) -> Self {
        let checked = "invariant: the most corrections are checked with the configuration";
        let drawn = |solver: &SolverConfig, layers: usize| {
            DrawnIterations::with_corrections(solver, layers, r)
        };
        let EncoderDecoderConfig {
            encoder, decoder, ..
        } = self.config();
        let of_encoder = drawn(&encoder.solver, encoder.n_layers);
        let of_decoder = drawn(&decoder.solver, decoder.n_layers);
        self.encoder = self
            .encoder
            .with_solver_options(&of_encoder)
            .expect(checked);
        self.decoder = self
            .decoder
            .with_solver_options(&of_decoder)
            .expect(checked);
        self
    }

    fn copied_to(&self, device: &Device) -> Self {
        self.on(device)
    }

    fn rounded(self, precision: Precision) -> Self {
        self.in_precision(precision)
    }

    fn loss_of(&self, batch: &BatchTensors, objective: &mut dyn Objective) -> Tensor<1> {
        let (ids, dropout) = (batch.ids.clone(), batch.dropout.as_ref());
        self.objective_with(source(batch), ids, objective, dropout)
            .expect(DROPS)
    }

    fn loss_by_layers(
        &self,
        batch: &BatchTensors,
        objective: &mut dyn Objective,
        collect: &mut dyn FnMut(Gradients),
    ) -> Tensor<1> {
        let (ids, dropout) = (batch.ids.clone(), batch.dropout.as_ref());
        self.objective_by_layers_with(source(batch), ids, objective, dropout, collect)
            .expect(DROPS)
    }

    fn step_cost(&self) -> StepCost {
        let cost = EncoderDecoderCost::of(self);
        let sides = [&cost.encoder_evaluations, &cost.decoder_evaluations];
        StepCost {
            parameters: cost.parameters,
            evaluations: sides.into_iter().flatten().sum(),
            layers: sides.into_iter().map(Vec::len).sum(),
            flops_per_token: cost.flops_per_target_token,
            flops_per_source_token: cost.flops_per_source_token,
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
        let of_side = |stack: &StackConfig, places: usize| {
            let of_layer = mask_bytes(train.dropout, places, sizes.d_model, sizes.block.d_ff);
            of_layer.saturating_mul(kept_layers(train, stack.n_layers))
        };
        let masks = of_side(&sizes.encoder, 2).saturating_add(of_side(&sizes.decoder, 3));
        with_masks(
            TrainingMemory::of_sequences(self, &batch),
            masks,
            batch.tokens,
        )
    }

    fn iterated_layers(&self) -> Vec<String> {
        let EncoderDecoderConfig {
            encoder, decoder, ..
        } = self.config();
        let of_encoder = iterated(&encoder.solver, encoder.n_layers, "model.encoder.layers");
        let of_decoder = iterated(&decoder.solver, decoder.n_layers, "model.decoder.layers");
        [of_encoder, of_decoder].concat()
    }

    fn sample(
        &self,
        prompt: &str,
        tokenizer: &Tokenizer,
        _seed: u64,
        device: &Device,
    ) -> Result<String, TrainError> {
        let end = tokenizer.document_end();
        let mut ids = tokenizer.encode(prompt)?;
        ids.truncate(self.sizes().seq_len.saturating_sub(1));
        ids.extend(end);
        if ids.is_empty() {
            ids.push(0);
        }
        let start = self.sizes().decoder_start_token_id.or(end).unwrap_or(0);
        let most = SAMPLE_TOKENS.min(self.sizes().seq_len);
        let texts = self.greedy(&Source::of(&[&ids], device), start, most, device);
        let text = tokenizer.decode(&texts.concat())?;
        Ok(format!("{prompt}\n-> {text}"))
    }
}

/// The sources of a batch.
fn source(batch: &BatchTensors) -> &Source {
    let source = batch.source.as_ref();
    source.expect("a batch for an encoder-decoder must have sources")
}
