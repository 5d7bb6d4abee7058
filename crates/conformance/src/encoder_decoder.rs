//! Encoder-decoders against PyTorch: logits, the label-smoothed loss, every gradient, decoding with caches,
//! files.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use iiet_model::{EncoderDecoder, Precision, Source};

use crate::finding::{difference, largest, values};
use crate::golden::{Pairs, on_device};
use crate::parity::{CollectGradients, compare};
use crate::storage::saved_and_loaded;
use crate::{Case, ConformanceError, Finding};

pub(crate) fn check(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let mut findings = parity(case, device)?;
    findings.extend(files(case, device)?);
    Ok(findings)
}

/// Logits of the full pass and of cached decoding, the loss and its gradients.
pub(crate) fn parity(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let expected = case.expected_pairs()?;
    let model = EncoderDecoder::load(case.directory()?.path(), device)?;
    let source = source(&expected, device);
    let logits = model.forward(&source, on_device(&expected.target, device));
    let logits = difference(&values("logits", logits)?, &expected.logits);
    let cached = cached(&model, &source, &expected, device)?;

    let model = model.train();
    let (loss, gradients) = loss_and_gradients(&model, &source, &expected, device)?;
    let finding = |what, deviation, tolerance| Finding {
        case: case.name.clone(),
        what,
        deviation,
        tolerance,
    };
    Ok(vec![
        finding("logits", logits, 2e-4),
        finding("logits, cached", cached, 2e-4),
        finding("loss", difference(&loss, &[expected.loss]), 1e-5),
        finding(
            "gradients",
            compare(case, &gradients, &expected.gradients)?,
            1e-4,
        ),
    ])
}

fn source(expected: &Pairs, device: &Device) -> Source {
    Source::new(
        on_device(&expected.source, device),
        expected.lengths.clone(),
    )
}

/// Token t predicts token t + 1; the mean over those that are no padding.
fn loss_and_gradients(
    model: &EncoderDecoder,
    source: &Source,
    expected: &Pairs,
    device: &Device,
) -> Result<(Vec<f32>, crate::parity::ByName), ConformanceError> {
    let part = |from: usize, to: usize| -> Vec<Vec<u32>> {
        let rows = expected.target.iter();
        rows.map(|row| row[from..row.len() - to].to_vec()).collect()
    };
    let (ids, targets) = (part(0, 1), part(1, 0));
    let shape = [ids.len(), ids[0].len()];
    let lengths = expected.target_lengths.iter();
    let scored =
        lengths.flat_map(|n| (1..=shape[1]).map(move |t| if t < *n { 1.0f32 } else { 0.0 }));
    let scored: Vec<f32> = scored.collect();
    let total: f32 = scored.iter().sum();
    let weights: Vec<f32> = scored.iter().map(|one| one / total).collect();
    let weights = Tensor::from_data(TensorData::new::<f32, _>(weights, shape), device);
    let (ids, targets) = (on_device(&ids, device), on_device(&targets, device));
    let loss = model.loss(source, ids, targets, weights);
    let found = values("loss", loss.clone().inner())?;
    let mut gradients = CollectGradients::default();
    gradients.add(model, loss.backward());
    Ok((found, gradients.finish()?))
}

/// The largest deviation of the logits of decoding token by token, after beginnings of unequal length.
fn cached(
    model: &EncoderDecoder,
    source: &Source,
    expected: &Pairs,
    device: &Device,
) -> Result<f64, ConformanceError> {
    let vocab = model.sizes().vocab_size;
    let (batch, seq) = (expected.target.len(), expected.target[0].len());
    let mut cache = model.cache(source, Precision::F32);
    let beginning = |row: usize| 1 + row;
    let texts: Vec<&[u32]> = (0..batch)
        .map(|row| &expected.target[row][..beginning(row)])
        .collect();
    let mut deviations = Vec::new();
    let mut compare = |step: usize, logits: Tensor<2>| {
        let found = values("logits", logits)?;
        for (row, found) in found.chunks(vocab).enumerate() {
            let position = beginning(row) - 1 + step;
            if position < seq {
                let at = (row * seq + position) * vocab;
                deviations.push(difference(found, &expected.logits[at..at + vocab]));
            }
        }
        Ok::<(), ConformanceError>(())
    };
    compare(0, model.prefill(&texts, &mut cache, device))?;
    for step in 1..seq {
        let next = (0..batch).map(|row| expected.target[row].get(beginning(row) - 1 + step));
        let next: Vec<Option<u32>> = next.map(Option::<&u32>::copied).collect();
        compare(step, model.decode(&next, &mut cache, device))?;
    }
    Ok(largest(deviations))
}

fn files(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let expected = case.expected_pairs()?;
    let logits = |model: &EncoderDecoder| {
        let ids = on_device(&expected.target, device);
        values("logits", model.forward(&source(&expected, device), ids))
    };
    let load = |folder: &Path| Ok(EncoderDecoder::load(folder, device)?);
    saved_and_loaded(case, &load(case.directory()?.path())?, load, logits)
}
