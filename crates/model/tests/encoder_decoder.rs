//! Properties of encoder-decoders that hold for all weights, and their directories, valid and not.
//!
//! The numbers of PyTorch are compared in `iiet-conformance`.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};
use iiet_model::{
    EncoderDecoder, EncoderDecoderConfig, EncoderDecoderCost, LlamaConfig, ModelError, ModelKind,
    ParameterMapper, ParameterVisitor, Precision, Role, SaveOptions, Source, StackConfig, load,
    map_parameters, model_kind, padded, save, token_ids, visit_parameters,
};
use iiet_ode::{Options, SolverConfig};
use serde_json::json;

const VOCAB: usize = 29;
/// Tokens that end a target.
const ENDS: [u32; 6] = [2, 5, 8, 13, 21, 24];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conformance/golden/encoder-decoders")
        .join(name)
}

fn solver(options: serde_json::Value) -> SolverConfig {
    serde_json::from_value(options).unwrap()
}

/// Every solver with options of its own, and those of the iterated ones that stop by token.
fn solvers() -> Vec<SolverConfig> {
    let mut solvers: Vec<_> = SolverConfig::NAMES
        .iter()
        .map(|name| SolverConfig::named(name).unwrap())
        .collect();
    for options in [
        json!({"name": "runge_kutta", "predictor_order": 4}),
        json!({"name": "predictor_corrector", "predictor_order": 4}),
        json!({"name": "implicit_euler", "iterations": [2, 0]}),
        json!({"name": "iterative_implicit_euler", "iterations": 4, "tolerance": 0.05}),
    ] {
        solvers.push(solver(options));
    }
    solvers
}

fn config(encoder: &SolverConfig, decoder: &SolverConfig) -> EncoderDecoderConfig {
    let stack = |solver: &SolverConfig| StackConfig {
        n_layers: 2,
        solver: solver.clone(),
    };
    EncoderDecoderConfig {
        vocab_size: VOCAB,
        d_model: 16,
        seq_len: 12,
        initializer_range: 0.2,
        label_smoothing: 0.1,
        decoder_start_token_id: Some(1),
        eos_token_ids: ENDS.to_vec(),
        block: LlamaConfig {
            d_ff: 24,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        encoder: stack(encoder),
        decoder: stack(decoder),
    }
}

/// Moves norms and solver coefficients away from their neutral values.
struct Scramble(u64);

impl ParameterMapper for Scramble {
    fn map<const D: usize>(
        &mut self,
        _: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
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

fn model(encoder: &SolverConfig, decoder: &SolverConfig) -> EncoderDecoder {
    let config = config(encoder, decoder);
    let model = EncoderDecoder::init(&config, 5, &Device::default()).unwrap();
    map_parameters(model, &mut Scramble(9))
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as::<f32>().unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{what}: {a}, expected {b}");
    }
}

const SOURCES: [&[u32]; 3] = [&[3, 17, 4, 28, 9, 1], &[5, 8, 8], &[22]];
const TARGETS: [&[u32]; 3] = [&[1, 6, 20], &[1, 11, 7, 19, 3], &[1, 2]];

/// The logits of a pair by itself, by position.
fn full(model: &EncoderDecoder, source: &[u32], target: &[u32]) -> Vec<Vec<f32>> {
    let device = Device::default();
    let ids = token_ids(target, [1, target.len()], &device);
    let logits = values(model.forward(&Source::of(&[source], &device), ids));
    logits.chunks(VOCAB).map(<[f32]>::to_vec).collect()
}

#[test]
fn padding_on_either_side_changes_nothing() {
    let device = Device::default();
    for solver in solvers() {
        let model = model(&solver, &solver);
        let (ids, shape) = padded(&TARGETS);
        let source = Source::of(&SOURCES, &device);
        let logits = values(model.forward(&source, token_ids(&ids, shape, &device)));
        for (b, (source, target)) in SOURCES.iter().zip(TARGETS).enumerate() {
            let alone = full(&model, source, target).concat();
            let found = &logits[b * shape[1] * VOCAB..][..target.len() * VOCAB];
            assert_close(found, &alone, 2e-5, &format!("{solver:?}"));
        }
    }
}

#[test]
fn cached_decoding_equals_the_full_pass_for_every_solver_on_either_side() {
    let device = Device::default();
    let plain = SolverConfig::default();
    let pairs = solvers()
        .into_iter()
        .flat_map(|solver| [(solver.clone(), plain.clone()), (plain.clone(), solver)]);
    for (encoder, decoder) in pairs {
        let model = model(&encoder, &decoder);
        let what = format!("{encoder:?}, {decoder:?}");
        let expected: Vec<_> = SOURCES
            .iter()
            .zip(TARGETS)
            .map(|(source, target)| full(&model, source, target))
            .collect();
        let mut cache = model.cache(&Source::of(&SOURCES, &device), Precision::F32);
        // Beginnings of unequal length, then a token at a time where there are more.
        let begun = [2, 3, 1];
        let texts: Vec<&[u32]> = TARGETS.iter().zip(begun).map(|(t, n)| &t[..n]).collect();
        let logits = values(model.prefill(&texts, &mut cache, &device));
        for (b, found) in logits.chunks(VOCAB).enumerate() {
            assert_close(found, &expected[b][begun[b] - 1], 2e-5, &what);
        }
        for step in 0..2 {
            let next: Vec<Option<u32>> = TARGETS
                .iter()
                .zip(begun)
                .map(|(target, n)| target.get(n + step).copied())
                .collect();
            let logits = values(model.decode(&next, &mut cache, &device));
            for (b, found) in logits.chunks(VOCAB).enumerate() {
                if next[b].is_some() {
                    assert_close(found, &expected[b][begun[b] + step], 2e-5, &what);
                }
            }
        }
        assert_eq!(cache.lengths(), [3, 5, 2]);
    }
}

#[test]
fn tokens_of_targets_may_be_padded_on_either_side_in_decoding() {
    let device = Device::default();
    let iiet = SolverConfig::named("iterative_implicit_euler").unwrap();
    let model = model(&iiet, &iiet);
    let mut cache = model.cache(&Source::of(&SOURCES, &device), Precision::F32);
    // Columns 1..4, 0..2 and none.
    let ids = token_ids(&[0, 1, 6, 20, 1, 11, 0, 0, 0, 0, 0, 0], [3, 4], &device);
    let columns: [Range<usize>; 3] = [1..4, 0..2, 0..0];
    let hidden = model.extend(ids, &columns, &mut cache);
    assert_eq!(cache.lengths(), [3, 2, 0]);
    let logits = values(model.logits(hidden));
    for (b, columns) in columns.into_iter().enumerate() {
        let expected = full(&model, SOURCES[b], TARGETS[b]);
        for (position, column) in columns.enumerate() {
            let found = &logits[(b * 4 + column) * VOCAB..][..VOCAB];
            assert_close(found, &expected[position], 2e-5, "padded");
        }
    }
}

#[test]
fn rows_that_are_kept_copied_or_moved_decode_as_before() {
    let device = Device::default();
    let iiet = SolverConfig::named("iterative_implicit_euler").unwrap();
    let model = model(&iiet, &iiet);
    let mut cache = model.cache(&Source::of(&SOURCES, &device), Precision::F32);
    model.decode(&[Some(1); 3], &mut cache, &device);
    // By row, its source and the tokens of its target.
    let mut rows: Vec<(usize, Vec<u32>)> = (0..3).map(|source| (source, vec![1])).collect();
    let mut next = 3;
    for kept in [
        // Two rows a source, of which the order changes, then a source leaves.
        &[0, 0, 1, 1, 2, 2][..],
        &[1, 0, 2, 3, 5, 5],
        &[5, 4, 1, 0],
        // Unequal numbers of rows, and equal ones again.
        &[3, 0, 1],
        &[0, 0, 1, 1, 2, 2],
        &[4],
    ] {
        cache.keep_rows(kept);
        rows = kept.iter().map(|row| rows[*row].clone()).collect();
        let tokens: Vec<Option<u32>> = rows
            .iter_mut()
            .map(|(_, text)| {
                next = (next * 5 + 1) % VOCAB as u32;
                text.push(next);
                Some(next)
            })
            .collect();
        let logits = values(model.decode(&tokens, &mut cache, &device));
        assert_eq!(logits.len(), rows.len() * VOCAB);
        for (found, (source, text)) in logits.chunks(VOCAB).zip(&rows) {
            let expected = full(&model, SOURCES[*source], text).pop().unwrap();
            assert_close(found, &expected, 2e-5, &format!("{kept:?}"));
        }
    }
}

#[test]
fn greedy_decoding_takes_the_most_likely_token_of_the_full_pass() {
    let device = Device::default();
    let mut ended = 0;
    for solver in solvers() {
        let model = model(&solver, &solver);
        let found = model.greedy(&Source::of(&SOURCES, &device), 1, 8, &device);
        for (source, found) in SOURCES.iter().zip(found) {
            let mut text = vec![1];
            while text.len() <= 8 {
                let last = full(&model, source, &text).pop().unwrap();
                let best = (0..VOCAB as u32)
                    .max_by(|a, b| last[*a as usize].total_cmp(&last[*b as usize]))
                    .unwrap();
                if ENDS.contains(&best) {
                    ended += 1;
                    break;
                }
                text.push(best);
            }
            assert_eq!(found, text[1..], "{solver:?}");
        }
    }
    // An end of a target must be among what is compared.
    assert!(ended > 0);
}

#[test]
fn the_loss_is_the_smoothed_cross_entropy() {
    let device = Device::default();
    let plain = SolverConfig::default();
    let model = model(&plain, &plain);
    let source = Source::of(&SOURCES, &device);
    let (ids, shape) = padded(&TARGETS);
    let targets: Vec<u32> = ids.iter().map(|id| (id * 7 + 3) % VOCAB as u32).collect();
    let weights: Vec<f32> = (0..ids.len()).map(|t| (t % 3) as f32).collect();
    let loss = model.loss(
        &source,
        token_ids(&ids, shape, &device),
        token_ids(&targets, shape, &device),
        Tensor::from_data(TensorData::new::<f32, _>(weights.clone(), shape), &device),
    );
    let logits = model.forward(&source, token_ids(&ids, shape, &device));
    let log_p = values(log_softmax(logits, 2));
    let each = log_p.chunks(VOCAB).zip(&targets).map(|(log_p, target)| {
        let mean = -log_p.iter().sum::<f32>() / VOCAB as f32;
        0.9 * -log_p[*target as usize] + 0.1 * mean
    });
    let expected: f32 = each.zip(&weights).map(|(loss, weight)| loss * weight).sum();
    let found = values(loss)[0];
    assert!(
        (found - expected).abs() < 1e-4 * expected,
        "{found}, expected {expected}"
    );
}

/// Gradients by name.
struct Gradients<'a>(&'a burn::tensor::Gradients, Vec<(String, Vec<f32>)>);

impl ParameterVisitor for Gradients<'_> {
    fn visit<const D: usize>(&mut self, name: &str, _: Role, parameter: &Param<Tensor<D>>) {
        let gradient = parameter.val().grad(self.0);
        let gradient = gradient.unwrap_or_else(|| panic!("{name} has no gradient"));
        self.1.push((name.to_owned(), values(gradient)));
    }
}

fn gradients(decoder: serde_json::Value) -> Vec<(String, Vec<f32>)> {
    let device = Device::default();
    let plain = SolverConfig::default();
    let small = EncoderDecoderConfig {
        initializer_range: 0.08,
        ..config(&plain, &solver(decoder))
    };
    let model = EncoderDecoder::init(&small, 5, &device).unwrap().train();
    let (ids, shape) = padded(&TARGETS);
    let targets: Vec<u32> = ids.iter().map(|id| (id * 7 + 3) % VOCAB as u32).collect();
    let loss = model.loss(
        &Source::of(&SOURCES, &device),
        token_ids(&ids, shape, &device),
        token_ids(&targets, shape, &device),
        Tensor::ones(shape, &device),
    );
    let all = loss.backward();
    let mut collected = Gradients(&all, Vec::new());
    visit_parameters(&model, &mut collected);
    collected.1
}

#[test]
fn gradients_at_a_fixed_point_of_the_decoder_reach_the_encoder() {
    // So many corrections converge, and then the implicit gradient is that through all of them.
    let through = gradients(json!({"name": "implicit_euler", "iterations": 30}));
    let implicit = gradients(json!({
        "name": "implicit_euler", "iterations": 30, "gradient": "implicit",
    }));
    // The gradient through the last corrections alone is near to both.
    let last = gradients(json!({"name": "implicit_euler", "iterations": 30, "backprop": 12}));
    for ((name, expected), (found, last)) in through.iter().zip(implicit.iter().zip(&last)) {
        let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        assert!(most > 0.0, "{name}");
        assert_close(&found.1, expected, 1e-3 * most, name);
        assert_close(&last.1, expected, 1e-2 * most, name);
    }
}

#[test]
fn initial_weights_depend_on_seed_and_name_alone() {
    #[derive(Default)]
    struct Weights(Vec<(String, Vec<f32>)>);
    impl ParameterVisitor for Weights {
        fn visit<const D: usize>(&mut self, name: &str, _: Role, parameter: &Param<Tensor<D>>) {
            self.0.push((name.to_owned(), values(parameter.val())));
        }
    }
    let weights = |encoder: &str| {
        let solver = |name: &str| SolverConfig::named(name).unwrap();
        let config = config(&solver(encoder), &solver("explicit_euler"));
        let model = EncoderDecoder::init(&config, 3, &Device::default()).unwrap();
        let mut weights = Weights::default();
        visit_parameters(&model, &mut weights);
        weights.0
    };
    let (plain, iiet) = (
        weights("explicit_euler"),
        weights("iterative_implicit_euler"),
    );
    assert!(iiet.len() > plain.len());
    assert!(plain.iter().all(|weight| iiet.contains(weight)));
    let of = |name: &str| &plain.iter().find(|(found, _)| found == name).unwrap().1;
    assert_ne!(
        of("model.encoder.layers.0.mlp.up_proj.weight"),
        of("model.decoder.layers.0.mlp.up_proj.weight")
    );
    of("model.decoder.layers.1.encoder_attn_layer_norm.weight");
}

#[test]
fn directories_round_trip() {
    let device = Device::default();
    let (encoder, decoder) = (
        SolverConfig::named("iterative_implicit_euler").unwrap(),
        SolverConfig::named("predictor_corrector").unwrap(),
    );
    let model = model(&encoder, &decoder);
    let folder = tempfile::tempdir().unwrap();
    let options = SaveOptions {
        max_shard_bytes: 20_000,
        ..SaveOptions::default()
    };
    save(&model, folder.path(), &options).unwrap();
    assert!(folder.path().join("model.safetensors.index.json").exists());
    assert_eq!(
        model_kind(folder.path()).unwrap(),
        ModelKind::EncoderDecoder
    );
    let again = EncoderDecoder::load(folder.path(), &device).unwrap();
    // A schedule has been written for each layer.
    assert_eq!(again.config().to_json(), model.config().to_json());
    let ends = r#"{"eos_token_id": [2, 9]}"#;
    fs::write(folder.path().join("generation_config.json"), ends).unwrap();
    let config = EncoderDecoder::load_config(folder.path()).unwrap();
    assert_eq!(config.eos_token_ids, [2, 9]);
    for (source, target) in SOURCES.iter().zip(TARGETS) {
        assert_eq!(full(&again, source, target), full(&model, source, target));
    }
    // In half precision the logits differ by rounding.
    let half = EncoderDecoder::load_in(Precision::Bf16, folder.path(), &device).unwrap();
    let (found, expected) = (
        full(&half, SOURCES[0], TARGETS[0]).concat(),
        full(&model, SOURCES[0], TARGETS[0]).concat(),
    );
    assert_ne!(found, expected);
    let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert_close(&found, &expected, 0.05 * most, "bf16");
}

#[test]
fn costs_equal_parameters_and_evaluations_counted_by_hand() {
    let (encoder, decoder) = (
        solver(json!({"name": "implicit_euler", "iterations": [2, 0]})),
        solver(json!({"name": "runge_kutta", "predictor_order": 4})),
    );
    let cost = EncoderDecoderCost::of(&model(&encoder, &decoder));
    assert_eq!(cost.encoder_evaluations, [3, 1]);
    assert_eq!(cost.decoder_evaluations, [4, 4]);
    // A layer: q, k, v, o, three matrices of the feed-forward layer, norms; cross-attention with its norm.
    let attention = 2 * 16 * 16 + 2 * 16 * 8;
    let layer = attention + 3 * 16 * 24 + 2 * 16;
    let crossed = attention + 16;
    let all = VOCAB * 16 + 2 * layer + 2 * (layer + crossed) + 2 * 16;
    assert_eq!(cost.parameters, all as u64);
    // Keys and values of 8 numbers each: twice for two layers, and for eight evaluations.
    assert_eq!(cost.cache_bytes_per_source_token, 2 * 2 * 8 * 4);
    assert_eq!(cost.cache_bytes_per_target_token, 8 * 2 * 8 * 4);
}

/// A golden directory, to be damaged.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden("iiet-iiet").join(name), dir.path().join(name)).unwrap();
    }
    dir
}

#[test]
fn damaged_directories_are_errors_that_name_what_is_wrong() {
    let device = Device::default();
    let text = fs::read_to_string(golden("iiet-iiet").join("config.json")).unwrap();
    for (from, to, expected) in [
        (
            "\"vocab_size\": 101",
            "\"vocab_size\": 102",
            "misshapen model.shared.weight [101, 32], expected [102, 32]",
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 4",
            "encoder: iterations lists 3 layers, the model has 4",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
            "decoder: iterations lists 2 layers, the model has 3",
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": true",
            "config.json: invalid type: boolean `true`, expected usize at line",
        ),
        (
            "\"is_encoder_decoder\": true,",
            "",
            "config.json: a language model, without is_encoder_decoder",
        ),
        (
            "\"encoder\": {",
            "\"encode\": {",
            "config.json: missing field `encoder`",
        ),
    ] {
        let dir = directory();
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        fs::write(dir.path().join("config.json"), changed).unwrap();
        let error = EncoderDecoder::load(dir.path(), &device)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A plain encoder has no history: the weights of one are surplus.
    let dir = directory();
    let plain = text.replacen("iterative_implicit_euler", "explicit_euler", 1);
    fs::write(dir.path().join("config.json"), plain).unwrap();
    let error = EncoderDecoder::load(dir.path(), &device)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("surplus   model.encoder.history.weight"),
        "{error}"
    );
    assert!(!error.contains("model.decoder"), "{error}");
    // Far more layers than tensors.
    let dir = directory();
    let deep = text.replacen(
        "\"num_hidden_layers\": 3,\n    \"solver\": \"iterative_implicit_euler\"",
        "\"num_hidden_layers\": 16000,\n    \"solver\": \"explicit_euler\"",
        1,
    );
    assert_ne!(deep, text);
    fs::write(dir.path().join("config.json"), deep).unwrap();
    let error = EncoderDecoder::load(dir.path(), &device).unwrap_err();
    assert!(
        matches!(error, ModelError::Layers { layers: 16002, .. }),
        "{error}"
    );
    // Weights cut short.
    let dir = directory();
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    let error = EncoderDecoder::load(dir.path(), &device)
        .unwrap_err()
        .to_string();
    assert!(error.contains("not a valid safetensors file"), "{error}");
    // One weight that is no number.
    let mut spoilt = bytes.clone();
    let at = bytes.len() - 4;
    spoilt[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, spoilt).unwrap();
    let error = EncoderDecoder::load(dir.path(), &device)
        .unwrap_err()
        .to_string();
    assert!(error.contains("contains NaN at element"), "{error}");
}

#[test]
fn each_kind_of_model_refuses_the_other_by_name() {
    let device = Device::default();
    let error = load(&golden("euler-euler"), &device)
        .unwrap_err()
        .to_string();
    let expected = "config.json: is_encoder_decoder is true: this is a sequence-to-sequence model, and a \
                    language model is needed here";
    assert!(error.ends_with(expected), "{error}");
    let language_model = golden("../models/rk4");
    let error = EncoderDecoder::load(&language_model, &device)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("a sequence-to-sequence model is needed here"),
        "{error}"
    );
    assert_eq!(
        model_kind(&language_model).unwrap(),
        ModelKind::LanguageModel
    );
}

#[test]
fn a_manifest_is_compared() {
    let device = Device::default();
    let dir = tempfile::tempdir().unwrap();
    let model = EncoderDecoder::load(&golden("euler-euler"), &device).unwrap();
    save(&model, dir.path(), &SaveOptions::default()).unwrap();
    let path = dir.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("0.1", "0.2")).unwrap();
    for error in [
        EncoderDecoder::load(dir.path(), &device)
            .map(drop)
            .unwrap_err(),
        EncoderDecoder::load_config(dir.path())
            .map(drop)
            .unwrap_err(),
        model_kind(dir.path()).map(drop).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("config.json: damaged or changed"), "{error}");
    }
}

#[test]
#[should_panic = "cannot have the lengths [6, 0]"]
fn an_empty_source_is_refused() {
    let ids = token_ids(&[1; 12], [2, 6], &Device::default());
    Source::new(ids, vec![6, 0]);
}
