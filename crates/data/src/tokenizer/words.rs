//! Word-by-word encoding for byte-level BPE with a known split pattern.
//!
//! The `tokenizers` crate tracks the offset of every byte of text, which a corpus does not need.
//! Here a text is split by the `regex` crate, and the tokens of each word are looked up in a table
//! of earlier words; only a new word is passed to the model. On the default corpus this is about
//! twenty times as fast, and `tokenizer.rs` tests that the tokens are the same.
//!
//! The patterns end in `\s+(?!\S)|\s+`, but `regex` has no look-ahead. Its effect is that of
//! several white-space characters before a word, the last one belongs to the word. So the pattern
//! is matched with `\s+` alone and such a match is shortened by its last character.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use regex::Regex;
use serde_json::Value;
use tokenizers::{Model, ModelWrapper};

/// The split pattern of LLaMA 3's tokenizer.
pub(super) const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: single digits.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-2's, built into the byte-level step.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The common end of all three, and its replacement.
const LOOK_AHEAD: (&str, &str) = (r"|\s+(?!\S)|\s+", r"|\s+");

/// Number of words cached by each thread; with more, the cache is cleared.
const WORDS_KEPT: usize = 1 << 17;
/// Longer words are rarely repeated.
const LONGEST_KEPT: usize = 64;

/// Splits text into words and encodes them, with the same tokens as the `tokenizers` crate for a
/// text in which no added token occurs.
#[derive(Debug)]
pub struct Words {
    pattern: Regex,
    /// Whether white space up to a line end is a separate word, which is not shortened.
    line_ends: bool,
    /// The visible character of each byte.
    visible: [char; 256],
    /// Distinguishes this tokenizer's words from others' in the threads' tables.
    identity: u64,
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
    /// `None` unless the tokenizer only splits by a known pattern, maps bytes to visible characters
    /// and merges: no normalisation, no added tokens except special ones.
    pub fn of(json: &[u8]) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let json: Value = serde_json::from_slice(json).ok()?;
        let model = &json["model"];
        let no_added = match json["added_tokens"].as_array() {
            Some(added) => added.iter().all(|token| token["special"] == true),
            None => json["added_tokens"].is_null(),
        };
        if model["type"] != "BPE" || !json["normalizer"].is_null() || !no_added {
            return None;
        }
        let pattern = pattern_of(&json["pre_tokenizer"])?;
        let without = pattern.strip_suffix(LOOK_AHEAD.0)?;
        Some(Self {
            pattern: Regex::new(&format!("{without}{}", LOOK_AHEAD.1)).ok()?,
            line_ends: pattern != GPT_2,
            visible: visible(),
            identity: NEXT.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// The token ids of a text; `model` must belong to the same tokenizer.
    ///
    /// # Errors
    /// The errors of the model.
    pub fn encode(&self, text: &str, model: &ModelWrapper) -> tokenizers::Result<Vec<u32>> {
        MET.with_borrow_mut(|met| {
            if met.identity != self.identity || met.words.len() > WORDS_KEPT {
                met.identity = self.identity;
                met.words.clear();
            }
            let mut tokens = Vec::with_capacity(text.len() / 3);
            let mut at = 0;
            while let Some(found) = self.pattern.find_at(text, at) {
                let word = self.shorten(found.as_str(), found.end() == text.len());
                at = found.start() + word.len();
                if let Some(known) = met.words.get(word) {
                    tokens.extend_from_slice(known);
                    continue;
                }
                let new = self.encode_word(word, model)?;
                tokens.extend_from_slice(&new);
                if word.len() <= LONGEST_KEPT {
                    met.words.insert(word.into(), new.into());
                }
            }
            Ok(tokens)
        })
    }

    /// Leaves the last of several white-space characters to the following word.
    fn shorten<'t>(&self, word: &'t str, at_end: bool) -> &'t str {
        let is_space = |word: &str| word.chars().all(char::is_whitespace);
        if at_end || !word.starts_with(char::is_whitespace) || !is_space(word) {
            return word;
        }
        let mut characters = word.chars();
        let last = characters.next_back();
        let is_line_end = matches!(last, Some('\r' | '\n'));
        match characters.as_str() {
            "" => word,
            _ if self.line_ends && is_line_end => word,
            shorter => shorter,
        }
    }

    fn encode_word(&self, word: &str, model: &ModelWrapper) -> tokenizers::Result<Vec<u32>> {
        let visible: String = word
            .bytes()
            .map(|byte| self.visible[byte as usize])
            .collect();
        let tokens = model.tokenize(&visible)?;
        Ok(tokens.into_iter().map(|token| token.id).collect())
    }
}

/// The split pattern, if the pre-tokenizer is one of the known ones.
fn pattern_of(pre: &Value) -> Option<&'static str> {
    let byte_level = |step: &Value, use_regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            && step["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    if byte_level(pre, true) {
        return Some(GPT_2);
    }
    let steps = pre["pretokenizers"].as_array()?;
    let [split, bytes] = &steps[..] else {
        return None;
    };
    let is_split = pre["type"] == "Sequence"
        && split["type"] == "Split"
        && split["behavior"] == "Isolated"
        && split["invert"] == false
        && byte_level(bytes, false);
    let pattern = split["pattern"]["Regex"].as_str()?;
    let known = [LLAMA_3, QWEN_2]
        .into_iter()
        .find(|&known| known == pattern);
    known.filter(|_| is_split)
}

/// GPT-2's table: printable bytes are themselves, the others follow from U+0100 in order.
fn visible() -> [char; 256] {
    let mut table = ['\0'; 256];
    let mut next = 0x100;
    for (byte, visible) in (0..=255_u8).zip(&mut table) {
        *visible = match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
            _ => {
                next += 1;
                char::from_u32(next - 1).expect("invariant: below the surrogates")
            }
        };
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(json: &str, text: &str) -> Vec<String> {
        let words = Words::of(json.as_bytes()).unwrap();
        let mut at = 0;
        let mut found = Vec::new();
        while let Some(next) = words.pattern.find_at(text, at) {
            let word = words.shorten(next.as_str(), next.end() == text.len());
            at = next.start() + word.len();
            found.push(word.to_owned());
        }
        found
    }

    #[test]
    fn words_equal_those_split_by_hand() {
        let gpt_2 = r#"{"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}"#;
        let text = "if x:\n    y = 12345 ";
        let expected = ["if", " x", ":", "\n   ", " y", " =", " 12345", " "];
        assert_eq!(split(gpt_2, text), expected);
        let llama_3 = serde_json::json!({
            "model": {"type": "BPE"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA_3}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
            ]},
        });
        let expected = ["if", " x", ":\n", "   ", " y", " =", " ", "123", "45", " "];
        assert_eq!(split(&llama_3.to_string(), text), expected);
    }

    #[test]
    fn the_table_equals_gpt_2s() {
        let table = visible();
        assert_eq!(
            [table[0x20], table[0x0a], table[b'a' as usize]],
            ['Ġ', 'Ċ', 'a']
        );
        assert_eq!([table[0x00], table[0xad], table[0x7f]], ['Ā', 'Ń', 'ġ']);
    }
}
