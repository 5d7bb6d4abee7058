//! Pairs of code and documentation from the locked dependencies of this workspace.

use std::collections::HashSet;
use std::path::Path;

use iiet_data::{DataConfig, SequencePairs, SourceSpec, default_corpus, prepare_corpus};

#[test]
fn the_locked_dependencies_give_tens_of_thousands_of_pairs_with_whole_crates_held_out() {
    let root = tempfile::tempdir().unwrap();
    let config = DataConfig {
        source: SourceSpec::One("cargo-docs".to_owned()),
        vocab_size: 300,
        cache: root.path().to_path_buf(),
        ..DataConfig::default()
    };
    let corpus = prepare_corpus(&config, &()).unwrap();
    assert!(corpus.has_sources());
    let prepared = corpus.sources[0].prepared().unwrap();
    let docs = prepared.manifest.docs.as_ref().unwrap();
    let found = (prepared.train.documents(), prepared.validation.documents());
    assert_eq!(found, (docs.pairs as usize, docs.held_out as usize));
    assert!(docs.pairs > 10_000 && docs.held_out > 200, "{docs:?}");
    assert!(docs.not_parsed * 100 < docs.files, "{docs:?}");
    let left_out: u64 = docs.left_out.values().sum();
    assert_eq!(docs.functions, docs.pairs + docs.held_out + left_out);

    let (_, default) = default_corpus(Path::new("."), 0.05).unwrap();
    let cargo = prepared.manifest.cargo.as_ref().unwrap();
    assert_eq!(cargo.held_out, default.held_out);

    let texts = |tokens: &iiet_data::TokenFile| -> HashSet<(String, String)> {
        let pairs = SequencePairs::new(tokens.clone(), usize::MAX).unwrap();
        let texts = pairs.pairs_of_texts(&corpus.tokenizer);
        texts.map(Result::unwrap).collect()
    };
    let [train, held_out] = [&prepared.train, &prepared.validation].map(texts);
    assert_eq!(train.len() as u64, docs.pairs, "no pair occurs twice");
    assert!(train.is_disjoint(&held_out));
    for (code, sentence) in train.iter().chain(&held_out) {
        assert!(code.contains("fn ") && code.ends_with('}'), "{code}");
        assert!(code.chars().count() <= 2000, "{code}");
        assert!(sentence.split(' ').count() >= 3, "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
}
