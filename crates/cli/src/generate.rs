//! `iiet generate`

mod batch;
mod memory;
mod prompts;
mod targets;

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::ArgGroup;
use iiet_model::{ModelKind, Precision, model_kind};
use iiet_text::{
    EngineOptions, Sampler, Sampling, Speed, TextEnd, TextEngine, TextError, TextEvent, TextModel,
    TextRequest,
};

use crate::backend::{Chosen, DeviceArgument};
use crate::beam::BeamArguments;
use crate::corrections::{self, CorrectionArguments};
use crate::precision::{self, PrecisionArgument};
use crate::print::{errln, is_closed, out, outln};

#[derive(clap::Args)]
#[command(group = ArgGroup::new("texts").required(true))]
pub(crate) struct Arguments {
    /// A model directory with a tokenizer.json, that of a run, a name on the Hugging Face hub, or a GGUF file.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// The text that a language model continues; - reads standard input, without its last line end.
    #[arg(long, value_name = "TEXT", group = "texts")]
    prompt: Option<String>,
    /// The text that a sequence-to-sequence model translates or summarises; - reads standard input.
    #[arg(long, value_name = "TEXT", group = "texts")]
    source: Option<String>,
    /// A file of prompts or sources, with results as JSONL: one per line, or in a .jsonl file a string or an
    /// object with "prompt" or "source" per line; - reads lines from standard input.
    #[arg(long, value_name = "FILE", group = "texts")]
    batch: Option<PathBuf>,
    /// How many prompts or sources of a batch are decoded at a time.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "batch",
        value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// Maximum bytes of a prompt or source, or of its line in a .jsonl file.
    #[arg(long, value_name = "N", default_value_t = 1 << 20)]
    max_prompt_bytes: u64,
    /// Maximum number of tokens to add.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// 0 always takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Sample from the K most likely tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Sample from the smallest set of tokens whose probabilities sum to P.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Sample from tokens at least P times as likely as the most likely one.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f64,
    /// Above 1, makes tokens that occur in the text less likely.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// End the text before this string; repeatable.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// RNG seed; the same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    beam: BeamArguments,
    /// How many hypotheses of a source are in its line of JSONL, with their scores [default: 1]
    #[arg(long, value_name = "N")]
    n_best: Option<usize>,
    #[command(flatten)]
    corrections: CorrectionArguments,
    #[command(flatten)]
    precision: PrecisionArgument,
    /// The precision of the KV cache [default: that of --precision]
    #[arg(long, value_name = "TYPE", value_parser = precision::parser())]
    cache: Option<Precision>,
    /// Continue when the context is full, without the oldest half of the text.
    #[arg(long)]
    sliding: bool,
    #[command(flatten)]
    device: DeviceArgument,
}

impl Arguments {
    fn sampling(&self) -> Result<Sampling, TextError> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        sampling.validate()?;
        Ok(sampling)
    }

    /// The model and the engine's options, for `rows` texts at a time.
    fn open(&self, rows: usize, chosen: &Chosen) -> anyhow::Result<(TextModel, EngineOptions)> {
        let precision = self.precision.on(chosen)?;
        let cache = self.cache.unwrap_or(precision);
        let cache = precision::check("--cache", cache, chosen)?;
        let text_model = TextModel::open(precision, &self.model, &chosen.device)?;
        let solver = self
            .corrections
            .configure(text_model.config().clone())?
            .solver;
        let text_model = text_model.with_solver_options(&solver)?;
        Ok((text_model, EngineOptions { rows, cache }))
    }

    fn request(&self, prompt: &str, sampler: Sampler) -> TextRequest {
        TextRequest {
            prompt: prompt.to_owned(),
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            sliding: self.sliding,
            sampler,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match model_kind(&arguments.model)? {
        ModelKind::EncoderDecoder => targets::run(arguments),
        _ => go_on(arguments),
    }
}

/// Continues the prompts with a language model.
fn go_on(arguments: &Arguments) -> anyhow::Result<()> {
    let model = arguments.model.display();
    if arguments.source.is_some() {
        bail!("--source: {model} is a language model, which has no source; give --prompt");
    }
    let n_best = arguments.n_best.map(|_| "--n-best");
    if let Some(option) = arguments.beam.given().or(n_best) {
        bail!(
            "{option}: for sequence-to-sequence models; {model} is a language model, which samples \
             (--temperature, --top-p)"
        );
    }
    let sampling = arguments.sampling()?;
    let chosen = arguments.device.open()?;
    if let Some(file) = &arguments.batch {
        return batch::run(file, arguments, &sampling, &chosen);
    }
    let mut prompt = match arguments.prompt.as_deref() {
        Some("-") => prompts::standard_input("prompt", arguments.max_prompt_bytes)?,
        Some(prompt) => prompt.to_owned(),
        None => String::new(),
    };
    memory::check(arguments, &chosen, 1, prompt.len())?;
    let (text_model, options) = arguments.open(1, &chosen)?;
    let mut engine = TextEngine::new(text_model, options, &chosen.device);
    let request = arguments.request(&prompt, Sampler::new(&sampling));
    engine.admit(request).map_err(explain)?;
    while !engine.is_idle() {
        for event in engine.step() {
            match event {
                // The prompt is printed with the first token, when it is known that it can be continued.
                TextEvent::Text { text, .. } => out!("{}{text}", std::mem::take(&mut prompt))?,
                TextEvent::Ended { end, .. } => {
                    outln!("{prompt}")?;
                    corrections::report(engine.corrections());
                    report(engine.speed(), &format!("the text ended {}", in_words(end)));
                }
                TextEvent::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
        if is_closed() {
            // The reader of standard output is gone.
            break;
        }
    }
    Ok(())
}

/// Adds the remedy for a prompt that is too long.
fn explain(error: TextError) -> anyhow::Error {
    match error {
        TextError::PromptTooLong { .. } => {
            anyhow!("{error}; --sliding continues the end of it")
        }
        other => other.into(),
    }
}

fn report(speed: Speed, end: &str) {
    let rate = |tokens: usize, time: std::time::Duration| {
        let seconds = time.as_secs_f64();
        format!(
            "{tokens} tokens in {seconds:.3} s, {:.1} tokens/s",
            tokens as f64 / seconds.max(1e-9)
        )
    };
    errln!("prefill: {}", rate(speed.prefill_tokens, speed.prefill));
    if speed.decode_tokens > 0 {
        errln!("decode: {}", rate(speed.decode_tokens, speed.decode));
    }
    errln!("{end}");
}

fn in_words(end: TextEnd) -> &'static str {
    match end {
        TextEnd::Token => "with the model's end of text",
        TextEnd::Length => "at --max-tokens",
        TextEnd::Context => "where the context was full; --sliding continues",
        TextEnd::Stop => "before a stop string",
    }
}
