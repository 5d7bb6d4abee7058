//! The tokenizer as GGUF metadata, with the keys `tokenizer.ggml.*`.

use super::{ByteLevelBpe, Split, Token, TokenKind};
use crate::GgufError;
use crate::metadata::{Array, Metadata, Value};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";

/// Names of `tokenizer.ggml.pre`, their pattern, and whether they imply `ignore_merges` (and with it, where
/// nothing else is said, a BOS before each text).
const NAMES: &[(&str, Split, bool)] = &[
    ("llama-bpe", Split::Llama3, true),
    ("llama3", Split::Llama3, true),
    ("llama-v3", Split::Llama3, true),
    ("smaug-bpe", Split::Llama3, false),
    ("dbrx", Split::Llama3, false),
    ("chatglm-bpe", Split::Llama3, false),
    ("glm4", Split::Llama3, false),
    ("qwen2", Split::Qwen2, false),
    ("gpt-2", Split::Gpt2, false),
];

impl ByteLevelBpe {
    /// The keys of the tokenizer, with the model's BOS and the tokens that end a text.
    ///
    /// # Errors
    ///
    /// [`GgufError::Tokenizer`] for what GGUF cannot represent: more than three ends, or none, for which
    /// llama.cpp takes token 11; `ignore_merges` with another pattern than LLaMA 3's.
    pub fn to_metadata(&self, bos: Option<u32>, ends: &[u32]) -> Result<Metadata, GgufError> {
        self.check()?;
        let bos = self.begin(bos)?;
        let ends = self.ends(ends)?;
        let mut metadata = Metadata::new();
        metadata.set(MODEL, "gpt2");
        metadata.set(PRE, self.pre(bos)?);
        let texts = self.tokens.iter().map(|token| token.text.clone());
        metadata.set(TOKENS, texts.collect::<Vec<_>>());
        let types = self.tokens.iter().map(|token| match token.kind {
            TokenKind::Normal => 1,
            TokenKind::Special => 3,
            TokenKind::Added => 4,
            TokenKind::Unused => 5,
        });
        metadata.set(TYPES, types.collect::<Vec<i32>>());
        let merges = self.merges.iter();
        let merges = merges.map(|(left, right)| format!("{left} {right}"));
        metadata.set(MERGES, merges.collect::<Vec<_>>());
        let names = ["eos", "eot", "eom"];
        let ids = bos.map(|id| ("bos", id)).into_iter();
        for (name, id) in ids.chain(names.into_iter().zip(ends)) {
            metadata.set(format!("tokenizer.ggml.{name}_token_id"), id);
        }
        metadata.set(ADD_BOS, self.before.is_some());
        metadata.set(ADD_EOS, self.after.is_some());
        Ok(metadata)
    }

    /// BOS, which must be the token that is added before a text, if there is one.
    fn begin(&self, bos: Option<u32>) -> Result<Option<u32>, GgufError> {
        match (self.before, bos) {
            (Some(before), Some(bos)) if before != bos => Err(GgufError::tokenizer(
                "the token before a text",
                before,
                format!("allowed: the model's bos_token_id, {bos}"),
            )),
            (before, bos) => Ok(before.or(bos)),
        }
    }

    /// The ends of a text, of which the first must be the token that is added after a text, if there is one.
    fn ends(&self, ends: &[u32]) -> Result<Vec<u32>, GgufError> {
        let mut all: Vec<u32> = self.after.into_iter().collect();
        for id in ends {
            if !all.contains(id) {
                all.push(*id);
            }
        }
        match all.len() {
            1..=3 => Ok(all),
            0 => Err(GgufError::tokenizer(
                "eos_token_id",
                "nothing",
                "allowed: 1 to 3 ids; without one, llama.cpp ends a text at token 11",
            )),
            n => Err(GgufError::tokenizer(
                "eos_token_id",
                format!("{n} ids"),
                "allowed: at most 3",
            )),
        }
    }

    /// The name of the pattern and of what llama.cpp does besides.
    fn pre(&self, bos: Option<u32>) -> Result<&'static str, GgufError> {
        match (self.split, self.ignore_merges) {
            (Split::Llama3, true) => Ok("llama-bpe"),
            (Split::Llama3, false) if bos.is_some() => Ok("smaug-bpe"),
            // With other names, a vocabulary without BOS has token 11 as BOS.
            (Split::Llama3, false) => Ok("chatglm-bpe"),
            (Split::Qwen2, false) => Ok("qwen2"),
            (Split::Gpt2, false) => Ok("gpt-2"),
            (Split::Qwen2 | Split::Gpt2, true) => Err(GgufError::tokenizer(
                "model.ignore_merges",
                true,
                "allowed with this pattern: false; llama.cpp has it only with LLaMA 3's",
            )),
        }
    }

    /// Reads the keys of a tokenizer.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] or [`GgufError::Tokenizer`] with the part, what was found and what is allowed.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, GgufError> {
        match metadata.optional_str(MODEL)? {
            Some("gpt2") => {}
            Some("llama") => {
                let allowed = "allowed: gpt2. SentencePiece vocabularies have scores instead of merges; take \
                               tokenizer.json from the model's original directory";
                return Err(GgufError::metadata(MODEL, "llama (SentencePiece)", allowed));
            }
            other => {
                let found = other.unwrap_or("nothing");
                return Err(GgufError::metadata(MODEL, found, "allowed: gpt2"));
            }
        }
        let pre = metadata.optional_str(PRE)?.unwrap_or("nothing");
        let Some((_, split, ignore_merges)) = NAMES.iter().find(|(name, ..)| *name == pre) else {
            let names: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
            let allowed = format!("allowed: {}", names.join(", "));
            return Err(GgufError::metadata(PRE, pre, allowed));
        };
        let tokens = read_tokens(metadata)?;
        let merges = metadata.optional_strings(MERGES)?.unwrap_or_default();
        let merges = merges.iter().map(|merge| {
            let pair = merge.split_once(' ');
            let pair = pair.map(|(left, right)| (left.to_owned(), right.to_owned()));
            pair.ok_or_else(|| {
                let found = format!("{merge:?}");
                GgufError::metadata(MERGES, found, "allowed: two tokens with a space between")
            })
        });
        let merges = merges.collect::<Result<_, _>>()?;
        let added = |key: &str, default: bool, name: &str| {
            if !metadata.optional_bool(key)?.unwrap_or(default) {
                return Ok(None);
            }
            let of = format!("tokenizer.ggml.{name}_token_id");
            let id = metadata.u64(&of)?;
            let id = u32::try_from(id);
            id.map(Some)
                .map_err(|_| GgufError::metadata(&of, "a larger id", "allowed: ids of tokens"))
        };
        let tokenizer = Self {
            tokens,
            merges,
            split: *split,
            ignore_merges: *ignore_merges,
            before: added(ADD_BOS, *ignore_merges, "bos")?,
            after: added(ADD_EOS, false, "eos")?,
        };
        tokenizer.check()?;
        Ok(tokenizer)
    }
}

fn read_tokens(metadata: &Metadata) -> Result<Vec<Token>, GgufError> {
    let texts = metadata.optional_strings(TOKENS)?.unwrap_or_default();
    let types = match metadata.get(TYPES) {
        None => vec![1; texts.len()],
        Some(Value::Array(Array::I32(types))) if types.len() == texts.len() => types.clone(),
        Some(other) => {
            let found = match other {
                Value::Array(Array::I32(types)) => format!("{} types", types.len()),
                other => other.type_name().to_owned(),
            };
            let allowed = format!("allowed: {} numbers of type i32", texts.len());
            return Err(GgufError::metadata(TYPES, found, allowed));
        }
    };
    let kind = |(id, kind): (usize, &i32)| match kind {
        1 => Ok(TokenKind::Normal),
        // "Unknown" is a token of its own, like a special one.
        2 | 3 => Ok(TokenKind::Special),
        4 => Ok(TokenKind::Added),
        5 => Ok(TokenKind::Unused),
        other => {
            let found = format!("{other} for token {id}");
            Err(GgufError::metadata(TYPES, found, "allowed: 1 to 5"))
        }
    };
    let kinds = types.iter().enumerate().map(kind);
    let tokens = texts.iter().zip(kinds).map(|(text, kind)| {
        Ok(Token {
            text: text.clone(),
            kind: kind?,
        })
    });
    tokens.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::visible::characters;
    use super::*;

    /// All bytes, `ab`, an added and a special token.
    pub(crate) fn small() -> ByteLevelBpe {
        let token = |text: String, kind| Token { text, kind };
        let mut tokens = vec![token("<|endoftext|>".into(), TokenKind::Special)];
        let bytes = characters().iter();
        tokens.extend(bytes.map(|c| token(c.to_string(), TokenKind::Normal)));
        tokens.push(token("ab".into(), TokenKind::Normal));
        tokens.push(token("   ".into(), TokenKind::Added));
        tokens.push(token("<|begin|>".into(), TokenKind::Special));
        tokens.push(token("[PAD260]".into(), TokenKind::Unused));
        ByteLevelBpe {
            tokens,
            merges: vec![("a".into(), "b".into())],
            split: Split::Llama3,
            ignore_merges: false,
            before: None,
            after: None,
        }
    }

    #[test]
    fn both_formats_are_read_as_they_are_written() {
        for split in [Split::Llama3, Split::Qwen2, Split::Gpt2] {
            let plain = ByteLevelBpe { split, ..small() };
            let framed = ByteLevelBpe {
                before: Some(259),
                after: Some(0),
                ..plain.clone()
            };
            for tokenizer in [plain, framed] {
                let json = tokenizer.to_json();
                let read = ByteLevelBpe::from_json(json.as_bytes(), 261).unwrap();
                assert_eq!(read, tokenizer);
                let metadata = tokenizer.to_metadata(tokenizer.before, &[0]).unwrap();
                assert_eq!(ByteLevelBpe::from_metadata(&metadata).unwrap(), tokenizer);
            }
        }
    }

    #[test]
    fn names_imply_the_pattern_and_the_rest() {
        let pre = |tokenizer: &ByteLevelBpe, bos| {
            let metadata = tokenizer.to_metadata(bos, &[0]).unwrap();
            metadata.optional_str(PRE).unwrap().unwrap().to_owned()
        };
        assert_eq!(pre(&small(), None), "chatglm-bpe");
        assert_eq!(pre(&small(), Some(259)), "smaug-bpe");
        let ignoring = ByteLevelBpe {
            ignore_merges: true,
            ..small()
        };
        assert_eq!(pre(&ignoring, None), "llama-bpe");
        let qwen = ByteLevelBpe {
            split: Split::Qwen2,
            ..ignoring
        };
        let error = qwen.to_metadata(None, &[0]).unwrap_err().to_string();
        assert!(error.contains("model.ignore_merges: found true"), "{error}");
    }

    #[test]
    fn llama_3s_name_adds_bos_where_nothing_else_is_said() {
        let ignoring = ByteLevelBpe {
            ignore_merges: true,
            ..small()
        };
        let metadata = ignoring.to_metadata(Some(259), &[0]).unwrap();
        let without = metadata.iter().filter(|(key, _)| *key != ADD_BOS);
        let pairs = without.map(|(key, value)| (key.to_owned(), value.clone()));
        let metadata = Metadata::from_pairs(pairs.collect()).unwrap();
        let read = ByteLevelBpe::from_metadata(&metadata).unwrap();
        assert_eq!(read.before, Some(259));
    }

    #[test]
    fn tokenizers_that_would_change_are_refused() {
        let error = |change: &dyn Fn(&mut ByteLevelBpe)| {
            let mut tokenizer = small();
            change(&mut tokenizer);
            tokenizer.to_metadata(None, &[0]).unwrap_err().to_string()
        };
        let found = error(&|t| t.tokens[5].kind = TokenKind::Special);
        assert!(found.contains("no token for byte 4"), "{found}");
        let found = error(&|t| t.tokens[257].text = "a b".into());
        assert!(found.contains("\"a b\" with the id 257"), "{found}");
        let found = error(&|t| t.tokens[257].text = "b".into());
        assert!(found.contains("\"b\" with the ids 99 and 257"), "{found}");
        let found = error(&|t| t.merges.push(("b".into(), "a".into())));
        assert!(found.contains("\"ba\" is not in the vocabulary"), "{found}");
        let found = error(&|t| t.merges.push(("a".into(), "b".into())));
        assert!(found.contains("twice"), "{found}");
        let found = error(&|t| t.before = Some(261));
        assert!(found.contains("found 261"), "{found}");
        let found = error(&|t| {
            t.tokens[258].text = "<a>".into();
            t.tokens[260] = Token {
                text: "a>b".into(),
                kind: TokenKind::Added,
            };
        });
        assert!(
            found.contains("\"<a>\" and \"a>b\"; which overlap"),
            "{found}"
        );

        let error = small().to_metadata(None, &[]).unwrap_err().to_string();
        assert!(error.contains("token 11"), "{error}");
        let error = small()
            .to_metadata(None, &[0, 1, 2, 3])
            .unwrap_err()
            .to_string();
        assert!(error.contains("4 ids"), "{error}");
    }

    #[test]
    fn other_tokenizer_files_are_refused_by_the_part() {
        let json: serde_json::Value = serde_json::from_str(&small().to_json()).unwrap();
        for (pointer, value, expected) in [
            (
                "/model/type",
                serde_json::json!("Unigram"),
                "model.type: found \"Unigram\"",
            ),
            (
                "/normalizer",
                serde_json::json!({"type": "NFC"}),
                "normalizer: found",
            ),
            (
                "/model/byte_fallback",
                true.into(),
                "model.byte_fallback: found true",
            ),
            ("/model/dropout", 0.1.into(), "model.dropout: found 0.1"),
            ("/decoder/type", "Fuse".into(), "decoder: found"),
            (
                "/pre_tokenizer/pretokenizers/0/behavior",
                "Removed".into(),
                "pre_tokenizer: found",
            ),
            (
                "/pre_tokenizer/pretokenizers/0/pattern/Regex",
                r"\w+".into(),
                "pre_tokenizer: found",
            ),
            (
                "/post_processor",
                serde_json::json!({"type": "BertProcessing"}),
                "post_processor: found",
            ),
            (
                "/added_tokens/0/lstrip",
                true.into(),
                "\"<|endoftext|>\", lstrip: found true",
            ),
            ("/added_tokens/0/id", 999.into(), "the id 999"),
            ("/model/vocab/ab", 3.into(), "the id 3 for"),
            ("/model/merges/0", "ab".into(), "model.merges: found \"ab\""),
            ("/model/vocab", 7.into(), "model.vocab: found 7"),
        ] {
            let mut changed = json.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            let error = ByteLevelBpe::from_json(changed.to_string().as_bytes(), 261);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(ByteLevelBpe::from_json(b"{", 261).is_err());
        assert!(ByteLevelBpe::from_json(b"[]", 261).is_err());
    }

    #[test]
    fn other_metadata_are_refused_by_the_key() {
        for (key, value, expected) in [
            (
                MODEL,
                Value::from("llama"),
                "found llama (SentencePiece); allowed: gpt2",
            ),
            (PRE, "tekken".into(), "found tekken; allowed: llama-bpe"),
            (TYPES, vec![1, 1].into(), "found 2 types; allowed: 261"),
            (TYPES, vec![6; 261].into(), "found 6 for token 0"),
            (MERGES, vec!["ab".to_owned()].into(), "found \"ab\""),
            (
                ADD_BOS,
                true.into(),
                "tokenizer.ggml.bos_token_id: found nothing",
            ),
        ] {
            let mut metadata = small().to_metadata(None, &[0]).unwrap();
            metadata.set(key, value);
            let error = ByteLevelBpe::from_metadata(&metadata)
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
