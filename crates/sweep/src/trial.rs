//! One run of a sweep: settings and a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use iiet_files::FileRecord;
use iiet_train::RunConfig;
use serde_json::Value;

use crate::{Settings, SweepError, short_names, shown};

/// The key that seeds set.
pub(crate) const SEED: &str = "train.seed";

/// Longer names are cut: file systems allow 255 bytes.
const LONGEST_NAME: usize = 160;

/// One run of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The name of its directory, made of its settings: `lr=0.001_iterations=3_seed=1`.
    pub name: String,
    /// What it sets.
    pub settings: Settings,
    /// Its `train.seed`.
    pub seed: u64,
    /// Its configuration in full.
    pub config: RunConfig,
}

impl Trial {
    /// Every combination of settings with each seed, in this order, as configurations on top of
    /// the file `base`.
    ///
    /// # Errors
    ///
    /// [`SweepError::Trial`] for settings that are no configuration.
    pub(crate) fn all(
        base: &Path,
        combinations: &[Settings],
        seeds: &[u64],
    ) -> Result<Vec<Self>, SweepError> {
        let keys: BTreeSet<&String> = combinations.iter().flat_map(BTreeMap::keys).collect();
        let short = short_names(keys);
        let mut trials: Vec<Self> = Vec::new();
        for settings in combinations {
            for seed in seeds {
                let mut name = name(settings, *seed, &short);
                if trials.iter().any(|trial| trial.name == name) {
                    name = format!("{name}_{}", fingerprint(settings));
                }
                let sets = sets(settings, *seed);
                let config = RunConfig::load(base, &sets).map_err(|source| SweepError::Trial {
                    trial: name.clone(),
                    source: Box::new(source),
                })?;
                trials.push(Self {
                    name,
                    settings: settings.clone(),
                    seed: *seed,
                    config,
                });
            }
        }
        Ok(trials)
    }

    /// Its settings and seed as `KEY=VALUE`, as `--set` takes them.
    pub fn sets(&self) -> Vec<String> {
        sets(&self.settings, self.seed)
    }

    /// Its settings as JSON.
    pub(crate) fn settings_as_json(&self) -> BTreeMap<String, Value> {
        let settings = self.settings.iter();
        settings
            .map(|(key, value)| (key.clone(), as_json(value)))
            .collect()
    }
}

/// A section comes before its keys, so that `model.solver` does not undo `model.solver.iterations`.
fn sets(settings: &Settings, seed: u64) -> Vec<String> {
    let settings = settings.iter().map(|(key, value)| format!("{key}={value}"));
    settings.chain([format!("{SEED}={seed}")]).collect()
}

pub(crate) fn as_json(value: &toml::Value) -> Value {
    serde_json::to_value(value)
        .expect("invariant: TOML without dates of its own serialises as JSON")
}

fn name(settings: &Settings, seed: u64, short: &BTreeMap<String, String>) -> String {
    let words = settings.iter().map(|(key, value)| {
        let key = short.get(key).unwrap_or(key);
        format!("{key}={}", file_name(&shown(&as_json(value))))
    });
    let name = words
        .chain([format!("seed={seed}")])
        .collect::<Vec<_>>()
        .join("_");
    match name.len() > LONGEST_NAME {
        false => name,
        true => {
            let cut: String = name.chars().take(LONGEST_NAME / 2).collect();
            format!("{cut}.._{}_seed={seed}", fingerprint(settings))
        }
    }
}

/// A text as a part of a file's name that needs no quotes in a shell.
fn file_name(text: &str) -> String {
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' | '+' | '-' => character,
        _ => ' ',
    };
    let text: String = text.chars().map(plain).collect();
    text.split_whitespace().collect::<Vec<_>>().join("-")
}

/// Tells settings apart whose names are the same.
fn fingerprint(settings: &Settings) -> String {
    let record = FileRecord::of_bytes(sets(settings, 0).join("\n").as_bytes());
    record.blake3[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Axis;

    const BASE: &str = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 8\nsolver = \"explicit_euler\"\n[train]\nsteps = 100\nbatch = 2\nlr = 1e-3\n";

    fn trials(grid: &[&str], seeds: &[u64]) -> Result<Vec<Trial>, SweepError> {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("config.toml");
        fs::write(&base, BASE).unwrap();
        let axes: Vec<Axis> = grid.iter().map(|text| text.parse().unwrap()).collect();
        Trial::all(&base, &Axis::product(&axes).unwrap(), seeds)
    }

    #[test]
    fn a_trial_is_named_by_its_settings() {
        let all = trials(
            &[
                "train.lr=1e-3,1e-5",
                "model.solver=explicit_euler,{name='implicit_euler',iterations=[1,2]}",
            ],
            &[4, 5],
        )
        .unwrap();
        let names: Vec<&str> = all.iter().map(|trial| trial.name.as_str()).collect();
        assert_eq!(
            names[..3],
            [
                "solver=explicit_euler_lr=0.001_seed=4",
                "solver=explicit_euler_lr=0.001_seed=5",
                "solver=implicit_euler-iterations-1-2_lr=0.001_seed=4",
            ]
        );
        assert_eq!(all.len(), 8);
        assert_eq!(all[7].config.train.seed, 5);
        assert_eq!(all[7].config.train.lr, 1e-5);
        assert!(all[7].config.to_toml().contains("implicit_euler"));
        assert_eq!(trials(&[], &[0]).unwrap()[0].name, "seed=0");
    }

    #[test]
    fn names_are_short_and_different() {
        let long = "x".repeat(300);
        let grid = format!("data.source={long},{long}y,a/b,a-b");
        let all = trials(&[&grid], &[1]).unwrap();
        let names: BTreeSet<&String> = all.iter().map(|trial| &trial.name).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(names.iter().all(|name| name.len() <= LONGEST_NAME));
        assert!(names.iter().all(|name| !name.contains('/')));
    }

    #[test]
    fn settings_that_are_no_configuration_are_refused_by_name() {
        for (grid, expected) in [
            (
                "train.lrr=1,2",
                "trial lrr=1_seed=0: --set train.lrr=1: unknown field `lrr`",
            ),
            (
                "train.lr=1,-1",
                "trial lr=-1_seed=0: train.lr is -1; allowed: finite and above 0",
            ),
        ] {
            let error = trials(&[grid], &[0]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
