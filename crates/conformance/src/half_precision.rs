//! A model in bf16 or f16 against PyTorch in f32, within rounding errors.
//!
//! bf16 has 8 bits of significand and f16 has 11, so each operation rounds by up to 2^-9 or 2^-12; the
//! tolerances are about 10 such roundings for logits and 30 for gradients, which pass through the network
//! twice. Types that the device does not compute in must be rejected.

use burn::module::Module;
use burn::tensor::Device;
use iiet_model::{ModelError, Precision, load_in};

use crate::finding::{difference, largest, values};
use crate::golden::on_device;
use crate::parity::{Batch, ByName, loss_and_gradients};
use crate::{Case, ConformanceError, Finding};

const IN_BF16: [&str; 3] = [
    "logits in bf16, relative",
    "loss in bf16, relative",
    "gradients in bf16, relative",
];
const IN_F16: [&str; 3] = [
    "logits in f16, relative",
    "loss in f16, relative",
    "gradients in f16, relative",
];

const NOT_REFUSED: &str = "types without arithmetic, loaded";

pub(crate) fn check(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let mut findings = Vec::new();
    for (precision, what, rounding) in [
        (Precision::F16, IN_F16, 2f64.powi(-12)),
        (Precision::Bf16, IN_BF16, 2f64.powi(-9)),
    ] {
        let finding = |what, deviation, tolerance| Finding {
            case: case.name.clone(),
            what,
            deviation,
            tolerance,
        };
        if !precision.works_on(device) {
            let loaded = load_in(precision, case.directory()?.path(), device);
            let refused = matches!(loaded, Err(ModelError::Precision { .. }));
            findings.push(finding(NOT_REFUSED, f64::from(u8::from(!refused)), 0.0));
            continue;
        }
        let deviations = deviations(case, precision, device)?;
        let tolerances = [10.0 * rounding, 2.0 * rounding, 30.0 * rounding];
        for ((what, deviation), tolerance) in what.into_iter().zip(deviations).zip(tolerances) {
            findings.push(finding(what, deviation, tolerance));
        }
    }
    Ok(findings)
}

/// Deviations of logits, relative to the largest; of the loss, relative to it; of all gradients together,
/// relative to their Euclidean norm.
fn deviations(
    case: &Case,
    precision: Precision,
    device: &Device,
) -> Result<[f64; 3], ConformanceError> {
    let expected = case.expected()?;
    let folder = case.directory()?;
    let (model, _) = load_in(precision, folder.path(), device)?;
    let logits = model.forward(on_device(&expected.ids, device));
    let logits = difference(&values("logits", logits)?, &expected.logits)
        / largest(expected.logits.iter().map(|x| f64::from(x.abs())));

    let batch = Batch::of(&expected, device);
    let (found, gradients) = loss_and_gradients(&model.train(), &batch)?;
    let gradients = apart(&gradients, &expected.gradients);
    let loss = difference(&found, &[expected.loss]) / f64::from(expected.loss);
    Ok([logits, loss, gradients])
}

/// `|found - expected| / |expected|`; infinite if the sets of parameters with gradients differ.
fn apart(found: &ByName, expected: &ByName) -> f64 {
    if !found.keys().eq(expected.keys()) {
        return f64::INFINITY;
    }
    let pairs = || found.values().zip(expected.values());
    let entries = pairs().flat_map(|(a, b)| a.iter().zip(b));
    let (mut error, mut norm) = (0.0, 0.0);
    for (a, b) in entries {
        error += f64::from(a - b).powi(2);
        norm += f64::from(*b).powi(2);
    }
    (error / norm).sqrt()
}
