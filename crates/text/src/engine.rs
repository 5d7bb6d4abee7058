//! Continuous batching: many texts at once, each at its own position (Yu et al., *Orca*, OSDI 2022).
//!
//! A request waits, is prefilled, and is continued token by token in a batch with others. It may be admitted
//! or evicted at any step, and its row is then reused by the next request. A step prefills one chunk of
//! prompts, and adds one token to each text that is being continued, so a long prompt delays the others by
//! one chunk at a time.
//!
//! **Context window.** The model sees all tokens so far, up to its context of `seq_len` tokens. A text that
//! exceeds the context ends there, or slides: whenever the context is full, the oldest tokens are dropped so
//! that half of it remains (a beginning-of-text token stays in front), and the remaining tokens are prefilled
//! again from position 0. So every token is chosen from the logits of a full forward pass over the tokens
//! that are kept. Dropping single tokens from the caches would be cheaper but not equivalent: the keys of
//! upper layers, and of every iteration but the first, were computed from the dropped tokens.
//!
//! **Independence.** A text depends only on its request, up to rounding: all rows of a batch use the same
//! weights, but the order of sums may differ with the number of rows, as in every library of matrix products.
//! Each request has its own RNG.

mod request;
mod row;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use iiet_blocks::{Block, LlamaBlock};
use iiet_model::{Cache, CorrectionCount, LanguageModel, Precision};
use iiet_ode::{AnySolver, NetworkSolver};

use crate::TextError;
use row::Row;

pub(crate) use row::Limits;

pub use request::{End, Event, Request, RequestId};

/// Tokens of each prompt that are prefilled per step: enough for efficient matrix products.
const CHUNK: usize = 512;
/// Prompts are prefilled together if the longest is at most this many times as long as the shortest, because
/// the shorter ones are padded.
const PADDING: usize = 2;
/// Up to this many tokens the cost of padding is negligible.
const SHORT: usize = 16;

/// The sizes of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// The maximum number of texts that are prefilled or continued together; others wait.
    pub rows: usize,
    /// The dtype of the caches.
    pub cache: Precision,
}

/// Tokens and time of prefill and decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Speed {
    /// Prompt tokens. Each is counted once.
    pub prefill_tokens: usize,
    /// Time of prefill, including the first logits.
    pub prefill: Duration,
    /// Tokens that were decoded after that, one pass per token.
    pub decode_tokens: usize,
    /// Time of those passes and of sampling.
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

/// Continues requests together in one batch.
///
/// ```no_run
/// # // Needs a backend, which an application chooses by a feature of `burn`.
/// use burn::tensor::Device;
/// use iiet_text::{Engine, EngineOptions, Event, Request, Sampler, Sampling};
///
/// let device = Device::default();
/// let (model, _) = iiet_model::load("runs/tiny/model".as_ref(), &device)?;
/// let options = EngineOptions { rows: 8, cache: iiet_model::Precision::F32 };
/// let mut engine = Engine::new(model, options, &device);
/// for prompt in [vec![1, 2, 3], vec![4]] {
///     engine.admit(Request {
///         prompt,
///         max_tokens: 20,
///         end: vec![],
///         sliding: false,
///         sampler: Sampler::new(&Sampling::default()),
///     })?;
/// }
/// while !engine.is_idle() {
///     for event in engine.step() {
///         println!("{event:?}");
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine<B: Block = LlamaBlock, S: NetworkSolver = AnySolver> {
    model: LanguageModel<B, S>,
    device: Device,
    options: EngineOptions,
    limits: Limits,
    next: u64,
    waiting: VecDeque<Row>,
    /// Requests with `max_tokens` 0, which end in the next step.
    ended: Vec<RequestId>,
    reading: Option<Reading<B>>,
    /// By row of the cache; `None` for a row whose text has ended.
    running: Vec<Option<Row>>,
    cache: Cache<B>,
    speed: Speed,
    corrections: CorrectionCount,
}

/// Prompts that are being prefilled together, all from their start.
#[derive(Debug)]
struct Reading<B: Block> {
    rows: Vec<Row>,
    cache: Cache<B>,
    /// Tokens of each that have been prefilled.
    read: usize,
}

impl<B: Block, S: NetworkSolver> Engine<B, S> {
    /// An engine without requests. A model's clone shares its parameters.
    ///
    /// # Panics
    ///
    /// If `options.rows` is 0.
    pub fn new(model: LanguageModel<B, S>, options: EngineOptions, device: &Device) -> Self {
        assert!(options.rows > 0, "an engine needs at least one row");
        Self {
            limits: Limits::of(model.sizes()),
            cache: model.cache(0, options.cache),
            model,
            device: device.clone(),
            options,
            next: 0,
            waiting: VecDeque::new(),
            ended: Vec::new(),
            reading: None,
            running: Vec::new(),
            speed: Speed::default(),
            corrections: CorrectionCount::default(),
        }
    }

    /// Admits a request. It waits while all rows are in use; requests are prefilled in the order of
    /// admission.
    ///
    /// # Errors
    ///
    /// [`TextError::Prompt`] if the prompt is empty or contains an id outside the model's vocabulary,
    /// [`TextError::PromptTooLong`] if it is longer than the context, unless the text slides.
    pub fn admit(&mut self, request: Request) -> Result<RequestId, TextError> {
        self.limits.check(&request.prompt, request.sliding)?;
        let id = RequestId(self.next);
        self.next += 1;
        match request.max_tokens {
            0 => self.ended.push(id),
            _ => self.waiting.push_back(Row::new(id, request, self.limits)),
        }
        Ok(id)
    }

    /// Evicts a request in any state, and returns the tokens generated so far; `None` if the request does not
    /// exist or has ended.
    pub fn evict(&mut self, id: RequestId) -> Option<Vec<u32>> {
        if let Some(at) = self.ended.iter().position(|ended| *ended == id) {
            self.ended.remove(at);
            return Some(Vec::new());
        }
        if let Some(at) = self.waiting.iter().position(|row| row.id == id) {
            self.waiting.remove(at);
            return Some(Vec::new());
        }
        if let Some(reading) = &mut self.reading
            && let Some(at) = reading.rows.iter().position(|row| row.id == id)
        {
            reading.rows.remove(at);
            let kept: Vec<usize> = (0..=reading.rows.len()).filter(|row| *row != at).collect();
            reading.cache.keep_rows(&kept);
            self.reading = self.reading.take().filter(|left| !left.rows.is_empty());
            return Some(Vec::new());
        }
        let is_it = |row: &&mut Option<Row>| row.as_ref().is_some_and(|row| row.id == id);
        let row = self.running.iter_mut().find(is_it)?.take()?;
        Some(row.new_tokens().to_vec())
    }

    /// Whether no request is left.
    pub fn is_idle(&self) -> bool {
        self.requests() == 0
    }

    /// The number of requests that are waiting, being prefilled, or being continued.
    pub fn requests(&self) -> usize {
        self.ended.len() + self.waiting.len() + self.rows()
    }

    /// The number of rows in use.
    fn rows(&self) -> usize {
        let reading = self
            .reading
            .as_ref()
            .map_or(0, |reading| reading.rows.len());
        reading + self.running.iter().flatten().count()
    }

    /// Tokens and time of all steps so far.
    pub fn speed(&self) -> Speed {
        self.speed
    }

    /// How many corrections all tokens so far took, where these stop by a tolerance.
    pub fn corrections(&self) -> CorrectionCount {
        self.corrections
    }

    /// Adds one token to each text that is being continued, prefills one chunk of prompts, and adds the first
    /// token to those that are complete.
    pub fn step(&mut self) -> Vec<Event> {
        let end = End::Length;
        let ended = self.ended.drain(..).map(|id| Event::Ended { id, end });
        let mut events: Vec<Event> = ended.collect();
        let started = Instant::now();
        self.decode(&mut events);
        self.speed.decode += started.elapsed();
        self.begin_reading();
        self.read(&mut events);
        events
    }

    /// The next texts of similar length for which rows are free.
    fn begin_reading(&mut self) {
        if self.reading.is_some() {
            return;
        }
        let mut free = self.options.rows - self.rows();
        let mut rows: Vec<Row> = Vec::new();
        let (mut shortest, mut longest) = (usize::MAX, 0);
        while let Some(next) = self.waiting.front().filter(|_| free > 0) {
            let tokens = next.window().len();
            (shortest, longest) = (shortest.min(tokens), longest.max(tokens));
            if longest > (PADDING * shortest).max(SHORT) {
                break;
            }
            rows.extend(self.waiting.pop_front());
            free -= 1;
        }
        if !rows.is_empty() {
            self.reading = Some(Reading {
                cache: self.model.cache(rows.len(), self.options.cache),
                rows,
                read: 0,
            });
        }
    }

    /// Prefills the next chunk, and moves texts whose prompt is complete to those that are continued.
    fn read(&mut self, events: &mut Vec<Event>) {
        let Some(mut reading) = self.reading.take() else {
            self.compact();
            return;
        };
        let started = Instant::now();
        let chunk = |row: &Row| reading.read..row.window().len().min(reading.read + CHUNK);
        let parts: Vec<&[u32]> = reading
            .rows
            .iter()
            .map(|row| &row.window()[chunk(row)])
            .collect();
        self.speed.prefill_tokens += parts.iter().map(|part| part.len()).sum::<usize>();
        let logits = self.model.prefill(&parts, &mut reading.cache, &self.device);
        self.corrections += reading.cache.take_corrections();
        reading.read += CHUNK;
        let is_read = |row: &Row| row.window().len() <= reading.read;
        let rows = 0..reading.rows.len();
        let (done, left): (Vec<usize>, Vec<usize>) =
            rows.partition(|row| is_read(&reading.rows[*row]));
        let logits = match done.is_empty() {
            true => Vec::new(),
            false => floats(logits),
        };
        self.speed.prefill += started.elapsed();

        let mut joining = Vec::new();
        let mut places = Vec::new();
        let mut rest = Vec::new();
        for (place, mut row) in reading.rows.into_iter().enumerate() {
            if left.contains(&place) {
                rest.push(row);
                continue;
            }
            let logits = self.of_row(&logits, place);
            if row.choose(logits, self.limits, events) {
                joining.push(row);
                places.push(place);
            }
        }
        let mut cache = reading.cache;
        if !rest.is_empty() {
            let mut unread = cache.clone();
            unread.keep_rows(&left);
            self.reading = Some(Reading {
                rows: rest,
                cache: unread,
                read: reading.read,
            });
        }
        if places.len() < cache.lengths().len() {
            cache.keep_rows(&places);
        }
        self.join(joining, cache);
        self.compact();
    }

    /// Assigns the rows of texts that have ended, and new rows to the remaining texts.
    fn join(&mut self, joining: Vec<Row>, mut cache: Cache<B>) {
        let free: Vec<usize> = (0..self.running.len())
            .filter(|row| self.running[*row].is_none())
            .collect();
        // An empty batch takes over the new cache.
        let reused = match free.len() == self.running.len() {
            true => {
                self.running.clear();
                self.cache = self.model.cache(0, self.options.cache);
                0
            }
            false => free.len().min(joining.len()),
        };
        for (from, row) in free[..reused].iter().enumerate() {
            let mut one = cache.clone();
            one.keep_rows(&[from]);
            self.cache.put_row(*row, one);
        }
        if reused > 0 {
            let others: Vec<usize> = (reused..joining.len()).collect();
            cache.keep_rows(&others);
        }
        for (number, row) in joining.into_iter().enumerate() {
            match free[..reused].get(number) {
                Some(place) => self.running[*place] = Some(row),
                None => self.running.push(Some(row)),
            }
        }
        self.cache.append(cache);
    }

    /// Removes the rows that are not in use.
    fn compact(&mut self) {
        let rows = 0..self.running.len();
        let kept: Vec<usize> = rows.filter(|row| self.running[*row].is_some()).collect();
        if kept.len() < self.running.len() {
            self.cache.keep_rows(&kept);
            self.running.retain(Option::is_some);
        }
    }

    /// Adds one token to each text.
    fn decode(&mut self, events: &mut Vec<Event>) {
        // Rows evicted since the last step.
        self.compact();
        if self.running.is_empty() {
            return;
        }
        self.speed.decode_tokens += self.running.len();
        let logits = self.advance();
        for place in 0..self.running.len() {
            let logits = &logits[place * self.limits.vocab_size..][..self.limits.vocab_size];
            let row = &mut self.running[place];
            *row = row
                .take()
                .and_then(|mut row| row.choose(logits, self.limits, events).then_some(row));
        }
    }

    /// The logits after the last token of each row, `[rows, vocab]`.
    fn advance(&mut self) -> Vec<f32> {
        let mut slid = Vec::new();
        let mut ids = Vec::with_capacity(self.running.len());
        for (place, row) in self.running.iter_mut().enumerate() {
            let row = row
                .as_mut()
                .expect("invariant: compact removed all empty rows");
            let again = row.slide(self.limits);
            if again {
                let mut fresh = self.model.cache(1, self.options.cache);
                let logits = self
                    .model
                    .prefill(&[row.window()], &mut fresh, &self.device);
                self.corrections += fresh.take_corrections();
                slid.push((place, fresh, floats(logits)));
            }
            ids.push(row.last().filter(|_| !again));
        }
        let vocab = self.limits.vocab_size;
        let mut logits = match slid.len() < ids.len() {
            true => floats(self.model.decode_some(&ids, &mut self.cache, &self.device)),
            false => vec![0.0; ids.len() * vocab],
        };
        self.corrections += self.cache.take_corrections();
        for (place, fresh, of_row) in slid {
            self.cache.put_row(place, fresh);
            logits[place * vocab..][..vocab].copy_from_slice(&of_row);
        }
        logits
    }

    /// A row of `[rows, vocab]`.
    fn of_row<'l>(&self, logits: &'l [f32], row: usize) -> &'l [f32] {
        &logits[row * self.limits.vocab_size..][..self.limits.vocab_size]
    }
}

/// The continuation of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The reason why it ended.
    pub end: End,
}

/// Continues one prompt. `on_token` is called with each token and may end the text.
///
/// # Errors
///
/// The same as for [`Engine::admit`], and [`TextError::Logits`] if no token can be sampled.
pub fn generate<B: Block, S: NetworkSolver>(
    model: &LanguageModel<B, S>,
    request: Request,
    cache: Precision,
    device: &Device,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<(Continuation, Speed), TextError> {
    let options = EngineOptions { rows: 1, cache };
    let mut engine = Engine::new(model.clone(), options, device);
    let request = engine.admit(request)?;
    let mut ids = Vec::new();
    loop {
        for event in engine.step() {
            let end = match event {
                Event::Failed { error, .. } => return Err(error),
                Event::Ended { end, .. } => end,
                Event::Token { token, .. } => {
                    ids.push(token);
                    if on_token(token).is_continue() {
                        continue;
                    }
                    engine.evict(request);
                    End::Caller
                }
            };
            return Ok((Continuation { ids, end }, engine.speed()));
        }
    }
}

pub(crate) fn floats(logits: Tensor<2>) -> Vec<f32> {
    logits
        .try_into_vec_as::<f32>()
        .expect("invariant: float tensors can be read as f32")
}
