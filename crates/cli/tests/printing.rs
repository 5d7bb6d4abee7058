//! Closed or full standard output: commands neither panic nor lose results.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn model() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llama/byte-level");
    path.display().to_string()
}

/// A pipe without a reader.
fn closed() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A device that is always full.
fn full() -> Stdio {
    OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

fn iiet(arguments: &[&str], stdout: Stdio, stderr: Stdio) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .stdout(stdout)
        .stderr(stderr)
        .output()
        .unwrap()
}

/// Commands that print, with the files that they write.
fn commands(folder: &Path) -> Vec<(Vec<String>, Vec<&'static str>)> {
    let model = model();
    let text = folder.join("text.txt");
    fs::write(&text, "A little text to be scored, and to be read again.\n").unwrap();
    let text = text.display().to_string();
    let at = |name: &str| folder.join(name).display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    vec![
        (words(&["devices"]), vec![]),
        (words(&["info", "--model", &model]), vec![]),
        (
            words(&[
                "logits",
                "--model",
                &model,
                "--ids",
                "1,2,3",
                "--out",
                &at("logits.safetensors"),
            ]),
            vec!["logits.safetensors"],
        ),
        (
            words(&[
                "convert",
                "--model",
                &model,
                "--solver",
                "explicit_euler",
                "--out",
                &at("converted"),
            ]),
            vec!["converted/model.safetensors", "converted/config.json"],
        ),
        (
            words(&[
                "eval",
                "--model",
                &model,
                "--tasks",
                "text",
                "--data",
                &text,
                "--log-samples",
                "--out",
                &at("results.json"),
            ]),
            vec!["results.json", "samples_text_"],
        ),
        (
            words(&[
                "score",
                "--hypotheses",
                &text,
                "--references",
                &text,
                "--out",
                &at("scores.json"),
            ]),
            vec!["scores.json"],
        ),
        (
            words(&[
                "generate",
                "--model",
                &model,
                "--prompt",
                "A",
                "--max-tokens",
                "2",
            ]),
            vec![],
        ),
        (
            words(&[
                "generate",
                "--model",
                &model,
                "--batch",
                &text,
                "--max-tokens",
                "2",
            ]),
            vec![],
        ),
    ]
}

/// The file of this name, or the only one whose name begins with it.
fn named(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    let of_folder = path.parent().unwrap().read_dir().unwrap();
    let begins = path.file_name().unwrap().to_str().unwrap();
    let mut found = of_folder.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(begins)
    });
    match path.exists() {
        true => path,
        false => found.next().unwrap_or(path),
    }
}

/// The longest command, which must end at its first line.
fn conformance() -> (Vec<String>, Vec<&'static str>) {
    (vec!["conformance".to_owned()], vec![])
}

fn check(stdout: fn() -> Stdio, stderr: fn() -> Stdio, stops_early: bool, expected: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let mut commands = commands(folder.path());
    if stops_early {
        commands.push(conformance());
    }
    for (arguments, files) in commands {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = iiet(&arguments, stdout(), stderr());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = match expected {
            None => 0,
            Some(_) => 1,
        };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        if let Some(expected) = expected {
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
        for file in files {
            let written = fs::read(named(folder.path(), file));
            let written = written.unwrap_or_else(|error| panic!("{arguments:?}: {file}: {error}"));
            assert!(!written.is_empty(), "{arguments:?}: {file} is empty");
            if file.ends_with(".json") {
                serde_json::from_slice::<serde_json::Value>(&written).unwrap();
            }
        }
    }
}

#[test]
fn a_closed_pipe_is_not_an_error_and_results_are_written() {
    check(closed, Stdio::piped, true, None);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error_after_the_results_are_written() {
    let expected = "error: writing standard output: No space left on device";
    check(full, Stdio::piped, true, Some(expected));
}

#[test]
#[cfg(target_os = "linux")]
fn unwritable_standard_error_is_ignored() {
    check(Stdio::piped, full, false, None);
    check(Stdio::piped, closed, false, None);
}
