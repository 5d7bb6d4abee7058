//! What a sweep leaves behind, and where.
//!
//! ```text
//! config.toml    the configuration that the trials' settings are on top of
//! sweep.jsonl    one object for each trial
//! sweep.md       the table
//! sweep.svg      the picture
//! runs/TRIAL/    the run directory of each trial
//! logs/TRIAL.log what each trial printed
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use iiet_files::{FileLock, write_file};
use iiet_train::RunConfig;
use toml::{Table, Value};

use crate::SweepError;

const LOCK: &str = ".lock";

/// The directory of one sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepDirectory {
    path: PathBuf,
}

impl SweepDirectory {
    /// The directory of that path.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `sweep.jsonl`
    pub fn results(&self) -> PathBuf {
        self.path.join("sweep.jsonl")
    }

    /// `sweep.md`
    pub fn table(&self) -> PathBuf {
        self.path.join("sweep.md")
    }

    /// `sweep.svg`
    pub fn picture(&self) -> PathBuf {
        self.path.join("sweep.svg")
    }

    /// The run directory of a trial.
    pub fn run(&self, trial: &str) -> PathBuf {
        self.path.join("runs").join(trial)
    }

    /// `logs/`
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// What a trial printed.
    pub fn log(&self, trial: &str) -> PathBuf {
        self.logs().join(format!("{trial}.log"))
    }

    /// Takes the directory for a sweep of a configuration, which is written there, or goes on with one.
    pub(crate) fn claim(&self, config: &RunConfig) -> Result<FileLock, SweepError> {
        // Until there are results, another configuration may take its place.
        let is_new = !self.results().exists();
        if is_new && let Some(found) = self.other_contents()? {
            let path = self.path.clone();
            return Err(SweepError::Occupied { path, found });
        }
        for folder in ["runs", "logs"] {
            let folder = self.path.join(folder);
            fs::create_dir_all(&folder).map_err(SweepError::io(&folder))?;
        }
        let lock = self.path.join(LOCK);
        let lock = FileLock::try_acquire(&lock).map_err(SweepError::io(&lock))?;
        let path = self.path.clone();
        let lock = lock.ok_or(SweepError::Busy { path })?;
        let path = self.config();
        if is_new {
            let text = config.to_toml();
            write_file(&path, |file| file.write_all(text.as_bytes()))
                .map_err(SweepError::io(&path))?;
        }
        let before = RunConfig::load(&path, &[])?;
        match differences(&before, config) {
            same if same.is_empty() => Ok(lock),
            differences => Err(SweepError::Changed { path, differences }),
        }
    }

    /// Something in the directory that does not belong to a sweep without results.
    fn other_contents(&self) -> Result<Option<String>, SweepError> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            entries => entries.map_err(SweepError::io(&self.path))?,
        };
        for entry in entries {
            let name = entry.map_err(SweepError::io(&self.path))?.file_name();
            let name = name.to_string_lossy();
            let of_sweep = match &*name {
                "runs" | "logs" => true,
                "config.toml" => self.logs().exists(),
                other => other.starts_with('.'),
            };
            if !of_sweep {
                return Ok(Some(name.into_owned()));
            }
        }
        Ok(None)
    }
}

/// The keys in which two configurations differ, with both values.
fn differences(before: &RunConfig, now: &RunConfig) -> Vec<String> {
    let flat = |config: &RunConfig| {
        let table = toml::from_str::<Table>(&config.to_toml());
        let table = table.expect("invariant: to_toml writes TOML");
        let mut flat = BTreeMap::new();
        flatten("", &table, &mut flat);
        flat
    };
    let (before, now) = (flat(before), flat(now));
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|key| before.get(*key) != now.get(*key));
    let shown = |value: Option<&Value>| value.map_or_else(|| "not set".into(), Value::to_string);
    differ
        .map(|key| {
            let (before, now) = (shown(before.get(key)), shown(now.get(key)));
            format!("{key} was {before} and is {now}")
        })
        .collect()
}

fn flatten(prefix: &str, table: &Table, flat: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        match value {
            Value::Table(table) => flatten(&format!("{prefix}{key}."), table, flat),
            value => {
                flat.insert(format!("{prefix}{key}"), value.clone());
            }
        }
    }
}
