//! What is asked of texts: metrics and tests.

use std::fmt;
use std::str::FromStr;

use super::bootstrap::Resampling;

/// A metric of texts, by the name that it is asked for with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMetric {
    /// [`Bleu`](super::Bleu).
    Bleu,
    /// [`Chrf::CHRF`](super::Chrf::CHRF).
    Chrf,
    /// [`Chrf::CHRF_PLUS_PLUS`](super::Chrf::CHRF_PLUS_PLUS).
    ChrfPlusPlus,
    /// [`Rouge`](super::Rouge), all four kinds.
    Rouge,
}

impl TextMetric {
    /// All metrics.
    pub const ALL: [Self; 4] = [Self::Bleu, Self::Chrf, Self::ChrfPlusPlus, Self::Rouge];

    fn name(self) -> &'static str {
        match self {
            Self::Bleu => "bleu",
            Self::Chrf => "chrf",
            Self::ChrfPlusPlus => "chrf++",
            Self::Rouge => "rouge",
        }
    }
}

impl fmt::Display for TextMetric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TextMetric {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|metric| metric.name() == name);
        known.ok_or_else(|| format!("allowed: {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// What is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSettings {
    /// The metrics, in the order of the report.
    pub metrics: Vec<TextMetric>,
    /// Whether ROUGE stems.
    pub stemmer: bool,
    /// How scores are tested.
    pub test: Option<TextTest>,
    /// Whether each segment is scored by itself as well.
    pub segments: bool,
}

/// A test by bootstrap resampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTest {
    /// A confidence interval for each system.
    Confidence(Resampling),
    /// Confidence intervals, and each system against the first one.
    Paired(Resampling),
}

impl TextTest {
    pub(super) fn resampling(self) -> Resampling {
        match self {
            Self::Confidence(resampling) | Self::Paired(resampling) => resampling,
        }
    }
}
