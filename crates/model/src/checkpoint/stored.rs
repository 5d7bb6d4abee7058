//! Safetensors files that are read tensor by tensor.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use iiet_files::SafetensorsEntry;

use super::header::read_header;
use crate::ModelError;

/// A safetensors file whose values are read as they are needed, so that the file is never in memory as a whole.
#[derive(Debug)]
pub struct StoredTensors {
    path: PathBuf,
    file: File,
    /// The first byte of the data.
    data: u64,
    entries: BTreeMap<String, SafetensorsEntry>,
}

impl StoredTensors {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    ///
    /// [`ModelError`] if it cannot be read, or has no valid header.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut file = File::open(path).map_err(ModelError::io(path))?;
        let bytes = file.metadata().map_err(ModelError::io(path))?.len();
        let header = read_header(&mut file, bytes).map_err(|reason| ModelError::Header {
            path: path.to_owned(),
            reason,
        })?;
        let data = file.stream_position().map_err(ModelError::io(path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            data,
            entries: header.tensors.into_iter().collect(),
        })
    }

    /// The number of tensors.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// What a flat tensor in f32 is instead, or `None` if it is one of so many elements.
    pub fn other_than_flat(&self, name: &str, elements: usize) -> Option<String> {
        let Some(entry) = self.entries.get(name) else {
            return Some("missing".to_owned());
        };
        let SafetensorsEntry {
            dtype,
            shape,
            data_offsets: (from, to),
        } = entry;
        let bytes = (elements * size_of::<f32>()) as u64;
        let is =
            dtype == "F32" && *shape == [elements as u64] && to.checked_sub(*from) == Some(bytes);
        (!is).then(|| format!("{dtype} {shape:?} in bytes {from} to {to}"))
    }

    /// Some of the values of a tensor in f32.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`] if they cannot be read.
    ///
    /// # Panics
    ///
    /// If the tensor is missing, or too short: see [`other_than_flat`](Self::other_than_flat).
    pub fn values(&mut self, name: &str, range: Range<usize>) -> Result<Vec<f32>, ModelError> {
        let (from, to) = self.entries[name].data_offsets;
        let first = from + (range.start * size_of::<f32>()) as u64;
        let mut bytes = vec![0; range.len() * size_of::<f32>()];
        assert!(first + bytes.len() as u64 <= to, "{name}: {range:?}");
        let begin = SeekFrom::Start(self.data + first);
        let read = self.file.seek(begin);
        read.and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(ModelError::io(&self.path))?;
        let (numbers, _) = bytes.as_chunks();
        Ok(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_their_places() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.safetensors");
        let header = r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}"#;
        let numbers = [1.0f32, 2.0, 3.0, 4.0, 5.0].map(f32::to_le_bytes).concat();
        let length = (header.len() as u64).to_le_bytes();
        let bytes = [&length[..], header.as_bytes(), &numbers].concat();
        std::fs::write(&path, &bytes).unwrap();
        let mut file = StoredTensors::open(&path).unwrap();
        assert_eq!(file.count(), 2);
        assert_eq!(file.other_than_flat("a", 3), None);
        assert_eq!(file.values("b", 0..2).unwrap(), [4.0, 5.0]);
        assert_eq!(file.values("a", 1..3).unwrap(), [2.0, 3.0]);
        assert_eq!(file.values("a", 2..2).unwrap(), [0.0; 0]);
        assert_eq!(
            file.other_than_flat("a", 2).unwrap(),
            "F32 [3] in bytes 0 to 12"
        );
        assert_eq!(file.other_than_flat("c", 2).unwrap(), "missing");

        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        let error = StoredTensors::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("b ends at byte 20, but the data at 19"),
            "{error}"
        );
    }
}
