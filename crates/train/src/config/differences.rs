//! The differences between two configurations, by key.

use toml::{Table, Value};

use crate::{Difference, RunConfig};

/// Keys of `[train]` that must not change in a run, because the order of its data, its random
/// numbers or the meaning of its state depend on them. Keys of `[model]` must not change either.
const KEPT: &[&str] = &[
    "train.seed",
    "train.batch",
    "train.batch_tokens",
    "train.label_smoothing",
    "train.accumulation",
    "train.optimizer",
    "train.iterations",
    "train.stages",
];

/// Differences, grouped by those that are not allowed, those of `[data]`, and those that are
/// allowed.
///
/// Keys of `[data]` may differ if the tokens are the same: a corpus may have moved.
pub(crate) struct Differences {
    pub(crate) refused: Vec<Difference>,
    pub(crate) data: Vec<Difference>,
    pub(crate) allowed: Vec<Difference>,
}

impl Differences {
    /// All differences.
    pub(crate) fn all(self) -> Vec<Difference> {
        let Self {
            refused,
            data,
            allowed,
        } = self;
        [refused, data, allowed].concat()
    }
}

/// Compares two configurations.
pub(crate) fn differences(before: &RunConfig, now: &RunConfig) -> Differences {
    let table = |config: &RunConfig| -> Table {
        toml::from_str(&config.to_toml()).expect("invariant: to_toml writes TOML")
    };
    let mut found = Vec::new();
    compare("", &table(before), &table(now), &mut found);
    let mut sorted = Differences {
        refused: Vec::new(),
        data: Vec::new(),
        allowed: Vec::new(),
    };
    for difference in found {
        let key = difference.key.as_str();
        let list = match key.split_once('.') {
            Some(("data", _)) => &mut sorted.data,
            Some(("train", _)) if !KEPT.contains(&key) => &mut sorted.allowed,
            _ => &mut sorted.refused,
        };
        list.push(difference);
    }
    sorted
}

fn compare(prefix: &str, before: &Table, now: &Table, found: &mut Vec<Difference>) {
    let keys = before
        .keys()
        .chain(now.keys().filter(|key| !before.contains_key(*key)));
    for key in keys {
        let name = format!("{prefix}{key}");
        match (before.get(key), now.get(key)) {
            (Some(Value::Table(before)), Some(Value::Table(now))) => {
                compare(&format!("{name}."), before, now, found);
            }
            (before, now) if before == now => {}
            (before, now) => {
                let show = |value: Option<&Value>| {
                    value.map_or_else(|| "not set".to_owned(), ToString::to_string)
                };
                found.push(Difference {
                    key: name,
                    before: show(before),
                    now: show(now),
                });
            }
        }
    }
}
