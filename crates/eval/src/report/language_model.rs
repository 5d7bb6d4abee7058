//! Language models in a report.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use iiet_model::{Cost, LanguageModel, Precision};
use iiet_text::{Request, Sampler, Sampling, TextTokenizer, generate};

use super::candidate::{Outline, Stack};
use super::cost::PlainCost;
use super::kind::{Kind, arbitrary};
use super::question::Asked;
use super::sides::Sides;
use super::speed::{ROUNDS, Workload};
use crate::error::EvalError;
use crate::evaluation::{Evaluated, Prepared};
use crate::model::ModelScorer;
use crate::scorer::Progress;
use crate::task::Task;
use crate::token_scorer::TokenScorer;

/// The maximum number of tokens of the prompt, and decoded after it.
const MOST: (usize, usize) = (512, 64);

impl Kind for TokenScorer<ModelScorer> {
    fn outline(path: &Path, device: &Device) -> Result<Outline, EvalError> {
        let config = iiet_model::load_config(path)?;
        let tokenizer = TextTokenizer::open(path, config.vocab_size)?;
        let empty: LanguageModel = LanguageModel::empty(&config, device)?;
        let cost = Cost::of(&empty);
        Ok(Outline {
            stacks: Sides::One(Stack::of(&config.solver, config.n_layers)),
            d_model: config.d_model,
            d_ff: config.block.d_ff,
            context: config.seq_len,
            vocab_size: config.vocab_size,
            parameters: cost.parameters,
            costs: Sides::One(PlainCost {
                evaluations: cost.evaluations,
                forward_flops: cost.forward_flops_per_token,
                cache_bytes: cost.cache_bytes_per_token,
            }),
            tokenizer: tokenizer.hash().as_bytes().to_vec(),
        })
    }

    fn asked(task: &Task) -> Result<&'static [Asked], EvalError> {
        match task.is_of_targets() {
            false => Ok(&[Asked::Items]),
            true => Err(EvalError::NeedsDecoder { task: task.name }),
        }
    }

    /// Three quarters prompt, a quarter decoded.
    fn workload(context: usize, _: &[Prepared]) -> Option<Workload> {
        let decoded_tokens = (context / 4).clamp(1, MOST.1);
        let prompt_tokens = context.saturating_sub(decoded_tokens).min(MOST.0);
        (prompt_tokens > 0).then_some(Workload {
            batch: 1,
            beam: 1,
            prompt_tokens,
            decoded_tokens,
            rounds: ROUNDS,
        })
    }

    fn load(path: &Path, device: &Device) -> Result<Self, EvalError> {
        let (model, config) = iiet_model::load(path, device)?;
        let tokenizer = TextTokenizer::open(path, config.vocab_size)?;
        let model = ModelScorer::new(model, device.clone());
        Ok(TokenScorer::new(model, tokenizer))
    }

    /// Prefills and continues a text.
    fn run(&self, workload: &Workload, device: &Device) -> Result<iiet_text::Speed, EvalError> {
        let model = self.model().language_model();
        let vocab_size = model.sizes().vocab_size;
        let prompt = (0..workload.prompt_tokens).map(|i| arbitrary(i, vocab_size));
        let request = Request {
            prompt: prompt.collect(),
            // The first token is decoded from the prefill's logits.
            max_tokens: workload.decoded_tokens + 1,
            end: Vec::new(),
            sliding: false,
            sampler: Sampler::new(&Sampling::default()),
        };
        let go_on = |_| ControlFlow::Continue(());
        let (_, speed) = generate(model, request, Precision::F32, device, go_on)?;
        Ok(speed)
    }

    fn ask(
        &self,
        task: &Prepared,
        _: Asked,
        progress: &dyn Progress,
    ) -> Result<Evaluated, EvalError> {
        task.evaluate(self, progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_and_continuation_fit_the_context() {
        let within = |context| {
            let workload = <TokenScorer<ModelScorer> as Kind>::workload(context, &[])?;
            Some((workload.prompt_tokens, workload.decoded_tokens))
        };
        for (context, expected) in [
            (0, None),
            (1, None),
            (2, Some((1, 1))),
            (96, Some((72, 24))),
            (256, Some((192, 64))),
            (2048, Some((512, 64))),
        ] {
            assert_eq!(within(context), expected, "{context}");
        }
    }
}
