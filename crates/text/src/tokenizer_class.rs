//! The class that `transformers` reads a tokenizer with.
//!
//! `transformers` goes by `tokenizer_class` in `tokenizer_config.json`. Where that is missing it goes by the
//! `model_type` of `config.json`, which it only knows for a LLaMA.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::TextError;
use crate::special_tokens::read_object;

const CLASS: &str = "tokenizer_class";

/// The text of `tokenizer_config.json` with a class, if a directory with a `tokenizer.json` has no such file
/// or the file names none; `None` if nothing is missing.
///
/// The class is the one that [`SpecialTokens`](crate::SpecialTokens) goes by: LLaMA's if the file is there, or if
/// `<s>` and `</s>` are in the vocabulary; otherwise one that leaves everything to `tokenizer.json`, with the
/// tokens that `config.json` names as BOS and EOS.
///
/// # Errors
/// [`TextError::Tokenizer`] for a file that is no JSON object; [`TextError::Io`].
pub fn with_tokenizer_class(model: &Path) -> Result<Option<String>, TextError> {
    let Some(tokenizer) = read_object(&model.join("tokenizer.json"))? else {
        return Ok(None);
    };
    let file = read_object(&model.join("tokenizer_config.json"))?;
    if file.as_ref().is_some_and(|file| file.contains_key(CLASS)) {
        return Ok(None);
    }
    let tokens = Tokens::of(&tokenizer);
    let llama = file.is_some() || ["<s>", "</s>"].iter().all(|token| tokens.contains(token));
    let mut keys = file.unwrap_or_default();
    if llama {
        keys.insert(CLASS.into(), "LlamaTokenizerFast".into());
    } else {
        keys.insert(CLASS.into(), "PreTrainedTokenizerFast".into());
        keys.insert("clean_up_tokenization_spaces".into(), false.into());
        let config = read_object(&model.join("config.json"))?.unwrap_or_default();
        for (key, id) in [("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")] {
            let value = config.get(id);
            // Chat models list several tokens that end a text.
            let first =
                value.and_then(|value| value.as_array().map_or(Some(value), |list| list.first()));
            if let Some(token) = first
                .and_then(Value::as_u64)
                .and_then(|id| tokens.spelling(id))
            {
                keys.insert(key.into(), token.into());
            }
        }
    }
    let text = serde_json::to_string_pretty(&keys).expect("invariant: plain data serialises");
    Ok(Some(text + "\n"))
}

/// The parts of a `tokenizer.json` that name tokens.
struct Tokens<'a> {
    added: &'a [Value],
    vocabulary: Option<&'a Map<String, Value>>,
}

impl<'a> Tokens<'a> {
    fn of(tokenizer: &'a Map<String, Value>) -> Self {
        let added = tokenizer.get("added_tokens").and_then(Value::as_array);
        let model = tokenizer.get("model");
        Self {
            added: added.map_or(&[], Vec::as_slice),
            vocabulary: model.and_then(|model| model.get("vocab")?.as_object()),
        }
    }

    fn contains(&self, token: &str) -> bool {
        self.added.iter().any(|added| added["content"] == token)
            || self
                .vocabulary
                .is_some_and(|words| words.contains_key(token))
    }

    fn spelling(&self, id: u64) -> Option<&'a str> {
        let added = self.added.iter().find(|added| added["id"] == id);
        added
            .and_then(|added| added["content"].as_str())
            .or_else(|| {
                let mut words = self.vocabulary?.iter();
                words
                    .find(|(_, found)| **found == id)
                    .map(|(word, _)| word.as_str())
            })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const WORDS: &str = r#"{"added_tokens": [{"id": 0, "content": "<|endoftext|>"}],
        "model": {"vocab": {"<|endoftext|>": 0, "a": 1}}}"#;
    const LLAMA: &str = r#"{"added_tokens": [], "model": {"vocab": {"<s>": 1, "</s>": 2}}}"#;

    #[test]
    fn a_class_is_named_where_none_is() {
        for (tokenizer, file, expected) in [
            (None, None, None),
            (
                Some(WORDS),
                Some(r#"{"tokenizer_class": "GPT2Tokenizer"}"#),
                None,
            ),
            (
                Some(WORDS),
                Some(r#"{"bos_token": "a"}"#),
                Some(r#"{"bos_token": "a", "tokenizer_class": "LlamaTokenizerFast"}"#),
            ),
            (
                Some(LLAMA),
                None,
                Some(r#"{"tokenizer_class": "LlamaTokenizerFast"}"#),
            ),
            (
                Some(WORDS),
                None,
                Some(
                    r#"{"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
                        "bos_token": "a", "eos_token": "<|endoftext|>"}"#,
                ),
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let config = r#"{"bos_token_id": 1, "eos_token_id": [0, 1]}"#;
            let files = [
                ("config.json", Some(config)),
                ("tokenizer.json", tokenizer),
                ("tokenizer_config.json", file),
            ];
            for (name, text) in files {
                if let Some(text) = text {
                    fs::write(dir.path().join(name), text).unwrap();
                }
            }
            let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            let found = with_tokenizer_class(dir.path()).unwrap();
            assert_eq!(found.as_deref().map(json), expected.map(json));
        }
    }
}
