//! Gradients with recomputed layers equal those of one backward pass.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor};
use iiet_model::{
    CrossEntropy, Dropout, DropoutRates, EncoderDecoder, EncoderDecoderConfig, LanguageModel,
    LlamaConfig, ModelConfig, Objective, ParameterVisitor, Role, Source, StackConfig, load,
    token_ids, visit_parameters,
};
use iiet_ode::{Layer, Options, SolverConfig};

/// Sums of gradients by name.
#[derive(Default)]
struct Sums(BTreeMap<String, Vec<f32>>);

struct Add<'a>(&'a mut Sums, Gradients);

impl ParameterVisitor for Add<'_> {
    fn visit<const D: usize>(&mut self, name: &str, _: Role, parameter: &Param<Tensor<D>>) {
        let Some(gradient) = parameter.val().grad(&self.1) else {
            return;
        };
        let values = gradient.try_into_vec_as::<f32>().unwrap();
        match self.0.0.get_mut(name) {
            Some(sum) => sum.iter_mut().zip(values).for_each(|(s, v)| *s += v),
            None => {
                self.0.0.insert(name.to_owned(), values);
            }
        }
    }
}

/// Cross-entropy, plus the sum of squares of every other layer's output.
struct WithLayers(CrossEntropy);

impl Objective for WithLayers {
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1> {
        self.0.of_hidden(hidden, projection)
    }

    fn of_layer(&mut self, layer: Layer, y: &Tensor<3>) -> Option<Tensor<1>> {
        layer
            .index()
            .is_multiple_of(2)
            .then(|| y.clone().square().sum())
    }
}

fn both(
    model: &LanguageModel,
    ids: &Tensor<2, Int>,
    objective: &mut dyn Objective,
    dropout: Option<&Dropout>,
) -> [(f32, Sums); 2] {
    let (mut whole, mut parts) = (Sums::default(), Sums::default());
    let sum = model.objective_with(ids.clone(), objective, dropout);
    let sum = sum.unwrap();
    visit_parameters(model, &mut Add(&mut whole, sum.backward()));
    let add = |gradients| visit_parameters(model, &mut Add(&mut parts, gradients));
    let by_layers = model.objective_by_layers_with(ids.clone(), objective, dropout, add);
    let by_layers = by_layers.unwrap();
    [
        (sum.into_scalar::<f32>(), whole),
        (by_layers.into_scalar::<f32>(), parts),
    ]
}

#[test]
fn gradients_equal_those_of_one_backward_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/golden/models");
    let device = Device::default();
    let mut cases = 0;
    for case in std::fs::read_dir(&folder).unwrap() {
        let path = case.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let (model, config) = load(&path, &device).unwrap();
        check(&path, model.train(), &config);
        cases += 1;
    }
    assert!(cases >= 6, "{cases}");
    // A memory that is replaced instead of extended; there is no PyTorch case for it.
    let path = folder.join("iiet-r3-gqa-untied");
    let (_, config) = load(&path, &device).unwrap();
    let config = ModelConfig {
        solver: SolverConfig::named("adams_bashforth").unwrap(),
        ..config
    };
    let model = LanguageModel::init(&config, 3, &device).unwrap();
    check(Path::new("adams_bashforth"), model.train(), &config);
    // What a published IIET does not have.
    let levers = serde_json::json!({
        "name": "iterative_implicit_euler",
        "iterations": 2,
        "history": "textbook",
        "normalise_first": true,
        "gate": 0.4,
    });
    let mut config = ModelConfig {
        solver: serde_json::from_value(levers).unwrap(),
        ..config
    };
    config.block.residual_multiplier = 0.5;
    config.initializer_range = 0.08;
    let model = LanguageModel::init(&config, 3, &device).unwrap();
    check(Path::new("levers"), model.train(), &config);
}

fn check(path: &Path, model: LanguageModel, config: &ModelConfig) {
    let ids: Vec<i64> = (0..2 * 9)
        .map(|i| i * i % config.vocab_size as i64)
        .collect();
    let ids = burn::tensor::TensorData::new::<i64, _>(ids, [2, 9]);
    let ids = Tensor::from_data(ids, &Device::default().autodiff());
    let cross_entropy = CrossEntropy {
        targets: ids.clone().flip([1]),
        weights: Tensor::ones([2, 9], &ids.device()),
    };
    let exact = matches!(
        config.solver.name(),
        "explicit_euler" | "runge_kutta" | "implicit_euler"
    );
    let rates = DropoutRates {
        residual: 0.1,
        attention: 0.2,
        activation: 0.3,
    };
    let dropout = Dropout::new(rates, 1, 0, 0).unwrap();
    let mut losses = Vec::new();
    for dropout in [None, Some(&dropout)] {
        let of_hidden = &mut cross_entropy.clone();
        let results = both(&model, &ids, of_hidden, dropout);
        losses.push(results[0].0);
        compare(path, results, exact);
        let with_layers = &mut WithLayers(cross_entropy.clone());
        compare(path, both(&model, &ids, with_layers, dropout), false);
    }
    assert_ne!(losses[0], losses[1], "{path:?}");
}

/// Gradients to shared states and alpha are summed in another order, so they are not bitwise identical.
fn compare(path: &Path, [(sum, whole), (again, parts)]: [(f32, Sums); 2], exact: bool) {
    assert!(
        (sum - again).abs() <= 1e-6 * sum.abs(),
        "{path:?} {sum} {again}"
    );
    assert!(!exact || sum == again, "{path:?} {sum} {again}");
    assert!(parts.0.keys().eq(whole.0.keys()));
    let largest = |values: &[f32]| values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    // What is left of large terms that cancel, as in the gradient to a gate, has their rounding error.
    let of_all = whole.0.values().map(|values| largest(values));
    let rounding = 1e-6 * of_all.fold(0.0, f32::max);
    for (name, expected) in &whole.0 {
        let found = &parts.0[name];
        if exact {
            assert!(found == expected, "{path:?} {name}");
            continue;
        }
        let bound = 1e-5 * largest(expected) + rounding;
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= bound, "{path:?} {name}: {a} {b}");
        }
    }
}

/// Parameters' gradients of an encoder-decoder, in one backward pass and by layers.
fn both_of_sequences(
    model: &EncoderDecoder,
    objective: &mut dyn Objective,
    dropout: Option<&Dropout>,
) -> [(f32, Sums); 2] {
    let device = Device::default().autodiff();
    let texts: [&[u32]; 2] = [&[3, 17, 4, 28, 9, 1], &[5, 8, 8]];
    let source = Source::of(&texts, &device);
    let ids = token_ids(&[1, 6, 20, 7, 1, 11, 19, 3], [2, 4], &device);
    let (mut whole, mut parts) = (Sums::default(), Sums::default());
    let sum = model.objective_with(&source, ids.clone(), objective, dropout);
    let sum = sum.unwrap();
    visit_parameters(model, &mut Add(&mut whole, sum.backward()));
    let add = |gradients| visit_parameters(model, &mut Add(&mut parts, gradients));
    let by_layers = model.objective_by_layers_with(&source, ids, objective, dropout, add);
    [
        (sum.into_scalar::<f32>(), whole),
        (by_layers.unwrap().into_scalar::<f32>(), parts),
    ]
}

#[test]
fn gradients_of_every_pair_of_solvers_equal_those_of_one_backward_pass() {
    let device = Device::default();
    let mut solvers: Vec<SolverConfig> = SolverConfig::NAMES
        .iter()
        .map(|name| SolverConfig::named(name).unwrap())
        .collect();
    let implicit = serde_json::json!({
        "name": "implicit_euler", "iterations": 6, "gradient": "implicit",
    });
    solvers.push(serde_json::from_value(implicit).unwrap());
    let stack = |solver: &SolverConfig| StackConfig {
        n_layers: 3,
        solver: solver.clone(),
    };
    let rates = DropoutRates {
        residual: 0.1,
        attention: 0.2,
        activation: 0.1,
    };
    let dropout = Dropout::new(rates, 1, 0, 0).unwrap();
    let on = device.clone().autodiff();
    let cross_entropy = CrossEntropy {
        targets: token_ids(&[6, 20, 7, 2, 11, 19, 3, 2], [2, 4], &on),
        weights: Tensor::ones([2, 4], &on),
    };
    for encoder in &solvers {
        for decoder in &solvers {
            let config = EncoderDecoderConfig {
                vocab_size: 29,
                d_model: 16,
                seq_len: 12,
                initializer_range: 0.2,
                label_smoothing: 0.0,
                decoder_start_token_id: Some(1),
                eos_token_ids: vec![2],
                block: LlamaConfig {
                    d_ff: 24,
                    n_heads: 4,
                    n_kv_heads: 2,
                    ..LlamaConfig::default()
                },
                encoder: stack(encoder),
                decoder: stack(decoder),
            };
            let model = EncoderDecoder::init(&config, 5, &device).unwrap().train();
            let name = format!("{} and {}", encoder.name(), decoder.name());
            let mut losses = Vec::new();
            for dropout in [None, Some(&dropout)] {
                let objective = &mut WithLayers(cross_entropy.clone());
                let results = both_of_sequences(&model, objective, dropout);
                losses.push(results[0].0);
                compare(Path::new(&name), results, false);
            }
            assert_ne!(losses[0], losses[1], "{name}");
        }
    }
}
