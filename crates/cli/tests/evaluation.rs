//! What the items of an evaluation are, and whose model is asked: away from any workspace, and with paths
//! that are not quite a model directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn iiet_in(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .current_dir(directory)
        // Nobody answers there.
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HF_HOME", directory.join("hub"))
        .env_remove("HF_HUB_CACHE")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llama/byte-level")
}

/// A folder of generated items, three passages.
fn held_out(passages: [&str; 3]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows = passages.map(|text| serde_json::json!({ "text": text, "file": "f" }).to_string());
    fs::write(folder.path().join("heldout_bpb.jsonl"), rows.join("\n")).unwrap();
    folder
}

/// The results of three passages, and what was said on standard error.
fn evaluated(folder: &Path) -> (Value, String) {
    let elsewhere = tempfile::tempdir().unwrap();
    let arguments = [
        "eval",
        "--model",
        &model().display().to_string(),
        "--tasks",
        "heldout_bpb",
        "--heldout",
        &folder.display().to_string(),
        "--out",
        "results.json",
    ];
    let output = iiet_in(elsewhere.path(), &arguments);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let results = fs::read_to_string(elsewhere.path().join("results.json")).unwrap();
    (serde_json::from_str(&results).unwrap(), said)
}

#[test]
fn without_a_workspace_the_error_names_what_to_do() {
    let elsewhere = tempfile::tempdir().unwrap();
    let model = model().display().to_string();
    for arguments in [
        &["eval", "--model", &model, "--tasks", "heldout_bpb"][..],
        &["compare", "--model", &model],
    ] {
        let output = iiet_in(elsewhere.path(), arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        for part in ["--heldout DIR", "iiet data heldout --out DIR", "Cargo.toml"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("data.source"), "{said}");
    }
}

#[test]
fn items_of_a_folder_need_no_workspace_and_are_told_apart() {
    let folder = held_out(["one passage", "two passages", "three"]);
    let (first, said) = evaluated(folder.path());
    let hash = first["task_hashes"]["heldout_bpb"].as_str().unwrap();
    assert!(
        said.contains("heldout_bpb: 3 items, from ") && said.contains(&hash[..16]),
        "{said}"
    );
    // Equal items have one identity wherever they lie, others another.
    let copy = held_out(["one passage", "two passages", "three"]);
    assert_eq!(
        evaluated(copy.path()).0["task_hashes"],
        first["task_hashes"]
    );
    let other = held_out(["one passage", "two passages", "four"]);
    assert_ne!(
        evaluated(other.path()).0["task_hashes"],
        first["task_hashes"]
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let arguments = [
        "eval",
        "--model",
        &model().display().to_string(),
        "--tasks",
        "heldout_choice",
        "--heldout",
        &folder.path().display().to_string(),
    ];
    let said = text(&iiet_in(elsewhere.path(), &arguments).stderr);
    assert!(
        said.contains("heldout_choice.jsonl: there is no such file"),
        "{said}"
    );
}

#[test]
fn items_written_in_a_workspace_are_the_same_elsewhere() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("written").display().to_string();
    let output = iiet_in(workspace, &["data", "heldout", "--out", &written]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    assert!(printed.contains("heldout_cloze.jsonl"), "{printed}");

    let (model, out) = (
        model().display().to_string(),
        folder.path().join("out.json").display().to_string(),
    );
    let cache = folder.path().join("cache").display().to_string();
    let arguments = [
        "eval",
        "--model",
        &model,
        "--tasks",
        "heldout_choice",
        "--limit",
        "2",
        "--out",
        &out,
    ];
    let hash = || {
        let results: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
        results["task_hashes"]["heldout_choice"].clone()
    };
    let made = [&arguments[..], &["--cache", &cache]].concat();
    let output = iiet_in(workspace, &made);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    // Whose dependencies they are made from.
    let root = workspace.parent().unwrap().parent().unwrap();
    let expected = format!("from the locked dependencies of {}", root.display());
    assert!(said.contains(&expected), "{said}");
    let here = hash();

    let read = [&arguments[..], &["--heldout", &written]].concat();
    assert!(iiet_in(folder.path(), &read).status.success());
    assert_eq!(hash(), here);
}

/// A folder with these files of arc_easy, one question each.
fn arc(files: &[&str]) -> TempDir {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("arc_easy");
    fs::create_dir(&folder).unwrap();
    for file in files {
        let row = serde_json::json!({
            "question": format!("Which is in {file}?"),
            "choices": { "text": ["a", "b"], "label": ["A", "B"] },
            "answerKey": "B",
        });
        fs::write(folder.join(file), row.to_string()).unwrap();
    }
    data
}

#[test]
fn one_split_is_evaluated_and_named() {
    let model = model().display().to_string();
    let asked = |files: &[&str], more: &[&str]| {
        let data = arc(files);
        let path = data.path().display().to_string();
        let arguments = [
            "eval", "--model", &model, "--tasks", "arc_easy", "--data", &path,
        ];
        let output = iiet_in(data.path(), &[&arguments[..], more].concat());
        (output.status.success(), text(&output.stderr))
    };
    for (files, more, expected) in [
        // The harness's own choice; validation where there is nothing else; one name of several.
        (
            &["test.jsonl", "validation.jsonl"][..],
            &[][..],
            "test split, from ",
        ),
        (
            &["validation.jsonl"],
            &[],
            "1 items, validation split, from ",
        ),
        (
            &["dev.jsonl", "validation.jsonl"],
            &[],
            "1 items, validation split, from ",
        ),
        (
            &["test.jsonl", "dev.jsonl"],
            &["--split", "dev"],
            "1 items, validation split, from ",
        ),
        (
            &["test.jsonl", "train.jsonl"],
            &["--split", "train"],
            "1 items, train split, from ",
        ),
    ] {
        let (success, said) = asked(files, more);
        assert!(
            success && said.contains(expected),
            "{files:?} {more:?}: {said}"
        );
    }
    let (success, said) = asked(&["train.jsonl"], &[]);
    assert!(
        !success && said.contains("arc_easy: no test data"),
        "{said}"
    );
    let (success, said) = asked(&["test.jsonl"], &["--split", "all"]);
    assert!(
        !success && said.contains("allowed: train, validation, test"),
        "{said}"
    );
    let heldout = held_out(["a", "b", "c"]);
    let folder = heldout.path().display().to_string();
    let arguments = [
        "eval",
        "--model",
        &model,
        "--tasks",
        "heldout_bpb",
        "--heldout",
        &folder,
        "--split",
        "test",
    ];
    let said = text(&iiet_in(heldout.path(), &arguments).stderr);
    assert!(
        said.contains("heldout_bpb: there is no test split"),
        "{said}"
    );
}

#[test]
fn samples_of_two_models_lie_in_two_folders() {
    let folder = held_out(["one passage", "two passages", "three"]);
    let (model, path) = (
        model().display().to_string(),
        folder.path().display().to_string(),
    );
    let arguments = [
        "eval",
        "--model",
        &model,
        "--model",
        &model,
        "--tasks",
        "heldout_bpb",
        "--heldout",
        &path,
        "--out",
        "results.json",
        "--log-samples",
    ];
    let output = iiet_in(folder.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in ["a", "b"] {
        let files: Vec<_> = fs::read_dir(folder.path().join(name)).unwrap().collect();
        let name = files[0].as_ref().unwrap().file_name();
        let name = name.to_str().unwrap().to_owned();
        assert!(
            files.len() == 1 && name.starts_with("samples_heldout_bpb_20"),
            "{name}"
        );
    }
}

#[test]
fn a_run_directory_stands_for_its_model() {
    let run = tempfile::tempdir().unwrap();
    let inner = run.path().join("model");
    fs::create_dir(&inner).unwrap();
    for entry in fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), inner.join(entry.file_name())).unwrap();
    }
    let path = run.path().display().to_string();
    for arguments in [
        &["info", "--model", &path][..],
        &[
            "logits",
            "--model",
            &path,
            "--ids",
            "1,2",
            "--out",
            "logits.safetensors",
        ],
        &[
            "generate",
            "--model",
            &path,
            "--prompt",
            "a",
            "--max-tokens",
            "1",
        ],
        &[
            "convert",
            "--model",
            &path,
            "--solver",
            "implicit_euler",
            "--out",
            "converted",
        ],
    ] {
        let output = iiet_in(run.path(), arguments);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        let expected = format!("{path}: using {}", inner.display());
        assert!(said.contains(&expected), "{arguments:?}: {said}");
    }
}

#[test]
fn a_name_that_cannot_be_fetched_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let output = iiet_in(folder.path(), &["info", "--model", "nobody/no-model"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let expected = "error: nobody/no-model: there is no such folder, and fetching it from the Hugging Face hub failed: ";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn completions_know_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = iiet_in(folder.path(), &["completions", shell]);
        let script = text(&output.stdout);
        assert!(output.status.success(), "{shell}");
        for part in ["influence", "temperature"] {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
}

#[test]
fn a_conversion_keeps_what_chats_need() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::create_dir(&from).unwrap();
    for entry in fs::read_dir(model()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), from.join(entry.file_name())).unwrap();
    }
    fs::write(from.join("chat_template.jinja"), "{{ messages }}").unwrap();
    let arguments = [
        "convert",
        "--model",
        "from",
        "--solver",
        "implicit_euler",
        "--out",
        "to",
    ];
    let output = iiet_in(folder.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for name in ["chat_template.jinja", "generation_config.json"] {
        let kept = fs::read(folder.path().join("to").join(name)).unwrap();
        assert_eq!(kept, fs::read(from.join(name)).unwrap(), "{name}");
    }
}
