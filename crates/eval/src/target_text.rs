//! Targets as text: what a sequence-to-sequence model makes of sources, scored against references.
//!
//! The scores are those of [`score_texts`], so that they equal what `iiet score` gives for the same texts:
//! signature, confidence interval and the p-value of a paired test included (Koehn, EMNLP 2004).

use crate::error::EvalError;
use crate::item::{Answers, Item};
use crate::metric::{Difference, Metric, Values, deviation};
use crate::texts::{
    Bleu, Chrf, CorpusMetric, Precision, Resampled, Resampling, TextMetric, TextScore,
    TextSettings, TextTest, Texts, score_texts, sums,
};

/// What segments contribute to a score of texts.
#[derive(Clone, Debug, PartialEq)]
pub enum TextValues {
    /// Counts of each segment, `[segments, counts]`, whose sums have the score.
    Corpus(CorpusKind, Vec<Vec<u64>>),
    /// A score of each segment, of which the mean is the score.
    Mean(Vec<f64>),
}

/// A metric of sums over a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorpusKind {
    /// [`Bleu`] as sacreBLEU has it by default.
    Bleu,
    /// [`Chrf::CHRF`].
    Chrf,
    /// [`Chrf::CHRF_PLUS_PLUS`].
    ChrfPlusPlus,
}

impl CorpusKind {
    fn metric(self) -> Box<dyn CorpusMetric> {
        match self {
            Self::Bleu => Box::new(Bleu::default()),
            Self::Chrf => Box::new(Chrf::CHRF),
            Self::ChrfPlusPlus => Box::new(Chrf::CHRF_PLUS_PLUS),
        }
    }
}

impl TextValues {
    /// The number of segments.
    pub fn len(&self) -> usize {
        match self {
            Self::Corpus(_, statistics) => statistics.len(),
            Self::Mean(values) => values.len(),
        }
    }

    /// Whether there are no segments.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of all segments; not a number without any.
    pub fn score(&self) -> f64 {
        match self {
            _ if self.is_empty() => f64::NAN,
            Self::Corpus(kind, statistics) => {
                let total = sums(statistics);
                kind.metric().score(&total, Precision::Double)
            }
            Self::Mean(values) => values.iter().sum::<f64>() / values.len() as f64,
        }
    }

    /// The standard deviation of the resamples' scores; for two segments or more.
    pub fn standard_error(&self) -> Option<f64> {
        (self.len() > 1).then(|| deviation(self.resampled().scores()))
    }

    /// The score of the second minus this one, and the standard deviation of that difference over resamples
    /// that draw the same segments for both; `None` if they are not of the same segments and metric.
    pub fn difference(&self, second: &Self) -> Option<Difference> {
        let (first_drawn, second_drawn) = self.resampled_with(second)?;
        let pairs = first_drawn.scores().iter().zip(second_drawn.scores());
        let differences: Vec<f64> = pairs.map(|(a, b)| b - a).collect();
        Some(Difference {
            value: second.score() - self.score(),
            standard_error: (self.len() > 1).then(|| deviation(&differences)),
        })
    }

    /// How probable so great a difference is if both are equally good, as `iiet score --paired` tests it.
    pub fn p_value(&self, second: &Self) -> Option<f64> {
        let (first_drawn, second_drawn) = self.resampled_with(second)?;
        let difference = (self.score() - second.score()).abs();
        Some(second_drawn.p_value(&first_drawn, difference))
    }

    fn resampled_with(&self, second: &Self) -> Option<(Resampled, Resampled)> {
        let same = match (self, second) {
            (Self::Corpus(a, _), Self::Corpus(b, _)) => a == b,
            (Self::Mean(_), Self::Mean(_)) => true,
            _ => false,
        };
        let same = same && self.len() == second.len() && !self.is_empty();
        same.then(|| (self.resampled(), second.resampled()))
    }

    fn resampled(&self) -> Resampled {
        let resampling = Resampling::default();
        match self {
            Self::Corpus(kind, statistics) => resampling.of_metric(&*kind.metric(), statistics),
            Self::Mean(values) => resampling.of_mean(values),
        }
    }
}

/// The metrics of a model's targets against the references of their items.
///
/// # Errors
/// The errors of [`score_texts`].
pub(crate) fn metrics(
    asked: &[TextMetric],
    items: &[&Item],
    answers: &[Answers],
) -> Result<Vec<Metric>, EvalError> {
    let pairs = items.iter().zip(answers);
    let (targets, of_items): (Vec<String>, Vec<&[String]>) = pairs
        .filter_map(|(item, answer)| match (item, answer) {
            (Item::TargetText { references, .. }, Answers::Text(text)) => {
                Some((text.clone(), &**references))
            }
            _ => None,
        })
        .unzip();
    // As many for every item, which was checked when they were read.
    let sets = of_items.iter().map(|references| references.len()).min();
    let references: Vec<Texts> = (0..sets.unwrap_or(0))
        .map(|set| Texts {
            name: format!("reference {}", set + 1),
            segments: of_items.iter().map(|of| of[set].clone()).collect(),
        })
        .collect();
    let settings = TextSettings {
        metrics: asked.to_vec(),
        stemmer: true,
        test: Some(TextTest::Confidence(Resampling::default())),
        segments: true,
    };
    let system = Texts {
        name: "the model".to_owned(),
        segments: targets,
    };
    let report = score_texts(std::slice::from_ref(&system), &references, &settings)?;
    let scores = report.systems.into_iter().flat_map(|(_, scores)| scores);
    let metric = |mut score: TextScore| {
        let each = score.of_segments.take().unwrap_or_default();
        let values = match kind(score.name) {
            None => TextValues::Mean(each),
            Some(kind) => {
                let metric = kind.metric();
                let segments = system.segments.iter().zip(&of_items);
                let statistics = segments.map(|(target, references)| {
                    let references: Vec<&str> = references.iter().map(String::as_str).collect();
                    metric.statistics(target, &references)
                });
                TextValues::Corpus(kind, statistics.collect())
            }
        };
        Metric {
            text: Some(score.clone()),
            ..Metric::new(score.name, Values::Texts(values))
        }
    };
    Ok(scores.map(metric).collect())
}

/// `None` for the kinds of ROUGE, which are means over segments.
fn kind(name: &str) -> Option<CorpusKind> {
    let kinds = [CorpusKind::Bleu, CorpusKind::Chrf, CorpusKind::ChrfPlusPlus];
    kinds.into_iter().find(|kind| kind.metric().name() == name)
}
