//! Untrusted `tokenizer.json` files are opened or rejected with an error, without panics.

use std::sync::LazyLock;

use iiet_data::{DataConfig, SourceSpec, Tokenizer};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

const TEXT: &str = "fn main() { let naïve = \"日本\"; }\n// main, main 1234567\n  \t  x";

/// Files of the common kinds: those trained by this crate, and older families.
static FILES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let trained = Tokenizer::train(std::iter::repeat_n(TEXT.to_owned(), 3), 280).unwrap();
    let bpe: Value = serde_json::from_slice(trained.json()).unwrap();
    let vocab = json!({ "[UNK]": 0, "a": 1, "b": 2, "##b": 3, "main": 4, "##main": 5, " ": 6 });
    let with_model = |model: Value| {
        let mut file = bpe.clone();
        file["model"] = model;
        file
    };
    let word_piece = with_model(json!({
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocab,
    }));
    let word_level = with_model(json!({
        "type": "WordLevel", "unk_token": "[UNK]", "vocab": vocab,
    }));
    let unigram = with_model(json!({
        "type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["main", -1.5], ["\u{2581}", -3.0]],
    }));
    let suffixed = with_model(json!({
        "type": "BPE", "dropout": null, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true,
        "ignore_merges": false, "vocab": { "[UNK]": 0, "a": 1, "##b": 2, "ab": 3 },
        "merges": [["a", "##b"]],
    }));
    vec![bpe, word_piece, word_level, unigram, suffixed]
});

/// Opens a file, and uses the tokenizer as training would.
fn open_and_use(bytes: &[u8]) -> Result<(), String> {
    let tokenizer = Tokenizer::from_json(bytes).map_err(|error| error.to_string())?;
    if let Ok(tokens) = tokenizer.encode(TEXT) {
        assert!(
            tokens
                .iter()
                .all(|id| (*id as usize) < tokenizer.vocab_size())
        );
        let _ = tokenizer.decode(&tokens);
    }
    let size = tokenizer.vocab_size() as u32;
    let _ = tokenizer.decode(&[0, size / 2, size - 1]);
    tokenizer.token(size);
    tokenizer.token_bytes();
    tokenizer.start();
    Ok(())
}

/// Every path in a value, depth first; only a few elements of a long list or object.
fn places(value: &Value, here: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    found.push(here.clone());
    let mut below = |key: String, value: &Value| {
        here.push(key);
        places(value, here, found);
        here.pop();
    };
    match value {
        Value::Array(list) => {
            let some = list.iter().enumerate().take(4);
            some.for_each(|(at, value)| below(at.to_string(), value));
        }
        Value::Object(map) => map.iter().take(12).for_each(|(k, v)| below(k.clone(), v)),
        _ => {}
    }
}

fn replace(value: &mut Value, place: &[String], with: Value) {
    let mut at = value;
    for key in place {
        at = match at {
            Value::Array(list) => &mut list[key.parse::<usize>().unwrap()],
            Value::Object(map) => map.get_mut(key).unwrap(),
            _ => return,
        };
    }
    *at = with;
}

fn anything() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..6).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        prop::sample::select(vec![
            "a",
            "",
            "##",
            "é",
            "[UNK]",
            "BPE",
            "Unigram",
            "ByteLevel"
        ])
        .prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([["a", "b"], ["", ""]])),
        Just(json!({ "type": "Replace", "pattern": { "Regex": "(" }, "content": "" })),
        Just(json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" })),
        Just(json!({ "a": 4294967295_u64 })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn replaced_values_do_not_panic(
        file in 0_usize..5,
        changes in prop::collection::vec((any::<Index>(), anything()), 1..3),
    ) {
        let mut file = FILES[file].clone();
        for (at, value) in changes {
            let mut found = Vec::new();
            places(&file, &mut Vec::new(), &mut found);
            replace(&mut file, &found[at.index(found.len())], value);
        }
        let _ = open_and_use(&serde_json::to_vec(&file).unwrap());
    }

    #[test]
    fn flipped_bits_and_truncation_do_not_panic(file in 0_usize..5, at in any::<Index>(), bit in 0_u32..9) {
        let mut bytes = serde_json::to_vec(&FILES[file]).unwrap();
        let at = at.index(bytes.len());
        match bit {
            8 => {
                bytes.truncate(at);
                prop_assert!(open_and_use(&bytes).is_err());
            }
            _ => {
                bytes[at] ^= 1 << bit;
                let _ = open_and_use(&bytes);
            }
        }
    }

    #[test]
    fn arbitrary_sources_do_not_panic(value in anything(), inner in anything()) {
        for json in [value.clone(), json!([value, inner]), json!([{ "path": inner, "weight": 1 }])] {
            if let Ok(source) = serde_json::from_value::<SourceSpec>(json) {
                let _ = DataConfig { source, ..DataConfig::default() }.check();
            }
        }
    }
}

#[test]
fn deep_nesting_is_an_error() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
        for place in ["model", "unknown_field", "added_tokens", "normalizer"] {
            let mut text = FILES[0].to_string();
            text.pop();
            let file = format!("{text},\"{place}\":{deep}}}");
            let error = Tokenizer::from_json(file).unwrap_err().to_string();
            assert!(error.contains("tokenizer"), "{error}");
        }
    }
}

/// The first file with another section.
fn with(section: &str, value: Value) -> Vec<u8> {
    let mut file = FILES[0].clone();
    file[section] = value;
    serde_json::to_vec(&file).unwrap()
}

#[test]
fn templates_and_normalizers_that_panic_in_the_crate_are_errors() {
    let template = |single: Value| {
        json!({ "type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": {} })
    };
    let map = |map: &str| json!({ "type": "Precompiled", "precompiled_charsmap": map });
    let replace = |pattern: Value, content: String| json!({ "type": "Replace", "pattern": pattern, "content": content });
    let many = |step: Value, count| json!({ "type": "Sequence", "normalizers": vec![step; count] });
    for (section, value) in [
        (
            "post_processor",
            template(json!([{ "SpecialToken": { "id": "<s>", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } }])),
        ),
        (
            "post_processor",
            template(json!([{ "Sequence": { "id": "B", "type_id": 0 } }])),
        ),
        // An empty trie, and one of 4 GiB.
        ("normalizer", map("AAAAAAAAAAAA")),
        ("normalizer", map("/////w==")),
        ("normalizer", many(map("/////w=="), 1)),
        ("normalizer", map("AA==")),
        // Ten bytes to ten bytes, ten times: 10^10 times the text.
        (
            "normalizer",
            many(replace(json!({ "String": "a" }), "a".repeat(10)), 10),
        ),
        (
            "normalizer",
            replace(json!({ "Regex": "" }), "a".repeat(1 << 20)),
        ),
    ] {
        let file = with(section, value.clone());
        let error = open_and_use(&file).expect_err(&value.to_string());
        assert!(error.contains("tokenizer"), "{error}");
    }
    // Matches the empty string everywhere; text may be encoded or rejected.
    let _ = open_and_use(&with(
        "normalizer",
        replace(json!({ "Regex": "" }), String::new()),
    ));
}

#[test]
fn dropout_is_disabled() {
    let mut file = FILES[0].clone();
    let plain = Tokenizer::from_json(serde_json::to_vec(&file).unwrap()).unwrap();
    file["model"]["dropout"] = json!(0.9);
    // An unknown split, for which the crate's own encoder is used, and the known one.
    for split in [
        file["pre_tokenizer"].clone(),
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false }),
    ] {
        let mut file = file.clone();
        file["pre_tokenizer"] = split.clone();
        let dropping = Tokenizer::from_json(serde_json::to_vec(&file).unwrap()).unwrap();
        file["model"]["dropout"] = Value::Null;
        let without = Tokenizer::from_json(serde_json::to_vec(&file).unwrap()).unwrap();
        for _ in 0..20 {
            assert_eq!(
                dropping.encode(TEXT).unwrap(),
                without.encode(TEXT).unwrap()
            );
        }
    }
    assert!(plain.encode(TEXT).unwrap().len() < TEXT.len());
}
