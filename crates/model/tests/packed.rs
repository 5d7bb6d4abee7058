//! Models with matrices of 8 and 4 bits, and with zeros.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor};
use iiet_compress::prune::Pattern;
use iiet_compress::{Activations, Gptq, Scheme};
use iiet_model::{
    EncoderDecoder, EncoderDecoderConfig, LanguageModel, LlamaConfig, ModelConfig, ModelError,
    Precision, Projections, PruneMethod, SaveOptions, Source, StackConfig, load, load_as, load_in,
    prune_by_magnitude, quantisation, round_to_bits, save, token_ids, treat_inputs,
};
use iiet_ode::{IterationSchedule, Layer, Options, SolverConfig};

const SEQ: usize = 12;

fn solvers() -> Vec<SolverConfig> {
    let names = [
        "explicit_euler",
        "runge_kutta",
        "predictor_corrector",
        "implicit_euler",
    ];
    let mut solvers: Vec<_> = names.map(|name| SolverConfig::named(name).unwrap()).into();
    solvers.push(iterated(2));
    solvers
}

fn iterated(r: usize) -> SolverConfig {
    let solver = SolverConfig::named("iterative_implicit_euler").unwrap();
    solver.with_iterations(IterationSchedule::Uniform(r))
}

fn config(solver: SolverConfig, tie_embeddings: bool) -> ModelConfig {
    ModelConfig {
        vocab_size: 101,
        d_model: 64,
        n_layers: 2,
        seq_len: SEQ,
        tie_embeddings,
        initializer_range: 0.05,
        block: LlamaConfig {
            d_ff: 96,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        solver,
        ..ModelConfig::default()
    }
}

fn scheme(bits: u64) -> Scheme {
    Scheme::new(bits, 32, true).unwrap()
}

fn texts(count: usize, device: &Device) -> Vec<Tensor<2, Int>> {
    let text = |n: usize| {
        let ids: Vec<i32> = (0..2 * SEQ)
            .map(|i| ((i * i + 7 * n * i + n) % 101) as i32)
            .collect();
        Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([2, SEQ])
    };
    (0..count).map(text).collect()
}

fn logits(model: &LanguageModel) -> Vec<f32> {
    let ids = texts(1, &Device::default()).remove(0);
    model.forward(ids).try_into_vec_as::<f32>().unwrap()
}

/// The same values in dense matrices.
fn widened(model: &LanguageModel, device: &Device) -> LanguageModel {
    let mut dense = LanguageModel::init(&model.config(), 1, device).unwrap();
    for ((_, from), (_, to)) in model.projections().into_iter().zip(dense.projections_mut()) {
        let weight = &mut to.dense_mut().unwrap().weight;
        *weight = weight.clone().map(|_| from.matrix());
    }
    let embedding = &mut dense.model.embed_tokens.dense_mut().unwrap().weight;
    *embedding = embedding.clone().map(|_| model.model.embed_tokens.matrix());
    dense
}

fn close(a: &[f32], b: &[f32], tolerance: f32) {
    let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let apart = a
        .iter()
        .zip(b)
        .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(
        a.len() == b.len() && apart <= tolerance * largest,
        "{apart} of {largest}"
    );
}

#[test]
fn every_solver_computes_with_the_values_that_the_bits_stand_for() {
    let device = Device::default();
    for solver in solvers() {
        for (bits, tied) in [(8, true), (4, false)] {
            let config = config(solver.clone(), tied);
            let mut model: LanguageModel = LanguageModel::init(&config, 1, &device).unwrap();
            let before = logits(&model);
            round_to_bits(&mut model, scheme(bits), true).unwrap();
            assert!(model.is_packed());
            let packed = logits(&model);
            close(&packed, &logits(&widened(&model, &device)), 1e-4);
            let mut again = model.clone();
            iiet_model::widen(&mut again);
            assert!(!again.is_packed());
            close(&packed, &logits(&again), 1e-4);
            // Different numbers, but the same function more or less.
            assert_ne!(packed, before);
            if bits == 8 {
                close(&packed, &before, 0.3);
            }
        }
    }
}

#[test]
fn directories_hold_packed_models_exactly() {
    let device = Device::default();
    for (bits, tied, embeddings, activations) in [
        (8, true, true, Activations::F32),
        (8, true, true, Activations::Int8),
        (4, false, true, Activations::Int8),
        (4, true, false, Activations::F32),
    ] {
        let config = config(iterated(1), tied);
        let mut model: LanguageModel = LanguageModel::init(&config, 1, &device).unwrap();
        round_to_bits(&mut model, scheme(bits), embeddings).unwrap();
        let unrounded = logits(&model);
        treat_inputs(&mut model, activations);
        assert_eq!(logits(&model) == unrounded, activations == Activations::F32);
        close(&logits(&model), &unrounded, 0.1);
        let dir = tempfile::tempdir().unwrap();
        save(&model, dir.path(), &SaveOptions::default()).unwrap();
        let (again, read) = load(dir.path(), &device).unwrap();
        assert_eq!(read.to_json(), model.config().to_json());
        assert_eq!(logits(&again), logits(&model));
        let found = quantisation(dir.path()).unwrap().unwrap();
        assert_eq!((found.scheme, found.embeddings), (scheme(bits), embeddings));
        assert_eq!(found.activations, activations);
        // Written again, they are the same bytes; sharded, the same model.
        let second = tempfile::tempdir().unwrap();
        save(&again, second.path(), &SaveOptions::default()).unwrap();
        for file in ["config.json", "model.safetensors"] {
            let [a, b] = [&dir, &second].map(|dir| fs::read(dir.path().join(file)).unwrap());
            assert_eq!(a, b, "{file}");
        }
        let options = SaveOptions {
            max_shard_bytes: 5000,
            ..SaveOptions::default()
        };
        save(&again, second.path(), &options).unwrap();
        assert_eq!(
            logits(&load(second.path(), &device).unwrap().0),
            logits(&model)
        );
        // Half-precision states, around the same matrices.
        let (halves, _) = load_in(Precision::Bf16, dir.path(), &device).unwrap();
        close(&logits(&halves), &logits(&model), 0.1);
    }
}

#[test]
fn sizes_shrink_with_the_bits() {
    let device = Device::default();
    let model = LanguageModel::init(&config(iterated(1), true), 1, &device).unwrap();
    let bytes = |model: &LanguageModel| {
        let dir = tempfile::tempdir().unwrap();
        save(model, dir.path(), &SaveOptions::default()).unwrap();
        fs::metadata(dir.path().join("model.safetensors"))
            .unwrap()
            .len() as f64
    };
    let floats = bytes(&model);
    for (bits, least, most) in [(8, 0.25, 0.32), (4, 0.125, 0.2)] {
        let mut packed = model.clone();
        round_to_bits(&mut packed, scheme(bits), true).unwrap();
        let share = bytes(&packed) / floats;
        assert!(share > least && share < most, "{bits} bits: {share}");
    }
}

/// The logits of decoding some tokens one by one, after a prompt, and those of the full pass, in turns.
fn decoded_and_whole(model: &LanguageModel, device: &Device) -> Vec<[Vec<f32>; 2]> {
    let ids: Vec<u32> = (0..SEQ as u32).map(|i| i * 17 % 101).collect();
    let whole: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    let whole = Tensor::<1, Int>::from_data(whole.as_slice(), device).reshape([1, SEQ]);
    let whole = model.forward(whole).reshape([SEQ, 101]);
    let mut cache = model.cache(1, Precision::F32);
    let mut last = model.prefill(&[&ids[..5]], &mut cache, device);
    let mut pairs = Vec::new();
    for (n, id) in ids.iter().enumerate().skip(5) {
        let expected = whole.clone().narrow(0, n - 1, 1);
        let pair = [last.reshape([101]), expected.reshape([101])];
        pairs.push(pair.map(|x| x.try_into_vec_as::<f32>().unwrap()));
        last = model.decode(&[*id], &mut cache, device);
    }
    pairs
}

#[test]
fn decoding_equals_the_full_pass() {
    let device = Device::default();
    for solver in solvers() {
        let mut model: LanguageModel =
            LanguageModel::init(&config(solver, true), 3, &device).unwrap();
        round_to_bits(&mut model, scheme(4), true).unwrap();
        for [decoded, whole] in decoded_and_whole(&model, &device) {
            close(&decoded, &whole, 1e-3);
        }
    }
}

/// Where sums in another order put an input on the other side of a tie, it is rounded to the neighbouring integer. That
/// is rare, and much less than what rounding itself changes.
#[test]
fn decoding_with_rounded_inputs_equals_the_full_pass_but_for_ties() {
    let device = Device::default();
    for solver in solvers() {
        let mut model: LanguageModel =
            LanguageModel::init(&config(solver, true), 3, &device).unwrap();
        round_to_bits(&mut model, scheme(4), true).unwrap();
        let unrounded = decoded_and_whole(&model, &device);
        treat_inputs(&mut model, Activations::Int8);
        let rounded = decoded_and_whole(&model, &device);
        let (mut apart, mut changed) = (0.0, 0.0);
        for ([decoded, whole], [before, _]) in rounded.iter().zip(&unrounded) {
            close(decoded, whole, 1e-2);
            for ((decoded, whole), before) in decoded.iter().zip(whole).zip(before) {
                apart += (decoded - whole).abs();
                changed += (decoded - before).abs();
            }
        }
        assert!(apart < 0.1 * changed, "{apart}, rounding {changed}");
    }
}

/// The mean square of the differences of the logits on some texts, summed over the texts.
fn apart(changed: &LanguageModel, model: &LanguageModel, texts: &[Tensor<2, Int>]) -> f32 {
    let of_text = |ids: &Tensor<2, Int>| {
        let [y, expected] = [changed, model].map(|model| model.forward(ids.clone()));
        (y - expected).powi_scalar(2).mean().into_scalar::<f32>()
    };
    texts.iter().map(of_text).sum()
}

#[test]
fn gptq_loses_less_than_rounding_on_its_texts() {
    let device = Device::default();
    let texts = texts(24, &device);
    let model = LanguageModel::init(&config(iterated(2), false), 5, &device).unwrap();
    let loss = |packed: &LanguageModel| apart(packed, &model, &texts);
    let (mut rounded, mut calibrated) = (model.clone(), model.clone());
    round_to_bits(&mut rounded, scheme(4), true).unwrap();
    let mut layers = Vec::new();
    let gptq = Gptq::new(scheme(4));
    calibrated
        .gptq(&gptq, true, &texts, |done, of| layers.push((done, of)))
        .unwrap();
    assert_eq!(layers, [(0, 2), (1, 2), (2, 2)]);
    assert!(calibrated.is_packed());
    let (rounded, calibrated) = (loss(&rounded), loss(&calibrated));
    assert!(
        calibrated < 0.9 * rounded,
        "{calibrated}, by rounding {rounded}"
    );
}

#[test]
fn pruned_weights_are_zero_and_calibrated_ones_lose_less() {
    let device = Device::default();
    let texts = texts(24, &device);
    let model = LanguageModel::init(&config(iterated(1), true), 5, &device).unwrap();
    let loss = |pruned: &LanguageModel| apart(pruned, &model, &texts);
    let zeros = |pruned: &LanguageModel| -> Vec<f64> {
        let matrices = pruned.projections().into_iter();
        let zeros = matrices.map(|(_, projection)| {
            let values = projection.matrix().try_into_vec_as::<f32>().unwrap();
            values.iter().filter(|w| **w == 0.0).count() as f64 / values.len() as f64
        });
        zeros.collect()
    };
    for pattern in [
        Pattern::Unstructured { sparsity: 0.5 },
        Pattern::n_of_m(2, 4),
    ] {
        let mut pruned = model.clone();
        prune_by_magnitude(&mut pruned, pattern).unwrap();
        assert!(
            zeros(&pruned)
                .iter()
                .all(|share| (share - 0.5).abs() < 1e-3)
        );
        let magnitude = loss(&pruned);
        for method in [PruneMethod::Wanda, PruneMethod::SparseGpt] {
            let mut pruned = model.clone();
            pruned.prune(method, pattern, &texts, |_, _| ()).unwrap();
            assert!(
                zeros(&pruned)
                    .iter()
                    .all(|share| (share - 0.5).abs() < 1e-3)
            );
            let found = loss(&pruned);
            if method == PruneMethod::SparseGpt {
                assert!(found < magnitude, "{found}, by magnitude {magnitude}");
            }
        }
    }
}

#[test]
fn a_model_without_layers_is_the_one_of_the_remaining_ones() {
    let device = Device::default();
    let texts = texts(4, &device);
    let gated = r#"{"name":"iterative_implicit_euler","iterations":[2,0,1],"gate":0.5}"#;
    let mut solvers = solvers();
    solvers.push(serde_json::from_str(gated).unwrap());
    for solver in solvers {
        let config = ModelConfig {
            n_layers: 3,
            ..config(solver, true)
        };
        let model: LanguageModel = LanguageModel::init(&config, 5, &device).unwrap();
        // Without the last layer, the rest computes what it did: the history's rows are those of layers before.
        let shorter = model.keeping(&[Layer::at(0), Layer::at(1)]).unwrap();
        let ids = texts[0].clone();
        let at = model.walk(model.start(ids.clone()), 2, &mut model.pass(&ids), &mut ());
        let short = shorter.walk(
            shorter.start(ids.clone()),
            2,
            &mut shorter.pass(&ids),
            &mut (),
        );
        assert_eq!(short.y.into_data(), at.y.into_data());
        // Without the first, the history's weights between the others stay.
        let (shorter, left_out) = model.without_layers(1, &texts, |_, _| ()).unwrap();
        assert_eq!(left_out.len(), 1);
        let influence = model.block_influence(&texts, |_, _| ()).unwrap();
        let least = influence.iter().copied().fold(f64::INFINITY, f64::min);
        assert_eq!(influence[left_out[0].index()], least);
        let dir = tempfile::tempdir().unwrap();
        save(&shorter, dir.path(), &SaveOptions::default()).unwrap();
        assert_eq!(
            logits(&load(dir.path(), &device).unwrap().0),
            logits(&shorter)
        );
        assert_eq!(shorter.config().n_layers, 2);
    }
    let model: LanguageModel = LanguageModel::init(&config(iterated(1), true), 1, &device).unwrap();
    let error = model.without_layers(2, &texts, |_, _| ()).unwrap_err();
    assert!(
        error.to_string().contains("is 2; allowed: at most 1"),
        "{error}"
    );
}

/// Two layers on each side, with one correction in the encoder's.
fn encoder_decoder(device: &Device) -> EncoderDecoder {
    let stack = |solver| StackConfig {
        n_layers: 2,
        solver,
    };
    let config = EncoderDecoderConfig {
        vocab_size: 101,
        d_model: 64,
        seq_len: SEQ,
        block: config(iterated(1), true).block,
        encoder: stack(iterated(1)),
        decoder: stack(SolverConfig::default()),
        ..EncoderDecoderConfig::default()
    };
    EncoderDecoder::init(&config, 1, device).unwrap()
}

#[test]
fn an_encoder_decoder_is_calibrated_on_both_sides() {
    let device = Device::default();
    let model = encoder_decoder(&device);
    // Of each pair one text alone, so that there is no padding; sources and targets differ in length.
    let pair = |n: usize| {
        let ids = |count, factor| -> Vec<u32> {
            (0..count)
                .map(|i| ((i * factor + 17 * n) % 101) as u32)
                .collect()
        };
        let (source, target) = (ids(2 + n % (SEQ - 2), 7), ids(SEQ - n % 5, 11));
        (
            Source::of(&[&source], &device),
            token_ids(&target, [1, target.len()], &device),
        )
    };
    let pairs: Vec<(Source, Tensor<2, Int>)> = (0..48).map(pair).collect();
    let loss = |changed: &EncoderDecoder| -> f32 {
        let of_pair = |(source, ids): &(Source, Tensor<2, Int>)| {
            let [y, expected] = [changed, &model].map(|model| model.forward(source, ids.clone()));
            (y - expected).powi_scalar(2).mean().into_scalar::<f32>()
        };
        pairs.iter().map(of_pair).sum()
    };

    let (mut rounded, mut calibrated) = (model.clone(), model.clone());
    round_to_bits(&mut rounded, scheme(4), false).unwrap();
    let mut layers = Vec::new();
    calibrated
        .gptq(&Gptq::new(scheme(4)), false, &pairs, |done, of| {
            layers.push((done, of))
        })
        .unwrap();
    assert_eq!(layers, [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]);
    let mut packed = calibrated.projections().into_iter();
    assert!(packed.all(|(_, projection)| projection.packed().is_some()));
    let (rounded, calibrated) = (loss(&rounded), loss(&calibrated));
    assert!(
        calibrated < 0.9 * rounded,
        "{calibrated}, by rounding {rounded}"
    );

    let pattern = Pattern::n_of_m(2, 4);
    let mut magnitude = model.clone();
    prune_by_magnitude(&mut magnitude, pattern).unwrap();
    let mut pruned = model.clone();
    let method = PruneMethod::SparseGpt;
    pruned.prune(method, pattern, &pairs, |_, _| ()).unwrap();
    let (magnitude, pruned) = (loss(&magnitude), loss(&pruned));
    assert!(pruned < magnitude, "{pruned}, by magnitude {magnitude}");
}

#[test]
fn an_encoder_decoder_is_rounded_on_both_sides() {
    let device = Device::default();
    let mut model = encoder_decoder(&device);
    let source = Source::of(&[&[1, 2, 3], &[4, 5, 6, 7]], &device);
    let run = |model: &EncoderDecoder| {
        let y = model.forward(&source, texts(1, &device).remove(0));
        y.try_into_vec_as::<f32>().unwrap()
    };
    let before = run(&model);
    round_to_bits(&mut model, scheme(8), true).unwrap();
    let packed = run(&model);
    close(&packed, &before, 0.1);
    let dir = tempfile::tempdir().unwrap();
    save(&model, dir.path(), &SaveOptions::default()).unwrap();
    assert_eq!(
        run(&EncoderDecoder::load(dir.path(), &device).unwrap()),
        packed
    );
    let names: Vec<String> = model
        .projections()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(names.contains(&"model.decoder.layers.1.encoder_attn.k_proj".to_owned()));
}

/// A directory with a packed model, whose manifest is deleted so that files can be changed.
fn packed_directory() -> tempfile::TempDir {
    let device = Device::default();
    let mut model: LanguageModel =
        LanguageModel::init(&config(iterated(1), true), 1, &device).unwrap();
    round_to_bits(&mut model, Scheme::new(4, 32, false).unwrap(), true).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save(&model, dir.path(), &SaveOptions::default()).unwrap();
    fs::remove_file(dir.path().join("iiet-manifest.json")).unwrap();
    dir
}

fn error_of(dir: &Path) -> String {
    load(dir, &Device::default()).unwrap_err().to_string()
}

#[test]
fn what_is_not_quantised_can_be_refused() {
    let dir = packed_directory();
    let device = Device::default();
    let (model, config) = load(dir.path(), &device).unwrap();
    let error = load_as(&config, dir.path(), &device).unwrap_err();
    assert!(matches!(error, ModelError::Quantised { .. }), "{error}");
    let error = iiet_model::of_floats(model.clone(), dir.path()).unwrap_err();
    assert!(error.to_string().contains("have 8 or 4 bits"), "{error}");
    let mut model = model;
    let error = prune_by_magnitude(&mut model, Pattern::n_of_m(2, 4)).unwrap_err();
    assert!(
        error.to_string().contains("prune before quantising"),
        "{error}"
    );
}

#[test]
fn groups_that_do_not_divide_a_width_are_named() {
    let device = Device::default();
    let mut model: LanguageModel =
        LanguageModel::init(&config(iterated(1), true), 1, &device).unwrap();
    let scheme = Scheme::new(4, 64, true).unwrap();
    let error = round_to_bits(&mut model, scheme, true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model.layers.0.mlp.down_proj: an input width of 96 is not a multiple of the group size, 64"
    );
}

#[test]
fn damaged_packed_tensors_are_named() {
    let rewrite = |change: &dyn Fn(&mut files::Tensors)| {
        let dir = packed_directory();
        files::rewrite(&dir.path().join("model.safetensors"), change);
        error_of(dir.path())
    };
    const Q: &str = "model.layers.0.self_attn.q_proj";
    let error =
        rewrite(&|tensors| tensors.retain(|(name, _)| *name != format!("{Q}.weight_scale")));
    assert!(
        error.contains(&format!("{Q}: weight_scale: missing, expected one beside")),
        "{error}"
    );
    let error =
        rewrite(&|tensors| tensors.retain(|(name, _)| *name != format!("{Q}.weight_packed")));
    assert!(
        error.contains(&format!("surplus   {Q}.weight_scale")),
        "{error}"
    );
    assert!(error.contains(&format!("missing   {Q}.weight")), "{error}");
    let error = rewrite(&|tensors| {
        let shape = tensors
            .iter_mut()
            .find(|(name, _)| *name == format!("{Q}.weight_shape"));
        shape.unwrap().1.bytes[..8].copy_from_slice(&i64::MAX.to_le_bytes());
    });
    assert!(error.contains(Q), "{error}");
    let error = rewrite(&|tensors| {
        let scale = tensors
            .iter_mut()
            .find(|(name, _)| *name == format!("{Q}.weight_scale"));
        scale.unwrap().1.bytes[..2].copy_from_slice(&[0, 0x7c]);
    });
    assert!(
        error.contains("scale 0: inf, allowed is a finite number"),
        "{error}"
    );
}

#[test]
fn other_quantisations_are_refused_with_what_is_allowed() {
    let dir = packed_directory();
    let path = dir.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("pack-quantized", "marlin-24")).unwrap();
    let error = error_of(dir.path());
    assert!(error.contains("quantization_config"), "{error}");
    assert!(
        error.contains("marlin-24") && error.contains("pack-quantized"),
        "{error}"
    );
}

/// Safetensors files with other tensors.
mod files {
    use std::fs;
    use std::path::Path;

    use safetensors::tensor::TensorView;
    use safetensors::{Dtype, SafeTensors, serialize};

    pub struct Owned {
        pub dtype: Dtype,
        pub shape: Vec<usize>,
        pub bytes: Vec<u8>,
    }

    /// Tensors with their names.
    pub type Tensors = Vec<(String, Owned)>;

    pub fn rewrite(path: &Path, change: &dyn Fn(&mut Tensors)) {
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let owned = Owned {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            (name.to_owned(), owned)
        });
        let mut tensors: Vec<_> = tensors.collect();
        change(&mut tensors);
        let views = tensors.iter().map(|(name, of)| {
            let view = TensorView::new(of.dtype, of.shape.clone(), &of.bytes).unwrap();
            (name.clone(), view)
        });
        fs::write(path, serialize(views, None).unwrap()).unwrap();
    }
}
