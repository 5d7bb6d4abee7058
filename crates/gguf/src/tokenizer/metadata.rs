//! The tokenizer as GGUF metadata, with the keys `tokenizer.ggml.*`.

#[cfg(test)]
mod tests;

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
