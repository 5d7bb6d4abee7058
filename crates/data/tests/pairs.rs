//! Prompts with completions, from a file of records to batches.

use std::fs;
use std::path::Path;

use iiet_data::{DataConfig, DataError, MixedBatches, SourceSpec, prepare_corpus};

fn config(root: &Path, name: &str) -> DataConfig {
    DataConfig {
        source: SourceSpec::One(root.join(name).display().to_string()),
        vocab_size: 280,
        prompt_field: Some("question".to_owned()),
        completion_field: Some("answer".to_owned()),
        cache: root.join("cache"),
        ..DataConfig::default()
    }
}

fn record(i: usize) -> String {
    format!(
        "{{\"question\": \"{i} + 1 =\\n\", \"answer\": \" {}\"}}\n",
        i + 1
    )
}

#[test]
fn only_completions_and_their_ends_have_weight() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(
        root.join("a.jsonl"),
        (0..60).map(record).collect::<String>(),
    )
    .unwrap();
    let corpus = prepare_corpus(&config(root, "a.jsonl"), &()).unwrap();
    let tokenizer = &corpus.tokenizer;
    let prepared = corpus.sources[0].prepared().unwrap();
    assert_eq!(
        (prepared.train.documents(), prepared.validation.documents()),
        (57, 3)
    );

    let batches = MixedBatches::of(&corpus.train(32).unwrap(), 19, 0).unwrap();
    let mut seen = Vec::new();
    for index in 0..3 {
        let batch = batches.get(index).unwrap();
        for (row, counted) in batch.counted_targets().enumerate() {
            let counted: Vec<u32> = counted.collect();
            assert_eq!(counted.last(), tokenizer.document_end().as_ref());
            let answer = tokenizer.decode(&counted).unwrap();
            let all = tokenizer.decode(&batch.inputs[row * 32..][..32]).unwrap();
            let (question, _) = all.split_once(" + 1").unwrap();
            let question: usize = question.parse().unwrap();
            assert_eq!(answer, format!(" {}", question + 1));
            seen.push(question);
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 57, "an epoch visits every pair once");

    // The prompt's tokens equal those of the prompt alone, as encoded for generation.
    let document = prepared.train.document(0).unwrap();
    let tokens = prepared.train.read(document).unwrap();
    let prompt = prepared.train.prompt_tokens(0).unwrap() as usize;
    let text = tokenizer.decode(&tokens[..prompt]).unwrap();
    assert!(text.ends_with("=\n"), "{text}");
    assert_eq!(tokenizer.encode(&text).unwrap(), tokens[..prompt]);
}

#[test]
fn a_few_pairs_are_divided_whole_and_each_field_is_a_key_of_the_corpus() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a.jsonl"), (0..3).map(record).collect::<String>()).unwrap();
    let pairs = config(root, "a.jsonl");
    let corpus = prepare_corpus(&pairs, &()).unwrap();
    let prepared = corpus.sources[0].prepared().unwrap();
    assert_eq!(
        (prepared.train.documents(), prepared.validation.documents()),
        (2, 1)
    );
    let swapped = DataConfig {
        prompt_field: pairs.completion_field.clone(),
        completion_field: pairs.prompt_field.clone(),
        ..pairs
    };
    let swapped = prepare_corpus(&swapped, &()).unwrap();
    assert_ne!(
        swapped.sources[0].prepared().unwrap().directory,
        prepared.directory
    );
}

#[test]
fn errors_describe_the_mistake() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a.txt"), "text\n".repeat(100)).unwrap();
    let error = prepare_corpus(&config(root, "a.txt"), &())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a.txt: a text file holds no prompts"),
        "{error}"
    );
    assert!(error.contains(".jsonl"), "{error}");

    fs::write(
        root.join("a.jsonl"),
        record(1).repeat(40) + "{\"question\": \"x\"}\n",
    )
    .unwrap();
    let error = prepare_corpus(&config(root, "a.jsonl"), &())
        .unwrap_err()
        .to_string();
    assert!(error.contains("a.jsonl:41: no field \"answer\""), "{error}");

    let half = DataConfig {
        completion_field: None,
        ..config(root, "a.jsonl")
    };
    let error = prepare_corpus(&half, &()).unwrap_err().to_string();
    assert!(error.contains("data.completion_field = nothing"), "{error}");

    fs::write(
        root.join("b.jsonl"),
        (0..60).map(record).collect::<String>(),
    )
    .unwrap();
    let corpus = prepare_corpus(&config(root, "b.jsonl"), &()).unwrap();
    let error = corpus.train(3).unwrap_err();
    assert!(
        matches!(error, DataError::ExamplesTooLong { of: 57, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("raise model.seq_len"), "{error}");
}
