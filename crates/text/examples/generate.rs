//! Continues prompts in one batch: `cargo run --example generate -- MODEL_DIR PROMPT..`

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use iiet_model::Precision;
use iiet_text::{EngineOptions, Sampler, Sampling, TextEngine, TextEvent, TextModel, TextRequest};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, prompts @ ..] = &arguments[..] else {
        return Err("usage: generate MODEL_DIR PROMPT..".into());
    };
    let device = Device::default();
    let text_model = TextModel::open(Precision::F32, Path::new(dir), &device)?;
    let options = EngineOptions {
        rows: 8,
        cache: Precision::F32,
    };
    let mut engine = TextEngine::new(text_model, options, &device);
    let mut texts = Vec::new();
    for (number, prompt) in prompts.iter().enumerate() {
        let id = engine.admit(TextRequest {
            prompt: prompt.clone(),
            max_tokens: 100,
            stop: vec!["\n\n".into()],
            sliding: false,
            sampler: Sampler::nth(&Sampling::default(), number as u64),
        })?;
        texts.push((id, prompt.clone()));
    }
    while !engine.is_idle() {
        for event in engine.step() {
            match event {
                TextEvent::Text { id, text } => {
                    let mut texts = texts.iter_mut();
                    texts
                        .find(|(of, _)| *of == id)
                        .into_iter()
                        .for_each(|(_, all)| all.push_str(&text));
                }
                TextEvent::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }
    for (_, text) in texts {
        println!("{text}\n");
    }
    Ok(())
}
