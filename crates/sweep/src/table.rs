//! The table of a sweep: one row for each combination of settings, the best first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::Value;

use crate::trial::SEED;
use crate::{Estimate, State, SweepError, TrialResult, higher_is_better, short_names, shown};

/// The quantity of a table unless another is asked for: the first of these that is there.
const METRICS: [&str; 4] = [
    "validation_accuracy",
    "accuracy",
    "validation_bits_per_byte",
    "validation_loss",
];
/// Keys that make no column: the seed, and those that change what is written and not what is learned.
const NO_COLUMN: [&str; 8] = [
    "data.cache",
    SEED,
    "train.log_every",
    "train.eval_every",
    "train.sample_every",
    "train.sample_prompt",
    "train.checkpoint_every",
    "train.keep",
];

/// The trials of one or several sweeps, by their settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The quantity, a name of [`TrialResult::last`].
    pub metric: String,
    /// The dotted keys in which the trials differ; those of the grid if they differ in none.
    pub keys: Vec<String>,
    /// The best first; combinations that got less far come later.
    pub rows: Vec<Row>,
}

/// A combination of settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its values, in the order of [`Table::keys`].
    pub values: Vec<Value>,
    /// Its trials, as places in the results.
    pub trials: Vec<usize>,
    /// Trials that the estimates are of: the finished ones, or where there are none those that were
    /// evaluated at all.
    pub counted: usize,
    /// Whether those are finished.
    pub finished: bool,
    /// Trials that failed.
    pub failed: usize,
    /// The quantity at the last evaluation.
    pub last: Option<Estimate>,
    /// Its best over all evaluations of a trial.
    pub best: Option<Estimate>,
    /// Steps of the counted trials, the least.
    pub step: u64,
    /// Seconds of training of the counted trials, the mean.
    pub seconds: f64,
    /// Evaluations of blocks for one token, the greatest.
    pub evaluations_per_token: u64,
}

impl Table {
    /// The table of results, of a quantity or of the first of accuracy, bits per byte and loss that is
    /// there.
    ///
    /// # Errors
    ///
    /// [`SweepError::Metric`] if no trial has that quantity, [`SweepError::Twice`].
    pub fn of(results: &[TrialResult], metric: Option<&str>) -> Result<Self, SweepError> {
        let metric = metric_of(results, metric)?;
        let keys = keys_of(results);
        let mut groups: Vec<(Vec<Value>, Vec<usize>)> = Vec::new();
        for (at, result) in results.iter().enumerate() {
            let of_key = |key: &String| result.setting(key).cloned().unwrap_or(Value::Null);
            let values: Vec<Value> = keys.iter().map(of_key).collect();
            // A solver by its name alone, or as a table, is the same to a reader.
            let same = |(group, _): &&mut (Vec<Value>, Vec<usize>)| {
                group.iter().map(shown).eq(values.iter().map(shown))
            };
            match groups.iter_mut().find(same) {
                Some((_, trials)) => trials.push(at),
                None => groups.push((values, vec![at])),
            }
        }
        for (_, trials) in &groups {
            let mut seeds = BTreeSet::new();
            if let Some(at) = trials.iter().find(|at| !seeds.insert(results[**at].seed)) {
                let trial = results[*at].trial.clone();
                return Err(SweepError::Twice { trial });
            }
        }
        let rows = groups.into_iter();
        let mut rows: Vec<Row> = rows
            .map(|(values, trials)| Row::of(values, trials, results, &metric))
            .collect();
        let sign = if higher_is_better(&metric) { -1.0 } else { 1.0 };
        let rank = |row: &Row| row.last.map_or(f64::INFINITY, |last| sign * last.mean);
        rows.sort_by(|a, b| {
            let further = (b.finished, b.step).cmp(&(a.finished, a.step));
            // Trials of different lengths that all came to their end are compared by their results.
            let further = match a.finished && b.finished {
                true => std::cmp::Ordering::Equal,
                false => further,
            };
            further.then(rank(a).total_cmp(&rank(b)))
        });
        Ok(Self { metric, keys, rows })
    }

    /// As Markdown, with a sentence on top and the reasons of failures below.
    pub fn to_markdown(&self, results: &[TrialResult]) -> String {
        let short = short_names(&self.keys);
        let better = match higher_is_better(&self.metric) {
            true => "higher",
            false => "lower",
        };
        let mut text = format!(
            "`{}` at the last evaluation, mean ± standard error over seeds; {better} is better.\n\n",
            self.metric
        );
        let mut heads: Vec<String> = self.keys.iter().map(|key| short[key].clone()).collect();
        let columns = [
            "seeds",
            &self.metric,
            "best",
            "steps",
            "seconds",
            "evaluations per token",
        ];
        heads.extend(columns.map(str::to_owned));
        row(&mut text, &heads);
        row(&mut text, &vec!["---".to_owned(); heads.len()]);
        for line in &self.rows {
            let mut cells: Vec<String> = line.values.iter().map(shown).collect();
            let estimate = |estimate: &Option<Estimate>| {
                estimate.map_or_else(|| "-".to_owned(), |estimate| estimate.text())
            };
            cells.extend([
                line.seeds(results),
                estimate(&line.last),
                estimate(&line.best),
                line.step.to_string(),
                format!("{:.1}", line.seconds),
                line.evaluations_per_token.to_string(),
            ]);
            row(&mut text, &cells);
        }
        let failures = results
            .iter()
            .filter(|result| result.state == State::Failed);
        for (at, result) in failures.enumerate() {
            let space = if at == 0 { "\n" } else { "" };
            let reason = result
                .reason
                .as_deref()
                .unwrap_or("for no reason that is known");
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{space}- `{}` failed after step {}: {}",
                result.trial,
                result.step,
                reason.replace('\n', " ")
            );
        }
        text
    }
}

impl Row {
    fn of(values: Vec<Value>, trials: Vec<usize>, results: &[TrialResult], metric: &str) -> Self {
        let with = |state: State| trials.iter().filter(move |at| results[**at].state == state);
        let finished = with(State::Finished).count() > 0;
        let counted: Vec<&TrialResult> = trials
            .iter()
            .map(|at| &results[*at])
            .filter(|result| match finished {
                true => result.state == State::Finished,
                // What a failed trial last measured says nothing about how it would have ended.
                false => result.state != State::Failed && result.last.contains_key(metric),
            })
            .collect();
        let estimate = |of: fn(&TrialResult) -> &BTreeMap<String, f64>| {
            let numbers = counted.iter().filter_map(|result| of(result).get(metric));
            Estimate::of(&numbers.copied().collect::<Vec<f64>>())
        };
        let all = trials.iter().map(|at| &results[*at]);
        let seconds: Vec<f64> = counted.iter().map(|result| result.seconds).collect();
        Self {
            counted: counted.len(),
            finished,
            failed: with(State::Failed).count(),
            last: estimate(|result| &result.last),
            best: estimate(|result| &result.best),
            step: counted.iter().map(|result| result.step).min().unwrap_or(0),
            seconds: Estimate::of(&seconds).map_or(0.0, |seconds| seconds.mean),
            evaluations_per_token: all
                .map(|result| result.evaluations_per_token)
                .max()
                .unwrap_or(0),
            values,
            trials,
        }
    }

    /// How many trials there are, and how many of them do not count.
    fn seeds(&self, results: &[TrialResult]) -> String {
        let of = |state: State| {
            let trials = self.trials.iter();
            trials.filter(|at| results[**at].state == state).count()
        };
        let all = self.trials.len();
        let notes = [
            (State::Failed, "failed"),
            (State::Dropped, "dropped"),
            (State::Unfinished, "unfinished"),
            (State::Waiting, "waiting"),
        ];
        let notes: Vec<String> = notes
            .into_iter()
            .filter(|(state, _)| of(*state) > 0)
            .map(|(state, note)| format!("{} {note}", of(state)))
            .collect();
        match notes.is_empty() {
            true => all.to_string(),
            false => format!("{all} ({})", notes.join(", ")),
        }
    }
}

/// A line of a Markdown table.
fn row(text: &mut String, cells: &[String]) {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    // Writing to a string does not fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn metric_of(results: &[TrialResult], metric: Option<&str>) -> Result<String, SweepError> {
    let allowed: BTreeSet<&String> = results
        .iter()
        .flat_map(|result| result.last.keys())
        .collect();
    let has = |name: &str| allowed.iter().any(|allowed| *allowed == name);
    match metric {
        Some(metric) if has(metric) => Ok(metric.to_owned()),
        Some(metric) => Err(SweepError::Metric {
            metric: metric.to_owned(),
            allowed: allowed.into_iter().cloned().collect(),
        }),
        None => {
            let found = METRICS.into_iter().find(|name| has(name));
            // Where nothing was evaluated yet the table has the trials alone.
            Ok(found.unwrap_or("validation_loss").to_owned())
        }
    }
}

/// The keys in which trials differ.
fn keys_of(results: &[TrialResult]) -> Vec<String> {
    let of_grid: BTreeSet<String> = results
        .iter()
        .flat_map(|result| result.settings.keys().cloned())
        .collect();
    let differ = |key: &str| {
        let mut values = results.iter().map(|result| result.setting(key).map(shown));
        let first = values.next();
        values.any(|value| Some(value) != first)
    };
    // Sweeps with different grids may differ in what only one of them varies, or neither.
    let mut all = BTreeSet::new();
    for result in results {
        keys("", &result.config, &mut all);
    }
    let part_of_grid = |key: &str| {
        let mut grid = of_grid.iter();
        grid.any(|grid| {
            key == grid
                || key
                    .strip_prefix(grid)
                    .is_some_and(|end| end.starts_with('.'))
        })
    };
    let others = all
        .into_iter()
        .filter(|key| !part_of_grid(key) && !NO_COLUMN.contains(&key.as_str()));
    let found: Vec<String> = of_grid
        .iter()
        .cloned()
        .chain(others)
        .filter(|key| differ(key))
        .collect();
    match found.is_empty() {
        true => of_grid.into_iter().collect(),
        false => found,
    }
}

/// The dotted keys of a configuration; a list is a value.
fn keys(prefix: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let dot = if prefix.is_empty() { "" } else { "." };
                keys(&format!("{prefix}{dot}{key}"), value, found);
            }
        }
        _ => {
            found.insert(prefix.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A trial that finished with a loss of `last`, and was at 3 before.
    fn result(lr: f64, seed: u64, last: f64) -> TrialResult {
        let numbers = |loss: f64| BTreeMap::from([("validation_loss".to_owned(), loss)]);
        TrialResult {
            trial: format!("lr={lr}_seed={seed}"),
            settings: [("train.lr".to_owned(), json!(lr))].into(),
            seed,
            state: State::Finished,
            reason: None,
            step: 100,
            steps: 100,
            tokens: 1000,
            seconds: 10.0 * seed as f64,
            evaluations_per_token: 8,
            threads: 1,
            last: numbers(last),
            best: numbers(last.min(3.0)),
            curve: Vec::new(),
            config: json!({"train": {"lr": lr, "seed": seed}, "model": {"n_layers": 2}}),
        }
    }

    #[test]
    fn rows_are_sorted_by_mean_with_the_standard_error_over_seeds() {
        let results = [
            result(0.1, 1, 4.0),
            result(0.1, 2, 2.0),
            result(0.01, 1, 2.5),
            result(0.01, 2, 2.75),
        ];
        let table = Table::of(&results, None).unwrap();
        assert_eq!(
            (table.metric.as_str(), &table.keys[..]),
            ("validation_loss", &["train.lr".to_owned()][..])
        );
        // (2.5 + 2.75) / 2, and sqrt(2 * 0.125^2 / 1 / 2) = 0.125; (4 + 2) / 2 and sqrt(2 / 2) = 1.
        let numbers: Vec<_> = table.rows.iter().map(|row| row.last.unwrap()).collect();
        assert_eq!(
            (numbers[0].mean, numbers[0].standard_error),
            (2.625, Some(0.125))
        );
        assert_eq!(
            (numbers[1].mean, numbers[1].standard_error),
            (3.0, Some(1.0))
        );
        // The best of 4 and 3 is 3: (3 + 2) / 2.
        assert_eq!(table.rows[1].best.unwrap().mean, 2.5);
        let text = table.to_markdown(&results);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[2],
            "| lr | seeds | validation_loss | best | steps | seconds | evaluations per token |"
        );
        assert_eq!(
            lines[4],
            "| 0.01 | 2 | 2.62 ± 0.12 | 2.62 ± 0.12 | 100 | 15.0 | 8 |"
        );
        assert_eq!(
            lines[5],
            "| 0.1 | 2 | 3.0 ± 1.0 | 2.50 ± 0.50 | 100 | 15.0 | 8 |"
        );
    }

    #[test]
    fn failures_and_dropped_trials_are_rows_after_the_others() {
        let mut failed = result(1.0, 1, 0.5);
        failed.state = State::Failed;
        failed.reason = Some("step 7: the loss is NaN".into());
        failed.step = 6;
        let mut dropped = result(0.5, 1, 1.0);
        dropped.state = State::Dropped;
        dropped.step = 50;
        let results = [failed, dropped, result(0.1, 1, 4.0)];
        let table = Table::of(&results, None).unwrap();
        let order: Vec<String> = table.rows.iter().map(|row| shown(&row.values[0])).collect();
        assert_eq!(order, ["0.1", "0.5", "1.0"]);
        let text = table.to_markdown(&results);
        assert!(
            text.contains("| 0.5 | 1 (1 dropped) | 1.0000 | 1.0000 | 50 |"),
            "{text}"
        );
        assert!(
            text.contains("| 1.0 | 1 (1 failed) | - | - | 0 |"),
            "{text}"
        );
        assert!(
            text.ends_with("- `lr=1_seed=1` failed after step 6: step 7: the loss is NaN\n"),
            "{text}"
        );
    }

    #[test]
    fn accuracy_is_better_when_it_is_higher() {
        let with = |lr, accuracy| {
            let mut result = result(lr, 1, 1.0);
            result.last.insert("accuracy".into(), accuracy);
            result
        };
        let results = [with(0.1, 0.25), with(0.2, 0.75)];
        let table = Table::of(&results, None).unwrap();
        assert_eq!(table.metric, "accuracy");
        assert_eq!(table.rows[0].values, [json!(0.2)]);
        let error = Table::of(&results, Some("bpb")).unwrap_err().to_string();
        assert_eq!(
            error,
            "no trial has \"bpb\"; allowed: accuracy, validation_loss"
        );
    }

    #[test]
    fn sweeps_with_different_grids_are_told_apart_by_their_configurations() {
        let mut other = result(0.1, 1, 2.0);
        other.settings = [("model.n_layers".to_owned(), json!(4))].into();
        other.config = json!({"train": {"lr": 0.1, "seed": 1}, "model": {"n_layers": 4}});
        let results = [result(0.1, 1, 4.0), result(0.2, 1, 3.0), other];
        let table = Table::of(&results, None).unwrap();
        assert_eq!(table.keys, ["model.n_layers", "train.lr"]);
        assert_eq!(table.rows[0].values, [json!(4), json!(0.1)]);
        assert_eq!(table.rows[1].values, [json!(2), json!(0.2)]);

        let twice = [result(0.1, 1, 4.0), result(0.1, 1, 4.0)];
        let error = Table::of(&twice, None).unwrap_err().to_string();
        assert!(error.contains("lr=0.1_seed=1 is given twice"), "{error}");
    }
}
