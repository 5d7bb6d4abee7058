//! Reading `tokenizer.json`.

use serde_json::Value;
use std::collections::BTreeMap;

use super::{ByteLevelBpe, LLAMA_3, QWEN_2, Split, Token, TokenKind};
use crate::GgufError;

/// No known vocabulary is larger.
const MAX_VOCAB: usize = 1 << 20;

impl ByteLevelBpe {
    /// Reads the bytes of a `tokenizer.json`. `vocab_size` is that of the model: ids without a token are unused.
    ///
    /// # Errors
    ///
    /// [`GgufError::Tokenizer`] with the part, what was found and what is allowed, for a tokenizer that GGUF
    /// cannot represent so that llama.cpp gives the same tokens.
    pub fn from_json(json: &[u8], vocab_size: usize) -> Result<Self, GgufError> {
        let json: Value = serde_json::from_slice(json).map_err(|error| {
            GgufError::tokenizer("tokenizer.json", error, "allowed: what tokenizers writes")
        })?;
        let model = &json["model"];
        let nothing = |key: &str, value: &Value| match value {
            Value::Null => Ok(()),
            other => Err(GgufError::tokenizer(key, brief(other), "allowed: null")),
        };
        if model["type"] != "BPE" {
            let (found, allowed) = (brief(&model["type"]), "allowed: byte-level BPE");
            return Err(GgufError::tokenizer("model.type", found, allowed));
        }
        if model["byte_fallback"] == true {
            return Err(GgufError::tokenizer(
                "model.byte_fallback",
                true,
                "allowed: false, as in byte-level BPE; SentencePiece vocabularies are not converted",
            ));
        }
        for key in ["normalizer", "truncation", "padding"] {
            nothing(key, &json[key])?;
        }
        nothing("model.dropout", &model["dropout"])?;
        for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
            if model[key] != "" {
                nothing(&format!("model.{key}"), &model[key])?;
            }
        }
        if json["decoder"]["type"] != "ByteLevel" {
            let (found, allowed) = (brief(&json["decoder"]), "allowed: ByteLevel");
            return Err(GgufError::tokenizer("decoder", found, allowed));
        }
        let split = split_of(&json["pre_tokenizer"])?;
        let (before, after) = template(&json["post_processor"])?;
        let tokenizer = Self {
            tokens: tokens(&json, vocab_size)?,
            merges: merges(&model["merges"])?,
            split,
            ignore_merges: model["ignore_merges"] == true,
            before,
            after,
        };
        tokenizer.check()?;
        Ok(tokenizer)
    }
}

/// A value in a message.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}

/// The pattern of a pre-tokenizer.
fn split_of(pre: &Value) -> Result<Split, GgufError> {
    let byte_level = |step: &Value, use_regex: bool| {
        step["type"] == "ByteLevel"
            && step["add_prefix_space"] == false
            && step["use_regex"].as_bool().unwrap_or(true) == use_regex
    };
    if byte_level(pre, true) {
        return Ok(Split::Gpt2);
    }
    let steps = pre["pretokenizers"].as_array().map(Vec::as_slice);
    if pre["type"] == "Sequence"
        && let Some([split, bytes]) = steps
        && byte_level(bytes, false)
        && split["type"] == "Split"
        && split["behavior"] == "Isolated"
        && split["invert"] != true
    {
        match split["pattern"]["Regex"].as_str() {
            Some(LLAMA_3) => return Ok(Split::Llama3),
            Some(QWEN_2) => return Ok(Split::Qwen2),
            _ => {}
        }
    }
    Err(GgufError::tokenizer(
        "pre_tokenizer",
        brief(pre),
        "allowed: ByteLevel without a space before the text, alone (GPT-2) or after Split by the pattern of \
         LLaMA 3 or of Qwen 2",
    ))
}

/// The tokens that a post-processor adds before and after a text.
fn template(post: &Value) -> Result<(Option<u32>, Option<u32>), GgufError> {
    let refuse = || {
        GgufError::tokenizer(
            "post_processor",
            brief(post),
            "allowed: ByteLevel, and a template with at most one token before and one after the text",
        )
    };
    let steps = match post["type"].as_str() {
        Some("Sequence") => post["processors"].as_array().ok_or_else(refuse)?.as_slice(),
        _ if post.is_null() => &[],
        _ => std::slice::from_ref(post),
    };
    let mut found = (None, None);
    let mut templates = 0;
    for step in steps {
        match step["type"].as_str() {
            // It only changes offsets.
            Some("ByteLevel") => {}
            Some("TemplateProcessing") if templates == 0 => {
                templates = 1;
                let pieces = step["single"].as_array().ok_or_else(refuse)?;
                let text = |piece: &Value| piece["Sequence"]["id"] == "A";
                let id = |piece: &Value| -> Option<u32> {
                    let name = piece["SpecialToken"]["id"].as_str()?;
                    let ids = step["special_tokens"][name]["ids"].as_array()?;
                    let [id] = ids.as_slice() else { return None };
                    u32::try_from(id.as_u64()?).ok()
                };
                let id = |piece: &Value| id(piece).ok_or_else(refuse);
                found = match pieces.as_slice() {
                    [a] if text(a) => (None, None),
                    [before, a] if text(a) => (Some(id(before)?), None),
                    [a, after] if text(a) => (None, Some(id(after)?)),
                    [before, a, after] if text(a) => (Some(id(before)?), Some(id(after)?)),
                    _ => return Err(refuse()),
                };
            }
            _ => return Err(refuse()),
        }
    }
    Ok(found)
}

/// All tokens by id.
fn tokens(json: &Value, vocab_size: usize) -> Result<Vec<Token>, GgufError> {
    let vocab = json["model"]["vocab"].as_object();
    let vocab = vocab.ok_or_else(|| {
        let found = brief(&json["model"]["vocab"]);
        GgufError::tokenizer("model.vocab", found, "allowed: ids by token")
    })?;
    let id = |text: &str, id: &Value| {
        let found = id.as_u64().and_then(|id| usize::try_from(id).ok());
        found.filter(|id| *id < vocab_size).ok_or_else(|| {
            let found = format!("the id {id} for {text:?}");
            let allowed = format!("allowed: below the model's vocab_size, {vocab_size}");
            GgufError::tokenizer("vocabulary", found, allowed)
        })
    };
    if vocab_size > MAX_VOCAB {
        let allowed = format!("allowed: at most {MAX_VOCAB}");
        return Err(GgufError::tokenizer("vocabulary", vocab_size, allowed));
    }
    let mut by_id: BTreeMap<usize, Token> = BTreeMap::new();
    for (text, value) in vocab {
        let id = id(text, value)?;
        let token = Token {
            text: text.clone(),
            kind: TokenKind::Normal,
        };
        if let Some(other) = by_id.insert(id, token) {
            let found = format!("the id {id} for {:?} and {text:?}", other.text);
            let allowed = "allowed: one token for each id";
            return Err(GgufError::tokenizer("vocabulary", found, allowed));
        }
    }
    let none = Vec::new();
    for added in json["added_tokens"].as_array().unwrap_or(&none) {
        let text = added["content"].as_str().unwrap_or_default();
        let id = id(text, &added["id"])?;
        let strips = ["lstrip", "rstrip", "single_word"];
        if let Some(key) = strips.into_iter().find(|key| added[*key] == true) {
            let key = format!("added_tokens, {text:?}, {key}");
            return Err(GgufError::tokenizer(key, true, "allowed: false"));
        }
        let kind = match added["special"] == true {
            true => TokenKind::Special,
            false => TokenKind::Added,
        };
        let text = text.to_owned();
        if let Some(other) = by_id.get(&id).filter(|other| other.text != text) {
            let found = format!("the id {id} for {:?} and {text:?}", other.text);
            let allowed = "allowed: one token for each id";
            return Err(GgufError::tokenizer("added_tokens", found, allowed));
        }
        by_id.insert(id, Token { text, kind });
    }
    let unused = |id: usize| Token {
        text: format!("[PAD{id}]"),
        kind: TokenKind::Unused,
    };
    Ok((0..vocab_size)
        .map(|id| by_id.remove(&id).unwrap_or_else(|| unused(id)))
        .collect())
}

/// The merges: pairs, or in older files two tokens in one string.
fn merges(list: &Value) -> Result<Vec<(String, String)>, GgufError> {
    let refuse = |found: &Value| {
        GgufError::tokenizer("model.merges", brief(found), "allowed: pairs of tokens")
    };
    let list_of = list.as_array().ok_or_else(|| refuse(list))?;
    let pair = |merge: &Value| match merge {
        Value::String(text) => text
            .split_once(' ')
            .map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    };
    let pairs = list_of.iter();
    pairs
        .map(|merge| pair(merge).ok_or_else(|| refuse(merge)))
        .collect()
}
