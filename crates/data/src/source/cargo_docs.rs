//! Pairs for sequence-to-sequence training from the locked dependencies: the code of a public function, and the
//! first sentence of its documentation.
//!
//! The files are those of the default corpus ([`cargo_deps`](super::cargo_deps)), and the same whole crates are
//! held out, so that a model that was trained on that corpus has not seen the held-out pairs either. Like it, the
//! pairs follow from `Cargo.lock` alone. Summarising code in a sentence is a task of the literature (CodeSearchNet,
//! Husain et al., 2019, arXiv:1909.09436), whose rules for leaving out pairs are similar.

mod functions;
mod summary;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::functions::{Function, documented};
use self::summary::first_sentence;
use super::cargo_deps::{self, CargoSummary, Package};
use super::{Format, Item, Split};
use crate::error::DataError;

/// Changes whenever the rules change, so that a corpus prepared by other rules is not reused.
pub(crate) const RULES: u32 = 1;

/// The maximum number of characters of a function's code.
const MAX_CODE: usize = 2000;
/// The maximum number of characters of a sentence.
const MAX_SENTENCE: usize = 300;
/// The minimum number of words of a sentence.
const MIN_WORDS: usize = 3;
/// The parser recurses; a thread's stack has this many bytes, of which only those in use take memory.
const STACK_BYTES: usize = 64 << 20;

/// The reason why a documented public function was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionLeftOut {
    /// Its body has no statement, or only a macro such as `todo!` or one that is expanded elsewhere.
    NoBody,
    /// More than 2000 characters of code.
    LongCode,
    /// The documentation is included from a file or made by a macro.
    Included,
    /// The documentation starts with a heading, a list or code.
    NoSentence,
    /// More than 300 characters in the first sentence.
    LongSentence,
    /// Fewer than three words in the first sentence.
    FewWords,
    /// The first sentence has only words of the function's name.
    RepeatsName,
    /// The first sentence introduces a list or code, or refers to other documentation.
    Incomplete,
    /// The same code and sentence as an earlier function.
    Duplicate,
}

impl fmt::Display for FunctionLeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBody => "without a body",
            Self::LongCode => "of more than 2000 characters",
            Self::Included => "with documentation from another file",
            Self::NoSentence => "with documentation that starts with no sentence",
            Self::LongSentence => "with a sentence of more than 300 characters",
            Self::FewWords => "with a sentence of fewer than three words",
            Self::RepeatsName => "with a sentence that repeats the name",
            Self::Incomplete => "with a sentence that refers to something else",
            Self::Duplicate => "that occurred before",
        })
    }
}

/// The content of the pairs of the locked dependencies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocsSummary {
    /// Number of source files that were parsed; tests, benchmarks and examples are not.
    pub files: u64,
    /// Number of files that could not be parsed.
    pub not_parsed: u64,
    /// Number of public functions with documentation.
    pub functions: u64,
    /// Number of pairs to train on.
    pub pairs: u64,
    /// Number of pairs held out.
    pub held_out: u64,
    /// Functions left out, by reason.
    pub left_out: BTreeMap<FunctionLeftOut, u64>,
}

/// The pairs to train on and those held out, as two items, with the content of the crates they are from.
///
/// With `held_out`, whole crates are held out as in the default corpus; with `None` everything is for training.
pub(crate) fn corpus(
    packages: &[Package],
    held_out: Option<f64>,
    advance: &dyn Fn(u64),
) -> Result<(Vec<Item>, CargoSummary, DocsSummary), DataError> {
    let (items, cargo) = cargo_deps::corpus(packages, held_out, advance)?;
    let folders: HashMap<&Path, &str> = packages
        .iter()
        .map(|package| (package.folder.as_path(), package.name.as_str()))
        .collect();
    let items: Vec<&Item> = items
        .iter()
        .filter(|item| is_library_source(&item.path, &folders))
        .collect();
    let threads = rayon::ThreadPoolBuilder::new()
        .stack_size(STACK_BYTES)
        .build()
        .map_err(|error| DataError::Threads {
            message: error.to_string(),
        })?;
    let parsed: Vec<Option<Vec<Function>>> = threads.install(|| {
        let files = items.par_iter().map(|item| {
            let text = std::fs::read_to_string(&item.path).map_err(DataError::io(&item.path))?;
            Ok(documented(&text))
        });
        files.collect::<Result<_, DataError>>()
    })?;

    let mut summary = DocsSummary::default();
    let mut seen = HashSet::new();
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (item, functions) in items.into_iter().zip(parsed) {
        let Some(functions) = functions else {
            summary.not_parsed += 1;
            continue;
        };
        summary.files += 1;
        for function in functions {
            summary.functions += 1;
            let pair = pair(&function).and_then(|sentence| {
                let mut hash = blake3::Hasher::new();
                hash.update(blake3::hash(function.code.as_bytes()).as_bytes());
                hash.update(sentence.as_bytes());
                match seen.insert(*hash.finalize().as_bytes()) {
                    true => Ok((function.code, sentence)),
                    false => Err(FunctionLeftOut::Duplicate),
                }
            });
            match (pair, item.split) {
                (Ok(pair), Some(Split::Validation)) => validation.push(pair),
                (Ok(pair), _) => train.push(pair),
                (Err(reason), _) => *summary.left_out.entry(reason).or_default() += 1,
            }
        }
    }
    summary.pairs = train.len() as u64;
    summary.held_out = validation.len() as u64;
    let item = |pairs: Vec<(String, String)>, split| Item {
        pairs: Arc::from(pairs),
        ..Item::file(Path::new("cargo-docs"), Format::Pairs, 0, Some(split))
    };
    let mut items = vec![item(train, Split::Train)];
    if held_out.is_some() {
        items.push(item(validation, Split::Validation));
    }
    Ok((items, cargo, summary))
}

/// Whether a file of a package is Rust that is no test, benchmark or example.
fn is_library_source(path: &Path, folders: &HashMap<&Path, &str>) -> bool {
    let mut ancestors = path.ancestors();
    let inside = ancestors.find_map(|folder| {
        folders.get(folder)?;
        path.strip_prefix(folder).ok()
    });
    let is_other = |name: &str| {
        matches!(
            name,
            "tests" | "test" | "benches" | "bench" | "examples" | "tests.rs" | "test.rs"
        )
    };
    let inside = inside.unwrap_or(path);
    inside
        .extension()
        .is_some_and(|extension| extension == "rs")
        && !inside
            .iter()
            .any(|part| part.to_str().is_some_and(is_other))
}

/// The sentence about a function, or the reason why it is left out.
fn pair(function: &Function) -> Result<String, FunctionLeftOut> {
    if !function.has_body {
        return Err(FunctionLeftOut::NoBody);
    }
    if function.code.chars().count() > MAX_CODE {
        return Err(FunctionLeftOut::LongCode);
    }
    let docs = function.docs.as_deref().ok_or(FunctionLeftOut::Included)?;
    let sentence = first_sentence(docs).ok_or(FunctionLeftOut::NoSentence)?;
    if sentence.chars().count() > MAX_SENTENCE {
        return Err(FunctionLeftOut::LongSentence);
    }
    let letters = |word: &&str| word.contains(char::is_alphabetic);
    if sentence.split_whitespace().filter(letters).count() < MIN_WORDS {
        return Err(FunctionLeftOut::FewWords);
    }
    if repeats_name(&sentence, &function.name) {
        return Err(FunctionLeftOut::RepeatsName);
    }
    let is_whole = !sentence.ends_with([':', ','])
        && sentence.matches('`').count() % 2 == 0
        && !["See ", "Refer to ", "Same as ", "TODO", "FIXME"]
            .iter()
            .any(|start| sentence.starts_with(start));
    match is_whole {
        true => Ok(sentence),
        false => Err(FunctionLeftOut::Incomplete),
    }
}

/// Words that say nothing about a function beside its name.
const FILLERS: &[&str] = &[
    "the", "a", "an", "this", "these", "of", "for", "to", "from", "in", "is", "it", "its", "and",
    "self", "return", "get", "set", "given", "value",
];

/// Whether each word of a sentence is one of the name or a filler, apart from a final `s`.
fn repeats_name(sentence: &str, name: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .map(|word| word.trim_end_matches('s').to_owned())
            .filter(|word| !word.is_empty())
            .collect()
    };
    let fillers: Vec<String> = FILLERS.iter().flat_map(|filler| words(filler)).collect();
    let name = words(name);
    let mut said = words(sentence).into_iter();
    said.all(|word| name.contains(&word) || fillers.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn function(name: &str, docs: &str) -> Function {
        Function {
            name: name.to_owned(),
            code: format!("pub fn {name}() {{ work() }}"),
            docs: Some(docs.to_owned()),
            has_body: true,
        }
    }

    #[test]
    fn functions_are_left_out_for_the_documented_reasons() {
        use FunctionLeftOut::*;
        let valid = "Adds an element at the end.";
        assert_eq!(pair(&function("push", valid)).unwrap(), valid);
        for (name, docs, reason) in [
            ("push", "# Safety", NoSentence),
            ("push", "Adds one.", FewWords),
            ("push", "Adds `a`\n\nat the end.", FewWords),
            ("set_size", "Sets the size of self.", RepeatsName),
            ("push", "Adds, in this order:\n- one", Incomplete),
            ("push", "See [`Vec::push`] for details.", Incomplete),
            ("push", "Takes one of ` a.", Incomplete),
        ] {
            assert_eq!(pair(&function(name, docs)), Err(reason), "{docs}");
        }
        let long = |mut function: Function, length: usize| {
            function.code = "x".repeat(length);
            function
        };
        assert!(pair(&long(function("push", valid), MAX_CODE)).is_ok());
        let code = pair(&long(function("push", valid), MAX_CODE + 1));
        assert_eq!(code, Err(LongCode));
        let sentence = format!("Adds {}.", "more and ".repeat(40));
        assert_eq!(pair(&function("push", &sentence)), Err(LongSentence));
        for (change, reason) in [
            (
                Function {
                    has_body: false,
                    ..function("push", valid)
                },
                NoBody,
            ),
            (
                Function {
                    docs: None,
                    ..function("push", valid)
                },
                Included,
            ),
        ] {
            assert_eq!(pair(&change), Err(reason));
        }
    }

    #[test]
    fn a_sentence_repeats_a_name_if_it_has_no_other_word() {
        for (name, sentence, expected) in [
            ("max_size", "Returns the max size.", true),
            ("set_name", "Sets the name of self.", true),
            ("is_empty", "Returns whether it is empty.", false),
            ("len", "Returns the number of elements.", false),
        ] {
            assert_eq!(repeats_name(sentence, name), expected, "{sentence}");
        }
    }

    #[test]
    fn pairs_are_of_library_sources_and_occur_once() {
        let root = tempfile::tempdir().unwrap();
        let mut packages = Vec::new();
        for number in 0..40 {
            let name = format!("crate-{number}");
            let folder = root.path().join(&name);
            for (path, text) in [
                (
                    "src/lib.rs",
                    format!("/// Adds {number} to a number.\npub fn add() {{ work() }}\n"),
                ),
                (
                    "src/copied.rs",
                    format!(
                        "// {number}\n/// Is the same everywhere.\npub fn same() {{ work() }}\n"
                    ),
                ),
                ("src/bad.rs", format!("pub fn {number}(")),
                (
                    "tests/a.rs",
                    format!("/// Tests {number} at length.\npub fn a() {{ work() }}\n"),
                ),
                ("README.md", format!("# {name}\n")),
            ] {
                let path = folder.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            packages.push(Package {
                id: name.clone(),
                version: "1.0.0".to_owned(),
                name,
                folder,
            });
        }
        let (items, cargo, summary) = corpus(&packages, Some(0.1), &|_| {}).unwrap();
        assert_eq!((summary.files, summary.not_parsed), (80, 40));
        assert_eq!(
            (summary.functions, summary.pairs + summary.held_out),
            (80, 41)
        );
        assert_eq!(summary.left_out[&FunctionLeftOut::Duplicate], 39);
        assert_eq!(items[1].pairs.len() as u64, summary.held_out);
        assert!(summary.held_out >= cargo.held_out.len() as u64);
        for (_, sentence) in items[1].pairs.iter() {
            let number = sentence.split(' ').nth(1).unwrap();
            assert!(
                cargo.held_out.contains(&format!("crate-{number}")),
                "{sentence}"
            );
        }
        let (items, ..) = corpus(&packages, None, &|_| {}).unwrap();
        assert_eq!((items.len(), items[0].pairs.len()), (1, 41));
    }
}
