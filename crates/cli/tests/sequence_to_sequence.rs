//! The commands on the directory of a sequence-to-sequence model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

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
fn commands_for_language_models_refuse_it_by_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (out, run) = (path("out"), path("run"));
    let model = golden("encoder-decoders/euler-euler").display().to_string();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/distill.toml");
    let config = config.display().to_string();
    let expected = format!(
        "{model}/config.json: is_encoder_decoder is true: this is a sequence-to-sequence model, and a language model is needed here"
    );
    for arguments in [
        vec!["eval", "--model", &model, "--tasks", "addition"],
        vec!["compare", "--model", &model, "--tasks", "addition"],
        vec![
            "convert",
            "--model",
            &model,
            "--solver",
            "runge_kutta",
            "--out",
            &out,
        ],
        vec!["influence", "--model", &model, "--data", &out],
        vec![
            "distill",
            "--teacher",
            &model,
            "--threshold",
            "0.1",
            "--config",
            &config,
            "--run",
            &run,
        ],
    ] {
        let output = iiet(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(&expected), "{arguments:?}: {error}");
    }
    assert!(!Path::new(&out).exists());
}

/// A golden model with a tokenizer, in which the word w7 is the token 7, and 2 is the end of a document.
fn with_words(case: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        let from = golden("encoder-decoders").join(case).join(file);
        fs::copy(from, folder.path().join(file)).unwrap();
    }
    let special = ["<unk>", "<s>", "</s>"];
    let words = (3..101).map(|id| format!("w{id}"));
    let words = special.iter().map(|word| (*word).to_owned()).chain(words);
    let vocab: serde_json::Map<String, Value> =
        words.zip(0..).map(|(word, id)| (word, id.into())).collect();
    let added: Vec<Value> = special
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({
                "id": id, "content": content, "special": true, "normalized": false,
                "single_word": false, "lstrip": false, "rstrip": false,
            })
        })
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "added_tokens": added,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

fn generate(model: &TempDir, more: &[&str]) -> Output {
    let model = model.path().display().to_string();
    iiet(&[&["generate", "--model", &model], more].concat())
}

/// Lines of JSON on standard output.
fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let lines = printed.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// The log-probabilities of the tokens after each token of a target, from the command that has no caches.
fn log_p(model: &TempDir, source: &str, target: &[u32]) -> Vec<Vec<f64>> {
    let out = model.path().join("logits.safetensors");
    let ids: Vec<String> = target.iter().map(u32::to_string).collect();
    let output = iiet(&[
        "logits",
        "--model",
        &model.path().display().to_string(),
        "--source-ids",
        source,
        "--ids",
        &ids.join(","),
        "--out",
        &out.display().to_string(),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (logits, _) = Read::file(&out).floats("logits");
    let rows = logits.chunks(101).map(|row| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        row.iter().map(|x| f64::from(*x) - sum.ln()).collect()
    });
    rows.collect()
}

/// The tokens of a text of words.
fn tokens(text: &str) -> Vec<u32> {
    let words = text.split_whitespace();
    words.map(|word| word[1..].parse().unwrap()).collect()
}

#[test]
fn targets_have_the_log_probability_that_their_logits_say() {
    let model = with_words("rk2-iiet-schedule");
    let file = model.path().join("sources.jsonl");
    let sources = ["w5 w9 w40", "w8", "w11 w3 w3 w77 w20 w6"];
    let written = sources.map(|source| json!({"source": source}).to_string());
    fs::write(&file, written.join("\n")).unwrap();
    let file = file.display().to_string();
    let more = [
        "--batch",
        &file,
        "--beam",
        "3",
        "--n-best",
        "3",
        "--max-tokens",
        "5",
    ];
    let options = [
        "--batch-size",
        "2",
        "--length-penalty",
        "1.5",
        "--no-repeat-ngram",
        "1",
    ];
    let found = lines(&generate(&model, &[&more[..], &options].concat()));
    assert_eq!(found.len(), 3);
    for (source, found) in sources.iter().zip(found) {
        assert_eq!(found["source"], *source);
        let best = found["n_best"].as_array().unwrap();
        assert_eq!(best.len(), 3);
        assert_eq!(found["text"], best[0]["text"]);
        let scores: Vec<f64> = best.iter().map(|h| h["score"].as_f64().unwrap()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
        let source: Vec<String> = tokens(source).iter().map(u32::to_string).collect();
        let source = source.join(",") + ",2";
        for (found, score) in best.iter().zip(scores) {
            let target = tokens(found["text"].as_str().unwrap());
            assert_eq!(found["tokens"], target.len());
            let unique: std::collections::HashSet<u32> = target.iter().copied().collect();
            assert_eq!(unique.len(), target.len(), "{found}");
            let log_p = log_p(&model, &source, &[&[2], &target[..]].concat());
            let wanted = target.iter().chain(&[2]);
            let sum: f64 = log_p
                .iter()
                .zip(wanted)
                .map(|(log_p, id)| log_p[*id as usize])
                .sum();
            let stated = found["log_probability"].as_f64().unwrap();
            assert!((stated - sum).abs() < 1e-3, "{found}: {sum}");
            let expected = stated / ((target.len() + 1) as f64).powf(1.5);
            assert!((score - expected).abs() < 1e-9, "{found}");
            let end = if target.len() == 5 { "length" } else { "token" };
            assert_eq!(found["end"], end);
        }
    }
}

#[test]
fn one_beam_prints_the_most_likely_tokens_and_nothing_else() {
    let model = with_words("iiet-iiet");
    let output = generate(
        &model,
        &["--source", "w5 w9 w40", "--beam", "1", "--max-tokens", "6"],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let mut target = vec![2];
    for token in tokens(&printed) {
        let last = log_p(&model, "5,9,40,2", &target).pop().unwrap();
        let best = (0..101)
            .max_by(|a, b| last[*a].total_cmp(&last[*b]))
            .unwrap();
        assert_eq!(token as usize, best, "{printed}");
        target.push(token);
    }
    assert!(target.len() > 1 && printed.ends_with('\n'));
    let error = text(&output.stderr);
    assert!(
        error.contains("the target ended") && error.contains("tokens/s"),
        "{error}"
    );

    // A beam of several, from one source and from a file of lines.
    let options = ["--max-tokens", "6", "--min-tokens", "3"];
    let output = generate(&model, &[&["--source", "w5 w9 w40"], &options[..]].concat());
    let alone = text(&output.stdout);
    let file = model.path().join("sources.txt");
    fs::write(&file, "\nw5 w9 w40\n").unwrap();
    let file = file.display().to_string();
    let found = lines(&generate(
        &model,
        &[&["--batch", &file], &options[..]].concat(),
    ));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["text"].as_str(), alone.strip_suffix('\n'));
    assert!(found[0]["tokens"].as_u64().unwrap() >= 3);
    assert_eq!(found[0].get("n_best"), None);
}

#[test]
fn generate_refuses_what_the_kind_of_model_does_not_have() {
    let pair = with_words("euler-euler");
    let language_model = golden("models/rk4").display().to_string();
    let file = pair.path().join("sources.txt");
    fs::write(&file, "w5\n \nw6 w7\n").unwrap();
    let long = vec!["w5"; 2048].join(" ");
    let name = pair.path().display().to_string();
    let of_language_models = |option: &str| format!("{option}: for language models; {name} is a");
    for (model, more, expected) in [
        (
            &name,
            vec!["--prompt", "w5"],
            format!(
                "--prompt: {name} is a sequence-to-sequence model, which has no prompt; give --source"
            ),
        ),
        (
            &language_model,
            vec!["--source", "w5"],
            format!(
                "--source: {language_model} is a language model, which has no source; give --prompt"
            ),
        ),
        (
            &language_model,
            vec!["--prompt", "w5", "--length-penalty", "1"],
            "--length-penalty: for sequence-to-sequence models".into(),
        ),
        (
            &name,
            vec!["--source", "w5", "--temperature", "0.5"],
            of_language_models("--temperature"),
        ),
        (
            &name,
            vec!["--source", "w5", "--stop", "x"],
            of_language_models("--stop"),
        ),
        (
            &name,
            vec!["--source", "w5", "--iterations", "2"],
            "--iterations and --tolerance: for language models".into(),
        ),
        (
            &name,
            vec!["--source", "w5", "--beam", "0"],
            "beam is 0; allowed: 1 to 1024".into(),
        ),
        (
            &name,
            vec!["--source", "w5", "--min-tokens", "9", "--max-tokens", "8"],
            "min_tokens is 9; allowed: 0 to 8, the value of max_tokens".into(),
        ),
        (
            &name,
            vec!["--source", " "],
            "the source is empty; allowed: one token and more".into(),
        ),
        (
            &name,
            vec!["--source", &long],
            "the source has 2049 tokens, the model's context 2048".into(),
        ),
        (
            &name,
            vec![
                "--source",
                "w5",
                "--max-tokens",
                "3000",
                "--min-tokens",
                "2048",
            ],
            "min_tokens is 2048; allowed: 0 to 2047, which the model's context holds".into(),
        ),
    ] {
        let output = iiet(&[&["generate", "--model", model], &more[..]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}: {error}");
        assert!(error.contains(&expected), "{expected:?}: {error}");
        assert!(output.stdout.is_empty());
    }
    fs::remove_file(pair.path().join("tokenizer.json")).unwrap();
    let output = generate(&pair, &["--batch", &file.display().to_string()]);
    let error = text(&output.stderr);
    assert!(error.contains("tokenizer.json: no such file"), "{error}");
}
