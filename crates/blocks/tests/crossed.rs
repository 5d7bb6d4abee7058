//! Properties of attention to a source, padded and crossed, that hold for all weights.

use burn::tensor::{Device, Distribution, Tensor, Tolerance};
use iiet_blocks::{
    Block, BlockConfig, BlockField, CrossedBlock, CrossedConfig, CrossedContext, Evaluation,
    LlamaBlock, LlamaConfig, Memory, Tokens, Visibility, normalise,
};
use iiet_ode::{Layer, Parameters, VectorField};

const D_MODEL: usize = 16;

fn config() -> LlamaConfig {
    LlamaConfig {
        d_ff: 24,
        n_heads: 4,
        n_kv_heads: 2,
        ..LlamaConfig::default()
    }
}

fn random(batch: usize, seq: usize, seed: u64) -> Tensor<3> {
    let device = Device::default();
    device.seed(seed);
    Tensor::random(
        [batch, seq, D_MODEL],
        Distribution::Normal(0.0, 1.0),
        &device,
    )
}

fn map<B: Block>(block: &B, context: &B::Context, y: Tensor<3>) -> Tensor<3> {
    let (cache, terms) = (None, &mut Vec::new());
    let at = Evaluation {
        context,
        cache,
        terms,
    };
    block.forward(y, at)
}

fn assert_close(a: Tensor<3>, b: Tensor<3>) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(1e-5));
}

/// Two targets of four tokens, and sources of five and of three.
fn crossed() -> (CrossedBlock, CrossedContext, Tensor<3>) {
    let device = Device::default();
    let config = CrossedConfig(config());
    device.seed(3);
    let block = CrossedBlock::init(&config, D_MODEL, &device);
    let own = CrossedBlock::context(&config, D_MODEL, Tokens::Whole { seq: 4 }, &device);
    let context = CrossedContext {
        memory: Some(Memory::States {
            states: random(2, 5, 8),
            visible: Visibility::keys([5, 3]),
        }),
        ..own
    };
    (block, context, random(2, 4, 9))
}

#[test]
fn tokens_of_a_source_see_each_other_and_no_padding() {
    let device = Device::default();
    device.seed(3);
    let block = LlamaBlock::init(&config(), D_MODEL, &device);
    let context = |lengths: &[usize], seq| {
        let lengths = lengths.to_vec();
        LlamaBlock::context(&config(), D_MODEL, Tokens::Source { lengths, seq }, &device)
    };
    let y = random(2, 6, 7);
    let both = map(&block, &context(&[6, 4], 6), y.clone());
    // A row by itself, without its padding.
    for (row, length) in [(0, 6), (1, 4)] {
        let text = y.clone().narrow(0, row, 1).narrow(1, 0, length);
        let alone = map(&block, &context(&[length], length), text);
        assert_close(both.clone().narrow(0, row, 1).narrow(1, 0, length), alone);
    }
    // The last token of the longer text is seen by its first.
    let changed = y.clone().slice_assign([0..1, 5..6], random(1, 1, 11));
    let after = map(&block, &context(&[6, 4], 6), changed);
    let first = |x: Tensor<3>| x.narrow(0, 0, 1).narrow(1, 0, 1);
    let difference = (first(both) - first(after)).abs().max();
    assert!(difference.into_scalar::<f32>() > 0.01);
}

#[test]
fn cross_attention_is_between_the_two_branches() {
    let (block, context, y) = crossed();
    let Some(Memory::States { states, visible }) = context.memory.clone() else {
        panic!("the states");
    };
    let layer = &block.layer;
    let x = normalise(&layer.input_layernorm, y.clone());
    let u = y.clone() + layer.self_attn.forward(x, &context.own, None);
    let keys_and_values = block.encoder_attn.of_memory(states);
    let x = normalise(&block.encoder_attn_layer_norm, u.clone());
    let v = u + block
        .encoder_attn
        .crossed(x, keys_and_values, &visible, None);
    let x = normalise(&layer.post_attention_layernorm, v.clone());
    let expected = v + layer.mlp.forward(x);
    assert_close(map(&block, &context, y.clone()), expected.clone());
    let mut terms = Vec::new();
    let mut field = BlockField::new(&block, &context, None, &mut terms);
    assert_close(field.slope(y.clone()), expected - y);
}

#[test]
fn keys_and_values_of_a_layer_are_the_same_computed_once() {
    let (block, context, y) = crossed();
    let layer = Layer::all(1).next().expect("a layer");
    let of_layer = block.at_layer(&context, layer).expect("a memory");
    let expected = map(&block, &context, y.clone());
    assert_close(map(&block, &of_layer, y), expected);
    assert!(block.at_layer(&of_layer, layer).is_none());
}

#[test]
fn the_order_of_a_source_is_in_its_states_alone() {
    // Cross-attention has no positions: another order of the memory's tokens gives the same.
    let (block, context, y) = crossed();
    let Some(Memory::States { states, visible }) = context.memory.clone() else {
        panic!("the states");
    };
    let token = |t: usize| states.clone().narrow(1, t, 1);
    let turned = CrossedContext {
        memory: Some(Memory::States {
            states: Tensor::cat([2, 0, 1, 3, 4].map(token).to_vec(), 1),
            visible,
        }),
        ..context.clone()
    };
    let expected = map(&block, &context, y.clone());
    assert_close(map(&block, &turned, y), expected);
}

#[test]
fn without_a_memory_it_is_the_causal_layer() {
    let (block, context, y) = crossed();
    let alone = CrossedContext {
        memory: None,
        ..context
    };
    let expected = map(&block.layer, &alone.own, y.clone());
    assert_close(map(&block, &alone, y), expected);
}

#[test]
fn parameters_have_the_names_of_both_attentions() {
    let name = |path: &[&str]| CrossedBlock::parameter(path).map(|parameter| parameter.name);
    for (path, expected) in [
        (
            &["layer", "self_attn", "q_proj", "Dense", "weight"][..],
            "self_attn.q_proj.weight",
        ),
        (
            &["encoder_attn", "o_proj", "Dense", "weight"],
            "encoder_attn.o_proj.weight",
        ),
        (
            &["encoder_attn_layer_norm", "gamma"],
            "encoder_attn_layer_norm.weight",
        ),
    ] {
        assert_eq!(name(path).as_deref(), Some(expected));
    }
    assert_eq!(name(&["encoder_attn", "gamma"]), None);
    assert_eq!(name(&["self_attn", "q_proj", "Dense", "weight"]), None);
}

#[test]
fn costs_equal_products_counted_by_hand() {
    // Beside the causal layer, q and o: 2 x 16 x 16; scores and mixing of 9 tokens: 2 x 16 x 9.
    let (config, own) = (CrossedConfig(config()), config().cost(D_MODEL, 9));
    let cost = config.cost(D_MODEL, 9);
    let crossed = 2 * (2 * 16 * 16 + 2 * 16 * 9);
    assert_eq!(cost.flops_per_token, own.flops_per_token + crossed as f64);
    // k and v, of 2 heads of width 4.
    let memory = config.memory_cost(D_MODEL);
    assert_eq!(memory.flops_per_token, (2 * 2 * 16 * 8) as f64);
    assert_eq!(memory.cache_bytes_per_token, 2 * 8 * 4);
}
