//! Words of byte-level BPE with a known split pattern.
//!
//! The patterns end in `\s+(?!\S)|\s+`, but `regex` has no look-ahead. Its effect is that of
//! several white-space characters before a word, the last one belongs to the word. So the pattern
//! is matched with `\s+` alone and such a match is shortened by its last character.

use regex::Regex;
use serde_json::Value;

/// The split pattern of LLaMA 3's tokenizer.
pub(in crate::tokenizer) const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's: single digits.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// GPT-2's, built into the byte-level step.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The common end of all three, and its replacement.
const LOOK_AHEAD: (&str, &str) = (r"|\s+(?!\S)|\s+", r"|\s+");

/// A split pattern, and the bytes' visible characters.
#[derive(Debug)]
pub(super) struct Pattern {
    regex: Regex,
    /// Whether white space up to a line end is a separate word, which is not shortened.
    line_ends: bool,
    /// The visible character of each byte.
    visible: [char; 256],
}

impl Pattern {
    /// `None` unless the tokenizer only splits by a known pattern and maps bytes to visible characters.
    pub(super) fn of(json: &Value) -> Option<Self> {
        if !json["normalizer"].is_null() {
            return None;
        }
        let pattern = pattern_of(&json["pre_tokenizer"])?;
        let without = pattern.strip_suffix(LOOK_AHEAD.0)?;
        Some(Self {
            regex: Regex::new(&format!("{without}{}", LOOK_AHEAD.1)).ok()?,
            line_ends: pattern != GPT_2,
            visible: visible(),
        })
    }

    /// The words of a text, in order.
    pub(super) fn words<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let found = self.regex.find_at(text, at)?;
            let word = self.shorten(found.as_str(), found.end() == text.len());
            at = found.start() + word.len();
            Some(word)
        })
    }

    /// A word as it is in the vocabulary.
    pub(super) fn spelling(&self, word: &str) -> String {
        let bytes = word.bytes();
        bytes.map(|byte| self.visible[byte as usize]).collect()
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
        let pattern = Pattern::of(&serde_json::from_str(json).unwrap()).unwrap();
        pattern.words(text).map(str::to_owned).collect()
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
