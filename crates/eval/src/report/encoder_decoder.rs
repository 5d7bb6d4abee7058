//! Encoder-decoders in a report.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use iiet_data::Tokenizer;
use iiet_model::{EncoderDecoder, EncoderDecoderCost, Precision, Source, StackConfig};
use iiet_text::{BeamSearch, TextToText};

use super::candidate::{Outline, Stack};
use super::cost::PlainCost;
use super::kind::{Kind, arbitrary};
use super::question::Asked;
use super::sides::Sides;
use super::speed::{ROUNDS, Workload};
use crate::error::EvalError;
use crate::evaluation::{Evaluated, Prepared};
use crate::model_decoder::{ModelDecoder, ROWS};
use crate::scorer::Progress;
use crate::task::Task;

/// The maximum number of tokens of a source, and decoded for it.
const MOST: (usize, usize) = (64, 32);

impl Kind for ModelDecoder {
    fn outline(path: &Path, device: &Device) -> Result<Outline, EvalError> {
        // Checks the small files together.
        TextToText::rule(path)?;
        let config = EncoderDecoder::load_config(path)?;
        let tokenizer = Tokenizer::open(&path.join("tokenizer.json"))?;
        let cost = EncoderDecoderCost::of(&EncoderDecoder::empty(&config, device)?);
        let stack = |stack: &StackConfig| Stack::of(&stack.solver, stack.n_layers);
        Ok(Outline {
            stacks: Sides::Two {
                encoder: stack(&config.encoder),
                decoder: stack(&config.decoder),
            },
            d_model: config.d_model,
            d_ff: config.block.d_ff,
            context: config.seq_len,
            vocab_size: config.vocab_size,
            parameters: cost.parameters,
            costs: Sides::Two {
                encoder: PlainCost {
                    evaluations: cost.encoder_evaluations,
                    forward_flops: cost.flops_per_source_token,
                    cache_bytes: cost.cache_bytes_per_source_token,
                },
                decoder: PlainCost {
                    evaluations: cost.decoder_evaluations,
                    forward_flops: cost.flops_per_target_token,
                    cache_bytes: cost.cache_bytes_per_target_token,
                },
            },
            tokenizer: tokenizer.json().to_vec(),
        })
    }

    fn asked(task: &Task) -> Result<&'static [Asked], EvalError> {
        match task.is_of_targets() {
            true => Ok(&[Asked::Targets, Asked::References]),
            false => Err(EvalError::NeedsScorer { task: task.name }),
        }
    }

    /// As many sources at a time, and as many beams, as the first task is asked with.
    fn workload(context: usize, tasks: &[Prepared]) -> Option<Workload> {
        let search = tasks.first()?.search?;
        // The start token has a place in the context.
        let decoded_tokens = context.saturating_sub(1).min(MOST.1);
        (decoded_tokens > 0).then_some(Workload {
            batch: ROWS,
            beam: search.beam,
            prompt_tokens: context.min(MOST.0),
            decoded_tokens,
            rounds: ROUNDS,
        })
    }

    fn load(path: &Path, device: &Device) -> Result<Self, EvalError> {
        let model = TextToText::open(Precision::F32, path, device)?;
        Ok(Self::new(model, Precision::F32))
    }

    /// Encodes sources, and searches for targets of as many tokens as the workload has. The search encodes
    /// the sources again, which is not counted.
    fn run(&self, workload: &Workload, device: &Device) -> Result<iiet_text::Speed, EvalError> {
        let model = self.text_to_text().model();
        let Workload {
            batch,
            beam,
            prompt_tokens,
            decoded_tokens,
            ..
        } = *workload;
        let tokens = (0..batch * prompt_tokens).map(|i| arbitrary(i, model.sizes().vocab_size));
        let tokens: Vec<u32> = tokens.collect();
        let sources: Vec<&[u32]> = tokens.chunks(prompt_tokens).collect();
        let search = BeamSearch {
            beam,
            min_tokens: decoded_tokens,
            max_tokens: decoded_tokens,
            ..BeamSearch::default()
        };
        let started = Instant::now();
        // Read, so that the device has finished.
        let read = model.encode(&Source::of(&sources, device)).try_into_data();
        read.map_err(|error| EvalError::Scorer {
            message: format!("reading states from the device: {error}"),
        })?;
        let prefill = started.elapsed();
        let started = Instant::now();
        let ends = self.text_to_text().ends();
        search.search(model, &sources, ends, Precision::F32, device)?;
        Ok(iiet_text::Speed {
            prefill_tokens: batch * prompt_tokens,
            prefill,
            decode_tokens: batch * decoded_tokens,
            decode: started.elapsed().saturating_sub(prefill),
        })
    }

    fn ask(
        &self,
        task: &Prepared,
        asked: Asked,
        progress: &dyn Progress,
    ) -> Result<Evaluated, EvalError> {
        match asked {
            Asked::References => task.score_references(self, progress),
            Asked::Items | Asked::Targets => task.decode(self, progress),
        }
    }
}
