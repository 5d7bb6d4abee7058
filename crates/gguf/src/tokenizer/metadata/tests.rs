//! Tokenizers in both formats, and those that are refused.

use super::super::visible::characters;
use super::*;

/// All bytes, `ab`, an added and a special token.
fn small() -> ByteLevelBpe {
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
