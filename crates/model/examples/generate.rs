//! Prints how a model continues a prompt: `cargo run --example generate -- MODEL_DIR PROMPT`

use std::{error::Error, io::Write, ops::ControlFlow, path::Path};

use burn::tensor::Device;
use iiet_data::{TextStream, Tokenizer};
use iiet_model::{GenerateOptions, Precision, Sampler, Sampling, generate, load};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, dir, prompt] = &arguments[..] else {
        return Err("usage: generate MODEL_DIR PROMPT".into());
    };
    let (dir, device) = (Path::new(dir), Device::default());
    let (model, config) = load(dir, &device)?;
    let tokenizer = Tokenizer::open(&dir.join("tokenizer.json"))?;
    let ids = [tokenizer.start(), tokenizer.encode(prompt)?].concat();

    let options = GenerateOptions {
        max_tokens: 100,
        end: config.eos_token_ids,
        cache: Precision::F32,
        sliding: false,
    };
    let mut sampler = Sampler::new(&Sampling::default());
    let mut text = TextStream::new(&tokenizer, &ids)?;
    print!("{prompt}");
    generate(&model, &ids, &options, &mut sampler, &device, |id| {
        print!("{}", text.push(id).unwrap_or_default());
        let shown = std::io::stdout().flush();
        shown.map_or(ControlFlow::Break(()), ControlFlow::Continue)
    })?;
    println!("{}", text.finish()?);
    Ok(())
}
