//! From a model of tokens to a [`Scorer`] of text: encoding, grouping, sorting, batching.
//!
//! Requests with the same input tokens, such as one-token answers to one question, share one row of a batch.
//! Rows are sorted by length so that batches contain little padding, the longest first so that insufficient
//! memory is detected at once. A row's result does not depend on the others.

use std::collections::HashMap;

use iiet_text::TextTokenizer;
use rayon::prelude::*;

use crate::error::EvalError;
use crate::pair::EncodedPair;
use crate::scorer::{
    Continuation, Generation, Progress, RollingScore, Scored, Scorer, Targets, Unscorable,
};
use crate::windows;

/// Tokens, padding included, that pass through the model at once.
pub(crate) const BATCH_TOKENS: usize = 2048;
/// Tokens of windows that are sorted and batched together; a long text has more, and each takes some
/// forty bytes here.
const GROUP_TOKENS: usize = 1 << 18;

/// Inputs, and the outputs wanted.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// At most [`TokenModel::max_length`] tokens, at least one.
    pub inputs: &'a [u32],
    /// `(position, token)`: the probability of the token after `inputs[..=position]`.
    pub wanted: &'a [(usize, u32)],
}

/// What is known of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// `log p` in nats, from a log-softmax in f32.
    pub log_probability: f32,
    /// Whether no token is more likely and none before it in the vocabulary as likely.
    pub is_greedy: bool,
}

/// A prompt to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// At least one.
    pub tokens: Vec<u32>,
    /// The most tokens to add.
    pub max_tokens: usize,
}

/// A causal language model over tokens.
pub trait TokenModel {
    /// The longest input.
    fn max_length(&self) -> usize;

    /// For each row the scores wanted, in their order.
    ///
    /// # Errors
    /// [`EvalError::Scorer`] if the model fails.
    fn score(&self, rows: &[Row<'_>]) -> Result<Vec<Vec<TokenScore>>, EvalError>;

    /// The most likely tokens after each prompt, ending before `eos`, or when `go_on`, which is given
    /// the prompt's number and its tokens after each one, says no.
    ///
    /// # Errors
    /// [`EvalError::Scorer`] if the model fails.
    fn generate(
        &self,
        prompts: &[Prompt],
        eos: Option<u32>,
        go_on: &mut dyn FnMut(usize, &[u32]) -> bool,
    ) -> Result<Vec<Vec<u32>>, EvalError>;
}

/// Scores text with a model of tokens.
pub struct TokenScorer<M> {
    model: M,
    tokenizer: TextTokenizer,
    batch_tokens: usize,
}

/// A row in the making, with the number of the request that each wanted score is for.
struct Pending {
    inputs: Vec<u32>,
    wanted: Vec<(usize, u32)>,
    requests: Vec<usize>,
}

impl<M: TokenModel> TokenScorer<M> {
    /// Joins a model and its tokenizer.
    pub fn new(model: M, tokenizer: TextTokenizer) -> Self {
        Self {
            model,
            tokenizer,
            batch_tokens: BATCH_TOKENS,
        }
    }

    /// Sets how many tokens, padding included, pass through the model at once; one row always does.
    #[must_use]
    pub fn with_batch_tokens(self, batch_tokens: usize) -> Self {
        Self {
            batch_tokens,
            ..self
        }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// Sums of the scores of predicted tokens: for each `(inputs, predicted)` the model is given the
    /// inputs, and its last outputs are compared with the predicted tokens.
    fn sums(
        &self,
        requests: impl Iterator<Item = (Vec<u32>, Vec<u32>)>,
        progress: &dyn Progress,
    ) -> Result<Vec<Scored>, EvalError> {
        let (rows, sums) = rows(requests);
        progress.start(rows.iter().map(|row| row.inputs.len() as u64).sum());
        self.score_rows(&rows, sums, progress)
    }

    /// Adds the scores of all rows to the sums.
    fn score_rows(
        &self,
        rows: &[Pending],
        mut sums: Vec<Scored>,
        progress: &dyn Progress,
    ) -> Result<Vec<Scored>, EvalError> {
        let mut rest = rows;
        while let Some(longest) = rest.first() {
            let size = (self.batch_tokens / longest.inputs.len()).clamp(1, rest.len());
            let (batch, after) = rest.split_at(size);
            let views: Vec<Row<'_>> = batch
                .iter()
                .map(|row| Row {
                    inputs: &row.inputs,
                    wanted: &row.wanted,
                })
                .collect();
            let scores = self.model.score(&views)?;
            for (row, scores) in batch.iter().zip(scores) {
                for (request, score) in row.requests.iter().zip(scores) {
                    let sum = &mut sums[*request];
                    sum.log_likelihood += f64::from(score.log_probability);
                    sum.is_greedy &= score.is_greedy;
                }
            }
            progress.advance(batch.iter().map(|row| row.inputs.len() as u64).sum());
            rest = after;
        }
        Ok(sums)
    }

    /// The input and the predicted tokens of a request, the context cut from the left to fit.
    fn fit(
        &self,
        request: &Continuation,
        pair: EncodedPair,
    ) -> Result<(Vec<u32>, Vec<u32>), Unscorable> {
        let max_length = self.model.max_length();
        let EncodedPair {
            mut context,
            continuation,
        } = pair;
        let unscorable = |what, tokens, allowed: String| Unscorable {
            what,
            tokens,
            allowed,
            context: tail(&request.context),
            continuation: request.continuation.clone(),
        };
        if context.is_empty() {
            return Err(unscorable("the context", 0, "at least 1".into()));
        }
        if continuation.is_empty() || continuation.len() > max_length {
            let allowed = format!("1 to {max_length}");
            return Err(unscorable("the continuation", continuation.len(), allowed));
        }
        context.extend(&continuation);
        context.pop();
        let surplus = context.len().saturating_sub(max_length);
        Ok((context.split_off(surplus), continuation))
    }
}

impl<M: TokenModel> Scorer for TokenScorer<M> {
    fn log_likelihood(
        &self,
        requests: &[Continuation],
        progress: &dyn Progress,
    ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
        let tokenizer = &self.tokenizer;
        let pairs = requests
            .par_iter()
            .map(|request| EncodedPair::new(tokenizer, &request.context, &request.continuation))
            .collect::<Result<Vec<_>, _>>()?;
        let mut scorable = Vec::new();
        let pairs = pairs.into_iter().zip(requests);
        let fits: Vec<Result<(), Unscorable>> = pairs
            .map(|(pair, request)| {
                scorable.push(self.fit(request, pair)?);
                Ok(())
            })
            .collect();
        let mut sums = self.sums(scorable.into_iter(), progress)?.into_iter();
        Ok(fits
            .into_iter()
            .map(|fit| fit.map(|()| sums.next().expect("invariant: a sum for each that fits")))
            .collect())
    }

    fn log_likelihood_rolling(
        &self,
        texts: &[String],
        progress: &dyn Progress,
    ) -> Result<Vec<RollingScore>, EvalError> {
        let tokenizer = &self.tokenizer;
        let encoded: Vec<Vec<u32>> = texts
            .par_iter()
            .map(|text| Ok(tokenizer.encode(text)?))
            .collect::<Result<_, EvalError>>()?;
        let (prefix, max_length) = (self.tokenizer.prefix(), self.model.max_length());
        let mut scores: Vec<RollingScore> = encoded
            .iter()
            .map(|tokens| RollingScore {
                log_likelihood: 0.0,
                tokens: tokens.len() as u64,
            })
            .collect();
        let windows = || {
            let texts = encoded.iter().enumerate();
            texts.flat_map(|(text, tokens)| {
                let windows = windows::rolling(tokens, prefix, max_length);
                windows.map(move |window| (text, window))
            })
        };
        progress.start(
            windows()
                .map(|(_, window)| window.inputs.len() as u64)
                .sum(),
        );
        let mut windows = windows().peekable();
        while windows.peek().is_some() {
            let (mut texts, mut group, mut tokens) = (Vec::new(), Vec::new(), 0);
            while tokens < GROUP_TOKENS
                && let Some((text, window)) = windows.next()
            {
                tokens += window.inputs.len();
                texts.push(text);
                group.push((window.inputs, window.predicted));
            }
            let (rows, sums) = rows(group.into_iter());
            for (text, sum) in texts.iter().zip(self.score_rows(&rows, sums, progress)?) {
                scores[*text].log_likelihood += sum.log_likelihood;
            }
        }
        Ok(scores)
    }

    fn targets(
        &self,
        requests: &[Targets],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Scored>>, EvalError> {
        let id = |symbol: &String| {
            let found = self.tokenizer.id(symbol);
            found.ok_or_else(|| EvalError::Symbol {
                symbol: symbol.clone(),
            })
        };
        let unscored = Scored {
            log_likelihood: 0.0,
            is_greedy: true,
        };
        // A sum for each target alone.
        let (mut rows, mut sums) = (Vec::new(), Vec::new());
        for request in requests {
            let inputs = request.inputs.iter().map(id).collect::<Result<_, _>>()?;
            let wanted = request.wanted.iter();
            let wanted: Vec<(usize, u32)> = wanted
                .map(|(place, symbol)| Ok((*place, id(symbol)?)))
                .collect::<Result<_, EvalError>>()?;
            let first = sums.len();
            sums.resize(first + wanted.len(), unscored);
            rows.push(Pending {
                inputs,
                requests: (first..sums.len()).collect(),
                wanted,
            });
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.inputs.len()));
        progress.start(rows.iter().map(|row| row.inputs.len() as u64).sum());
        let mut scores = self.score_rows(&rows, sums, progress)?.into_iter();
        let of = |request: &Targets| scores.by_ref().take(request.wanted.len()).collect();
        Ok(requests.iter().map(of).collect())
    }

    fn generate_until(
        &self,
        requests: &[Generation],
        progress: &dyn Progress,
    ) -> Result<Vec<String>, EvalError> {
        let eos = self.tokenizer.eos();
        let eos_text = eos.map(|eos| self.tokenizer.spelling(eos)).transpose()?;
        progress.start(requests.iter().map(|r| r.max_tokens as u64).sum());
        let prompts: Vec<Prompt> = requests
            .iter()
            .map(|request| self.prompt(request))
            .collect::<Result<_, _>>()?;
        let stops: Vec<Vec<&str>> = requests
            .iter()
            .map(|request| {
                let until = request.until.iter().map(String::as_str);
                let stops = until.chain(eos_text.as_deref());
                stops.filter(|stop| !stop.is_empty()).collect()
            })
            .collect();
        // What cannot be decoded is reported below.
        let mut go_on = |number: usize, ids: &[u32]| {
            progress.advance(1);
            let text = self.tokenizer.decode(ids);
            text.is_ok_and(|text| !stops[number].iter().any(|stop| text.contains(stop)))
        };
        let generated = self.model.generate(&prompts, eos, &mut go_on)?;
        generated
            .iter()
            .zip(&stops)
            .map(|(ids, stops)| {
                let text = self.tokenizer.decode(ids)?;
                Ok(stops.iter().fold(text.as_str(), cut).to_owned())
            })
            .collect()
    }
}

impl<M: TokenModel> TokenScorer<M> {
    /// The end of a context that leaves room for the new tokens.
    fn prompt(&self, request: &Generation) -> Result<Prompt, EvalError> {
        let tokens = self.tokenizer.encode(&request.context)?;
        let max_tokens = request.max_tokens;
        let room = self.model.max_length().saturating_sub(max_tokens);
        if room == 0 || tokens.is_empty() {
            return Err(EvalError::Unscorable(Unscorable {
                what: "the context",
                tokens: tokens.len(),
                allowed: format!("1 to {room} beside {max_tokens} new tokens"),
                context: tail(&request.context),
                continuation: String::new(),
            }));
        }
        let surplus = tokens.len().saturating_sub(room);
        Ok(Prompt {
            tokens: tokens[surplus..].to_vec(),
            max_tokens,
        })
    }
}

/// The rows of these requests, the longest first, and a sum for each request.
fn rows(requests: impl Iterator<Item = (Vec<u32>, Vec<u32>)>) -> (Vec<Pending>, Vec<Scored>) {
    let mut rows: Vec<Pending> = Vec::new();
    let mut by_inputs: HashMap<Vec<u32>, usize> = HashMap::new();
    let mut sums = Vec::new();
    for (request, (inputs, predicted)) in requests.enumerate() {
        let at = *by_inputs.entry(inputs).or_insert_with_key(|inputs| {
            rows.push(Pending {
                inputs: inputs.clone(),
                wanted: Vec::new(),
                requests: Vec::new(),
            });
            rows.len() - 1
        });
        let row = &mut rows[at];
        let first = row.inputs.len() - predicted.len();
        row.wanted.extend(
            predicted
                .iter()
                .enumerate()
                .map(|(i, token)| (first + i, *token)),
        );
        row.requests.extend(predicted.iter().map(|_| request));
        sums.push(Scored {
            log_likelihood: 0.0,
            is_greedy: true,
        });
    }
    drop(by_inputs);
    rows.sort_by(|a, b| {
        let by_length = b.inputs.len().cmp(&a.inputs.len());
        by_length.then_with(|| a.inputs.cmp(&b.inputs))
    });
    (rows, sums)
}

/// What stands before a stop text, all if it does not come. The harness cuts at one after the other.
fn cut<'a>(text: &'a str, stop: &&str) -> &'a str {
    text.find(*stop).map_or(text, |at| &text[..at])
}

/// The end of what may be long.
fn tail(text: &str) -> String {
    match text.char_indices().rev().nth(40) {
        Some((start, _)) => format!("..{}", &text[start..]),
        None => text.to_owned(),
    }
}
