//! From a teacher to a student, as their user meets them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder with a text, a trained teacher and the configuration of its student.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let lines = (0..400).map(|i| format!("{i} and {i} make {}.\n", 2 * i));
        fs::write(place.path("text.txt"), lines.collect::<String>()).unwrap();
        let data = "[data]\nsource = 'text.txt'\nvocab_size = 300\nvalidation = 0.1\n";
        let train =
            "[train]\nbatch = 4\nlr = 1e-2\nlog_every = 1\neval_every = 4\ncheckpoint_every = 4\n";
        let model = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 3\nn_heads = 2\nseq_len = 16\n\
                     solver = { name = 'iterative_implicit_euler', iterations = 2 }\ninitializer_range = 0.2\n";
        let text = format!("{model}{data}{train}steps = 30\n");
        fs::write(place.path("teacher.toml"), text).unwrap();
        fs::write(
            place.path("student.toml"),
            format!("{data}{train}steps = 8\n"),
        )
        .unwrap();
        place.good(&["train", "--config", "teacher.toml", "--run", "teacher"]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn iiet(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_iiet"))
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.iiet(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a command that fails says.
    fn bad(&self, arguments: &[&str]) -> String {
        let output = self.iiet(arguments);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn distil(&self, run: &str, more: &[&str]) -> String {
        let teacher = "teacher/model";
        let common = [
            "distill",
            "--teacher",
            teacher,
            "--config",
            "student.toml",
            "--run",
            run,
        ];
        self.good(&[&common, more].concat())
    }

    fn records(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn json(&self, path: impl AsRef<Path>) -> Value {
        serde_json::from_slice(&fs::read(self.0.path().join(path)).unwrap()).unwrap()
    }
}

#[test]
fn a_student_is_a_regular_model_and_run() {
    let place = Place::new();
    let message = place.distil("student", &["--evaluations", "2"]);
    assert!(
        message.contains("correction 1") && message.contains("2.00 evaluations per layer"),
        "{message}"
    );

    // Six evaluations, three of them guesses.
    let config = place.json("student/model/config.json");
    let kept: Vec<u64> = config["iterations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r.as_u64().unwrap())
        .collect();
    assert_eq!((kept.len(), kept.iter().sum::<u64>()), (3, 3));
    let influence = place.json("student/influence.json");
    assert_eq!(influence["influence"].as_array().unwrap().len(), 3);
    assert!(place.path("student/influence.svg").is_file());

    // The terms add up, and validation is of the text alone.
    let records = place.records("student");
    assert_eq!(records.len(), 8);
    for record in &records {
        let [ce, kl] =
            ["cross_entropy", "divergence"].map(|name| record["terms"][name].as_f64().unwrap());
        let loss = record["loss"].as_f64().unwrap();
        assert!((loss - ce - kl).abs() < 1e-4 && kl > 0.0, "{record}");
        assert_eq!(record["evaluations"], 6);
    }
    let curves = fs::read_to_string(place.path("student/loss.svg")).unwrap();
    assert!(curves.contains("divergence"));

    // The report: half of the teacher's corrections, two thirds of its evaluations.
    let report = place.json("student/report.json");
    let models = report["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!(models[1]["iterations"], config["iterations"]);
    assert_eq!(models[0]["quality"]["tasks"][0]["task"], "text");
    assert!(
        message.contains("Cost and speed") && message.contains("66.7 %"),
        "{message}"
    );
    assert!(place.path("student/report.svg").is_file());

    let info = place.good(&["info", "--model", "student/model"]);
    assert!(
        info.contains("evaluations per token      6 (2.00 per layer)"),
        "{info}"
    );
    place.good(&[
        "generate",
        "--model",
        "student/model",
        "--prompt",
        "1 and",
        "--max-tokens",
        "4",
    ]);
    place.good(&[
        "logits",
        "--model",
        "student/model",
        "--ids",
        "1,2",
        "--out",
        "logits.safetensors",
    ]);
}

#[test]
fn threshold_zero_keeps_all_corrections_and_two_keeps_none() {
    let place = Place::new();
    place.distil("all", &["--threshold", "0", "--set", "train.steps=4"]);
    let records = place.records("all");
    // The same weights and the same schedule: nothing apart before the first update.
    assert!(records[0]["terms"]["divergence"].as_f64().unwrap().abs() < 1e-5);
    assert_eq!(
        place.json("all/model/config.json")["iterations"],
        serde_json::json!([2, 2, 2])
    );
    // Of the teacher alone: what the dropped corrections did is learned again.
    place.distil(
        "none",
        &["--threshold", "2", "--set", "distill.cross_entropy=0.0"],
    );
    let records = place.records("none");
    let divergence = |at: usize| records[at]["terms"]["divergence"].as_f64().unwrap();
    assert!(divergence(7) < divergence(0), "{records:?}");
    assert_eq!(
        place.json("none/model/config.json")["iterations"],
        serde_json::json!([0, 0, 0])
    );
    assert_eq!(place.records("none")[0]["evaluations"], 3);
    place.distil(
        "hand",
        &[
            "--schedule",
            "2,0,1",
            "--set",
            "train.steps=4",
            "--set",
            "distill.smooth_l1=5",
        ],
    );
    assert_eq!(
        place.json("hand/model/config.json")["iterations"],
        serde_json::json!([2, 0, 1])
    );
    assert!(
        place.records("hand")[0]["terms"]["smooth_l1"]
            .as_f64()
            .unwrap()
            > 0.0
    );
}

#[test]
fn a_resumed_student_is_bitwise_identical() {
    let place = Place::new();
    let loss = |run: &str| -> Vec<Value> {
        let records = place.records(run);
        records
            .iter()
            .map(|record| record["loss"].clone())
            .collect()
    };
    place.distil("whole", &["--schedule", "1"]);
    place.distil("halves", &["--schedule", "1"]);
    // As if it had ended after its first checkpoint.
    for path in ["halves/checkpoints/step-8", "halves/model"] {
        fs::remove_dir_all(place.path(path)).unwrap();
    }
    for command in ["distill", "train"] {
        place.good(&[command, "--run", "halves", "--resume"]);
        assert_eq!(loss("halves"), loss("whole"));
        let weights =
            |run: &str| fs::read(place.path(run).join("model/model.safetensors")).unwrap();
        assert!(weights("halves") == weights("whole"));
        fs::remove_dir_all(place.path("halves/checkpoints/step-8")).unwrap();
        fs::remove_dir_all(place.path("halves/model")).unwrap();
    }

    // Another loss is another run, and so is another teacher.
    let again = ["distill", "--run", "halves", "--resume"];
    let error = place.bad(&[&again[..], &["--set", "distill.temperature=2.0"]].concat());
    assert!(
        error.contains("distill.temperature was 1.0 and is 2.0"),
        "{error}"
    );
    fs::write(place.path("teacher/model/config.json.bak.json"), "{}").unwrap();
    let error = place.bad(&again);
    assert!(
        error.contains("this is not the teacher of the run"),
        "{error}"
    );
}

#[test]
fn errors_are_reported_before_anything_is_written() {
    let place = Place::new();
    let text = fs::read_to_string(place.path("student.toml")).unwrap();
    let with_model = format!("[model]\nd_model = 8\n{text}");
    fs::write(place.path("with-model.toml"), with_model).unwrap();
    let other = text.replace("vocab_size = 300", "vocab_size = 290");
    fs::write(place.path("other-tokenizer.toml"), other).unwrap();
    place.good(&[
        "convert",
        "--model",
        "teacher/model",
        "--solver",
        "explicit_euler",
        "--out",
        "euler",
    ]);
    let (teacher, config) = ("teacher/model", "student.toml");
    for (teacher, config, more, expected) in [
        (
            teacher,
            config,
            &[][..],
            "give --threshold, --evaluations or --schedule",
        ),
        (
            teacher,
            config,
            &["--threshold", "1", "--evaluations", "2"],
            "cannot be used with",
        ),
        (
            teacher,
            config,
            &["--threshold=-1"],
            "the threshold is -1; allowed: 0",
        ),
        (
            teacher,
            config,
            &["--evaluations", "0.5"],
            "0.5 evaluations per layer; allowed: 1, the guess",
        ),
        (
            teacher,
            config,
            &["--schedule", "3,0,0"],
            "3 corrections in layer 1; allowed: [2, 2, 2]",
        ),
        (
            teacher,
            config,
            &["--schedule", "1,0"],
            "the schedule has 2 layers",
        ),
        (
            teacher,
            config,
            &["--schedule", "x"],
            "--schedule: \"x\"; expected 3, or 3,1,0",
        ),
        (
            teacher,
            config,
            &["--schedule", "1", "--set", "model.d_model=8"],
            "--set model.d_model=8: it is determined by the teacher",
        ),
        (
            teacher,
            config,
            &["--schedule", "1", "--set", "distill.temperature=0"],
            "distill.temperature is 0; allowed: 0.01 to 100",
        ),
        (
            teacher,
            config,
            &["--schedule", "1", "--set", "train.label_smoothing=0.1"],
            "train.label_smoothing is 0.1; allowed: 0, unless distill.divergence",
        ),
        (
            teacher,
            config,
            &["--schedule", "1", "--set", "distill.gamma=1"],
            "unknown field `gamma`",
        ),
        (
            teacher,
            "with-model.toml",
            &["--schedule", "1"],
            "model.d_model is given; it is determined by the teacher",
        ),
        (
            teacher,
            "other-tokenizer.toml",
            &["--schedule", "1"],
            "another tokenizer than the teacher",
        ),
        (
            teacher,
            "nowhere.toml",
            &["--schedule", "1"],
            "nowhere.toml",
        ),
        ("nowhere", config, &["--schedule", "1"], "nowhere"),
        (
            "euler",
            config,
            &["--threshold", "1"],
            "explicit_euler, has no corrections",
        ),
        (
            "euler",
            config,
            &["--schedule", "1"],
            "explicit_euler, has no corrections",
        ),
    ] {
        let common = [
            "distill",
            "--teacher",
            teacher,
            "--config",
            config,
            "--run",
            "new",
        ];
        let error = place.bad(&[&common, more].concat());
        assert!(error.contains(expected), "{more:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
        assert!(!place.path("new/config.toml").exists());
    }
    // A run of another kind, and one that is there.
    let error = place.bad(&["distill", "--run", "teacher", "--resume"]);
    assert!(error.contains("not a run of a student"), "{error}");
    let error = place.bad(&[
        "distill",
        "--teacher",
        teacher,
        "--config",
        config,
        "--run",
        "teacher",
        "--schedule",
        "1",
    ]);
    assert!(error.contains("there is a run already"), "{error}");
}
