//! Requests that exceed the memory of any machine: rejected before any memory is taken, with the required
//! size and what to lower.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn iiet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .output()
        .unwrap()
}

/// The error message of a command that must fail.
fn refusal(arguments: &[&str]) -> String {
    let output = iiet(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// A LLaMA with a tokenizer whose configuration has these values instead of its own.
fn model(changes: &[(&str, serde_json::Value)]) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llama/byte-level");
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    fs::write(path, config.to_string()).unwrap();
    dir
}

#[test]
fn caches_exceeding_memory_are_errors() {
    let dir = model(&[
        ("max_position_embeddings", (1 << 20).into()),
        ("solver", "implicit_euler".into()),
        ("iterations", 4096.into()),
    ]);
    let model = dir.path().display().to_string();
    let prompts = dir.path().join("prompts.txt");
    fs::write(&prompts, "a\n".repeat(64)).unwrap();
    let message = refusal(&[
        "generate",
        "--model",
        &model,
        "--prompt",
        "a",
        "--max-tokens",
        "999999999999999999",
    ]);
    assert!(
        message.starts_with("error: continuing a text takes about "),
        "{message}"
    );
    assert!(message.contains("keys and values "), "{message}");
    assert!(
        message.contains("are free; lower --max-tokens"),
        "{message}"
    );
    let message = refusal(&[
        "generate",
        "--model",
        &model,
        "--batch",
        &prompts.display().to_string(),
        "--batch-size",
        "64",
        "--max-tokens",
        "1000000",
    ]);
    assert!(
        message.contains("continuing 64 texts side by side"),
        "{message}"
    );
    assert!(message.contains("lower --batch-size"), "{message}");
    let message = refusal(&[
        "compare",
        "--model",
        &model,
        "--tasks",
        "text",
        "--data",
        &prompts.display().to_string(),
    ]);
    assert!(message.contains("MiB together, "), "{message}");
}

#[test]
fn too_many_corrections_are_errors_on_conversion() {
    let dir = model(&[]);
    let out = dir.path().join("out");
    for iterations in ["4097", "99999999", "9223372036854775807"] {
        let message = refusal(&[
            "convert",
            "--model",
            &dir.path().display().to_string(),
            "--solver",
            "implicit_euler",
            "--set",
            &format!("iterations={iterations}"),
            "--out",
            &out.display().to_string(),
        ]);
        let expected = format!("iterations is {iterations} in a layer; allowed: 0 to 4096");
        assert!(message.contains(&expected), "{message}");
        assert!(!out.exists());
    }
}

#[test]
fn info_reports_whether_files_are_verified() {
    let dir = model(&[]);
    let model = dir.path().display().to_string();
    let of = |dir: &str| String::from_utf8(iiet(&["info", "--model", dir]).stdout).unwrap();
    let expected = "integrity                  unverified: without iiet-manifest.json";
    assert!(of(&model).contains(expected), "{}", of(&model));
    let out = dir.path().join("converted").display().to_string();
    let arguments = [
        "convert",
        "--model",
        &model,
        "--solver",
        "explicit_euler",
        "--out",
        &out,
    ];
    assert!(iiet(&arguments).status.success());
    let expected = "files recorded with length and hash in iiet-manifest.json";
    assert!(of(&out).contains(expected), "{}", of(&out));
}

#[test]
fn info_of_maximum_sizes_does_not_overflow() {
    let dir = model(&[
        ("num_hidden_layers", 16384.into()),
        ("max_position_embeddings", (1 << 20).into()),
        ("hidden_size", (1 << 20).into()),
        ("head_dim", (1 << 20).into()),
        ("intermediate_size", (1 << 20).into()),
        ("vocab_size", (1 << 20).into()),
        ("num_attention_heads", 1.into()),
        ("num_key_value_heads", 1.into()),
        ("solver", "iterative_implicit_euler".into()),
        ("iterations", 4096.into()),
    ]);
    let output = iiet(&["info", "--model", &dir.path().display().to_string()]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
}

#[test]
fn a_conversion_includes_the_tokenizer_and_replaces_nothing() {
    let dir = model(&[]);
    let model = dir.path().display().to_string();
    let out = dir.path().join("converted");
    let out_text = out.display().to_string();
    let arguments = [
        "convert",
        "--model",
        &model,
        "--solver",
        "implicit_euler",
        "--set",
        "iterations=0",
        "--out",
        &out_text,
    ];
    // Left by a killed conversion.
    let left = dir.path().join(".converted.partial");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("config.json"), "{").unwrap();
    assert!(iiet(&arguments).status.success());
    assert!(!left.exists());
    assert!(refusal(&arguments).contains("is not empty; allowed"));
    // A flipped bit in the tokenizer is detected.
    let tokenizer = out.join("tokenizer.json");
    let mut bytes = fs::read(&tokenizer).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&tokenizer, bytes).unwrap();
    let message = refusal(&["generate", "--model", &out_text, "--prompt", "a"]);
    assert!(message.contains("tokenizer.json"), "{message}");
}

#[test]
fn a_manifest_that_is_a_dangling_link_is_an_error() {
    #[cfg(unix)]
    {
        let dir = model(&[]);
        std::os::unix::fs::symlink("nowhere", dir.path().join("iiet-manifest.json")).unwrap();
        let message = refusal(&["info", "--model", &dir.path().display().to_string()]);
        assert!(message.contains("iiet-manifest.json"), "{message}");
    }
}

#[test]
fn negative_numbers_are_refused_as_values_of_their_options() {
    let given: [&[&str]; 9] = [
        &["sweep", "--config", "x", "--seeds"],
        &["sweep", "--config", "x", "--jobs"],
        &["plan", "--config", "x", "--ranks"],
        &["plan", "--config", "x", "--bandwidth"],
        &["quantize", "--model", "x", "--out", "y", "--bits"],
        &["compare", "--model", "x", "--limit"],
        &["influence", "--model", "x", "--tokens"],
        &["generate", "--model", "x", "--top-k"],
        &["generate", "--model", "x", "--max-tokens"],
    ];
    for arguments in given {
        let output = iiet(&[arguments, &["-1"]].concat());
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        let option = arguments.last().unwrap();
        let expected = format!("invalid value '-1' for '{option} ");
        assert!(message.contains(&expected), "{arguments:?}: {message}");
    }
    // An unknown option is still one.
    let output = iiet(&["plan", "--config", "x", "-q"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("unexpected argument '-q'"), "{message}");
}
