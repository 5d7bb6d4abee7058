//! Preparation from a configuration to token files: every kind of source, reuse, damage, division.

use std::fs;
use std::path::Path;

use iiet_data::{
    Batches, DataConfig, DataError, OnError, Prepared, SourceSpec, TokenFile, Tokenizer,
    Validation, find_prepared, inspect, prepare, prepare_corpus,
};

/// Line `i` of a text that a small tokenizer can learn from.
fn line(i: usize) -> String {
    format!(
        "let value_{i} = compute(left, right) + {};\n",
        i * 7919 % 1000
    )
}

fn config(root: &Path, source: &str) -> DataConfig {
    DataConfig {
        source: SourceSpec::One(root.join(source).display().to_string()),
        vocab_size: 300,
        cache: root.join("cache"),
        ..DataConfig::default()
    }
}

/// All text of a part, documents separated by a line of `===`.
fn text(prepared: &Prepared, tokens: &TokenFile) -> String {
    let documents = (0..tokens.documents()).map(|index| {
        let tokens = tokens.read(tokens.document(index).unwrap()).unwrap();
        assert_eq!(tokens.last(), prepared.tokenizer.document_end().as_ref());
        prepared.tokenizer.decode(&tokens).unwrap()
    });
    documents.collect::<Vec<_>>().join("===\n")
}

#[test]
fn the_last_lines_of_a_single_text_file_are_held_out() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let all: String = (0..1000).map(line).collect();
    fs::write(root.join("a.txt"), &all).unwrap();
    let prepared = prepare(&config(root, "a.txt"), &()).unwrap();
    let (train, validation) = (
        text(&prepared, &prepared.train),
        text(&prepared, &prepared.validation),
    );
    assert_eq!(format!("{train}{validation}"), all);
    assert!(train.ends_with('\n'));
    let share = validation.len() as f64 / all.len() as f64;
    assert!((0.048..0.052).contains(&share), "{share}");
    assert_eq!(prepared.train.text_bytes(), train.len() as u64);
    assert_eq!(
        prepared.manifest.validation.text_bytes,
        validation.len() as u64
    );
    prepared.train.verify().unwrap();
}

#[test]
fn whole_documents_of_many_are_held_out() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let lines: String = (0..200)
        .map(|i| format!("{{\"body\": {:?}}}\n", line(i)))
        .collect();
    fs::write(root.join("a.jsonl"), lines).unwrap();
    let config = DataConfig {
        text_field: "body".to_owned(),
        ..config(root, "a.jsonl")
    };
    let prepared = prepare(&config, &()).unwrap();
    assert_eq!(
        (prepared.train.documents(), prepared.validation.documents()),
        (190, 10)
    );
    let mut lines: Vec<String> = [&prepared.train, &prepared.validation]
        .iter()
        .flat_map(|part| {
            text(&prepared, part)
                .split_inclusive('\n')
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter(|line| line != "===\n")
        .collect();
    lines.sort();
    let mut expected: Vec<String> = (0..200).map(line).collect();
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn a_separate_validation_source_and_an_existing_tokenizer() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("folder/b.md"), "second\n").unwrap();
    fs::write(root.join("folder/a.rs"), "first\n").unwrap();
    fs::write(root.join("held.txt"), "held out").unwrap();
    let tokenizer = Tokenizer::train((0..50).map(line), 280).unwrap();
    tokenizer.save(&root.join("tokenizer.json")).unwrap();
    let config = DataConfig {
        validation: Validation::Path(root.join("held.txt").display().to_string()),
        tokenizer: root.join("tokenizer.json").display().to_string(),
        ..config(root, "folder")
    };
    let prepared = prepare(&config, &()).unwrap();
    assert_eq!(text(&prepared, &prepared.train), "first\n===\nsecond\n");
    assert_eq!(text(&prepared, &prepared.validation), "held out");
    assert_eq!(prepared.tokenizer.json(), tokenizer.json());
}

#[test]
fn an_unchanged_corpus_is_reused_and_a_changed_one_is_not() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let all: String = (0..300).map(line).collect();
    fs::write(root.join("a.txt"), &all).unwrap();
    let config = config(root, "a.txt");
    let first = prepare(&config, &()).unwrap();
    assert!(!first.reused);
    let again = prepare(&config, &()).unwrap();
    assert!(again.reused);
    assert_eq!(again.directory, first.directory);

    let other = DataConfig {
        vocab_size: 290,
        ..config.clone()
    };
    let other = prepare(&other, &()).unwrap();
    assert!(!other.reused && other.directory != first.directory);

    fs::write(root.join("a.txt"), all + "more\n").unwrap();
    assert!(!prepare(&config, &()).unwrap().reused);
}

#[test]
fn changed_text_with_the_same_path_size_and_time_is_detected() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let path = root.join("a.txt");
    let write = |word: &str| {
        let lines = (0..300).map(|i| line(i).replace("value", word));
        fs::write(&path, lines.collect::<String>()).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
    };
    let config = config(root, "a.txt");
    write("value");
    let first = prepare(&config, &()).unwrap();
    write("vault");
    let second = prepare(&config, &()).unwrap();
    assert!(!second.reused && text(&second, &second.train).contains("vault_7"));
    assert_ne!(second.manifest.key, first.manifest.key);
    write("value");
    assert!(prepare(&config, &()).unwrap().reused);

    // The same text at another path is the same corpus.
    fs::create_dir(root.join("folder")).unwrap();
    fs::rename(&path, root.join("folder/b.txt")).unwrap();
    let moved = DataConfig {
        source: SourceSpec::One(root.join("folder/b.txt").display().to_string()),
        ..config
    };
    let moved = prepare(&moved, &()).unwrap();
    assert_eq!(moved.manifest.key, first.manifest.key);
    assert_eq!(moved.train.content_hash(), first.train.content_hash());
}

#[test]
fn the_hash_of_a_corpus_depends_only_on_its_content() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let hash = |name: &str, lines: std::ops::Range<usize>| {
        fs::write(root.join(name), lines.map(line).collect::<String>()).unwrap();
        prepare_corpus(&config(root, name), &()).unwrap().hash()
    };
    let first = hash("a.txt", 0..300);
    assert_eq!(hash("b.txt", 0..300), first);
    assert_ne!(hash("c.txt", 0..301), first);
}

#[test]
fn rows_of_csv_and_elements_of_json_are_documents() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let rows: Vec<String> = (0..60).map(line).collect();
    let csv: String = rows.iter().map(|row| format!("1,\"{row}\"\n")).collect();
    fs::write(root.join("a.csv"), format!("id,text\n{csv}")).unwrap();
    let json: Vec<String> = rows
        .iter()
        .map(|row| format!("{{\"text\": {row:?}}}"))
        .collect();
    fs::write(root.join("a.json"), format!("[{}]", json.join(",\n"))).unwrap();
    let [csv, json] = ["a.csv", "a.json"].map(|name| prepare(&config(root, name), &()).unwrap());
    assert_eq!(csv.train.documents() + csv.validation.documents(), 60);
    assert_eq!(csv.train.content_hash(), json.train.content_hash());
    fs::write(root.join("a.xml"), "<a/>").unwrap();
    let error = prepare(&config(root, "a.xml"), &())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a.xml") && error.contains(".csv .tsv .parquet"),
        "{error}"
    );
}

#[test]
fn a_record_exceeding_the_limit_is_an_error_or_skipped() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let mut lines: Vec<String> = (0..60)
        .map(|i| format!("{{\"text\": {:?}}}", line(i)))
        .collect();
    lines[30] = format!("{{\"text\": {:?}}}", "long ".repeat(1000));
    fs::write(root.join("a.jsonl"), lines.join("\n")).unwrap();
    let mut config = config(root, "a.jsonl");
    config.limits.record_bytes = 1000;
    let error = prepare(&config, &()).unwrap_err().to_string();
    assert!(
        error.contains("a.jsonl:31: a record of more than 1000 bytes"),
        "{error}"
    );
    assert!(error.contains("data.limits.record_bytes = 1000"), "{error}");
    config.on_error = OnError::Skip;
    let skipped = prepare(&config, &()).unwrap();
    assert_eq!(skipped.manifest.skipped.count, 1);
    config.limits.record_bytes = 1 << 20;
    assert_eq!(prepare(&config, &()).unwrap().manifest.skipped.count, 0);
    config.limits.record_bytes = 0;
    let error = prepare(&config, &()).unwrap_err().to_string();
    assert!(
        error.contains("data.limits.record_bytes = 0 is not allowed"),
        "{error}"
    );
}

#[test]
fn two_preparations_are_bitwise_identical() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let all: String = (0..20_000).map(line).collect();
    fs::write(root.join("a.txt"), all).unwrap();
    let read = |cache: &str| {
        let config = DataConfig {
            cache: root.join(cache),
            ..config(root, "a.txt")
        };
        let directory = prepare(&config, &()).unwrap().directory;
        ["tokenizer.json", "train.tokens", "validation.tokens"]
            .map(|name| fs::read(directory.join(name)).unwrap())
    };
    assert!(read("one") == read("two"));
}

#[test]
fn files_of_an_interrupted_or_damaged_preparation_are_replaced() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a.txt"), (0..300).map(line).collect::<String>()).unwrap();
    let config = config(root, "a.txt");
    let first = prepare(&config, &()).unwrap();
    let name = first
        .directory
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let tokens = first.directory.join("train.tokens");
    let good = fs::read(&tokens).unwrap();
    drop(first);

    let partial = root.join("cache").join(format!(".{name}.partial"));
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("train.tokens"), "half").unwrap();
    fs::write(&tokens, &good[..good.len() - 1]).unwrap();
    let again = prepare(&config, &()).unwrap();
    assert!(!again.reused && !partial.exists());
    assert_eq!(fs::read(&tokens).unwrap(), good);
}

#[test]
fn invalid_records_are_errors_or_counted() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let mut lines: Vec<String> = (0..60)
        .map(|i| format!("{{\"text\": {:?}}}", line(i)))
        .collect();
    lines[10..40].fill("{\"text\": 3}".to_owned());
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("folder/a.jsonl"), lines.join("\n")).unwrap();
    fs::write(root.join("folder/bad.txt"), b"good\nba\xffd\n").unwrap();
    fs::write(root.join("folder/empty.txt"), "").unwrap();
    let stop = config(root, "folder");
    let error = prepare(&stop, &()).unwrap_err();
    assert!(matches!(error, DataError::Bad(_)));
    let message = error.to_string();
    assert!(
        message.contains("a.jsonl:11: the field \"text\" is a number"),
        "{message}"
    );
    assert!(message.contains("on_error = \"skip\""), "{message}");
    let left: Vec<_> = fs::read_dir(&stop.cache)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        left.iter()
            .all(|name| name.to_string_lossy().starts_with('.')),
        "{left:?}"
    );

    let skip = DataConfig {
        on_error: OnError::Skip,
        ..stop
    };
    let prepared = prepare(&skip, &()).unwrap();
    assert_eq!(prepared.skipped.count, 32);
    assert_eq!(prepared.skipped.first.len(), 20);
    assert_eq!(
        prepared.train.documents() + prepared.validation.documents(),
        30
    );
    assert!(!text(&prepared, &prepared.train).contains("good"));
    // The report is stored with the corpus.
    assert_eq!(prepare(&skip, &()).unwrap().skipped, prepared.skipped);
}

#[test]
fn empty_parts_and_invalid_values_are_errors() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a.txt"), "one line without an end").unwrap();
    let one_line = config(root, "a.txt");
    let error = prepare(&one_line, &()).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::EmptySplit {
                split: "validation",
                ..
            }
        ),
        "{error}"
    );
    for (validation, vocab_size) in [(1.0, 300), (0.0, 300), (f64::NAN, 300), (0.1, 256)] {
        let validation = Validation::Fraction(validation);
        let invalid = DataConfig {
            validation,
            vocab_size,
            ..one_line.clone()
        };
        let error = prepare(&invalid, &()).unwrap_err();
        assert!(matches!(error, DataError::Config { .. }), "{error}");
    }
    let absent = config(root, "absent.txt");
    assert!(
        prepare(&absent, &())
            .unwrap_err()
            .to_string()
            .contains("absent.txt")
    );
}

#[test]
fn documented_configurations_parse() {
    let read = |json: &str| serde_json::from_str::<DataConfig>(json);
    assert_eq!(read("{}").unwrap(), DataConfig::default());
    let config =
        read(r#"{"source": ["a", "b"], "validation": "held", "on_error": "skip"}"#).unwrap();
    assert_eq!(
        config.source,
        SourceSpec::Many(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(config.validation, Validation::Path("held".to_owned()));
    assert_eq!(config.on_error, OnError::Skip);
    assert_eq!(
        read(r#"{"validation": 0.5}"#).unwrap().validation,
        Validation::Fraction(0.5)
    );
    assert!(
        read(r#"{"vocab": 3}"#)
            .unwrap_err()
            .to_string()
            .contains("vocab_size")
    );
}

#[test]
fn inspection_shows_the_content() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a.txt"), (0..300).map(line).collect::<String>()).unwrap();
    let prepared = prepare(&config(root, "a.txt"), &()).unwrap();
    let found = inspect(&prepared.directory).unwrap();
    assert_eq!(found.files[0].tokens, prepared.train.len());
    assert_eq!(found.files[1].documents, 1);
    let shown = found.to_string();
    assert!(
        shown.contains("bytes per token") && shown.contains("let value_0"),
        "{shown}"
    );
    let one = inspect(prepared.train.path()).unwrap();
    assert_eq!(one.files.len(), 1);
    assert!(serde_json::to_string(&one).unwrap().contains("\"tokens\""));
    assert!(inspect(&root.join("absent")).is_err());
    assert_eq!(
        find_prepared(&prepared.directory).unwrap(),
        std::slice::from_ref(&prepared.directory)
    );
    assert_eq!(
        find_prepared(&root.join("cache")).unwrap(),
        std::slice::from_ref(&prepared.directory)
    );
    let error = find_prepared(root).unwrap_err().to_string();
    assert!(error.contains("manifest.json"), "{error}");

    let batches = Batches::new(prepared.train, 2, 16, 1).unwrap();
    let batch = batches.get(12_345).unwrap();
    assert_eq!(batch.inputs[1..16], batch.targets[..15]);
}
