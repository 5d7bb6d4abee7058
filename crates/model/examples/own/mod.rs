//! The steps that both examples share: training by gradient descent, saving, loading, cached
//! decoding.

use std::collections::HashMap;

use burn::module::{Module, Param};
use burn::tensor::{Device, Gradients, Int, Tensor};
use iiet_blocks::{Block, LlamaConfig, Precision};
use iiet_model::{
    LanguageModel, ModelConfig, ParameterMapper, ParameterVisitor, Role, SaveOptions,
    map_parameters, save, token_ids, visit_parameters,
};
use iiet_ode::NetworkSolver;

/// A text to memorise.
const TEXT: [u32; 24] = [
    7, 3, 9, 7, 3, 1, 7, 3, 9, 7, 3, 1, 7, 3, 9, 7, 3, 1, 7, 3, 9, 7, 3, 1,
];
const STEPS: usize = 40;
const LEARNING_RATE: f64 = 0.5;

/// Sizes of a LLaMA block that trains in a second.
#[allow(dead_code)]
pub fn llama() -> LlamaConfig {
    LlamaConfig {
        d_ff: 48,
        n_heads: 2,
        n_kv_heads: 1,
        ..LlamaConfig::default()
    }
}

/// Trains a model of three layers on one text, saves and loads it, and decodes with caches.
pub fn train_save_load_decode<B: Block, S: NetworkSolver>(
    block: B::Config,
    solver: S::Options,
) -> Result<(), Box<dyn std::error::Error>> {
    let sizes = ModelConfig {
        vocab_size: 16,
        d_model: 32,
        n_layers: 3,
        seq_len: 32,
        initializer_range: 0.1,
        ..ModelConfig::default()
    };
    let device = Device::default();
    let mut model = LanguageModel::<B, S>::init(&sizes.with(block, solver), 1, &device)?.train();

    let seq = TEXT.len() - 1;
    let on_text = device.clone().autodiff();
    let ids: Tensor<2, Int> = token_ids(&TEXT[..seq], [1, seq], &on_text);
    let targets = token_ids(&TEXT[1..], [1, seq], &on_text);
    let mut losses = Vec::new();
    for _ in 0..STEPS {
        let weights = Tensor::ones([1, seq], &on_text);
        let loss = model.loss(ids.clone(), targets.clone(), weights) / seq as f64;
        losses.push(loss.clone().inner().into_scalar::<f32>());
        let gradients = loss.backward();
        model = descend(model, gradients);
    }
    let (first, last) = (losses[0], losses[STEPS - 1]);
    println!("loss {first:.3} to {last:.3} nats per token in {STEPS} steps");
    assert!(last < first / 2.0, "the loss must halve");

    let model = model.valid();
    let folder = tempfile::tempdir()?;
    save(&model, folder.path(), &SaveOptions::default())?;
    println!(
        "{}",
        std::fs::read_to_string(folder.path().join("config.json"))?
    );
    let (model, config) = LanguageModel::<B, S>::load(folder.path(), &device)?;
    assert_eq!(model.config(), config);

    // Token by token with a cache for each evaluation, and all at once.
    let mut cache = model.cache(1, Precision::F32);
    let whole = model.forward(token_ids(&TEXT, [1, TEXT.len()], &device));
    for (i, id) in TEXT.iter().enumerate() {
        let one = model.decode(&[*id], &mut cache, &device);
        let same = whole
            .clone()
            .narrow(1, i, 1)
            .reshape([1, config.vocab_size]);
        let apart = (one - same).abs().max().into_scalar::<f32>();
        assert!(apart < 1e-4, "position {i} differs by {apart}");
    }
    println!("decoding with caches gives the same logits as the full pass");
    Ok(())
}

/// One step of plain gradient descent.
fn descend<B: Block, S: NetworkSolver>(
    model: LanguageModel<B, S>,
    mut gradients: Gradients,
) -> LanguageModel<B, S> {
    let mut collect = Collect {
        gradients: &mut gradients,
        by_name: HashMap::new(),
    };
    visit_parameters(&model, &mut collect);
    let by_name = collect.by_name;
    map_parameters(model, &mut Descend { by_name })
}

struct Collect<'a> {
    gradients: &'a mut Gradients,
    by_name: HashMap<String, Tensor<1>>,
}

impl ParameterVisitor for Collect<'_> {
    fn visit<const D: usize>(&mut self, name: &str, _: Role, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = parameter.val().grad_remove(self.gradients) {
            self.by_name
                .insert(name.to_owned(), gradient.flatten(0, D - 1));
        }
    }
}

struct Descend {
    by_name: HashMap<String, Tensor<1>>,
}

impl ParameterMapper for Descend {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        _: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let Some(gradient) = self.by_name.remove(name) else {
            return parameter;
        };
        parameter.map(|value| {
            let value = value.inner();
            let gradient = gradient.reshape(value.dims());
            (value - gradient * LEARNING_RATE).autodiff().require_grad()
        })
    }
}
