//! Matrices of 8 and 4 bits: logits equal those of the numbers that the bits stand for, computed on the host.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_compress::{PackedMatrix, Scheme};
use iiet_kernels::PackedWeight;
use iiet_model::{
    LanguageModel, LlamaConfig, ModelConfig, ModelError, Precision, Projections, round_to_bits,
};
use iiet_ode::{Options, SolverConfig};

use crate::finding::{difference, values};
use crate::{ConformanceError, Finding};

const VOCAB: usize = 96;
const D_MODEL: usize = 64;
const SEQ: usize = 12;
/// Bits, and whether groups have no zero points.
const SCHEMES: [(u64, bool); 4] = [(8, true), (8, false), (4, true), (4, false)];
/// Relative to the logits' largest, as for golden models.
const TOLERANCE: f64 = 2e-4;

pub(crate) fn check(device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let mut findings = Vec::new();
    for (bits, symmetric) in SCHEMES {
        let scheme = Scheme::new(bits, 32, symmetric).expect("invariant: bits and group exist");
        let config = ModelConfig {
            vocab_size: VOCAB,
            d_model: D_MODEL,
            n_layers: 2,
            seq_len: SEQ,
            tie_embeddings: symmetric,
            initializer_range: 0.1,
            block: LlamaConfig {
                d_ff: 96,
                n_heads: 4,
                n_kv_heads: 2,
                ..LlamaConfig::default()
            },
            solver: SolverConfig::named("iterative_implicit_euler").map_err(ModelError::from)?,
            ..ModelConfig::default()
        };
        let mut packed: LanguageModel = LanguageModel::init(&config, 1, device)?;
        round_to_bits(&mut packed, scheme, true)?;
        let dense = widened(&packed, &config, device)?;

        let ids: Vec<u32> = (0..SEQ as u32).map(|i| i * 29 % VOCAB as u32).collect();
        let whole: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let whole = Tensor::<1, Int>::from_data(whole.as_slice(), device).reshape([1, SEQ]);
        let [of_packed, of_dense] = [&packed, &dense].map(|model| model.forward(whole.clone()));
        let all = difference(&values("logits", of_packed)?, &values("logits", of_dense)?);

        let last = |model: &LanguageModel| {
            let mut cache = model.cache(1, Precision::F32);
            model.prefill(&[&ids[..SEQ - 1]], &mut cache, device);
            values("logits", model.decode(&ids[SEQ - 1..], &mut cache, device))
        };
        let decoded = difference(&last(&packed)?, &last(&dense)?);
        let case = format!(
            "{bits} bits, {} zero points",
            if symmetric { "without" } else { "with" }
        );
        let finding = |what, deviation| Finding {
            case: case.clone(),
            what,
            deviation,
            tolerance: TOLERANCE,
        };
        findings.push(finding("logits", all));
        findings.push(finding("a decoded token's logits", decoded));
    }
    Ok(findings)
}

/// A dense model of the same numbers.
fn widened(
    packed: &LanguageModel,
    config: &ModelConfig,
    device: &Device,
) -> Result<LanguageModel, ConformanceError> {
    let mut dense: LanguageModel = LanguageModel::init(config, 1, device)?;
    let of = |weight: &PackedWeight| {
        let matrix = weight.to_matrix();
        numbers(
            &matrix.expect("invariant: the device returns what it was given"),
            device,
        )
    };
    for ((_, from), (_, to)) in packed
        .projections()
        .into_iter()
        .zip(dense.projections_mut())
    {
        if let (Some(weight), Some(linear)) = (from.packed(), to.dense_mut()) {
            linear.weight = Param::from_tensor(of(weight).transpose());
        }
    }
    let (_, embedding) = dense.embedding_mut();
    if let (Some(weight), Some(table)) = (packed.embedding().1.packed(), embedding.dense_mut()) {
        table.weight = Param::from_tensor(of(weight));
    }
    Ok(dense)
}

/// `s (q - z)`, computed on the host, `[d_out, d_in]`.
fn numbers(matrix: &PackedMatrix, device: &Device) -> Tensor<2> {
    let view = matrix.view();
    let (d_out, d_in, group) = (view.d_out(), view.d_in(), view.scheme().group());
    let number = |i: usize| {
        let (row, column) = (i / d_in, i % d_in);
        view.grid(row, column / group).value(view.code(row, column))
    };
    let numbers: Vec<f32> = (0..d_out * d_in).map(number).collect();
    Tensor::from_data(TensorData::new::<f32, _>(numbers, [d_out, d_in]), device)
}
