//! A sequence-to-sequence model from strings to strings, against its tokens; and directories that it refuses.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_model::{
    EncoderDecoder, EncoderDecoderConfig, LlamaConfig, Precision, SaveOptions, StackConfig, save,
};
use iiet_ode::{Options, SolverConfig};
use iiet_text::{BeamSearch, EngineOptions, TargetEnds, TextError, TextHypothesis, TextToText};
use tempfile::TempDir;

const BOTH: [&str; 2] = ["sentence-piece", "byte-level"];
const SOURCES: [&str; 5] = [
    "Once upon a time",
    "x",
    "a line\nanother",
    "日本 and",
    "Tim and Tom </s>",
];

fn tokenizer(name: &str) -> PathBuf {
    let tokenizers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/tests/llama");
    tokenizers.join(name).join("tokenizer.json")
}

fn config() -> EncoderDecoderConfig {
    let stack = |solver: &str| StackConfig {
        n_layers: 2,
        solver: SolverConfig::named(solver).unwrap(),
    };
    EncoderDecoderConfig {
        vocab_size: 332,
        d_model: 16,
        seq_len: 40,
        initializer_range: 0.3,
        block: LlamaConfig {
            d_ff: 24,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        encoder: stack("explicit_euler"),
        decoder: stack("iterative_implicit_euler"),
        ..EncoderDecoderConfig::default()
    }
}

/// A model directory with a tokenizer, which has two tokens fewer than the model.
fn directory(name: &str, config: &EncoderDecoderConfig) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = EncoderDecoder::init(config, 3, &Device::default()).unwrap();
    save(&model, folder.path(), &SaveOptions::default()).unwrap();
    fs::copy(tokenizer(name), folder.path().join("tokenizer.json")).unwrap();
    folder
}

fn open(folder: &TempDir) -> Result<TextToText, TextError> {
    TextToText::open(Precision::F32, folder.path(), &Device::default())
}

/// The targets of each source, decoded `rows` at a time.
fn search(
    model: &TextToText,
    sources: &[&str],
    options: &BeamSearch,
    rows: usize,
) -> Vec<Vec<TextHypothesis>> {
    let cache = Precision::F32;
    let mut found = vec![Vec::new(); sources.len()];
    let on_target = |number: usize, texts| {
        found[number] = texts;
        ControlFlow::Continue(())
    };
    let batch = EngineOptions { rows, cache };
    model.search(sources, options, batch, on_target).unwrap();
    found
}

const OPTIONS: BeamSearch = BeamSearch {
    beam: 3,
    length_penalty: 0.6,
    min_tokens: 0,
    max_tokens: 12,
    no_repeat_ngram: 2,
    n_best: 2,
};

#[test]
fn the_targets_of_texts_are_those_of_their_tokens_in_any_batch() {
    let device = Device::default();
    for name in BOTH {
        let folder = directory(name, &config());
        let model = open(&folder).unwrap();
        let end = model.tokenizer().document_end().unwrap();
        let ends = TargetEnds {
            start: end,
            end: vec![end],
        };
        assert_eq!(*model.ends(), ends);
        let together = search(&model, &SOURCES, &OPTIONS, 2);
        for (source, found) in SOURCES.iter().zip(together) {
            let ids = model.tokenizer().encode(source).unwrap();
            let ids = [&ids[..], &[end]].concat();
            assert_eq!(model.encode(source).unwrap(), ids);
            let cache = Precision::F32;
            let expected = OPTIONS.search(model.model(), &[&ids], &ends, cache, &device);
            let expected = expected.unwrap().remove(0);
            assert_eq!(found.len(), 2);
            for (found, expected) in found.iter().zip(expected) {
                assert_eq!(found.hypothesis.tokens, expected.tokens, "{source:?}");
                let known = expected.tokens.iter().copied().filter(|id| *id < 330);
                let known: Vec<u32> = known.collect();
                let text = model.tokenizer().decode(&known).unwrap();
                assert_eq!(found.text, text, "{source:?}");
            }
        }
    }
}

#[test]
fn a_greedy_text_arrives_in_pieces_and_can_be_ended() {
    let greedy = BeamSearch {
        beam: 1,
        n_best: 1,
        no_repeat_ngram: 1,
        ..OPTIONS
    };
    let mut longest = 0;
    for name in BOTH {
        let folder = directory(name, &config());
        let model = open(&folder).unwrap();
        let expected = search(&model, &SOURCES, &greedy, 5);
        for (source, expected) in SOURCES.iter().zip(expected) {
            let mut pieces = Vec::new();
            let on_text = |text: &str| {
                pieces.push(text.to_owned());
                ControlFlow::Continue(())
            };
            let text = model.greedy(source, &greedy, Precision::F32, on_text);
            let text = text.unwrap();
            assert_eq!(pieces.concat(), text.text);
            assert_eq!(text.hypothesis.tokens, expected[0].hypothesis.tokens);
            // Bytes that are no characters may be replaced one by one or together.
            if !expected[0].text.contains(char::REPLACEMENT_CHARACTER) {
                assert_eq!(text.text, expected[0].text, "{name}, {source:?}");
            }
            longest = longest.max(pieces.len());
            if pieces.len() > 1 {
                let mut calls = 0;
                let once = |_: &str| {
                    calls += 1;
                    ControlFlow::Break(())
                };
                let ended = model.greedy(source, &greedy, Precision::F32, once);
                let ended = ended.unwrap().hypothesis;
                assert_eq!(ended.tokens, expected[0].hypothesis.tokens[..1]);
                assert_eq!((ended.end, calls), (None, 1));
            }
        }
    }
    assert!(longest > 3, "{longest}");
}

#[test]
fn the_configuration_says_where_targets_begin_and_end() {
    let given = EncoderDecoderConfig {
        decoder_start_token_id: Some(7),
        eos_token_ids: vec![9, 11],
        ..config()
    };
    let folder = directory("byte-level", &given);
    let model = open(&folder).unwrap();
    let (start, end) = (7, vec![9, 11]);
    assert_eq!(*model.ends(), TargetEnds { start, end });
    let rule = "text is encoded as tokenizer.json says; a source ends with the token 1, a target begins \
                with 7 and ends with 9 or 11";
    assert_eq!(TextToText::rule(folder.path()).unwrap(), rule);
    // A source ends as documents do.
    assert_eq!(model.encode("x").unwrap().pop(), Some(1));
    // Where the tokenizer has no end of a document, the first end of targets stands for it.
    let path = folder.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("<|end_of_text|>", "<|other|>")).unwrap();
    assert_eq!(open(&folder).unwrap().encode("x").unwrap().pop(), Some(9));
}

#[test]
fn directories_and_sources_that_cannot_be_used_are_errors_that_say_why() {
    let folder = directory("byte-level", &config());
    let model = open(&folder).unwrap();
    let error = model.encode("").unwrap_err().to_string();
    assert_eq!(error, "the source is empty; allowed: one token and more");
    let long = "é".repeat(100);
    let tokens = model.tokenizer().encode(&long).unwrap().len() + 1;
    let error = model.encode(&long).unwrap_err().to_string();
    let expected = format!("the source has {tokens} tokens, the model's context 40");
    assert_eq!(error, expected);
    let batch = EngineOptions {
        rows: 1,
        cache: Precision::F32,
    };
    let never = |_, _| panic!("a source was decoded");
    let error = model.search(&["x", ""], &OPTIONS, batch, never);
    assert!(error.unwrap_err().to_string().contains("is empty"));

    let small = EncoderDecoderConfig {
        vocab_size: 329,
        ..config()
    };
    let error = open(&directory("byte-level", &small))
        .unwrap_err()
        .to_string();
    let expected = "tokenizer.json: token ids up to 329, but the model's vocabulary has 329 tokens";
    assert!(error.contains(expected), "{error}");

    let path = folder.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("<|end_of_text|>", "<|other|>")).unwrap();
    let error = open(&folder).unwrap_err().to_string();
    let expected = "tokenizer.json: has no token for the end of a document";
    assert!(error.contains(expected), "{error}");

    fs::remove_file(&path).unwrap();
    let error = open(&folder).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: no such file"), "{error}");
}
