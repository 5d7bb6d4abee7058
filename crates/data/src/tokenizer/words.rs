//! Word-by-word encoding for BPE of two known kinds: byte-level with a known split pattern, and SentencePiece's.
//!
//! The `tokenizers` crate tracks the offset of every byte of text, which a corpus does not need.
//! Here the tokens of each word are looked up in a table of earlier words; only a new word is passed to the
//! model. On the default corpus this is about twenty times as fast, and tests hold the tokens to be the same.

mod pattern;
mod reach;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tokenizers::{Model, ModelWrapper};

pub(super) use self::pattern::LLAMA_3;
use self::pattern::Pattern;
use self::reach::Reach;

/// Number of words cached by each thread; with more, the cache is cleared.
const WORDS_KEPT: usize = 1 << 17;
/// Longer words are rarely repeated.
const LONGEST_KEPT: usize = 64;
/// In bytes. Merging takes about 120 bytes of memory per byte of a word.
const LONGEST: usize = 1 << 20;

/// Splits text into words and encodes them, with the same tokens as the `tokenizers` crate for a
/// text in which no added token occurs.
#[derive(Debug)]
pub struct Words {
    rule: Rule,
    /// Distinguishes this tokenizer's words from others' in the threads' tables.
    identity: u64,
}

#[derive(Debug)]
enum Rule {
    Pattern(Box<Pattern>),
    Reach(Reach),
}

#[derive(Default)]
struct Met {
    identity: u64,
    words: HashMap<Box<str>, Box<[u32]>>,
}

thread_local! {
    static MET: RefCell<Met> = RefCell::default();
}

impl Words {
    /// `None` unless the tokenizer is of a known kind, without added tokens except special ones.
    pub fn of(json: &[u8]) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let json: Value = serde_json::from_slice(json).ok()?;
        let no_added = match json["added_tokens"].as_array() {
            Some(added) => added.iter().all(|token| token["special"] == true),
            None => json["added_tokens"].is_null(),
        };
        if json["model"]["type"] != "BPE" || !no_added {
            return None;
        }
        let pattern = Pattern::of(&json).map(|pattern| Rule::Pattern(Box::new(pattern)));
        Some(Self {
            rule: pattern.or_else(|| Reach::of(&json).map(Rule::Reach))?,
            identity: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// The token ids of a text; `model` must belong to the same tokenizer.
    ///
    /// # Errors
    /// The errors of the model, and one that names the limit for a word of more than 1 MiB.
    pub fn encode(&self, text: &str, model: &ModelWrapper) -> tokenizers::Result<Vec<u32>> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        match &self.rule {
            Rule::Pattern(pattern) => {
                let spelling = |word: &str| pattern.spelling(word);
                self.encode_words(pattern.words(text), spelling, model, &mut tokens)?;
            }
            Rule::Reach(reach) => {
                self.encode_words(reach.words(text), str::to_owned, model, &mut tokens)?;
            }
        }
        Ok(tokens)
    }

    /// Appends the tokens of words; `spelling` turns one into what the vocabulary has.
    fn encode_words<'t>(
        &self,
        words: impl Iterator<Item = impl Into<Cow<'t, str>>>,
        spelling: impl Fn(&str) -> String,
        model: &ModelWrapper,
        tokens: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        MET.with_borrow_mut(|met| {
            if met.identity != self.identity || met.words.len() > WORDS_KEPT {
                met.identity = self.identity;
                met.words.clear();
            }
            for word in words {
                let word = word.into();
                if let Some(known) = met.words.get(&*word) {
                    tokens.extend_from_slice(known);
                    continue;
                }
                if word.len() > LONGEST {
                    let start: String = word.chars().take(20).collect();
                    return Err(format!(
                        "the text has a word of {} bytes, {start:?}..; at most {LONGEST} are allowed",
                        word.len()
                    )
                    .into());
                }
                let new = model.tokenize(&spelling(&word))?;
                let new: Box<[u32]> = new.into_iter().map(|token| token.id).collect();
                tokens.extend_from_slice(&new);
                if word.len() <= LONGEST_KEPT {
                    met.words.insert(word.as_ref().into(), new);
                }
            }
            Ok(())
        })
    }
}
