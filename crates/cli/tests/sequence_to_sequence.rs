//! The commands on the directory of a sequence-to-sequence model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;

fn iiet(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_iiet"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conformance/golden")
        .join(case)
}

struct Read(Vec<u8>);

impl Read {
    fn file(path: &Path) -> Self {
        Self(fs::read(path).unwrap())
    }

    fn floats(&self, name: &str) -> (Vec<f32>, Vec<usize>) {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let (chunks, _) = view.data().as_chunks::<4>();
        let entries = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
        (entries, view.shape().to_vec())
    }

    fn integers(&self, name: &str) -> Vec<Vec<i64>> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let (chunks, _) = view.data().as_chunks::<8>();
        let entries: Vec<i64> = chunks.iter().map(|b| i64::from_le_bytes(*b)).collect();
        entries
            .chunks(view.shape()[1])
            .map(<[i64]>::to_vec)
            .collect()
    }

    /// The tokens under a mask, as they are given to a command.
    fn rows(&self, ids: &str, mask: &str) -> String {
        let rows = self.integers(ids).into_iter().zip(self.integers(mask));
        let rows = rows.map(|(ids, mask)| {
            let ids = ids.iter().zip(mask).filter(|(_, mask)| *mask == 1);
            ids.map(|(id, _)| id.to_string())
                .collect::<Vec<_>>()
                .join(",")
        });
        rows.collect::<Vec<_>>().join(";")
    }
}

#[test]
fn logits_of_rows_of_any_length_equal_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("logits.safetensors");
    for case in ["rk2-iiet-schedule", "pcformer4-euler-gqa"] {
        let model = golden("encoder-decoders").join(case);
        let reference = Read::file(&model.join("case.safetensors"));
        let sources = reference.rows("source_ids", "source_mask");
        let targets = reference.rows("target_ids", "target_mask");
        let output = iiet(&[
            "logits",
            "--model",
            &model.display().to_string(),
            "--source-ids",
            &sources,
            "--ids",
            &targets,
            "--out",
            &out.display().to_string(),
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).ends_with(": logits [3, 13, 101]\n"));
        let found = Read::file(&out);
        let mask = reference.integers("target_mask");
        assert_eq!(found.integers("target_mask"), mask);
        assert_eq!(
            found.integers("source_mask"),
            reference.integers("source_mask")
        );
        let ((logits, shape), (expected, _)) = (found.floats("logits"), reference.floats("logits"));
        assert_eq!(shape, [3, 13, 101]);
        let rows = logits.chunks(101).zip(expected.chunks(101));
        for ((found, expected), mask) in rows.zip(mask.concat()) {
            // Padding has other ids in the reference.
            if mask == 1 {
                let pairs = found.iter().zip(expected);
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= 2e-4));
            }
        }
    }
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder
        .path()
        .join("logits.safetensors")
        .display()
        .to_string();
    let pair = golden("encoder-decoders/euler-euler").display().to_string();
    let language_model = golden("models/rk4").display().to_string();
    let long = vec!["1"; 2049].join(",");
    for (model, more, expected) in [
        (
            &pair,
            vec!["--ids", "1,2"],
            "is a sequence-to-sequence model; give a source for each of --ids".to_owned(),
        ),
        (
            &pair,
            vec!["--ids", "1,2", "--source-ids", ""],
            "--source-ids: sequence 1 is empty; allowed: one token and more".into(),
        ),
        (
            &pair,
            vec!["--ids", "1;2", "--source-ids", "5; "],
            "--source-ids: sequence 2 is empty".into(),
        ),
        (
            &pair,
            vec!["--ids", "1;", "--source-ids", "5;6"],
            "--ids: sequence 2 is empty".into(),
        ),
        (
            &pair,
            vec!["--ids", "1;2", "--source-ids", "5"],
            "--source-ids has 1 sequences and --ids 2; each target needs one source".into(),
        ),
        (
            &pair,
            vec!["--ids", "1", "--source-ids", &long],
            "--source-ids: sequence 1 has 2049 tokens; allowed: 2048, the model's context".into(),
        ),
        (
            &pair,
            vec!["--ids", &long, "--source-ids", "1"],
            "--ids: sequence 1 has 2049 tokens; allowed: 2048, the model's context".into(),
        ),
        (
            &pair,
            vec!["--ids", "1", "--source-ids", "3,101"],
            "--source-ids: 101; allowed: 0 to 100".into(),
        ),
        (
            &pair,
            vec!["--ids", "-1", "--source-ids", "3"],
            "--ids: -1; allowed: 0 to 100".into(),
        ),
        (
            &pair,
            vec!["--ids", "1", "--source-ids", "3,x"],
            "--source-ids: \"x\" is no token id".into(),
        ),
        (
            &pair,
            vec!["--ids", "1", "--source-ids", "3", "--iterations", "2"],
            "--iterations and --tolerance: for language models".into(),
        ),
        (
            &language_model,
            vec!["--ids", "1", "--source-ids", "3"],
            format!("--source-ids: {language_model} is a language model, which has no source"),
        ),
    ] {
        let arguments = ["logits", "--model", model, "--out", &out];
        // An argument may begin with a minus.
        let more: Vec<String> = more.chunks(2).map(|pair| pair.join("=")).collect();
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let output = iiet(&[&arguments[..], &more].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&expected), "{expected:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn info_has_both_sides() {
    let model = golden("encoder-decoders/rk2-iiet-schedule");
    let output = iiet(&["info", "--model", &model.display().to_string()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for line in [
        "kind                       sequence to sequence: an encoder and a decoder",
        "encoder                    3 layers, runge_kutta",
        "  predictor_order          2",
        "  evaluations per token    6 (2.00 per layer)",
        "decoder                    2 layers, iterative_implicit_euler",
        "  iterations               [2, 0]",
        "  evaluations per token    4 (2.00 per layer)",
        "label smoothing            0.1",
        "keys and values per token  512 bytes in f32 of a source, 1024 of a target",
        "integrity                  unverified",
    ] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
}

#[test]
fn commands_refuse_what_such_a_model_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (out, run) = (path("out"), path("run"));
    let plain = golden("encoder-decoders/euler-euler").display().to_string();
    let both = golden("encoder-decoders/iiet-iiet").display().to_string();
    let language_model = golden("models/rk4").display().to_string();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/distill.toml");
    let config = config.display().to_string();
    let distill = |teacher: &str| -> Vec<String> {
        let arguments = [
            "distill",
            "--teacher",
            teacher,
            "--threshold",
            "0.1",
            "--config",
            &config,
            "--run",
            &run,
        ];
        arguments.map(str::to_owned).to_vec()
    };
    let list = |arguments: &[&str]| -> Vec<String> {
        arguments.iter().map(|text| (*text).to_owned()).collect()
    };
    for (arguments, expected) in [
        (
            list(&["compare", "--model", &plain, "--tasks", "addition"]),
            "addition: a task for language models".to_owned(),
        ),
        (
            list(&["influence", "--model", &plain, "--data", &out]),
            "neither side of the model takes corrections".to_owned(),
        ),
        (
            list(&["influence", "--model", &both, "--data", &out]),
            "--side: both sides take corrections; give encoder or decoder".to_owned(),
        ),
        (
            list(&[
                "influence",
                "--model",
                &both,
                "--side",
                "encoder",
                "--iterations",
                "1",
            ]),
            "--iterations and --tolerance: for language models".to_owned(),
        ),
        (
            list(&["influence", "--model", &language_model, "--side", "encoder"]),
            format!("--side: {language_model} is a language model, which has no sides"),
        ),
        (
            distill(&plain),
            "neither side of the model takes corrections".to_owned(),
        ),
        (
            list(&[
                "convert",
                "--model",
                &language_model,
                "--solver",
                "explicit_euler",
                "--side",
                "decoder",
                "--out",
                &out,
            ]),
            format!("--side: {language_model} is a language model, which has no sides"),
        ),
        (
            list(&[
                "convert",
                "--model",
                &plain,
                "--to",
                "transformers",
                "--out",
                &out,
            ]),
            "there are no files for transformers".to_owned(),
        ),
        (
            list(&[
                "convert",
                "--model",
                &plain,
                "--solver",
                "implicit_euler",
                "--side",
                "encoder",
                "--set",
                "iterations=[1]",
                "--out",
                &out,
            ]),
            "encoder: iterations lists 1 layers, the model has 3".to_owned(),
        ),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = iiet(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(&expected), "{arguments:?}: {error}");
    }
    assert!(!Path::new(&out).exists() && !Path::new(&run).exists());
}

#[test]
fn convert_changes_the_solver_of_a_side_and_keeps_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = golden("encoder-decoders/euler-euler");
    let (from, to) = (model.display().to_string(), out.display().to_string());
    let set = "iterations=[2, 0, 1]";
    let output = iiet(&[
        "convert",
        "--model",
        &from,
        "--side",
        "encoder",
        "--solver",
        "implicit_euler",
        "--set",
        set,
        "--out",
        &to,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["encoder"]["solver"], "implicit_euler");
    assert_eq!(
        config["encoder"]["iterations"],
        serde_json::json!([2, 0, 1])
    );
    assert_eq!(config["decoder"]["solver"], "explicit_euler");
    let weights = |dir: &Path, name: &str| Read::file(&dir.join("model.safetensors")).floats(name);
    for name in [
        "model.shared.weight",
        "model.decoder.layers.1.encoder_attn.k_proj.weight",
    ] {
        assert_eq!(weights(&model, name), weights(&out, name));
    }
}
