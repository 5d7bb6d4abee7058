//! `optimizer.safetensors`: moments, `NAME.moment_1` and `NAME.moment_2`, flat, in the model's memory
//! order. What Muon updates has the first alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use iiet_files::FileRecord;
use iiet_model::{
    ParameterVisitor, Role, SavedModel, parse_safetensors, visit_parameters, write_safetensors,
};
use safetensors::{Dtype, View};

use crate::TrainError;
use crate::optimizer::Moments;

const FIRST: &str = "moment_1";
const SECOND: &str = "moment_2";

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
        .map(|(name, moment, tensor)| {
            let data = tensor.to_data().convert::<f32>();
            (format!("{name}.{moment}"), Flat(data))
        });
    Ok(write_safetensors(path, tensors.collect())?)
}

struct Flat(TensorData);

impl View for Flat {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self
            .0
            .as_slice::<f32>()
            .expect("invariant: converted to f32 in write");
        Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.0.shape().num_elements() * size_of::<f32>()
    }
}

pub(super) fn read<M: SavedModel>(
    path: &Path,
    model: &M,
    updates: &BTreeMap<String, usize>,
    device: &Device,
) -> Result<BTreeMap<String, Moments>, TrainError> {
    let refuse = |reason: String| TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    let mut lengths = Lengths::default();
    visit_parameters(model, &mut lengths);
    let bytes = fs::read(path).map_err(TrainError::io(path))?;
    let file = parse_safetensors(path, &bytes)?;
    let has_second = |name: &str| file.tensor(&format!("{name}.{SECOND}")).is_ok();
    let second = updates.keys().filter(|name| has_second(name)).count();
    if file.len() != updates.len() + second {
        let (found, expected) = (file.len(), updates.len() + second);
        return Err(refuse(format!("{found} tensors, expected {expected}")));
    }
    let moment = |name: &str, moment: &str, length: usize| {
        let name = format!("{name}.{moment}");
        let view = file
            .tensor(&name)
            .map_err(|error| refuse(format!("{name}: {error}")))?;
        if view.dtype() != Dtype::F32 || view.shape() != [length] {
            let found = format!("{:?} {:?}", view.dtype(), view.shape());
            return Err(refuse(format!(
                "{name} is {found}, expected F32 [{length}]"
            )));
        }
        let (values, _) = view.data().as_chunks();
        let values: Vec<f32> = values.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let data = TensorData::new::<f32, _>(values, [length]);
        Ok(Tensor::<1>::from_data(data, device))
    };
    updates
        .iter()
        .map(|(name, updates)| {
            let length = *lengths
                .by_name
                .get(name)
                .ok_or_else(|| refuse(format!("moments of {name}, which is not a parameter")))?;
            let moments = Moments {
                updates: *updates,
                first: moment(name, FIRST, length)?,
                second: match has_second(name) {
                    true => Some(moment(name, SECOND, length)?),
                    false => None,
                },
            };
            Ok((name.clone(), moments))
        })
        .collect()
}

/// The number of elements of each parameter.
#[derive(Default)]
struct Lengths {
    by_name: BTreeMap<String, usize>,
}

impl ParameterVisitor for Lengths {
    fn visit<const D: usize>(&mut self, name: &str, _role: Role, parameter: &Param<Tensor<D>>) {
        self.by_name
            .insert(name.to_owned(), parameter.lazy_shape().num_elements());
    }
}
