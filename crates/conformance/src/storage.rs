//! Saved weights equal the loaded ones, and a model that was saved and loaded gives bitwise identical
//! results.

use std::path::Path;

use burn::tensor::Device;
use iiet_model::{SaveOptions, load, parse_safetensors, save};

use crate::finding::{difference, values};
use crate::golden::on_device;
use crate::{Case, ConformanceError, Finding};

pub(crate) fn check(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        |source| ConformanceError::Io { path, source }
    };
    let ids = case.expected()?.ids;
    let model = case.model(device)?;
    let folder = tempfile::tempdir().map_err(io(&std::env::temp_dir()))?;
    save(&model, folder.path(), &SaveOptions::default())?;

    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).map_err(io(&path))?;
    let written = parse_safetensors(&path, &bytes)?;
    let stored = case.stored()?;
    let differ = stored.iter().filter(|(name, bytes)| {
        let tensor = written.tensor(name);
        tensor.map_or(true, |tensor| tensor.data() != bytes.as_slice())
    });
    let differ = differ.count() + written.len().abs_diff(stored.len());

    let (again, _) = load(folder.path(), device)?;
    let before = values("logits", model.forward(on_device(&ids, device)))?;
    let after = values("logits", again.forward(on_device(&ids, device)))?;
    let finding = |what, deviation| Finding {
        case: case.name.clone(),
        what,
        deviation,
        tolerance: 0.0,
    };
    Ok(vec![
        finding("tensors that differ", differ as f64),
        finding("logits before and after", difference(&after, &before)),
    ])
}
