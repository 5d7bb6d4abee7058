//! What both formats need: distinct tokens, all bytes, merges that lead to tokens.

use std::collections::{HashMap, HashSet};

use super::visible::{characters, is_visible};
use super::{ByteLevelBpe, TokenKind};
use crate::GgufError;

/// Added tokens, and bytes of one of them; no known tokenizer has more.
const MAX_ADDED: usize = 1 << 13;
const MAX_ADDED_BYTES: usize = 256;

impl ByteLevelBpe {
    /// Checks that the tokenizer gives the same tokens in both formats.
    pub(super) fn check(&self) -> Result<(), GgufError> {
        let refuse = |key: &str, found: String, allowed: &str| {
            Err(GgufError::tokenizer(key, found, allowed))
        };
        let mut ids: HashMap<&str, usize> = HashMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            let text = token.text.as_str();
            if let Some(first) = ids.insert(text, id) {
                let found = format!("{text:?} with the ids {first} and {id}");
                return refuse("vocabulary", found, "allowed: one id for each token");
            }
            let visible = !text.is_empty() && text.chars().all(is_visible);
            if token.kind == TokenKind::Normal && !visible {
                let found = format!("{text:?} with the id {id}");
                let allowed = "allowed: one of GPT-2's visible characters for each byte";
                return refuse("vocabulary", found, allowed);
            }
            if text.is_empty() {
                let found = format!("an empty token with the id {id}");
                return refuse("vocabulary", found, "allowed: tokens with a text");
            }
        }
        let mut spelling = [0; 4];
        for (byte, c) in characters().iter().enumerate() {
            let id = ids.get(&*c.encode_utf8(&mut spelling));
            if id.is_none_or(|id| self.tokens[*id].kind != TokenKind::Normal) {
                let found = format!("no token for byte {byte}");
                return refuse("vocabulary", found, "allowed: tokens for all 256 bytes");
            }
        }
        let mut pairs = HashSet::new();
        for (left, right) in &self.merges {
            let whole = format!("{left}{right}");
            for part in [left, right, &whole] {
                if !ids.contains_key(part.as_str()) {
                    let found = format!("{left:?} and {right:?}");
                    let allowed = format!("but {part:?} is not in the vocabulary");
                    return refuse("merges", found, &allowed);
                }
            }
            if !pairs.insert((left, right)) {
                let found = format!("{left:?} and {right:?} twice");
                return refuse("merges", found, "allowed: each pair once");
            }
        }
        for (key, id) in [("before", self.before), ("after", self.after)] {
            if let Some(id) = id.filter(|id| *id as usize >= self.tokens.len()) {
                let (found, allowed) = (id.to_string(), "allowed: ids of tokens");
                return refuse(&format!("the token {key} a text"), found, allowed);
            }
        }
        self.check_added()
    }

    /// Where added tokens overlap in a text, `tokenizers` takes the first and then the longest, llama.cpp the
    /// longest. Runs of one character, such as spaces, are cut alike.
    fn check_added(&self) -> Result<(), GgufError> {
        let added = self
            .tokens
            .iter()
            .filter(|token| token.kind == TokenKind::Added);
        let added: Vec<&str> = added.map(|token| token.text.as_str()).collect();
        let longest = added.iter().map(|text| text.len()).max().unwrap_or(0);
        if added.len() > MAX_ADDED || longest > MAX_ADDED_BYTES {
            let found = format!("{} tokens of up to {longest} bytes", added.len());
            let allowed = format!("allowed: {MAX_ADDED} tokens of {MAX_ADDED_BYTES} bytes");
            return Err(GgufError::tokenizer("added_tokens", found, allowed));
        }
        let run = |text: &str| {
            let first = text.chars().next();
            text.chars().all(|c| Some(c) == first)
        };
        // The tokens that begin with a text, and continue.
        let mut beginnings: HashMap<&str, Vec<&str>> = HashMap::new();
        for text in &added {
            for (at, _) in text.char_indices().skip(1) {
                beginnings.entry(&text[..at]).or_default().push(text);
            }
        }
        for first in &added {
            for (at, _) in first.char_indices().skip(1) {
                for second in beginnings.get(&first[at..]).into_iter().flatten() {
                    let other = first != second && second.len() >= first.len();
                    if other && !(run(first) && run(second)) {
                        return Err(GgufError::tokenizer(
                            "added_tokens",
                            format!("{first:?} and {second:?}"),
                            "which overlap; llama.cpp cuts a text with both in another place",
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
