//! Texts that continue prompts, token by token.
//!
//! **What the model sees.** Everything so far, up to its context of `seq_len` tokens. A text that
//! outgrows it ends there, or slides: whenever the context is full, the oldest tokens are dropped
//! so that half of it is left (a beginning-of-text token stays in front), and what is left is read
//! again from position 0. So every token is chosen from the logits of a full forward pass over the
//! tokens that are kept. Dropping single tokens from the caches instead would be cheaper and
//! something else: the keys of upper layers, and of every iteration but the first, were computed
//! from tokens that are gone.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};

use crate::{LanguageModel, ModelError, Precision, Sampler};

/// When to stop, and what to do about memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateOptions {
    /// The most tokens to add to a prompt.
    pub max_tokens: usize,
    /// Tokens that end a text; they are not part of it.
    pub end: Vec<u32>,
    /// The element type of the caches.
    pub cache: Precision,
    /// Whether texts go on when the context is full, without their oldest tokens.
    pub sliding: bool,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The model chose one of the tokens that end a text.
    Token(u32),
    /// It has as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The caller said so.
    Caller,
}

/// What was added to a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub end: End,
}

/// How long reading the prompts and decoding took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Speed {
    /// Tokens of the prompts, each read once.
    pub prefill_tokens: usize,
    /// Time to read them and compute the first logits.
    pub prefill: Duration,
    /// Tokens that were chosen after that, one pass each.
    pub decode_tokens: usize,
    /// Time of those passes, of choosing, and of the caller's function.
    pub decode: Duration,
}

impl std::ops::AddAssign for Speed {
    fn add_assign(&mut self, other: Self) {
        self.prefill_tokens += other.prefill_tokens;
        self.prefill += other.prefill;
        self.decode_tokens += other.decode_tokens;
        self.decode += other.decode;
    }
}

/// Continues one prompt. `on_token` is told every token as it is chosen and may end the text.
///
/// # Errors
///
/// As [`generate_batch`].
pub fn generate(
    model: &LanguageModel,
    prompt: &[u32],
    options: &GenerateOptions,
    sampler: &mut Sampler,
    device: &Device,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<(Continuation, Speed), ModelError> {
    let samplers = std::slice::from_mut(sampler);
    let on_token = |_, id| on_token(id);
    let (mut texts, speed) = generate_batch(model, &[prompt], options, samplers, device, on_token)?;
    let only = texts
        .pop()
        .expect("invariant: a continuation for each prompt");
    Ok((only, speed))
}

/// Continues prompts of any lengths side by side; `on_token` is told the prompt's number and the
/// token.
///
/// # Errors
///
/// [`ModelError::Prompt`] for an empty prompt and one with an id that the model has not got,
/// [`ModelError::PromptTooLong`] for one that is longer than the context, unless texts slide.
///
/// # Panics
///
/// If there is not one sampler for each prompt.
pub fn generate_batch(
    model: &LanguageModel,
    prompts: &[&[u32]],
    options: &GenerateOptions,
    samplers: &mut [Sampler],
    device: &Device,
    mut on_token: impl FnMut(usize, u32) -> ControlFlow<()>,
) -> Result<(Vec<Continuation>, Speed), ModelError> {
    assert_eq!(prompts.len(), samplers.len(), "a sampler for each prompt");
    for (number, prompt) in prompts.iter().enumerate() {
        check(model, number, prompt, options)?;
    }
    let context = model.config().seq_len;
    let vocab = model.config().vocab_size;
    let mut speed = Speed::default();
    let mut texts: Vec<Text> = prompts
        .iter()
        .map(|prompt| Text {
            ids: prompt.to_vec(),
            new: 0,
            window: prompt.to_vec(),
            end: (options.max_tokens == 0).then_some(End::Length),
        })
        .collect();
    // The rows of the cache, by the number of their text.
    let mut rows: Vec<usize> = (0..texts.len())
        .filter(|i| texts[*i].end.is_none())
        .collect();
    if rows.is_empty() {
        return Ok((texts.into_iter().map(Text::finish).collect(), speed));
    }

    let started = Instant::now();
    for text in &mut texts {
        if text.window.len() > context {
            text.window = slid(model, &text.window);
        }
        speed.prefill_tokens += text.window.len();
    }
    let windows: Vec<&[u32]> = texts.iter().map(|text| text.window.as_slice()).collect();
    let mut cache = model.cache(rows.len(), options.cache);
    let mut logits = floats(model.prefill(&windows, &mut cache, device));
    speed.prefill = started.elapsed();

    let started = Instant::now();
    loop {
        for (row, number) in rows.iter().enumerate() {
            let text = &mut texts[*number];
            let logits = &logits[row * vocab..(row + 1) * vocab];
            let id = samplers[*number].choose(logits, &text.ids) as u32;
            text.take(id, options, context, || on_token(*number, id));
        }
        let kept: Vec<usize> = (0..rows.len())
            .filter(|row| texts[rows[*row]].end.is_none())
            .collect();
        if kept.len() < rows.len() {
            cache.keep_rows(&kept);
            rows = kept.into_iter().map(|row| rows[row]).collect();
        }
        if rows.is_empty() {
            break;
        }
        speed.decode_tokens += rows.len();
        logits = advance(model, &mut texts, &rows, &mut cache, device);
    }
    speed.decode = started.elapsed();
    Ok((texts.into_iter().map(Text::finish).collect(), speed))
}

fn check(
    model: &LanguageModel,
    number: usize,
    prompt: &[u32],
    options: &GenerateOptions,
) -> Result<(), ModelError> {
    let config = model.config();
    let refuse = |reason| Err(ModelError::Prompt { number, reason });
    if prompt.is_empty() {
        return refuse("it has no tokens".into());
    }
    if let Some(id) = prompt.iter().find(|id| **id as usize >= config.vocab_size) {
        let last = config.vocab_size - 1;
        return refuse(format!("it has the token {id}; allowed: 0 to {last}"));
    }
    if prompt.len() > config.seq_len && !options.sliding {
        return Err(ModelError::PromptTooLong {
            number,
            tokens: prompt.len(),
            context: config.seq_len,
        });
    }
    Ok(())
}

/// A text on its way.
struct Text {
    /// Prompt and continuation.
    ids: Vec<u32>,
    /// Tokens of the continuation.
    new: usize,
    /// What the model sees of it.
    window: Vec<u32>,
    end: Option<End>,
}

impl Text {
    fn take(
        &mut self,
        id: u32,
        options: &GenerateOptions,
        context: usize,
        on_token: impl FnOnce() -> ControlFlow<()>,
    ) {
        if options.end.contains(&id) {
            self.end = Some(End::Token(id));
            return;
        }
        self.ids.push(id);
        self.window.push(id);
        self.new += 1;
        self.end = if on_token().is_break() {
            Some(End::Caller)
        } else if self.new == options.max_tokens {
            Some(End::Length)
        } else if self.window.len() > context && !options.sliding {
            Some(End::Context)
        } else {
            None
        };
    }

    fn finish(mut self) -> Continuation {
        Continuation {
            ids: self.ids.split_off(self.ids.len() - self.new),
            end: self.end.unwrap_or(End::Length),
        }
    }
}

/// The logits after the last token of each row, `[rows, vocab]`.
fn advance(
    model: &LanguageModel,
    texts: &mut [Text],
    rows: &[usize],
    cache: &mut crate::Cache,
    device: &Device,
) -> Vec<f32> {
    let vocab = model.config().vocab_size;
    let mut slid_rows = Vec::new();
    for (row, number) in rows.iter().enumerate() {
        let text = &mut texts[*number];
        if text.window.len() > model.config().seq_len {
            text.window = slid(model, &text.window);
            let mut fresh = model.cache(1, cache.stored());
            let logits = model.prefill(&[&text.window], &mut fresh, device);
            slid_rows.push((row, fresh, floats(logits)));
        }
    }
    let mut ids: Vec<Option<u32>> = rows
        .iter()
        .map(|number| texts[*number].window.last().copied())
        .collect();
    for (row, ..) in &slid_rows {
        ids[*row] = None;
    }
    let mut logits = if slid_rows.len() < rows.len() {
        floats(model.decode_some(&ids, cache, device))
    } else {
        vec![0.0; rows.len() * vocab]
    };
    for (row, fresh, of_row) in slid_rows {
        cache.put_row(row, fresh);
        logits[row * vocab..(row + 1) * vocab].copy_from_slice(&of_row);
    }
    logits
}

/// What is left of a text that outgrew the context: half of it, the last tokens, and in front a
/// token that marks the beginning if the text has one.
fn slid(model: &LanguageModel, ids: &[u32]) -> Vec<u32> {
    let config = model.config();
    let half = (config.seq_len / 2).max(1);
    let start = ids
        .first()
        .copied()
        .filter(|id| Some(*id) == config.bos_token_id);
    let start = start.filter(|_| half > 1);
    let kept = half - usize::from(start.is_some());
    let last = &ids[ids.len() - kept..];
    start.into_iter().chain(last.iter().copied()).collect()
}

fn floats(logits: Tensor<2>) -> Vec<f32> {
    logits
        .try_into_vec_as::<f32>()
        .expect("invariant: float tensors can be read as f32")
}
