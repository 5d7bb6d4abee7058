//! The contract between tasks and whatever assigns probabilities to text.
//!
//! Language models and sequence-to-sequence models answer different requests, so there is a trait for
//! each: [`Scorer`] and [`TargetDecoder`]. The requests of the first are those of the harness
//! (`lm_eval.api.model.LM`). All that a task asks of a model goes through one of the two, so anything that
//! answers them can be evaluated.

use std::sync::Arc;

use iiet_text::BeamSearch;

use crate::error::EvalError;

/// How likely is `continuation` after `context`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Shared between the choices of a question.
    pub context: Arc<str>,
    /// What is scored.
    pub continuation: String,
}

/// The answer to a [`Continuation`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// `log p(continuation | context)` in nats, the sum over the continuation's tokens.
    pub log_likelihood: f64,
    /// Whether each of its tokens was the most likely one.
    pub is_greedy: bool,
}

/// Which symbols come at places of a sequence? Each symbol is one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The sequence.
    pub inputs: Vec<String>,
    /// `(place, symbol)`: what should be predicted after `inputs[..=place]`.
    pub wanted: Vec<(usize, String)>,
}

/// Why a request has no answer: a context or continuation that the definitions give no value for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} has {tokens} tokens, allowed are {allowed}: context ends in {context:?}, continuation is {continuation:?}"
)]
pub struct Unscorable {
    /// The context or the continuation.
    pub what: &'static str,
    /// Its length.
    pub tokens: usize,
    /// The lengths that have an answer.
    pub allowed: String,
    /// The end of the context.
    pub context: String,
    /// The continuation.
    pub continuation: String,
}

/// The answer for a whole text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RollingScore {
    /// `log p(text)` in nats, the sum over all its tokens.
    pub log_likelihood: f64,
    /// The tokens predicted.
    pub tokens: u64,
}

/// What is the most likely text after `context`?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// What the text comes after.
    pub context: String,
    /// The text ends before the first of these.
    pub until: Vec<String>,
    /// The most tokens to add.
    pub max_tokens: usize,
}

/// A sequence-to-sequence model as tasks see it: a source in, its best target out, or how likely a given one is.
pub trait TargetDecoder {
    /// The best target of each source, in their order; [`Unscorable`] in the place of a source that is empty
    /// or longer than the model's context.
    ///
    /// # Errors
    /// Errors of the model, and of the options of the search.
    fn best_targets(
        &self,
        sources: &[String],
        search: &BeamSearch,
        progress: &dyn Progress,
    ) -> Result<Vec<Result<String, Unscorable>>, EvalError>;

    /// `log p(target | source)` of each pair of source and target, the end of the target included, in their
    /// order; [`Unscorable`] in the place of a pair of which a side is longer than the model's context.
    ///
    /// # Errors
    /// Errors of the model.
    fn target_scores(
        &self,
        pairs: &[(&str, &str)],
        progress: &dyn Progress,
    ) -> Result<Vec<Result<RollingScore, Unscorable>>, EvalError>;
}

/// Receives the number of tokens that are processed: first the total, then that of each batch.
pub trait Progress {
    /// The total number of tokens that pass through the model.
    fn start(&self, tokens: u64);
    /// The number of tokens that have been processed since the last call.
    fn advance(&self, tokens: u64);
}

/// Ignores progress.
impl Progress for () {
    fn start(&self, _: u64) {}
    fn advance(&self, _: u64) {}
}

/// A model as tasks see it: text in, log-likelihoods or text out. Answers come in the order of the
/// requests and depend on each request alone.
pub trait Scorer {
    /// Log-likelihoods of continuations; [`Unscorable`] in the place of one that is empty or longer
    /// than the model's context.
    ///
    /// # Errors
    /// Errors of the model.
    fn log_likelihood(
        &self,
        requests: &[Continuation],
        progress: &dyn Progress,
    ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError>;

    /// Log-likelihoods of texts, each token predicted once, with as much context as fits in windows
    /// that follow each other.
    ///
    /// # Errors
    /// Errors of the model.
    fn log_likelihood_rolling(
        &self,
        texts: &[String],
        progress: &dyn Progress,
    ) -> Result<Vec<RollingScore>, EvalError>;

    /// Scores of the targets of sequences of symbols, each alone and in their order: what the generated
    /// tasks ask. A sequence longer than the model's context is answered too.
    ///
    /// # Errors
    /// [`EvalError::Symbol`] for one that is no token of the model, and errors of the model. A scorer
    /// that does not implement this has no tokens for symbols.
    fn targets(
        &self,
        requests: &[Targets],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Scored>>, EvalError> {
        let _ = progress;
        let first = requests.first().and_then(|request| request.inputs.first());
        Err(EvalError::Symbol {
            symbol: first.cloned().unwrap_or_default(),
        })
    }

    /// Greedy continuations.
    ///
    /// # Errors
    /// [`EvalError::Unscorable`] if the tokens asked for leave no room for a context, and errors of
    /// the model.
    fn generate_until(
        &self,
        requests: &[Generation],
        progress: &dyn Progress,
    ) -> Result<Vec<String>, EvalError>;
}
