//! Compares the time of scoring with that of the model's forward passes alone.
//!
//!     cargo run --workspace --example scoring_rate --features iiet-eval/model -- MODEL TASK LIMIT [DATA]
//!
//! Scores a task's items, and passes the same batches through `LanguageModel::forward`, alternately.

use std::cell::RefCell;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;
use iiet_eval::{
    EvalError, ModelScorer, Prompt, Row, Settings, TokenModel, TokenScore, TokenScorer, prepare,
    task,
};
use iiet_model::token_ids;
use iiet_text::TextTokenizer;

/// Number of rounds, of which the fastest is reported.
const TURNS: usize = 3;

/// Notes the batches that pass through a model.
struct Recorded {
    model: ModelScorer,
    batches: RefCell<Vec<Vec<Vec<u32>>>>,
}

impl TokenModel for &Recorded {
    fn max_length(&self) -> usize {
        self.model.max_length()
    }

    fn score(&self, rows: &[Row<'_>]) -> Result<Vec<Vec<TokenScore>>, EvalError> {
        let batch = rows.iter().map(|row| row.inputs.to_vec()).collect();
        self.batches.borrow_mut().push(batch);
        self.model.score(rows)
    }

    fn generate(
        &self,
        prompts: &[Prompt],
        eos: Option<u32>,
        go_on: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>, EvalError> {
        self.model.generate(prompts, eos, go_on)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, name, limit, data @ ..] = &arguments[..] else {
        return Err("usage: scoring_rate MODEL TASK LIMIT [DATA]".into());
    };
    let directory = PathBuf::from(directory);
    let settings = Settings {
        data: data.first().map(PathBuf::from),
        limit: Some(limit.parse()?),
        ..Settings::default()
    };
    let prepared = prepare(task(name)?, &settings)?;
    let device = Device::default();
    let (model, config) = iiet_model::load(&directory, &device)?;
    let recorded = Recorded {
        model: ModelScorer::new(model.clone(), device.clone()),
        batches: RefCell::default(),
    };
    let tokenizer = TextTokenizer::open(&directory, config.vocab_size)?;
    let scorer = TokenScorer::new(&recorded, tokenizer);

    let (mut scoring, mut forward) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..TURNS {
        recorded.batches.borrow_mut().clear();
        let started = Instant::now();
        prepared.evaluate(&scorer, &())?;
        scoring = scoring.min(started.elapsed().as_secs_f64());

        let started = Instant::now();
        for rows in recorded.batches.borrow().iter() {
            let seq = rows.iter().map(Vec::len).max().unwrap_or(0);
            let mut ids = vec![0; rows.len() * seq];
            for (row, padded) in rows.iter().zip(ids.chunks_mut(seq)) {
                padded[..row.len()].copy_from_slice(row);
            }
            let logits = model.forward(token_ids(&ids, [rows.len(), seq], &device));
            // Waits for devices that compute asynchronously.
            logits.slice([0..1, 0..1, 0..1]).into_data();
        }
        forward = forward.min(started.elapsed().as_secs_f64());
    }
    let batches = recorded.batches.borrow();
    let tokens: usize = batches.iter().flatten().map(Vec::len).sum();
    let longest = |rows: &Vec<Vec<u32>>| rows.iter().map(Vec::len).max().unwrap_or(0);
    let padded: usize = batches.iter().map(|rows| rows.len() * longest(rows)).sum();
    println!(
        "{name}: {tokens} tokens in {} batches, {:.1} % padding; scoring {scoring:.2} s, forward passes {forward:.2} s, ratio {:.3}; {:.0} tokens/s",
        batches.len(),
        100.0 * (padded - tokens) as f64 / padded as f64,
        scoring / forward,
        tokens as f64 / scoring,
    );
    Ok(())
}
