//! Dropout in the blocks of this crate: its places, and one vector field in all evaluations of a layer.

use burn::tensor::{DType, Device, Distribution, Tensor, Tolerance};
use iiet_blocks::{
    Block, BlockField, CacheRow, CrossedBlock, CrossedConfig, CrossedContext, Dropout,
    DropoutRates, Evaluation, LlamaBlock, LlamaConfig, LlamaContext, Memory, Place, Tokens,
    Visibility, normalise,
};
use iiet_kernels::dropped_attention;
use iiet_ode::{Layer, VectorField};

const D_MODEL: usize = 16;
const LAYER: Layer = Layer::at(3);
const RATES: DropoutRates = DropoutRates {
    residual: 0.3,
    attention: 0.4,
    activation: 0.2,
};

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
    let normal = Distribution::Normal(0.0, 1.0);
    Tensor::random([batch, seq, D_MODEL], normal, &device)
}

fn dropout(rates: DropoutRates, step: u64) -> Dropout {
    Dropout::new(rates, 11, step, 0).unwrap()
}

fn setup() -> (LlamaBlock, LlamaContext, Tensor<3>) {
    let device = Device::default();
    device.seed(7);
    let block = LlamaBlock::init(&config(), D_MODEL, &device);
    let context = LlamaBlock::context(&config(), D_MODEL, Tokens::Whole { seq: 9 }, &device);
    (block, context, random(2, 9, 5))
}

/// The context of a layer in a pass of a step.
fn dropped<B: Block>(block: &B, context: &B::Context, step: u64, layer: Layer) -> B::Context {
    let context = B::with_dropout(context.clone(), &dropout(RATES, step)).unwrap();
    block.at_layer(&context, layer).unwrap()
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

fn slope<B: Block>(block: &B, context: &B::Context, y: Tensor<3>) -> Tensor<3> {
    let mut terms = Vec::new();
    BlockField::new(block, context, None, &mut terms).slope(y)
}

fn assert_close(a: Tensor<3>, b: Tensor<3>) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(1e-5));
}

fn bits(x: Tensor<3>) -> Vec<u32> {
    let values = x.try_into_vec_as::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// `x` times the mask of a place, from its definition.
fn masked(place: Place, x: Tensor<3>) -> Tensor<3> {
    let mask = dropout(RATES, 1).mask(LAYER, place).unwrap();
    x.clone() * mask.tensor(x.dims(), &x.device())
}

/// `m_3 W_down (m_4 hidden)`
fn fed(block: &LlamaBlock, u: Tensor<3>) -> Tensor<3> {
    let hidden = block
        .mlp
        .hidden(normalise(&block.post_attention_layernorm, u));
    let hidden = masked(Place::Activation, hidden);
    masked(Place::FeedForward, block.mlp.down(hidden))
}

#[test]
fn each_place_of_a_layer_is_dropped_by_its_mask() {
    let (block, context, y) = setup();
    let of_layer = dropped(&block, &context, 1, LAYER);
    // Without positions, which would need the block's private rotation: one token is at position 0.
    let one = y.clone().narrow(1, 0, 1);
    let attention = &block.self_attn;
    let heads = |x: Tensor<3>, n: usize| x.reshape([2, 1, n, 4]).swap_dims(1, 2);
    let x = normalise(&block.input_layernorm, one.clone());
    let q = heads(attention.q_proj.forward(x.clone()), 4);
    let k = heads(attention.k_proj.forward(x.clone()), 2);
    let v = heads(attention.v_proj.forward(x), 2);
    let mask = dropout(RATES, 1).mask(LAYER, Place::AttentionWeights);
    let mixed = dropped_attention(q, k, v, &Visibility::Causal, 0.5, &mask.unwrap());
    let mixed = mixed.swap_dims(1, 2).reshape([2, 1, D_MODEL]);
    let u = one.clone() + masked(Place::Attention, attention.o_proj.forward(mixed));
    let expected = u.clone() + fed(&block, u);
    let single = Tokens::Whole { seq: 1 };
    let at_0 = LlamaBlock::context(&config(), D_MODEL, single, &Device::default());
    let at_0 = dropped(&block, &at_0, 1, LAYER);
    assert_close(map(&block, &at_0, one.clone()), expected.clone());
    assert_close(slope(&block, &at_0, one.clone()), expected - one);

    // A whole text, given the attention under test.
    let x = normalise(&block.input_layernorm, y.clone());
    let attended = attention.forward(x, &of_layer, None);
    let u = y.clone() + masked(Place::Attention, attended);
    let expected = u.clone() + fed(&block, u);
    assert_close(map(&block, &of_layer, y.clone()), expected.clone());
    assert_close(slope(&block, &of_layer, y.clone()), expected - y);
}

#[test]
fn cross_attention_is_dropped_by_masks_of_its_own() {
    let device = Device::default();
    device.seed(3);
    let crossed = CrossedConfig(config());
    let block = CrossedBlock::init(&crossed, D_MODEL, &device);
    let own = CrossedBlock::context(&crossed, D_MODEL, Tokens::Whole { seq: 4 }, &device);
    let (states, visible) = (random(2, 5, 8), Visibility::keys([5, 3]));
    let context = CrossedContext {
        memory: Some(Memory::States {
            states: states.clone(),
            visible: visible.clone(),
        }),
        ..own
    };
    let of_layer = dropped(&block, &context, 1, LAYER);
    assert!(block.at_layer(&of_layer, LAYER).is_none());
    let y = random(2, 4, 9);
    let layer = &block.layer;
    let x = normalise(&layer.input_layernorm, y.clone());
    let attended = layer.self_attn.forward(x, &of_layer.own, None);
    let u = y.clone() + masked(Place::Attention, attended);
    let x = normalise(&block.encoder_attn_layer_norm, u.clone());
    let mask = dropout(RATES, 1).mask(LAYER, Place::CrossAttentionWeights);
    let keys_and_values = block.encoder_attn.of_memory(states);
    let mixed = block
        .encoder_attn
        .crossed(x, keys_and_values, &visible, mask);
    let v = u + masked(Place::CrossAttention, mixed);
    let expected = v.clone() + fed(layer, v);
    assert_close(map(&block, &of_layer, y.clone()), expected.clone());
    assert_close(slope(&block, &of_layer, y.clone()), expected - y.clone());
    // Without dropout of the target's pass, the memory is as it was.
    let plain = block.at_layer(&context, LAYER).unwrap();
    assert_ne!(
        bits(map(&block, &plain, y.clone())),
        bits(map(&block, &of_layer, y))
    );
}

#[test]
fn all_evaluations_of_a_layer_see_the_same_masks() {
    let (block, context, y) = setup();
    let of_layer = dropped(&block, &context, 1, LAYER);
    let first = bits(map(&block, &of_layer, y.clone()));
    assert_eq!(first, bits(map(&block, &of_layer, y.clone())));
    // Recorded, with gradients blocked, and in the layer computed again.
    let recorded = map(&block, &of_layer, y.clone().autodiff());
    assert_eq!(first, bits(recorded.inner()));
    let constant = LlamaBlock::constant(&of_layer);
    assert_eq!(first, bits(map(&block, &constant, y.clone())));
    let again = dropped(&block, &context, 1, LAYER);
    assert_eq!(first, bits(map(&block, &again, y.clone())));
    // Other layers and steps have others.
    for (step, layer) in [(1, LAYER.next()), (2, LAYER)] {
        let other = dropped(&block, &context, step, layer);
        assert_ne!(first, bits(map(&block, &other, y.clone())));
    }
}

#[test]
fn a_fixed_point_iteration_converges_in_one_layer() {
    let (mut block, context, y) = setup();
    block.residual_multiplier = 0.1;
    let change = |contexts: &mut dyn FnMut(u64) -> LlamaContext| {
        let (mut z, mut last) = (y.clone(), 0.0);
        for i in 0..30 {
            let next = y.clone() + slope(&block, &contexts(i), z.clone());
            last = (next.clone() - z).abs().max().into_scalar::<f32>();
            z = next;
        }
        last
    };
    let of_layer = dropped(&block, &context, 1, LAYER);
    let same = change(&mut |_| of_layer.clone());
    assert!(same < 1e-6, "{same}");
    // With masks of their own the evaluations have no common fixed point.
    let redrawn = change(&mut |step| dropped(&block, &context, step, LAYER));
    assert!(redrawn > 1e-2, "{redrawn}");
}

#[test]
fn rates_of_zero_leave_every_bit() {
    let (block, context, y) = setup();
    let zero = dropout(DropoutRates::default(), 1);
    let of_pass = LlamaBlock::with_dropout(context.clone(), &zero).unwrap();
    let of_layer = block.at_layer(&of_pass, LAYER).unwrap();
    let expected = bits(map(&block, &context, y.clone()));
    assert_eq!(expected, bits(map(&block, &of_layer, y)));
    assert!(block.at_layer(&context, LAYER).is_none());
}

/// A branch is linear in the mask of its output, whose mean is 1.
#[test]
fn the_mean_over_steps_approximates_the_output_without_dropout() {
    let (block, context, y) = setup();
    let rates = DropoutRates {
        residual: 0.2,
        ..DropoutRates::default()
    };
    let x = normalise(&block.input_layernorm, y.clone());
    let attended = block.self_attn.forward(x, &context, None);
    let n = 2000;
    let mut sum = attended.zeros_like();
    for step in 0..n {
        let of_pass = LlamaBlock::with_dropout(context.clone(), &dropout(rates, step)).unwrap();
        let of_layer = block.at_layer(&of_pass, LAYER).unwrap();
        sum = sum + of_layer.dropout().apply(Place::Attention, attended.clone());
    }
    // An element's deviation is |x| sqrt(p / (1 - p) / n), 0.011 |x|: five of them.
    let apart = (sum / n as f64 - attended.clone()).abs();
    let bound = attended.abs() * 0.056 + 1e-6;
    assert!(apart.lower_equal(bound).all().into_scalar::<u8>() == 1);
}

#[test]
fn half_precision_drops_the_same_elements() {
    let (_, context, y) = setup();
    let of_pass = LlamaBlock::with_dropout(context, &dropout(RATES, 1)).unwrap();
    let zeros = |dtype: DType| {
        let of_layer = of_pass.at_layer(LAYER).unwrap();
        let x = y.clone().cast(dtype);
        let dropped = of_layer.dropout().apply(Place::FeedForward, x);
        assert_eq!(dropped.dtype(), dtype);
        let dropped = dropped.cast(DType::F32).try_into_vec_as::<f32>().unwrap();
        dropped.into_iter().map(|x| x == 0.0).collect::<Vec<_>>()
    };
    let expected = zeros(DType::F32);
    assert!(expected.contains(&true) && expected.contains(&false));
    for dtype in [DType::BF16, DType::F16] {
        assert_eq!(zeros(dtype), expected);
    }
}

#[test]
fn decoding_has_no_dropout() {
    let row = CacheRow {
        from: 0,
        count: 1,
        cached: 4,
    };
    let tokens = Tokens::New {
        rows: vec![row],
        seq: 1,
        limit: 9,
    };
    let context = LlamaBlock::context(&config(), D_MODEL, tokens, &Device::default());
    let error = LlamaBlock::with_dropout(context, &dropout(RATES, 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dropout is residual 0.3, attention 0.4, activation 0.2; decoding with caches has no dropout"
    );
}
