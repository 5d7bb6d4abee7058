//! Continues a prompt with a model from a directory, and prints the text as it comes.
//!
//! `cargo run --example generate -- runs/tiny/model "pub fn "`

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::tensor::Device;
use iiet_data::{TextStream, Tokenizer};
use iiet_model::{CacheType, GenerateOptions, Sampler, Sampling, generate, load};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [dir, prompt] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        return Err("usage: generate MODEL_DIR PROMPT".into());
    };
    let (dir, device) = (PathBuf::from(dir), Device::default());
    let (model, config) = load(&dir, &device)?;
    let tokenizer = Tokenizer::open(&dir.join("tokenizer.json"))?;
    let ids = [tokenizer.start(), tokenizer.encode(prompt)?].concat();

    let options = GenerateOptions {
        max_tokens: 100,
        end: config.eos_token_ids,
        cache: CacheType::F32,
        sliding: false,
    };
    let warm = Sampling {
        temperature: 0.8,
        ..Sampling::default()
    };
    let mut text = TextStream::new(&tokenizer, &ids)?;
    print!("{prompt}");
    generate(
        &model,
        &ids,
        &options,
        &mut Sampler::new(&warm),
        &device,
        |id| {
            print!("{}", text.push(id).unwrap_or_default());
            std::io::stdout()
                .flush()
                .map_or(ControlFlow::Break(()), ControlFlow::Continue)
        },
    )?;
    println!("{}", text.finish()?);
    Ok(())
}
