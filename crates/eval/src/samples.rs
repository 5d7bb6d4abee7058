//! Per-item records, one JSON object a line, with the harness's names.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::evaluation::Evaluated;
use crate::metric::{Metric, Values};
use crate::results::Outcome;
use crate::scorer::Continuation;
use crate::task::{Answers, Item};

/// Writes a record for each item of a task that was answered.
///
/// # Errors
/// Those of the writer.
pub fn write(out: &mut impl Write, (prepared, done): Outcome<'_>) -> io::Result<()> {
    let answered = done.answered(prepared.items.len()).zip(&done.answers);
    for (number, (asked, answers)) in answered.enumerate() {
        let (item, document) = (&prepared.items[asked], &prepared.documents[asked]);
        let (target, arguments): (Value, Vec<Vec<&str>>) = match item {
            Item::Choice {
                requests, answer, ..
            } => ((*answer).into(), requests.iter().map(texts).collect()),
            Item::Cloze(request) => (request.continuation.as_str().into(), vec![texts(request)]),
            Item::Rolling { scored, .. } => (scored.as_str().into(), vec![vec![scored]]),
            Item::Targets { request, .. } => {
                let targets = request.wanted.iter().map(|(_, symbol)| symbol.as_str());
                let inputs = request.inputs.iter().map(String::as_str).collect();
                (targets.collect(), vec![inputs])
            }
        };
        let responses: Vec<Value> = match answers {
            Answers::Scored(scores) => scores
                .iter()
                .map(|score| json!([score.log_likelihood, score.is_greedy]))
                .collect(),
            Answers::Rolling(score) => vec![score.log_likelihood.into()],
        };
        let mut record = json!({
            "doc_id": asked,
            "doc": document.fields(),
            "target": target,
            "arguments": named(arguments),
            "resps": responses.iter().map(|response| [response]).collect::<Vec<_>>(),
            "filtered_resps": responses,
            "filter": "none",
            "metrics": of_items(done).map(|metric| &*metric.name).collect::<Vec<_>>(),
        });
        for metric in of_items(done) {
            record[&*metric.name] = match &metric.values {
                Values::Mean(values) | Values::Perplexity(values) => values[number].into(),
                Values::WeightedPerplexity(values) | Values::BitsPerByte(values) => {
                    json!(values[number])
                }
                Values::Solved(values) => json!(values[number]),
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
