//! The number of text bytes that each token represents, if it is exact.

use serde_json::Value;

/// Bytes by token id, 0 for special and unused ids; `None` unless the tokenizer is a byte-level BPE
/// that neither changes nor drops text, so that the bytes of a text's tokens add up to its length.
///
/// This is determined from the JSON, because the `tokenizers` crate's types have private fields.
pub(super) fn token_bytes(
    json: &[u8],
    vocab: &[(u32, String)],
    vocab_size: usize,
) -> Option<Vec<u32>> {
    let json: Value = serde_json::from_slice(json).ok()?;
    let keeps_text = json["model"]["type"] == "BPE"
        && is_empty(&json["model"]["continuing_subword_prefix"])
        && is_empty(&json["model"]["end_of_word_suffix"])
        && json["model"]["byte_fallback"] != true
        && json["normalizer"].is_null()
        && splits_into_bytes(&json["pre_tokenizer"]);
    if !keeps_text {
        return None;
    }
    let added = added_tokens(&json["added_tokens"])?;
    let mut bytes = vec![0; vocab_size];
    let mut alphabet = 0;
    for (id, token) in vocab {
        bytes[*id as usize] = match added.iter().find(|added| added.id == *id) {
            Some(added) => added.bytes,
            None => {
                alphabet += usize::from(token.chars().count() == 1);
                visible_bytes(token)?
            }
        };
    }
    // If a byte is missing, text could be dropped or become an unknown token.
    (alphabet >= 256).then_some(bytes)
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value == ""
}

/// Whether the pre-tokenizer maps bytes to characters and drops nothing.
fn splits_into_bytes(pre: &Value) -> bool {
    let is_byte_level =
        |step: &Value| step["type"] == "ByteLevel" && step["add_prefix_space"] == false;
    let keeps = |step: &Value| match step["type"].as_str() {
        Some("Split") => step["behavior"] != "Removed",
        Some("Digits") => true,
        _ => is_byte_level(step),
    };
    match pre["type"].as_str() {
        Some("ByteLevel") => is_byte_level(pre),
        Some("Sequence") => {
            let steps = pre["pretokenizers"].as_array();
            steps.is_some_and(|steps| steps.iter().any(is_byte_level) && steps.iter().all(keeps))
        }
        _ => false,
    }
}

struct Added {
    id: u32,
    bytes: u32,
}

/// The added tokens; `None` if one of them strips adjacent white space.
fn added_tokens(list: &Value) -> Option<Vec<Added>> {
    let none = Vec::new();
    let list = list.as_array().unwrap_or(&none);
    let added = list.iter().map(|token| {
        let special = token["special"] == true;
        if !special && (token["lstrip"] == true || token["rstrip"] == true) {
            return None;
        }
        Some(Added {
            id: u32::try_from(token["id"].as_u64()?).ok()?,
            bytes: match special {
                true => 0,
                false => u32::try_from(token["content"].as_str()?.len()).ok()?,
            },
        })
    });
    added.collect()
}

/// The length of a token in bytes: one for each character of GPT-2's visible alphabet.
fn visible_bytes(token: &str) -> Option<u32> {
    let is_visible =
        |c: char| matches!(c, '!'..='~' | '¡'..='¬' | '®'..='ÿ' | '\u{100}'..='\u{143}');
    token
        .chars()
        .all(is_visible)
        .then_some(token.chars().count() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_characters_represent_one_byte() {
        assert_eq!(visible_bytes("Ġmain"), Some(5));
        assert_eq!(visible_bytes("æĹ¥"), Some(3)); // 日
        assert_eq!(visible_bytes("▁main"), None);
        assert_eq!(visible_bytes("日"), None);
    }

    #[test]
    fn other_kinds_of_tokenizer_are_not_exact() {
        for json in [
            r#"{"model": {"type": "WordPiece"}}"#,
            r#"{"model": {"type": "BPE", "byte_fallback": true}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}"#,
            r#"{"model": {"type": "BPE"}, "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}"#,
            r#"{"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}}"#,
        ] {
            assert_eq!(token_bytes(json.as_bytes(), &[], 0), None, "{json}");
        }
    }
}
