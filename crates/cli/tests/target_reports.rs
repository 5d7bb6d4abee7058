//! `iiet compare` on sequence-to-sequence models, against `iiet generate`, `iiet score` and `iiet logits`.

mod words;

use std::fs;
use std::path::Path;
use std::process::Output;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

use words::{generate, golden, iiet, lines, text, with_words};

const SOURCES: [&str; 5] = [
    "w5 w9 w40",
    "w8",
    "w11 w3 w3 w77 w20 w6",
    "w50 w51",
    "w60 w7 w99",
];

/// Targets of up to seven words.
const SEARCH: [&str; 4] = ["--max-tokens", "7", "--min-tokens", "2"];

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Writes pairs for the task `translation`, and returns the folder for `--data`.
fn write_pairs(folder: &TempDir, name: &str, pairs: &[(&str, &str)]) -> String {
    let data = folder.path().join(name);
    fs::create_dir_all(data.join("translation")).unwrap();
    let rows = pairs.iter().map(|(source, target)| {
        let row = json!({"source": source, "target": target});
        row.to_string() + "\n"
    });
    let file = data.join("translation/test.jsonl");
    fs::write(file, rows.collect::<String>()).unwrap();
    data.display().to_string()
}

/// What a model makes of the sources; written to a file, too.
fn targets(model: &TempDir, file: &Path) -> Vec<String> {
    let sources = file.with_extension("sources");
    fs::write(&sources, SOURCES.join("\n")).unwrap();
    let sources = sources.display().to_string();
    let output = generate(model, &[&["--batch", &sources], &SEARCH[..]].concat());
    let targets = lines(&output)
        .iter()
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect();
    fs::write(file, text(&output.stdout)).unwrap();
    targets
}

fn compare(models: &[&TempDir], more: &[&str]) -> Output {
    let paths: Vec<String> = models
        .iter()
        .map(|model| model.path().display().to_string())
        .collect();
    let models = paths.iter().flat_map(|path| ["--model", path]);
    let arguments: Vec<&str> = ["compare"].into_iter().chain(models).collect();
    iiet(&[&arguments[..], more].concat())
}

#[test]
fn scores_are_those_of_score_and_costs_those_of_info() {
    let (a, b) = (with_words("rk2-iiet-schedule"), with_words("euler-euler"));
    let path = |name: &str| a.path().join(name);
    let name = |name: &str| path(name).display().to_string();
    let said = targets(&a, &path("a.jsonl"));
    targets(&b, &path("b.jsonl"));
    // Near to what the first model says, so that the scores are not 0.
    let near: Vec<String> = said.iter().map(|text| format!("{text} w99")).collect();
    fs::write(path("references.txt"), near.join("\n")).unwrap();
    let pairs: Vec<(&str, &str)> = SOURCES.into_iter().zip(near.iter().map(|x| &**x)).collect();
    let data = write_pairs(&a, "data", &pairs);
    let out = name("report.json");
    let more = [&["--data", &data, "--out", &out], &SEARCH[..]].concat();
    let output = compare(&[&a, &b], &more);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let score = iiet(&[
        "score",
        "--hypotheses",
        &name("a.jsonl"),
        &name("b.jsonl"),
        "--references",
        &name("references.txt"),
        "--metrics",
        "bleu,chrf",
        "--paired",
        "--out",
        &name("score.json"),
    ]);
    assert!(score.status.success(), "{}", text(&score.stderr));
    let (report, expected) = (read(Path::new(&out)), read(&path("score.json")));
    for (number, system) in [0, 1]
        .into_iter()
        .zip(expected["systems"].as_array().unwrap())
    {
        let model = &report["models"][number];
        let scores = model["quality"]["tasks"][0]["scores"].as_array().unwrap();
        assert_eq!(scores.len(), 2);
        for (found, expected) in scores.iter().zip(system["scores"].as_array().unwrap()) {
            for key in ["name", "score", "signature", "confidence_var", "p_value"] {
                assert_eq!(found[key], expected[key], "{key}");
            }
            assert!(printed.contains(expected["signature"].as_str().unwrap()));
        }
        assert!(model["speed"]["decoding"].as_f64().unwrap() > 0.0);
        assert!(model["speed"]["prefill"].as_f64().unwrap() > 0.0);
        assert!(
            model["quality"]["bits_per_byte"]["standard_error"]
                .as_f64()
                .unwrap()
                > 0.0
        );
    }
    assert!(
        report["models"][0]["quality"]["tasks"][0]["scores"][0]["score"]
            .as_f64()
            .unwrap()
            > 20.0
    );
    // Three layers of two evaluations, and two with two corrections together.
    let first = &report["models"][0];
    assert_eq!(first["encoder"]["solver"], "runge_kutta");
    assert_eq!(first["decoder"]["iterations"], json!([2, 0]));
    let tokens = &first["cost"];
    assert_eq!(tokens["encoder"]["evaluations"], 6);
    assert_eq!(tokens["decoder"]["evaluations_by_layer"], json!([3, 1]));
    assert_eq!(
        report["models"][1]["cost"]["encoder"]["share_of_evaluations"],
        0.5
    );
    assert_eq!(report["workload"]["beam"], 4);
    assert_eq!(report["tasks"][0]["search"]["max_new_tokens"], 7);
    for title in [
        "Cost and speed",
        "Cost of the sides",
        "Scores of texts",
        "Quality",
    ] {
        assert!(printed.contains(title), "{title}: {printed}");
    }
    let chart = fs::read_to_string(path("report.svg")).unwrap();
    assert!(chart.contains("BLEU of translation") && chart.contains("Bits per byte"));
}

/// The log-probabilities of tokens after a source, by `iiet logits`.
fn nats(model: &TempDir, source: &str, inputs: &str, outputs: &[usize]) -> f64 {
    let out = model.path().join("logits.safetensors");
    let output = iiet(&[
        "logits",
        "--model",
        &model.path().display().to_string(),
        "--source-ids",
        source,
        "--ids",
        inputs,
        "--out",
        &out.display().to_string(),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let bytes = fs::read(out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (logits, _) = file.tensor("logits").unwrap().data().as_chunks::<4>();
    let logits: Vec<f64> = logits
        .iter()
        .map(|x| f32::from_le_bytes(*x).into())
        .collect();
    let rows = logits.chunks(101).zip(outputs);
    rows.map(|(row, token)| {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row[*token] - sum.ln()
    })
    .sum()
}

#[test]
fn bits_per_byte_are_the_likelihood_of_the_references() {
    let model = with_words("pcformer4-euler-gqa");
    // The token 2 ends a source, begins a target and ends it.
    let pairs = [("w5 w9 w40", "w8 w12"), ("w8", "w100")];
    let nats =
        nats(&model, "5,9,40,2", "2,8,12", &[8, 12, 2]) + nats(&model, "8,2", "2,100", &[100, 2]);
    let bytes = ("w8 w12".len() + "w100".len()) as f64;
    let data = write_pairs(&model, "data", &pairs);
    let out = model.path().join("report.json");
    let report = out.display().to_string();
    let more = ["--tasks", "translation", "--data", &data, "--out", &report];
    let output = compare(&[&model], &[&more[..], &["--beam", "1"], &SEARCH].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = read(&out);
    let found = &report["models"][0]["quality"];
    let bits = found["bits_per_byte"]["value"].as_f64().unwrap();
    let expected = -nats / std::f64::consts::LN_2 / bytes;
    assert!((bits / expected - 1.0).abs() < 1e-5, "{bits} {expected}");
    // Five tokens with the ends.
    assert_eq!(found["bytes_per_token"].as_f64().unwrap(), bytes / 5.0);
    assert_eq!(report["workload"]["beam"], 1);
    assert!(text(&output.stdout).contains("targets of 32 with beam 1"));
}

#[test]
fn other_tokenizers_are_noted_and_pairs_that_do_not_fit_are_left_out_for_all() {
    let (a, b) = (with_words("euler-euler"), with_words("iiet-iiet"));
    let tokenizer = b.path().join("tokenizer.json");
    let other = fs::read_to_string(&tokenizer)
        .unwrap()
        .replace("w100", "v100");
    fs::write(&tokenizer, other).unwrap();
    let config = b.path().join("config.json");
    let mut short = read(&config);
    short["max_position_embeddings"] = 4.into();
    fs::write(&config, short.to_string()).unwrap();
    let pairs = [
        ("w5 w9 w40", "w8 w12"),
        ("w5 w9 w40 w41", "w8"),
        ("w8", "w8 w9 w10 w11"),
        ("w9", "w10"),
    ];
    let data = write_pairs(&a, "data", &pairs);
    let out = a.path().join("report.json");
    let more = ["--data", &data, "--max-tokens", "3", "--limit", "4"];
    let output = compare(
        &[&a, &b],
        &[&more[..], &["--out", &out.display().to_string()]].concat(),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    for note in [
        "The tokenizers differ",
        "The contexts differ",
        "The first 4 documents",
        "translation: 1 of 4 items are left out, because a model cannot answer them; item 1: the source has 5",
        "translation, likelihood of references: 2 of 4 items are left out",
    ] {
        assert!(printed.contains(note), "{note}: {printed}");
    }
    let report = read(&out);
    for model in report["models"].as_array().unwrap() {
        assert_eq!(model["quality"]["tasks"][0]["items"], 3);
        assert_eq!(model["quality"]["tasks"][1]["items"], 2);
    }
}

#[test]
fn bad_input_is_named_before_the_work() {
    let pair = with_words("euler-euler");
    let name = pair.path().display().to_string();
    let bare = golden("encoder-decoders/euler-euler").display().to_string();
    let language_model = golden("models/rk4").display().to_string();
    let data = write_pairs(&pair, "data", &[("w5", "w9")]);
    let empty = write_pairs(&pair, "empty", &[]);
    let missing = pair.path().join("missing").display().to_string();
    let other = pair.path().join("other");
    fs::create_dir(&other).unwrap();
    let other = other.display().to_string();
    let translation = ["--tasks", "translation"];
    for (models, more, expected) in [
        (
            vec![&name, &language_model],
            vec!["--data", &data],
            format!(
                "{language_model} is a language model and {name} a sequence-to-sequence model; models of one \
                 kind are compared"
            ),
        ),
        (
            vec![&language_model, &name],
            vec!["--data", &data],
            "models of one kind are compared".into(),
        ),
        (
            vec![&name],
            vec!["--tasks", "addition"],
            "addition: a task for language models".into(),
        ),
        (
            vec![&language_model],
            [&translation[..], &["--data", &data]].concat(),
            "translation: a task for sequence-to-sequence models".into(),
        ),
        (
            vec![&language_model],
            vec!["--tasks", "addition", "--beam", "2"],
            "--beam: for translation and summarisation; --tasks names neither".into(),
        ),
        (
            vec![&name],
            [&translation[..], &["--data", &data, "--beam", "0"]].concat(),
            "translation: beam is 0; allowed: 1 to 1024".into(),
        ),
        (
            vec![&name, &missing],
            vec!["--data", &data],
            "missing".into(),
        ),
        (
            vec![&name],
            vec!["--data", &missing],
            "there is no such folder or file".into(),
        ),
        (
            vec![&name],
            vec!["--data", &other],
            "allowed is a folder with translation or summarisation in it".into(),
        ),
        (
            vec![&name],
            [&translation[..], &["--data", &other]].concat(),
            "translation: no test data in".into(),
        ),
        (
            vec![&name],
            vec!["--data", &empty],
            "test.jsonl: nothing in it".into(),
        ),
        (
            vec![&name, &bare],
            vec!["--data", &data],
            "tokenizer.json: no such file".into(),
        ),
    ] {
        let models = models.into_iter().flat_map(|model| ["--model", model]);
        let arguments: Vec<&str> = ["compare"].into_iter().chain(models).collect();
        let output = iiet(&[&arguments[..], &more].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}: {error}");
        assert!(error.contains(&expected), "{expected:?}: {error}");
        assert!(text(&output.stdout).is_empty());
    }
}
