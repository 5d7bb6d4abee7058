//! Reading a model directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use iiet_blocks::Block;
use iiet_compress::QuantizationConfig;
use iiet_ode::{NetworkSolver, Start};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::directory::Directory;
use super::finite::first_misfit;
use super::packed::take_packed;
use super::{SavedModel, parse_safetensors};
use crate::names::{
    ParameterMapper, ParameterVisitor, map_parameters, visit_parameters, with_value,
};
use crate::precision::precision_of;
use crate::{
    ConfigOf, EncoderDecoder, EncoderDecoderConfig, LanguageModel, ModelConfig, ModelError,
    Precision, Role, TensorFault,
};

/// Reads a model directory, in f32 for every dtype on disk.
///
/// If the directory has a manifest, every file in it is verified: those read here and the others, such as the
/// tokenizer.
///
/// # Errors
///
/// [`ModelError`]: an unreadable or unsupported configuration, a damaged weight file, a file without a record
/// in the manifest, a tensor with a non-finite value, or one error that lists every missing, surplus and
/// misshapen tensor by name.
pub fn load(dir: &Path, device: &Device) -> Result<(LanguageModel, ModelConfig), ModelError> {
    load_in(Precision::F32, dir, device)
}

/// Reads a model directory as [`load`] does, with the matrices in a given precision. At most one matrix at a
/// time is held in f32.
///
/// # Errors
///
/// The same as for [`load`]; [`ModelError::Precision`] if the device does not support computation in it. A
/// weight outside its range is an error, as an infinity is.
pub fn load_in(
    precision: Precision,
    dir: &Path,
    device: &Device,
) -> Result<(LanguageModel, ModelConfig), ModelError> {
    read(precision, dir, None, device)
}

/// Reads the weights of a model directory into a model of another configuration, in f32.
///
/// The directory must have weights of floats. Coefficients of the solver are read if the directory has them with the same name and shape; the others
/// keep their neutral values. So a LLaMA checkpoint can be read as an ODE transformer. All other parameters
/// must be present.
///
/// # Errors
///
/// The same as for [`load`], for the directory's own configuration; then for the other one.
pub fn load_as(
    config: &ModelConfig,
    dir: &Path,
    device: &Device,
) -> Result<LanguageModel, ModelError> {
    let (model, _) = read(Precision::F32, dir, Some(config), device)?;
    Ok(model)
}

impl<B: Block, S: NetworkSolver> LanguageModel<B, S> {
    /// Reads a directory with a model of these blocks and this solver. [`load`](crate::load) does the same
    /// for the LLaMA block and any solver of this workspace.
    ///
    /// # Errors
    ///
    /// The same as for [`load`](crate::load).
    pub fn load(dir: &Path, device: &Device) -> Result<(Self, ConfigOf<B, S>), ModelError> {
        read(Precision::F32, dir, None, device)
    }
}

impl EncoderDecoder {
    /// Reads the directory of a sequence-to-sequence model as [`load`](crate::load) reads a language model's.
    ///
    /// # Errors
    ///
    /// The same as for [`load`](crate::load); [`ModelError::NotEncoderDecoder`] for a language model.
    pub fn load(dir: &Path, device: &Device) -> Result<Self, ModelError> {
        Self::load_in(Precision::F32, dir, device)
    }

    /// The same with the matrices in a given precision.
    ///
    /// # Errors
    ///
    /// The same as for [`load_in`](crate::load_in).
    pub fn load_in(precision: Precision, dir: &Path, device: &Device) -> Result<Self, ModelError> {
        let (model, _) = read(precision, dir, None, device)?;
        Ok(model)
    }

    /// Reads the configuration of a directory as [`load_config`](crate::load_config) does.
    ///
    /// # Errors
    ///
    /// The same as for [`load_config`](crate::load_config); [`ModelError::NotEncoderDecoder`] for a
    /// language model.
    pub fn load_config(dir: &Path) -> Result<EncoderDecoderConfig, ModelError> {
        Directory::open(dir)?.config::<Self>()
    }
}

fn read<M: SavedModel>(
    precision: Precision,
    dir: &Path,
    wanted: Option<&M::Config>,
    device: &Device,
) -> Result<(M, M::Config), ModelError> {
    if !precision.works_on(device) {
        return Err(ModelError::Precision { precision });
    }
    let mut dir = Directory::open(dir)?;
    let config = dir.config::<M>()?;
    let files = dir.weights()?;
    dir.verify_other_files(&files)?;
    let path = dir.path.to_owned();

    let mut parsed = Vec::with_capacity(files.len());
    for (name, bytes) in &files {
        parsed.push(parse_safetensors(&path.join(name), bytes)?);
    }
    let shards = files.iter().map(|(file, _)| file.as_str()).zip(&parsed);
    let mut weights = dir.tensors(shards)?;
    if M::layers(&config) > weights.len() {
        // Even a layer without allocated weights takes some memory; a configuration alone must not exhaust
        // it.
        let (layers, tensors) = (M::layers(&config), weights.len());
        return Err(ModelError::Layers {
            path,
            layers,
            tensors,
        });
    }
    let mut model = M::empty(&config, device)?;
    if let Some(quantisation) = dir.quantisation()? {
        if wanted.is_some() {
            return Err(ModelError::Quantised { path });
        }
        let place = (path.as_path(), precision, device);
        take_packed(&mut model, &quantisation, &mut weights, place)?;
    }
    let mut check = Check::new(&weights, precision, Extent::All);
    visit_parameters(&model, &mut check);
    let stored = check.finish(M::tied(&config), &path)?;
    check_finite(&path, &weights, &stored)?;
    if let Some(wanted) = wanted {
        model = M::empty(wanted, device)?;
        let mut check = Check::new(&weights, precision, Extent::AllButCoefficients);
        visit_parameters(&model, &mut check);
        check.finish(M::tied(wanted), &path)?;
    }
    let mut fill = Fill {
        weights,
        precision,
        device: device.clone(),
    };
    let model = map_parameters(model, &mut fill);
    Ok((model, wanted.cloned().unwrap_or(config)))
}

/// Reads the `config.json` of a model directory, and the tokens that end a text from its
/// `generation_config.json` if it has one: chat models list the end of an answer there.
///
/// # Errors
///
/// [`ModelError`] if it is missing, malformed, unsupported, invalid, or differs from its record in the
/// manifest.
pub fn load_config(dir: &Path) -> Result<ModelConfig, ModelError> {
    Directory::open(dir)?.config::<LanguageModel>()
}

/// How the packed matrices of a model directory are quantised, if it has any.
///
/// # Errors
///
/// [`ModelError`] if `config.json` is missing, malformed, or says what is not supported.
pub fn quantisation(dir: &Path) -> Result<Option<QuantizationConfig>, ModelError> {
    Directory::open(dir)?.quantisation()
}

/// The bytes of a model directory's weight files.
///
/// # Errors
///
/// [`ModelError`] if there are none, or their index is damaged.
pub fn weight_bytes(dir: &Path) -> Result<u64, ModelError> {
    Directory::open(dir)?.weight_bytes()
}

/// Rejects tensors with elements that are non-finite in the precision they are to be read in.
fn check_finite(
    path: &Path,
    weights: &BTreeMap<&str, TensorView<'_>>,
    stored: &[(String, Precision)],
) -> Result<(), ModelError> {
    let misfits = stored.iter().filter_map(|(name, precision)| {
        let misfit = first_misfit(&weights[name.as_str()], *precision)?;
        Some((name, misfit, *precision))
    });
    let mut misfits: Vec<_> = misfits.collect();
    misfits.sort_by_key(|(name, ..)| *name);
    match misfits.first() {
        None => Ok(()),
        Some((name, (element, value), precision)) => Err(ModelError::NonFiniteWeights {
            path: path.to_owned(),
            name: (*name).clone(),
            element: *element,
            value: *value,
            precision: *precision,
            tensors: misfits.len(),
        }),
    }
}

/// The parameters that the files must contain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Exactly the model's parameters.
    All,
    /// Missing coefficients keep their values; surplus ones are ignored.
    AllButCoefficients,
}

/// Compares the model's parameters with the content of the files.
struct Check<'a, 'data> {
    weights: &'a BTreeMap<&'a str, TensorView<'data>>,
    precision: Precision,
    extent: Extent,
    /// The precision that each tensor is to be read in.
    stored: Vec<(String, Precision)>,
    unused: BTreeSet<&'a str>,
    faults: Vec<TensorFault>,
}

impl<'a, 'data> Check<'a, 'data> {
    fn new(
        weights: &'a BTreeMap<&'a str, TensorView<'data>>,
        precision: Precision,
        extent: Extent,
    ) -> Self {
        Self {
            weights,
            precision,
            extent,
            stored: Vec::new(),
            unused: weights.keys().copied().collect(),
            faults: Vec::new(),
        }
    }

    /// The precision that each tensor is to be read in. `tied` are copies that the file may have, with the
    /// names of what they must equal.
    fn finish(
        mut self,
        tied: &[(&'a str, &'a str)],
        path: &Path,
    ) -> Result<Vec<(String, Precision)>, ModelError> {
        for (copy, original) in tied {
            if let (Some(found), Some(original)) =
                (self.weights.get(copy), self.weights.get(original))
                && found.data() == original.data()
            {
                self.unused.remove(copy);
            }
        }
        if self.extent == Extent::All {
            let surplus = self.unused.iter().map(|name| TensorFault::Surplus {
                name: (*name).into(),
            });
            self.faults.extend(surplus);
        }
        match self.faults.is_empty() {
            true => Ok(self.stored),
            false => Err(ModelError::Tensors {
                path: path.to_owned(),
                faults: self.faults,
            }),
        }
    }
}

impl ParameterVisitor for Check<'_, '_> {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let shape = stored_shape(role, &parameter.lazy_shape());
        self.unused.remove(name);
        let name = name.to_owned();
        let view = self.weights.get(name.as_str());
        if self.extent == Extent::AllButCoefficients
            && role.start == Start::AsBuilt
            && view.is_none_or(|view| view.shape() != shape)
        {
            return;
        }
        let Some(view) = view else {
            self.faults.push(TensorFault::Missing { name, shape });
            return;
        };
        if view.shape() != shape {
            let found = view.shape().to_vec();
            self.faults.push(TensorFault::Shape {
                name,
                found,
                expected: shape,
            });
        } else if ![Dtype::F32, Dtype::BF16, Dtype::F16].contains(&view.dtype()) {
            let found = format!("{:?}", view.dtype());
            self.faults.push(TensorFault::Type { name, found });
        } else {
            self.stored.push((name, precision_of(role, self.precision)));
        }
    }
}

/// The shape of a parameter on disk.
pub(super) fn stored_shape(role: Role, shape: &[usize]) -> Vec<usize> {
    match role.transposed {
        true => shape.iter().rev().copied().collect(),
        false => shape.to_vec(),
    }
}

struct Fill<'a> {
    weights: BTreeMap<&'a str, TensorView<'a>>,
    precision: Precision,
    device: Device,
}

impl ParameterMapper for Fill<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let shape = parameter.lazy_shape();
        let view = match self.weights.get(name) {
            Some(view) if view.shape() == stored_shape(role, &shape) => view,
            // A missing coefficient, which keeps its value: everything else passed the check.
            _ => return parameter,
        };
        let mut values = to_f32(view);
        if let (true, [rows, columns]) = (role.transposed, view.shape()) {
            values = transposed(&values, *rows, *columns);
        }
        let data = TensorData::new::<f32, _>(values, shape);
        let dtype = precision_of(role, self.precision).dtype();
        with_value(parameter, data.convert_dtype(dtype), &self.device)
    }
}

/// The elements of a tensor that passed [`Check`].
fn to_f32(view: &TensorView<'_>) -> Vec<f32> {
    let bytes = view.data();
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match view.dtype() {
        Dtype::BF16 => pairs().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => pairs().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        _ => bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect(),
    }
}

/// Transposes a row-major matrix, tile by tile so that both sides stay in cache.
pub(crate) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for row_tile in (0..rows).step_by(TILE) {
        for column_tile in (0..columns).step_by(TILE) {
            for row in row_tile..(row_tile + TILE).min(rows) {
                for column in column_tile..(column_tile + TILE).min(columns) {
                    out[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    out
}
