//! Per-item records, one JSON object a line, as the harness's `--log_samples` writes them.
//!
//! Its tools (`lm_eval.loggers`, `scripts/`) find the records by the file's name, which [`file_name`]
//! gives, and the items by their hashes.

use std::io::{self, Write};

use chrono::DateTime;
use serde_json::{Map, Value, json};

use crate::error::EvalError;
use crate::evaluation::Evaluated;
use crate::identity::Identity;
use crate::item::{Answers, Item};
use crate::metric::{Metric, Values};
use crate::python_json::{repr, truth};
use crate::results::Outcome;
use crate::scorer::Continuation;
use crate::target_text::TextValues;

/// `samples_TASK_DATE.jsonl`, the date in UTC, of seconds since 1970.
pub fn file_name(task: &str, date: f64) -> String {
    let date = DateTime::from_timestamp_micros((date * 1e6) as i64).unwrap_or_default();
    format!(
        "samples_{task}_{}.jsonl",
        date.format("%Y-%m-%dT%H-%M-%S%.6f")
    )
}

/// Writes a record for each item of a task that was answered.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut impl Write, (prepared, done): Outcome<'_>) -> io::Result<()> {
    let answered = done.answered(prepared.items.len()).zip(&done.answers);
    for (number, (asked, answers)) in answered.enumerate() {
        let (item, document) = (&prepared.items[asked], &prepared.documents[asked]);
        let identity = Identity::new(prepared.task, document, item);
        let identity = identity.map_err(|error: EvalError| io::Error::other(error.to_string()))?;
        let arguments: Vec<Vec<&str>> = match item {
            Item::Choice { requests, .. } => requests.iter().map(texts).collect(),
            Item::Cloze(request) => vec![texts(request)],
            Item::Rolling { scored, .. } => vec![vec![scored]],
            Item::Targets { request, .. } => {
                vec![request.inputs.iter().map(String::as_str).collect()]
            }
            Item::TargetText { source, .. } => vec![vec![source]],
        };
        // `sanitize_list` makes text of all that a model answers.
        let responses: Vec<Value> = match answers {
            Answers::Scored(scores) => scores
                .iter()
                .map(|score| json!([repr(score.log_likelihood), truth(score.is_greedy)]))
                .collect(),
            Answers::Rolling(score) => vec![repr(score.log_likelihood).into()],
            Answers::Text(text) => vec![text.as_str().into()],
        };
        let mut record = json!({
            "doc_id": asked,
            "doc": identity.doc,
            "target": identity.target,
            "arguments": named(arguments),
            "resps": responses.iter().map(|response| [response]).collect::<Vec<_>>(),
            "filtered_resps": responses,
            "filter": "none",
            "metrics": of_items(done).map(|metric| &*metric.name).collect::<Vec<_>>(),
            "doc_hash": identity.doc_hash,
            "prompt_hash": identity.prompt_hash,
            "target_hash": identity.target_hash,
        });
        for metric in of_items(done) {
            record[&*metric.name] = match &metric.values {
                Values::Mean(values) | Values::Perplexity(values) => values[number].into(),
                Values::WeightedPerplexity(values) | Values::BitsPerByte(values) => {
                    json!(values[number])
                }
                Values::Solved(values) => json!(values[number]),
                Values::Texts(TextValues::Mean(values)) => values[number].into(),
                Values::Texts(TextValues::Corpus(_, statistics)) => json!(statistics[number]),
            };
        }
        serde_json::to_writer(&mut *out, &record)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// The metrics that have a value for each item: not those of one difficulty.
fn of_items(done: &Evaluated) -> impl Iterator<Item = &Metric> {
    let metrics = done.metrics.iter();
    metrics.filter(|metric| metric.values.len() == done.answers.len())
}

fn texts(request: &Continuation) -> Vec<&str> {
    vec![&request.context, &request.continuation]
}

/// `{"gen_args_0": {"arg_0": .., "arg_1": ..}, ..}`, as the harness writes them.
fn named(arguments: Vec<Vec<&str>>) -> Value {
    let number = |name: &str, values: Vec<Value>| {
        let named = values.into_iter().enumerate();
        let named: Map<_, _> = named
            .map(|(i, value)| (format!("{name}_{i}"), value))
            .collect();
        Value::Object(named)
    };
    let arguments = arguments.into_iter();
    let each = |texts: Vec<&str>| number("arg", texts.into_iter().map(Value::from).collect());
    number("gen_args", arguments.map(each).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_is_named_by_task_and_date() {
        // datetime.fromtimestamp(1714566896.25, timezone.utc), between the last "_" and ".jsonl"
        assert_eq!(
            super::file_name("arc_easy", 1_714_566_896.25),
            "samples_arc_easy_2024-05-01T12-34-56.250000.jsonl"
        );
    }
}
