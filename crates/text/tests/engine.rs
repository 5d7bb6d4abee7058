//! The engine's texts equal those of full forward passes, independent of other requests and of when they are
//! admitted.

use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_model::{LanguageModel, Precision, load, token_ids};
use iiet_text::{
    Continuation, End, Engine, EngineOptions, Event, Request, RequestId, Sampler, Sampling,
    generate,
};
use serde_json::Value;

/// The models' context, in tokens.
const CONTEXT: usize = 24;
/// The vocabulary of the golden models.
const VOCAB: u32 = 101;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/golden/models")
}

/// Models of every solver, with weights initialised by PyTorch, and a short context.
fn models() -> Vec<(String, LanguageModel)> {
    let entries = fs::read_dir(golden()).unwrap();
    let directories = entries.map(|entry| entry.unwrap().path());
    let directories = directories.filter(|path| path.join("config.json").exists());
    directories
        .map(|from| {
            let folder = tempfile::tempdir().unwrap();
            let weights = "model.safetensors";
            fs::copy(from.join(weights), folder.path().join(weights)).unwrap();
            let config = fs::read(from.join("config.json")).unwrap();
            let mut config: Value = serde_json::from_slice(&config).unwrap();
            config["max_position_embeddings"] = CONTEXT.into();
            config["bos_token_id"] = 1.into();
            fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
            let (model, _) = load(folder.path(), &Device::default()).unwrap();
            (from.file_name().unwrap().display().to_string(), model)
        })
        .collect()
}

fn request(prompt: &[u32], max_tokens: usize, sliding: bool) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens,
        end: vec![],
        sliding,
        sampler: Sampler::new(&Sampling::default()),
    }
}

fn alone(model: &LanguageModel, request: Request) -> Continuation {
    let go_on = |_| ControlFlow::Continue(());
    let (text, _) = generate(model, request, Precision::F32, &Device::default(), go_on).unwrap();
    text
}

fn engine(model: &LanguageModel, rows: usize) -> Engine {
    let cache = Precision::F32;
    let options = EngineOptions { rows, cache };
    Engine::new(model.clone(), options, &Device::default())
}

/// The most likely token after a text, by a full pass without caches.
fn next(model: &LanguageModel, text: &[u32]) -> u32 {
    let ids = token_ids(text, [1, text.len()], &Device::default());
    let logits = model.forward(ids).try_into_vec_as::<f32>().unwrap();
    let last = &logits[(text.len() - 1) * VOCAB as usize..];
    let best = (0..last.len())
        .rev()
        .max_by(|a, b| last[*a].total_cmp(&last[*b]));
    best.unwrap() as u32
}

/// Greedy decoding by full passes over the context window.
fn naive(model: &LanguageModel, prompt: &[u32], n: usize, sliding: bool) -> Vec<u32> {
    let half = |window: &[u32]| match window[0] {
        1 => [&[1], &window[window.len() - (CONTEXT / 2 - 1)..]].concat(),
        _ => window[window.len() - CONTEXT / 2..].to_vec(),
    };
    let (mut window, mut new) = (prompt.to_vec(), Vec::new());
    for _ in 0..n {
        if window.len() > CONTEXT {
            if !sliding {
                break;
            }
            window = half(&window);
        }
        let next = next(model, &window);
        window.push(next);
        new.push(next);
    }
    new
}

/// Steps until no request is left; returns the texts.
fn finish(engine: &mut Engine, texts: &mut HashMap<RequestId, (Vec<u32>, Option<End>)>) {
    while !engine.is_idle() {
        step(engine, texts);
    }
}

fn step(engine: &mut Engine, texts: &mut HashMap<RequestId, (Vec<u32>, Option<End>)>) {
    for event in engine.step() {
        match event {
            Event::Token { id, token } => {
                let (text, end) = texts.entry(id).or_default();
                assert!(end.is_none(), "a token after the end");
                text.push(token);
            }
            Event::Ended { id, end } => texts.entry(id).or_default().1 = Some(end),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn greedy_texts_equal_full_passes_also_when_sliding() {
    let models = models();
    assert!(models.len() >= 6, "{} models", models.len());
    for (name, model) in &models {
        for prompt in [vec![1, 9, 3], vec![8, 2, 40, 3], (1..50).collect()] {
            let found = alone(model, request(&prompt, 60, true));
            assert_eq!(found.ids, naive(model, &prompt, 60, true), "{name}");
            assert_eq!(found.end, End::Length);
        }
        let found = alone(model, request(&[1, 9, 3], 60, false));
        assert_eq!(found.ids, naive(model, &[1, 9, 3], 60, false), "{name}");
        // The last of them is sampled from the logits at the last position of the context.
        assert_eq!(
            (found.ids.len(), found.end),
            (CONTEXT - 3 + 1, End::Context)
        );
    }
}

#[test]
fn texts_admitted_at_any_step_equal_those_generated_alone() {
    let sampling = Sampling {
        temperature: 0.9,
        top_p: 0.95,
        seed: 3,
        ..Sampling::default()
    };
    let request = |number: u32| {
        let length = [1, 5, 23, 3, 40, 2, 9, 17, 1, 30][number as usize];
        Request {
            prompt: (0..length).map(|i| (i * 7 + number * 11) % VOCAB).collect(),
            max_tokens: [40, 3, 1, 25, 12, 7, 60, 2, 9, 33][number as usize],
            end: vec![0, 2],
            sliding: true,
            sampler: Sampler::nth(&sampling, number.into()),
        }
    };
    let mut evicted = 0;
    for (name, model) in models() {
        for rows in [1, 3, 8] {
            let mut engine = engine(&model, rows);
            let mut texts = HashMap::new();
            let (mut ids, mut taken) = (Vec::new(), HashMap::new());
            // Ten requests, one or two before each step; two of them are evicted during generation.
            for number in 0..10 {
                ids.push(engine.admit(request(number)).unwrap());
                if number % 3 != 1 {
                    step(&mut engine, &mut texts);
                }
                if number == 5 {
                    taken.insert(3, engine.evict(ids[3]));
                    assert!(engine.evict(ids[3]).is_none());
                }
            }
            taken.insert(6, engine.evict(ids[6]));
            finish(&mut engine, &mut texts);
            for (number, id) in ids.iter().enumerate() {
                let expected = alone(&model, request(number as u32));
                let (text, end) = texts.remove(id).unwrap_or_default();
                let place = format!("{name}, {rows} rows, request {number}");
                // With many rows it may have ended before its eviction.
                if let Some(Some(taken)) = taken.get(&number) {
                    assert_eq!(text, *taken, "{place}");
                    assert_eq!(text, expected.ids[..text.len()], "{place}");
                    assert!(end.is_none(), "{place}");
                    evicted += 1;
                    continue;
                }
                assert_eq!(text, expected.ids, "{place}");
                assert_eq!(end, Some(expected.end), "{place}");
            }
            assert!(texts.is_empty() && engine.is_idle());
        }
    }
    assert!(evicted > 10, "{evicted} texts were evicted");
}

#[test]
fn a_prompt_of_several_chunks_is_prefilled_while_others_continue() {
    let (model, _) = load(&golden().join("iiet-r3-gqa-untied"), &Device::default()).unwrap();
    let long: Vec<u32> = (0..1300).map(|i| i * 11 % VOCAB).collect();
    let mut engine = engine(&model, 2);
    let mut texts = HashMap::new();
    let short = engine.admit(request(&[4, 5], 12, false)).unwrap();
    let long_id = engine.admit(request(&long, 3, false)).unwrap();
    for steps in 1..=3 {
        step(&mut engine, &mut texts);
        // The prompts differ in length, so the short one is prefilled first: in the first step.
        assert_eq!(texts[&short].0.len(), steps);
        assert!(!texts.contains_key(&long_id));
    }
    step(&mut engine, &mut texts);
    assert_eq!(texts[&long_id].0.len(), 1);
    finish(&mut engine, &mut texts);
    assert_eq!(
        texts[&short].0,
        alone(&model, request(&[4, 5], 12, false)).ids
    );
    assert_eq!(texts[&long_id].0[0], next(&model, &long));
    assert_eq!(
        texts[&long_id].0,
        alone(&model, request(&long, 3, false)).ids
    );
    assert_eq!(engine.speed().prefill_tokens, 1302);
}

#[test]
fn free_rows_are_given_to_waiting_requests() {
    let (_, model) = models().remove(0);
    let mut engine = engine(&model, 2);
    let mut texts = HashMap::new();
    let ids: Vec<RequestId> = (0..6)
        .map(|i| engine.admit(request(&[i + 3, 4], 4, false)).unwrap())
        .collect();
    let mut steps = 0;
    while !engine.is_idle() {
        step(&mut engine, &mut texts);
        steps += 1;
        let open = texts.values().filter(|(_, end)| end.is_none()).count();
        assert!(open <= 2, "{open} texts in 2 rows");
    }
    // Four tokens each, two at a time; the next two are prefilled in the step in which rows become free.
    assert_eq!((texts.len(), steps), (ids.len(), 10));
}

#[test]
fn texts_end_for_the_expected_reasons() {
    let (_, model) = models().remove(0);
    let text = alone(&model, request(&[3], 12, false));
    assert_eq!((text.ids.len(), text.end), (12, End::Length));
    // The fifth token ends the text, unless it occurred before.
    let fifth = text.ids[4];
    let place = text.ids.iter().position(|id| *id == fifth).unwrap();
    let stop = Request {
        end: vec![fifth],
        ..request(&[3], 12, false)
    };
    let short = alone(&model, stop);
    assert_eq!(short.ids, text.ids[..place]);
    assert_eq!(short.end, End::Token(fifth));
    let none = alone(&model, request(&[3], 0, false));
    assert_eq!((none.ids, none.end), (vec![], End::Length));
    let mut seen = 0;
    let twice = |_| {
        seen += 1;
        match seen {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let request = request(&[3], 12, false);
    let (text, _) = generate(&model, request, Precision::F32, &Device::default(), twice).unwrap();
    assert_eq!((text.ids.len(), text.end), (2, End::Caller));
}

#[test]
fn invalid_prompts_are_errors() {
    let (_, model) = models().remove(0);
    for (prompt, expected) in [
        (&[][..], "the prompt has no tokens"),
        (&[3, 101], "the prompt has the token 101; allowed: 0 to 100"),
        (&[1; 25], "the prompt has 25 tokens, the model's context 24"),
    ] {
        let error = engine(&model, 1).admit(request(prompt, 1, false));
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
