//! The grid: axes of settings, and their product.

use std::collections::BTreeMap;
use std::str::FromStr;

use toml::{Table, Value};

use crate::SweepError;

/// Values of dotted keys of the configuration, such as `train.lr`.
pub type Settings = BTreeMap<String, Value>;

/// One axis of a grid: the settings to try in turn.
///
/// Read from `KEY=VALUE,VALUE,..` with values as in TOML; a bare word is a string. Commas inside
/// quotes, brackets and braces belong to a value: `data.source="a, b","c"`,
/// `model.solver.iterations=[3, 1],[1, 3]`, `model.solver={name="implicit_euler", iterations=1},explicit_euler`.
/// Where `KEY` is a section, each value is a table with keys of that section, which then change
/// together: `model={n_layers=2, d_model=64},{n_layers=4, d_model=32}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    text: String,
    points: Vec<Settings>,
}

impl Axis {
    /// The settings to try in turn.
    pub fn points(&self) -> &[Settings] {
        &self.points
    }

    /// Every combination of one point of each axis; the last axis changes fastest. Without axes there
    /// is one, which sets nothing.
    ///
    /// # Errors
    ///
    /// [`SweepError::Grid`] for a key that two axes set.
    pub fn product(axes: &[Self]) -> Result<Vec<Settings>, SweepError> {
        for (at, axis) in axes.iter().enumerate() {
            let mut keys = axis.points.iter().flat_map(BTreeMap::keys);
            let set_before = |key: &&String| {
                let before = axes[..at].iter().flat_map(|axis| &axis.points);
                before.into_iter().any(|point| point.contains_key(*key))
            };
            if let Some(key) = keys.find(set_before) {
                return Err(axis.refuse(format!("{key} is in another --grid already")));
            }
        }
        let mut combinations = vec![Settings::new()];
        for axis in axes {
            let with_each_point = |settings: &Settings| -> Vec<Settings> {
                let points = axis.points.iter().cloned();
                points
                    .map(|point| settings.clone().into_iter().chain(point).collect())
                    .collect()
            };
            combinations = combinations.iter().flat_map(with_each_point).collect();
        }
        Ok(combinations)
    }

    /// That the axis may not set a key, for a reason.
    pub(crate) fn refuse_key(&self, key: &str, reason: &str) -> Result<(), SweepError> {
        match self.points.iter().any(|point| point.contains_key(key)) {
            true => Err(self.refuse(format!("{key} {reason}"))),
            false => Ok(()),
        }
    }

    fn refuse(&self, reason: String) -> SweepError {
        SweepError::Grid {
            text: self.text.clone(),
            reason,
        }
    }
}

impl FromStr for Axis {
    type Err = SweepError;

    fn from_str(text: &str) -> Result<Self, SweepError> {
        let refuse = |reason: String| SweepError::Grid {
            text: text.to_owned(),
            reason,
        };
        let (key, values) = text
            .split_once('=')
            .ok_or_else(|| refuse("expected KEY=VALUE,VALUE, such as train.lr=1e-3,3e-3".into()))?;
        let key = key.trim();
        let mut points: Vec<Settings> = Vec::new();
        for value in split(values).map_err(refuse)? {
            let point = settings(key, parse(value).map_err(refuse)?).map_err(refuse)?;
            if points.contains(&point) {
                return Err(refuse(format!("{} is given twice", value.trim())));
            }
            points.push(point);
        }
        let text = text.to_owned();
        Ok(Self { text, points })
    }
}

/// What one value of a key sets.
fn settings(key: &str, value: Value) -> Result<Settings, String> {
    if key.split('.').any(|word| word.trim().is_empty()) {
        return Err(format!(
            "{key:?} is no key; allowed: a key such as train.lr, or a section"
        ));
    }
    match (key.contains('.'), value) {
        (true, value) => Ok(Settings::from([(key.to_owned(), value)])),
        (false, Value::Table(table)) if !table.is_empty() => {
            let keys = table.into_iter();
            Ok(keys
                .map(|(name, value)| (format!("{key}.{name}"), value))
                .collect())
        }
        (false, _) => Err(format!(
            "{key} is a section; allowed: a key of it, such as {key}.KEY=1,2, or tables of keys, such \
             as {key}={{KEY=1}},{{KEY=2}}"
        )),
    }
}

/// A value as in TOML, or a bare word.
fn parse(text: &str) -> Result<Value, String> {
    let text = text.trim();
    match toml::from_str::<Table>(&format!("value = {text}")) {
        Ok(mut table) if table.len() == 1 => table.remove("value").ok_or_else(|| unreadable(text)),
        _ if !text.is_empty() && text.chars().all(is_of_a_word) => {
            Ok(Value::String(text.to_owned()))
        }
        Ok(_) => Err(unreadable(text)),
        Err(error) => Err(format!("{}: {}", unreadable(text), error.message())),
    }
}

fn unreadable(text: &str) -> String {
    format!("{text:?} is no value; allowed: a value as in TOML, or a word")
}

/// What a string without quotes may consist of: names, paths and versions.
fn is_of_a_word(character: char) -> bool {
    character.is_alphanumeric() || "_-+./:@ ".contains(character)
}

/// Splits at the commas that are outside quotes, brackets and braces.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let (mut pieces, mut start) = (Vec::new(), 0);
    let (mut open, mut quote, mut escaped) = (Vec::new(), None, false);
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some('"'), '\\') => escaped = true,
            (Some(begun), _) if begun == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, '[') => open.push(']'),
            (None, '{') => open.push('}'),
            (None, ']' | '}') => {
                if open.pop() != Some(character) {
                    return Err(format!("{character} closes nothing"));
                }
            }
            (None, ',') if open.is_empty() => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    match (quote, open.last()) {
        (Some(quote), _) => Err(format!("a closing {quote} is missing")),
        (None, Some(bracket)) => Err(format!("a closing {bracket} is missing")),
        (None, None) => {
            pieces.push(&text[start..]);
            Ok(pieces)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(text: &str) -> Axis {
        text.parse().unwrap()
    }

    /// The points of an axis as TOML.
    fn points(text: &str) -> Vec<String> {
        let points = axis(text).points;
        let shown = points.iter().map(|point| {
            let settings = point.iter().map(|(key, value)| format!("{key}={value}"));
            settings.collect::<Vec<_>>().join(" ")
        });
        shown.collect()
    }

    #[test]
    fn values_are_those_of_toml_and_bare_words_are_strings() {
        assert_eq!(
            points("train.lr=1e-3,3e-3"),
            ["train.lr=0.001", "train.lr=0.003"]
        );
        assert_eq!(
            points("model.solver = explicit_euler, runge_kutta"),
            [
                "model.solver=\"explicit_euler\"",
                "model.solver=\"runge_kutta\""
            ]
        );
        assert_eq!(
            points("data.source='a, b.txt',\"c\\\",d\",../e.txt"),
            [
                "data.source=\"a, b.txt\"",
                "data.source='c\",d'",
                "data.source=\"../e.txt\""
            ]
        );
        assert_eq!(
            points("model.solver.iterations=[3, 1],0"),
            [
                "model.solver.iterations=[3, 1]",
                "model.solver.iterations=0"
            ]
        );
    }

    #[test]
    fn inline_tables_are_values_and_tables_of_a_section_set_its_keys_together() {
        assert_eq!(
            points(
                "model.solver={name=\"explicit_euler\"},{name=\"implicit_euler\",iterations=[1,2]}"
            ),
            [
                "model.solver={ name = \"explicit_euler\" }",
                "model.solver={ iterations = [1, 2], name = \"implicit_euler\" }",
            ]
        );
        assert_eq!(
            points("model={n_layers=2,d_model=64},{n_layers=4}"),
            ["model.d_model=64 model.n_layers=2", "model.n_layers=4"]
        );
    }

    #[test]
    fn the_product_varies_the_last_axis_fastest() {
        let axes = [
            axis("train.lr=1,2"),
            axis("model={n_layers=3,d_ff=4},{n_layers=5}"),
        ];
        let product = Axis::product(&axes).unwrap();
        let numbers = |key: &str| -> Vec<Option<i64>> {
            let values = product.iter().map(|settings| settings.get(key));
            values
                .map(|value| value.and_then(Value::as_integer))
                .collect()
        };
        assert_eq!(numbers("train.lr"), [1, 1, 2, 2].map(Some));
        assert_eq!(numbers("model.n_layers"), [3, 5, 3, 5].map(Some));
        assert_eq!(numbers("model.d_ff"), [Some(4), None, Some(4), None]);
        assert_eq!(Axis::product(&[]).unwrap(), [Settings::new()]);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("train.lr", "--grid train.lr: expected KEY=VALUE,VALUE"),
            (
                "train.lr=1,,2",
                "\"\" is no value; allowed: a value as in TOML",
            ),
            ("train.lr=", "\"\" is no value"),
            ("train.lr=1,2,1", "1 is given twice"),
            ("train.lr=0.001,1e-3", "1e-3 is given twice"),
            ("=1,2", "\"\" is no key"),
            ("train..lr=1", "\"train..lr\" is no key"),
            ("model=1,2", "model is a section; allowed: a key of it"),
            ("model.x=[1,2", "a closing ] is missing"),
            ("model.x={a=[1},2", "} closes nothing"),
            ("model.x=\"a,b", "a closing \" is missing"),
            ("model.x={a=}", "is no value"),
            ("train.lr=1\nb=2", "is no value"),
        ] {
            let error = text.parse::<Axis>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let axes = [axis("model.n_layers=1,2"), axis("model={n_layers=3}")];
        let error = Axis::product(&axes).unwrap_err().to_string();
        assert!(
            error.contains("model.n_layers is in another --grid"),
            "{error}"
        );
    }
}
