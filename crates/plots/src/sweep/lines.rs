//! Which rows of a table are points of one line, and where they lie across.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use iiet_sweep::{SweepError, Table, short_names, shown};
use serde_json::Value;

use super::no_such_key;

/// What can be across beside the keys: the cost of a model, as a field of `sweep.jsonl`.
pub(super) const EVALUATIONS: &str = "evaluations_per_token";

/// The rows of a table as lines.
#[derive(Debug, PartialEq)]
pub(super) struct Lines {
    /// What is across, with the kind of its scale.
    pub(super) caption: String,
    /// Values of that key with their places, from the left.
    pub(super) ticks: Vec<(f64, String)>,
    /// The values of the other keys, by line; empty text if there are no others.
    pub(super) names: Vec<String>,
    /// The line and place of each row of the table.
    pub(super) rows: Vec<(usize, f64)>,
    /// The colour of each trial, by its place in the results.
    pub(super) colors: Vec<usize>,
}

impl Lines {
    pub(super) fn of(table: &Table, x: Option<&str>) -> Result<Self, SweepError> {
        let across = match x {
            Some(EVALUATIONS) => Across::Evaluations,
            Some(x) => {
                let found = table.keys.iter().position(|key| key == x);
                Across::Key(found.ok_or_else(|| no_such_key(x, table))?)
            }
            None => most_numbers(table).map_or(Across::Nothing, Across::Key),
        };
        let short = short_names(&table.keys);
        let others: Vec<Vec<(&String, Value)>> = table
            .rows
            .iter()
            .map(|row| {
                let values = row.values.iter().zip(&table.keys).enumerate();
                let others = values.filter_map(|(at, (value, key))| {
                    let other = across.other(at, key, value)?;
                    Some((&short[key], other))
                });
                others.collect()
            })
            .collect();
        let of_rows: Vec<String> = others
            .iter()
            .map(|others| {
                let named = others
                    .iter()
                    .map(|(key, value)| format!("{key} {}", shown(value)));
                named.collect::<Vec<_>>().join(", ")
            })
            .collect();
        let mut order: Vec<usize> = (0..table.rows.len()).collect();
        order.sort_by(|a, b| {
            let mut each = others[*a].iter().zip(&others[*b]);
            let order =
                each.find_map(|((_, a), (_, b))| Some(by_value(a, b)).filter(|o| o.is_ne()));
            order.unwrap_or(Ordering::Equal)
        });
        let mut names: Vec<String> = order.iter().map(|row| of_rows[*row].clone()).collect();
        names.dedup();
        let values: Vec<Value> = table
            .rows
            .iter()
            .map(|row| match across {
                Across::Key(at) => row.values[at].clone(),
                Across::Evaluations => row.evaluations_per_token.into(),
                Across::Nothing => Value::Null,
            })
            .collect();
        let (ticks, scale) = places(&values);
        let place = |value: &Value| {
            let text = shown(value);
            ticks
                .iter()
                .find(|(_, tick)| *tick == text)
                .map_or(0.0, |(place, _)| *place)
        };
        let rows: Vec<(usize, f64)> = of_rows
            .iter()
            .zip(&values)
            .map(|(name, value)| {
                let line = names.iter().position(|line| line == name);
                (line.unwrap_or(0), place(value))
            })
            .collect();
        let trials = table.rows.iter().flat_map(|row| &row.trials).max();
        let mut colors = vec![0; trials.map_or(0, |last| last + 1)];
        for (number, (row, (line, _))) in table.rows.iter().zip(&rows).enumerate() {
            for trial in &row.trials {
                // With one line, the colour tells its points apart.
                colors[*trial] = if names.len() > 1 { *line } else { number };
            }
        }
        Ok(Self {
            caption: match across {
                Across::Key(at) => format!("{}{scale}", table.keys[at]),
                Across::Evaluations => format!("evaluations of a block per token{scale}"),
                Across::Nothing => String::new(),
            },
            ticks,
            names,
            rows,
            colors,
        })
    }
}

/// What is across.
#[derive(Clone, Copy)]
enum Across {
    /// A key, by its place in the table.
    Key(usize),
    Evaluations,
    Nothing,
}

impl Across {
    /// The value of a key for the name of a line, unless the key is what is across or follows from it.
    fn other(self, at: usize, key: &str, value: &Value) -> Option<Value> {
        match (self, key) {
            (Self::Key(across), _) if across == at => None,
            (Self::Evaluations, "model.n_layers" | "model.solver.iterations") => None,
            (Self::Evaluations, "model.solver") => Some(without_iterations(value)),
            _ => Some(value.clone()),
        }
    }
}

/// A solver but for its number of corrections; by its name alone, if it has no other options.
fn without_iterations(solver: &Value) -> Value {
    let Value::Object(options) = solver else {
        return solver.clone();
    };
    let mut options = options.clone();
    options.remove("iterations");
    match options.get("name") {
        Some(name) if options.len() == 1 => name.clone(),
        _ => Value::Object(options),
    }
}

/// The key with the most different numbers, or else with the most different values; of several, the
/// first.
fn most_numbers(table: &Table) -> Option<usize> {
    let different = |at: &usize| {
        let values = table.rows.iter().map(|row| shown(&row.values[*at]));
        let numbers = table.rows.iter().all(|row| row.values[*at].is_number());
        let count = values.collect::<BTreeSet<String>>().len();
        (numbers && count > 1, count)
    };
    (0..table.keys.len()).rev().max_by_key(different)
}

/// Numbers by their size, words by their letters, numbers first.
fn by_value(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (a_number, b_number) => {
            let words_last = a_number.is_none().cmp(&b_number.is_none());
            words_last.then_with(|| shown(a).cmp(&shown(b)))
        }
    }
}

/// The places of values: numbers where they are, on a logarithmic scale if they are spread over a factor
/// of 5 or more, and anything else side by side.
fn places(values: &[Value]) -> (Vec<(f64, String)>, &'static str) {
    let numbers: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
    let mut ticks: Vec<(f64, String)> = Vec::new();
    let Some(numbers) = numbers.filter(|numbers| !numbers.is_empty()) else {
        for value in values {
            let text = shown(value);
            if ticks.iter().all(|(_, tick)| *tick != text) {
                ticks.push((ticks.len() as f64, text));
            }
        }
        return (ticks, "");
    };
    let lowest = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let logarithmic = lowest > 0.0 && highest >= 5.0 * lowest;
    let place = |number: f64| if logarithmic { number.log10() } else { number };
    ticks = numbers
        .iter()
        .map(|number| place(*number))
        .zip(values.iter().map(shown))
        .collect();
    ticks.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    ticks.dedup_by(|a, b| a.1 == b.1);
    (
        ticks,
        if logarithmic {
            " (logarithmic scale)"
        } else {
            ""
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn lines_against_evaluations_join_depths_and_corrections() {
        let row = |layers: u64, solver: Value, evaluations_per_token| iiet_sweep::Row {
            values: vec![layers.into(), solver],
            evaluations_per_token,
            trials: Vec::new(),
            counted: 0,
            finished: true,
            failed: 0,
            last: None,
            best: None,
            step: 0,
            seconds: 0.0,
        };
        let iterated =
            |iterations: u64| serde_json::json!({"name": "iterated", "iterations": iterations});
        let table = Table {
            metric: "loss".into(),
            keys: vec!["model.n_layers".into(), "model.solver".into()],
            rows: vec![
                row(2, "plain".into(), 2),
                row(1, iterated(3), 4),
                row(1, iterated(0), 1),
                row(4, "plain".into(), 4),
            ],
        };
        let lines = Lines::of(&table, Some(EVALUATIONS)).unwrap();
        assert_eq!(lines.names, ["solver iterated", "solver plain"]);
        let of_rows: Vec<usize> = lines.rows.iter().map(|(line, _)| *line).collect();
        assert_eq!(of_rows, [1, 0, 0, 1]);
        let ticks: Vec<&str> = lines.ticks.iter().map(|(_, tick)| &tick[..]).collect();
        assert_eq!(ticks, ["1", "2", "4"]);
        // A key by itself keeps each number of corrections apart.
        let by_layers = Lines::of(&table, Some("model.n_layers")).unwrap();
        assert_eq!(by_layers.names.len(), 3);
    }

    #[test]
    fn numbers_lie_where_they_are_and_words_side_by_side() {
        let (ticks, scale) = places(&values("[0.01, 0.001, 0.01]"));
        assert_eq!(
            ticks,
            [(-3.0, "0.001".to_owned()), (-2.0, "0.01".to_owned())]
        );
        assert_eq!(scale, " (logarithmic scale)");
        let (ticks, scale) = places(&values("[3, 0, 1]"));
        let expected = [(0.0, "0"), (1.0, "1"), (3.0, "3")];
        assert_eq!(
            ticks,
            expected.map(|(place, text)| (place, text.to_owned()))
        );
        assert_eq!(scale, "");
        let (ticks, _) = places(&values(r#"["b", "a", "b", 1]"#));
        let expected = [(0.0, "b"), (1.0, "a"), (2.0, "1")];
        assert_eq!(
            ticks,
            expected.map(|(place, text)| (place, text.to_owned()))
        );
    }
}
