//! Computing layers again keeps the activations of one layer at a time, on both sides of an encoder-decoder.

mod counting;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use iiet_model::{
    CrossEntropy, Dropout, DropoutRates, EncoderDecoder, EncoderDecoderConfig, LlamaConfig, Source,
    StackConfig, token_ids,
};
use iiet_ode::{Options, SolverConfig};

use counting::most_taken;

const BATCH: usize = 8;
const SEQ: usize = 64;

/// The most bytes that gradients took, with dropout, where each side has so many layers.
fn peak(n_layers: usize, by_layers: bool) -> isize {
    let stack = || StackConfig {
        n_layers,
        solver: SolverConfig::named("iterative_implicit_euler").unwrap(),
    };
    let config = EncoderDecoderConfig {
        vocab_size: 61,
        d_model: 64,
        seq_len: SEQ,
        block: LlamaConfig {
            d_ff: 128,
            ..LlamaConfig::default()
        },
        encoder: stack(),
        decoder: stack(),
        ..EncoderDecoderConfig::default()
    };
    let model = EncoderDecoder::init(&config, 11, &Device::default()).unwrap();
    let model = model.train();
    let device = Device::default().autodiff();
    let ids: Vec<u32> = (0..(BATCH * SEQ) as u32).map(|i| i % 61).collect();
    let ids = token_ids(&ids, [BATCH, SEQ], &device);
    let source = Source::new(ids.clone(), vec![SEQ; BATCH]);
    let rates = DropoutRates {
        residual: 0.1,
        attention: 0.1,
        activation: 0.1,
    };
    let dropout = Dropout::new(rates, 1, 2, 3).unwrap();
    most_taken(|| {
        let mut objective = CrossEntropy {
            targets: ids.clone(),
            weights: Tensor::ones([BATCH, SEQ], &device),
        };
        let (ids, dropout) = (ids.clone(), Some(&dropout));
        match by_layers {
            true => {
                let objective = &mut objective;
                model.objective_by_layers_with(&source, ids, objective, dropout, drop)
            }
            false => {
                let loss = model.objective_with(&source, ids, &mut objective, dropout);
                loss.inspect(|loss| drop(loss.backward()))
            }
        }
        .unwrap();
    })
}

#[test]
fn memory_hardly_grows_with_the_layers_where_they_are_computed_again() {
    let whole = peak(6, false) as f64 / peak(2, false) as f64;
    assert!(whole > 2.0, "{whole}");
    let by_layers = peak(6, true) as f64 / peak(2, true) as f64;
    assert!(by_layers < 1.5, "{by_layers}");
    let share = peak(6, true) as f64 / peak(6, false) as f64;
    assert!(share < 0.25, "{share}");
}
