//! Properties of a block that hold for all weights.

use burn::tensor::{Device, Distribution, Tensor, TensorData, Tolerance};
use iiet_blocks::llama::{Attention, SwiGlu};
use iiet_blocks::{
    Block, BlockConfig, BlockField, Evaluation, LlamaBlock, LlamaConfig, LlamaContext, Projection,
    Tokens, normalise,
};
use iiet_ode::VectorField;

const D_MODEL: usize = 16;

fn config() -> LlamaConfig {
    LlamaConfig {
        d_ff: 24,
        n_heads: 4,
        n_kv_heads: 2,
        ..LlamaConfig::default()
    }
}

fn setup(seq: usize) -> (LlamaBlock, LlamaContext, Tensor<3>) {
    let device = Device::default();
    device.seed(7);
    let normal = Distribution::Normal(0.0, 1.0);
    let y = Tensor::random([2, seq, D_MODEL], normal, &device);
    let context = LlamaBlock::context(&config(), D_MODEL, Tokens::Whole { seq }, &device);
    let block = LlamaBlock::init(&config(), D_MODEL, &device);
    (block, context, y)
}

/// `G(y)`.
fn map(block: &LlamaBlock, context: &LlamaContext, y: Tensor<3>) -> Tensor<3> {
    let (cache, terms) = (None, &mut Vec::new());
    block.forward(
        y,
        Evaluation {
            context,
            cache,
            terms,
        },
    )
}

fn assert_close(a: Tensor<3>, b: Tensor<3>) {
    a.into_data()
        .assert_approx_eq::<f32>(&b.into_data(), Tolerance::absolute(1e-5));
}

#[test]
fn both_branches_are_multiplied_before_they_are_added() {
    let (plain, context, y) = setup(9);
    let mut scaled = plain.clone();
    scaled.residual_multiplier = 0.5;
    let attended =
        plain
            .self_attn
            .forward(normalise(&plain.input_layernorm, y.clone()), &context, None);
    let u = y.clone() + attended * 0.5;
    let fed = plain
        .mlp
        .forward(normalise(&plain.post_attention_layernorm, u.clone()));
    let expected = u + fed * 0.5;
    assert_close(map(&scaled, &context, y.clone()), expected.clone());
    let mut terms = Vec::new();
    let mut field = BlockField::new(&scaled, &context, None, &mut terms);
    assert_close(field.slope(y.clone()), expected - y);
}

#[test]
fn field_equals_the_map_minus_the_identity() {
    let (block, context, y) = setup(9);
    let mut terms = Vec::new();
    let mut field = BlockField::new(&block, &context, None, &mut terms);
    let slope = field.slope(y.clone());
    let map = map(&block, &context, y.clone());
    assert_close(slope.clone() + y.clone(), map.clone());
    assert_close(field.euler(y.clone(), 1.0), map);
    assert_close(field.euler(y.clone(), 0.5), y + slope * 0.5);
}

#[test]
fn attention_is_causal() {
    let (block, context, y) = setup(9);
    let before = map(&block, &context, y.clone());
    let changed = y.slice_assign([0..2, 5..9], Tensor::ones([2, 4, 16], &Device::default()));
    let after = map(&block, &context, changed);
    let head = |x: Tensor<3>| x.slice([0..2, 0..5]);
    before
        .clone()
        .slice([0..2, 0..5])
        .into_data()
        .assert_eq(&head(after.clone()).into_data(), true);
    let tail = (before - after)
        .slice([0..2, 5..9])
        .abs()
        .max()
        .into_scalar::<f32>();
    assert!(
        tail > 0.01,
        "the outputs of the changed tokens must differ: {tail}"
    );
}

#[test]
fn rows_of_a_batch_are_independent() {
    let (block, context, y) = setup(6);
    let both = map(&block, &context, y.clone());
    for i in 0..2 {
        let alone = map(&block, &context, y.clone().narrow(0, i, 1));
        assert_close(both.clone().narrow(0, i, 1), alone);
    }
}

#[test]
fn grouped_queries_equal_repeated_keys() {
    // Grouped attention equals multi-head attention whose key and value projections repeat each
    // shared head for its group.
    let (block, context, y) = setup(6);
    let grouped = block.self_attn;
    let repeat = |weight: Tensor<2>| {
        let head_dim = D_MODEL / 4;
        let heads = (0..4).map(|head| weight.clone().narrow(1, head / 2 * head_dim, head_dim));
        Tensor::cat(heads.collect(), 1)
    };
    let config = LlamaConfig {
        n_kv_heads: 4,
        ..config()
    };
    let mut full = Attention::init(&config, D_MODEL, &Device::default());
    full.q_proj = grouped.q_proj.clone();
    full.o_proj = grouped.o_proj.clone();
    for (to, from) in [
        (&mut full.k_proj, &grouped.k_proj),
        (&mut full.v_proj, &grouped.v_proj),
    ] {
        let to = &mut to.dense_mut().unwrap().weight;
        *to = to.clone().map(|_| repeat(from.matrix()));
    }
    assert_close(
        grouped.forward(y.clone(), &context, None),
        full.forward(y, &context, None),
    );
}

#[test]
fn equal_tokens_have_equal_outputs() {
    // Equal tokens have equal outputs at every position: the weights sum to one, and the rotation
    // of queries and keys does not affect values.
    let (block, context, _) = setup(5);
    let y = Tensor::<3>::ones([1, 5, 16], &Device::default());
    let out = block.self_attn.forward(y, &context, None);
    let first = out.clone().slice([0..1, 0..1]).repeat_dim(1, 5);
    assert_close(out, first);
}

#[test]
fn a_single_token_attends_to_itself() {
    let (block, context, y) = setup(1);
    let attention = &block.self_attn;
    let values = attention.v_proj.forward(y.clone());
    let heads = [0, 0, 1, 1].map(|head| values.clone().narrow(2, head * 4, 4));
    let expected = attention.o_proj.forward(Tensor::cat(heads.to_vec(), 2));
    assert_close(attention.forward(y, &context, None), expected);
}

#[test]
fn swiglu_equals_values_computed_by_hand() {
    let device = Device::default();
    let mut mlp = SwiGlu::init(1, 2, &device);
    let set = |projection: &mut Projection, data: TensorData| {
        let weight = &mut projection.dense_mut().unwrap().weight;
        *weight = weight.clone().map(|_| Tensor::from_data(data, &device));
    };
    set(&mut mlp.gate_proj, TensorData::from([[1.0f32, -1.0]]));
    set(&mut mlp.up_proj, TensorData::from([[2.0f32, 3.0]]));
    set(&mut mlp.down_proj, TensorData::from([[1.0f32], [10.0]]));
    // x = 1: silu(1) * 2 + 10 * silu(-1) * 3 = 2 * 0.7310586 - 30 * 0.2689414.
    let y = mlp
        .forward(Tensor::<3>::ones([1, 1, 1], &device))
        .into_scalar::<f32>();
    assert!(
        (y - (2.0 * 0.731_058_6 - 30.0 * 0.268_941_4)).abs() < 1e-5,
        "{y}"
    );
}

#[test]
fn costs_equal_products_counted_by_hand() {
    // q and o: 2 x 16 x 16; k and v: 2 x 16 x 8; feed-forward: 3 x 16 x 24. Attention: scores and
    // mixing of (seq + 1) / 2 = 5 tokens, 2 x 2 x 16 x 5.
    let cost = config().cost(D_MODEL, 9);
    let projections = 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24;
    assert_eq!(
        cost.flops_per_token,
        (2 * projections + 2 * 2 * 16 * 5) as f64
    );
    assert_eq!(cost.cache_bytes_per_token, 2 * 8 * 4);
}
