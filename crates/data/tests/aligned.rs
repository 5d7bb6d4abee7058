//! Pairs of source and target from two aligned files, and from each kind of file with records.

use std::fs;
use std::io::Write;
use std::path::Path;

use iiet_data::{
    AlignedFiles, Corpus, DataConfig, DataError, OnError, SequencePairs, SourceSpec, Validation,
    prepare_corpus,
};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn aligned(root: &Path, source: &str, target: &str) -> AlignedFiles {
    let path = |name: &str| root.join(name).display().to_string();
    AlignedFiles {
        source: path(source),
        target: path(target),
    }
}

fn config(root: &Path, source: SourceSpec) -> DataConfig {
    DataConfig {
        source,
        vocab_size: 280,
        cache: root.join("cache"),
        ..DataConfig::default()
    }
}

fn with_fields(root: &Path, name: &str) -> DataConfig {
    DataConfig {
        source_field: Some("en".to_owned()),
        target_field: Some("de".to_owned()),
        ..config(root, SourceSpec::One(root.join(name).display().to_string()))
    }
}

/// The pairs to train on and those held out, in the order of the files.
fn texts(corpus: &Corpus) -> [Vec<(String, String)>; 2] {
    let prepared = corpus.sources[0].prepared().unwrap();
    [&prepared.train, &prepared.validation].map(|tokens| {
        let pairs = SequencePairs::new(tokens.clone(), usize::MAX).unwrap();
        let texts = pairs.pairs_of_texts(&corpus.tokenizer);
        texts.collect::<Result<_, _>>().unwrap()
    })
}

fn pair(i: usize) -> (String, String) {
    (format!("number {i}"), format!("Zahl {i}"))
}

fn side(range: std::ops::Range<usize>, of: fn((String, String)) -> String, end: &str) -> String {
    range.map(|i| of(pair(i)) + end).collect()
}

#[test]
fn two_files_with_two_held_out_files_are_prepared() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("train.en"), side(0..50, |p| p.0, "\r\n")).unwrap();
    fs::write(root.join("train.de.gz"), gzip(&side(0..50, |p| p.1, "\n"))).unwrap();
    fs::write(root.join("valid.en"), side(50..60, |p| p.0, "\n")).unwrap();
    fs::write(root.join("valid.de"), side(50..60, |p| p.1, "\n")).unwrap();
    let source = SourceSpec::Aligned(aligned(root, "train.en", "train.de.gz"));
    let separate = DataConfig {
        validation: Validation::Aligned(aligned(root, "valid.en", "valid.de")),
        ..config(root, source.clone())
    };
    let corpus = prepare_corpus(&separate, &()).unwrap();
    let [train, held_out] = texts(&corpus);
    assert_eq!(train, (0..50).map(pair).collect::<Vec<_>>());
    assert_eq!(held_out, (50..60).map(pair).collect::<Vec<_>>());
    let directory = &corpus.sources[0].prepared().unwrap().directory;
    let name = directory.file_name().unwrap().to_string_lossy();
    assert!(name.starts_with("train-"), "{name}");

    // A share of one corpus instead; a changed target is another corpus.
    let corpus = prepare_corpus(&config(root, source.clone()), &()).unwrap();
    let [train, held_out] = texts(&corpus);
    assert_eq!((train.len(), held_out.len()), (47, 3));
    let again = prepare_corpus(&config(root, source.clone()), &()).unwrap();
    assert!(again.sources[0].prepared().unwrap().reused);
    fs::write(root.join("train.de.gz"), gzip(&side(1..51, |p| p.1, "\n"))).unwrap();
    let changed = prepare_corpus(&config(root, source), &()).unwrap();
    assert!(!changed.sources[0].prepared().unwrap().reused);
}

#[test]
fn files_of_records_may_be_validated_on_two_files() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let line = |i| format!("{}\t{}\n", pair(i).0, pair(i).1);
    let table = format!("en\tde\n{}", (0..30).map(line).collect::<String>());
    fs::write(root.join("a.tsv"), table).unwrap();
    fs::write(root.join("valid.en"), side(50..60, |p| p.0, "\n")).unwrap();
    fs::write(root.join("valid.de"), side(50..60, |p| p.1, "\n")).unwrap();
    let mixed = DataConfig {
        validation: Validation::Aligned(aligned(root, "valid.en", "valid.de")),
        ..with_fields(root, "a.tsv")
    };
    let [train, held_out] = texts(&prepare_corpus(&mixed, &()).unwrap());
    assert_eq!((train.len(), held_out.len()), (30, 10));
    assert_eq!(held_out[9], pair(59));
}

#[test]
fn each_kind_of_file_with_records_holds_pairs() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let records = |separator: &str| {
        let record = |i| {
            let (en, de) = pair(i);
            format!("{{\"id\": {i}, \"de\": \"{de}\", \"en\": \" {en}\"}}")
        };
        (0..40).map(record).collect::<Vec<_>>().join(separator)
    };
    let rows = |delimiter: &str| {
        let row = |i| {
            let (en, de) = pair(i);
            format!("{i}{delimiter}\"{de}\"{delimiter}{en} \r\n")
        };
        let header = ["id", "de", "en"].join(delimiter);
        format!("{header}\r\n{}", (0..40).map(row).collect::<String>())
    };
    for (name, content) in [
        ("a.jsonl", records("\n").into_bytes()),
        ("a.ndjson.gz", gzip(&records("\n"))),
        ("a.json", format!("[{}]", records(", ")).into_bytes()),
        ("a.csv", rows(",").into_bytes()),
        ("a.tsv.gz", gzip(&rows("\t"))),
    ] {
        fs::write(root.join(name), content).unwrap();
        let corpus = prepare_corpus(&with_fields(root, name), &()).unwrap();
        let mut all = texts(&corpus).concat();
        all.sort_by_key(|(en, _)| en["number ".len()..].parse::<usize>().unwrap());
        assert_eq!(all, (0..40).map(pair).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn files_that_do_not_match_are_errors_with_both_numbers() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::write(root.join("a.en"), side(0..50, |p| p.0, "\n")).unwrap();
    fs::write(root.join("a.de"), side(0..49, |p| p.1, "\n")).unwrap();
    let source = SourceSpec::Aligned(aligned(root, "a.en", "a.de"));
    for on_error in [OnError::Stop, OnError::Skip] {
        let config = DataConfig {
            on_error,
            ..config(root, source.clone())
        };
        let error = prepare_corpus(&config, &()).unwrap_err();
        assert!(matches!(error, DataError::LineCounts { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains("a.en has 50 lines"), "{error}");
        assert!(error.contains("a.de has 49"), "{error}");
    }

    // The complete lines before a truncation are kept, and the loss is counted.
    let bytes = gzip(&side(0..20_000, |p| p.1, "\n"));
    fs::write(root.join("a.en"), side(0..20_000, |p| p.0, "\n")).unwrap();
    fs::write(root.join("a.de.gz"), &bytes[..bytes.len() / 2]).unwrap();
    let source = SourceSpec::Aligned(aligned(root, "a.en", "a.de.gz"));
    let stop = config(root, source);
    let error = prepare_corpus(&stop, &()).unwrap_err().to_string();
    assert!(
        error.contains("a.de.gz: the compressed stream ends"),
        "{error}"
    );
    let skip = DataConfig {
        on_error: OnError::Skip,
        ..stop
    };
    let corpus = prepare_corpus(&skip, &()).unwrap();
    assert_eq!(corpus.sources[0].prepared().unwrap().skipped.count, 1);
    assert!(texts(&corpus)[0].len() > 1000);
}

#[test]
fn invalid_forms_are_errors_that_name_the_key() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for name in ["a.en", "a.de"] {
        fs::write(root.join(name), side(0..50, |p| p.0, "\n")).unwrap();
    }
    fs::write(root.join("a.txt"), "some text\n".repeat(50)).unwrap();
    let valid = config(root, SourceSpec::Aligned(aligned(root, "a.en", "a.de")));
    for (config, expected) in [
        (
            DataConfig {
                source_field: Some("en".to_owned()),
                target_field: Some("de".to_owned()),
                ..valid.clone()
            },
            "data.source_field = \"en\"",
        ),
        (
            DataConfig {
                prompt_field: Some("en".to_owned()),
                completion_field: Some("de".to_owned()),
                ..valid.clone()
            },
            "data.prompt_field = \"en\"",
        ),
        (
            DataConfig {
                validation: Validation::Path("a.en".to_owned()),
                ..valid.clone()
            },
            "data.validation = \"a.en\"",
        ),
        (
            DataConfig {
                validation: Validation::Aligned(aligned(root, "a.en", "a.de")),
                ..config(
                    root,
                    SourceSpec::One(root.join("a.txt").display().to_string()),
                )
            },
            "data.validation = { source, target } is not allowed",
        ),
        (
            DataConfig {
                source: SourceSpec::Aligned(aligned(root, "a.en", "missing.de")),
                ..valid.clone()
            },
            "missing.de",
        ),
        (
            DataConfig {
                source: SourceSpec::Aligned(aligned(root, "a.en", ".")),
                ..valid.clone()
            },
            root.to_str().unwrap(),
        ),
    ] {
        let error = prepare_corpus(&config, &()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = serde_json::from_str::<DataConfig>("{\"validation\": {\"source\": \"a\"}}");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("or { source, target }"), "{error}");
    let json = serde_json::to_string(&valid).unwrap();
    assert_eq!(serde_json::from_str::<DataConfig>(&json).unwrap(), valid);
}
