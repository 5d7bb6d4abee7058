//! Saved weights equal the loaded ones, and a model that was saved and loaded gives bitwise identical
//! results.

use std::path::Path;

use burn::tensor::Device;
use iiet_model::{LanguageModel, SaveOptions, SavedModel, load, parse_safetensors, save};

use crate::finding::{difference, values};
use crate::golden::on_device;
use crate::{Case, ConformanceError, Finding};

pub(crate) fn check(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let ids = case.expected()?.ids;
    let logits = |model: &LanguageModel| {
        let logits = model.forward(on_device(&ids, device));
        values("logits", logits)
    };
    let again = |folder: &Path| Ok(load(folder, device)?.0);
    saved_and_loaded(case, &case.model(device)?, again, logits)
}

/// Saves a model and loads it by `again`: the bytes of its weights, and its logits.
pub(crate) fn saved_and_loaded<M: SavedModel>(
    case: &Case,
    model: &M,
    again: impl Fn(&Path) -> Result<M, ConformanceError>,
    logits: impl Fn(&M) -> Result<Vec<f32>, ConformanceError>,
) -> Result<Vec<Finding>, ConformanceError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| ConformanceError::Io { path, source }
    };
    let folder = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
    save(model, folder.path(), &SaveOptions::default())?;

    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).map_err(io(&path))?;
    let written = parse_safetensors(&path, &bytes)?;
    let stored = case.stored()?;
    let differ = stored.iter().filter(|(name, bytes)| {
        let tensor = written.tensor(name);
        tensor.map_or(true, |tensor| tensor.data() != bytes.as_slice())
    });
    let differ = differ.count() + written.len().abs_diff(stored.len());

    let again = again(folder.path())?;
    let deviation = difference(&logits(&again)?, &logits(model)?);
    let finding = |what, deviation| Finding {
        case: case.name.clone(),
        what,
        deviation,
        tolerance: 0.0,
    };
    Ok(vec![
        finding("tensors that differ", differ as f64),
        finding("logits before and after", deviation),
    ])
}
