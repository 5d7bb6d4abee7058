//! Results as JSON, with the keys that the harness's tools read, and as a table.

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde_json::{Map, Value, json};

use crate::data::{HubData, Split};
use crate::evaluation::{Evaluated, Prepared};
use crate::examples::EXAMPLES_SEED;
use crate::metric::Metric;
use crate::search;
use crate::task::{Form, Source};
use crate::texts::TextScore;

/// A task and what a model made of it.
pub type Outcome<'a> = (&'a Prepared, &'a Evaluated);

/// What the results are of.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The model's directory, or the file that it is from.
    pub model: String,
    /// A hash of its files.
    pub model_hash: String,
    /// What the model was computed in.
    pub precision: String,
    /// How corrections were taken, if not as the model's configuration says.
    pub corrections: Option<String>,
    /// The git revision of the working directory, if it is in a repository.
    pub git_revision: Option<String>,
    /// `--limit`.
    pub limit: Option<usize>,
    /// Seconds since 1970.
    pub date: f64,
    /// How the model's tokenizer treats text, [`iiet_text::TextTokenizer::rule`].
    pub tokenizer: String,
}

/// All results of a model.
pub fn results(outcomes: &[Outcome<'_>], of: &Provenance) -> Value {
    let by_task = |value: fn(&Outcome<'_>) -> Value| -> Value {
        let entries = outcomes
            .iter()
            .map(|outcome| (outcome.0.task.name.to_owned(), value(outcome)));
        Value::Object(entries.collect())
    };
    let seconds: f64 = outcomes.iter().map(|(_, done)| done.seconds).sum();
    json!({
        "results": by_task(numbers),
        "group_subtasks": {},
        "configs": by_task(config),
        "versions": by_task(|(prepared, _)| json!(prepared.task.version)),
        "n-shot": by_task(|(prepared, _)| json!(prepared.num_fewshot)),
        "higher_is_better": by_task(|(_, done)| {
            let directions = done.metrics.iter();
            let direction = |metric: &Metric| {
                (metric.name.to_string(), metric.values.higher_is_better().into())
            };
            Value::Object(directions.map(direction).collect())
        }),
        "n-samples": by_task(|(prepared, done)| json!({
            "original": prepared.original,
            "effective": effective(prepared, done),
        })),
        "left_out": by_task(|(_, done)| {
            let left_out = done.left_out.iter();
            left_out
                .map(|left_out| json!({"doc_id": left_out.item, "reason": left_out.reason.to_string()}))
                .collect()
        }),
        "config": {
            "model": "iiet",
            "model_args": of.model,
            "model_hash": of.model_hash,
            "model_dtype": of.precision,
            "model_corrections": of.corrections,
            "tokenizer": of.tokenizer,
            "limit": of.limit,
            "bootstrap_iters": 100_000,
            "fewshot_seed": EXAMPLES_SEED,
        },
        "git_hash": of.git_revision,
        "date": of.date,
        "model_source": "iiet",
        "model_name": of.model,
        "model_name_sanitized": of.model.replace(['/', '\\'], "__"),
        "iiet_version": env!("CARGO_PKG_VERSION"),
        "task_hashes": by_task(|(prepared, _)| json!(prepared.hash)),
        "data": by_task(|(prepared, _)| json!({
            "split": prepared.split.map(|split| split.to_string()),
            "place": prepared.place,
        })),
        "chance": by_task(|(prepared, _)| json!(prepared.chance())),
        "text_scores": by_task(|(_, done)| {
            let scores = done.metrics.iter().filter_map(|metric| metric.text.as_ref());
            scores.map(TextScore::to_json).collect()
        }),
        "seconds": by_task(|(_, done)| json!(done.seconds)),
        "total_evaluation_time_seconds": seconds.to_string(),
    })
}

/// Documents whose items the metrics are of.
fn effective(prepared: &Prepared, done: &Evaluated) -> usize {
    prepared.documents.len() - done.left_out.len()
}

fn numbers((prepared, done): &Outcome<'_>) -> Value {
    let mut numbers = Map::new();
    let name = prepared.task.name;
    numbers.insert("name".into(), name.into());
    numbers.insert("alias".into(), name.into());
    numbers.insert("sample_len".into(), effective(prepared, done).into());
    for metric in &done.metrics {
        let error = metric.standard_error.map_or("N/A".into(), Value::from);
        numbers.insert(format!("{},none", metric.name), metric.value.into());
        numbers.insert(format!("{}_stderr,none", metric.name), error);
    }
    Value::Object(numbers)
}

fn config((prepared, done): &Outcome<'_>) -> Value {
    let task = prepared.task;
    let (output_type, delimiter) = match task.form {
        Form::Choice { delimiter, .. } => ("multiple_choice", delimiter),
        Form::Contexts { .. } => ("multiple_choice", " "),
        Form::Cloze { delimiter, .. } => ("loglikelihood", delimiter),
        Form::Rolling { .. } => ("loglikelihood_rolling", " "),
        Form::Targets { .. } => ("targets", " "),
        Form::TargetText { .. } => ("generate_until", " "),
    };
    let metric = |metric: &Metric| {
        json!({
            "metric": metric.name,
            "higher_is_better": metric.values.higher_is_better(),
        })
    };
    let mut config = json!({
        "task": task.name,
        "output_type": output_type,
        "description": "",
        "target_delimiter": delimiter,
        "fewshot_delimiter": "\n\n",
        "num_fewshot": prepared.num_fewshot,
        "metric_list": done.metrics.iter().map(metric).collect::<Vec<_>>(),
        "repeats": 1,
        "metadata": {"version": task.version},
    });
    if let Some(asked) = &prepared.generated {
        config["generated"] = json!({
            "options": asked.spec,
            "difficulty": asked.spec.difficulty_name(),
            "difficulties": asked.difficulties,
            "trained": asked.trained,
        });
    }
    if let Some(search) = &prepared.search {
        config["generation_kwargs"] = search::to_json(search);
    }
    if let Source::Hub(HubData {
        repository,
        subset,
        splits,
        ..
    }) = task.source
    {
        config["dataset_path"] = repository.into();
        config["dataset_name"] = subset.into();
        for (key, split) in [
            ("training_split", Split::Train),
            ("validation_split", Split::Validation),
            ("test_split", Split::Test),
        ] {
            if splits.contains(&split) {
                config[key] = split.to_string().into();
            }
        }
    }
    config
}

/// The table that the harness prints, with the items and the accuracy of guessing beside it. A
/// perplexity whose standard error exceeds it is called not determined; [`results`] has both numbers.
pub fn table(outcomes: &[Outcome<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "Tasks", "Version", "n-shot", "n", "Metric", "", "Value", "", "Stderr", "Chance",
    ]);
    for (prepared, done) in outcomes {
        for (row, metric) in done.metrics.iter().enumerate() {
            let once = |text: String| if row == 0 { text } else { String::new() };
            let error = match metric.standard_error {
                _ if !metric.is_determined() => "above the value".to_owned(),
                Some(error) => format!("{error:.4}"),
                None => "N/A".to_owned(),
            };
            let chance = prepared.chance().map(|chance| format!("{chance:.4}"));
            table.add_row([
                once(prepared.task.name.to_owned()),
                once(format!("{:.1}", prepared.task.version)),
                prepared.num_fewshot.to_string(),
                effective(prepared, done).to_string(),
                metric.name.to_string(),
                arrow(metric).to_owned(),
                value(metric.value, metric.is_determined()),
                "±".to_owned(),
                error,
                chance.unwrap_or_default(),
            ]);
        }
    }
    table
}

/// A metric's value as text.
pub(crate) fn value(value: f64, is_determined: bool) -> String {
    match is_determined {
        true => format!("{value:.4}"),
        false => "not determined".to_owned(),
    }
}

fn arrow(metric: &Metric) -> &'static str {
    match metric.values.higher_is_better() {
        true => "↑",
        false => "↓",
    }
}
