//! The tokenizer of a task: a word for each symbol.

use serde_json::{Map, Value, json};

use crate::error::DataError;
use crate::tokenizer::{DOCUMENT_END, Tokenizer};

/// Symbols divided by white space, ids in their order, and after them the end of a text. A word that is
/// no symbol is an error when it is encoded.
pub(super) fn tokenizer(symbols: &[String]) -> Result<Tokenizer, DataError> {
    let words = symbols.iter().map(String::as_str).chain([DOCUMENT_END]);
    let vocab: Map<String, Value> = words
        .enumerate()
        .map(|(id, word)| (word.to_owned(), id.into()))
        .collect();
    let json = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": symbols.len(),
            "content": DOCUMENT_END,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "post_processor": null,
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" },
    });
    Tokenizer::from_json(format!("{json:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_symbols() {
        let symbols = ["e", "(12)", "(123)"].map(str::to_owned);
        let tokenizer = tokenizer(&symbols).unwrap();
        assert_eq!(tokenizer.vocab_size(), 4);
        assert_eq!(tokenizer.document_end(), Some(3));
        let ids = tokenizer.encode("(12)  (123) e").unwrap();
        assert_eq!(ids, [1, 2, 0]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "(12) (123) e");
        assert_eq!(tokenizer.token_bytes(), None);
        tokenizer.encode("(13)").unwrap_err();
    }
}
