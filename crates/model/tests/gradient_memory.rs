//! Gradients of fixed points take memory that does not grow with the iteration.

mod counting;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_model::{CrossEntropy, LanguageModel, LlamaConfig, ModelConfig};

use counting::most_taken;

/// The most bytes that a loss and its gradients took.
fn peak(rest: &str, iterations: usize) -> isize {
    let solver = format!(r#"{{"name": "implicit_euler", "iterations": {iterations}{rest}}}"#);
    let config = ModelConfig {
        vocab_size: 61,
        d_model: 64,
        n_layers: 2,
        seq_len: 64,
        block: LlamaConfig {
            d_ff: 128,
            ..LlamaConfig::default()
        },
        solver: serde_json::from_str(&solver).unwrap(),
        ..ModelConfig::default()
    };
    let model = LanguageModel::init(&config, 11, &Device::default()).unwrap();
    let model: LanguageModel = model.train();
    let data = TensorData::new::<i64, _>((0..512).map(|i| i % 61).collect::<Vec<_>>(), [8, 64]);
    let ids = Tensor::<2, Int>::from_data(data, &Device::default().autodiff());
    most_taken(|| {
        let mut objective = CrossEntropy {
            targets: ids.clone(),
            weights: Tensor::ones([8, 64], &ids.device()),
        };
        drop(model.objective(ids.clone(), &mut objective).backward());
    })
}

#[test]
fn memory_does_not_grow_with_the_corrections() {
    let growth = |rest: &str| peak(rest, 16) as f64 / peak(rest, 2) as f64;
    let unrolled = growth("");
    assert!(unrolled > 3.0, "{unrolled}");
    for rest in [r#", "gradient": "implicit""#, r#", "backprop": 1"#] {
        let constant = growth(rest);
        assert!(constant < 1.1, "{rest}: {constant}");
    }
}
