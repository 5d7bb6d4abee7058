//! Logits, loss and every gradient equal those of a PyTorch implementation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use iiet_model::{ParameterVisitor, Role, load, visit_parameters};
use safetensors::SafeTensors;

struct Case {
    ids: Tensor<2, Int>,
    arrays: BTreeMap<String, Vec<f32>>,
}

fn read_case(dir: &Path, device: &Device) -> Case {
    let bytes = std::fs::read(dir.join("case.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let values: Vec<i64> = ids
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let arrays = file
        .iter()
        .filter(|(name, _)| *name != "input_ids")
        .map(|(name, view)| {
            let values = view.data().chunks_exact(4);
            let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            (name.to_string(), values.collect())
        })
        .collect();
    let data = TensorData::new::<i64, _>(values, ids.shape().to_vec());
    Case {
        ids: Tensor::from_data(data, device),
        arrays,
    }
}

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // A NaN must not be lost in the maximum.
    differences.fold(0.0, |largest, d| {
        if d > largest || d.is_nan() {
            d
        } else {
            largest
        }
    })
}

/// Gradients by checkpoint name, in the layout of the checkpoint.
struct CollectGradients {
    gradients: Gradients,
    by_name: BTreeMap<String, Vec<f32>>,
}

impl ParameterVisitor for CollectGradients {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let value = parameter.val();
        // A parameter that the loss does not depend on has no gradient.
        let gradient = value
            .grad(&self.gradients)
            .unwrap_or_else(|| value.inner().zeros_like());
        let gradient = match role {
            Role::Projection => gradient.transpose(),
            _ => gradient,
        };
        let values = gradient.try_into_vec_as::<f32>().unwrap();
        self.by_name.insert(format!("grad.{name}"), values);
    }
}

fn check(dir: &Path) {
    let device = Device::default();
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let case = read_case(dir, &device);
    let (model, _) = load(dir, &device).unwrap();

    let logits = model.forward(case.ids.clone());
    let found = logits.try_into_vec_as::<f32>().unwrap();
    let difference = largest_difference(&found, &case.arrays["logits"]);
    assert!(difference < 2e-4, "{name}: logits differ by {difference}");

    let model = model.train();
    let [batch, seq] = case.ids.dims();
    let inputs = case.ids.clone().slice([0..batch, 0..seq - 1]);
    let targets = case.ids.slice([0..batch, 1..seq]);
    // Equal weights make the sum a mean.
    let predicted = batch * (seq - 1);
    let weights = Tensor::full([batch, seq - 1], 1.0 / predicted as f64, &device);
    let loss = model.loss(inputs, targets, weights);
    let found = loss.clone().into_scalar::<f32>();
    let difference = (found - case.arrays["loss"][0]).abs();
    assert!(difference < 1e-5, "{name}: loss differs by {difference}");

    let gradients = loss.backward();
    let mut collect = CollectGradients {
        gradients,
        by_name: BTreeMap::new(),
    };
    visit_parameters(&model, &mut collect);
    let expected: Vec<&String> = case
        .arrays
        .keys()
        .filter(|key| key.starts_with("grad."))
        .collect();
    let found: Vec<&String> = collect.by_name.keys().collect();
    assert_eq!(found, expected, "{name}: parameter names");
    for (key, found) in &collect.by_name {
        let expected = &case.arrays[key];
        let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let difference = largest_difference(found, expected);
        assert!(
            difference <= 1e-4 * largest,
            "{name}: {key} differs by {difference}, its largest entry is {largest}"
        );
    }
}

fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.safetensors").exists())
        .collect();
    folders.sort();
    folders
}

#[test]
fn golden_cases() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let cases = folders(&here);
    assert_eq!(cases.len(), 6);
    cases.iter().for_each(|case| check(case));
}

/// More cases, wherever they lie; without the variable there are none to compare.
#[test]
fn cases_named_by_the_environment() {
    if let Ok(dir) = std::env::var("IIET_GOLDEN") {
        let cases = folders(Path::new(&dir));
        assert!(
            !cases.is_empty(),
            "{dir}: no folder with a case.safetensors"
        );
        for case in &cases {
            check(case);
            println!("{}: equal", case.display());
        }
    }
}
