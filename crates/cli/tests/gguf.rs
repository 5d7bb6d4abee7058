//! GGUF files on the command line: `convert --to gguf` and `convert --model FILE.gguf`.

use std::path::Path;
use std::process::{Command, Output};

const LLAMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/llama/byte-level");

fn iiet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .output()
        .unwrap()
}

fn convert(model: &str, out: &Path, others: &[&str]) -> Output {
    let out = out.to_str().unwrap();
    let arguments = ["convert", "--model", model, "--out", out];
    iiet(&[&arguments[..], others].concat())
}

fn refusal(output: Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn text(model: &str) -> String {
    let arguments = [
        "generate",
        "--model",
        model,
        "--prompt",
        "fn main",
        "--max-tokens",
        "24",
    ];
    let output = iiet(&[&arguments[..], &["--temperature", "0"]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_model_returns_from_gguf_with_the_same_text() {
    let folder = tempfile::tempdir().unwrap();
    let (file, back) = (folder.path().join("model.gguf"), folder.path().join("back"));
    let output = convert(LLAMA, &file, &["--to", "gguf"]);
    assert!(output.status.success(), "{output:?}");
    let output = convert(file.to_str().unwrap(), &back, &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(back.to_str().unwrap()), text(LLAMA));
    // The other commands convert it themselves, for as long as they run.
    assert_eq!(text(file.to_str().unwrap()), text(LLAMA));
}

#[test]
fn the_type_of_weights_is_the_one_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let size = |dtype: &str| {
        let file = folder.path().join(dtype).with_extension("gguf");
        let output = convert(LLAMA, &file, &["--to", "gguf", "--dtype", dtype]);
        assert!(output.status.success(), "{output:?}");
        file.metadata().unwrap().len()
    };
    assert!(size("bf16") < size("f32"));
    // This model's rows of 48 weights are not whole blocks.
    let out = folder.path().join("blocks.gguf");
    let error = refusal(convert(LLAMA, &out, &["--to", "gguf", "--dtype", "q8_0"]));
    assert!(
        error.contains("ffn_down") && error.contains("multiples of 32"),
        "{error}"
    );
}

#[test]
fn what_gguf_cannot_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.gguf");
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../conformance/golden/models/rk4"
    );
    let error = refusal(convert(golden, &out, &["--to", "gguf"]));
    assert!(
        error.contains("solver") && error.contains("runge_kutta"),
        "{error}"
    );

    let error = refusal(convert(
        LLAMA,
        &out,
        &["--to", "gguf", "--solver", "runge_kutta"],
    ));
    assert!(error.contains("--to gguf"), "{error}");
    let error = refusal(convert(
        LLAMA,
        &out,
        &["--to", "transformers", "--dtype", "q8_0"],
    ));
    assert!(error.contains("only with --to gguf"), "{error}");
    assert!(!out.exists());

    std::fs::write(&out, "GGUF, but no more").unwrap();
    let file = out.to_str().unwrap();
    let error = refusal(convert(LLAMA, &out, &["--to", "gguf"]));
    assert!(error.contains("exists"), "{error}");
    let error = refusal(convert(file, &folder.path().join("back"), &[]));
    assert!(error.contains("out.gguf"), "{error}");
    let error = refusal(iiet(&["info", "--model", file]));
    assert!(
        error.contains("out.gguf") && error.contains("GGUF"),
        "{error}"
    );
}

#[test]
fn results_and_errors_name_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = path("small.gguf");
    let output = convert(LLAMA, file.as_ref(), &["--to", "gguf"]);
    assert!(output.status.success(), "{output:?}");
    let passage = r#"{"text": "fn main() {}", "file": "main.rs"}"#;
    std::fs::write(folder.path().join("heldout_bpb.jsonl"), passage).unwrap();

    let (results, report) = (path("results.json"), path("report.json"));
    let heldout = ["--tasks", "heldout_bpb", "--heldout", &path("")];
    for (command, out) in [("eval", &results), ("compare", &report)] {
        let arguments = [command, "--model", &file, "--out", out];
        let output = iiet(&[&arguments[..], &heldout].concat());
        assert!(output.status.success(), "{output:?}");
    }
    let json = |path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    assert_eq!(json(&results)["model_name"], *file);
    let model = &json(&report)["models"][0];
    assert_eq!(model["path"], *file);
    assert_eq!(model["name"], "small.gguf");

    let arguments = [
        "logits",
        "--model",
        &file,
        "--ids",
        "1,999999",
        "--out",
        &path("out"),
    ];
    let error = refusal(iiet(&arguments));
    assert!(!error.lines().last().unwrap().contains("iiet-"), "{error}");
}
