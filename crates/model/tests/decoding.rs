//! Decoding with caches gives the logits of the full pass, for every solver and however the texts
//! are split.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_model::{
    LanguageModel, LlamaConfig, ModelConfig, ParameterMapper, Precision, Role, map_parameters,
};
use iiet_ode::{IterationSchedule, Options, SolverConfig};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const VOCAB: usize = 53;
const LAYERS: usize = 3;

fn config(solver: SolverConfig, n_kv_heads: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB,
        d_model: 32,
        n_layers: LAYERS,
        seq_len: 24,
        initializer_range: 0.12,
        tie_embeddings: n_kv_heads == 4,
        block: LlamaConfig {
            d_ff: 56,
            n_heads: 4,
            n_kv_heads,
            ..LlamaConfig::default()
        },
        solver,
        bos_token_id: Some(1),
        eos_token_ids: vec![],
    }
}

/// Every solver, with every order and kind of schedule that it accepts.
fn solvers() -> Vec<SolverConfig> {
    let schedules = [
        IterationSchedule::Uniform(3),
        IterationSchedule::PerLayer(vec![2, 0, 1]),
    ];
    let mut solvers = vec![with_levers(), that_settles()];
    for name in SolverConfig::NAMES {
        let solver = SolverConfig::named(name).unwrap();
        for (schedule, order) in schedules.iter().cloned().zip([2, 4]) {
            let mut json = serde_json::to_value(solver.clone().with_iterations(schedule)).unwrap();
            if let Some(option) = json.get_mut("predictor_order") {
                *option = order.into();
            }
            let solver = serde_json::from_value(json).unwrap();
            if !solvers.contains(&solver) {
                solvers.push(solver);
            }
        }
    }
    solvers
}

/// IIET with everything that is off by default.
fn with_levers() -> SolverConfig {
    let json = serde_json::json!({
        "name": "iterative_implicit_euler",
        "iterations": [2, 0, 1],
        "history": "textbook",
        "normalise_first": true,
        "gate": 0.6,
    });
    serde_json::from_value(json).unwrap()
}

/// IIET whose tokens settle after some of four corrections.
fn that_settles() -> SolverConfig {
    let json = serde_json::json!({
        "name": "iterative_implicit_euler",
        "iterations": 4,
        "tolerance": 0.05,
    });
    serde_json::from_value(json).unwrap()
}

/// Moves norms and solver coefficients away from their neutral values.
struct Scramble(u64);

impl ParameterMapper for Scramble {
    fn map<const D: usize>(
        &mut self,
        _: &str,
        role: Role,
        parameter: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        if role != Role::COEFFICIENT {
            return parameter;
        }
        parameter.map(|value| {
            let shape = value.dims();
            let noise: Vec<f32> = (0..shape.iter().product())
                .map(|_| {
                    self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1);
                    0.2 * ((self.0 >> 40) as f32 / (1u64 << 24) as f32 - 0.5)
                })
                .collect();
            let device = value.device();
            value + Tensor::from_data(TensorData::new::<f32, _>(noise, shape), &device)
        })
    }
}

fn model(solver: &SolverConfig, n_kv_heads: usize) -> LanguageModel {
    let config = config(solver.clone(), n_kv_heads);
    let model = LanguageModel::init(&config, 5, &Device::default()).unwrap();
    map_parameters(model, &mut Scramble(9))
}

fn tensor(rows: &[Vec<u32>]) -> Tensor<2, Int> {
    let ids: Vec<i64> = rows.concat().iter().map(|id| i64::from(*id)).collect();
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new::<i64, _>(ids, shape), &Device::default())
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as::<f32>().unwrap()
}

/// The logits of a text, by position.
fn full(model: &LanguageModel, text: &[u32]) -> Vec<Vec<f32>> {
    let logits = values(model.forward(tensor(&[text.to_vec()])));
    logits.chunks(VOCAB).map(<[f32]>::to_vec).collect()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{what}: {a}, expected {b}");
    }
}

/// A batch of texts, all split into the same number of pieces, which may be empty; and the side of
/// the padding in each pass.
#[derive(Debug, Clone)]
struct Cut {
    texts: Vec<Vec<Vec<u32>>>,
    left: Vec<bool>,
}

fn cuts() -> impl Strategy<Value = Cut> {
    (1..4usize, 1..7usize).prop_flat_map(|(batch, passes)| {
        let piece = prop::collection::vec(0..VOCAB as u32, 0..5);
        let text = prop::collection::vec(piece, passes);
        let texts = prop::collection::vec(text, batch);
        (texts, prop::collection::vec(any::<bool>(), passes))
            .prop_map(|(texts, left)| Cut { texts, left })
    })
}

/// Passes the pieces through a cache and compares every position with the full pass.
fn check(model: &LanguageModel, cut: &Cut, what: &str) {
    let mut cache = model.cache(cut.texts.len(), Precision::F32);
    let mut found: Vec<Vec<Vec<f32>>> = vec![Vec::new(); cut.texts.len()];
    for (pass, left) in cut.left.iter().enumerate() {
        let pieces: Vec<&Vec<u32>> = cut.texts.iter().map(|text| &text[pass]).collect();
        let seq = pieces.iter().map(|piece| piece.len()).max().unwrap();
        if seq == 0 {
            continue;
        }
        let columns: Vec<Range<usize>> = pieces
            .iter()
            .map(|piece| {
                if *left {
                    seq - piece.len()..seq
                } else {
                    0..piece.len()
                }
            })
            .collect();
        // Padding has valid ids, to test that they are ignored.
        let ids: Vec<Vec<u32>> = pieces
            .iter()
            .zip(&columns)
            .map(|(piece, columns)| {
                let mut row = vec![7; seq];
                row[columns.clone()].copy_from_slice(piece);
                row
            })
            .collect();
        let hidden = model.extend(tensor(&ids), &columns, &mut cache);
        let logits = values(model.logits(hidden));
        for (b, columns) in columns.iter().enumerate() {
            for column in columns.clone() {
                let at = (b * seq + column) * VOCAB;
                found[b].push(logits[at..at + VOCAB].to_vec());
            }
        }
    }
    for (b, text) in cut.texts.iter().enumerate() {
        let text = text.concat();
        assert_eq!(cache.lengths()[b], text.len());
        if text.is_empty() {
            continue;
        }
        for (t, expected) in full(model, &text).iter().enumerate() {
            assert_close(
                &found[b][t],
                expected,
                1e-4,
                &format!("{what}, row {b}, token {t}"),
            );
        }
    }
}

#[test]
fn cached_decoding_equals_the_full_pass() {
    for solver in solvers() {
        for n_kv_heads in [4, 2, 1] {
            let model = model(&solver, n_kv_heads);
            let what = format!("{solver:?}, {n_kv_heads} key/value heads");
            let mut runner = TestRunner::new(ProptestConfig {
                failure_persistence: None,
                ..ProptestConfig::with_cases(6)
            });
            let cut = cuts();
            let result = runner.run(&cut, |cut| {
                check(&model, &cut, &what);
                Ok(())
            });
            result.unwrap_or_else(|error| panic!("{error}"));
            // Token by token.
            let text: Vec<Vec<u32>> = (0..20).map(|i| vec![i * 7 % VOCAB as u32]).collect();
            let left = vec![false; text.len()];
            check(
                &model,
                &Cut {
                    texts: vec![text],
                    left,
                },
                &what,
            );
        }
    }
}

#[test]
fn long_prompts_are_prefilled_in_chunks() {
    // More than one chunk of 512 tokens and a segment of the cache, with several growths of the
    // cache.
    let solver = solvers().into_iter().next_back().unwrap();
    let mut config = config(solver, 2);
    config.seq_len = 2048;
    let model = LanguageModel::init(&config, 5, &Device::default()).unwrap();
    let text = |n: u32, k: u32| -> Vec<u32> { (0..n).map(|i| i * k % VOCAB as u32).collect() };
    let texts = [text(700, 11), text(90, 5), text(512, 3)];
    let refs: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let mut cache = model.cache(3, Precision::F32);
    let device = Device::default();
    let after = values(model.prefill(&refs, &mut cache, &device));
    let next = values(model.decode(&[4, 5, 6], &mut cache, &device));
    assert_eq!(cache.lengths(), [701, 91, 513]);
    assert!(
        (701..2 * 701).contains(&cache.capacity()),
        "{}",
        cache.capacity()
    );
    for (b, text) in texts.iter().enumerate() {
        let whole = full(&model, &[text.as_slice(), &[4 + b as u32]].concat());
        let row = b * VOCAB..(b + 1) * VOCAB;
        assert_close(&after[row.clone()], &whole[text.len() - 1], 1e-4, "prompt");
        assert_close(&next[row], &whole[text.len()], 1e-4, "next token");
    }
}

#[test]
fn rows_of_a_cache_are_kept_and_replaced() {
    for solver in solvers() {
        let model = model(&solver, 2);
        let device = Device::default();
        let texts: [&[u32]; 3] = [&[1, 2, 3], &[4, 5, 6, 7, 8], &[9]];
        let mut cache = model.cache(3, Precision::F32);
        model.prefill(&texts, &mut cache, &device);
        let mut other = model.cache(1, Precision::F32);
        model.prefill(&[&[10, 11]], &mut other, &device);
        cache.keep_rows(&[2, 0]);
        cache.put_row(0, other);
        let logits = values(model.decode(&[20, 21], &mut cache, &device));
        for (row, text) in [vec![10, 11, 20], vec![1, 2, 3, 21]].iter().enumerate() {
            let whole = full(&model, text);
            let row = &logits[row * VOCAB..(row + 1) * VOCAB];
            assert_close(row, &whole[text.len() - 1], 1e-4, "after the change");
        }
    }
}

#[test]
fn rows_of_another_cache_are_appended() {
    for solver in solvers() {
        let model = model(&solver, 2);
        let device = Device::default();
        let mut cache = model.cache(0, Precision::F32);
        let groups: [&[&[u32]]; 3] = [&[&[1, 2, 3], &[4, 5, 6, 7, 8]], &[&[9]], &[&[3; 20], &[2]]];
        for group in groups {
            let mut other = model.cache(group.len(), Precision::F32);
            model.prefill(group, &mut other, &device);
            cache.append(other);
        }
        assert_eq!(cache.lengths(), [3, 5, 1, 20, 1]);
        let ids = [20, 21, 22, 23, 24];
        let logits = values(model.decode(&ids, &mut cache, &device));
        for (row, (text, id)) in groups.concat().iter().zip(ids).enumerate() {
            let whole = full(&model, &[*text, &[id]].concat());
            let row = &logits[row * VOCAB..(row + 1) * VOCAB];
            assert_close(row, &whole[text.len()], 1e-4, "after appending");
        }
    }
}

#[test]
fn half_precision_caches_are_close() {
    for (stored, tolerance) in [(Precision::F16, 2e-2), (Precision::Bf16, 2e-1)] {
        let model = model(&solvers()[0], 2);
        let text: Vec<u32> = (0..24).map(|i| i * 5 % VOCAB as u32).collect();
        let mut cache = model.cache(1, stored);
        let device = Device::default();
        let mut largest = 0.0f32;
        for (t, expected) in full(&model, &text).iter().enumerate() {
            let found = values(model.decode(&text[t..=t], &mut cache, &device));
            assert_close(
                &found,
                expected,
                tolerance,
                &format!("{stored:?}, token {t}"),
            );
            let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
            largest = differences.fold(largest, f32::max);
        }
        assert!(largest > 1e-5, "{stored:?} must round: {largest}");
    }
}
