//! Generation from strings to strings: stop texts and characters that are split over tokens, alone
//! and in a batch, against the whole text decoded at once.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_model::Precision;
use iiet_text::{
    EngineOptions, Request, RequestId, Sampler, Sampling, TextEnd, TextEngine, TextEvent,
    TextModel, TextRequest, generate,
};

fn open(name: &str) -> TextModel {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/tests/llama");
    TextModel::open(Precision::F32, &path.join(name), &Device::default()).unwrap()
}

/// A high temperature, so that the texts contain many incomplete characters.
fn request(number: u64, stop: &[String]) -> TextRequest {
    let sampling = Sampling {
        temperature: 3.0,
        seed: 8,
        ..Sampling::default()
    };
    TextRequest {
        prompt: ["Once", "a line\nanother", "日本", "", "x", "Tim and"][number as usize % 6].into(),
        max_tokens: 40,
        stop: stop.to_vec(),
        sliding: false,
        sampler: Sampler::nth(&sampling, number),
    }
}

type Texts = HashMap<RequestId, (Vec<String>, Option<TextEnd>)>;

/// The pieces of each request's text, and why it ended.
fn run(
    text_model: &TextModel,
    rows: usize,
    requests: Vec<TextRequest>,
) -> Vec<(Vec<String>, TextEnd)> {
    let cache = Precision::F32;
    let options = EngineOptions { rows, cache };
    let mut engine = TextEngine::new(text_model.clone(), options, &Device::default());
    let ids: Vec<RequestId> = requests
        .into_iter()
        .map(|request| engine.admit(request).unwrap())
        .collect();
    let mut texts = Texts::new();
    while !engine.is_idle() {
        for event in engine.step() {
            match event {
                TextEvent::Text { id, text } => {
                    let (pieces, end) = texts.entry(id).or_default();
                    assert!(end.is_none(), "text after the end");
                    pieces.push(text);
                }
                TextEvent::Ended { id, end, .. } => texts.entry(id).or_default().1 = Some(end),
                other => panic!("{other:?}"),
            }
        }
    }
    ids.iter()
        .map(|id| {
            let (pieces, end) = texts.remove(id).unwrap();
            (pieces, end.unwrap())
        })
        .collect()
}

#[test]
fn texts_do_not_depend_on_others_in_the_batch() {
    for name in ["sentence-piece", "byte-level"] {
        let text_model = open(name);
        let requests: Vec<TextRequest> = (0..12).map(|i| request(i, &[])).collect();
        let together = run(&text_model, 5, requests.clone());
        for (request, (pieces, end)) in requests.into_iter().zip(together) {
            let prompt = request.prompt.clone();
            let alone = run(&text_model, 1, vec![request]).remove(0);
            assert_eq!(
                (pieces.concat(), end),
                (alone.0.concat(), alone.1),
                "{prompt:?}"
            );
        }
    }
}

#[test]
fn a_text_ends_before_the_stop_text_that_begins_first() {
    let mut stopped = 0;
    for name in ["sentence-piece", "byte-level"] {
        let text_model = open(name);
        for number in 0..12 {
            let whole = run(&text_model, 1, vec![request(number, &[])])
                .remove(0)
                .0
                .concat();
            let characters: Vec<char> = whole.chars().collect();
            // Overlapping pieces of the text itself, and one that does not occur.
            let piece = |from: usize, length: usize| -> String {
                characters.iter().skip(from).take(length).collect()
            };
            let stops = [piece(7, 3), piece(5, 6), piece(9, 1), "never \u{1}".into()];
            let stops: Vec<String> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
            let found = run(&text_model, 1, vec![request(number, &stops)]).remove(0);
            let first = stops
                .iter()
                .filter_map(|stop| whole.find(stop.as_str()))
                .min();
            let expected = &whole[..first.unwrap_or(whole.len())];
            assert_eq!(
                found.0.concat(),
                expected,
                "{name}, {number}: {whole:?} {stops:?}"
            );
            if first.is_some() {
                assert_eq!(found.1, TextEnd::Stop);
                stopped += 1;
            }
        }
    }
    assert!(stopped > 12, "{stopped} texts had a stop text");
}

#[test]
fn characters_split_over_tokens_are_output_whole() {
    let mut split = 0;
    for name in ["sentence-piece", "byte-level"] {
        let text_model = open(name);
        let requests: Vec<TextRequest> = (0..300)
            .map(|number| TextRequest {
                max_tokens: 4,
                ..request(number, &[])
            })
            .collect();
        let texts = run(&text_model, 8, requests.clone());
        let tokens = tokens(&text_model, &requests);
        for ((request, (pieces, _)), (prompt, new)) in requests.iter().zip(&texts).zip(tokens) {
            let decode = |ids: &[u32]| text_model.tokenizer().decode(ids).unwrap();
            let (before, all) = (decode(&prompt), decode(&[prompt, new].concat()));
            if all.contains(char::REPLACEMENT_CHARACTER) {
                continue;
            }
            assert_eq!(
                before + &pieces.concat(),
                all,
                "{name}: {:?}",
                request.prompt
            );
            let empty = pieces.iter().filter(|piece| piece.is_empty()).count();
            split += usize::from(empty > 0 && !all.is_ascii());
        }
    }
    assert!(split > 3, "{split} texts had a character of several tokens");
}

/// The tokens of each prompt and of its continuation, from the engine for tokens.
fn tokens(text_model: &TextModel, requests: &[TextRequest]) -> Vec<(Vec<u32>, Vec<u32>)> {
    let tokens = requests.iter().map(|request| {
        let prompt = text_model.encode(&request.prompt).unwrap();
        let request = Request {
            prompt: prompt.clone(),
            max_tokens: request.max_tokens,
            end: text_model.config().eos_token_ids.clone(),
            sliding: false,
            sampler: request.sampler.clone(),
        };
        let (model, device) = (text_model.model(), Device::default());
        let go_on = |_| ControlFlow::Continue(());
        let (text, _) = generate(model, request, Precision::F32, &device, go_on).unwrap();
        (prompt, text.ids)
    });
    tokens.collect()
}
