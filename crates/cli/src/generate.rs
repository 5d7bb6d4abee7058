//! `iiet generate`

mod batch;

use std::io::Read;
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use iiet_data::TextStream;
use iiet_model::{End, GenerateOptions, ModelError, Precision, Sampler, Sampling, Speed, generate};

use crate::backend::{Chosen, DeviceArgument};
use crate::precision::{self, PrecisionArgument};
use crate::print::{errln, is_closed, out, outln};
use crate::stop::Stops;
use crate::text_model::TextModel;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model directory with a tokenizer.json.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The text to continue; - reads standard input, without its last line end.
    #[arg(long, value_name = "TEXT", required_unless_present = "batch")]
    prompt: Option<String>,
    /// A file of prompts, and results as JSONL: one a line, or in a .jsonl file a string or an
    /// object with "prompt" a line.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    batch: Option<PathBuf>,
    /// How many prompts of a batch are continued side by side.
    #[arg(long, value_name = "N", default_value_t = 8, requires = "batch",
        value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// The most tokens to add.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// 0 takes the most likely token each time.
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    temperature: f64,
    /// Draw from the K most likely tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Draw from the fewest tokens whose probabilities sum to P.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Draw from tokens at least P times as likely as the most likely one.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    min_p: f64,
    /// Above 1, makes tokens that the text has already less likely.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// End the text before this string; repeatable.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Of the draws; the same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    precision: PrecisionArgument,
    /// The type that keys and values are kept in [default: that of --precision]
    #[arg(long, value_name = "TYPE", value_parser = precision::parser())]
    cache: Option<Precision>,
    /// Go on when the context is full, without the oldest half of the text.
    #[arg(long)]
    sliding: bool,
    #[command(flatten)]
    device: DeviceArgument,
}

impl Arguments {
    fn sampling(&self) -> Result<Sampling, ModelError> {
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

    /// The model, and how its texts are continued.
    fn open(&self, chosen: &Chosen) -> anyhow::Result<(TextModel, GenerateOptions)> {
        let precision = self.precision.on(chosen)?;
        let cache = self.cache.unwrap_or(precision);
        let cache = precision::check("--cache", cache, chosen)?;
        let text_model = TextModel::open(precision, &self.model, &chosen.device)?;
        let options = GenerateOptions {
            max_tokens: self.max_tokens,
            end: text_model.config.eos_token_ids.clone(),
            cache,
            sliding: self.sliding,
        };
        Ok((text_model, options))
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let sampling = arguments.sampling()?;
    let chosen = arguments.device.open()?;
    if let Some(file) = &arguments.batch {
        return batch::run(file, arguments, &sampling, &chosen);
    }
    let prompt = match arguments.prompt.as_deref() {
        Some("-") => read_standard_input()?,
        Some(prompt) => prompt.to_owned(),
        None => String::new(),
    };
    let (text_model, options) = arguments.open(&chosen)?;
    let ids = text_model.encode(&prompt)?;

    let mut writer = Writer::new(&text_model, &ids, &arguments.stop)?;
    // The prompt appears once it is known that it can be continued, that is with the first token.
    let mut shown = false;
    let mut sampler = Sampler::new(&sampling);
    let result = generate(
        &text_model.model,
        &ids,
        &options,
        &mut sampler,
        &chosen.device,
        |id| {
            let prompt = if shown { "" } else { prompt.as_str() };
            shown = true;
            writer.take(id, |text| show(prompt, text))
        },
    );
    let (text, speed) = result.map_err(explain)?;
    if !shown {
        out!("{prompt}")?;
    }
    let end = writer.finish(text.end, |text| out!("{text}"))?;
    outln!("")?;
    report(speed, &format!("the text ended {}", end.in_words()));
    Ok(())
}

fn read_standard_input() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .context("reading the prompt from standard input")?;
    let mut text = String::from_utf8(bytes).context("the prompt on standard input is no UTF-8")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Fails when nobody reads on.
fn show(before: &str, text: &str) -> anyhow::Result<()> {
    out!("{before}{text}")?;
    ensure!(!is_closed(), "standard output is closed");
    Ok(())
}

/// A prompt that does not fit has a way out.
fn explain(error: ModelError) -> anyhow::Error {
    match error {
        ModelError::PromptTooLong { .. } => {
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

/// Why a text ended, for those who look at text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextEnd {
    /// The model ended it.
    Token,
    /// It has `--max-tokens`.
    Length,
    /// The context is full.
    Context,
    /// A stop string came.
    Stop,
    /// Nobody reads on.
    Closed,
}

impl TextEnd {
    fn in_words(self) -> &'static str {
        match self {
            Self::Token => "with the model's end of text",
            Self::Length => "at --max-tokens",
            Self::Context => "where the context was full; --sliding goes on",
            Self::Stop => "before a stop string",
            Self::Closed => "as nobody read on",
        }
    }

    /// In JSON.
    fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Length => "length",
            Self::Context => "context",
            Self::Stop | Self::Closed => "stop",
        }
    }
}

/// From tokens to text, up to a stop string.
struct Writer<'a> {
    text_model: &'a TextModel,
    stream: TextStream<'a>,
    stops: Stops<'a>,
    ended: Option<TextEnd>,
}

impl<'a> Writer<'a> {
    fn new(text_model: &'a TextModel, prompt: &[u32], stops: &'a [String]) -> anyhow::Result<Self> {
        let size = text_model.tokenizer.vocab_size();
        // Ids beyond the tokenizer's, as padded vocabularies have them, stand for no text.
        let prompt: Vec<u32> = prompt
            .iter()
            .copied()
            .filter(|id| (*id as usize) < size)
            .collect();
        Ok(Self {
            stream: TextStream::new(&text_model.tokenizer, &prompt)?,
            stops: Stops::new(stops),
            ended: None,
            text_model,
        })
    }

    /// Shows what a token adds; breaks when the text has ended.
    fn take(&mut self, id: u32, show: impl FnOnce(&str) -> anyhow::Result<()>) -> ControlFlow<()> {
        let known = (id as usize) < self.text_model.tokenizer.vocab_size();
        let text = if known {
            self.stream.push(id).unwrap_or_default()
        } else {
            String::new()
        };
        let (text, stopped) = self.stops.push(&text);
        if stopped {
            self.ended = Some(TextEnd::Stop);
        }
        if show(&text).is_err() {
            self.ended = Some(TextEnd::Closed);
        }
        match self.ended {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    }

    /// Shows what was held back, and says why the text ended.
    fn finish(
        self,
        end: End,
        show: impl FnOnce(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<TextEnd> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        let mut stops = self.stops;
        let (text, stopped) = stops.push(&self.stream.finish()?);
        show(&if stopped {
            text
        } else {
            text + &stops.finish()
        })?;
        Ok(match end {
            _ if stopped => TextEnd::Stop,
            End::Token(_) => TextEnd::Token,
            End::Context => TextEnd::Context,
            End::Length | End::Caller => TextEnd::Length,
        })
    }
}
