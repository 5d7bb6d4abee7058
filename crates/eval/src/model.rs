//! [`TokenModel`] for `iiet-model`'s language models.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;
use iiet_model::{
    CorrectionCount, Inference, LanguageModel, MemoryEstimate, ModelConfig, ModelError, Precision,
    token_ids,
};
use iiet_text::{Engine, EngineOptions, Event, Request, Sampler, Sampling};

use crate::error::EvalError;
use crate::token_scorer::{BATCH_TOKENS, Prompt, Row, TokenModel, TokenScore};
use crate::token_scores::{LOGITS, score_tokens};

/// Number of texts that are generated in one batch.
const ROWS: usize = 8;

/// A language model on its device.
pub struct ModelScorer {
    model: LanguageModel,
    device: Device,
    corrections: Mutex<CorrectionCount>,
}

impl ModelScorer {
    /// Scores with this model, whose parameters are on `device`.
    pub fn new(model: LanguageModel, device: Device) -> Self {
        Self {
            model,
            device,
            corrections: Mutex::default(),
        }
    }

    /// How many corrections the tokens so far took, where these stop by a tolerance.
    pub fn corrections(&self) -> CorrectionCount {
        *self.counted()
    }

    fn counted(&self) -> MutexGuard<'_, CorrectionCount> {
        // A count is whole whatever a thread that held it was doing.
        self.corrections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory for scoring with such a model.
    ///
    /// # Errors
    ///
    /// The errors of [`ModelConfig::validate`].
    pub fn memory(
        work: String,
        precision: Precision,
        config: &ModelConfig,
        device: &Device,
    ) -> Result<MemoryEstimate, ModelError> {
        let inference = Inference {
            precision,
            tokens: BATCH_TOKENS.max(config.seq_len),
            logits: (LOGITS / config.vocab_size).max(1),
            cached: 0,
            cache: precision,
        };
        inference.memory(work, config, device)
    }

    /// The model.
    pub fn language_model(&self) -> &LanguageModel {
        &self.model
    }
}

impl TokenModel for ModelScorer {
    fn max_length(&self) -> usize {
        self.model.sizes().seq_len
    }

    fn score(&self, rows: &[Row<'_>]) -> Result<Vec<Vec<TokenScore>>, EvalError> {
        let batch = rows.len();
        let seq = rows.iter().map(|row| row.inputs.len()).max().unwrap_or(0);
        let mut ids = vec![0; batch * seq];
        let mut wanted = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            ids[at * seq..][..row.inputs.len()].copy_from_slice(row.inputs);
            let of_row = row.wanted.iter();
            wanted.extend(of_row.map(|(place, token)| (at * seq + place, *token)));
        }
        // Attention is causal, so padding on the right has no effect on earlier positions.
        let ids = token_ids(&ids, [batch, seq], &self.device);
        let mut pass = self.model.pass(&ids);
        let hidden = self.model.hidden_in(ids, &mut pass);
        let columns: Vec<_> = rows.iter().map(|row| 0..row.inputs.len()).collect();
        let layers = self.model.sizes().n_layers;
        *self.counted() += CorrectionCount::of(&pass.corrections, &columns, layers);
        let [_, _, d_model] = hidden.dims();
        let hidden = hidden.reshape([batch * seq, d_model]);
        let vocab_size = self.model.sizes().vocab_size;
        let logits = |hidden| self.model.logits(hidden);
        let scores = score_tokens(&hidden, &wanted, vocab_size, logits)?;
        let mut scores = scores.into_iter();
        let of_row = |row: &Row<'_>| scores.by_ref().take(row.wanted.len()).collect();
        Ok(rows.iter().map(of_row).collect())
    }

    fn generate(
        &self,
        prompts: &[Prompt],
        eos: Option<u32>,
        go_on: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>, EvalError> {
        let options = EngineOptions {
            rows: ROWS,
            cache: Precision::F32,
        };
        let mut engine = Engine::new(self.model.clone(), options, &self.device);
        let mut numbers = HashMap::new();
        for (number, prompt) in prompts.iter().enumerate() {
            let request = Request {
                prompt: prompt.tokens.clone(),
                max_tokens: prompt.max_tokens,
                end: eos.into_iter().collect(),
                sliding: false,
                sampler: Sampler::new(&Sampling::default()),
            };
            numbers.insert(engine.admit(request)?, number);
        }
        let mut texts = vec![Vec::new(); prompts.len()];
        while !engine.is_idle() {
            for event in engine.step() {
                match event {
                    Event::Token { id, token } => {
                        let number = numbers[&id];
                        texts[number].push(token);
                        if !go_on(number, &texts[number]) {
                            engine.evict(id);
                        }
                    }
                    Event::Failed { error, .. } => return Err(error.into()),
                    _ => {}
                }
            }
        }
        *self.counted() += engine.corrections();
        Ok(texts)
    }
}
