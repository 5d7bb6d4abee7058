//! Two models on the same items.
//!
//! The items are shared, so their difficulty cancels: the standard error of the difference is that
//! of the mean of the items' differences, mostly much smaller than either model's own.

use std::borrow::Cow;

use comfy_table::{Table, presets::ASCII_MARKDOWN};
use serde_json::{Value, json};

use crate::error::EvalError;
use crate::evaluation::Evaluated;
use crate::metric::{Difference, Metric};
use crate::results::value;

/// The level of all verdicts.
const LEVEL: f64 = 0.05;
/// Two-sided, at that level.
const CRITICAL: f64 = 1.96;

/// A metric of both models and how the second differs.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The task.
    pub task: &'static str,
    /// The metric's name.
    pub metric: Cow<'static, str>,
    /// Its value for the first model.
    pub first: f64,
    /// Its value for the second model.
    pub second: f64,
    /// Second minus first, over paired items.
    pub difference: Difference,
    /// Of scores of texts: how probable so great a difference is by chance, by paired bootstrap resampling.
    pub p_value: Option<f64>,
    /// What the difference is in; empty for a share of items.
    pub unit: &'static str,
    higher_is_better: bool,
    /// Whether the values are [determined](Metric::is_determined).
    determined: [bool; 2],
}

/// What a comparison says of the second model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is better by more than chance explains.
    Better,
    /// It is worse by more than chance explains.
    Worse,
    /// The difference is within what chance explains, or there are too few items to say.
    Undecided,
}

/// Compares all metrics of a task.
///
/// # Errors
/// [`EvalError::NotPaired`] if the items differ.
pub fn compare(
    task: &'static str,
    first: &Evaluated,
    second: &Evaluated,
) -> Result<Vec<Comparison>, EvalError> {
    if first.items_hash != second.items_hash {
        return Err(EvalError::NotPaired {
            task: task.to_owned(),
            what: "the hash of their items",
            first: first.items_hash.clone(),
            second: second.items_hash.clone(),
        });
    }
    let items = |of: &Evaluated| -> Vec<usize> {
        let left_out = of.left_out.iter();
        left_out.map(|left_out| left_out.item).collect()
    };
    let (a, b) = (items(first), items(second));
    if a != b {
        return Err(EvalError::NotPaired {
            task: task.to_owned(),
            what: "the items left out",
            first: format!("{a:?}"),
            second: format!("{b:?}"),
        });
    }
    let pairs = first.metrics.iter().zip(&second.metrics);
    pairs
        // Tokens are counted by each model's own tokenizer; perplexities of different ones do not
        // compare.
        .filter(|(a, b)| a.name != "token_perplexity" || a.values.difference(&b.values).is_some())
        .map(|(a, b)| of_metric(task, a, b))
        .collect()
}

fn of_metric(task: &'static str, a: &Metric, b: &Metric) -> Result<Comparison, EvalError> {
    let difference = a.values.difference(&b.values);
    Ok(Comparison {
        task,
        metric: a.name.clone(),
        first: a.value,
        second: b.value,
        difference: difference.ok_or_else(|| EvalError::NotPaired {
            task: task.to_owned(),
            what: "the number or the lengths of their items",
            first: a.values.len().to_string(),
            second: b.values.len().to_string(),
        })?,
        p_value: a.values.p_value(&b.values),
        unit: a.values.paired_unit(),
        higher_is_better: a.values.higher_is_better(),
        determined: [a.is_determined(), b.is_determined()],
    })
}

impl Comparison {
    /// Whether the second model is better, worse, or the data do not decide.
    pub fn verdict(&self) -> Verdict {
        let Difference {
            value,
            standard_error: Some(error),
        } = self.difference
        else {
            return Verdict::Undecided;
        };
        let is_chance = match self.p_value {
            Some(p) => p > LEVEL,
            None => value.abs() <= CRITICAL * error,
        };
        match value {
            _ if is_chance || value == 0.0 => Verdict::Undecided,
            _ if (value > 0.0) == self.higher_is_better => Verdict::Better,
            _ => Verdict::Worse,
        }
    }

    /// For the results file.
    pub fn to_json(&self) -> Value {
        json!({
            "task": self.task,
            "metric": self.metric,
            "first": self.first,
            "second": self.second,
            "difference": self.difference.value,
            "difference_stderr": self.difference.standard_error,
            "p_value": self.p_value,
            "unit": self.unit,
            "verdict": format!("{:?}", self.verdict()).to_lowercase(),
        })
    }
}

/// Differences as a table.
pub fn table(comparisons: &[Comparison]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    // Only the scores of texts have a p-value.
    let has_p = comparisons
        .iter()
        .any(|comparison| comparison.p_value.is_some());
    let p_header = has_p.then_some("p");
    let header = ["Tasks", "Metric", "A", "B", "B - A", "", "Stderr"];
    table.set_header(header.into_iter().chain(p_header).chain(["Unit", "B is"]));
    for comparison in comparisons {
        let error = comparison.difference.standard_error;
        let verdict = match comparison.verdict() {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Undecided => "as good, or too few items to say",
        };
        let numbers = [
            comparison.task.to_owned(),
            comparison.metric.to_string(),
            value(comparison.first, comparison.determined[0]),
            value(comparison.second, comparison.determined[1]),
            format!("{:+.4}", comparison.difference.value),
            "±".to_owned(),
            error.map_or("N/A".to_owned(), |error| format!("{error:.4}")),
        ];
        let p = comparison
            .p_value
            .map_or("N/A".to_owned(), |p| format!("{p:.4}"));
        let ends = [comparison.unit.to_owned(), verdict.to_owned()];
        table.add_row(numbers.into_iter().chain(has_p.then_some(p)).chain(ends));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Values;

    fn evaluated(values: Vec<f64>) -> Evaluated {
        Evaluated {
            left_out: Vec::new(),
            answers: Vec::new(),
            metrics: vec![Metric::new("acc", Values::Mean(values))],
            items_hash: "a1".to_owned(),
            seconds: 0.0,
        }
    }

    #[test]
    fn verdicts_need_more_than_chance() {
        let verdict = |a: Vec<f64>, b: Vec<f64>| {
            let compared = compare("t", &evaluated(a), &evaluated(b)).unwrap();
            compared[0].verdict()
        };
        let (zeros, ones) = (vec![0.0; 20], vec![1.0; 20]);
        assert_eq!(verdict(zeros.clone(), ones.clone()), Verdict::Better);
        assert_eq!(verdict(ones, zeros.clone()), Verdict::Worse);
        assert_eq!(verdict(zeros.clone(), zeros.clone()), Verdict::Undecided);
        // Two of twenty better, one worse: 0.05 +- 0.088.
        let (mut a, mut b) = (zeros.clone(), zeros);
        (a[0], b[1], b[2]) = (1.0, 1.0, 1.0);
        assert_eq!(verdict(a, b), Verdict::Undecided);
        assert!(compare("t", &evaluated(vec![1.0; 3]), &evaluated(vec![1.0; 4])).is_err());
    }

    #[test]
    fn results_of_other_items_are_not_paired() {
        let first = evaluated(vec![1.0; 3]);
        let second = Evaluated {
            items_hash: "b2".to_owned(),
            ..first.clone()
        };
        let error = compare("t", &first, &second).unwrap_err().to_string();
        let expected = "the evaluations differ in the hash of their items: a1 and b2";
        assert!(error.contains(expected), "{error}");
        // No item is the same, although every number is.
        assert!(compare("t", &first, &first.clone()).is_ok());
    }
}
