//! JSON whose objects keep the order of their keys.
//!
//! A row's hash is that of its text, so the order counts: `serde_json`'s objects are sorted.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Number, Value};

/// A JSON value.
#[derive(Clone, Debug)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, its keys in the order of the file; no key stands twice.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is whole, not negative and fits.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub fn as_list(&self) -> Option<&[Json]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// The value of a key, if it is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Object(entries) => get(entries, key),
            _ => None,
        }
    }
}

/// The value of a key.
pub(super) fn get<'a>(entries: &'a [(String, Json)], key: &str) -> Option<&'a Json> {
    let found = entries.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value)
}

/// Whether two objects have the same keys and values, in whatever order.
pub(super) fn same(a: &[(String, Json)], b: &[(String, Json)]) -> bool {
    let of_b = |(key, value): &(String, Json)| get(b, key) == Some(value);
    // Rows of a file mostly have their keys in one order.
    a.len() == b.len() && (a == b || a.iter().all(of_b))
}

/// Objects are equal whatever the order of their keys, as in Python.
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => same(a, b),
            _ => false,
        }
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(list) => Self::List(list.into_iter().map(Self::from).collect()),
            Value::Object(map) => Self::Object(
                map.into_iter()
                    .map(|(key, value)| (key, value.into()))
                    .collect(),
            ),
        }
    }
}

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => Self::Number(number),
            Json::Text(text) => Self::String(text),
            Json::List(list) => Self::Array(list.into_iter().map(Self::from).collect()),
            Json::Object(entries) => Self::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, value.into()))
                    .collect(),
            ),
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => list.serialize(serializer),
            Self::Object(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

/// Takes any JSON value.
struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Number::from_f64(value).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = array.next_element()? {
            list.push(element);
        }
        list.shrink_to_fit();
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        entries.shrink_to_fit();
        Ok(Json::Object(without_repeats(entries)))
    }
}

/// A key that stands twice keeps its first place and its last value, as in Python.
fn without_repeats(entries: Vec<(String, Json)>) -> Vec<(String, Json)> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    // By sorting, because a hostile file may have a million keys in an object.
    order.sort_by_key(|at| (&entries[*at].0, *at));
    let groups = order.chunk_by(|a, b| entries[*a].0 == entries[*b].0);
    // For each first place the place of the last value.
    let mut last: Vec<Option<usize>> = vec![None; entries.len()];
    for group in groups {
        last[group[0]] = group.last().copied();
    }
    if last.iter().enumerate().all(|(at, last)| *last == Some(at)) {
        return entries;
    }
    let (names, mut values): (Vec<String>, Vec<Option<Json>>) = entries
        .into_iter()
        .map(|(name, value)| (name, Some(value)))
        .unzip();
    let kept = names.into_iter().zip(last);
    kept.filter_map(|(name, last)| Some((name, values[last?].take()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_the_last_value() {
        let text = r#"{"b":1,"a":{"z":null,"y":[true,-2,0.5]},"c":"x"}"#;
        let json: Json = serde_json::from_str(text).unwrap();
        assert_eq!(json.to_string(), text);
        let json: Json = serde_json::from_str(r#"{"b":1,"a":2,"b":3,"c":4,"a":5}"#).unwrap();
        // json.dumps(json.loads(..))
        assert_eq!(json.to_string(), r#"{"b":3,"a":5,"c":4}"#);
        assert_eq!(
            json,
            serde_json::from_str(r#"{"c":4,"a":5,"b":3}"#).unwrap()
        );
        assert_ne!(
            json,
            serde_json::from_str(r#"{"c":4,"a":5,"b":4}"#).unwrap()
        );
        assert_eq!(Value::from(json.clone())["a"], 5);
        assert_eq!(Json::from(Value::from(json.clone())), json);
    }
}
