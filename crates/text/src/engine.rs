//! Many texts at once, each at its own place (continuous batching; Yu et al., *Orca*, OSDI 2022).
//!
//! A request waits, is read, and is continued token by token in a batch with others. It may come at
//! any time and be taken out at any time; the row that it leaves is given to the next one. A step
//! reads one chunk of the prompts that are being read, and adds one token to each text that is being
//! continued. So a long prompt does not hold up the others for longer than a chunk takes.
//!
//! **What the model sees.** Everything so far, up to its context of `seq_len` tokens. A text that
//! outgrows it ends there, or slides: whenever the context is full, the oldest tokens are dropped
//! so that half of it is left (a beginning-of-text token stays in front), and what is left is read
//! again from position 0. So every token is chosen from the logits of a full forward pass over the
//! tokens that are kept. Dropping single tokens from the caches instead would be cheaper and
//! something else: the keys of upper layers, and of every iteration but the first, were computed
//! from tokens that are gone.
//!
//! **What a text depends on.** On its request alone, up to rounding: rows of a batch are computed
//! from the same weights by sums whose order may differ with the number of rows, as in every library
//! of matrix products. Random draws are the request's own.

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

/// Tokens of each prompt that a step reads: enough to fill matrix products.
const CHUNK: usize = 512;
/// Prompts are read side by side if the longest has at most so many times the tokens of the shortest,
/// since the shorter ones are padded.
const PADDING: usize = 2;
/// Below so many tokens padding costs nothing worth saving.
const SHORT: usize = 16;

/// The sizes of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// The most texts that are read or continued side by side; others wait.
    pub rows: usize,
    /// The element type of the caches.
    pub cache: Precision,
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
    /// Time of those passes and of choosing.
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

/// Continues requests side by side.
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
    /// Requests without a token to add, which end in the next step.
    ended: Vec<RequestId>,
    reading: Option<Reading<B>>,
    /// By row of the cache; `None` is a row whose text has left.
    running: Vec<Option<Row>>,
    cache: Cache<B>,
    speed: Speed,
    corrections: CorrectionCount,
}

/// Prompts that are being read side by side, all from their start.
#[derive(Debug)]
struct Reading<B: Block> {
    rows: Vec<Row>,
    cache: Cache<B>,
    /// Tokens of each that have been read.
    read: usize,
}

impl<B: Block, S: NetworkSolver> Engine<B, S> {
    /// An engine without requests. A model's clone shares its parameters.
    ///
    /// # Panics
    ///
    /// If the options have no rows.
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

    /// Takes up a request. It waits while all rows are taken; requests are read in their order.
    ///
    /// # Errors
    ///
    /// [`TextError::Prompt`] for an empty prompt and one with an id that the model has not got,
    /// [`TextError::PromptTooLong`] for one that is longer than the context, unless the text slides.
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

    /// Takes out a request, wherever it is, and returns the tokens that it had been given; `None` if
    /// there is no such request any more.
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

    /// Whether there is no request left.
    pub fn is_idle(&self) -> bool {
        self.requests() == 0
    }

    /// Requests that are waiting, being read, or being continued.
    pub fn requests(&self) -> usize {
        self.ended.len() + self.waiting.len() + self.rows()
    }

    /// Rows that are taken.
    fn rows(&self) -> usize {
        let reading = self
            .reading
            .as_ref()
            .map_or(0, |reading| reading.rows.len());
        reading + self.running.iter().flatten().count()
    }

    /// How long all steps so far have taken.
    pub fn speed(&self) -> Speed {
        self.speed
    }

    /// How many corrections all tokens so far took, where these stop by a tolerance.
    pub fn corrections(&self) -> CorrectionCount {
        self.corrections
    }

    /// Adds one token to each text that is being continued, reads one chunk of prompts, and gives
    /// those that have been read their first token.
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

    /// The next texts of similar length that there are rows for.
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

    /// Reads the next chunk, and moves the texts that are read to those that are continued.
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

    /// Gives texts the rows of those that have left, and new ones to the others.
    fn join(&mut self, joining: Vec<Row>, mut cache: Cache<B>) {
        let free: Vec<usize> = (0..self.running.len())
            .filter(|row| self.running[*row].is_none())
            .collect();
        // A batch that is empty takes the cache as it is.
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

    /// Gives up the rows that nobody took.
    fn compact(&mut self) {
        let rows = 0..self.running.len();
        let kept: Vec<usize> = rows.filter(|row| self.running[*row].is_some()).collect();
        if kept.len() < self.running.len() {
            self.cache.keep_rows(&kept);
            self.running.retain(Option::is_some);
        }
    }

    /// One more token for each text.
    fn decode(&mut self, events: &mut Vec<Event>) {
        // Those evicted since the last step.
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
            let row = row.as_mut().expect("invariant: compact left no empty row");
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

/// What was added to a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Why there are no more.
    pub end: End,
}

/// Continues one prompt. `on_token` is told every token as it is chosen and may end the text.
///
/// # Errors
///
/// As [`Engine::admit`], and [`TextError::Logits`] if no token can be chosen.
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

fn floats(logits: Tensor<2>) -> Vec<f32> {
    logits
        .try_into_vec_as::<f32>()
        .expect("invariant: float tensors can be read as f32")
}
