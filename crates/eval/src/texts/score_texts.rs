//! Several systems against the same references, with all metrics.

use std::path::PathBuf;

use rayon::prelude::*;

use super::bleu::Bleu;
use super::bootstrap::{Interval, Resampled, Resampling};
use super::chrf::Chrf;
use super::corpus_metric::{CorpusMetric, sums};
use super::numpy::Precision;
use super::report::{RougeDetail, TextReport, TextScore};
use super::rouge::{ROUGE_TYPES, Rouge, RougeScore};
use super::settings::{TextMetric, TextSettings, TextTest};
use crate::error::EvalError;

/// The release of sacreBLEU whose scores these are, for signatures.
const SACREBLEU: &str = "2.6.0";
/// The release of rouge-score whose scores these are.
const ROUGE_SCORE: &str = "0.1.2";

/// Segments and where they come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Texts {
    /// The name in reports.
    pub name: String,
    /// One text for each segment.
    pub segments: Vec<String>,
}

/// Scores systems against references.
///
/// # Errors
/// [`EvalError::Nothing`] without a system or reference, [`EvalError::NoRows`] without segments,
/// [`EvalError::SegmentCounts`] if the numbers of segments differ, and [`EvalError::TooManyWords`] for
/// ROUGE, with the system and the segment.
pub fn score_texts(
    systems: &[Texts],
    references: &[Texts],
    settings: &TextSettings,
) -> Result<TextReport, EvalError> {
    let nothing = |of| move || EvalError::Nothing { of };
    let first = systems.first().ok_or_else(nothing("system"))?;
    references.first().ok_or_else(nothing("reference"))?;
    let count = |texts: &Texts| texts.segments.len();
    let mut all = systems.iter().chain(references);
    if let Some(other) = all.find(|texts| count(texts) != count(first)) {
        return Err(EvalError::SegmentCounts {
            first: first.name.clone(),
            first_count: count(first),
            second: other.name.clone(),
            second_count: count(other),
        });
    }
    if first.segments.is_empty() {
        return Err(EvalError::NoRows {
            path: PathBuf::from(&first.name),
        });
    }
    let texts: Vec<&[String]> = references.iter().map(|texts| &*texts.segments).collect();
    let mut scores = vec![Vec::new(); systems.len()];
    for metric in &settings.metrics {
        let of_metric = match metric {
            TextMetric::Bleu => of_metric(&Bleu::default(), systems, &texts, settings),
            TextMetric::Chrf => of_metric(&Chrf::CHRF, systems, &texts, settings),
            TextMetric::ChrfPlusPlus => of_metric(&Chrf::CHRF_PLUS_PLUS, systems, &texts, settings),
            TextMetric::Rouge => of_rouge(systems, &texts, settings)?,
        };
        for (scores, found) in scores.iter_mut().zip(of_metric) {
            scores.extend(found);
        }
    }
    let names = systems.iter().map(|system| system.name.clone());
    Ok(TextReport {
        segments: count(first),
        references: references.iter().map(|texts| texts.name.clone()).collect(),
        systems: names.zip(scores).collect(),
    })
}

/// The signature: references, test, parameters, version.
fn signature(references: usize, parameters: &str, version: &str, test: Option<TextTest>) -> String {
    let test = test.map_or_else(String::new, |test| {
        let Resampling { samples, seed } = test.resampling();
        format!("bs:{samples}|seed:{seed}|")
    });
    format!("nrefs:{references}|{test}{parameters}|version:{version}")
}

/// The scores of each system by one of sacreBLEU's metrics.
fn of_metric(
    metric: &dyn CorpusMetric,
    systems: &[Texts],
    references: &[&[String]],
    settings: &TextSettings,
) -> Vec<Vec<TextScore>> {
    let mut baseline = None;
    let score = |system: &Texts| {
        let segments = system.segments.par_iter().enumerate();
        let statistics: Vec<Vec<u64>> = segments
            .map(|(at, hypothesis)| {
                let references: Vec<&str> = references.iter().map(|texts| &*texts[at]).collect();
                metric.statistics(hypothesis, &references)
            })
            .collect();
        let total = sums(&statistics);
        let score = metric.score(&total, Precision::Double);
        let resample = |resampling: Resampling| resampling.of_metric(metric, &statistics);
        let (interval, p_value) = test(settings.test, score, &mut baseline, resample);
        let of_segments = settings.segments.then(|| {
            let scores = statistics.iter().map(|counts| {
                let counts: Vec<f64> = counts.iter().map(|count| *count as f64).collect();
                metric.segment_score(&counts)
            });
            scores.collect()
        });
        vec![TextScore {
            name: metric.name(),
            score,
            signature: signature(
                references.len(),
                &metric.parameters(),
                SACREBLEU,
                settings.test,
            ),
            detail: metric.detail(&total),
            interval,
            p_value,
            rouge: None,
            of_segments,
        }]
    };
    systems.iter().map(score).collect()
}

/// The scores of each system by all kinds of ROUGE.
fn of_rouge(
    systems: &[Texts],
    references: &[&[String]],
    settings: &TextSettings,
) -> Result<Vec<Vec<TextScore>>, EvalError> {
    let rouge = Rouge {
        stemmer: settings.stemmer,
    };
    let parameters = format!("stem:{}", if rouge.stemmer { "yes" } else { "no" });
    let signature = signature(references.len(), &parameters, ROUGE_SCORE, settings.test);
    let mut baselines = ROUGE_TYPES.map(|_| None);
    let score = |system: &Texts| {
        let found = rouge.scores(&system.name, &system.segments, references)?;
        let intervals = match settings.test {
            Some(TextTest::Confidence(resampling)) => resampling.of_rouge(&found).map(Some),
            _ => ROUGE_TYPES.map(|_| None),
        };
        let kinds = ROUGE_TYPES.iter().zip(intervals).zip(&mut baselines);
        let scores = kinds
            .enumerate()
            .map(|(kind, ((name, interval), baseline))| {
                let mean = |of: fn(&RougeScore) -> f64| {
                    let sum: f64 = found.iter().map(|scores| of(&scores[kind])).sum();
                    sum / found.len() as f64
                };
                let mean = RougeScore {
                    precision: mean(|score| score.precision),
                    recall: mean(|score| score.recall),
                    fmeasure: mean(|score| score.fmeasure),
                };
                let of_segments = || found.iter().map(|scores| scores[kind].fmeasure).collect();
                let paired = settings
                    .test
                    .filter(|test| matches!(test, TextTest::Paired(_)));
                let resample = |resampling: Resampling| {
                    let values: Vec<f64> = of_segments();
                    resampling.of_mean(&values)
                };
                let (paired, p_value) = test(paired, mean.fmeasure, baseline, resample);
                TextScore {
                    name,
                    score: mean.fmeasure,
                    signature: signature.clone(),
                    detail: None,
                    interval: paired,
                    p_value,
                    rouge: Some(RougeDetail { mean, interval }),
                    of_segments: settings.segments.then(of_segments),
                }
            });
        Ok(scores.collect())
    };
    systems.iter().map(score).collect()
}

/// Interval and p-value of a system. The first system of a paired test becomes the baseline.
fn test(
    test: Option<TextTest>,
    score: f64,
    baseline: &mut Option<(f64, Resampled)>,
    resample: impl Fn(Resampling) -> Resampled,
) -> (Option<Interval>, Option<f64>) {
    let Some(test) = test else {
        return (None, None);
    };
    let resampled = resample(test.resampling());
    match (test, &baseline) {
        (TextTest::Confidence(_), _) => (resampled.interval(), None),
        (TextTest::Paired(_), None) => {
            let interval = resampled.paired_interval();
            *baseline = Some((score, resampled));
            (interval, None)
        }
        (TextTest::Paired(_), Some((baseline_score, baseline))) => {
            let p_value = resampled.p_value(baseline, (baseline_score - score).abs());
            (resampled.paired_interval(), Some(p_value))
        }
    }
}
