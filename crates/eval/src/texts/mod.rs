//! Scores of texts against references: BLEU, chrF, chrF++ and ROUGE, equal to those of sacreBLEU 2.6
//! and rouge-score 0.1.2, with their bootstrap tests.
//!
//! [`score_texts`] is `iiet score`: several systems, several references, all metrics. Each metric can
//! be used alone:
//!
//! ```
//! use iiet_eval::texts::{Bleu, CorpusMetric, Precision, Rouge, sums};
//!
//! # fn main() -> Result<(), iiet_eval::EvalError> {
//! let hypotheses = ["The dog bit the man.", "It was not unexpected."];
//! let references = ["The dog bit the man.", "No one was surprised."];
//! let bleu = Bleu::default();
//! let pairs = hypotheses.iter().zip(&references);
//! let statistics: Vec<Vec<u64>> = pairs
//!     .map(|(hypothesis, reference)| bleu.statistics(hypothesis, &[reference]))
//!     .collect();
//! let score = bleu.score(&sums(&statistics), Precision::Double);
//! assert_eq!(format!("{score:.2}"), "61.01"); // sacrebleu.corpus_bleu
//!
//! let rouge = Rouge { stemmer: true }.score("The dogs ran", &["A dog runs"])?;
//! assert_eq!(format!("{:.4}", rouge[0].fmeasure), "0.3333"); // rouge1
//! # Ok(())
//! # }
//! ```

mod bleu;
mod bootstrap;
mod chrf;
mod corpus_metric;
mod lcs;
mod ngrams;
mod numpy;
mod numpy_random;
mod porter;
mod report;
mod rouge;
mod score_texts;
mod segments;
mod settings;
mod tokenize_13a;

pub use bleu::{Bleu, BleuScore, look_tokenized};
pub use bootstrap::{Interval, Resampled, Resampling, RougeInterval};
pub use chrf::Chrf;
pub use corpus_metric::{CorpusMetric, sums};
pub use numpy::Precision;
pub use numpy_random::{NumpyGenerator, NumpyLegacyRandom};
pub use porter::stem;
pub use report::{RougeDetail, TextReport, TextScore};
pub use rouge::{ROUGE_TYPES, ROUGE_WORDS, Rouge, RougeScore};
pub use score_texts::{Texts, score_texts};
pub use segments::{SEGMENT_BYTES, read_segments};
pub use settings::{TextMetric, TextSettings, TextTest};
pub use tokenize_13a::tokenize_13a;
