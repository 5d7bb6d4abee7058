//! Mixtures as prepared directories: one tokenizer, each source as if prepared alone, damage
//! repaired.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use iiet_data::{
    DataConfig, DataError, MixedBatches, Progress, SourceSpec, Validation, WeightedSource, prepare,
    prepare_corpus,
};

/// Records the progress messages of a preparation.
#[derive(Default)]
struct Said(Mutex<Vec<String>>);

impl Progress for Said {
    fn stage(&self, _name: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn done(&self, summary: &str) {
        self.0.lock().unwrap().push(summary.to_owned());
    }
}

impl Said {
    fn all(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

fn config(root: &Path) -> DataConfig {
    for (name, line) in [
        ("prose", "some words of prose, number"),
        ("code", "let x_1 = y *"),
    ] {
        let lines = (0..500).map(|i| format!("{line} {}\n", i * 7919 % 1000));
        fs::write(root.join(format!("{name}.txt")), lines.collect::<String>()).unwrap();
    }
    let source = |name: &str, weight| WeightedSource {
        path: root.join(format!("{name}.txt")).display().to_string(),
        weight,
        name: None,
    };
    DataConfig {
        source: SourceSpec::Mixture(vec![source("prose", 3.0), source("code", 1.0)]),
        vocab_size: 400,
        cache: root.join("cache"),
        ..DataConfig::default()
    }
}

#[test]
fn each_source_is_prepared_as_if_alone() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path());
    let corpus = prepare_corpus(&config, &()).unwrap();
    let names: Vec<&str> = corpus.sources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["prose", "code"]);
    for source in &corpus.sources {
        assert_eq!(
            source.prepared().unwrap().train.vocab_hash(),
            corpus.tokenizer.vocab_hash()
        );
        let start = source.prepared().unwrap().train.read(0..5).unwrap();
        let start = corpus.tokenizer.decode(&start).unwrap();
        let expected = if source.name == "prose" {
            "some"
        } else {
            "let"
        };
        assert!(start.starts_with(expected), "{start}");
    }
    assert_eq!(corpus.held_out().len(), 2);
    let batches = MixedBatches::of(&corpus.train(16).unwrap(), 4, 0).unwrap();
    assert_eq!(batches.shares(), [0.75, 0.25]);

    // With the tokenizer given, other weights and single sources reuse the prepared directories.
    let tokenizer = root.path().join("tokenizer.json");
    fs::write(&tokenizer, corpus.tokenizer.json()).unwrap();
    let fixed = DataConfig {
        tokenizer: tokenizer.display().to_string(),
        ..config.clone()
    };
    let SourceSpec::Mixture(mut sources) = config.source.clone() else {
        panic!("a mixture");
    };
    sources[0].weight = 0.1;
    let other = DataConfig {
        source: SourceSpec::Mixture(sources.clone()),
        ..fixed.clone()
    };
    let again = prepare_corpus(&other, &()).unwrap();
    assert!(
        again
            .sources
            .iter()
            .all(|source| source.prepared().unwrap().reused)
    );
    let alone = DataConfig {
        source: SourceSpec::One(sources[1].path.clone()),
        ..fixed
    };
    let alone = prepare(&alone, &()).unwrap();
    assert_eq!(
        alone.directory,
        again.sources[1].prepared().unwrap().directory
    );

    let error = prepare(&config, &()).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::Config {
                key: "data.source",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn one_validation_text_is_shared() {
    let root = tempfile::tempdir().unwrap();
    let config = DataConfig {
        validation: Validation::Path(root.path().join("code.txt").display().to_string()),
        ..config(root.path())
    };
    let held_out = prepare_corpus(&config, &()).unwrap().held_out();
    assert_eq!(held_out.len(), 1);
    assert_eq!(
        (held_out[0].name.as_str(), held_out[0].weight),
        ("validation", 1.0)
    );
}

#[test]
fn damaged_files_are_prepared_again_with_the_same_content() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path());
    let before = prepare_corpus(&config, &()).unwrap();
    let folder = &before.sources[1].prepared().unwrap().directory;
    let trained = fs::read_dir(&config.cache)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let trained = trained
        .filter(|path| path.to_string_lossy().contains("-tokenizer-"))
        .find(|path| path.is_dir())
        .unwrap();
    for (path, expected) in [
        (folder.join("train.tokens"), "damaged or not a token file"),
        (
            folder.join("validation.tokens"),
            "damaged or not a token file",
        ),
        (folder.join("tokenizer.json"), "tokenizer.json"),
        (folder.join("manifest.json"), "the manifest"),
        (trained.join("tokenizer.json"), "training it again"),
    ] {
        let mut bytes = fs::read(&path).unwrap();
        // The last digit, letter or token, in JSON and in other files.
        let at = bytes
            .iter()
            .rposition(|byte| byte.is_ascii_alphanumeric() || *byte > 127);
        bytes[at.unwrap()] ^= 0x80;
        fs::write(&path, bytes).unwrap();
        let said = Said::default();
        let after = prepare_corpus(&config, &said).unwrap();
        assert!(
            said.all().contains(expected),
            "{}: {}",
            path.display(),
            said.all()
        );
        assert!(said.all().contains("again"), "{}", said.all());
        for (before, after) in before.sources.iter().zip(&after.sources) {
            let hash = before.prepared().unwrap().train.content_hash();
            assert_eq!(after.prepared().unwrap().train.content_hash(), hash);
        }
        let quiet = Said::default();
        prepare_corpus(&config, &quiet).unwrap();
        assert_eq!(quiet.all(), "");
    }
}
