//! Evaluation of language models, with the numbers that EleutherAI's lm-evaluation-harness gives.
//!
//! A [`Task`] turns documents into items; a [`Scorer`] answers them; metrics follow. The scorer is a
//! trait, so anything that assigns probabilities to text can be evaluated. For models of tokens
//! [`TokenScorer`] does the encoding and batching; `ModelScorer` (feature `model`) is
//! `iiet-model`'s. A task of sources and targets is asked of a [`TargetDecoder`] instead, a
//! sequence-to-sequence model; `ModelDecoder` is `iiet-model`'s.
//!
//! ```
//! use iiet_eval::{Continuation, EvalError, Generation, Progress, RollingScore, Scored, Scorer};
//! use iiet_eval::{Settings, Unscorable, prepare, task};
//!
//! /// Assigns equal probability to every byte.
//! struct Uniform;
//!
//! impl Scorer for Uniform {
//!     fn log_likelihood(
//!         &self,
//!         requests: &[Continuation],
//!         _: &dyn Progress,
//!     ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
//!         let score = |request: &Continuation| {
//!             Ok(Scored {
//!                 log_likelihood: -(request.continuation.len() as f64) * 256f64.ln(),
//!                 is_greedy: false,
//!             })
//!         };
//!         Ok(requests.iter().map(score).collect())
//!     }
//!     fn log_likelihood_rolling(
//!         &self,
//!         texts: &[String],
//!         _: &dyn Progress,
//!     ) -> Result<Vec<RollingScore>, EvalError> {
//!         let score = |text: &String| RollingScore {
//!             log_likelihood: -(text.len() as f64) * 256f64.ln(),
//!             tokens: text.len() as u64,
//!         };
//!         Ok(texts.iter().map(score).collect())
//!     }
//!     fn generate_until(
//!         &self,
//!         requests: &[Generation],
//!         _: &dyn Progress,
//!     ) -> Result<Vec<String>, EvalError> {
//!         Ok(vec![String::new(); requests.len()])
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! std::fs::write(folder.path().join("fox.txt"), "The quick brown fox.")?;
//! let settings = Settings {
//!     data: Some(folder.path().join("fox.txt")),
//!     ..Settings::default()
//! };
//! let evaluated = prepare(task("text")?, &settings)?.evaluate(&Uniform, &())?;
//! let bits_per_byte = &evaluated.metrics[2];
//! assert_eq!(bits_per_byte.name, "bits_per_byte");
//! assert!((bits_per_byte.value - 8.0).abs() < 1e-12);
//! # Ok(())
//! # }
//! ```

mod compare;
mod data;
mod decode;
mod error;
mod estimate;
mod evaluation;
mod examples;
mod generated;
mod held_out;
mod identity;
mod item;
mod metric;
#[cfg(feature = "model")]
mod model;
#[cfg(feature = "model")]
mod model_decoder;
mod pair;
mod python_json;
mod python_random;
mod python_text;
#[cfg(feature = "model")]
pub mod report;
mod results;
pub mod samples;
mod scorer;
mod search;
mod target_text;
mod task;
mod tasks;
pub mod texts;
mod token_scorer;
#[cfg(feature = "model")]
mod token_scores;
mod windows;

pub use compare::{Comparison, Verdict, compare, table as comparison_table};
pub use data::{Adds, Document, HubData, Json, Split, read};
pub use error::EvalError;
pub use evaluation::{Evaluated, LeftOut, Prepared, Settings, prepare};
pub use examples::EXAMPLES_SEED;
pub use generated::{AskedGenerated, PER_DIFFICULTY, asked_generated};
pub use held_out::write_held_out;
pub use item::{Answers, Item};
pub use metric::{Difference, Metric, Values};
#[cfg(feature = "model")]
pub use model::ModelScorer;
#[cfg(feature = "model")]
pub use model_decoder::ModelDecoder;
pub use pair::EncodedPair;
pub use python_random::PythonRandom;
pub use results::{Outcome, Provenance, results, table};
pub use scorer::{
    Continuation, Generation, Progress, RollingScore, Scored, Scorer, TargetDecoder, Targets,
    Unscorable,
};
pub use search::SearchOptions;
pub use target_text::{CorpusKind, TextValues};
pub use task::{Accuracy, Form, Source, Task};
pub use tasks::{TASKS, task};
pub use token_scorer::{Prompt, Row, TokenModel, TokenScore, TokenScorer};
pub use windows::{Window, rolling};

#[cfg(all(doctest, feature = "model"))]
#[doc = include_str!("../README.md")]
struct Readme;
