//! Targets of sequence-to-sequence models, for one source or many.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use iiet_model::{EncoderDecoder, Precision};
use iiet_text::{BeamBatch, BeamSearch, EngineOptions, Hypothesis, TextHypothesis, TextToText};
use serde_json::{Value, json};

use super::batch::Lines;
use super::{Arguments, prompts};
use crate::backend::Chosen;
use crate::precision;
use crate::print::{errln, is_closed, out, outln};

/// Sources are sorted by their length in parts of so many batches, so that results of a long file appear
/// before its end.
const BATCHES: usize = 16;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    refuse_others(arguments)?;
    let options = arguments.beam.options().apply(BeamSearch {
        max_tokens: arguments.max_tokens,
        n_best: arguments.n_best.unwrap_or(1),
        ..BeamSearch::default()
    });
    options.validate()?;
    let most = arguments.max_prompt_bytes;
    let sources = match (&arguments.batch, arguments.source.as_deref()) {
        (Some(file), _) => prompts::read(file, "source", most)?,
        (None, Some("-")) => vec![(1, prompts::standard_input("source", most)?)],
        (None, source) => vec![(1, source.unwrap_or_default().to_owned())],
    };
    let rows = usize::from(arguments.batch_size).min(sources.len());
    let chosen = arguments.device.open()?;
    let precision = arguments.precision.on(&chosen)?;
    let cache = arguments.cache.unwrap_or(precision);
    let cache = precision::check("--cache", cache, &chosen)?;
    let longest = sources.iter().map(|(_, source)| source.len()).max();
    let batch = BeamBatch {
        sources: rows,
        // A token stands for a byte or more.
        longest: longest.unwrap_or(0).saturating_add(1),
        precision,
        cache,
    };
    check_memory(arguments, &options, batch, &chosen)?;
    let model = TextToText::open(precision, &arguments.model, &chosen.device)?;
    let started = Instant::now();
    let tokens = match &arguments.batch {
        Some(_) => {
            let batch = EngineOptions { rows, cache };
            print_all(arguments, &model, &options, batch, &sources)?
        }
        None => print_one(&model, &options, cache, &sources[0].1)?,
    };
    if !is_closed() {
        let seconds = started.elapsed().as_secs_f64();
        let rate = tokens as f64 / seconds.max(1e-9);
        errln!("{tokens} tokens in {seconds:.3} s, {rate:.1} tokens/s");
    }
    Ok(())
}

/// Options that a beam search does not have are named, and not ignored.
fn refuse_others(arguments: &Arguments) -> anyhow::Result<()> {
    let model = arguments.model.display();
    if arguments.prompt.is_some() {
        bail!(
            "--prompt: {model} is a sequence-to-sequence model, which has no prompt; give --source"
        );
    }
    // Clap does not see it: --source excludes the --batch that it would require.
    ensure!(
        arguments.n_best.is_none() || arguments.batch.is_some(),
        "--n-best: for --batch, whose lines have the scores; --source prints the best target"
    );
    for (option, given) in [
        ("--temperature", arguments.temperature != 0.0),
        ("--top-k", arguments.top_k != 0),
        ("--top-p", arguments.top_p != 1.0),
        ("--min-p", arguments.min_p != 0.0),
        ("--repetition-penalty", arguments.repetition_penalty != 1.0),
        ("--seed", arguments.seed != 0),
        ("--stop", !arguments.stop.is_empty()),
        ("--sliding", arguments.sliding),
    ] {
        ensure!(
            !given,
            "{option}: for language models; {model} is a sequence-to-sequence model, whose targets are \
             decoded by beam search (--beam, --length-penalty, --min-tokens, --no-repeat-ngram)"
        );
    }
    arguments.corrections.refuse(&arguments.model)?;
    Ok(())
}

fn check_memory(
    arguments: &Arguments,
    options: &BeamSearch,
    batch: BeamBatch,
    chosen: &Chosen,
) -> anyhow::Result<()> {
    if !chosen.on_host {
        return Ok(());
    }
    let config = EncoderDecoder::load_config(&arguments.model)?;
    let work = match batch.sources {
        1 => format!("decoding a source with {} beams", options.beam),
        sources => format!(
            "decoding {sources} sources with {} beams each",
            options.beam
        ),
    };
    let estimate = options.memory(batch, work, &config, &chosen.device)?;
    let estimate = estimate.stored_in(&arguments.model)?;
    estimate.check(match batch.sources {
        1 => "lower --beam or --max-tokens, or use --precision bf16",
        _ => "lower --batch-size, --beam or --max-tokens, or use --precision bf16",
    })?;
    Ok(())
}

/// Prints the best target; with one beam while it is decoded. Returns its number of tokens.
fn print_one(
    model: &TextToText,
    options: &BeamSearch,
    cache: Precision,
    source: &str,
) -> anyhow::Result<usize> {
    let go_on = || match is_closed() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let mut printed = Ok(());
    let best = match options.beam {
        1 => {
            let on_text = |text: &str| {
                printed = out!("{text}");
                match printed {
                    Ok(()) => go_on(),
                    Err(_) => ControlFlow::Break(()),
                }
            };
            Some(model.greedy(source, options, cache, on_text)?)
        }
        _ => {
            let mut best = None;
            let on_target = |_, found: Vec<TextHypothesis>| {
                best = found.into_iter().next();
                go_on()
            };
            let rows = 1;
            model.search(&[source], options, EngineOptions { rows, cache }, on_target)?;
            if let Some(best) = &best {
                printed = out!("{}", best.text);
            }
            best
        }
    };
    printed?;
    outln!("")?;
    let Some(TextHypothesis { hypothesis, .. }) = best else {
        return Ok(0);
    };
    if hypothesis.end.is_some() {
        errln!(
            "the target ended {}",
            match end(&hypothesis, options) {
                "length" => "at --max-tokens",
                "context" => "where the context was full",
                _ => "with the model's end of text",
            }
        );
    }
    Ok(hypothesis.tokens.len())
}

/// Prints a line of JSON for each source, in their order. Returns the number of tokens of the best targets.
fn print_all(
    arguments: &Arguments,
    model: &TextToText,
    options: &BeamSearch,
    batch: EngineOptions,
    sources: &[(usize, String)],
) -> anyhow::Result<usize> {
    let file = arguments.batch.as_deref().unwrap_or("-".as_ref());
    for (line, source) in sources {
        // All are looked at before the first is decoded; their tokens would fill memory.
        let checked = model.encode(source).map(drop);
        checked.with_context(|| format!("{}: line {line}", file.display()))?;
    }
    let mut done = Lines::default();
    let mut tokens = 0;
    let part = BATCHES * batch.rows;
    for (number, sources) in sources.chunks(part).enumerate() {
        let first = number * part;
        let texts: Vec<&str> = sources.iter().map(|(_, source)| source.as_str()).collect();
        let mut printed = Ok(());
        model.search(&texts, options, batch, |number, found| {
            tokens += found.first().map_or(0, |best| best.hypothesis.tokens.len());
            let line = line(texts[number], &found, options);
            printed = done.print(first + number, line.to_string());
            match printed.is_ok() && !is_closed() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        })?;
        printed?;
        if is_closed() {
            break;
        }
    }
    if !is_closed() {
        errln!("{} sources", sources.len());
    }
    Ok(tokens)
}

/// The best target with its source; all of them where more than one is asked for.
fn line(source: &str, found: &[TextHypothesis], options: &BeamSearch) -> Value {
    let of = |found: &TextHypothesis| {
        let TextHypothesis { text, hypothesis } = found;
        json!({
            "text": text,
            "tokens": hypothesis.tokens.len(),
            "end": end(hypothesis, options),
            "log_probability": hypothesis.log_probability,
            "score": hypothesis.score,
        })
    };
    let mut line = found.first().map_or_else(|| json!({}), of);
    line["source"] = source.into();
    if options.n_best > 1 {
        line["n_best"] = found.iter().map(of).collect();
    }
    line
}

/// Why a target ended, in JSON.
fn end(hypothesis: &Hypothesis, options: &BeamSearch) -> &'static str {
    match hypothesis.forced {
        false => "token",
        true if hypothesis.tokens.len() == options.max_tokens => "length",
        true => "context",
    }
}
