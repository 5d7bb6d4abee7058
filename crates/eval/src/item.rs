//! An item of a task: what is asked about a document, and the answers.

use crate::python_text::count_words;
use crate::scorer::{Continuation, RollingScore, Scored, Targets};

/// What an item asks of a [`Scorer`](crate::Scorer) or a [`TargetDecoder`](crate::TargetDecoder), and what is needed to judge the answer.
#[derive(Clone, Debug)]
pub enum Item {
    /// Which of several continuations is the most likely.
    Choice {
        /// One for each choice.
        requests: Vec<Continuation>,
        /// The choices, whose lengths normalise their log-likelihoods.
        choices: Vec<String>,
        /// The number of the right one.
        answer: usize,
    },
    /// How likely a target is after a context.
    Cloze(Continuation),
    /// How likely a whole text is.
    Rolling {
        /// The text.
        scored: String,
        /// Words of the original.
        words: u64,
        /// Bytes of the original.
        bytes: u64,
    },
    /// Which symbols come at places of a sequence.
    Targets {
        /// How difficult that is, as the task counts it.
        difficulty: usize,
        /// The sequence and its targets.
        request: Targets,
    },
    /// What becomes of a source.
    TargetText {
        /// What is translated or summarised.
        source: String,
        /// What it may become.
        references: Vec<String>,
    },
}

impl Item {
    /// Words and bytes of the text whose likelihood is asked for: a whole text, or all references.
    pub(crate) fn length(&self) -> Option<(u64, u64)> {
        match self {
            Self::Rolling { words, bytes, .. } => Some((*words, *bytes)),
            Self::TargetText { references, .. } => {
                let words = references.iter().map(|text| count_words(text)).sum();
                let bytes = references.iter().map(|text| text.len() as u64).sum();
                Some((words, bytes))
            }
            _ => None,
        }
    }
}

/// The answers to an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// Those to the requests of a choice or a cloze, or to the targets of a sequence.
    Scored(Vec<Scored>),
    /// That for a whole text, or for the references of a source.
    Rolling(RollingScore),
    /// The target of a source.
    Text(String),
}
