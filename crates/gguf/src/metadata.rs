//! The metadata of a GGUF file: values by key, in the order of the file.
//!
//! Types and their numbers are those of the format's description, `docs/gguf.md` in ggml.

use std::collections::HashSet;

use crate::GgufError;

/// The longest key, in bytes.
pub(crate) const MAX_KEY: u64 = 65_535;
/// Bytes between the beginnings of tensors are multiples of this, if the file does not say otherwise.
pub(crate) const DEFAULT_ALIGNMENT: u32 = 32;
/// The key of the alignment.
pub(crate) const ALIGNMENT: &str = "general.alignment";

/// A value.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are named after their types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Values of one type.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are named after their types")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    Array(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Value {
    /// The name of the type in messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::F32(_) => "f32",
            Self::Bool(_) => "bool",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
        }
    }

    /// The value of any integer type, if it is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(x) => Some(x.into()),
            Self::U16(x) => Some(x.into()),
            Self::U32(x) => Some(x.into()),
            Self::U64(x) => Some(x),
            Self::I8(x) => x.try_into().ok(),
            Self::I16(x) => x.try_into().ok(),
            Self::I32(x) => x.try_into().ok(),
            Self::I64(x) => x.try_into().ok(),
            _ => None,
        }
    }

    /// The value of either floating-point type. An f32 becomes the f64 with the same shortest decimal form,
    /// because 1e-6 is meant by the f32 that is next to it.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Self::F32(x) => x.to_string().parse().ok(),
            Self::F64(x) => Some(x),
            _ => None,
        }
    }

    /// The text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }
}

impl From<u32> for Value {
    fn from(x: u32) -> Self {
        Self::U32(x)
    }
}

impl From<f32> for Value {
    fn from(x: f32) -> Self {
        Self::F32(x)
    }
}

impl From<bool> for Value {
    fn from(x: bool) -> Self {
        Self::Bool(x)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<Vec<String>> for Value {
    fn from(texts: Vec<String>) -> Self {
        Self::Array(Array::String(texts))
    }
}

impl From<Vec<i32>> for Value {
    fn from(numbers: Vec<i32>) -> Self {
        Self::Array(Array::I32(numbers))
    }
}

/// Values by key, in the order of the file. Keys are unique.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(Vec<(String, Value)>);

impl Metadata {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// The values with their keys, which must be unique, not empty and at most 65535 bytes long.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] with the key.
    pub fn from_pairs(pairs: Vec<(String, Value)>) -> Result<Self, GgufError> {
        let mut keys = HashSet::new();
        for (key, _) in &pairs {
            if key.is_empty() || key.len() as u64 > MAX_KEY {
                let found = format!("a key of {} bytes", key.len());
                let start: String = key.chars().take(40).collect();
                let allowed = format!("allowed: 1 to {MAX_KEY}");
                return Err(GgufError::metadata(start, found, allowed));
            }
            if !keys.insert(key.as_str()) {
                return Err(GgufError::metadata(
                    key,
                    "twice",
                    "allowed: one value for each key",
                ));
            }
        }
        Ok(Self(pairs))
    }

    /// Sets a value, in place of an earlier one.
    ///
    /// # Panics
    ///
    /// If the key is empty or longer than 65535 bytes.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        assert!(
            !key.is_empty() && key.len() as u64 <= MAX_KEY,
            "keys have 1 to {MAX_KEY} bytes"
        );
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Takes over all values of other metadata.
    pub fn extend(&mut self, other: Metadata) {
        for (key, value) in other.0 {
            self.set(key, value);
        }
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value)
    }

    /// All values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// An integer, if the key is there.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] if it is of another type or negative.
    pub fn optional_u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "an integer of at least 0", Value::as_u64)
    }

    /// An integer.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] if it is absent, of another type or negative.
    pub fn u64(&self, key: &str) -> Result<u64, GgufError> {
        let found = self.optional_u64(key)?;
        found.ok_or_else(|| GgufError::metadata(key, "nothing", "allowed: an integer"))
    }

    /// A floating-point number, if the key is there.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] if it is of another type.
    pub fn optional_f64(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a floating-point number", Value::as_f64)
    }

    /// A text, if the key is there.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] if it is of another type.
    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a string", Value::as_str)
    }

    /// A truth value, if the key is there.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] if it is of another type.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(x) => Some(*x),
            _ => None,
        })
    }

    /// Texts, if the key is there.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] if it is of another type.
    pub fn optional_strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::String(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// The alignment of tensors, in bytes.
    ///
    /// # Errors
    ///
    /// [`GgufError::Metadata`] unless it is a power of two from 8 to 65536.
    pub fn alignment(&self) -> Result<u64, GgufError> {
        let allowed = "allowed: a u32 that is a power of two from 8 to 65536";
        match self.get(ALIGNMENT) {
            None => Ok(DEFAULT_ALIGNMENT.into()),
            Some(Value::U32(n)) if n.is_power_of_two() && (8..=65_536).contains(n) => {
                Ok((*n).into())
            }
            Some(Value::U32(n)) => Err(GgufError::metadata(ALIGNMENT, n, allowed)),
            Some(other) => Err(GgufError::metadata(ALIGNMENT, other.type_name(), allowed)),
        }
    }

    fn typed<'a, T: 'a>(
        &'a self,
        key: &str,
        allowed: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => {
                let found = match value {
                    Value::I8(x) => x.to_string(),
                    Value::I16(x) => x.to_string(),
                    Value::I32(x) => x.to_string(),
                    Value::I64(x) => x.to_string(),
                    other => other.type_name().to_owned(),
                };
                Err(GgufError::metadata(
                    key,
                    found,
                    format!("allowed: {allowed}"),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_millionth_keeps_its_decimal_form() {
        assert_eq!(Value::F32(1e-6).as_f64(), Some(1e-6));
        assert_eq!(Value::F32(10000.0).as_f64(), Some(10000.0));
        assert_eq!(Value::F64(0.1).as_f64(), Some(0.1));
    }

    #[test]
    fn values_of_another_type_are_errors_that_name_it() {
        let mut metadata = Metadata::new();
        metadata.set("llama.block_count", "six");
        metadata.set("llama.context_length", Value::I32(-1));
        let error = metadata.u64("llama.block_count").unwrap_err().to_string();
        let expected = "llama.block_count: found a string; allowed: an integer of at least 0";
        assert_eq!(error, expected);
        let error = metadata.u64("llama.context_length").unwrap_err();
        assert!(error.to_string().contains("found -1"), "{error}");
        let error = metadata.u64("llama.vocab_size").unwrap_err();
        assert!(error.to_string().contains("found nothing"), "{error}");
        metadata.set("llama.block_count", 6);
        assert_eq!(metadata.u64("llama.block_count").unwrap(), 6);
        assert_eq!(metadata.iter().len(), 2);
    }

    #[test]
    fn duplicate_and_empty_keys_are_errors() {
        let pair = |key: &str| (key.to_owned(), Value::Bool(true));
        let error = Metadata::from_pairs(vec![pair("a"), pair("b"), pair("a")]);
        assert!(error.unwrap_err().to_string().contains("a: found twice"));
        assert!(Metadata::from_pairs(vec![pair("")]).is_err());
    }

    #[test]
    fn alignments_are_powers_of_two() {
        let mut metadata = Metadata::new();
        assert_eq!(metadata.alignment().unwrap(), 32);
        metadata.set(ALIGNMENT, 64);
        assert_eq!(metadata.alignment().unwrap(), 64);
        for wrong in [0, 4, 48, 1 << 17] {
            metadata.set(ALIGNMENT, wrong);
            let error = metadata.alignment().unwrap_err().to_string();
            assert!(error.contains(&format!("found {wrong};")), "{error}");
        }
    }
}
