//! Prompts and numbers of every task of the harness, on small files, against the harness itself:
//! `harness/expected.py` wrote the expected values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use iiet_eval::{
    Continuation, EvalError, Generation, Item, Progress, RollingScore, Scored, Scorer, Settings,
    Unscorable, prepare, results, task,
};
use serde::Deserialize;
use serde_json::Value;

/// What the harness made of a task.
#[derive(Deserialize)]
struct Expected {
    version: f64,
    metrics: BTreeMap<String, Value>,
    /// For each document the texts of each request.
    requests: Vec<Vec<Vec<String>>>,
}

/// `hashed` of `expected.py`: as good as random, and the same in both languages.
fn hashed(texts: &[&str]) -> Scored {
    let step = |h: u32, byte: u8| h.wrapping_mul(131).wrapping_add(u32::from(byte));
    let hash = texts.join("\0").bytes().fold(0, step);
    Scored {
        log_likelihood: -f64::from(hash % 100_003) / 1000.0,
        is_greedy: hash % 5 == 0,
    }
}

struct Hashing;

impl Scorer for Hashing {
    fn log_likelihood(
        &self,
        requests: &[Continuation],
        _: &dyn Progress,
    ) -> Result<Vec<Result<Scored, Unscorable>>, EvalError> {
        let score = |request: &Continuation| Ok(hashed(&[&request.context, &request.continuation]));
        Ok(requests.iter().map(score).collect())
    }

    fn log_likelihood_rolling(
        &self,
        texts: &[String],
        _: &dyn Progress,
    ) -> Result<Vec<RollingScore>, EvalError> {
        let score = |text: &String| RollingScore {
            log_likelihood: hashed(&[text]).log_likelihood,
            tokens: 1,
        };
        Ok(texts.iter().map(score).collect())
    }

    fn generate_until(&self, _: &[Generation], _: &dyn Progress) -> Result<Vec<String>, EvalError> {
        Err(EvalError::Scorer {
            message: "no task generates".to_owned(),
        })
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness")
}

fn settings(num_fewshot: usize) -> Settings {
    Settings {
        data: Some(folder().join("data")),
        num_fewshot,
        ..Settings::default()
    }
}

fn requests(item: &Item) -> Vec<Vec<String>> {
    let texts =
        |request: &Continuation| vec![request.context.to_string(), request.continuation.clone()];
    match item {
        Item::Choice { requests, .. } => requests.iter().map(texts).collect(),
        Item::Cloze(request) => vec![texts(request)],
        Item::Rolling { scored, .. } => vec![vec![scored.clone()]],
        // The harness has no such task.
        Item::Targets { .. } | Item::TargetText { .. } => Vec::new(),
    }
}

#[test]
fn prompts_and_numbers_are_the_harness_ones() {
    let text = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let expected: BTreeMap<usize, BTreeMap<String, Expected>> =
        serde_json::from_str(&text).unwrap();
    assert_eq!(expected.keys().copied().collect::<Vec<_>>(), [0, 1, 5]);
    for (shots, tasks) in expected {
        for (name, expected) in tasks {
            let place = format!("{name}, {shots} examples");
            let prepared = prepare(task(&name).unwrap(), &settings(shots)).unwrap();
            assert_eq!(prepared.task.version, expected.version, "{place}");
            assert_eq!(prepared.items.len(), expected.requests.len(), "{place}");
            for (number, (item, expected)) in
                prepared.items.iter().zip(&expected.requests).enumerate()
            {
                assert_eq!(requests(item), *expected, "{place}, document {number}");
            }
            let evaluated = prepared.evaluate(&Hashing, &()).unwrap();
            let json = results(&[(&prepared, &evaluated)], &provenance());
            for (key, expected) in &expected.metrics {
                let found = &json["results"][&name][key];
                match (found.as_f64(), expected.as_f64()) {
                    (Some(found), Some(expected)) => assert!(
                        (found - expected).abs() <= 1e-9 * expected.abs(),
                        "{place}, {key}: {found} {expected}"
                    ),
                    _ => assert_eq!(found, expected, "{place}, {key}"),
                }
            }
            assert_eq!(json["n-shot"][&name], shots);
        }
    }
}

fn provenance() -> iiet_eval::Provenance {
    iiet_eval::Provenance {
        model: "hash".to_owned(),
        model_hash: String::new(),
        precision: "f32".to_owned(),
        corrections: None,
        git_revision: None,
        limit: None,
        date: 0.0,
        tokenizer: String::new(),
    }
}

#[test]
fn a_limit_takes_the_first_documents() {
    let all = prepare(task("piqa").unwrap(), &settings(2)).unwrap();
    let some = Settings {
        limit: Some(3),
        ..settings(2)
    };
    let some = prepare(task("piqa").unwrap(), &some).unwrap();
    assert_eq!((some.original, some.documents.len()), (8, 3));
    for (some, all) in some.items.iter().zip(&all.items) {
        assert_eq!(requests(some), requests(all));
    }
}

#[test]
fn mistakes_name_the_place() {
    let error = |name: &str, file: &str, content: &str| {
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join(name)).unwrap();
        std::fs::write(data.path().join(name).join(file), content).unwrap();
        let settings = Settings {
            data: Some(data.path().to_owned()),
            ..settings(0)
        };
        prepare(task(name).unwrap(), &settings)
            .unwrap_err()
            .to_string()
    };
    let good = r#"{"goal": "g", "sol1": "a", "sol2": "b", "label": 1}"#;
    for (line, expected) in [
        (
            r#"{"goal": "g", "sol1": "a", "sol2": "b", "label": 2}"#,
            "field \"label\": found 2, expected a whole number from 0 to 1",
        ),
        (
            r#"{"goal": "g", "sol1": "a", "label": 1}"#,
            "field \"sol2\": found no such field among",
        ),
        (
            r#"{"goal": 7, "sol1": "a", "sol2": "b", "label": 1}"#,
            "field \"goal\": found 7, expected a text",
        ),
        (r#"{"goal": "g", "sol1""#, "not JSON"),
        ("[]", "not an object"),
    ] {
        let error = error("piqa", "validation.jsonl", &format!("{good}\n{line}\n"));
        assert!(error.contains("validation.jsonl, row 2"), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let key = r#"{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"}"#;
    let found = error("arc_easy", "test.jsonl", key);
    assert!(
        found.contains("field \"answerKey\": found \"C\", expected one of A, B"),
        "{found}"
    );
    let found = error("piqa", "train.jsonl", good);
    assert!(found.contains("piqa: no validation data in"), "{found}");
    assert!(found.contains("piqa/validation.jsonl"), "{found}");
    assert!(error("piqa", "validation.jsonl", "\n").contains("nothing in it"));
    assert!(error("piqa", "validation.parquet", "PAR1").contains("not a readable Parquet file"));
    assert!(
        error("piqa", "validation.arrow", "ARROW1xx").contains("not a readable Arrow IPC file")
    );

    let error = prepare(task("arc_easy").unwrap(), &settings(9)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "arc_easy: 9 examples are to be drawn for each prompt, the train split has 8 rows"
    );
    let error = task("arc").unwrap_err().to_string();
    assert!(error.contains("arc_challenge, arc_easy, boolq"), "{error}");
}

/// What the harness logs: `harness/samples.py` wrote it.
#[test]
fn records_and_hashes_are_the_harness_ones() {
    let text = std::fs::read_to_string(folder().join("samples.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    for (shots, hashes) in expected["task_hashes"].as_object().unwrap() {
        for (name, hash) in hashes.as_object().unwrap() {
            let settings = settings(shots.parse().unwrap());
            let prepared = prepare(task(name).unwrap(), &settings).unwrap();
            assert_eq!(prepared.hash, *hash, "{name}, {shots} examples");
        }
    }
    let mut tasks = 0;
    for (name, records) in expected {
        let Some(records) = records.as_array() else {
            continue;
        };
        let prepared = prepare(task(&name).unwrap(), &settings(0)).unwrap();
        let evaluated = prepared.evaluate(&Hashing, &()).unwrap();
        let mut written = Vec::new();
        iiet_eval::samples::write(&mut written, (&prepared, &evaluated)).unwrap();
        let lines = std::str::from_utf8(&written).unwrap().lines();
        for (line, expected) in lines.zip(records) {
            let found: Value = serde_json::from_str(line).unwrap();
            for (key, expected) in expected.as_object().unwrap() {
                // These tell of one more metric, which depends on the tokenizer.
                if key == "metrics" {
                    let found = found[key].as_array().unwrap();
                    let expected = expected.as_array().unwrap();
                    assert!(expected.iter().all(|name| found.contains(name)), "{name}");
                    continue;
                }
                match (found[key].as_f64(), expected.as_f64()) {
                    // Python writes 0 and 0.0.
                    (Some(found), Some(expected)) => assert_eq!(found, expected, "{name}, {key}"),
                    _ => assert_eq!(found[key], *expected, "{name}, {key}"),
                }
            }
        }
        tasks += 1;
    }
    assert_eq!(tasks, 11);
}
