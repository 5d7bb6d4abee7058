//! Corrections that stop, and gradients of fixed points.

mod unit_embeddings;

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use iiet_blocks::{BlockField, LlamaConfig};
use iiet_model::{
    CrossEntropy, LanguageModel, MicroBatch, ModelConfig, ParameterVisitor, Precision, Role,
    TrainingMemory, map_parameters, visit_parameters,
};
use iiet_ode::{Layer, SolverConfig, VectorField};
use unit_embeddings::Enlarge;

const SEQ: usize = 24;

fn config(solver: serde_json::Value) -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        d_model: 32,
        n_layers: 2,
        seq_len: SEQ,
        initializer_range: 0.06,
        tie_embeddings: false,
        block: LlamaConfig {
            d_ff: 56,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        solver: serde_json::from_value::<SolverConfig>(solver).unwrap(),
        bos_token_id: None,
        eos_token_ids: vec![],
    }
}

fn model(solver: serde_json::Value) -> LanguageModel {
    let model = LanguageModel::init(&config(solver), 11, &Device::default()).unwrap();
    map_parameters(model, &mut Enlarge).train()
}

fn ids(batch: usize) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..(batch * SEQ) as i64)
        .map(|i| (i * i + 3 * i) % 61)
        .collect();
    let data = TensorData::new::<i64, _>(ids, [batch, SEQ]);
    Tensor::from_data(data, &Device::default().autodiff())
}

#[derive(Default)]
struct Sums(BTreeMap<String, Vec<f32>>);

struct Add<'a>(&'a mut Sums, Gradients);

impl ParameterVisitor for Add<'_> {
    fn visit<const D: usize>(&mut self, name: &str, _: Role, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = parameter.val().grad(&self.1) else {
            return;
        };
        let values = gradient.try_into_vec_as::<f32>().unwrap();
        let sum = self.0.0.entry(name.to_owned()).or_default();
        sum.resize(values.len(), 0.0);
        sum.iter_mut().zip(values).for_each(|(s, v)| *s += v);
    }
}

/// Loss and gradients, with all layers recorded or each computed again.
fn gradients(model: &LanguageModel, batch: usize, by_layers: bool) -> (f32, Sums) {
    let ids = ids(batch);
    let mut objective = CrossEntropy {
        targets: ids.clone().flip([1]),
        weights: Tensor::ones([batch, SEQ], &ids.device()),
    };
    let mut sums = Sums::default();
    let loss = match by_layers {
        true => model.objective_by_layers(ids, &mut objective, |gradients| {
            visit_parameters(model, &mut Add(&mut sums, gradients));
        }),
        false => {
            let loss = model.objective(ids, &mut objective);
            visit_parameters(model, &mut Add(&mut sums, loss.backward()));
            loss
        }
    };
    (loss.into_scalar::<f32>(), sums)
}

/// The largest difference of a parameter's gradients, relative to the largest of them.
fn distance(found: &Sums, expected: &Sums) -> f32 {
    assert!(found.0.keys().eq(expected.0.keys()));
    let of_one = |(a, b): (&Vec<f32>, &Vec<f32>)| {
        let largest = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f32::max) / largest
    };
    found
        .0
        .values()
        .zip(expected.0.values())
        .map(of_one)
        .fold(0.0, f32::max)
}

fn implicit_euler(iterations: usize, rest: serde_json::Value) -> LanguageModel {
    let mut solver = serde_json::json!({ "name": "implicit_euler", "iterations": iterations });
    solver
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    model(solver)
}

#[test]
fn the_gradient_at_the_fixed_point_is_that_of_the_converged_iteration() {
    let unrolled = implicit_euler(24, serde_json::json!({}));
    let (loss, expected) = gradients(&unrolled, 2, false);
    for (rest, tolerance) in [
        (serde_json::json!({ "gradient": "implicit" }), 1e-4),
        // Accelerated, both ways need fewer steps.
        (
            serde_json::json!({ "gradient": "implicit", "anderson": 3, "iterations": 10 }),
            1e-4,
        ),
    ] {
        let implicit = implicit_euler(24, rest.clone());
        for by_layers in [false, true] {
            let (found, of_fixed_point) = gradients(&implicit, 2, by_layers);
            assert!((found - loss).abs() < 1e-4 * loss, "{rest}: {found} {loss}");
            let apart = distance(&of_fixed_point, &expected);
            assert!(apart < tolerance, "{rest}, by layers {by_layers}: {apart}");
        }
    }
    // A step alone is an approximation: what is compared above is not small.
    let one_step = implicit_euler(24, serde_json::json!({ "backprop": 1 }));
    let apart = distance(&gradients(&one_step, 2, false).1, &expected);
    assert!((1e-3..0.9).contains(&apart), "{apart}");
    // The more steps, the nearer.
    let three = implicit_euler(24, serde_json::json!({ "backprop": 4 }));
    let nearer = distance(&gradients(&three, 2, false).1, &expected);
    assert!(nearer < 0.2 * apart, "{nearer} {apart}");
}

#[test]
fn truncated_gradients_are_those_of_constants_before() {
    // y_1 = y + F(c) with c the iterate before, as a constant.
    let model = implicit_euler(3, serde_json::json!({ "backprop": 1 }));
    let device = Device::default().autodiff();
    let y = Tensor::<3>::from_data(
        TensorData::new::<f32, _>(
            (0..96).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>(),
            [1, 3, 32],
        ),
        &device,
    )
    .require_grad();
    let block = &model.model.layers[0];
    let context = model.context(iiet_blocks::Tokens::Whole { seq: 3 }, &device);
    let mut terms = Vec::new();
    let run = |solver: &iiet_ode::AnySolver, y: Tensor<3>, terms: &mut Vec<Tensor<1>>| {
        let mut field = BlockField::new(block, &context, None, terms);
        iiet_ode::Solver::step(solver, &mut field, iiet_ode::Solver::start(solver, y), 1.0).y
    };
    let two = implicit_euler(2, serde_json::json!({}));
    let before = run(&two.model.solver, y.clone(), &mut terms).detach();
    let mut field = BlockField::new(block, &context, None, &mut terms);
    let expected = y.clone() + field.slope(before);
    let weight = Tensor::<3>::ones([1, 3, 32], &device).cumsum(2);
    let of = |value: Tensor<3>| {
        let gradients = (value * weight.clone()).sum().backward();
        let mut sums = Sums::default();
        let of_y = y
            .grad(&gradients)
            .unwrap()
            .try_into_vec_as::<f32>()
            .unwrap();
        visit_parameters(&model, &mut Add(&mut sums, gradients));
        (of_y, sums)
    };
    let (of_y, by_hand) = of(expected);
    let mut terms = Vec::new();
    let (found_y, found) = of(run(&model.model.solver, y.clone(), &mut terms));
    assert_eq!(found_y, of_y);
    assert_eq!(found.0, by_hand.0);
    assert!(!found.0.is_empty());
}

#[test]
fn layers_computed_again_give_truncated_gradients_too() {
    for (name, k) in [
        ("iterative_implicit_euler", 1),
        ("iterative_implicit_euler", 2),
        ("implicit_euler", 2),
    ] {
        let solver = serde_json::json!({ "name": name, "iterations": 3, "backprop": k });
        let model = model(solver);
        let (loss, whole) = gradients(&model, 2, false);
        let (again, parts) = gradients(&model, 2, true);
        assert!((loss - again).abs() < 1e-5 * loss);
        let apart = distance(&parts, &whole);
        assert!(apart < 1e-5, "{name} {k}: {apart}");
        // As many as there are is all.
        let all = serde_json::json!({ "name": name, "iterations": 3, "backprop": 3 });
        let [plain, all] = [serde_json::json!({ "name": name, "iterations": 3 }), all]
            .map(|solver| gradients(&self::model(solver), 2, false));
        assert_eq!(plain.0, all.0);
        assert!(plain.1.0 == all.1.0, "{name}");
        assert!(plain.0 == loss && plain.1.0 != whole.0);
    }
}

#[test]
fn the_estimate_of_memory_knows_what_is_recorded() {
    let activations = |rest: serde_json::Value| {
        let model = implicit_euler(16, rest);
        TrainingMemory::of(&model.valid(), &MicroBatch::of(4 * SEQ)).activations
    };
    let unrolled = activations(serde_json::json!({}));
    let implicit = activations(serde_json::json!({ "gradient": "implicit" }));
    let one_step = activations(serde_json::json!({ "backprop": 1 }));
    assert!(
        one_step < implicit && 6 * implicit < unrolled,
        "{one_step} {implicit} {unrolled}"
    );
}

#[test]
fn tokens_that_settle_decode_as_in_the_full_pass() {
    for name in ["implicit_euler", "iterative_implicit_euler"] {
        for (anderson, tolerance) in [(0, 0.02), (2, 0.02)] {
            let solver = serde_json::json!({
                "name": name, "iterations": 6, "tolerance": tolerance, "anderson": anderson,
            });
            let model = model(solver).valid();
            let text: Vec<u32> = (0..SEQ as u32).map(|i| (i * i + 5) % 61).collect();
            let ids = iiet_model::token_ids(&text, [1, SEQ], &Device::default());
            let mut pass = model.pass(&ids);
            let hidden = model.hidden_in(ids, &mut pass);
            let full = model.logits(hidden).try_into_vec_as::<f32>().unwrap();
            let (columns, layers) = (std::slice::from_ref(&(0..SEQ)), Layer::all(2).len());
            let whole = iiet_model::CorrectionCount::of(&pass.corrections, columns, layers);
            let mean = whole.mean().unwrap();
            assert!((1.0..6.0).contains(&mean), "{name}: {mean}");

            // A prompt of seven and then token by token.
            let mut cache = model.cache(1, Precision::F32);
            let device = Device::default();
            let mut found = vec![model.prefill(&[&text[..7]], &mut cache, &device)];
            for token in &text[7..] {
                found.push(model.decode(&[*token], &mut cache, &device));
            }
            for (t, logits) in (6..).zip(found) {
                let logits = logits.try_into_vec_as::<f32>().unwrap();
                for (a, b) in logits.iter().zip(&full[t * 61..]) {
                    assert!((a - b).abs() < 1e-4, "{name}, token {t}: {a}, not {b}");
                }
            }
            assert_eq!(cache.take_corrections(), whole, "{name}");
            assert_eq!(cache.take_corrections().mean(), None);
        }
    }
}
