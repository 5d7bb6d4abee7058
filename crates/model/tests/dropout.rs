//! Dropout in training: masks that depend on the step and not on how it is computed.

mod unit_embeddings;

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor};
use iiet_blocks::{
    Block, BlockConfig, BlockCost, BlockError, Evaluation, KeyValueCache, LlamaBlock, LlamaContext,
    Tokens,
};
use iiet_model::{
    CrossEntropy, Dropout, DropoutRates, EncoderDecoder, EncoderDecoderConfig, LanguageModel,
    LlamaConfig, ModelConfig, ParameterVisitor, Precision, Role, Source, StackConfig,
    map_parameters, token_ids, visit_parameters,
};
use iiet_ode::{AnySolver, Options, Parameter, Parameters, SolverConfig};
use serde::{Deserialize, Serialize};
use serde_json::json;
use unit_embeddings::Enlarge;

const VOCAB: usize = 31;
const SEQ: usize = 20;
const RATES: DropoutRates = DropoutRates {
    residual: 0.1,
    attention: 0.2,
    activation: 0.1,
};

fn llama() -> LlamaConfig {
    LlamaConfig {
        d_ff: 40,
        n_heads: 4,
        n_kv_heads: 2,
        ..LlamaConfig::default()
    }
}

fn config<B>(block: B, solver: serde_json::Value) -> ModelConfig<B> {
    let sizes = ModelConfig {
        vocab_size: VOCAB,
        d_model: 32,
        n_layers: 2,
        seq_len: SEQ,
        initializer_range: 0.06,
        ..ModelConfig::default()
    };
    sizes.with(block, serde_json::from_value(solver).unwrap())
}

fn model(solver: serde_json::Value) -> LanguageModel {
    let model = LanguageModel::init(&config(llama(), solver), 11, &Device::default()).unwrap();
    map_parameters(model, &mut Enlarge).train()
}

fn euler() -> serde_json::Value {
    json!({ "name": "explicit_euler" })
}

fn ids(device: &Device) -> Tensor<2, Int> {
    let ids: Vec<u32> = (0..2 * SEQ as u32).map(|i| (i * i + 3 * i) % 31).collect();
    token_ids(&ids, [2, SEQ], device)
}

fn dropout(rates: DropoutRates, step: u64, micro_batch: u64) -> Dropout {
    Dropout::new(rates, 5, step, micro_batch).unwrap()
}

#[derive(Default, PartialEq)]
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

fn cross_entropy(ids: &Tensor<2, Int>) -> CrossEntropy {
    CrossEntropy {
        targets: ids.clone().flip([1]),
        weights: Tensor::ones(ids.dims(), &ids.device()),
    }
}

/// Loss and gradients in one backward pass.
fn whole(model: &LanguageModel, dropout: Option<&Dropout>) -> (f32, Sums) {
    let ids = ids(&Device::default().autodiff());
    let mut sums = Sums::default();
    let loss = model.objective_with(ids.clone(), &mut cross_entropy(&ids), dropout);
    let loss = loss.unwrap();
    visit_parameters(model, &mut Add(&mut sums, loss.backward()));
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
    let pairs = found.0.values().zip(expected.0.values());
    pairs.map(of_one).fold(0.0, f32::max)
}

#[test]
fn a_step_repeats_its_masks_and_other_steps_and_micro_batches_have_others() {
    let model = model(json!({ "name": "iterative_implicit_euler", "iterations": 3 }));
    let first = whole(&model, Some(&dropout(RATES, 3, 1)));
    assert!(first == whole(&model, Some(&dropout(RATES, 3, 1))));
    assert!(first != whole(&model, None));
    for (step, micro_batch) in [(4, 1), (3, 0)] {
        assert!(first != whole(&model, Some(&dropout(RATES, step, micro_batch))));
    }
}

#[test]
fn rates_of_zero_are_bitwise_the_objective_without_dropout() {
    let model = model(json!({ "name": "iterative_implicit_euler", "iterations": 2 }));
    let ids = ids(&Device::default().autodiff());
    let mut sums = Sums::default();
    let loss = model.objective(ids.clone(), &mut cross_entropy(&ids));
    visit_parameters(&model, &mut Add(&mut sums, loss.backward()));
    let expected = (loss.into_scalar::<f32>(), sums);
    assert!(expected == whole(&model, None));
    let zero = dropout(DropoutRates::default(), 3, 1);
    assert!(expected == whole(&model, Some(&zero)));
}

#[test]
fn each_rate_changes_the_loss() {
    let (model, zero) = (model(euler()), DropoutRates::default());
    let (expected, _) = whole(&model, None);
    for rates in [
        DropoutRates {
            residual: 0.2,
            ..zero
        },
        DropoutRates {
            attention: 0.2,
            ..zero
        },
        DropoutRates {
            activation: 0.2,
            ..zero
        },
    ] {
        let (loss, _) = whole(&model, Some(&dropout(rates, 1, 0)));
        assert_ne!(loss, expected, "{rates}");
    }
}

#[test]
fn gradients_do_not_depend_on_the_number_of_threads() {
    let model = model(json!({ "name": "runge_kutta", "predictor_order": 4 }));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| whole(&model, Some(&dropout(RATES, 3, 1))))
    };
    assert!(run(1) == run(3));
}

/// The adjoint's evaluations see the masks of the forward iteration, or its gradient would be that of
/// another equation.
#[test]
fn the_implicit_gradient_is_that_of_the_converged_iteration() {
    let solver =
        |gradient| json!({ "name": "implicit_euler", "iterations": 24, "gradient": gradient });
    let dropout = dropout(RATES, 3, 1);
    let unrolled = json!({ "name": "implicit_euler", "iterations": 24 });
    let (loss, expected) = whole(&model(unrolled), Some(&dropout));
    let implicit = model(solver("implicit"));
    let (found, gradients) = whole(&implicit, Some(&dropout));
    assert!((found - loss).abs() < 1e-4 * loss, "{found} {loss}");
    let apart = distance(&gradients, &expected);
    assert!(apart < 1e-4, "{apart}");
    // Without dropout it is another gradient: what is compared above is not small.
    let (_, plain) = whole(&implicit, None);
    assert!(distance(&plain, &expected) > 1e-2);
}

#[test]
fn half_precision_is_f32_up_to_rounding() {
    let model = model(json!({ "name": "iterative_implicit_euler", "iterations": 1 }));
    let dropout = dropout(RATES, 3, 1);
    let (loss, expected) = whole(&model, Some(&dropout));
    let half = model.clone().in_precision(Precision::Bf16);
    let (found, gradients) = whole(&half, Some(&dropout));
    assert!((found - loss).abs() < 1e-2 * loss, "{found} {loss}");
    let apart = distance(&gradients, &expected);
    assert!(apart < 0.15, "{apart}");
    let (_, plain) = whole(&model, None);
    assert!(distance(&plain, &expected) > 0.3);
}

/// A block that was written without a thought of dropout.
#[derive(Module, Debug)]
struct Plain {
    layer: LlamaBlock,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct PlainConfig(LlamaConfig);

impl BlockConfig for PlainConfig {
    const NAME: &'static str = "plain";

    fn validate(&self, d_model: usize) -> Result<(), BlockError> {
        self.0.validate(d_model)
    }

    fn norm_eps(&self) -> f64 {
        self.0.norm_eps()
    }

    fn cost(&self, d_model: usize, seq: usize) -> BlockCost {
        self.0.cost(d_model, seq)
    }
}

impl Block for Plain {
    type Config = PlainConfig;
    type Context = LlamaContext;
    type Cache = KeyValueCache;

    fn init(config: &PlainConfig, d_model: usize, device: &Device) -> Self {
        Self {
            layer: LlamaBlock::init(&config.0, d_model, device),
        }
    }

    fn context(
        config: &PlainConfig,
        d_model: usize,
        tokens: Tokens,
        device: &Device,
    ) -> LlamaContext {
        LlamaBlock::context(&config.0, d_model, tokens, device)
    }

    fn forward(&self, y: Tensor<3>, at: Evaluation<'_, Self>) -> Tensor<3> {
        let Evaluation {
            context,
            cache,
            terms,
        } = at;
        self.layer.forward(
            y,
            Evaluation {
                context,
                cache,
                terms,
            },
        )
    }
}

impl Parameters for Plain {
    fn parameter(path: &[&str]) -> Option<Parameter> {
        LlamaBlock::parameter(path.strip_prefix(&["layer"])?)
    }
}

#[test]
fn a_block_without_dropout_refuses_it() {
    let config = config(PlainConfig(llama()), euler());
    let model = LanguageModel::<Plain, AnySolver>::init(&config, 11, &Device::default()).unwrap();
    let model = model.train();
    let ids = ids(&Device::default().autodiff());
    let run = |rates| {
        let dropout = dropout(rates, 3, 1);
        let objective = &mut cross_entropy(&ids);
        let whole = model.objective_with(ids.clone(), objective, Some(&dropout));
        let by_layers =
            model.objective_by_layers_with(ids.clone(), objective, Some(&dropout), |_| ());
        [whole, by_layers].map(|result| result.map_err(|error| error.to_string()))
    };
    for result in run(RATES) {
        assert_eq!(
            result.unwrap_err(),
            "dropout is residual 0.1, attention 0.2, activation 0.1; the block \"plain\" has no dropout"
        );
    }
    for result in run(DropoutRates::default()) {
        result.unwrap();
    }
}

#[test]
fn an_encoder_decoder_drops_on_both_sides() {
    let device = Device::default();
    let stack = |name| StackConfig {
        n_layers: 2,
        solver: SolverConfig::named(name).unwrap(),
    };
    let config = EncoderDecoderConfig {
        vocab_size: VOCAB,
        d_model: 32,
        seq_len: SEQ,
        initializer_range: 0.2,
        label_smoothing: 0.0,
        decoder_start_token_id: Some(1),
        eos_token_ids: vec![2],
        block: llama(),
        encoder: stack("iterative_implicit_euler"),
        decoder: stack("runge_kutta"),
    };
    let model = EncoderDecoder::init(&config, 5, &device).unwrap();
    let source = Source::of(&[&[3, 17, 4, 28, 9, 1], &[5, 8, 8]], &device);
    let run = |dropout: Option<&Dropout>| {
        let hidden = model.hidden_with(&source, ids(&device), dropout).unwrap();
        hidden.try_into_vec_as::<f32>().unwrap()
    };
    let plain = model.hidden(&source, ids(&device));
    let plain = plain.try_into_vec_as::<f32>().unwrap();
    assert_eq!(plain, run(None));
    assert_eq!(plain, run(Some(&dropout(DropoutRates::default(), 3, 1))));
    let of_step = run(Some(&dropout(RATES, 3, 1)));
    assert_ne!(plain, of_step);
    assert_eq!(of_step, run(Some(&dropout(RATES, 3, 1))));
    assert_ne!(of_step, run(Some(&dropout(RATES, 4, 1))));
}
