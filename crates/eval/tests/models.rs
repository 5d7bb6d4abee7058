//! Tokens, log-likelihoods and generated text of three LLaMAs created with `transformers`, whose
//! tokenizers handle BOS differently, against the harness's own `HFLM` (`models/expected.py`).

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_eval::{Continuation, EncodedPair, Generation, ModelScorer, Scored, Scorer, TokenScorer};
use iiet_text::{TextError, TextTokenizer};
use serde::Deserialize;

/// Context and continuation, the tokens of both, and the harness's answer.
type Pair = (String, String, Vec<u32>, Vec<u32>, f64, bool);

#[derive(Deserialize)]
struct Expected {
    pairs: Vec<Pair>,
    rolling: Vec<(String, Vec<u32>, f64)>,
    generations: Vec<(String, Vec<String>, usize, String)>,
}

const MODELS: [&str; 3] = ["bos", "plain", "llama"];

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(model)
}

fn expected(model: &str) -> Expected {
    let text = std::fs::read_to_string(folder(model).join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Settings with which every request has an answer.
fn scored(scorer: &TokenScorer<ModelScorer>, requests: &[Continuation]) -> Vec<Scored> {
    let scored = scorer.log_likelihood(requests, &()).unwrap().into_iter();
    scored.map(Result::unwrap).collect()
}

fn scorer(model: &str) -> TokenScorer<ModelScorer> {
    let device = Device::flex();
    let (language_model, config) = iiet_model::load(&folder(model), &device).unwrap();
    let tokenizer = TextTokenizer::open(&folder(model), config.vocab_size).unwrap();
    TokenScorer::new(ModelScorer::new(language_model, device), tokenizer)
}

fn requests(expected: &Expected) -> Vec<Continuation> {
    let pairs = expected.pairs.iter();
    pairs
        .map(|(context, continuation, ..)| Continuation {
            context: context.as_str().into(),
            continuation: continuation.clone(),
        })
        .collect()
}

#[test]
fn tokens_equal_those_of_transformers() {
    for model in MODELS {
        let scorer = scorer(model);
        let expected = expected(model);
        for (context, continuation, context_tokens, continuation_tokens, ..) in &expected.pairs {
            let pair = EncodedPair::new(scorer.tokenizer(), context, continuation).unwrap();
            let place = format!("{model}: {context:?} {continuation:?}");
            assert_eq!(pair.context, *context_tokens, "{place}");
            assert_eq!(pair.continuation, *continuation_tokens, "{place}");
        }
        for (text, tokens, _) in &expected.rolling {
            assert_eq!(
                scorer.tokenizer().encode(text).unwrap(),
                *tokens,
                "{model}: {text:?}"
            );
        }
    }
}

#[test]
fn log_likelihoods_equal_the_harness() {
    for model in MODELS {
        let scorer = scorer(model);
        let expected = expected(model);
        let scored = scored(&scorer, &requests(&expected));
        for (found, (context, continuation, _, _, value, greedy)) in
            scored.iter().zip(&expected.pairs)
        {
            let place = format!("{model}: {context:?} {continuation:?}: {found:?} {value}");
            assert!((found.log_likelihood - value).abs() < 1e-3, "{place}");
            assert_eq!(found.is_greedy, *greedy, "{place}");
        }
        let texts: Vec<String> = expected
            .rolling
            .iter()
            .map(|(text, ..)| text.clone())
            .collect();
        let rolling = scorer.log_likelihood_rolling(&texts, &()).unwrap();
        for (found, (text, tokens, value)) in rolling.iter().zip(&expected.rolling) {
            let place = format!("{model}: {text:?}: {found:?} {value}");
            assert!((found.log_likelihood - value).abs() < 1e-3, "{place}");
            assert_eq!(found.tokens, tokens.len() as u64, "{place}");
        }
    }
}

#[test]
fn generated_text_equals_the_harness() {
    for model in MODELS {
        let expected = expected(model);
        let requests: Vec<Generation> = expected
            .generations
            .iter()
            .map(|(context, until, max_tokens, _)| Generation {
                context: context.clone(),
                until: until.clone(),
                max_tokens: *max_tokens,
            })
            .collect();
        let found = scorer(model).generate_until(&requests, &()).unwrap();
        for (found, (context, _, _, text)) in found.iter().zip(&expected.generations) {
            assert_eq!(found, text, "{model}: {context:?}");
        }
    }
}

#[test]
fn is_greedy_is_true_for_the_most_likely_tokens() {
    for model in MODELS {
        let scorer = scorer(model);
        let generation = Generation {
            context: "Question: Which".to_owned(),
            until: Vec::new(),
            max_tokens: 1,
        };
        // A token may be only a part of a character; such prompts are skipped.
        let text = scorer.generate_until(&[generation], &()).unwrap().remove(0);
        if text.contains('\u{fffd}') || text.trim().is_empty() {
            continue;
        }
        let request = |continuation: &str| Continuation {
            context: "Question: Which".into(),
            continuation: continuation.to_owned(),
        };
        let requests = [request(&text), request(" zzz")];
        let scored = scored(&scorer, &requests);
        assert!(
            scored[0].is_greedy && !scored[1].is_greedy,
            "{model}: {text:?}"
        );
    }
}

#[test]
fn answers_do_not_depend_on_the_batch() {
    for model in MODELS {
        let requests = requests(&expected(model));
        let together = scored(&scorer(model), &requests);
        let alone = scorer(model).with_batch_tokens(1);
        let alone = scored(&alone, &requests);
        let reversed: Vec<Continuation> = requests.iter().rev().cloned().collect();
        let reversed = scored(&scorer(model).with_batch_tokens(100), &reversed);
        for ((a, b), c) in together.iter().zip(&alone).zip(reversed.iter().rev()) {
            for other in [b, c] {
                assert!(
                    (a.log_likelihood - other.log_likelihood).abs() < 1e-4,
                    "{a:?} {other:?}"
                );
                assert_eq!(a.is_greedy, other.is_greedy);
            }
        }
    }
}

#[test]
fn unscorable_requests_are_errors() {
    let scorer = scorer("plain");
    let error = |context: &str, continuation: &str| {
        let request = Continuation {
            context: context.into(),
            continuation: continuation.to_owned(),
        };
        let mut scored = scorer.log_likelihood(&[request], &()).unwrap();
        scored.remove(0).unwrap_err().to_string()
    };
    assert!(error("a", "").contains("the continuation has 0 tokens"));
    assert!(error("a", &"zq".repeat(40)).contains("80 tokens, allowed are 1 to 32"));
    assert!(error(" \n", "a").contains("the context has 0 tokens"));
    let generation = Generation {
        context: "a".to_owned(),
        until: Vec::new(),
        max_tokens: 32,
    };
    assert!(scorer.generate_until(&[generation], &()).is_err());
}

#[test]
fn an_unscorable_request_does_not_affect_the_others() {
    let scorer = scorer("plain");
    let request = |continuation: &str| Continuation {
        context: "Question: Which".into(),
        continuation: continuation.to_owned(),
    };
    let requests = [
        request(" one"),
        request(&"zq".repeat(40)),
        request(" two"),
        request(""),
    ];
    let together = scorer.log_likelihood(&requests, &()).unwrap();
    let fits: Vec<bool> = together.iter().map(Result::is_ok).collect();
    assert_eq!(fits, [true, false, true, false]);
    for at in [0, 2] {
        let alone = scored(&scorer, &requests[at..=at]).remove(0);
        let found = together[at].clone().unwrap();
        assert!((found.log_likelihood - alone.log_likelihood).abs() < 1e-4);
    }
}

#[test]
fn a_tokenizer_of_another_model_is_an_error() {
    let error = TextTokenizer::open(&folder("llama"), 300).err().unwrap();
    assert!(
        matches!(
            error,
            TextError::Vocabulary {
                vocab_size: 300,
                ..
            }
        ),
        "{error}"
    );
    let empty = tempfile::tempdir().unwrap();
    let error = TextTokenizer::open(empty.path(), 300).err().unwrap();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
    // Neither BOS nor EOS: no token can precede a text.
    let source = folder("plain");
    std::fs::copy(
        source.join("tokenizer.json"),
        empty.path().join("tokenizer.json"),
    )
    .unwrap();
    let error = TextTokenizer::open(empty.path(), 300).err().unwrap();
    assert!(
        error.to_string().contains("neither a BOS nor an EOS token"),
        "{error}"
    );
    std::fs::write(
        empty.path().join("config.json"),
        r#"{"eos_token_id": [0, 1]}"#,
    )
    .unwrap();
    let tokenizer = TextTokenizer::open(empty.path(), 300).unwrap();
    assert_eq!((tokenizer.bos(), tokenizer.prefix()), (None, 0));
}

/// The `tokenizers` crate panics on such a file.
#[test]
fn a_tokenizer_with_an_invalid_character_map_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(folder("plain").join("tokenizer.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["normalizer"] =
        serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAAA" });
    std::fs::write(directory.path().join("tokenizer.json"), json.to_string()).unwrap();
    let error = TextTokenizer::open(directory.path(), 300).err().unwrap();
    let error = error.to_string();
    assert!(
        error.contains("tokenizer.json") && error.contains("precompiled_charsmap is too short"),
        "{error}"
    );
}
