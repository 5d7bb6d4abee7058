//! What a task is: where its documents come from, and three functions from a document to what is
//! asked of a model.

use std::sync::Arc;

use crate::data::{Document, HubData};
use crate::error::EvalError;
use crate::generated;
use crate::held_out;
use crate::item::{Answers, Item};
use crate::metric::{Metric, Values, argmax};
use crate::python_text::count_words;
use crate::scorer::{Continuation, Scored};
use crate::target_text;
use crate::texts::TextMetric;
use iiet_text::BeamSearch;

/// A text made from a document.
pub type TextOf = fn(&Document) -> Result<String, EvalError>;
/// Texts made from a document.
pub type TextsOf = fn(&Document) -> Result<Vec<String>, EvalError>;
/// The number of the right choice of a document.
pub type ChoiceOf = fn(&Document) -> Result<usize, EvalError>;

/// An evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What it is called on the command line and in results.
    pub name: &'static str,
    /// The version of its definition; for tasks of the harness, the harness's.
    pub version: f64,
    /// Where its documents come from.
    pub source: Source,
    /// What is asked about each, and how the answers are judged.
    pub form: Form,
}

impl Task {
    /// Whether targets of sources are asked for, which sequence-to-sequence models decode.
    pub fn is_of_targets(&self) -> bool {
        matches!(self.form, Form::TargetText { .. })
    }
}

/// Where documents come from.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A data set of the hub, from disk or from there.
    Hub(HubData),
    /// Any text files.
    Text,
    /// Made from the held-out crates of the default corpus.
    HeldOut(held_out::Generate),
    /// Computed, by the task of `iiet-data` that has the same name.
    Generated,
    /// Sources and targets in files.
    Pairs,
}

/// What is asked about a document, and how the answers are judged.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Which of several continuations is the most likely after the context.
    Choice {
        /// The text before each choice.
        context: TextOf,
        /// What may come after it.
        choices: TextsOf,
        /// The right choice.
        answer: ChoiceOf,
        /// What stands between context and choice.
        delimiter: &'static str,
        /// How the choices' log-likelihoods are compared.
        accuracies: &'static [Accuracy],
    },
    /// After which of several contexts the ending is the most likely (Trinh and Le's partial
    /// scoring, arXiv:1806.02847).
    Contexts {
        /// The texts before the ending.
        contexts: TextsOf,
        /// What comes after each of them.
        ending: TextOf,
        /// The right context.
        answer: ChoiceOf,
    },
    /// Whether the target is what the model would write, and how likely it is.
    Cloze {
        /// The text before the target.
        context: TextOf,
        /// What should come after it.
        target: TextOf,
        /// What stands between context and target in worked examples; a target begins as it must.
        delimiter: &'static str,
    },
    /// How likely a whole text is; words and bytes are counted in the original.
    Rolling {
        /// What the model is given.
        scored: TextOf,
        /// What words and bytes are counted in.
        original: TextOf,
    },
    /// Which symbol comes at several places of a sequence of symbols.
    Targets {
        /// Whether an item counts as right only if all of them are, or else as the share that is.
        all_together: bool,
    },
    /// What a sequence-to-sequence model makes of a source, compared with references.
    TargetText {
        /// What is translated or summarised.
        source: TextOf,
        /// What it may become; as many for every document.
        references: TextsOf,
        /// How the targets are decoded.
        search: BeamSearch,
        /// How they are scored.
        metrics: &'static [TextMetric],
    },
}

/// How a choice's log-likelihood is normalised before the greatest is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accuracy {
    /// Not at all.
    Plain,
    /// Divided by the choice's length in code points, delimiter not included.
    Normalised,
    /// Divided by its length in bytes of UTF-8.
    Bytes,
}

impl Accuracy {
    /// The metric's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "acc",
            Self::Normalised => "acc_norm",
            Self::Bytes => "acc_bytes",
        }
    }

    fn length(self, choice: &str) -> f64 {
        match self {
            Self::Plain => 1.0,
            Self::Normalised => choice.chars().count() as f64,
            Self::Bytes => choice.len() as f64,
        }
    }
}

/// `acc` and `acc_norm`.
pub const ACC_AND_NORM: &[Accuracy] = &[Accuracy::Plain, Accuracy::Normalised];

impl Form {
    /// The item for a document, after a prompt of worked examples.
    ///
    /// # Errors
    /// [`EvalError::Field`] about the document.
    pub fn item(&self, document: &Document, examples: &str) -> Result<Item, EvalError> {
        Ok(match self {
            Self::Choice {
                context,
                choices,
                answer,
                delimiter,
                ..
            } => {
                let context: Arc<str> = [examples, &context(document)?].concat().into();
                let choices = choices(document)?;
                let request = |choice: &String| Continuation {
                    context: Arc::clone(&context),
                    continuation: [delimiter, choice.as_str()].concat(),
                };
                Item::Choice {
                    requests: choices.iter().map(request).collect(),
                    answer: answer(document)?,
                    choices,
                }
            }
            Self::Contexts {
                contexts,
                ending,
                answer,
            } => {
                let contexts = contexts(document)?;
                let ending = [" ", &ending(document)?].concat();
                let request = |context: &String| Continuation {
                    context: [examples, context].concat().into(),
                    continuation: ending.clone(),
                };
                Item::Choice {
                    requests: contexts.iter().map(request).collect(),
                    answer: answer(document)?,
                    choices: contexts,
                }
            }
            Self::Cloze {
                context, target, ..
            } => Item::Cloze(Continuation {
                context: [examples, &context(document)?].concat().into(),
                continuation: target(document)?,
            }),
            Self::Targets { .. } => generated::item(document)?,
            Self::TargetText {
                source, references, ..
            } => Item::TargetText {
                source: source(document)?,
                references: references(document)?,
            },
            Self::Rolling { scored, original } => {
                let original = original(document)?;
                Item::Rolling {
                    scored: scored(document)?,
                    words: count_words(&original),
                    bytes: original.len() as u64,
                }
            }
        })
    }

    /// A document with its answer, as an example in a prompt (`build_qa_turn` in the harness).
    ///
    /// # Errors
    /// [`EvalError::Field`] about the document.
    pub fn example(&self, document: &Document) -> Result<String, EvalError> {
        let (question, delimiter, answer) = match self {
            Self::Choice {
                context,
                choices,
                answer,
                delimiter,
                ..
            } => {
                let choice = choices(document)?.swap_remove(answer(document)?);
                (context(document)?, *delimiter, choice)
            }
            Self::Contexts {
                contexts,
                ending,
                answer,
            } => {
                let context = contexts(document)?.swap_remove(answer(document)?);
                let ending = ending(document)?;
                if ending.is_empty() {
                    // No answer, no delimiters.
                    return Ok(context);
                }
                (context, " ", ending)
            }
            Self::Cloze {
                context,
                target,
                delimiter,
            } => (context(document)?, *delimiter, target(document)?),
            Self::Rolling { .. } | Self::Targets { .. } | Self::TargetText { .. } => {
                return Ok(String::new());
            }
        };
        Ok([question.as_str(), delimiter, &answer, "\n\n"].concat())
    }

    /// Whether worked examples can stand before its items.
    pub fn takes_examples(&self) -> bool {
        !matches!(
            self,
            Self::Rolling { .. } | Self::Targets { .. } | Self::TargetText { .. }
        )
    }

    /// The metrics of all items.
    ///
    /// # Errors
    /// [`EvalError::TooManyWords`] for ROUGE, with the segment.
    pub fn metrics(&self, items: &[&Item], answers: &[Answers]) -> Result<Vec<Metric>, EvalError> {
        let pairs = || items.iter().copied().zip(answers);
        let accuracies = match self {
            Self::Choice { accuracies, .. } => *accuracies,
            Self::Contexts { .. } => &[Accuracy::Plain],
            Self::Cloze { .. } => {
                let scores: Vec<Scored> =
                    pairs().filter_map(|(_, answers)| first(answers)).collect();
                let nats = scores.iter().map(|score| score.log_likelihood).collect();
                let greedy = scores
                    .iter()
                    .map(|score| f64::from(u8::from(score.is_greedy)));
                return Ok(vec![
                    Metric::new("perplexity", Values::Perplexity(nats)),
                    Metric::new("acc", Values::Mean(greedy.collect())),
                ]);
            }
            Self::Rolling { .. } => return Ok(rolling(pairs())),
            Self::Targets { all_together } => {
                return Ok(generated::metrics(*all_together, items, answers));
            }
            Self::TargetText { metrics, .. } => {
                return match answers.first() {
                    Some(Answers::Rolling(_)) => Ok(rolling(pairs())),
                    _ => target_text::metrics(metrics, items, answers),
                };
            }
        };
        Ok(accuracies
            .iter()
            .map(|accuracy| {
                let right = pairs().map(|(item, answers)| is_right(*accuracy, item, answers));
                Metric::new(accuracy.name(), Values::Mean(right.collect()))
            })
            .collect())
    }
}

fn first(answers: &Answers) -> Option<Scored> {
    match answers {
        Answers::Scored(scores) => scores.first().copied(),
        Answers::Rolling(_) | Answers::Text(_) => None,
    }
}

fn is_right(accuracy: Accuracy, item: &Item, answers: &Answers) -> f64 {
    let (
        Item::Choice {
            choices, answer, ..
        },
        Answers::Scored(scores),
    ) = (item, answers)
    else {
        return 0.0;
    };
    let normalised = scores
        .iter()
        .zip(choices)
        .map(|(score, choice)| score.log_likelihood / accuracy.length(choice));
    f64::from(u8::from(argmax(normalised) == *answer))
}

fn rolling<'a>(pairs: impl Iterator<Item = (&'a Item, &'a Answers)>) -> Vec<Metric> {
    let (mut by_token, mut by_word, mut by_byte) = (Vec::new(), Vec::new(), Vec::new());
    for (item, answers) in pairs {
        if let (Some((words, bytes)), Answers::Rolling(score)) = (item.length(), answers) {
            by_token.push((score.log_likelihood, score.tokens));
            by_word.push((score.log_likelihood, words));
            by_byte.push((score.log_likelihood, bytes));
        }
    }
    vec![
        Metric::new("word_perplexity", Values::WeightedPerplexity(by_word)),
        Metric::new(
            "byte_perplexity",
            Values::WeightedPerplexity(by_byte.clone()),
        ),
        Metric::new("bits_per_byte", Values::BitsPerByte(by_byte)),
        Metric::new("token_perplexity", Values::WeightedPerplexity(by_token)),
    ]
}
