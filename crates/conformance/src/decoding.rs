//! Logits of cached decoding, token by token, against PyTorch's for the whole text.

use burn::tensor::{Device, Tensor};
use iiet_model::Precision;

use crate::finding::{difference, largest, values};
use crate::{Case, ConformanceError, Finding};

pub(crate) fn check(case: &Case, device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let expected = case.expected()?;
    let model = case.model(device)?;
    let vocab = model.sizes().vocab_size;
    let (batch, seq) = (expected.ids.len(), expected.ids[0].len());
    let of_pytorch = |row: usize, position: usize| {
        let at = (row * seq + position) * vocab;
        &expected.logits[at..at + vocab]
    };
    // f16 has 11 and bf16 8 bits of significand, f32 has 24.
    let stored = [
        ("logits, cache in f32", Precision::F32, 2e-4),
        ("logits, cache in f16", Precision::F16, 2e-3),
        ("logits, cache in bf16", Precision::Bf16, 3e-2),
    ];
    let mut findings = Vec::new();
    for (what, precision, tolerance) in stored {
        if !precision.works_on(device) {
            continue;
        }
        let mut cache = model.cache(batch, precision);
        // Prompts differ in length, so that rows are at different positions.
        let prompt = |row: usize| 2 + row;
        let prompts: Vec<&[u32]> = (0..batch)
            .map(|row| &expected.ids[row][..prompt(row)])
            .collect();
        let mut deviations = Vec::new();
        let mut compare = |step: usize, logits: Tensor<2>| {
            let found = values("logits", logits)?;
            for (row, found) in found.chunks(vocab).enumerate() {
                deviations.push(difference(found, of_pytorch(row, prompt(row) - 1 + step)));
            }
            Ok::<(), ConformanceError>(())
        };
        compare(0, model.prefill(&prompts, &mut cache, device))?;
        for step in 1..=seq - prompt(batch - 1) {
            let next = (0..batch).map(|row| expected.ids[row][prompt(row) - 1 + step]);
            let next: Vec<u32> = next.collect();
            compare(step, model.decode(&next, &mut cache, device))?;
        }
        findings.push(Finding {
            case: case.name.clone(),
            what,
            deviation: largest(deviations),
            tolerance,
        });
    }
    Ok(findings)
}
