//! Generated tasks: examples that are computed, not read, as a pure function of (seed, index).
//!
//! A task has a difficulty, such as the length of a word or a number of hops, which may be a range to
//! draw from. A new task is a file here with its options, and its line in `tasks!`.

mod addition;
mod difficulties;
mod examples;
mod group;
mod hops;
mod inspect;
mod permutation_group;
mod pointers;
mod task;
mod vocabulary;

use std::io::ErrorKind;
use std::path::Path;

use iiet_files::read_regular;
use serde::{Deserialize, Serialize};

pub use self::addition::Addition;
pub use self::difficulties::Difficulties;
pub use self::examples::{Part, TaskExamples};
pub use self::group::Group;
pub use self::hops::Hops;
pub use self::inspect::{ShownExample, TaskInspection, inspect_task};
pub use self::permutation_group::{GroupName, PermutationGroup};
pub use self::pointers::Pointers;
pub use self::task::{Example, Judged, Task};
use crate::error::DataError;
use crate::tokenizer::Tokenizer;

/// What a source begins with that is the name of a task.
pub(crate) const PREFIX: &str = "task:";

/// A difficulty has at least so many examples, of which a sixteenth is held out: with fewer there
/// might be none to validate on, or every example might be seen over and over.
const LEAST_EXAMPLES: f64 = 1024.0;

/// Writes the enum and the dispatch.
macro_rules! tasks {
    ($($(#[$doc:meta])* $task:ident,)+) => {
        /// A task with its options: in a configuration `"task:group"`, or
        /// `{ task = "group", length = 32 }`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "task", rename_all = "lowercase")]
        #[non_exhaustive]
        pub enum TaskSpec {
            $($(#[$doc])* $task($task),)+
        }

        impl TaskSpec {
            /// Every task with its default options.
            pub fn all() -> Vec<Self> {
                vec![$(Self::$task($task::default()),)+]
            }

            /// What the options are of.
            pub fn task(&self) -> &dyn Task {
                match self {
                    $(Self::$task(task) => task,)+
                }
            }

            fn task_mut(&mut self) -> &mut dyn Task {
                match self {
                    $(Self::$task(task) => task,)+
                }
            }
        }
    };
}

tasks! {
    /// The word problem of a finite group.
    Group,
    /// Repeated induction.
    Hops,
    /// Sums of several numbers.
    Addition,
    /// Repeated application of a function that the context gives.
    Pointers,
}

impl TaskSpec {
    /// The task of this name with its default options.
    ///
    /// # Errors
    /// [`DataError::Config`] names the tasks that there are.
    pub fn named(name: &str) -> Result<Self, DataError> {
        let found = Self::all().into_iter().find(|spec| spec.name() == name);
        found.ok_or_else(|| DataError::Config {
            key: "data.source",
            found: format!("{:?}", format!("{PREFIX}{name}")),
            allowed: Self::names().join(", "),
        })
    }

    /// The names of all tasks, as `data.source` takes them.
    pub(crate) fn names() -> Vec<String> {
        let all = Self::all().into_iter();
        all.map(|spec| format!("{PREFIX}{}", spec.name())).collect()
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.task().name()
    }

    /// The difficulties that examples are drawn from.
    pub fn difficulties(&self) -> Difficulties {
        self.task().difficulties()
    }

    /// The option that is the difficulty: `length`, `hops` or `terms`.
    pub fn difficulty_name(&self) -> &'static str {
        let key = self.task().difficulty_key();
        key.rsplit('.').next().unwrap_or(key)
    }

    /// The same task with other difficulties.
    pub fn with_difficulties(mut self, difficulties: Difficulties) -> Self {
        *self.task_mut().difficulties_mut() = difficulties;
        self
    }

    /// The same task at its greatest difficulty alone.
    pub fn at_its_hardest(self) -> Self {
        let Difficulties::Range([_, to]) = self.difficulties() else {
            return self;
        };
        self.with_difficulties(Difficulties::One(to))
    }

    /// Tokens of the longest example.
    pub fn longest(&self) -> usize {
        self.task().tokens(self.difficulties().to())
    }

    /// Checks the options.
    ///
    /// # Errors
    /// [`DataError::Config`] with the option, what was found and what is allowed.
    pub fn check(&self) -> Result<(), DataError> {
        let task = self.task();
        task.check()?;
        let difficulties = self.difficulties();
        let wrong = |allowed: String| {
            Err(DataError::Config {
                key: task.difficulty_key(),
                found: difficulties.to_string(),
                allowed,
            })
        };
        let allowed = task.allowed();
        if difficulties.from() > difficulties.to()
            || !allowed.contains(&difficulties.from())
            || !allowed.contains(&difficulties.to())
        {
            return wrong(format!(
                "a number from {} to {}, or [from, to] within that",
                allowed.start(),
                allowed.end()
            ));
        }
        let few = difficulties
            .iter()
            .map(|difficulty| (difficulty, task.count(difficulty)))
            .find(|(_, count)| *count < LEAST_EXAMPLES);
        match few {
            None => Ok(()),
            Some((difficulty, count)) => wrong(format!(
                "difficulties with at least {LEAST_EXAMPLES} examples; {difficulty} has {count}"
            )),
        }
    }

    /// Checks that the longest example fits into the rows of a model.
    ///
    /// # Errors
    /// [`DataError::Config`] about `model.seq_len`.
    pub fn check_length(&self, seq: usize) -> Result<(), DataError> {
        let longest = self.longest();
        match longest <= seq {
            true => Ok(()),
            false => Err(DataError::Config {
                key: "model.seq_len",
                found: seq.to_string(),
                allowed: format!(
                    "at least {longest}, the longest example of {PREFIX}{} at {} {}",
                    self.name(),
                    self.difficulty_name(),
                    self.difficulties().to()
                ),
            }),
        }
    }

    /// Tokens of the vocabulary: the symbols and the end of a text.
    pub fn vocab_size(&self) -> usize {
        self.task().symbols().len() + 1
    }

    /// What the file beside a model's weights is called that says what the model was trained on.
    pub const FILE: &'static str = "task.json";

    /// Reads the [`FILE`](Self::FILE) of a model directory, if there is one.
    ///
    /// # Errors
    /// [`DataError::Io`], and [`DataError::TaskFile`] if it is no task with its options.
    pub fn read(model: &Path) -> Result<Option<Self>, DataError> {
        let path = model.join(Self::FILE);
        let json = match read_regular(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
                return Ok(None);
            }
            read => read.map_err(DataError::io(&path))?,
        };
        let spec: Self = serde_json::from_slice(&json).map_err(|error| DataError::TaskFile {
            path,
            message: error.to_string(),
        })?;
        spec.check()?;
        Ok(Some(spec))
    }

    /// A tokenizer with a word for each symbol, divided by white space.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`], never for options that pass [`check`](Self::check).
    pub fn tokenizer(&self) -> Result<Tokenizer, DataError> {
        vocabulary::tokenizer(&self.task().symbols())
    }

    /// A hash of the options: equal where the examples of one seed are.
    pub(crate) fn hash(&self, part: Part) -> [u8; 32] {
        let json = serde_json::to_vec(self).expect("invariant: options serialise as JSON");
        let mut hash = blake3::Hasher::new();
        hash.update(&examples::FORMAT.to_le_bytes());
        hash.update(format!("{part:?}").as_bytes());
        hash.update(&json);
        *hash.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_options_read_back() {
        for spec in TaskSpec::all() {
            spec.check().unwrap();
            assert_eq!(TaskSpec::named(spec.name()).unwrap(), spec);
            let json = serde_json::to_string(&spec).unwrap();
            assert!(json.starts_with(&format!("{{\"task\":\"{}\"", spec.name())));
            assert_eq!(serde_json::from_str::<TaskSpec>(&json).unwrap(), spec);
            assert_eq!(spec.tokenizer().unwrap().vocab_size(), spec.vocab_size());
        }
        let error = TaskSpec::named("sorting").unwrap_err().to_string();
        assert!(error.contains("task:group, task:hops"), "{error}");
    }

    #[test]
    fn impossible_options_are_refused() {
        for (json, expected) in [
            (
                r#"{"task": "group", "lenght": 3}"#,
                "unknown field `lenght`",
            ),
            (r#"{"task": "groups"}"#, "unknown variant `groups`"),
            (
                r#"{"task": "group", "group": "S4"}"#,
                "unknown variant `S4`",
            ),
            (
                r#"{"task": "group", "length": "x"}"#,
                "a number, or [from, to]",
            ),
        ] {
            let error = serde_json::from_str::<TaskSpec>(json).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        for (json, expected) in [
            (r#"{"task": "group", "length": 3}"#, "3 has 216"),
            (
                r#"{"task": "group", "length": 0}"#,
                "data.source.length = 0",
            ),
            (r#"{"task": "group", "length": [8, 4]}"#, "length = [8, 4]"),
            (
                r#"{"task": "hops", "alphabet": 2}"#,
                "data.source.alphabet = 2",
            ),
            (r#"{"task": "hops", "hops": 40}"#, "from 1 to 15"),
            (
                r#"{"task": "addition", "terms": 2, "digits": 1}"#,
                "2 has 55",
            ),
            (r#"{"task": "addition", "digits": 19}"#, "digits = 19"),
            (r#"{"task": "pointers", "nodes": 4}"#, "has 256"),
            (r#"{"task": "pointers", "nodes": 1}"#, "nodes = 1"),
        ] {
            let spec = serde_json::from_str::<TaskSpec>(json).unwrap();
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let group = TaskSpec::named("group").unwrap();
        group.check_length(32).unwrap();
        let error = group.check_length(31).unwrap_err().to_string();
        assert!(error.contains("model.seq_len = 31"), "{error}");
        assert!(error.contains("at least 32"), "{error}");
    }
}
