//! Names of models: the shortest suffixes of their paths that are unique.

use std::path::{Component, Path, PathBuf};

/// The name of a run's model directory, which does not distinguish runs.
const MODEL: &str = "model";

/// A name for each model directory, all different.
///
/// `runs/a/model` is `a`; beside `old/a/model` it is `runs/a`. The same directory twice is `a` and
/// `a (2)`.
pub(super) fn labels(models: &[PathBuf]) -> Vec<String> {
    let whole: Vec<Vec<String>> = models.iter().map(|model| parts(model)).collect();
    let mut parts: Vec<&[String]> = whole.iter().map(|parts| without_model(parts)).collect();
    let clash = |(i, j): (usize, usize)| parts[i] == parts[j] && whole[i] != whole[j];
    let pairs = (0..parts.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
    if pairs.into_iter().any(clash) {
        // `runs/a` beside `runs/a/model`.
        parts = whole.iter().map(Vec::as_slice).collect();
    }
    let mut labels: Vec<String> = Vec::new();
    for (at, own) in parts.iter().enumerate() {
        let unique = |length: &usize| {
            let end = &own[own.len() - length..];
            !parts
                .iter()
                .any(|other| other != own && other.ends_with(end))
        };
        let length = (1..=own.len()).find(unique).unwrap_or(own.len());
        let label = own[own.len() - length..].join("/");
        let before = parts[..at].iter().filter(|other| *other == own).count();
        labels.push(match before {
            0 => label,
            before => format!("{label} ({})", before + 1),
        });
    }
    labels
}

fn parts(model: &Path) -> Vec<String> {
    // A path that does not exist is reported elsewhere.
    let path = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    parts.collect()
}

fn without_model(parts: &[String]) -> &[String] {
    match parts {
        [rest @ .., last] if last == MODEL && !rest.is_empty() => rest,
        _ => parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_shortest_unique_suffixes() {
        for (paths, expected) in [
            (vec!["runs/a/model", "runs/b/model"], vec!["a", "b"]),
            (
                vec!["runs/a/model", "old/a/model", "c"],
                vec!["runs/a", "old/a", "c"],
            ),
            (vec!["runs/a", "runs/a/model"], vec!["a", "model"]),
            (
                vec!["/m/a/model", "/m/b", "/m/a/model"],
                vec!["a", "b", "a (2)"],
            ),
            (vec!["x/a", "a"], vec!["x/a", "a"]),
            (vec!["model"], vec!["model"]),
        ] {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            assert_eq!(labels(&paths), expected);
        }
    }
}
