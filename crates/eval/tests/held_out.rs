//! The generated tasks on this workspace's own dependencies.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use iiet_eval::{Document, Item, Settings, prepare, task};

fn documents(name: &str, cache: &Path) -> Vec<Document> {
    let settings = Settings {
        workspace: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        cache: cache.to_owned(),
        ..Settings::default()
    };
    let prepared = prepare(task(name).unwrap(), &settings).unwrap();
    for item in &prepared.items {
        match item {
            Item::Choice { choices, .. } => assert_eq!(choices.len(), 4),
            Item::Cloze(request) => assert!(!request.context.is_empty()),
            Item::Rolling { scored, .. } => assert!(!scored.is_empty()),
            Item::TargetText { references, .. } => assert_eq!(references.len(), 1),
            Item::Targets { .. } => panic!("not made of held-out text"),
        }
    }
    prepared.documents
}

/// The share of items that a guess gets right, with its standard error if it is right by chance.
fn share(right: impl Iterator<Item = bool>, chance: f64) -> (f64, f64) {
    let right: Vec<bool> = right.collect();
    let n = right.len() as f64;
    let hits = right.into_iter().filter(|right| *right).count();
    (hits as f64 / n, (chance * (1.0 - chance) / n).sqrt())
}

#[test]
fn generated_items_are_many_balanced_and_repeatable() {
    let cache = tempfile::tempdir().unwrap();
    let choice = documents("heldout_choice", cache.path());
    let cloze = documents("heldout_cloze", cache.path());
    let passages = documents("heldout_bpb", cache.path());
    let docs = documents("heldout_docs", cache.path());
    for documents in [&choice, &cloze, &passages, &docs] {
        assert_eq!(documents.len(), 1024);
        let different: HashSet<String> = documents
            .iter()
            .map(|document| serde_json::to_string(&document.fields()).unwrap())
            .collect();
        assert_eq!(different.len(), 1024);
    }
    choices_tell_nothing_by_place_or_length(&choice);
    functions_are_documented_by_others_than_their_names(&docs);
    targets_tell_nothing_by_place_or_length(&cloze);

    // The same again, from the cache and anew.
    assert_eq!(documents("heldout_choice", cache.path()), choice);
    let anew = tempfile::tempdir().unwrap();
    assert_eq!(documents("heldout_cloze", anew.path()), cloze);
}

fn functions_are_documented_by_others_than_their_names(documents: &[Document]) {
    for document in documents {
        let (source, target) = (
            document.text("source").unwrap(),
            document.text("target").unwrap(),
        );
        assert!(source.contains("fn ") && source.len() > 20, "{source}");
        assert!(!source.contains(target), "{target}");
        assert!(target.split_whitespace().count() >= 3, "{target}");
        assert!(target.chars().count() <= 300, "{target}");
    }
}

fn choices_tell_nothing_by_place_or_length(documents: &[Document]) {
    // How often the answer is at each place, and of each rank in length, together.
    let mut seen: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for document in documents {
        let choices = document.texts("choices").unwrap();
        let answer = document.choice("answer", 4).unwrap();
        let length = choices[answer].len();
        assert!(
            choices
                .iter()
                .enumerate()
                .all(|(at, choice)| at == answer || choice.len() != length)
        );
        assert!(choices.iter().all(|choice| choice.len() * 5 >= length * 4));
        assert!(choices.iter().all(|choice| choice.len() * 4 <= length * 5));
        let shorter = choices
            .iter()
            .filter(|choice| choice.len() < length)
            .count();
        *seen.entry((answer, shorter)).or_default() += 1;
        let context = document.text("context").unwrap();
        assert!(!context.contains(choices[answer]) && context.ends_with('\n'));
    }
    assert_eq!(seen.len(), 16);
    assert!(seen.values().all(|count| *count == 64), "{seen:?}");
}

fn targets_tell_nothing_by_place_or_length(documents: &[Document]) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = |document: &Document| -> Vec<String> {
        let context = document.text("context").unwrap();
        let words = context
            .split(|c| !is_part(c))
            .filter(|word| word.len() >= 4);
        words.map(str::to_owned).collect()
    };
    let target = |document: &Document| document.text("target").unwrap().to_owned();
    for document in documents {
        let target = target(document);
        let word = target.strip_prefix(' ').unwrap();
        assert!(
            words(document).iter().any(|other| other == word),
            "{target}"
        );
        assert!(word.chars().all(is_part));
    }
    // Who knows only where words stand or how long they are is right once in eight at most.
    type Guess = fn(&[String]) -> Option<&String>;
    let guesses: [(&str, Guess); 5] = [
        ("the first", |words| words.first()),
        ("the last", |words| words.last()),
        ("the last but two", |words| words.iter().rev().nth(2)),
        ("the longest", |words| {
            words.iter().max_by_key(|word| word.len())
        }),
        ("the shortest", |words| {
            words.iter().min_by_key(|word| word.len())
        }),
    ];
    for (name, guess) in guesses {
        let right = documents.iter().map(|document| {
            let words = words(document);
            guess(&words).is_some_and(|word| format!(" {word}") == target(document))
        });
        let (share, error) = share(right, 0.125);
        assert!(share <= 0.125 + 3.0 * error, "{name}: {share}");
    }
    let mut seen: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for document in documents {
        let place = |field: &str| document.fields()[field].as_u64().unwrap();
        *seen.entry((place("recency"), place("length"))).or_default() += 1;
    }
    assert_eq!(seen.len(), 64);
    assert!(seen.values().all(|count| *count == 16), "{seen:?}");
}
