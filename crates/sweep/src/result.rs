//! `sweep.jsonl`: one object for each trial.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use iiet_files::{read_regular_text, write_file};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Curve, Point, SweepError, Trial};

/// How far a trial got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was not begun.
    Waiting,
    /// It was begun, and goes on when the sweep does.
    Unfinished,
    /// It took all its steps.
    Finished,
    /// Successive halving dropped it.
    Dropped,
    /// It failed: [`TrialResult::reason`].
    Failed,
}

/// A trial and what came of it: a line of `sweep.jsonl`. Tables and pictures need nothing else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrialResult {
    /// Its name.
    pub trial: String,
    /// The keys of the grid with their values.
    pub settings: BTreeMap<String, Value>,
    /// Its `train.seed`.
    pub seed: u64,
    /// How far it got.
    pub state: State,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Steps taken that were logged.
    pub step: u64,
    /// Steps of the whole trial.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training, without validation, samples and saving.
    pub seconds: f64,
    /// Evaluations of blocks for one token, all layers together.
    pub evaluations_per_token: u64,
    /// Threads that the trial was given.
    pub threads: usize,
    /// The numbers of the last evaluation, such as `validation_loss`.
    #[serde(rename = "final")]
    pub last: BTreeMap<String, f64>,
    /// The best of each over all evaluations: the least loss, the greatest accuracy.
    pub best: BTreeMap<String, f64>,
    /// All evaluations.
    pub curve: Vec<Point>,
    /// The configuration in full.
    pub config: Value,
}

impl TrialResult {
    pub(crate) fn of(trial: &Trial, state: State, threads: usize, curve: Curve) -> Self {
        let config = serde_json::to_value(&trial.config);
        Self {
            trial: trial.name.clone(),
            settings: trial.settings_as_json(),
            seed: trial.seed,
            state,
            reason: None,
            step: curve.step,
            steps: trial.config.train.steps,
            tokens: curve.tokens,
            seconds: curve.seconds,
            evaluations_per_token: curve.evaluations,
            threads,
            last: curve
                .points
                .last()
                .map_or_else(BTreeMap::new, |point| point.values.clone()),
            best: curve.best(),
            curve: curve.points,
            config: config.expect("invariant: a configuration serialises"),
        }
    }

    /// A key of the grid, or else of the configuration.
    pub fn setting(&self, key: &str) -> Option<&Value> {
        self.settings.get(key).or_else(|| {
            let words = key.split('.');
            words
                .into_iter()
                .try_fold(&self.config, |value, word| value.get(word))
        })
    }
}

/// Reads a `sweep.jsonl`.
///
/// # Errors
///
/// [`SweepError::Line`] for a line that is no trial, [`SweepError::Io`].
pub fn read_results(path: &Path) -> Result<Vec<TrialResult>, SweepError> {
    let text = read_regular_text(path).map_err(SweepError::io(path))?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let results = lines.map(|(at, line)| {
        serde_json::from_str(line).map_err(|error| SweepError::Line {
            path: path.to_owned(),
            line: at + 1,
            reason: error.to_string(),
        })
    });
    results.collect()
}

pub(crate) fn write_results(path: &Path, results: &[TrialResult]) -> Result<(), SweepError> {
    let written = write_file(path, |file| {
        for result in results {
            serde_json::to_writer(&mut *file, result)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    });
    written.map(drop).map_err(SweepError::io(path))
}
