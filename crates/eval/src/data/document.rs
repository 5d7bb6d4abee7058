//! A row of a data set: an object whose fields are asked for by name and type.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::json::{Json, get, same};
use crate::error::EvalError;

/// A row, and where it stands.
#[derive(Clone, Debug)]
pub struct Document {
    path: Arc<Path>,
    row: usize,
    /// In the order of the file. A map would take ten times the memory for a row with one field.
    fields: Box<[(String, Json)]>,
}

/// Documents are equal as the harness compares them: by their fields.
impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        same(&self.fields, &other.fields)
    }
}

impl Document {
    /// A row of a file, counted from 1.
    pub fn new(path: &Arc<Path>, row: usize, fields: Map<String, Value>) -> Self {
        let fields = fields.into_iter();
        let fields = fields.map(|(name, value)| (name, value.into()));
        Self::ordered(path, row, fields.collect())
    }

    /// The same with the fields in their order.
    pub fn ordered(path: &Arc<Path>, row: usize, fields: Vec<(String, Json)>) -> Self {
        Self {
            path: Arc::clone(path),
            row,
            fields: fields.into(),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All fields by name.
    pub fn fields(&self) -> Map<String, Value> {
        let fields = self.fields.iter().cloned();
        fields.map(|(name, value)| (name, value.into())).collect()
    }

    /// All fields in their order.
    pub fn json(&self) -> Json {
        Json::Object(self.fields.to_vec())
    }

    /// A field as it stands in the row.
    pub fn field(&self, name: &str) -> Option<&Json> {
        get(&self.fields, name)
    }

    /// About how many bytes of memory the row takes.
    pub(crate) fn memory(&self) -> u64 {
        let fields = self.fields.iter();
        let fields = fields.map(|(name, value)| allocated(name.len()) + 24 + memory(value));
        size_of::<Self>() as u64 + fields.sum::<u64>()
    }

    /// A text; `a.b` is field `b` of the object `a`.
    ///
    /// # Errors
    /// [`EvalError::Field`] if there is none, or it is no text.
    pub fn text(&self, field: &str) -> Result<&str, EvalError> {
        let value = self.value(field)?;
        value
            .as_str()
            .ok_or_else(|| self.wrong(field, Some(value), "a text"))
    }

    /// A list of at least one text.
    ///
    /// # Errors
    /// [`EvalError::Field`] if it is anything else.
    pub fn texts(&self, field: &str) -> Result<Vec<&str>, EvalError> {
        let value = self.value(field)?;
        let texts = value
            .as_list()
            .filter(|list| !list.is_empty())
            .and_then(|list| list.iter().map(Json::as_str).collect());
        texts.ok_or_else(|| self.wrong(field, Some(value), "a list of texts"))
    }

    /// The number of a choice among `choices`, 0 the first.
    ///
    /// # Errors
    /// [`EvalError::Field`] if it is no whole number, or there is no such choice.
    pub fn choice(&self, field: &str, choices: usize) -> Result<usize, EvalError> {
        let value = self.value(field)?;
        let found = value.as_u64().and_then(|found| found.try_into().ok());
        found
            .filter(|found| *found < choices)
            .ok_or_else(|| self.wrong(field, Some(value), &up_to(choices)))
    }

    /// The number of a choice, written out in digits or not.
    ///
    /// # Errors
    /// As [`choice`](Self::choice).
    pub fn choice_in_digits(&self, field: &str, choices: usize) -> Result<usize, EvalError> {
        let value = self.value(field)?;
        let Some(digits) = value.as_str() else {
            return self.choice(field, choices);
        };
        let found = digits.parse().ok().filter(|found| *found < choices);
        found.ok_or_else(|| self.wrong(field, Some(value), &format!("{} as text", up_to(choices))))
    }

    /// Where `key` stands among `labels`.
    ///
    /// # Errors
    /// [`EvalError::Field`], for the field the key comes from, if it is none of them.
    pub fn position(&self, field: &str, key: &str, labels: &[&str]) -> Result<usize, EvalError> {
        let found = labels.iter().position(|label| *label == key);
        found.ok_or_else(|| {
            let expected = format!("one of {}", labels.join(", "));
            self.wrong(field, self.value(field).ok(), &expected)
        })
    }

    /// The error for a field that is not as expected.
    pub fn wrong(&self, field: &str, found: Option<&Json>, expected: &str) -> EvalError {
        let found = match found {
            Some(value) => excerpt(&value.to_string()),
            None => {
                let names: Vec<&str> = self.fields.iter().map(|(name, _)| name.as_str()).collect();
                format!("no such field among {}", excerpt(&names.join(", ")))
            }
        };
        EvalError::Field {
            path: self.path.to_path_buf(),
            row: self.row,
            field: field.to_owned(),
            found,
            expected: expected.to_owned(),
        }
    }

    fn value(&self, field: &str) -> Result<&Json, EvalError> {
        let mut names = field.split('.');
        let first = names.next().and_then(|name| self.field(name));
        let value = names.fold(first, |value, name| value?.get(name));
        value.ok_or_else(|| self.wrong(field, None, "this field"))
    }
}

fn memory(value: &Json) -> u64 {
    let below = match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::Text(text) => allocated(text.len()),
        Json::List(list) => 16 + list.iter().map(memory).sum::<u64>(),
        Json::Object(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|(name, value)| allocated(name.len()) + 24 + memory(value));
            16 + entries.sum::<u64>()
        }
    };
    size_of::<Json>() as u64 + below
}

/// What the allocator takes for so many bytes.
fn allocated(bytes: usize) -> u64 {
    bytes as u64 + 16
}

fn up_to(choices: usize) -> String {
    format!("a whole number from 0 to {}", choices.saturating_sub(1))
}

/// The beginning of what may be long.
fn excerpt(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text.to_owned(),
    }
}
