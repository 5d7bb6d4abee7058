//! Which rows of a table are points of one line, and where they lie across.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use iiet_sweep::{SweepError, Table, short_names, shown};
use serde_json::Value;

use super::no_such_key;

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
            Some(x) => {
                let found = table.keys.iter().position(|key| key == x);
                Some(found.ok_or_else(|| no_such_key(x, table))?)
            }
            None => most_numbers(table),
        };
        let short = short_names(&table.keys);
        let of_others = |values: &[Value]| -> String {
            let others = values
                .iter()
                .enumerate()
                .filter(|(at, _)| Some(*at) != across);
            let named =
                others.map(|(at, value)| format!("{} {}", short[&table.keys[at]], shown(value)));
            named.collect::<Vec<_>>().join(", ")
        };
        let of_rows: Vec<String> = table
            .rows
            .iter()
            .map(|row| of_others(&row.values))
            .collect();
        let others = |row: &usize| -> Vec<&Value> {
            let values = table.rows[*row].values.iter().enumerate();
            let others = values.filter(|(at, _)| Some(*at) != across);
            others.map(|(_, value)| value).collect()
        };
        let mut order: Vec<usize> = (0..table.rows.len()).collect();
        order.sort_by(|a, b| {
            let (a, b) = (others(a), others(b));
            let mut each = a.into_iter().zip(b).map(|(a, b)| by_value(a, b));
            each.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        });
        let mut names: Vec<String> = order.iter().map(|row| of_rows[*row].clone()).collect();
        names.dedup();
        let values: Vec<Value> = table
            .rows
            .iter()
            .map(|row| across.map_or(Value::Null, |at| row.values[at].clone()))
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
            caption: across.map_or_else(String::new, |at| format!("{}{scale}", table.keys[at])),
            ticks,
            names,
            rows,
            colors,
        })
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
