//! `optimizer.safetensors`: moments, `NAME.moment_1` and `NAME.moment_2`, flat, in the model's memory
//! order. What Muon updates has the first alone. Of a sharded optimiser, `optimizer-00002-of-00004.safetensors` has
//! the second part of each, as far as it is not empty.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use iiet_files::{FileRecord, Manifest};
use iiet_model::{SavedModel, StoredTensors, write_safetensors};
use safetensors::{Dtype, View};

use crate::TrainError;
use crate::lengths::lengths;
use crate::optimizer::Moments;
use crate::ranks::Part;

const FIRST: &str = "moment_1";
const SECOND: &str = "moment_2";
const WHOLE: &str = "optimizer.safetensors";

/// The name of the file with a part of the moments.
pub(super) fn file_name(part: Part) -> String {
    match part.size {
        1 => WHOLE.to_owned(),
        size => format!("optimizer-{:05}-of-{size:05}.safetensors", part.rank + 1),
    }
}

/// The files with all parts that a manifest records, in order.
///
/// # Errors
///
/// The name of one that is missing.
pub(super) fn files(manifest: &Manifest) -> Result<Vec<String>, String> {
    let size = manifest.files().find_map(|(name, _)| {
        let part = name.strip_prefix("optimizer-")?;
        let (_, size) = part.strip_suffix(".safetensors")?.split_once("-of-")?;
        size.parse().ok()
    });
    let size = size.unwrap_or(1);
    let names = (0..size).map(|rank| file_name(Part { rank, size }));
    names
        .map(|name| match manifest.contains(&name) {
            true => Ok(name),
            false => Err(name),
        })
        .collect()
}

pub(super) fn write(
    path: &Path,
    moments: &BTreeMap<String, Moments>,
) -> Result<FileRecord, TrainError> {
    let tensors = moments
        .iter()
        .flat_map(|(name, m)| {
            let second = m.second.as_ref().map(|second| (name, SECOND, second));
            [(name, FIRST, &m.first)].into_iter().chain(second)
        })
        .map(|(name, moment, tensor)| (format!("{name}.{moment}"), Flat::new(tensor)));
    Ok(write_safetensors(path, tensors.collect())?)
}

/// A moment that is copied from its device when it is written, so that one copy is there at a time.
struct Flat<'a> {
    tensor: &'a Tensor<1>,
    shape: [usize; 1],
}

impl<'a> Flat<'a> {
    fn new(tensor: &'a Tensor<1>) -> Self {
        let shape = tensor.dims();
        Self { tensor, shape }
    }
}

impl View for Flat<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let data = self.tensor.to_data().convert::<f32>();
        let values = data
            .as_slice::<f32>()
            .expect("invariant: converted to f32 above");
        Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.shape[0] * size_of::<f32>()
    }
}

/// Moments while they are put together.
#[derive(Default)]
struct Values {
    first: Vec<f32>,
    second: Option<Vec<f32>>,
}

/// A part of the moments, from files with any number of parts.
pub(super) fn read<M: SavedModel>(
    files: &[PathBuf],
    model: &M,
    updates: &BTreeMap<String, usize>,
    (device, part): (&Device, Part),
) -> Result<BTreeMap<String, Moments>, TrainError> {
    let lengths: BTreeMap<String, usize> = lengths(model).into_iter().collect();
    let mut values: BTreeMap<&str, Values> = BTreeMap::new();
    for (rank, path) in files.iter().enumerate() {
        let size = files.len();
        let refuse = |reason: String| TrainError::Checkpoint {
            path: path.clone(),
            reason,
        };
        let mut file = StoredTensors::open(path)?;
        let mut expected = 0;
        for name in updates.keys() {
            let length = *lengths
                .get(name)
                .ok_or_else(|| refuse(format!("moments of {name}, which is not a parameter")))?;
            let found = Part { rank, size }.range(length);
            if found.is_empty() {
                continue;
            }
            let own = part.range(length);
            let into = values.entry(name).or_default();
            for moment in [FIRST, SECOND] {
                let key = format!("{name}.{moment}");
                if moment == SECOND && !file.contains(&key) {
                    continue;
                }
                let length = found.len();
                if let Some(is) = file.other_than_flat(&key, length) {
                    return Err(refuse(format!("{key} is {is}, expected F32 [{length}]")));
                }
                expected += 1;
                // What both have; nothing of parts apart from each other.
                let within = |at: usize| at.clamp(found.start, found.end) - found.start;
                let numbers = file.values(&key, within(own.start)..within(own.end))?;
                let into = match moment {
                    FIRST => &mut into.first,
                    _ => into.second.get_or_insert_default(),
                };
                into.extend(numbers);
            }
        }
        if file.count() != expected {
            return Err(refuse(format!(
                "{} tensors, expected {expected}",
                file.count()
            )));
        }
    }
    let tensor = |values: Vec<f32>| {
        let length = values.len();
        Tensor::from_data(TensorData::new::<f32, _>(values, [length]), device)
    };
    let values = values
        .into_iter()
        .filter(|(_, values)| !values.first.is_empty());
    Ok(values
        .map(|(name, values)| {
            let moments = Moments {
                updates: updates[name],
                first: tensor(values.first),
                second: values.second.map(tensor),
            };
            (name.to_owned(), moments)
        })
        .collect())
}
