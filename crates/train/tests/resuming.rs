//! A resumed run is bitwise identical, or rejected with an error that names the difference.

mod place;

use std::fs::{self, File};
use std::path::Path;

use iiet_files::{FileRecord, Manifest};
use iiet_train::{RunConfig, RunDirectory, TrainError};
use place::{Place, bytes_below, copy, names};
use proptest::prelude::*;
use proptest::sample::Index;

/// A second, smaller source, and a mixture with several epochs of it.
fn mixture(place: &Place) -> String {
    let other = place.path("other.txt");
    if !other.exists() {
        let lines = (0..60).map(|i| format!("{i} times {i} is {}\n", i * i));
        fs::write(&other, lines.collect::<String>()).unwrap();
    }
    weighted(place, 0.6, 0.4)
}

fn weighted(place: &Place, a: f64, b: f64) -> String {
    format!(
        "data.source=[{{path='{}', weight={a}}}, {{path='{}', weight={b}}}]",
        place.path("corpus").display(),
        place.path("other.txt").display(),
    )
}

const STAGES: &str = "train.stages=[{solver='explicit_euler', share=0.5}, {solver='iterative_implicit_euler', share=0.5}]";

#[test]
fn resuming_from_every_step_is_exact() {
    let place = Place::new();
    let source = mixture(&place);
    let sets = [
        source.as_str(),
        STAGES,
        "train.accumulation=2",
        "train.batch=3",
        "train.steps=16",
        "train.checkpoint_every=1",
        "train.keep=100",
    ];
    place.run("whole", &sets).unwrap();
    let records = place.records("whole");
    // Both solvers were used, and the smaller source was seen more than twice.
    assert_eq!((records[7].evaluations, records[8].evaluations), (2, 4));
    assert_eq!(records[15].validation_by_source.len(), 2);
    let state = fs::read_to_string(place.path("whole/checkpoints/step-16/state.json")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["data"]["micro_batches"], 32);
    // 96 rows at 0.6 and 0.4.
    assert_eq!(state["data"]["rows"], serde_json::json!([58, 38]));
    assert_eq!(state["stage"]["index"], 1);

    let whole = place.losses("whole");
    let weights = |name: &str| fs::read(place.path(name).join("model/model.safetensors")).unwrap();
    for step in 1..16 {
        let run = place.path("part");
        copy(&place.path("whole"), &run);
        for later in step + 1..=16 {
            fs::remove_dir_all(run.join(format!("checkpoints/step-{later}"))).unwrap();
        }
        place.resume("part", &sets).unwrap();
        assert_eq!(place.losses("part"), whole, "from step {step}");
        assert!(weights("part") == weights("whole"), "from step {step}");
        fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn a_run_that_grows_its_corrections_resumes_to_the_last_bit() {
    let place = Place::new();
    let sets = [
        "model.solver={name='iterative_implicit_euler', iterations=3, gate=0, normalise_first=true}",
        "train.stages=[{solver={iterations=0}, share=0.4}, {solver={iterations=1}, share=0.3}, {solver={iterations=3}, share=0.3}]",
        "train.steps=10",
        "train.checkpoint_every=1",
        "train.keep=100",
    ];
    place.run("whole", &sets).unwrap();
    let weights = |name: &str| fs::read(place.path(name).join("model/model.safetensors")).unwrap();
    // Before, at and after each switch.
    for step in [3, 4, 5, 7, 9] {
        let run = place.path("part");
        copy(&place.path("whole"), &run);
        for later in step + 1..=10 {
            fs::remove_dir_all(run.join(format!("checkpoints/step-{later}"))).unwrap();
        }
        place.resume("part", &sets).unwrap();
        assert_eq!(
            place.losses("part"),
            place.losses("whole"),
            "from step {step}"
        );
        assert!(weights("part") == weights("whole"), "from step {step}");
        fs::remove_dir_all(run).unwrap();
    }
}

#[test]
fn the_newest_and_the_best_checkpoints_are_kept() {
    let place = Place::new();
    place
        .run("run", &["train.steps=40", "train.keep=1"])
        .unwrap();
    // A learning rate at which the loss increases.
    let sets = ["train.steps=60", "train.keep=1", "train.lr=3"];
    place.resume("run", &sets).unwrap();
    let records = place.records("run");
    let loss = |step: usize| records[step - 1].validation_loss.unwrap();
    assert!(loss(60) > loss(40), "{} and {}", loss(60), loss(40));
    let best = records
        .iter()
        .filter(|record| record.step % 6 == 0 || [40, 60].contains(&record.step))
        .min_by(|a, b| a.validation_loss.partial_cmp(&b.validation_loss).unwrap())
        .unwrap();
    let best = format!("step-{}", best.step);
    assert_eq!(
        names(&place.path("run/checkpoints")),
        [best.as_str(), "step-60"]
    );
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_does_not_count_as_kept() {
    let place = Place::new();
    let all = ["train.checkpoint_every=4", "train.keep=3"];
    place.run("run", &all).unwrap();
    let checkpoints = place.path("run/checkpoints");
    assert_eq!(names(&checkpoints), ["step-12", "step-4", "step-8"]);
    let whole = place.losses("run");

    // The newest has a flipped bit: the run resumes from step 8, and writes step 10 before it reaches step 12
    // again.
    flip(&checkpoints.join("step-12/model.safetensors"));
    let one = ["train.checkpoint_every=5", "train.keep=1"];
    place.resume("run", &one).unwrap();
    assert_eq!(place.losses("run"), whole);
    assert_eq!(names(&checkpoints).last().unwrap(), "step-12");
    // The remaining checkpoints can be resumed from.
    place.resume("run", &["train.steps=13"]).unwrap();

    // A damaged one between complete ones does not count either.
    let place = Place::new();
    place.run("run", &all).unwrap();
    let checkpoints = place.path("run/checkpoints");
    flip(&checkpoints.join("step-8/optimizer.safetensors"));
    let two = [
        "train.steps=14",
        "train.checkpoint_every=14",
        "train.keep=2",
    ];
    place.resume("run", &two).unwrap();
    let left = names(&checkpoints);
    assert!(
        left.contains(&"step-14".into()) && left.contains(&"step-12".into()),
        "{left:?}"
    );
    assert!(!left.contains(&"step-8".into()), "{left:?}");
}

#[test]
fn a_log_with_invalid_lines_is_kept() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let path = place.path("run/metrics.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let damaged = text.replacen("\"step\":2,", "\"stop\":2,", 1);
    fs::write(&path, &damaged).unwrap();
    place.resume("run", &["train.steps=14"]).unwrap();
    assert_eq!(place.records("run").len(), 13);
    let kept = place.path("run/metrics.jsonl.unread-1");
    assert_eq!(fs::read_to_string(kept).unwrap(), damaged);
}

#[test]
fn another_corpus_weight_or_tokenizer_is_an_error_naming_it() {
    let place = Place::new();
    let source = mixture(&place);
    place.run("run", &[&source]).unwrap();
    let before = bytes_below(&place.path("run"));
    let refused = |set: &str, expected: &str| {
        let error = place.resume("run", &[set]).unwrap_err();
        assert!(
            matches!(error, TrainError::ResumeMismatch { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(expected), "{error}");
        assert!(bytes_below(&place.path("run")) == before, "{error}");
    };
    // A trained tokenizer depends on the weights; with a fixed one they can be tested separately.
    refused(
        &weighted(&place, 0.5, 0.5),
        "data source corpus, its share was 0.6",
    );
    let one = format!("data.source={}", place.path("corpus").display());
    refused(&one, "list of sources was [corpus, other] and is [corpus]");
    let file = place.path("corpus/07.txt");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("says", "said")).unwrap();
    refused(&source, "data source corpus, the training text was");
    // The same text with another modification time is the same text.
    fs::write(&file, text).unwrap();
    place.resume("run", &[&source]).unwrap();

    // A tokenizer of the same size with two tokens exchanged.
    let tokenizer = fs::read(place.path("run/model/tokenizer.json")).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_slice(&tokenizer).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let [a, b] = ["!", "#"].map(|token| vocab[token].clone());
    vocab.insert("!".into(), b);
    vocab.insert("#".into(), a);
    let path = place.path("tokenizer.json");
    fs::write(&path, tokenizer.to_string()).unwrap();
    let error = place
        .resume(
            "run",
            &[&source, &format!("data.tokenizer={}", path.display())],
        )
        .unwrap_err()
        .to_string();
    assert!(error.contains("the tokenizer was blake3"), "{error}");
}

#[test]
fn a_corpus_may_move() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let whole = place.losses("run");
    fs::remove_dir_all(place.path("run/checkpoints/step-12")).unwrap();
    copy(&place.path("corpus"), &place.path("elsewhere"));
    let source = format!("data.source={}", place.path("elsewhere").display());
    place.resume("run", &[&source]).unwrap();
    assert_eq!(place.losses("run"), whole);
    let log = fs::read_to_string(place.path("run/resumes.jsonl")).unwrap();
    assert!(log.contains("\"key\":\"data.source\""), "{log}");
}

#[test]
fn a_resume_uses_the_checkpoints_configuration() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let whole = place.losses("run");
    let run = place.path("run");
    fs::remove_dir_all(run.join("checkpoints/step-12")).unwrap();
    let directory = RunDirectory::existing(Some(&run), "").unwrap();
    // An edited file is not used, but reported.
    let text = fs::read_to_string(run.join("config.toml")).unwrap();
    fs::write(
        run.join("config.toml"),
        text.replace("lr = 0.01", "lr = 0.5"),
    )
    .unwrap();
    let (_, otherwise) = directory.config_to_resume();
    assert_eq!(otherwise[0].to_string(), "train.lr was 0.01 and is 0.5");
    fs::remove_file(run.join("config.toml")).unwrap();
    let (config, otherwise) = directory.config_to_resume();
    assert!(otherwise.is_empty());
    assert_eq!(config, run.join("checkpoints/step-6/config.toml"));
    assert_eq!(
        RunConfig::load(&config, &[]).unwrap(),
        place.config(&[]).unwrap()
    );
    place.resume("run", &[]).unwrap();
    assert_eq!(place.losses("run"), whole);
}

#[test]
fn a_run_stopped_before_its_first_checkpoint_restarts() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let whole = place.losses("run");
    let run = place.path("run");
    fs::remove_dir_all(run.join("checkpoints")).unwrap();
    // Not if there is a result to lose.
    let error = place.resume("run", &[]).unwrap_err();
    assert!(
        matches!(error, TrainError::NothingToResume { .. }),
        "{error}"
    );
    fs::remove_dir_all(run.join("model")).unwrap();
    place.resume("run", &[]).unwrap();
    assert_eq!(place.losses("run"), whole);
}

#[test]
fn only_one_process_trains_a_run() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let lock = File::open(place.path("run/.lock")).unwrap();
    lock.lock().unwrap();
    let error = place.resume("run", &[]).unwrap_err();
    assert!(matches!(error, TrainError::RunBusy { .. }), "{error}");
    drop(lock);
    place.resume("run", &[]).unwrap();
}

#[test]
fn more_steps_must_not_return_to_an_earlier_stage() {
    let place = Place::new();
    place.run("run", &[STAGES]).unwrap();
    let error = place
        .resume("run", &[STAGES, "train.steps=40"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("the run is in stage 2"), "{error}");
    let error = place
        .resume("run", &["train.steps=24"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("train.stages was"), "{error}");
    place.resume("run", &[STAGES, "train.steps=20"]).unwrap();
}

/// Changes a file of a checkpoint and its record, so that the manifest does not detect it.
fn change(checkpoint: &Path, name: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let path = checkpoint.join(name);
    fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
    let mut manifest = Manifest::read(checkpoint).unwrap().unwrap();
    manifest.add(name, FileRecord::of(&path).unwrap());
    manifest.write(checkpoint).unwrap();
}

#[test]
fn a_checkpoint_with_a_non_finite_weight_is_passed_over() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let place = Place::new();
        place.run("run", &["train.checkpoint_every=4"]).unwrap();
        let checkpoint = place.path("run/checkpoints/step-12");
        change(&checkpoint, "model.safetensors", |mut bytes| {
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
            bytes
        });
        let sets = ["train.steps=16", "train.checkpoint_every=4"];
        let summary = place.resume("run", &sets).unwrap();
        assert_eq!(summary.step, 16);
        assert!(summary.validation.unwrap().loss.is_finite());
        let steps: Vec<u64> = place.records("run").iter().map(|r| r.step).collect();
        assert!(
            steps.is_sorted() && steps.ends_with(&[13, 14, 15, 16]),
            "{steps:?}"
        );
    }
}

#[test]
fn a_position_that_contradicts_the_step_is_an_error() {
    let place = Place::new();
    place.run("run", &[]).unwrap();
    let checkpoint = place.path("run/checkpoints/step-12");
    let state = fs::read(checkpoint.join("state.json")).unwrap();
    let text = String::from_utf8(state.clone()).unwrap();
    for (from, to, expected) in [
        (
            "\"micro_batches\": 12",
            "\"micro_batches\": 13",
            "the data position was",
        ),
        ("\"seed\": 0", "\"seed\": 1", "the random state was"),
        ("\"share\": 1.0", "\"share\": 0.5", "its share was"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        change(&checkpoint, "state.json", |_| changed.into_bytes());
        let error = place.resume("run", &[]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A malformed state is passed over.
    let passed = |json: &str| {
        change(&checkpoint, "state.json", |_| json.as_bytes().to_vec());
        place.resume("run", &[]).unwrap();
        assert_eq!(place.records("run").len(), 12);
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for json in ["", "{}", "[]", "null", deep.as_str()] {
        passed(json);
    }
    passed(&text.replace("\"step\": 12", "\"step\": 11"));
    passed(&text.replace("\"format\": 1", "\"format\": 2"));
    passed(&text.replace("\"tokens\":", "\"tokens\": -1, \"more\":"));
    change(&checkpoint, "state.json", |_| state);
    change(&checkpoint, "optimizer.safetensors", |bytes| {
        // One moment is missing.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains("moment_1"));
        bytes[..8].to_vec()
    });
    place.resume("run", &[]).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn arbitrary_configurations_do_not_panic(at in any::<Index>(), bit in 0_u32..9, value in "[\\[\\]{}=\"'.,0-9a-z_\n-]{0,12}") {
        static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            let place = Place::new();
            place.config(&[STAGES, "data.source=[{path='a', weight=1}, {path='b', weight=2}]"]).unwrap().to_toml()
        });
        let mut bytes = TEXT.clone().into_bytes();
        let place = at.index(bytes.len());
        match bit {
            8 => bytes.truncate(place),
            _ => bytes[place] ^= 1 << bit,
        }
        let mut spliced = TEXT.clone().into_bytes();
        let end = (place + value.len()).min(spliced.len());
        spliced.splice(place..end, value.bytes());
        let file = tempfile::NamedTempFile::new().unwrap();
        for bytes in [bytes, spliced] {
            fs::write(file.path(), bytes).unwrap();
            if let Err(error) = RunConfig::load(file.path(), &[]) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
        let _ = RunConfig::load(file.path(), &[format!("train.steps={value}"), value]);
    }
}
