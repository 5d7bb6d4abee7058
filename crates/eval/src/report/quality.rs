//! How good a model is, and how much of the reference's quality it retains.
//!
//! **Retention** is the student's accuracy over the teacher's (Liu et al., 2025, arXiv:2509.22463):
//! of each task, and of the means over the tasks. It is not corrected for chance, so a task at which
//! the teacher does little better than guessing is retained by any student; the accuracy that guessing
//! has is given where a task knows it.
//!
//! **Scores of texts** have the confidence intervals, and the p-values of the difference from the reference,
//! that sacreBLEU's `--confidence` and `--paired-bs` give: the same resamples (`texts/bootstrap.rs`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::slice::from_ref;

use serde::{Serialize, Serializer};

use super::question::Question;
use crate::estimate::{Estimate, mean_of_means, paired, ratio_of_means};
use crate::evaluation::{Evaluated, Prepared};
use crate::metric::{Metric, Values};
use crate::texts::TextScore;

/// Tasks whose accuracy is that of log-likelihoods divided by length, as is customary since Gu and
/// Dao (2023, arXiv:2312.00752, appendix E): their choices differ much in length.
const NORMALISED: [&str; 2] = ["arc_challenge", "hellaswag"];
const BITS_PER_BYTE: &str = "bits_per_byte";

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
    /// By task, and by what was asked.
    pub tasks: Vec<TaskQuality>,
}

/// What a model made of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskQuality {
    /// The task.
    pub task: &'static str,
    /// Its items.
    pub items: usize,
    /// Which of the metrics `estimate` is: `acc`, `acc_norm`, `bits_per_byte`, or the first score of texts.
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
    /// The scores of texts among them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<ScoreQuality>,
}

/// A score of a model's texts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScoreQuality {
    /// Score, signature, confidence interval, and the p-value of the paired test against the reference.
    #[serde(flatten, serialize_with = "as_score_prints_it")]
    pub text: TextScore,
    /// Less the reference's; the standard error is the standard deviation over resamples of the same items.
    pub difference: Option<Estimate>,
}

fn as_score_prints_it<S: Serializer>(text: &TextScore, serializer: S) -> Result<S::Ok, S::Error> {
    text.to_json().serialize(serializer)
}

impl TaskQuality {
    /// Whether it is bits per byte.
    pub fn is_bits_per_byte(&self) -> bool {
        self.metric == BITS_PER_BYTE
    }

    /// Whether it is an accuracy.
    pub fn is_accuracy(&self) -> bool {
        !self.is_bits_per_byte() && self.scores.is_empty()
    }
}

impl Quality {
    /// The first task that has scores of texts.
    pub fn of_texts(&self) -> Option<&TaskQuality> {
        self.tasks.iter().find(|task| !task.scores.is_empty())
    }

    /// Of the model of this number, the first of which is the reference, from the answers of all models to
    /// the same items of the questions.
    pub(super) fn new(questions: &[Question<'_>], answers: &[Vec<Evaluated>], at: usize) -> Self {
        let (own, reference) = (&answers[at], &answers[0]);
        let evaluated = || questions.iter().zip(own.iter().zip(reference));
        let mut all: Vec<TaskQuality> = evaluated()
            .filter_map(|(question, (own, reference))| of_task(question.task, own, reference))
            .collect();
        if at == 0 {
            // The reference is not tested against itself.
            let scores = all.iter_mut().flat_map(|task| &mut task.scores);
            scores.for_each(|score| score.text.p_value = None);
        }
        let accuracies = |of: &[Evaluated]| -> Vec<Vec<f64>> {
            let tasks = questions.iter().zip(of);
            tasks
                .filter_map(
                    |(question, done)| match &headline(question.task, done)?.values {
                        Values::Mean(right) => Some(right.clone()),
                        _ => None,
                    },
                )
                .collect()
        };
        let (x, y) = (accuracies(own), accuracies(reference));
        let rolling = all.iter().find(|task| task.is_bits_per_byte());
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
    let retention = match (&metric.values, &other.values) {
        (Values::Mean(x), Values::Mean(y)) => ratio_of_means(from_ref(x), from_ref(y)),
        _ => None,
    };
    Some(TaskQuality {
        task: prepared.task.name,
        items: metric.values.len(),
        metric: metric.name.clone(),
        estimate: estimate(metric),
        difference: difference(metric, other),
        retention,
        chance: prepared.chance(),
        metrics: own
            .metrics
            .iter()
            .map(|metric| (metric.name.clone(), estimate(metric)))
            .collect(),
        scores: own
            .metrics
            .iter()
            .zip(&reference.metrics)
            .filter_map(|(metric, other)| of_score(metric, other))
            .collect(),
    })
}

/// `None` for a metric that is no score of texts.
fn of_score(metric: &Metric, other: &Metric) -> Option<ScoreQuality> {
    let mut text = metric.text.clone()?;
    text.p_value = other.values.p_value(&metric.values);
    let difference = difference(metric, other);
    Some(ScoreQuality { text, difference })
}

/// A metric less the reference's.
fn difference(metric: &Metric, reference: &Metric) -> Option<Estimate> {
    let difference = reference.values.difference(&metric.values)?;
    Some(Estimate {
        // No difference is not a negative one: -0 + 0 = 0.
        value: difference.value + 0.0,
        standard_error: difference.standard_error,
    })
}

/// The metric that a task goes into the report with.
fn headline<'a>(prepared: &Prepared, done: &'a Evaluated) -> Option<&'a Metric> {
    let named = |name: &str| done.metrics.iter().find(|metric| metric.name == name);
    match NORMALISED.contains(&prepared.task.name) {
        true => named("acc_norm"),
        false => named("acc")
            .or_else(|| named(BITS_PER_BYTE))
            .or_else(|| done.metrics.iter().find(|metric| metric.text.is_some())),
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
    Some(total(BITS_PER_BYTE)? / total("token_perplexity")?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::question::Asked;
    use super::*;
    use crate::error::EvalError;
    use crate::evaluation::{Settings, prepare};
    use crate::scorer::{Progress, RollingScore, TargetDecoder, Unscorable};
    use iiet_text::BeamSearch;

    /// Says for the source "7" its text of this number; a byte of any target has so many nats.
    struct Says {
        texts: Vec<String>,
        nats_per_byte: f64,
    }

    impl TargetDecoder for Says {
        fn best_targets(
            &self,
            sources: &[String],
            _: &BeamSearch,
            _: &dyn Progress,
        ) -> Result<Vec<Result<String, Unscorable>>, EvalError> {
            let said = |source: &String| Ok(self.texts[source.parse::<usize>().unwrap()].clone());
            Ok(sources.iter().map(said).collect())
        }

        fn target_scores(
            &self,
            pairs: &[(&str, &str)],
            _: &dyn Progress,
        ) -> Result<Vec<Result<RollingScore, Unscorable>>, EvalError> {
            let score = |(_, target): &(&str, &str)| {
                Ok(RollingScore {
                    log_likelihood: -self.nats_per_byte * target.len() as f64,
                    tokens: 1 + target.len() as u64,
                })
            };
            Ok(pairs.iter().map(score).collect())
        }
    }

    fn read(name: &str) -> String {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        std::fs::read_to_string(tests.join(name)).unwrap()
    }

    /// Three systems and their references, those of `benches/peers/report_scores.py`.
    fn systems(segments: usize) -> ([Vec<String>; 3], Vec<String>) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (mut systems, mut references) = ([vec![], vec![], vec![]], vec![]);
        let rows = read("texts/segments.jsonl");
        let rows = rows.split_terminator('\n');
        let rows = rows.map(|line| serde_json::from_str::<Value>(line).unwrap());
        for row in rows.filter(|row| row["odd"] == false).take(segments) {
            references.push(text(&row["references"][0]));
            let said = [&row["a"], &row["b"], &row["references"][1]];
            for (system, said) in systems.iter_mut().zip(said) {
                system.push(text(said));
            }
        }
        (systems, references)
    }

    #[test]
    fn scores_intervals_and_p_values_are_those_of_sacrebleu() {
        let expected: Value = serde_json::from_str(&read("report/paired.json")).unwrap();
        let segments = expected["segments"].as_u64().unwrap() as usize;
        let (systems, references) = systems(segments);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("translation")).unwrap();
        let rows = references.iter().enumerate().map(|(number, reference)| {
            let row = json!({"source": number.to_string(), "target": reference});
            format!("{row}\n")
        });
        let file = folder.path().join("translation/test.jsonl");
        std::fs::write(file, rows.collect::<String>()).unwrap();
        let settings = Settings {
            data: Some(folder.path().to_owned()),
            ..Settings::default()
        };
        let task = prepare(crate::tasks::task("translation").unwrap(), &settings).unwrap();
        let questions =
            [Asked::Targets, Asked::References].map(|asked| Question { task: &task, asked });
        let answers = systems.into_iter().zip([0.5, 0.75, 0.5]);
        let answers = answers.map(|(texts, nats_per_byte)| {
            let says = Says {
                texts,
                nats_per_byte,
            };
            let scores = task.score_references(&says, &()).unwrap();
            vec![task.decode(&says, &()).unwrap(), scores]
        });
        let answers: Vec<Vec<Evaluated>> = answers.collect();

        for at in 0..3 {
            let quality = Quality::new(&questions, &answers, at);
            let scores = &quality.of_texts().unwrap().scores;
            assert_eq!(scores.len(), 2);
            for ScoreQuality { text, difference } in scores {
                let expected = &expected[text.name];
                assert_eq!(text.signature, expected["signature"]);
                let expected = &expected["systems"][at];
                assert_eq!(text.digits(text.score), expected["score"]);
                assert_eq!(text.interval_text(), expected["interval"]);
                let p_value = text.p_value.map(|p| format!("{p:.4}"));
                assert_eq!(json!(p_value), expected["p_value"], "{at}");
                let (difference, is_reference) = (difference.unwrap(), at == 0);
                assert_eq!(difference.value == 0.0, is_reference, "{difference:?}");
                assert_eq!(difference.standard_error == Some(0.0), is_reference);
            }
            // Nats per byte of 1/2 and 3/4, the same in all segments, so that the errors are zero.
            let bits = quality.bits_per_byte.unwrap();
            let difference = quality.bits_per_byte_difference.unwrap();
            let more = [0.0, 0.25, 0.0][at] / std::f64::consts::LN_2;
            let ln_2 = std::f64::consts::LN_2;
            assert!((bits.value - more - 0.5 / ln_2).abs() < 1e-12);
            assert!((difference.value - more).abs() < 1e-12);
            assert!(difference.standard_error.unwrap() < 1e-12);
            assert_eq!((quality.accuracy, quality.retention), (None, None));
        }
    }
}
