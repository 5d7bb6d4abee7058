//! Models of the families that share LLaMA's layer, against `transformers`: `families/write.py` wrote them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use iiet_model::{
    AttentionBias, CrossEntropy, ModelConfig, ParameterVisitor, Precision, Role, SaveOptions, load,
    load_in, save, visit_parameters,
};
use iiet_ode::{Options, SolverConfig};
use safetensors::SafeTensors;

const FAMILIES: [&str; 5] = ["mistral", "mistral_window", "qwen2", "qwen3", "llama_bias"];

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(name)
}

/// What `transformers` was given and computed.
struct Expected {
    ids: TensorData,
    numbers: BTreeMap<String, Vec<f32>>,
}

fn expected(name: &str) -> Expected {
    let bytes = fs::read(family(name).join("expected.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let words = ids.data().chunks_exact(8);
    let words = words.map(|word| i64::from_le_bytes(word.try_into().unwrap()));
    let shape = [ids.shape()[0], ids.shape()[1]];
    let numbers = file
        .tensors()
        .into_iter()
        .filter(|(key, _)| key != "input_ids");
    let numbers = numbers.map(|(key, view)| {
        let words = view.data().chunks_exact(4);
        let values = words.map(|word| f32::from_le_bytes(word.try_into().unwrap()));
        (key, values.collect())
    });
    Expected {
        ids: TensorData::new::<i64, _>(words.collect::<Vec<_>>(), shape),
        numbers: numbers.collect(),
    }
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as::<f32>().unwrap()
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= 2e-5 * largest, "{what}: {a} {b}");
    }
}

#[test]
fn logits_are_those_of_transformers() {
    let device = Device::default();
    for name in FAMILIES {
        let Expected { ids, numbers } = expected(name);
        let (model, _) = load(&family(name), &device).unwrap();
        let logits = model.forward(Tensor::<2, Int>::from_data(ids, &device));
        assert_close(&values(logits), &numbers["logits"], name);
    }
}

/// Gradients by name.
struct Collect<'a>(&'a Gradients, BTreeMap<String, Vec<f32>>);

impl ParameterVisitor for Collect<'_> {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        let gradient = parameter.val().grad(self.0).unwrap();
        let [rows, columns] = [gradient.dims()[0], gradient.dims()[D - 1]];
        let gradient = values(gradient);
        let gradient = match role.transposed {
            false => gradient,
            true => {
                let at = |i: usize| gradient[i % rows * columns + i / rows];
                (0..rows * columns).map(at).collect()
            }
        };
        self.1.insert(name.to_owned(), gradient);
    }
}

#[test]
fn gradients_are_those_of_transformers() {
    let device = Device::default();
    for name in FAMILIES {
        let Expected { ids, numbers } = expected(name);
        let (model, _) = load(&family(name), &device).unwrap();
        let model = model.train();
        let ids = Tensor::<2, Int>::from_data(ids, &device.clone().autodiff());
        let [batch, seq] = ids.dims();
        let mut objective = CrossEntropy {
            targets: ids.clone().slice([0..batch, 1..seq]),
            weights: Tensor::ones([batch, seq - 1], &ids.device()),
        };
        let inputs = ids.slice([0..batch, 0..seq - 1]);
        let gradients = model.objective(inputs, &mut objective).backward();
        let mut collect = Collect(&gradients, BTreeMap::new());
        visit_parameters(&model, &mut collect);
        let tokens = (batch * (seq - 1)) as f32;
        let mut compared = 0;
        for (key, expected) in &numbers {
            let Some(parameter) = key.strip_prefix("gradient.") else {
                continue;
            };
            let found = &collect.1[&format!("model.layers.0.self_attn.{parameter}")];
            // Ours is of the sum over tokens.
            let found: Vec<f32> = found.iter().map(|x| x / tokens).collect();
            assert_close(&found, expected, &format!("{name} {parameter}"));
            compared += 1;
        }
        assert!(compared >= 1, "{name}");
    }
}

#[test]
fn directories_say_what_they_are() {
    let config = |name: &str| iiet_model::load_config(&family(name)).unwrap();
    let of = |name: &str| {
        let block = config(name).block;
        (block.head_dim, block.attention_bias, block.qk_norm)
    };
    assert_eq!(of("mistral"), (Some(6), AttentionBias::None, false));
    assert_eq!(of("mistral_window"), (None, AttentionBias::None, false));
    assert_eq!(of("qwen2"), (None, AttentionBias::Qkv, false));
    assert_eq!(of("qwen3"), (Some(8), AttentionBias::None, true));
    assert_eq!(of("llama_bias"), (None, AttentionBias::All, false));
    assert!(config("qwen2").tie_embeddings);
}

/// Under explicit Euler a directory has a name that `transformers` knows, else this project's.
#[test]
fn what_is_written_is_read_again() {
    let device = Device::default();
    for (name, plain) in [
        ("mistral", "llama"),
        ("qwen2", "qwen2"),
        ("qwen3", "qwen3"),
        ("llama_bias", "llama"),
    ] {
        let Expected { ids, numbers } = expected(name);
        let (model, config) = load(&family(name), &device).unwrap();
        let ids = Tensor::<2, Int>::from_data(ids, &device);
        for (solver, model_type) in [("explicit_euler", plain), ("implicit_euler", "iiet")] {
            let solver = SolverConfig::named(solver).unwrap();
            let solver = match solver.iterations() {
                // Without a correction the same function.
                Some(_) => solver.with_iterations(iiet_ode::IterationSchedule::Uniform(0)),
                None => solver,
            };
            let config = ModelConfig {
                solver,
                ..config.clone()
            };
            let model = model.with_config(&config, 1, &device).unwrap();
            let dir = tempfile::tempdir().unwrap();
            save(&model, dir.path(), &SaveOptions::default()).unwrap();
            let json = fs::read_to_string(dir.path().join("config.json")).unwrap();
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(json["model_type"], model_type, "{name}");
            let (again, config_again) = load(dir.path(), &device).unwrap();
            assert_eq!(config_again.block, config.block, "{name}");
            assert_close(
                &values(again.forward(ids.clone())),
                &numbers["logits"],
                &format!("{name} as {model_type}"),
            );
        }
    }
}

/// Token by token with caches, as the whole text at once.
#[test]
fn decoding_is_the_full_pass() {
    let device = Device::default();
    for name in FAMILIES {
        let Expected { ids, numbers } = expected(name);
        let (model, config) = load(&family(name), &device).unwrap();
        let (batch, seq) = (ids.shape()[0], ids.shape()[1]);
        let ids = ids.try_to_vec::<i64>().unwrap();
        let mut cache = model.cache(batch, Precision::F32);
        let mut found = vec![Vec::new(); batch];
        for at in 0..seq {
            let tokens: Vec<u32> = (0..batch).map(|row| ids[row * seq + at] as u32).collect();
            let logits = values(model.decode(&tokens, &mut cache, &device));
            for (row, logits) in found.iter_mut().zip(logits.chunks(config.vocab_size)) {
                row.extend_from_slice(logits);
            }
        }
        assert_close(&found.concat(), &numbers["logits"], name);
    }
}

/// Halves have the biases and the norms as well.
#[test]
fn half_precision_is_near() {
    let device = Device::default();
    for name in FAMILIES {
        let Expected { ids, numbers } = expected(name);
        let (model, _) = load_in(Precision::Bf16, &family(name), &device).unwrap();
        let logits = values(model.forward(Tensor::<2, Int>::from_data(ids, &device)));
        let expected = &numbers["logits"];
        let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        for (a, b) in logits.iter().zip(expected) {
            assert!((a - b).abs() <= 0.1 * largest, "{name}: {a} {b}");
        }
    }
}
