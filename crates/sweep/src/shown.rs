//! How keys and values are written in names, tables and pictures.

use std::collections::BTreeMap;

use serde_json::Value;

/// The shortest ends of dotted keys that tell them apart: `lr` for `train.lr`.
pub fn short_names<'a>(keys: impl IntoIterator<Item = &'a String>) -> BTreeMap<String, String> {
    let keys: Vec<&String> = keys.into_iter().collect();
    let end = |key: &str, words: usize| -> String {
        let all: Vec<&str> = key.split('.').collect();
        all[all.len().saturating_sub(words)..].join(".")
    };
    let short = |key: &String| {
        let unique = |words: &usize| {
            let others = keys.iter().filter(|other| **other != key);
            others
                .into_iter()
                .all(|other| end(other, *words) != end(key, *words))
        };
        let words = (1..key.split('.').count()).find(unique);
        words.map_or_else(|| key.clone(), |words| end(key, words))
    };
    keys.iter()
        .map(|key| ((*key).clone(), short(key)))
        .collect()
}

/// A value of the configuration as a person would say it: strings without quotes, a solver by its
/// name and options.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(shown).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(table) => {
            let name = table.get("name").map(shown);
            let others = table.iter().filter(|(key, _)| *key != "name");
            let others = others.map(|(key, value)| format!("{key} {}", shown(value)));
            name.into_iter().chain(others).collect::<Vec<_>>().join(" ")
        }
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Whether more of a quantity of `metrics.jsonl` is better: of accuracies it is, of losses it is not.
pub fn higher_is_better(metric: &str) -> bool {
    metric.contains("accuracy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shortened_until_they_differ() {
        let keys = ["train.lr", "model.solver.iterations", "distill.lr", "lr"].map(String::from);
        let names = short_names(&keys);
        let names: Vec<&str> = keys.iter().map(|key| names[key].as_str()).collect();
        assert_eq!(names, ["train.lr", "iterations", "distill.lr", "lr"]);
    }

    #[test]
    fn values_are_written_without_quotes() {
        for (value, expected) in [
            (r#""explicit_euler""#, "explicit_euler"),
            ("0.001", "0.001"),
            ("[3,1,0]", "[3, 1, 0]"),
            (
                r#"{"iterations":1,"name":"implicit_euler"}"#,
                "implicit_euler iterations 1",
            ),
        ] {
            assert_eq!(shown(&serde_json::from_str(value).unwrap()), expected);
        }
    }
}
