//! `iiet generate` on a sequence-to-sequence model, against the logits of the command that has no caches.

mod words;

use std::fs;

use safetensors::SafeTensors;
use serde_json::json;
use tempfile::TempDir;

use words::{generate, golden, iiet, lines, text, with_words};

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
    let bytes = fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (numbers, _) = file.tensor("logits").unwrap().data().as_chunks::<4>();
    let logits: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
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
            vec!["--source", "w5", "--n-best", "2"],
            "--n-best: for --batch, whose lines have the scores".into(),
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
