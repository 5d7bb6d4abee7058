//! The special tokens before and after a text, as in `transformers` 4.
//!
//! `tokenizer.json` has a post-processor that adds them; `tokenizer_config.json` (and in older directories
//! `special_tokens_map.json`) names BOS and EOS, and two tokenizer classes replace the post-processor:
//!
//! - `LlamaTokenizer` adds BOS unless `add_bos_token` is false, and EOS if `add_eos_token` is true.
//! - `GPTNeoXTokenizer` uses the same keys, and by default adds neither.
//! - With any other class the post-processor of `tokenizer.json` is used.
//!
//! A file that names no class is a `LlamaTokenizer`'s, as the `model_type` of `config.json` would have
//! it; so is a directory without the file, if `<s>` and `</s>` are in the vocabulary. `transformers` 5
//! neither writes nor heeds the two keys: there the post-processor decides always, and the two versions
//! disagree about a `LlamaTokenizer` whose post-processor says otherwise. They disagree about its text
//! as well: version 5 takes vocabulary and merges from `tokenizer.json` and makes a `Metaspace`
//! pre-tokenizer in place of the file's normaliser and pre-tokenizer. Here the file is followed as it
//! stands, for every class ([`TextTokenizer::rule`](crate::TextTokenizer::rule) says so in words).

use std::path::Path;

use iiet_files::read_regular_text;
use serde_json::{Map, Value};

use crate::error::TextError;

/// The special tokens of a model directory, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// The tokens added to each text in place of the post-processor.
    pub template: Option<Template>,
    /// The tokenizer class that makes the template, without `Fast`.
    pub class: Option<&'static str>,
}

/// Tokens before and after each text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// The tokens before the text.
    pub before: Vec<u32>,
    /// The tokens after the text.
    pub after: Vec<u32>,
}

impl SpecialTokens {
    /// Reads the files next to a directory's `tokenizer.json`; `id` looks up a token in its vocabulary.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if a file is not a JSON object or names a token that is not in the
    /// vocabulary; [`TextError::Io`].
    pub fn read(model: &Path, id: impl Fn(&str) -> Option<u32>) -> Result<Self, TextError> {
        let path = model.join("tokenizer_config.json");
        let file = read_object(&path)?;
        let class = match &file {
            Some(file) => {
                let class = file.get("tokenizer_class").and_then(Value::as_str);
                Class::named(class.unwrap_or(LLAMA))
            }
            None if ["<s>", "</s>"].iter().all(|token| id(token).is_some()) => Class::named(LLAMA),
            None => Class::default(),
        };
        let file = file.unwrap_or_default();
        // `transformers` falls back to the older file if the newer list of tokens is missing.
        let map = match file.is_empty() || file.contains_key("added_tokens_decoder") {
            true => Map::new(),
            false => read_object(&model.join("special_tokens_map.json"))?.unwrap_or_default(),
        };
        let token = |name: &str, default: Option<&str>| {
            let Some(value) = map.get(name).or_else(|| file.get(name)) else {
                return Ok(default.and_then(&id));
            };
            let Some(token) = spelling(value) else {
                return Ok(None);
            };
            id(token).map(Some).ok_or_else(|| TextError::Tokenizer {
                path: path.clone(),
                message: format!("the special token {token:?} is not in the vocabulary"),
            })
        };
        let bos = token("bos_token", class.bos)?;
        let eos = token("eos_token", class.eos)?;
        let adds = |name: &str, default| file.get(name).and_then(Value::as_bool).unwrap_or(default);
        let template = class.adds.then(|| Template {
            before: bos
                .filter(|_| adds("add_bos_token", class.adds_bos))
                .into_iter()
                .collect(),
            after: eos
                .filter(|_| adds("add_eos_token", false))
                .into_iter()
                .collect(),
        });
        Ok(Self {
            bos,
            eos,
            template,
            class: class.adds.then_some(class.name),
        })
    }
}

const LLAMA: &str = "LlamaTokenizer";

/// The defaults of a tokenizer class.
#[derive(Default)]
struct Class {
    name: &'static str,
    bos: Option<&'static str>,
    eos: Option<&'static str>,
    /// Whether the class replaces the post-processor, and whether it adds BOS by default.
    adds: bool,
    adds_bos: bool,
}

impl Class {
    fn named(name: &str) -> Self {
        const KNOWN: [&str; 4] = [
            LLAMA,
            "CodeLlamaTokenizer",
            "GPTNeoXTokenizer",
            "GPT2Tokenizer",
        ];
        let plain = name.trim_end_matches("Fast");
        let Some(name) = KNOWN.into_iter().find(|known| *known == plain) else {
            return Self::default();
        };
        let (bos, eos) = match name {
            LLAMA | "CodeLlamaTokenizer" => ("<s>", "</s>"),
            _ => ("<|endoftext|>", "<|endoftext|>"),
        };
        let adds_bos = bos == "<s>";
        Self {
            name,
            bos: Some(bos),
            eos: Some(eos),
            adds: adds_bos || name == "GPTNeoXTokenizer",
            adds_bos,
        }
    }
}

/// A token in `tokenizer_config.json`: its text, or an object that contains it.
fn spelling(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A JSON object, if the file exists.
pub(crate) fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, TextError> {
    let text = match read_regular_text(path) {
        // A dangling link means a lost file, not a model without one.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.is_symlink() => {
            return Ok(None);
        }
        read => read.map_err(TextError::io(path))?,
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| TextError::Tokenizer {
            path: path.to_owned(),
            message: format!("not a JSON object: {error}"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_dangling_link_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer_config.json");
        assert!(read_object(&path).unwrap().is_none());
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let error = read_object(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json"), "{error}");
    }

    /// The tokens that `transformers` 4.46.3 adds before and after a text, with a vocabulary where `<s>` is
    /// 1, `</s>` 2 and `<|begin|>` 3; `None` where it uses the post-processor.
    #[test]
    fn texts_begin_and_end_as_in_transformers() {
        let vocabulary = |token: &str| match token {
            "<s>" => Some(1),
            "</s>" => Some(2),
            "<|begin|>" => Some(3),
            _ => None,
        };
        let bos: (&[u32], &[u32]) = (&[1], &[]);
        for (config, expected) in [
            (r#"{"tokenizer_class": "LlamaTokenizerFast"}"#, Some(bos)),
            (
                r#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false}"#,
                Some((&[], &[])),
            ),
            (
                r#"{"tokenizer_class": "LlamaTokenizer", "add_eos_token": false}"#,
                Some(bos),
            ),
            (
                r#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": true}"#,
                Some((&[1], &[2])),
            ),
            (
                r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": {"content": "<|begin|>"}}"#,
                Some((&[3], &[])),
            ),
            (r#"{"tokenizer_class": null}"#, Some(bos)),
            ("{}", Some(bos)),
            (
                r#"{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "add_bos_token": true}"#,
                None,
            ),
            (
                r#"{"tokenizer_class": "GPTNeoXTokenizer", "bos_token": "<s>"}"#,
                Some((&[], &[])),
            ),
            (
                r#"{"tokenizer_class": "GPTNeoXTokenizer", "bos_token": "<s>", "add_bos_token": true}"#,
                Some(bos),
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
            let found = SpecialTokens::read(folder.path(), vocabulary).unwrap();
            let found = found.template.map(|t| (t.before, t.after));
            let expected = expected.map(|(before, after)| (before.to_vec(), after.to_vec()));
            assert_eq!(found, expected, "{config}");
        }
        // Without any file: LLaMA's tokens, if the vocabulary has them.
        let empty = tempfile::tempdir().unwrap();
        let found = SpecialTokens::read(empty.path(), vocabulary).unwrap();
        assert_eq!((found.bos, found.eos), (Some(1), Some(2)));
        assert_eq!(found.template.unwrap().before, [1]);
        let found = SpecialTokens::read(empty.path(), |_| None).unwrap();
        assert_eq!(found, SpecialTokens::default());
    }

    #[test]
    fn a_missing_token_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer_config.json");
        for (config, expected) in [
            (
                r#"{"bos_token": "<x>"}"#,
                "the special token \"<x>\" is not",
            ),
            ("[]", "not a JSON object"),
        ] {
            std::fs::write(&path, config).unwrap();
            let error = SpecialTokens::read(folder.path(), |_| None).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains("tokenizer_config.json"), "{error}");
        }
    }
}
