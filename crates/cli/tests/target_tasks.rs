//! `iiet eval` on sequence-to-sequence models, against `iiet generate` and `iiet score`.

mod words;

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use words::{generate, golden, iiet, lines, text, with_words};

/// Writes pairs of words for a task, and returns the folder for `--data`.
fn pairs(folder: &TempDir, task: &str, targets: &[&str]) -> String {
    let data = folder.path().join("data");
    fs::create_dir_all(data.join(task)).unwrap();
    let rows = SOURCES.iter().zip(targets).map(|(source, target)| {
        let row = json!({"source": source, "target": target});
        row.to_string() + "\n"
    });
    let file = data.join(task).join("test.jsonl");
    fs::write(file, rows.collect::<String>()).unwrap();
    data.display().to_string()
}

const SOURCES: [&str; 4] = ["w5 w9 w40", "w8", "w11 w3 w3 w77 w20 w6", "w50 w51"];

#[test]
fn eval_gives_the_scores_of_generate_and_score() {
    let model = with_words("rk2-iiet-schedule");
    let path = |name: &str| model.path().join(name).display().to_string();
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(model.path().join(name)).unwrap()).unwrap()
    };
    let sources = path("sources.txt");
    fs::write(&sources, SOURCES.join("\n")).unwrap();
    let search = ["--max-tokens", "7", "--min-tokens", "2", "--beam", "3"];
    let batch = [&["--batch", &sources], &search[..]].concat();
    let output = generate(&model, &batch);
    let texts: Vec<String> = lines(&output)
        .iter()
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect();
    fs::write(path("targets.jsonl"), text(&output.stdout)).unwrap();
    // Near to what the model says, so that the scores are not 0.
    let near: Vec<String> = texts.iter().map(|text| format!("{text} w99")).collect();
    let near: Vec<&str> = near.iter().map(String::as_str).collect();
    let data = pairs(&model, "translation", &near);
    fs::write(path("references.txt"), near.join("\n")).unwrap();

    let name = model.path().display().to_string();
    let eval = [
        "eval",
        "--model",
        &name,
        "--tasks",
        "translation",
        "--data",
        &data,
    ];
    let output = iiet(
        &[
            &eval[..],
            &search,
            &["--out", &path("eval.json"), "--log-samples"],
        ]
        .concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let score = iiet(&[
        "score",
        "--hypotheses",
        &path("targets.jsonl"),
        "--references",
        &path("references.txt"),
        "--metrics",
        "bleu,chrf",
        "--confidence",
        "--out",
        &path("score.json"),
    ]);
    assert!(score.status.success(), "{}", text(&score.stderr));
    let (found, expected) = (read("eval.json"), read("score.json"));
    let expected = &expected["systems"][0]["scores"];
    assert_eq!(&found["text_scores"]["translation"], expected);
    for metric in expected.as_array().unwrap() {
        let key = format!("{},none", metric["name"].as_str().unwrap());
        assert_eq!(found["results"]["translation"][key], metric["score"]);
        assert!(metric["score"].as_f64().unwrap() > 20.0, "{metric}");
        assert!(
            printed.contains(metric["signature"].as_str().unwrap()),
            "{printed}"
        );
    }
    let options = &found["configs"]["translation"]["generation_kwargs"];
    let expected = json!({
        "num_beams": 3, "length_penalty": 0.6, "min_new_tokens": 2, "max_new_tokens": 7,
        "no_repeat_ngram_size": 0,
    });
    assert_eq!(*options, expected);
    let samples = fs::read_dir(model.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut samples = samples.filter(|path| path.display().to_string().contains("samples_"));
    let samples = fs::read_to_string(samples.next().unwrap()).unwrap();
    let responses: Vec<Value> = samples
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["resps"][0][0].clone())
        .collect();
    assert_eq!(responses, texts);
}

#[test]
fn two_models_are_compared_by_the_paired_test_of_score() {
    let (a, b) = (with_words("rk2-iiet-schedule"), with_words("euler-euler"));
    let path = |name: &str| a.path().join(name).display().to_string();
    let sources = path("sources.txt");
    fs::write(&sources, SOURCES.join("\n")).unwrap();
    let search = ["--max-tokens", "7", "--min-tokens", "2"];
    let batch = [
        &["--batch", &sources, "--no-repeat-ngram", "3"],
        &search[..],
    ]
    .concat();
    let batch = [&batch[..], &["--length-penalty", "2"]].concat();
    for (model, file) in [(&a, "a.jsonl"), (&b, "b.jsonl")] {
        let output = generate(model, &batch);
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::write(path(file), text(&output.stdout)).unwrap();
    }
    let of_a = fs::read_to_string(path("a.jsonl")).unwrap();
    let targets = of_a
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let targets: Vec<String> = targets
        .map(|line| line["text"].as_str().unwrap().into())
        .collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let data = pairs(&a, "summarisation", &targets);
    fs::write(path("references.txt"), targets.join("\n")).unwrap();
    let models = [&a, &b].map(|model| model.path().display().to_string());
    let eval = ["eval", "--model", &models[0], "--model", &models[1]];
    let tasks = ["--tasks", "summarisation", "--data", &data];
    let out = path("eval.json");
    let output = iiet(&[&eval[..], &tasks, &search, &["--out", &out]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let score = iiet(&[
        "score",
        "--hypotheses",
        &path("a.jsonl"),
        &path("b.jsonl"),
        "--references",
        &path("references.txt"),
        "--metrics",
        "rouge",
        "--stemmer",
        "--paired",
        "--out",
        &path("score.json"),
    ]);
    assert!(score.status.success(), "{}", text(&score.stderr));
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(a.path().join(name)).unwrap()).unwrap()
    };
    let (found, expected) = (read("eval.json"), read("score.json"));
    let differences = found["differences"].as_array().unwrap();
    let expected = expected["systems"][1]["scores"].as_array().unwrap();
    assert_eq!(differences.len(), 4);
    for (found, expected) in differences.iter().zip(expected) {
        assert_eq!(found["metric"], expected["name"]);
        assert_eq!(found["second"], expected["score"]);
        assert_eq!(found["p_value"], expected["p_value"]);
        assert_eq!(found["first"], 1.0);
    }
    let printed = text(&output.stdout);
    assert!(
        printed.contains("| rouge1") && printed.contains("| p "),
        "{printed}"
    );
}

#[test]
fn eval_refuses_tasks_and_options_of_the_other_kind_of_model() {
    let pair = with_words("euler-euler");
    let name = pair.path().display().to_string();
    let language_model = golden("models/rk4").display().to_string();
    let data = pairs(&pair, "translation", &SOURCES);
    let with_data = ["--data", &data[..]];
    for (model, more, expected) in [
        (
            &name,
            vec!["--tasks", "addition"],
            "addition: a task for language models",
        ),
        (
            &language_model,
            vec!["--tasks", "translation", with_data[0], with_data[1]],
            "translation: a task for sequence-to-sequence models",
        ),
        (
            &language_model,
            vec!["--tasks", "addition", "--beam", "2"],
            "--beam: for translation and summarisation; --tasks names neither",
        ),
        (
            &name,
            vec!["--tasks", "summarisation", with_data[0], with_data[1]],
            "summarisation: no test data in",
        ),
        (
            &name,
            vec!["--tasks", "translation"],
            "without --data DIR; looked for translation/test.jsonl",
        ),
        (
            &name,
            vec![
                "--tasks",
                "translation",
                with_data[0],
                with_data[1],
                "--beam",
                "0",
            ],
            "beam is 0; allowed: 1 to 1024",
        ),
        (
            &name,
            vec![
                "--tasks",
                "translation",
                with_data[0],
                with_data[1],
                "--tolerance",
                "1",
            ],
            "--iterations and --tolerance: for language models",
        ),
    ] {
        let output = iiet(&[&["eval", "--model", model], &more[..]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}: {error}");
        assert!(error.contains(expected), "{expected:?}: {error}");
    }
}
