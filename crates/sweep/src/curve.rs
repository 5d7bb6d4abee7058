//! What `metrics.jsonl` says of a trial: its evaluations, and the time it trained.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use iiet_files::read_regular;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{SweepError, higher_is_better};

/// Fields of a record that are no results.
const LEFT_OUT: [&str; 6] = [
    "step",
    "tokens",
    "lr",
    "grad_norm",
    "tokens_per_second",
    "flops_utilisation",
];

/// One evaluation of a trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps taken.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training, without validation, samples and saving.
    pub seconds: f64,
    /// The numbers of the record by name, nested ones by their dotted names: `validation_loss`,
    /// `validation_by_source.a.jsonl`.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
}

/// A trial as far as it got.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Curve {
    /// Its evaluations in order.
    pub points: Vec<Point>,
    /// The last step that was logged.
    pub step: u64,
    /// Tokens trained on until then.
    pub tokens: u64,
    /// Seconds of training until then.
    pub seconds: f64,
    /// Evaluations of blocks for one token, all layers together, at that step.
    pub evaluations: u64,
}

impl Curve {
    /// Reads `metrics.jsonl`; empty if there is no such file. A last line without an end, which is
    /// being written or was cut short, is left out.
    ///
    /// The seconds of training follow from `tokens` and `tokens_per_second`: each record has the rate
    /// since the one before it, validation, samples and checkpoints left out.
    ///
    /// # Errors
    ///
    /// [`SweepError::Line`] for a line that is not a record, [`SweepError::Io`].
    pub fn read(path: &Path) -> Result<Self, SweepError> {
        let bytes = match read_regular(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            bytes => bytes.map_err(SweepError::io(path))?,
        };
        let mut curve = Self::default();
        for (at, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if let Some(line) = line.strip_suffix(b"\n") {
                curve.add(line).map_err(|reason| SweepError::Line {
                    path: path.to_owned(),
                    line: at + 1,
                    reason,
                })?;
            }
        }
        Ok(curve)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let record: Map<String, Value> =
            serde_json::from_slice(line).map_err(|error| error.to_string())?;
        let count = |name: &str| -> Result<u64, String> {
            let value = record.get(name).and_then(Value::as_u64);
            value.ok_or_else(|| format!("{name} is missing or no count"))
        };
        let (step, tokens) = (count("step")?, count("tokens")?);
        let rate = record.get("tokens_per_second").and_then(Value::as_f64);
        let rate = rate.ok_or("tokens_per_second is missing or no number")?;
        if rate > 0.0 {
            self.seconds += tokens.saturating_sub(self.tokens) as f64 / rate;
        }
        (self.step, self.tokens) = (step, tokens);
        self.evaluations = count("evaluations")?;
        if record.contains_key("validation_loss") {
            let mut values = BTreeMap::new();
            for (name, value) in &record {
                if !LEFT_OUT.contains(&name.as_str()) {
                    numbers(name, value, &mut values);
                }
            }
            self.points.push(Point {
                step,
                tokens,
                seconds: self.seconds,
                values,
            });
        }
        Ok(())
    }

    /// The point of an evaluation after a step.
    pub(crate) fn at(&self, step: u64) -> Option<&Point> {
        self.points.iter().find(|point| point.step == step)
    }

    /// The least loss and the greatest accuracy of each name.
    pub(crate) fn best(&self) -> BTreeMap<String, f64> {
        let mut best = BTreeMap::new();
        for (name, value) in self.points.iter().flat_map(|point| &point.values) {
            best.entry(name.clone())
                .and_modify(|best: &mut f64| {
                    *best = match higher_is_better(name) {
                        true => best.max(*value),
                        false => best.min(*value),
                    };
                })
                .or_insert(*value);
        }
        best
    }
}

/// The numbers of a value by their dotted names.
fn numbers(name: &str, value: &Value, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                numbers(&format!("{name}.{key}"), value, found);
            }
        }
        value => found.extend(value.as_f64().map(|value| (name.to_owned(), value))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn seconds_of_training_are_those_between_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(Curve::read(&path).unwrap(), Curve::default());
        let lines = [
            r#"{"step":1,"tokens":100,"loss":5.0,"lr":0.1,"grad_norm":1.0,"tokens_per_second":50.0,"evaluations":4}"#,
            r#"{"step":10,"tokens":1000,"loss":4.0,"lr":0.1,"grad_norm":1.0,"tokens_per_second":100.0,"evaluations":4,"validation_loss":4.5,"accuracy":0.25}"#,
            r#"{"step":20,"tokens":2000,"loss":3.0,"lr":0.1,"grad_norm":1.0,"tokens_per_second":500.0,"evaluations":8,"validation_loss":4.75,"accuracy":0.5,"validation_by_source":{"a":1.5}}"#,
            r#"{"step":21,"tok"#,
        ];
        fs::write(&path, lines.join("\n")).unwrap();
        let curve = Curve::read(&path).unwrap();
        // 100 / 50, then 900 / 100 and 1000 / 500.
        let seconds: Vec<f64> = curve.points.iter().map(|point| point.seconds).collect();
        assert_eq!(seconds, [11.0, 13.0]);
        assert_eq!((curve.step, curve.tokens, curve.evaluations), (20, 2000, 8));
        let names: Vec<&str> = curve.points[1].values.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "accuracy",
                "evaluations",
                "loss",
                "validation_by_source.a",
                "validation_loss"
            ]
        );
        let best = curve.best();
        assert_eq!((best["validation_loss"], best["accuracy"]), (4.5, 0.5));
        assert_eq!(curve.at(10).unwrap().values["validation_loss"], 4.5);
        assert_eq!(curve.at(11), None);

        fs::write(&path, "{\"step\":1}\n").unwrap();
        let error = Curve::read(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("line 1: tokens is missing or no count"),
            "{error}"
        );
    }
}
