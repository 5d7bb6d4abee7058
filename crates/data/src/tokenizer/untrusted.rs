//! Opening of untrusted `tokenizer.json` files.
//!
//! The `tokenizers` crate unwraps values in many places, and allocates memory for sizes that a file declares.
//! A panic becomes an error here; conditions that would end the process are checked before the crate parses
//! the file.
//!
//! BPE dropout is a regularisation for training: with it, the same text gets different tokens each time. It
//! is always disabled, as in `transformers`' fast tokenizers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

use crate::guarded::guarded;

/// The maximum factor by which all replacements of a tokenizer may lengthen a text. Known files stay below
/// ten; a few nested replacements in a small file can reach any number.
const MAX_GROWTH: f64 = 4096.0;

/// Maximum bytes of an added token. All of them become one automaton, which needs memory proportional to
/// their bytes and time quadratic in a token's length. Known files have less than 100.
const MAX_ADDED_TOKEN: usize = 512;

/// Parses a `tokenizer.json` into the `tokenizers` crate's type, without truncation, padding and dropout.
///
/// # Errors
/// If the bytes are not in the format of that crate.
pub fn parse_tokenizer(json: &[u8]) -> tokenizers::Result<Tokenizer> {
    // The crate's own message for invalid JSON has no line, and it does not limit the nesting of unknown
    // fields.
    let value = serde_json::from_slice::<Value>(json)?;
    check(&value)?;
    drop(value);
    untrusted(|| {
        let mut inner = Tokenizer::from_bytes(json)?;
        inner.with_truncation(None)?;
        inner.with_padding(None);
        if let ModelWrapper::BPE(bpe) = inner.get_model()
            && bpe.dropout.is_some()
        {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            inner.with_model(bpe);
        }
        Ok(inner)
    })
}

/// Runs a call of a tokenizer that was read from an untrusted file; a panic becomes an error.
///
/// # Errors
/// The error of the call.
pub fn untrusted<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    // Values that the call was modifying are dropped, or are a cache that is valid at any time.
    guarded(call).unwrap_or_else(|panic| Err(format!("not a usable file: {panic}").into()))
}

/// Rejects files that need memory or time out of proportion to the file or to the text.
fn check(file: &Value) -> Result<(), String> {
    let added = file["added_tokens"].as_array().into_iter().flatten();
    for (number, token) in added.enumerate() {
        let bytes = token["content"].as_str().unwrap_or_default().len();
        if bytes > MAX_ADDED_TOKEN {
            return Err(format!(
                "added_tokens: number {} has {bytes} bytes; allowed: {MAX_ADDED_TOKEN}",
                number + 1
            ));
        }
    }
    for section in ["normalizer", "pre_tokenizer", "decoder"] {
        let step = &file[section];
        check_character_maps(step).map_err(|found| format!("{section}: {found}"))?;
        let growth = growth(step);
        if growth > MAX_GROWTH {
            return Err(format!(
                "{section}: its replacements may lengthen a text {growth:.0} times; allowed: {MAX_GROWTH}"
            ));
        }
    }
    Ok(())
}

/// A `Precompiled` step contains the length of its trie, the trie and the replacements; memory is allocated
/// for the length.
fn check_character_maps(step: &Value) -> Result<(), String> {
    children(step).try_for_each(check_character_maps)?;
    let Some(map) = step["precompiled_charsmap"].as_str() else {
        return Ok(());
    };
    let map = STANDARD
        .decode(map)
        .map_err(|error| format!("precompiled_charsmap is not base64: {error}"))?;
    let claimed = map.split_first_chunk().map(|(size, rest)| {
        let size = u32::from_le_bytes(*size) as usize;
        (size, rest.len())
    });
    match claimed {
        Some((size, there)) if (4..=there).contains(&size) => Ok(()),
        Some((size, there)) => Err(format!(
            "precompiled_charsmap has a trie of {size} bytes; allowed: 4 to {there}, the bytes that follow"
        )),
        None => Err("precompiled_charsmap is too short to contain its length".to_owned()),
    }
}

/// The maximum factor by which a step and its nested steps lengthen a text.
fn growth(step: &Value) -> f64 {
    let within: f64 = children(step).map(growth).product();
    if step["type"] != "Replace" {
        return within;
    }
    let content = step["content"].as_str().unwrap_or_default().len() as f64;
    let replaced = match step["pattern"]["String"].as_str() {
        Some(text) => text.len() as f64,
        // The length of a regex's match is unknown; known files replace it by one character.
        None => 4.0,
    };
    within * (content / replaced.max(1.0)).max(1.0)
}

fn children(step: &Value) -> impl Iterator<Item = &Value> {
    ["normalizers", "pretokenizers", "decoders"]
        .into_iter()
        .filter_map(|list| step[list].as_array())
        .flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_added_token_of_unbounded_length_is_an_error() {
        let file = |bytes: usize| json!({"added_tokens": [{"content": "a"}, {"content": "a".repeat(bytes)}]});
        assert_eq!(check(&file(MAX_ADDED_TOKEN)), Ok(()));
        let error = check(&file(MAX_ADDED_TOKEN + 1)).unwrap_err();
        assert_eq!(error, "added_tokens: number 2 has 513 bytes; allowed: 512");
        assert_eq!(check(&json!({"added_tokens": "none"})), Ok(()));
    }
}
