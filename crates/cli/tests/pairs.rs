//! A sequence-to-sequence model from pairs of texts to a student, by the commands.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

fn iiet(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn done(folder: &Path, arguments: &[&str]) -> String {
    let output = iiet(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Numbers as words, and as digits; with a configuration.
fn place() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let words = ["one", "two", "three", "four", "five"];
    let lines = |of: &dyn Fn(usize) -> String| -> String {
        let line = |i: usize| (0..1 + i % 4).map(move |at| of((i * 7 + at * 3 + i / 5) % 5));
        (0..200)
            .map(|i| line(i).collect::<Vec<_>>().join(" ") + "\n")
            .collect()
    };
    fs::write(
        folder.path().join("words.txt"),
        lines(&|i| words[i].to_owned()),
    )
    .unwrap();
    fs::write(
        folder.path().join("digits.txt"),
        lines(&|i| (i + 1).to_string()),
    )
    .unwrap();
    let config = r#"
        [model]
        d_model = 32
        d_ff = 64
        n_layers = 1
        n_heads = 2
        seq_len = 64
        solver = "explicit_euler"
        [model.encoder]
        n_layers = 2
        solver = { name = "iterative_implicit_euler", iterations = 2 }
        [data]
        source = { source = "words.txt", target = "digits.txt" }
        vocab_size = 280
        [train]
        steps = 6
        batch_tokens = 64
        lr = 3e-3
        dropout = { residual = 0.1 }
    "#;
    fs::write(folder.path().join("words.toml"), config).unwrap();
    let student = r#"
        [data]
        source = { source = "words.txt", target = "digits.txt" }
        tokenizer = "runs/words/model/tokenizer.json"
        [train]
        steps = 4
        batch_tokens = 64
        lr = 1e-3
    "#;
    fs::write(folder.path().join("student.toml"), student).unwrap();
    folder
}

/// Prepares the pairs, and returns their folder.
fn prepared(folder: &Path) -> String {
    done(folder, &["data", "prepare", "--config", "words.toml"]);
    let entries = fs::read_dir(folder.join("data")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let data = paths.find(|path| path.is_dir());
    data.unwrap().display().to_string()
}

/// Checks the report at the end of a distillation: five held-out pairs, both models, and a chart.
fn compared(folder: &Path, printed: &str) {
    for part in [
        "Cost of the sides",
        "Scores of texts",
        "translation: 5 of 5 documents, validation split",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let run = folder.join("runs/student");
    let rows = fs::read_to_string(run.join("validation/translation/validation.jsonl")).unwrap();
    let texts = ["words.txt", "digits.txt"].map(|name| fs::read_to_string(folder.join(name)));
    let [words, digits] = texts.map(Result::unwrap);
    let pairs: Vec<(&str, &str)> = words.lines().zip(digits.lines()).collect();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let side = |name: &str| row[name].as_str().unwrap().to_owned();
        let (source, target) = (side("source"), side("target"));
        assert!(pairs.contains(&(&source, &target)), "{row}");
    }
    let report: Value =
        serde_json::from_slice(&fs::read(run.join("report.json")).unwrap()).unwrap();
    let [teacher, student] = [0, 1].map(|model| &report["models"][model]);
    assert_eq!(teacher["encoder"]["iterations"], json!([2, 2]));
    assert_eq!(student["cost"]["encoder"]["evaluations"], 4);
    assert_eq!(student["quality"]["tasks"][1]["items"], 5);
    assert!(run.join("report.svg").is_file());
}

#[test]
fn a_model_is_trained_asked_measured_distilled_and_evaluated() {
    let place = place();
    let folder = place.path();
    let output = iiet(
        folder,
        &[
            "train",
            "--config",
            "words.toml",
            "--set",
            "model.seq_len=4",
        ],
    );
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    // Four words and the end are five tokens at least.
    let left_out = errors
        .lines()
        .find(|line| line.contains("pairs are left out"));
    let expected = " pairs are left out: a side has more tokens than model.seq_len";
    assert!(left_out.unwrap().ends_with(expected), "{errors}");
    fs::remove_dir_all(folder.join("runs")).unwrap();
    done(folder, &["train", "--config", "words.toml"]);
    let info = done(folder, &["info", "--model", "runs/words"]);
    assert!(
        info.contains("encoder                    2 layers, iterative_implicit_euler"),
        "{info}"
    );

    let line = done(
        folder,
        &[
            "generate",
            "--model",
            "runs/words",
            "--source",
            "two three",
            "--max-tokens",
            "5",
        ],
    );
    assert_eq!(line.lines().count(), 1, "{line}");

    let data = prepared(folder);
    let influence = done(
        folder,
        &[
            "influence",
            "--model",
            "runs/words",
            "--data",
            &data,
            "--tokens",
            "200",
        ],
    );
    assert!(influence.contains("correction 2"), "{influence}");

    let student = done(
        folder,
        &[
            "distill",
            "--teacher",
            "runs/words",
            "--side",
            "encoder",
            "--evaluations",
            "2",
            "--config",
            "student.toml",
            "--run",
            "runs/student",
            "--calibration-tokens",
            "200",
            "--report-limit",
            "5",
        ],
    );
    assert!(student.contains("2.00 evaluations per layer"), "{student}");
    compared(folder, &student);
    let config = fs::read_to_string(folder.join("runs/student/config.toml")).unwrap();
    assert!(config.contains("[model.encoder.solver]"), "{config}");
    let resumed = iiet(folder, &["distill", "--run", "runs/student", "--resume"]);
    assert!(resumed.status.success());

    let tasks = folder.join("tasks/translation");
    fs::create_dir_all(&tasks).unwrap();
    let rows = "{\"source\": \"one two\", \"target\": \"1 2\"}\n{\"source\": \"five\", \"target\": \"5\"}\n";
    fs::write(tasks.join("test.jsonl"), rows).unwrap();
    let scores = done(
        folder,
        &[
            "eval",
            "--model",
            "runs/words",
            "--model",
            "runs/student",
            "--tasks",
            "translation",
            "--data",
            "tasks",
        ],
    );
    assert!(scores.contains("BLEU"), "{scores}");
}

#[test]
fn a_model_is_made_smaller_by_what_it_does_to_pairs() {
    let place = place();
    let folder = place.path();
    done(folder, &["train", "--config", "words.toml"]);
    let data = prepared(folder);
    let calibration = ["--calibration", &data, "--tokens", "300"];
    let model = ["--model", "runs/words"];
    let quantize = [
        "quantize", "--bits", "4", "--group", "32", "--method", "gptq",
    ];
    let prune = ["prune", "--sparsity", "2:4", "--method", "sparsegpt"];
    for (command, out) in [(&quantize[..], "packed"), (&prune, "pruned")] {
        done(
            folder,
            &[command, &model, &calibration, &["--out", out]].concat(),
        );
        let source = ["--source", "two three", "--max-tokens", "5"];
        let line = done(
            folder,
            &[&["generate", "--model", out], &source[..]].concat(),
        );
        assert_eq!(line.lines().count(), 1, "{line}");
    }
    let info = done(folder, &["info", "--model", "packed"]);
    assert!(info.contains("4 bits"), "{info}");

    let layers = ["prune", "--method", "layers", "--layers", "1"];
    for (command, expected) in [
        (&quantize[..], "--calibration is needed"),
        (&layers, "allowed are magnitude, wanda and sparsegpt"),
    ] {
        let output = iiet(folder, &[command, &model, &["--out", "other"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && errors.contains(expected),
            "{errors}"
        );
        assert!(!folder.join("other").exists());
    }
}

#[test]
fn pairs_that_do_not_match_are_named_and_nothing_is_written() {
    let place = place();
    let folder = place.path();
    let text = fs::read_to_string(folder.join("digits.txt")).unwrap();
    let shorter: Vec<&str> = text.lines().take(199).collect();
    fs::write(folder.join("digits.txt"), shorter.join("\n")).unwrap();
    for (set, expected) in [
        ("train.seed=1", "200"),
        (
            "data.source=words.txt",
            "data.source is without sources and targets",
        ),
        (
            "data.source={ source = 'words.txt', target = 'none.txt' }",
            "none.txt",
        ),
    ] {
        let output = iiet(
            folder,
            &[
                "train",
                "--config",
                "words.toml",
                "--set",
                set,
                "--run",
                "runs/new",
            ],
        );
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{set}: {errors}");
        assert!(errors.contains(expected), "{set}: {errors}");
        assert!(!folder.join("runs/new/model").exists());
    }
}
