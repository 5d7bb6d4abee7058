//! Beam search against exhaustive search, and against a slow search by full passes that is written here.

use std::ops::ControlFlow;

use burn::tensor::Device;
use iiet_model::{
    EncoderDecoder, EncoderDecoderConfig, LlamaConfig, Precision, Source, StackConfig, token_ids,
};
use iiet_ode::{Options, SolverConfig};
use iiet_text::{BeamSearch, Hypothesis, TargetEnds};
use serde_json::json;

const START: u32 = 1;
const SOURCES: [&[u32]; 4] = [&[3, 7, 4, 8, 9, 1], &[5, 8, 8], &[2], &[6, 1, 1, 2]];

/// Every solver, and schedules of one number a layer.
fn solvers() -> Vec<SolverConfig> {
    let mut solvers: Vec<_> = SolverConfig::NAMES
        .iter()
        .map(|name| SolverConfig::named(name).unwrap())
        .collect();
    for options in [
        json!({"name": "runge_kutta", "predictor_order": 4}),
        json!({"name": "implicit_euler", "iterations": [2, 0]}),
        json!({"name": "iterative_implicit_euler", "iterations": [0, 3]}),
    ] {
        solvers.push(serde_json::from_value(options).unwrap());
    }
    solvers
}

fn config(
    vocab_size: usize,
    encoder: &SolverConfig,
    decoder: &SolverConfig,
) -> EncoderDecoderConfig {
    let stack = |solver: &SolverConfig| StackConfig {
        n_layers: 2,
        solver: solver.clone(),
    };
    EncoderDecoderConfig {
        vocab_size,
        d_model: 16,
        seq_len: 12,
        initializer_range: 0.3,
        block: LlamaConfig {
            d_ff: 24,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        encoder: stack(encoder),
        decoder: stack(decoder),
        ..EncoderDecoderConfig::default()
    }
}

fn model(vocab_size: usize, solver: &SolverConfig, seed: u64) -> EncoderDecoder {
    let config = config(vocab_size, solver, solver);
    EncoderDecoder::init(&config, seed, &Device::default()).unwrap()
}

fn ends(end: &[u32]) -> TargetEnds {
    TargetEnds {
        start: START,
        end: end.to_vec(),
    }
}

fn search(
    options: &BeamSearch,
    model: &EncoderDecoder,
    sources: &[&[u32]],
    end: &[u32],
) -> Vec<Vec<Hypothesis>> {
    let device = Device::default();
    let found = options.search(model, sources, &ends(end), Precision::F32, &device);
    found.unwrap()
}

/// The log-probabilities of the tokens after each of a text, by a full pass.
fn log_p(model: &EncoderDecoder, source: &[u32], text: &[u32]) -> Vec<Vec<f64>> {
    let device = Device::default();
    let ids = token_ids(text, [1, text.len()], &device);
    let logits = model.forward(&Source::of(&[source], &device), ids);
    let logits = logits.try_into_vec_as::<f32>().unwrap();
    let rows = logits.chunks(model.sizes().vocab_size).map(|row| {
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        row.iter().map(|x| f64::from(*x) - sum.ln()).collect()
    });
    rows.collect()
}

fn next_log_p(model: &EncoderDecoder, source: &[u32], text: &[u32]) -> Vec<f64> {
    log_p(model, source, text).pop().unwrap()
}

/// The log-likelihood of a target by one full pass.
fn log_likelihood(model: &EncoderDecoder, source: &[u32], found: &Hypothesis) -> f64 {
    let text = [&[START], &found.tokens[..]].concat();
    let log_p = log_p(model, source, &text);
    let wanted = found.tokens.iter().copied().chain(found.end);
    let each = log_p.iter().zip(wanted);
    each.map(|(log_p, token)| log_p[token as usize]).sum()
}

/// A hypothesis, or a beam, of the slow search.
#[derive(Clone, Debug)]
struct Text {
    /// From the start token on; with the end token, if it has ended.
    ids: Vec<u32>,
    log_p: f64,
}

/// fairseq's search without caches: all extensions of all beams in one list.
fn slow_search(
    options: &BeamSearch,
    model: &EncoderDecoder,
    source: &[u32],
    end: &[u32],
) -> Vec<Text> {
    let mut beams = vec![Text {
        ids: vec![START],
        log_p: 0.0,
    }];
    let mut done: Vec<Text> = Vec::new();
    for tokens in 0..=options.max_tokens {
        let mut extended = Vec::new();
        for beam in &beams {
            let log_p = next_log_p(model, source, &beam.ids);
            for (token, log_p) in (0..).zip(log_p) {
                let mut ids = beam.ids.clone();
                ids.push(token);
                let allowed = match end.contains(&token) {
                    true => tokens >= options.min_tokens,
                    false => tokens < options.max_tokens && !repeats(&ids, options.no_repeat_ngram),
                };
                if allowed {
                    let log_p = beam.log_p + log_p;
                    extended.push(Text { ids, log_p });
                }
            }
        }
        extended.sort_by(|a, b| b.log_p.total_cmp(&a.log_p));
        let is_end = |text: &Text| end.contains(text.ids.last().unwrap());
        let ended = extended
            .iter()
            .take(options.beam)
            .filter(|text| is_end(text));
        done.extend(ended.cloned());
        done.truncate(options.beam);
        if done.len() == options.beam {
            break;
        }
        extended.retain(|text| !is_end(text));
        extended.truncate(options.beam);
        beams = extended;
    }
    let score = |text: &Text| {
        let length = (text.ids.len() - 1) as f64;
        text.log_p / length.powf(options.length_penalty)
    };
    done.sort_by(|a, b| score(b).total_cmp(&score(a)));
    done.truncate(options.n_best);
    done
}

/// Whether an n-gram occurs twice in a text.
fn repeats(ids: &[u32], n: usize) -> bool {
    let ngrams: Vec<&[u32]> = match n {
        0 => vec![],
        _ => ids.windows(n).collect(),
    };
    (1..ngrams.len()).any(|i| ngrams[..i].contains(&ngrams[i]))
}

/// Numbers below `n`, from a linear congruential generator.
fn below(state: &mut u64, n: usize) -> usize {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    (*state >> 33) as usize % n
}

#[test]
fn n_best_lists_equal_those_of_a_slow_search_by_full_passes() {
    let mut random = 4;
    let (mut ended, mut forced, mut blocked) = (0, 0, 0);
    for (number, solver) in solvers().iter().enumerate() {
        for beam in 2..=5 {
            let model = model(29, solver, number as u64 * 10 + beam as u64);
            let max_tokens = 3 + below(&mut random, 7);
            let options = BeamSearch {
                beam,
                length_penalty: [0.0, 0.6, 1.0, 2.0, -0.5][below(&mut random, 5)],
                min_tokens: below(&mut random, 3),
                max_tokens,
                no_repeat_ngram: below(&mut random, 4),
                n_best: 1 + below(&mut random, beam),
            };
            // One end token, some, and so many that most of the first extensions are ends.
            let ends = [
                &[0][..],
                &[2],
                &[0, 11, 28],
                &[1, 4, 5, 9, 13, 16, 20, 22, 25, 28],
            ];
            let end: &[u32] = ends[below(&mut random, 4)];
            let found = search(&options, &model, &SOURCES, end);
            for (source, found) in SOURCES.iter().zip(found) {
                let expected = slow_search(&options, &model, source, end);
                let what = format!("{solver:?}, {options:?}, {end:?}, {source:?}");
                assert_eq!(found.len(), expected.len(), "{what}");
                for (found, expected) in found.iter().zip(&expected) {
                    let of_found = [&[START], &found.tokens[..], &[found.end.unwrap()]].concat();
                    assert_eq!(of_found, expected.ids, "{what}");
                    assert!(
                        (found.log_probability - expected.log_p).abs() < 1e-4,
                        "{what}"
                    );
                    let likely = log_likelihood(&model, source, found);
                    assert!((found.log_probability - likely).abs() < 1e-4, "{what}");
                    let length = (found.tokens.len() + 1) as f64;
                    let score = found.log_probability / length.powf(options.length_penalty);
                    assert_eq!(found.score, score, "{what}");
                    assert_eq!(found.forced, found.tokens.len() == max_tokens, "{what}");
                    ended += usize::from(!found.forced);
                    forced += usize::from(found.forced);
                }
                let free = BeamSearch {
                    no_repeat_ngram: 0,
                    ..options
                };
                let free = slow_search(&free, &model, source, end);
                blocked += usize::from(free[0].ids != expected[0].ids);
            }
        }
    }
    // What the options do must be among what is compared.
    assert!(
        ended > 50 && forced > 50 && blocked > 10,
        "{ended} {forced} {blocked}"
    );
}

#[test]
fn with_a_beam_for_every_target_all_are_found_in_order() {
    let (end, max_tokens) = (0, 3);
    for solver in solvers() {
        let model = model(4, &solver, 3);
        let source: &[u32] = &[2, 3, 1];
        // Over 3 tokens: 1 + 3 + 9 + 27 targets.
        let mut texts: Vec<Vec<u32>> = vec![vec![START]];
        let mut all: Vec<(Vec<u32>, f64)> = Vec::new();
        for tokens in 0..=max_tokens {
            let mut longer = Vec::new();
            for text in &texts {
                let whole = [&text[..], &[end]].concat();
                let each = log_p(&model, source, text);
                let each = each.iter().zip(&whole[1..]);
                let sum: f64 = each.map(|(log_p, token)| log_p[*token as usize]).sum();
                all.push((text[1..].to_vec(), sum / ((tokens + 1) as f64).powf(0.6)));
                longer.extend((1..4).map(|token| [&text[..], &[token]].concat()));
            }
            texts = longer;
        }
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        let options = BeamSearch {
            beam: 64,
            n_best: 64,
            max_tokens,
            ..BeamSearch::default()
        };
        let found = search(&options, &model, &[source], &[end]).remove(0);
        assert_eq!(found.len(), 40);
        for (found, (tokens, score)) in found.iter().zip(&all) {
            assert_eq!(found.tokens, *tokens, "{solver:?}");
            assert!((found.score - score).abs() < 1e-4, "{solver:?}");
        }
    }
}

#[test]
fn one_beam_is_greedy_decoding_and_streams_its_tokens() {
    let device = Device::default();
    let mut ended = 0;
    for (number, solver) in solvers().iter().enumerate() {
        let end = [2, 5, 8, 13, 21, 24];
        let config = EncoderDecoderConfig {
            eos_token_ids: end.to_vec(),
            ..config(29, solver, solver)
        };
        let model = EncoderDecoder::init(&config, 40 + number as u64, &device).unwrap();
        let expected = model.greedy(&Source::of(&SOURCES, &device), START, 8, &device);
        let options = BeamSearch {
            beam: 1,
            max_tokens: 8,
            ..BeamSearch::default()
        };
        let together = search(&options, &model, &SOURCES, &end);
        for ((source, found), expected) in SOURCES.iter().zip(together).zip(expected) {
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].tokens, expected, "{solver:?}");
            ended += usize::from(expected.len() < 8);
            let stream = |at_most: usize| {
                let mut streamed = Vec::new();
                let on_token = |token| {
                    streamed.push(token);
                    match streamed.len() < at_most {
                        true => ControlFlow::Continue(()),
                        false => ControlFlow::Break(()),
                    }
                };
                let ends = ends(&end);
                let text = options.greedy(&model, source, &ends, Precision::F32, &device, on_token);
                (text.unwrap(), streamed)
            };
            let (text, streamed) = stream(usize::MAX);
            assert_eq!(streamed, expected);
            assert_eq!((&text.tokens, text.end), (&expected, found[0].end));
            assert!((text.log_probability - found[0].log_probability).abs() < 1e-4);
            if expected.len() > 2 {
                let (text, streamed) = stream(2);
                assert_eq!(streamed, expected[..2]);
                assert_eq!((text.tokens, text.end), (streamed, None));
            }
        }
    }
    assert!(ended > 0);
}

#[test]
fn a_source_does_not_depend_on_others_in_the_batch() {
    let solver = SolverConfig::named("iterative_implicit_euler").unwrap();
    let model = model(29, &solver, 7);
    let options = BeamSearch {
        beam: 3,
        n_best: 3,
        max_tokens: 9,
        ..BeamSearch::default()
    };
    let end = [2, 5, 8, 13];
    let together = search(&options, &model, &SOURCES, &end);
    let mut lengths = Vec::new();
    for (source, found) in SOURCES.iter().zip(together) {
        let alone = search(&options, &model, &[source], &end).remove(0);
        let tokens =
            |of: &[Hypothesis]| -> Vec<_> { of.iter().map(|h| h.tokens.clone()).collect() };
        assert_eq!(tokens(&found), tokens(&alone));
        for (found, alone) in found.iter().zip(&alone) {
            assert!((found.score - alone.score).abs() < 1e-4);
        }
        lengths.push(found.iter().map(|h| h.tokens.len()).max().unwrap());
    }
    // Some sources leave the batch before others.
    assert!(lengths.iter().min() < lengths.iter().max(), "{lengths:?}");
    assert_eq!(search(&options, &model, &[], &end), [] as [Vec<_>; 0]);
}
