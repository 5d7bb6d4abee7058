//! How good a model is, and how much of the reference's quality it retains.
//!
//! **Retention** is the student's accuracy over the teacher's (Liu et al., 2025, arXiv:2509.22463):
//! of each task, and of the means over the tasks. It is not corrected for chance, so a task at which
//! the teacher does little better than guessing is retained by any student; the accuracy that guessing
//! has is given where a task knows it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::slice::from_ref;

use serde::Serialize;

use crate::estimate::{Estimate, mean_of_means, paired, ratio_of_means};
use crate::evaluation::{Evaluated, Prepared};
use crate::metric::{Metric, Values};

/// Tasks whose accuracy is that of log-likelihoods divided by length, as is customary since Gu and
/// Dao (2023, arXiv:2312.00752, appendix E): their choices differ much in length.
const NORMALISED: [&str; 2] = ["arc_challenge", "hellaswag"];

/// A model's results, and those of the reference beside them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Of the first task that has it.
    pub bits_per_byte: Option<Estimate>,
    /// This model's less the reference's, items in pairs.
    pub bits_per_byte_difference: Option<Estimate>,
    /// The mean over the tasks that have an accuracy.
    pub accuracy: Option<Estimate>,
    /// This model's less the reference's, items in pairs.
    pub accuracy_difference: Option<Estimate>,
    /// The mean accuracy over the reference's; `None` also if the reference got nothing right.
    pub retention: Option<Estimate>,
    /// Bytes of text for each token, in the task that `bits_per_byte` is of.
    pub bytes_per_token: Option<f64>,
    /// By task.
    pub tasks: Vec<TaskQuality>,
}

/// What a model made of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskQuality {
    /// The task.
    pub task: &'static str,
    /// Its items.
    pub items: usize,
    /// Which of the metrics `estimate` is: `acc`, `acc_norm` or `bits_per_byte`.
    pub metric: Cow<'static, str>,
    /// The metric, over those items.
    pub estimate: Estimate,
    /// Less the reference's, items in pairs.
    pub difference: Option<Estimate>,
    /// Accuracy over the reference's.
    pub retention: Option<Estimate>,
    /// The accuracy of guessing.
    pub chance: Option<f64>,
    /// All metrics of the task, as `iiet eval` gives them.
    pub metrics: BTreeMap<Cow<'static, str>, Estimate>,
}

impl TaskQuality {
    /// Whether it is an accuracy.
    pub fn is_accuracy(&self) -> bool {
        self.metric != "bits_per_byte"
    }
}

impl Quality {
    /// From the evaluations of the tasks in their order, and the reference's of the same items.
    pub(super) fn new(tasks: &[Prepared], own: &[Evaluated], reference: &[Evaluated]) -> Self {
        let evaluated = || tasks.iter().zip(own.iter().zip(reference));
        let all: Vec<TaskQuality> = evaluated()
            .filter_map(|(prepared, (own, reference))| of_task(prepared, own, reference))
            .collect();
        let accuracies = |of: &[Evaluated]| -> Vec<Vec<f64>> {
            let tasks = tasks.iter().zip(of);
            tasks
                .filter_map(|(prepared, done)| match &headline(prepared, done)?.values {
                    Values::Mean(right) => Some(right.clone()),
                    _ => None,
                })
                .collect()
        };
        let (x, y) = (accuracies(own), accuracies(reference));
        let rolling = all.iter().find(|task| !task.is_accuracy());
        Self {
            bits_per_byte: rolling.map(|task| task.estimate),
            bits_per_byte_difference: rolling.and_then(|task| task.difference),
            accuracy: mean_of_means(&x),
            accuracy_difference: mean_of_means(&paired(&x, &y, |x, y| x - y)),
            retention: ratio_of_means(&x, &y),
            bytes_per_token: own.iter().find_map(bytes_per_token),
            tasks: all,
        }
    }
}

fn of_task(prepared: &Prepared, own: &Evaluated, reference: &Evaluated) -> Option<TaskQuality> {
    let metric = headline(prepared, own)?;
    let other = headline(prepared, reference)?;
    let difference = other.values.difference(&metric.values);
    let retention = match (&metric.values, &other.values) {
        (Values::Mean(x), Values::Mean(y)) => ratio_of_means(from_ref(x), from_ref(y)),
        _ => None,
    };
    Some(TaskQuality {
        task: prepared.task.name,
        items: metric.values.len(),
        metric: metric.name.clone(),
        estimate: estimate(metric),
        difference: difference.map(|difference| Estimate {
            // No difference is not a negative one: -0 + 0 = 0.
            value: difference.value + 0.0,
            standard_error: difference.standard_error,
        }),
        retention,
        chance: prepared.chance(),
        metrics: own
            .metrics
            .iter()
            .map(|metric| (metric.name.clone(), estimate(metric)))
            .collect(),
    })
}

/// The metric that a task goes into the report with.
fn headline<'a>(prepared: &Prepared, done: &'a Evaluated) -> Option<&'a Metric> {
    let named = |name: &str| done.metrics.iter().find(|metric| metric.name == name);
    match NORMALISED.contains(&prepared.task.name) {
        true => named("acc_norm"),
        false => named("acc").or_else(|| named("bits_per_byte")),
    }
}

/// A metric with the harness's standard error; for bits per byte, where the harness gives none, that
/// of a ratio of two means.
fn estimate(metric: &Metric) -> Estimate {
    let standard_error = match &metric.values {
        Values::BitsPerByte(texts) => {
            let bits = texts
                .iter()
                .map(|(nats, _)| -nats / std::f64::consts::LN_2)
                .collect();
            let bytes = texts.iter().map(|(_, bytes)| *bytes as f64).collect();
            ratio_of_means(&[bits], &[bytes]).and_then(|ratio| ratio.standard_error)
        }
        _ => metric.standard_error,
    };
    Estimate {
        value: metric.value,
        standard_error,
    }
}

/// The same texts counted in bytes and in tokens.
fn bytes_per_token(done: &Evaluated) -> Option<f64> {
    let total = |name: &str| {
        let metric = done.metrics.iter().find(|metric| metric.name == name)?;
        match &metric.values {
            Values::WeightedPerplexity(items) | Values::BitsPerByte(items) => {
                Some(items.iter().map(|(_, weight)| *weight as f64).sum::<f64>())
            }
            _ => None,
        }
    };
    Some(total("bits_per_byte")? / total("token_perplexity")?)
}
