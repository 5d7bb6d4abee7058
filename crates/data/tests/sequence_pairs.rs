//! Pairs of source and target, from a file of records to batches.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use iiet_data::{BatchSize, Corpus, DataConfig, DataError, OnError, SourceSpec, prepare_corpus};

fn config(root: &Path, name: &str) -> DataConfig {
    DataConfig {
        source: SourceSpec::One(root.join(name).display().to_string()),
        vocab_size: 300,
        source_field: Some("en".to_owned()),
        target_field: Some("de".to_owned()),
        cache: root.join("cache"),
        ..DataConfig::default()
    }
}

/// Sources of 1 to 7 words and targets of 1 to 5.
fn texts(i: usize) -> (String, String) {
    let source = format!("number {i}{}", " and one".repeat(i % 4));
    let target = format!("Zahl {i}{}", " und eins".repeat(i % 3));
    (source, target)
}

fn records(count: usize) -> String {
    let record = |i| {
        let (source, target) = texts(i);
        format!("{}\n", serde_json::json!({ "en": source, "de": target }))
    };
    (0..count).map(record).collect()
}

fn prepared(root: &Path, count: usize) -> Corpus {
    fs::write(root.join("a.jsonl"), records(count)).unwrap();
    prepare_corpus(&config(root, "a.jsonl"), &()).unwrap()
}

#[test]
fn each_batch_holds_sources_and_targets_of_the_same_pairs() {
    let root = tempfile::tempdir().unwrap();
    let corpus = prepared(root.path(), 100);
    assert!(corpus.has_sources());
    let tokenizer = &corpus.tokenizer;
    let end = tokenizer.document_end().unwrap();
    let all: BTreeSet<_> = (0..100).map(texts).collect();
    let batches = corpus.training_batches(64, BatchSize::Rows(9), 0).unwrap();
    let mut seen = BTreeSet::new();
    for index in 0..11 {
        let batch = batches.get(index).unwrap();
        let sources = batch.source.as_ref().unwrap();
        assert_eq!(sources.lengths.len(), batch.batch);
        for row in 0..batch.batch {
            let source = &sources.ids[row * sources.seq..][..sources.lengths[row]];
            assert_eq!(source.last(), Some(&end));
            let inputs = &batch.inputs[row * batch.seq..][..batch.seq];
            let targets = &batch.targets[row * batch.seq..][..batch.seq];
            let weights = &batch.weights[row * batch.seq..][..batch.seq];
            let length = weights.iter().filter(|weight| **weight == 1.0).count();
            assert_eq!((inputs[0], targets[length - 1]), (end, end));
            assert_eq!(inputs[1..length], targets[..length - 1]);
            assert_eq!(weights[length..], vec![0.0; batch.seq - length]);
            let decoded = |tokens| tokenizer.decode(tokens).unwrap();
            let pair = (decoded(source), decoded(&targets[..length]));
            assert!(all.contains(&pair), "{pair:?}");
            seen.insert(pair);
        }
    }
    assert_eq!(seen.len(), 95, "an epoch visits every pair once");
    assert_eq!(batches.rows_before(11), [95]);
    assert_eq!(batches.epochs_before(11), [1.0]);
    assert_eq!(
        (batches.shares(), batches.epoch_rows()),
        (vec![1.0], vec![95])
    );

    // The other five are held out.
    let held_out = corpus.held_out();
    let pairs = held_out[0].rows.pairs(64).unwrap().unwrap();
    let rest: BTreeSet<_> = pairs
        .pairs_of_texts(tokenizer)
        .map(Result::unwrap)
        .collect();
    assert_eq!(rest.len(), 5);
    assert!(seen.is_disjoint(&rest));
    assert_eq!(seen.union(&rest).cloned().collect::<BTreeSet<_>>(), all);
    let evaluated = held_out[0]
        .rows
        .evaluation_batches(64, BatchSize::Tokens(64), 1 << 20)
        .unwrap();
    let rows: usize = evaluated.iter().map(|batch| batch.batch).sum();
    assert_eq!(rows, 5);
}

#[test]
fn the_tokenizer_is_trained_on_both_sides() {
    let root = tempfile::tempdir().unwrap();
    let tokenizer = prepared(root.path(), 200).tokenizer;
    for word in [" and", " und"] {
        assert_eq!(tokenizer.encode(word).unwrap().len(), 1, "{word}");
    }
}

#[test]
fn the_same_file_as_prompts_and_as_pairs_is_two_corpora() {
    let root = tempfile::tempdir().unwrap();
    let pairs = prepared(root.path(), 60);
    let as_prompts = DataConfig {
        source_field: None,
        target_field: None,
        prompt_field: Some("en".to_owned()),
        completion_field: Some("de".to_owned()),
        ..config(root.path(), "a.jsonl")
    };
    let prompts = prepare_corpus(&as_prompts, &()).unwrap();
    let directory = |corpus: &Corpus| corpus.sources[0].prepared().unwrap().directory.clone();
    assert_ne!(directory(&pairs), directory(&prompts));
    assert!(!prompts.has_sources());
    let again = prepare_corpus(&config(root.path(), "a.jsonl"), &()).unwrap();
    assert!(again.sources[0].prepared().unwrap().reused);

    // Rows of one length are no batches of pairs, and the other way round.
    let error = pairs.train(64).unwrap_err();
    assert!(matches!(error, DataError::DocumentKind { .. }), "{error}");
    let tokens = prompts.training_batches(64, BatchSize::Tokens(640), 0);
    let error = tokens.unwrap_err().to_string();
    assert!(error.contains("train.batch_tokens = 640"), "{error}");
    let held_out = &prompts.held_out()[0].rows;
    assert!(
        held_out
            .evaluation_batches(64, BatchSize::Tokens(640), 100)
            .is_err()
    );
}

#[test]
fn text_is_batched_as_by_its_own_batches() {
    let root = tempfile::tempdir().unwrap();
    fs::write(
        root.path().join("a.txt"),
        "some text, and more of it\n".repeat(200),
    )
    .unwrap();
    let text = DataConfig {
        source_field: None,
        target_field: None,
        ..config(root.path(), "a.txt")
    };
    let corpus = prepare_corpus(&text, &()).unwrap();
    let batches = corpus.training_batches(16, BatchSize::Rows(3), 7).unwrap();
    let mixed = iiet_data::MixedBatches::of(&corpus.train(16).unwrap(), 3, 7).unwrap();
    for index in [0, 5, 1000] {
        let batch = batches.get(index).unwrap();
        assert_eq!(batch, mixed.get(index).unwrap());
        assert_eq!(batch.source, None);
        assert_eq!(batches.rows_before(index), mixed.rows_before(index));
    }
    assert!(batches.pairs().is_none());
    let rows = &corpus.held_out()[0].rows;
    let evaluated = rows.evaluation_batches(16, BatchSize::Rows(3), 64).unwrap();
    let source = iiet_data::Batches::of(rows.examples(16).unwrap(), 3, 0).unwrap();
    let windows = iiet_data::evaluation_windows(source.windows(), 16, 64);
    let expected: Vec<_> = windows
        .chunks(3)
        .map(|windows| source.of_windows(windows).unwrap())
        .collect();
    assert_eq!(evaluated, expected);
}

#[test]
fn empty_sides_stop_or_are_skipped() {
    let root = tempfile::tempdir().unwrap();
    let bad = "{\"en\": \" \\t\\u00a0\", \"de\": \"x\"}\n{\"en\": \"x\", \"de\": \"\"}\n";
    fs::write(
        root.path().join("a.jsonl"),
        records(30) + bad + &records(30),
    )
    .unwrap();
    let stop = config(root.path(), "a.jsonl");
    let error = prepare_corpus(&stop, &()).unwrap_err().to_string();
    assert!(error.contains("a.jsonl:31: the source is empty"), "{error}");
    let skip = DataConfig {
        on_error: OnError::Skip,
        ..stop
    };
    let corpus = prepare_corpus(&skip, &()).unwrap();
    let prepared = corpus.sources[0].prepared().unwrap();
    assert_eq!(prepared.skipped.count, 2);
    assert!(
        prepared.skipped.first[1]
            .reason
            .contains("the target is empty")
    );
    assert_eq!(
        prepared.train.documents() + prepared.validation.documents(),
        60
    );
}

#[test]
fn invalid_configurations_are_errors_that_name_the_key() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a.jsonl"), records(30)).unwrap();
    fs::write(root.join("a.txt"), "text\n").unwrap();
    let valid = config(root, "a.jsonl");
    let weighted = |path| iiet_data::WeightedSource {
        path,
        weight: 1.0,
        name: None,
    };
    let mixture = SourceSpec::Mixture(vec![weighted("a".to_owned()), weighted("b".to_owned())]);
    for (config, expected) in [
        (
            DataConfig {
                source_field: None,
                ..valid.clone()
            },
            "data.source_field = nothing",
        ),
        (
            DataConfig {
                target_field: Some(String::new()),
                ..valid.clone()
            },
            "data.target_field = \"\"",
        ),
        (
            DataConfig {
                prompt_field: Some("en".to_owned()),
                completion_field: Some("de".to_owned()),
                ..valid.clone()
            },
            "data.prompt_field = \"en\" is not allowed",
        ),
        (
            DataConfig {
                source: mixture,
                ..valid.clone()
            },
            "a mixture of 2 sources",
        ),
        (
            config(root, "a.txt"),
            "a text file holds no pairs of source and target",
        ),
        (
            DataConfig {
                target_field: Some("fr".to_owned()),
                ..valid.clone()
            },
            "a.jsonl:1: no field \"fr\"; the fields here are: de",
        ),
    ] {
        let error = prepare_corpus(&config, &()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_tokenizer_without_a_document_end_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let tokenizer = prepared(root, 60).tokenizer;
    let json = String::from_utf8(tokenizer.json().to_vec()).unwrap();
    fs::write(
        root.join("t.json"),
        json.replace("<|endoftext|>", "<|other|>"),
    )
    .unwrap();
    let without = DataConfig {
        tokenizer: root.join("t.json").display().to_string(),
        ..config(root, "a.jsonl")
    };
    let error = prepare_corpus(&without, &()).unwrap_err().to_string();
    assert!(error.contains("t.json: it has no document end"), "{error}");
}
