//! Golden sequence-to-sequence models with a tokenizer of words, for the tests that decode targets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs the command.
pub fn iiet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .output()
        .unwrap()
}

/// What a command printed.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of the conformance tests.
pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conformance/golden")
        .join(case)
}

/// A golden model with a tokenizer, in which the word w7 is the token 7, and 2 is the end of a document.
pub fn with_words(case: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = golden("encoder-decoders").join(case).join(file);
        fs::copy(from, folder.path().join(file)).unwrap();
    }
    let special = ["<unk>", "<s>", "</s>"];
    let words = (3..101).map(|id| format!("w{id}"));
    let words = special.iter().map(|word| (*word).to_owned()).chain(words);
    let vocab: serde_json::Map<String, Value> =
        words.zip(0..).map(|(word, id)| (word, id.into())).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "added_tokens": added,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

/// `iiet generate` with a model of [`with_words`].
pub fn generate(model: &TempDir, more: &[&str]) -> Output {
    let model = model.path().display().to_string();
    iiet(&[&["generate", "--model", &model], more].concat())
}

/// Lines of JSON on standard output.
pub fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let lines = printed.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}
