//! The value of `source`: one source, several read as one, several mixed by weight, two aligned files, or a task.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{AlignedFiles, CARGO_DEPS, CARGO_DOCS};
use crate::error::DataError;
use crate::tasks::{PREFIX, TaskSpec};

/// The allowed values of `source`, for messages.
const ALLOWED: &str = "\"cargo-deps\", \"cargo-docs\", a path, a list of paths, a list of { path, weight }, \
                       { source, target }, \"task:NAME\", or { task, .. } with its options";

/// Where the text or the examples come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SourceSpec {
    /// `"cargo-deps"`, `"cargo-docs"`, or the path of a file or directory.
    One(String),
    /// Several paths, read in the given order.
    Many(Vec<String>),
    /// Several sources, each with a share of the rows of a batch.
    Mixture(Vec<WeightedSource>),
    /// Two files of sources and targets, line by line.
    Aligned(AlignedFiles),
    /// A task whose examples are computed: `"task:NAME"`, or a table with its options.
    Task(TaskSpec),
}

/// One source of a mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightedSource {
    /// `"cargo-deps"`, or the path of a file or directory.
    pub path: String,
    /// Its weight, above 0; its share of the rows is relative to the sum of weights.
    pub weight: f64,
    /// Its name in reports; the file name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl WeightedSource {
    /// Its name in reports.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| short_name(&self.path))
    }
}

impl Default for SourceSpec {
    fn default() -> Self {
        Self::One(CARGO_DEPS.to_owned())
    }
}

impl SourceSpec {
    /// Whether this is the default corpus.
    pub fn is_cargo_deps(&self) -> bool {
        matches!(self, Self::One(name) if name == CARGO_DEPS)
    }

    /// Whether these are pairs of code and documentation of the locked dependencies.
    pub fn is_cargo_docs(&self) -> bool {
        matches!(self, Self::One(name) if name == CARGO_DOCS)
    }

    /// Whether it holds pairs of source and target without fields.
    pub(crate) fn is_of_pairs(&self) -> bool {
        self.is_cargo_docs() || matches!(self, Self::Aligned(_))
    }

    /// The paths; empty for the locked dependencies.
    pub(crate) fn paths(&self) -> Vec<&Path> {
        match self {
            Self::One(name) if [CARGO_DEPS, CARGO_DOCS].contains(&name.as_str()) => Vec::new(),
            Self::One(path) => vec![Path::new(path)],
            Self::Many(paths) => paths.iter().map(Path::new).collect(),
            Self::Mixture(sources) => sources.iter().map(|s| Path::new(&s.path)).collect(),
            Self::Aligned(files) => vec![Path::new(&files.source), Path::new(&files.target)],
            Self::Task(_) => Vec::new(),
        }
    }

    /// The task, if it is one.
    pub fn task(&self) -> Option<&TaskSpec> {
        match self {
            Self::Task(task) => Some(task),
            _ => None,
        }
    }

    /// A short name for the directory of the prepared corpus: letters, digits, `-`, `_` and `.`.
    pub(crate) fn name(&self) -> String {
        if let Self::Task(task) = self {
            return format!("{PREFIX}{}", task.name());
        }
        let paths = self.paths();
        let Some(first) = paths.first() else {
            let source = if self.is_cargo_docs() {
                CARGO_DOCS
            } else {
                CARGO_DEPS
            };
            return source.to_owned();
        };
        let clean = short_name(&first.to_string_lossy());
        match paths.len() {
            1 => clean,
            _ if matches!(self, Self::Aligned(_)) => clean,
            n => format!("{clean}-and-{}", n - 1),
        }
    }

    pub(super) fn check(&self) -> Result<(), DataError> {
        let invalid = |found: String, allowed: &str| {
            Err(DataError::Config {
                key: "data.source",
                found,
                allowed: allowed.to_owned(),
            })
        };
        match self {
            Self::One(_) => Ok(()),
            Self::Task(task) => task.check(),
            Self::Aligned(files) => files.check("data.source"),
            Self::Many(paths) if paths.is_empty() => invalid("an empty list".into(), ALLOWED),
            Self::Many(paths) if paths.iter().any(|path| path == CARGO_DEPS) => invalid(
                "\"cargo-deps\" within a list".into(),
                "\"cargo-deps\" alone, a list of paths, or a list of { path, weight }",
            ),
            Self::Many(paths) => match paths.iter().find_map(|path| alone(path)) {
                Some((found, allowed)) => invalid(found, allowed),
                None => Ok(()),
            },
            Self::Mixture(sources) => {
                let mut labels = BTreeSet::new();
                for source in sources {
                    if let Some((found, allowed)) = alone(&source.path) {
                        return invalid(found, allowed);
                    }
                    let WeightedSource { path, weight, .. } = source;
                    if !(weight.is_finite() && *weight > 0.0) {
                        let found = format!("a weight of {weight} for {path:?}");
                        return invalid(found, "weights that are finite and above 0");
                    }
                    if !labels.insert(source.label()) {
                        let found = format!("two sources called {:?}", source.label());
                        return invalid(found, "names that differ: { path, weight, name }");
                    }
                }
                Ok(())
            }
        }
    }
}

/// What was found and is allowed, if a member of a list is a source that stands alone.
fn alone(path: &str) -> Option<(String, &'static str)> {
    let allowed = match path {
        CARGO_DOCS => "\"cargo-docs\" alone",
        path if path.starts_with(PREFIX) => "a task alone",
        _ => return None,
    };
    Some((format!("{path:?} within a list"), allowed))
}

/// The stem of a path's last component, as a directory name.
fn short_name(path: &str) -> String {
    let last = Path::new(path)
        .file_name()
        .map_or_else(|| "corpus".into(), |name| name.to_string_lossy());
    let stem = last.split('.').find(|part| !part.is_empty());
    let clean = |c: char| match c.is_ascii_alphanumeric() || c == '-' || c == '_' {
        true => c,
        false => '_',
    };
    stem.unwrap_or("corpus")
        .chars()
        .take(40)
        .map(clean)
        .collect()
}

// Implemented by hand, because an untagged enum's error message says only that no variant matched.
impl<'de> Deserialize<'de> for SourceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpecVisitor)
    }
}

struct SpecVisitor;

impl<'de> Visitor<'de> for SpecVisitor {
    type Value = SourceSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALLOWED)
    }

    fn visit_str<E: Error>(self, path: &str) -> Result<SourceSpec, E> {
        match path.strip_prefix(PREFIX) {
            Some(name) => TaskSpec::named(name)
                .map(SourceSpec::Task)
                .map_err(E::custom),
            None => Ok(SourceSpec::One(path.to_owned())),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SourceSpec, A::Error> {
        // Which of the two is known when all keys are.
        let map = MapAccessDeserializer::new(map);
        let table = serde_json::Map::<String, serde_json::Value>::deserialize(map)?;
        let is_aligned = ["source", "target"]
            .iter()
            .any(|key| table.contains_key(*key));
        let table = serde_json::Value::Object(table);
        match is_aligned {
            true => AlignedFiles::deserialize(table).map(SourceSpec::Aligned),
            false => TaskSpec::deserialize(table).map(SourceSpec::Task),
        }
        .map_err(A::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<SourceSpec, A::Error> {
        let (mut paths, mut weighted) = (Vec::new(), Vec::new());
        while let Some(entry) = list.next_element()? {
            match entry {
                Entry::Path(path) => paths.push(path),
                Entry::Weighted(source) => weighted.push(source),
            }
            if !paths.is_empty() && !weighted.is_empty() {
                let message = "paths and { path, weight } in one list; allowed: either";
                return Err(A::Error::custom(message));
            }
        }
        Ok(match weighted.is_empty() {
            true => SourceSpec::Many(paths),
            false => SourceSpec::Mixture(weighted),
        })
    }
}

enum Entry {
    Path(String),
    Weighted(WeightedSource),
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path, or { path, weight }")
    }

    fn visit_str<E: Error>(self, path: &str) -> Result<Entry, E> {
        Ok(Entry::Path(path.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
        WeightedSource::deserialize(MapAccessDeserializer::new(map)).map(Entry::Weighted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<SourceSpec, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn each_form_round_trips() {
        for json in [
            r#""cargo-deps""#,
            r#"["a.txt","b"]"#,
            r#"[{"path":"a.txt","weight":0.7},{"path":"b","weight":2.0,"name":"c"}]"#,
            r#"{"task":"group","group":"A5","length":[8,16]}"#,
            r#"{"source":"a.en","target":"a.de.gz"}"#,
        ] {
            let spec = read(json).unwrap();
            spec.check().unwrap();
            assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        }
        assert_eq!(
            read(r#""task:group""#).unwrap(),
            read(r#"{"task": "group", "group": "S3", "length": 32}"#).unwrap()
        );
        let SourceSpec::Mixture(sources) =
            read(r#"[{"path":"x/a.b.txt","weight":1}, {"path":"b","weight":2,"name":"c"}]"#)
                .unwrap()
        else {
            panic!("not a mixture");
        };
        assert_eq!([sources[0].label(), sources[1].label()], ["a", "c"]);
    }

    #[test]
    fn errors_describe_the_mistake() {
        for (json, expected) in [
            (
                "7",
                "expected \"cargo-deps\", \"cargo-docs\", a path, a list",
            ),
            (r#""task:sorting""#, "task:group, task:hops"),
            (r#"{"task": "group", "size": 3}"#, "unknown field `size`"),
            (r#"["a", {"path": "b", "weight": 1}]"#, "in one list"),
            (r#"{"source": "a.en"}"#, "missing field `target`"),
            (r#"{"source": "a", "taget": "b"}"#, "unknown field `taget`"),
            (r#"[{"path": "b", "wieght": 1}]"#, "unknown field `wieght`"),
            (r#"[{"path": "b"}]"#, "missing field `weight`"),
            (r#"[{"path": "b", "weight": "much"}]"#, "expected f64"),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        for (json, expected) in [
            ("[]", "an empty list"),
            (r#"["a", "cargo-deps"]"#, "within a list"),
            (r#"["a", "cargo-docs"]"#, "\"cargo-docs\" alone"),
            (r#"["a", "task:hops"]"#, "\"task:hops\" within a list"),
            (r#"[{"path": "task:hops", "weight": 1}]"#, "within a list"),
            (r#"[{"path": "b", "weight": 0}]"#, "a weight of 0 for \"b\""),
            (
                r#"{"source": "a", "target": "a"}"#,
                "the paths of two files",
            ),
            (
                r#"[{"path": "a/b", "weight": 1}, {"path": "c/b", "weight": 1}]"#,
                "two sources called \"b\"",
            ),
        ] {
            let error = read(json).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
