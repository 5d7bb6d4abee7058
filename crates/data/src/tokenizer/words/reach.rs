//! Parts of SentencePiece's BPE, which merges within a whole text instead of within words.
//!
//! Two characters that are side by side in no result of a merge can never come into one token: a token
//! with both would hold them side by side. So a text may be cut between them, and the tokens of its parts are
//! those of the whole. In vocabularies of natural text such places are a few characters apart.

use std::collections::HashSet;

use serde_json::Value;

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

/// The pairs of characters that merges can bring into one token.
#[derive(Debug)]
pub(super) struct Reach {
    joined: HashSet<(char, char)>,
}

impl Reach {
    /// `None` unless the tokenizer only writes spaces as U+2581 with one before the text, and merges, with a
    /// token for each byte of an unknown character.
    pub(super) fn of(json: &Value) -> Option<Self> {
        let model = &json["model"];
        let [prepend, replace] = &json["normalizer"]["normalizers"].as_array()?[..] else {
            return None;
        };
        let space = SPACE.to_string();
        let spaces_alone = json["normalizer"]["type"] == "Sequence"
            && prepend["type"] == "Prepend"
            && prepend["prepend"] == space.as_str()
            && replace["type"] == "Replace"
            && replace["pattern"]["String"] == " "
            && replace["content"] == space.as_str()
            && json["pre_tokenizer"].is_null();
        let whole_words = |key: &str| model[key].as_bool() == Some(true);
        let affix = |key: &str| model[key].as_str().is_some_and(|affix| !affix.is_empty());
        let bytes = (0..256_u32).all(|byte| !model["vocab"][format!("<0x{byte:02X}>")].is_null());
        if !spaces_alone
            || !bytes
            || !whole_words("byte_fallback")
            || whole_words("ignore_merges")
            || affix("continuing_subword_prefix")
            || affix("end_of_word_suffix")
        {
            return None;
        }
        let mut joined = HashSet::new();
        for merge in model["merges"].as_array()? {
            let (left, right) = match merge {
                Value::String(pair) => pair.split_once(' ')?,
                pair => (pair[0].as_str()?, pair[1].as_str()?),
            };
            // Tokens of bytes are not spelled with the characters that they stand for.
            if [left, right].iter().any(|token| token.starts_with("<0x")) {
                return None;
            }
            let token = || left.chars().chain(right.chars());
            joined.extend(token().zip(token().skip(1)));
        }
        Some(Self { joined })
    }

    /// The parts of a text as they are in the vocabulary, in order.
    pub(super) fn words(&self, text: &str) -> impl Iterator<Item = String> {
        let first = (!text.is_empty()).then_some(SPACE);
        let written = text.chars().map(|c| if c == ' ' { SPACE } else { c });
        let mut rest = first.into_iter().chain(written).peekable();
        std::iter::from_fn(move || {
            let mut last = rest.next()?;
            let mut part = String::from(last);
            while let Some(next) = rest.next_if(|&next| self.joined.contains(&(last, next))) {
                part.push(next);
                last = next;
            }
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::tokenizer::Tokenizer;

    /// `a` and `b` merge with each other, with spaces and among themselves; `c` and `日` with nothing.
    fn tokenizer() -> Tokenizer {
        let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
        let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c"];
        let merges = [
            ["▁", "a"],
            ["a", "b"],
            ["▁a", "b"],
            ["▁", "▁"],
            ["b", "▁"],
            ["▁ab", "b"],
            ["a", "a"],
        ];
        let merged = merges.iter().map(|pair| pair.concat());
        let all = tokens.iter().map(|&token| token.to_owned());
        let vocab: serde_json::Map<_, _> = all
            .chain(bytes)
            .chain(merged)
            .enumerate()
            .map(|(id, token)| (token, json!(id)))
            .collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ]},
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": merges,
            },
        });
        Tokenizer::from_json(tokenizer.to_string()).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn tokens_of_the_parts_are_those_of_the_whole(text in "[ abcé日▁\n]{0,60}") {
            static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(tokenizer);
            proptest::prop_assert!(TOKENIZER.words.is_some());
            let parts = TOKENIZER.encode(&text).unwrap();
            proptest::prop_assert_eq!(parts, TOKENIZER.encode_in_full(&text).unwrap());
        }
    }
}
