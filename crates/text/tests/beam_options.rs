//! Beam search on a model whose probabilities are known, worked out by hand; what it refuses, and its memory.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use iiet_model::{
    EncoderDecoder, EncoderDecoderConfig, LlamaConfig, ParameterMapper, Precision, Role,
    StackConfig, map_parameters,
};
use iiet_ode::SolverConfig;
use iiet_text::{BeamBatch, BeamSearch, TargetEnds};
use serde_json::json;

fn config(vocab_size: usize, decoder: &SolverConfig) -> EncoderDecoderConfig {
    let stack = |solver: &SolverConfig| StackConfig {
        n_layers: 2,
        solver: solver.clone(),
    };
    EncoderDecoderConfig {
        vocab_size,
        d_model: 16,
        seq_len: 12,
        block: LlamaConfig {
            d_ff: 24,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        encoder: stack(&SolverConfig::default()),
        decoder: stack(decoder),
        ..EncoderDecoderConfig::default()
    }
}

fn ends(end: &[u32]) -> TargetEnds {
    TargetEnds {
        start: 1,
        end: end.to_vec(),
    }
}

/// Zero matrices.
struct Zeros;

impl ParameterMapper for Zeros {
    fn map<const D: usize>(
        &mut self,
        _: &str,
        role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        match role == Role::COEFFICIENT {
            true => parameter,
            false => parameter.map(|value| value.zeros_like()),
        }
    }
}

/// A model whose layers add nothing: after the token t it is t again with `weights[t]` times the probability of
/// each other token.
fn known<const N: usize>(weights: [f32; N]) -> EncoderDecoder {
    let config = EncoderDecoderConfig {
        d_model: N,
        block: LlamaConfig {
            d_ff: 4,
            n_heads: 1,
            n_kv_heads: 1,
            rms_norm_eps: 1e-12,
            ..LlamaConfig::default()
        },
        ..config(N, &SolverConfig::default())
    };
    let device = Device::default();
    let model = EncoderDecoder::empty(&config, &device).unwrap();
    let mut model = map_parameters(model, &mut Zeros);
    // The norm scales a row to the length sqrt(N), so the logit of the token itself is its log-weight.
    let mut rows = [[0.0; N]; N];
    for (token, weight) in weights.into_iter().enumerate() {
        rows[token][token] = weight.ln() / (N as f32).sqrt();
    }
    model.shared.dense_mut().unwrap().weight = Param::from_tensor(Tensor::from_data(rows, &device));
    model
}

/// After 1 all four tokens are equally likely, after 2 it is 2 with 5/8 and after 3 it is 3 with 17/20; 0 ends
/// a target.
fn four() -> EncoderDecoder {
    known([1.0, 1.0, 5.0, 17.0])
}

/// The targets of the n-best list with their probabilities.
fn of_known(options: &BeamSearch) -> Vec<(Vec<u32>, f64)> {
    let (model, device) = (four(), Device::default());
    let found = options.search(&model, &[&[2]], &ends(&[0]), Precision::F32, &device);
    let found = found.unwrap().remove(0).into_iter();
    found.map(|h| (h.tokens, h.log_probability.exp())).collect()
}

fn assert_found(found: &[(Vec<u32>, f64)], expected: &[(&[u32], f64)]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((tokens, p), (expected, of_expected)) in found.iter().zip(expected) {
        assert_eq!(tokens, expected, "{found:?}");
        assert!((p - of_expected).abs() < 1e-5 * of_expected, "{found:?}");
    }
}

const KNOWN: BeamSearch = BeamSearch {
    beam: 4,
    length_penalty: 0.0,
    min_tokens: 0,
    max_tokens: 3,
    no_repeat_ngram: 0,
    n_best: 4,
};

#[test]
fn enough_beams_go_on_where_most_extensions_are_ends() {
    let (model, device) = (known([7.0, 1.0, 1.0, 1.0, 1.0, 1.0]), Device::default());
    let ends = TargetEnds {
        start: 5,
        end: vec![1, 2, 3],
    };
    let two = BeamSearch {
        beam: 2,
        n_best: 2,
        max_tokens: 1,
        ..KNOWN
    };
    // After the start 0 is a beam, 1 ends the empty target, and 4, after the other ends, is the second beam:
    // it ends with 1/6, and 0 with 1/12 alone.
    let found = two.search(&model, &[&[2]], &ends, Precision::F32, &device);
    let found = found.unwrap().remove(0).into_iter();
    let found: Vec<_> = found.map(|h| (h.tokens, h.log_probability.exp())).collect();
    assert_found(&found, &[(&[], 1.0 / 6.0), (&[4], 1.0 / 36.0)]);
}

#[test]
fn the_length_penalty_decides_between_short_and_long_targets() {
    let p = 1.0 / 4.0;
    let [empty, one] = [(&[][..], p), (&[1][..], p * p)];
    let [pair, three]: [(&[u32], f64); 2] = [
        (&[2, 2], p * 5.0 / 8.0 / 8.0),
        (&[2, 2, 2], p * (5.0f64 / 8.0).powi(2) / 8.0),
    ];
    assert_found(&of_known(&KNOWN), &[empty, one, pair, three]);
    // Per token, -4.41 / 4 and -3.94 / 3 are more than -1.39.
    let per_token = BeamSearch {
        length_penalty: 1.0,
        n_best: 2,
        ..KNOWN
    };
    assert_found(&of_known(&per_token), &[three, pair]);
}

#[test]
fn targets_have_from_min_tokens_to_max_tokens() {
    let p = 1.0 / 4.0;
    let longer = BeamSearch {
        min_tokens: 2,
        n_best: 1,
        ..KNOWN
    };
    assert_found(&of_known(&longer), &[(&[2, 2], p * 5.0 / 8.0 / 8.0)]);
    let shorter = BeamSearch {
        max_tokens: 1,
        ..KNOWN
    };
    let expected: [(&[u32], f64); 4] = [(&[], p), (&[1], p * p), (&[2], p / 8.0), (&[3], p / 20.0)];
    assert_found(&of_known(&shorter), &expected);
    let none = BeamSearch {
        max_tokens: 0,
        ..KNOWN
    };
    assert_found(&of_known(&none), &[(&[], p)]);
}

#[test]
fn no_ngram_occurs_twice_the_start_token_included() {
    let greedy = BeamSearch {
        beam: 1,
        n_best: 1,
        ..KNOWN
    };
    let single = BeamSearch {
        min_tokens: 2,
        no_repeat_ngram: 1,
        ..greedy
    };
    // Not 1, which is before the target; then not 2; then an end alone is left.
    let expected: &[u32] = &[2, 3];
    assert_found(&of_known(&single), &[(expected, 1.0 / 4.0 / 8.0 / 20.0)]);
    let pairs = BeamSearch {
        min_tokens: 3,
        max_tokens: 4,
        no_repeat_ngram: 2,
        ..greedy
    };
    // 1 1, then not 1 again; 2 2, then not 2 again, and an end is the first of the others.
    let expected: &[u32] = &[1, 2, 2];
    let p = 1.0 / 4.0 / 4.0 * 5.0 / 8.0 / 8.0;
    assert_found(&of_known(&pairs), &[(expected, p)]);
    let impossible = BeamSearch {
        min_tokens: 3,
        ..single
    };
    let (model, device) = (four(), Device::default());
    let error = impossible.search(&model, &[&[2]], &ends(&[0]), Precision::F32, &device);
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("after 2 tokens the options"), "{error}");
}

#[test]
fn what_the_model_cannot_decode_is_an_error_with_its_values() {
    let device = Device::default();
    let config = config(29, &SolverConfig::default());
    let model = EncoderDecoder::init(&config, 1, &device).unwrap();
    let options = BeamSearch::default();
    let long = [3; 13];
    let most = BeamSearch {
        min_tokens: 12,
        ..options
    };
    let of = |start, end: &[u32]| TargetEnds {
        start,
        end: end.to_vec(),
    };
    let cases: [(&BeamSearch, &[u32], TargetEnds, &str); 7] = [
        (&options, &[], of(1, &[0]), "the source has no tokens"),
        (
            &options,
            &[3, 29],
            of(1, &[0]),
            "the source has the token 29; allowed: 0 to 28",
        ),
        (
            &options,
            &long,
            of(1, &[0]),
            "the source has 13 tokens, the model's context 12",
        ),
        (
            &options,
            &[3],
            of(29, &[0]),
            "start token is 29; allowed: 0 to 28",
        ),
        (
            &options,
            &[3],
            of(1, &[0, 30]),
            "end token is 30; allowed: 0 to 28",
        ),
        (
            &options,
            &[3],
            of(1, &[]),
            "end token is missing; allowed: 0 to 28",
        ),
        (
            &most,
            &[3],
            of(1, &[0]),
            "min_tokens is 12; allowed: 0 to 11, which the model's context holds",
        ),
    ];
    for (options, source, ends, expected) in cases {
        let found = options.search(&model, &[&[4], source], &ends, Precision::F32, &device);
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
    let whole = [3; 12];
    let found = options.search(&model, &[&whole], &ends(&[0]), Precision::F32, &device);
    assert!(found.unwrap()[0][0].tokens.len() <= 11);
}

#[test]
fn logits_that_are_not_numbers_are_an_error_and_no_target() {
    let device = Device::default();
    let mut model = four();
    let mut rows = [[0.5; 4]; 4];
    rows[2][1] = f32::NAN;
    model.shared.dense_mut().unwrap().weight = Param::from_tensor(Tensor::from_data(rows, &device));
    let found = KNOWN.search(&model, &[&[3]], &ends(&[0]), Precision::F32, &device);
    let error = found.unwrap_err().to_string();
    assert_eq!(
        error,
        "the logit of token 2 is NaN, so no token can be chosen"
    );
}

#[test]
fn the_memory_grows_with_the_beam_the_sources_and_the_dtype_of_the_cache() {
    let solver = serde_json::from_value(json!({"name": "implicit_euler", "iterations": [2, 0]}));
    let config = config(29, &solver.unwrap());
    let total = |beam, sources, cache| {
        let options = BeamSearch {
            beam,
            max_tokens: 4,
            ..BeamSearch::default()
        };
        let batch = BeamBatch {
            sources,
            longest: 6,
            precision: Precision::F32,
            cache,
        };
        let estimate = options.memory(batch, "decoding", &config, &Device::default());
        estimate.unwrap().total()
    };
    // 4 evaluations and one copy, of 2 x 8 numbers a token, 10 tokens; each a byte or two less in bf16.
    let halved = total(3, 2, Precision::F32) - total(3, 2, Precision::Bf16);
    assert_eq!(halved, 2 * 5 * 16 * 10 * (3 * 2));
    assert!(total(4, 2, Precision::F32) > total(3, 2, Precision::F32) + 5 * 64 * 10 * 2);
    assert!(total(3, 3, Precision::F32) > total(3, 2, Precision::F32) + 5 * 64 * 10 * 3);
}
