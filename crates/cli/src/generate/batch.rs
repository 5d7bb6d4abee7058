//! Many prompts, results as JSONL.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context;
use iiet_text::{Sampler, Sampling, TextEnd, TextEngine, TextEvent};
use serde_json::json;

use super::{Arguments, explain, memory, prompts, report};
use crate::backend::Chosen;
use crate::corrections;
use crate::print::{is_closed, outln};

/// A text on its way.
struct Text {
    /// Of its prompt.
    number: usize,
    text: String,
}

pub(super) fn run(
    file: &Path,
    arguments: &Arguments,
    sampling: &Sampling,
    chosen: &Chosen,
) -> anyhow::Result<()> {
    let prompts = prompts::read(file, "prompt", arguments.max_prompt_bytes)?;
    let place = |number: usize| format!("{}: line {}", file.display(), prompts[number].0);
    let rows = usize::from(arguments.batch_size);
    let longest = prompts.iter().map(|(_, prompt)| prompt.len()).max();
    memory::check(
        arguments,
        chosen,
        rows.min(prompts.len()),
        longest.unwrap_or(0),
    )?;
    let (text_model, options) = arguments.open(rows, chosen)?;
    for (number, (_, prompt)) in prompts.iter().enumerate() {
        // All are looked at before the first is continued; their tokens would fill memory.
        let checked = text_model.check(&arguments.request(prompt, Sampler::new(sampling)));
        checked.map_err(explain).with_context(|| place(number))?;
    }

    let mut engine = TextEngine::new(text_model, options, &chosen.device);
    let mut waiting = prompts.iter().enumerate();
    let mut texts = HashMap::new();
    let mut done = Lines::default();
    loop {
        // Enough that a row that becomes free is taken at once.
        while engine.requests() < 2 * rows
            && let Some((number, (_, prompt))) = waiting.next()
        {
            // A prompt's draws depend on its number, not on those beside it.
            let sampler = Sampler::nth(sampling, number as u64);
            let id = engine.admit(arguments.request(prompt, sampler))?;
            let text = String::new();
            texts.insert(id, Text { number, text });
        }
        if engine.is_idle() || is_closed() {
            break;
        }
        for event in engine.step() {
            match event {
                TextEvent::Text { id, text } => {
                    texts.entry(id).and_modify(|of| of.text.push_str(&text));
                }
                TextEvent::Ended { id, end, tokens } => {
                    let Text { number, text } = texts.remove(&id).context("an unknown text")?;
                    let line = json!({
                        "prompt": prompts[number].1,
                        "text": text,
                        "tokens": tokens,
                        "end": word(end),
                    });
                    done.print(number, line.to_string())?;
                }
                TextEvent::Failed { id, error } => {
                    let number = texts.get(&id).map_or(0, |text| text.number);
                    return Err(error).with_context(|| place(number));
                }
                _ => {}
            }
        }
    }
    if !is_closed() {
        corrections::report(engine.corrections());
        report(engine.speed(), &format!("{} prompts", prompts.len()));
    }
    Ok(())
}

/// In JSON.
fn word(end: TextEnd) -> &'static str {
    match end {
        TextEnd::Token => "token",
        TextEnd::Length => "length",
        TextEnd::Context => "context",
        TextEnd::Stop => "stop",
    }
}

/// Prints lines in the order of their numbers, each as soon as those before it are there.
#[derive(Default)]
pub(super) struct Lines {
    next: usize,
    early: BTreeMap<usize, String>,
}

impl Lines {
    pub(super) fn print(&mut self, number: usize, line: String) -> anyhow::Result<()> {
        self.early.insert(number, line);
        while let Some(line) = self.early.remove(&self.next) {
            outln!("{line}")?;
            self.next += 1;
        }
        Ok(())
    }
}
