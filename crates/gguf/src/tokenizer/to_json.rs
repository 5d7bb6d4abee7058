//! Writing `tokenizer.json`, as the `tokenizers` library does.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::{ByteLevelBpe, TokenKind};

#[derive(serde::Serialize)]
struct File<'a> {
    version: &'static str,
    truncation: Value,
    padding: Value,
    added_tokens: Vec<Added<'a>>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Model<'a>,
}

#[derive(serde::Serialize)]
struct Added<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(serde::Serialize)]
struct Model<'a> {
    r#type: &'static str,
    dropout: Value,
    unk_token: Value,
    continuing_subword_prefix: Value,
    end_of_word_suffix: Value,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocab<'a>,
    merges: &'a [(String, String)],
}

/// Ids by token, in the order of ids.
struct Vocab<'a>(Vec<(&'a str, u32)>);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (text, id) in &self.0 {
            map.serialize_entry(text, id)?;
        }
        map.end()
    }
}

impl ByteLevelBpe {
    /// The text of a `tokenizer.json`.
    pub fn to_json(&self) -> String {
        let byte_level = |use_regex: bool| {
            json!({
                "type": "ByteLevel",
                "add_prefix_space": false,
                "trim_offsets": false,
                "use_regex": use_regex,
            })
        };
        let pre_tokenizer = match self.split.pattern() {
            None => byte_level(true),
            Some(pattern) => json!({
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"Regex": pattern},
                        "behavior": "Isolated",
                        "invert": false,
                    },
                    byte_level(false),
                ],
            }),
        };
        let tokens = (0u32..).zip(&self.tokens);
        let added = tokens.clone().filter_map(|(id, token)| {
            let special = match token.kind {
                TokenKind::Special => true,
                TokenKind::Added => false,
                TokenKind::Normal | TokenKind::Unused => return None,
            };
            Some(Added {
                id,
                content: &token.text,
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: false,
                special,
            })
        });
        let used = tokens
            .clone()
            .filter(|(_, token)| token.kind != TokenKind::Unused);
        let file = File {
            version: "1.0",
            truncation: Value::Null,
            padding: Value::Null,
            added_tokens: added.collect(),
            normalizer: Value::Null,
            pre_tokenizer,
            post_processor: self.post_processor(),
            decoder: byte_level(false),
            model: Model {
                r#type: "BPE",
                dropout: Value::Null,
                unk_token: Value::Null,
                continuing_subword_prefix: Value::Null,
                end_of_word_suffix: Value::Null,
                fuse_unk: false,
                byte_fallback: false,
                ignore_merges: self.ignore_merges,
                vocab: Vocab(used.map(|(id, token)| (token.text.as_str(), id)).collect()),
                merges: &self.merges,
            },
        };
        let text = serde_json::to_string_pretty(&file);
        text.expect("invariant: plain data serialises") + "\n"
    }

    fn post_processor(&self) -> Value {
        if self.before.is_none() && self.after.is_none() {
            return Value::Null;
        }
        let text = |id: u32| {
            let token = self.tokens.get(id as usize);
            token.map_or("", |token| token.text.as_str())
        };
        let special = |id: u32, of: u32| json!({"SpecialToken": {"id": text(id), "type_id": of}});
        let whole = |sequence: &str, of: u32| {
            let before = self.before.map(|id| special(id, of));
            let sequence = json!({"Sequence": {"id": sequence, "type_id": of}});
            let after = self.after.map(|id| special(id, of));
            let pieces = before.into_iter().chain([sequence]).chain(after);
            pieces.collect::<Vec<Value>>()
        };
        let tokens = [self.before, self.after].into_iter().flatten().map(|id| {
            let text = text(id);
            let token = json!({"id": text, "ids": [id], "tokens": [text]});
            (text.to_owned(), token)
        });
        let pair = [whole("A", 0), whole("B", 1)].concat();
        json!({
            "type": "TemplateProcessing",
            "single": whole("A", 0),
            "pair": pair,
            "special_tokens": tokens.collect::<serde_json::Map<_, _>>(),
        })
    }
}
