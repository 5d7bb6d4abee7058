//! The engine for strings: prompts in, streamed text out, up to a stop text.

use std::collections::HashMap;

use burn::tensor::Device;
use iiet_data::TextStream;
use iiet_model::CorrectionCount;

use crate::{
    End, Engine, EngineOptions, Event, Request, RequestId, Sampler, Speed, Stops, TextError,
    TextModel,
};

/// A prompt to continue.
#[derive(Debug, Clone)]
pub struct TextRequest {
    /// The prompt's text.
    pub prompt: String,
    /// The maximum number of tokens to add.
    pub max_tokens: usize,
    /// Stop texts: the text ends before the first of these.
    pub stop: Vec<String>,
    /// Whether the text continues when the context is full, without its oldest tokens.
    pub sliding: bool,
    /// The sampling of tokens.
    pub sampler: Sampler,
}

/// An event of a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum TextEvent {
    /// New text: whole characters, never part of a stop text, and empty if a token completes no
    /// character.
    Text {
        /// The request.
        id: RequestId,
        /// The new text.
        text: String,
    },
    /// The text has ended.
    Ended {
        /// The request.
        id: RequestId,
        /// The reason.
        end: TextEnd,
        /// The number of tokens that were added, including those of a stop text.
        tokens: usize,
    },
    /// The text cannot be continued.
    Failed {
        /// The request.
        id: RequestId,
        /// The reason.
        error: TextError,
    },
}

/// The reason why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextEnd {
    /// The model chose an end token.
    Token,
    /// The maximum number of tokens was reached.
    Length,
    /// The context is full.
    Context,
    /// A stop text was found.
    Stop,
}

/// Continues prompts together in one batch.
#[derive(Debug)]
pub struct TextEngine {
    text_model: TextModel,
    engine: Engine,
    outputs: HashMap<RequestId, Output>,
}

/// Decodes the tokens of one text to characters.
#[derive(Debug)]
struct Output {
    stream: TextStream,
    stops: Stops,
    tokens: usize,
}

impl TextEngine {
    /// An engine without requests.
    ///
    /// # Panics
    ///
    /// If `options.rows` is 0.
    pub fn new(text_model: TextModel, options: EngineOptions, device: &Device) -> Self {
        Self {
            engine: Engine::new(text_model.model().clone(), options, device),
            text_model,
            outputs: HashMap::new(),
        }
    }

    /// Admits a request, as [`Engine::admit`] does.
    ///
    /// # Errors
    ///
    /// The same as for [`TextModel::encode`] and [`Engine::admit`].
    pub fn admit(&mut self, request: TextRequest) -> Result<RequestId, TextError> {
        let prompt = self.text_model.encode(&request.prompt)?;
        let output = Output {
            stream: self.text_model.stream(&prompt)?,
            stops: Stops::new(&request.stop),
            tokens: 0,
        };
        let id = self.engine.admit(Request {
            prompt,
            max_tokens: request.max_tokens,
            end: self.text_model.config().eos_token_ids.clone(),
            sliding: request.sliding,
            sampler: request.sampler,
        })?;
        self.outputs.insert(id, output);
        Ok(id)
    }

    /// Evicts a request. Returns whether it was in progress.
    pub fn evict(&mut self, id: RequestId) -> bool {
        self.outputs.remove(&id);
        self.engine.evict(id).is_some()
    }

    /// Whether no request is left.
    pub fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// The number of requests that are waiting, being prefilled, or being continued.
    pub fn requests(&self) -> usize {
        self.engine.requests()
    }

    /// Tokens and time of all steps so far.
    pub fn speed(&self) -> Speed {
        self.engine.speed()
    }

    /// How many corrections all tokens so far took, where these stop by a tolerance.
    pub fn corrections(&self) -> CorrectionCount {
        self.engine.corrections()
    }

    /// The same as [`Engine::step`].
    pub fn step(&mut self) -> Vec<TextEvent> {
        let mut events = Vec::new();
        for event in self.engine.step() {
            match event {
                Event::Token { id, token } => self.take(id, token, &mut events),
                Event::Ended { id, end } => self.finish(id, end, &mut events),
                Event::Failed { id, error } => {
                    self.outputs.remove(&id);
                    events.push(TextEvent::Failed { id, error });
                }
            }
        }
        events
    }

    fn take(&mut self, id: RequestId, token: u32, events: &mut Vec<TextEvent>) {
        let Some(output) = self.outputs.get_mut(&id) else {
            // The text has reached a stop text in this step.
            return;
        };
        output.tokens += 1;
        let text = match self.text_model.is_text(token) {
            true => output.stream.push(token),
            false => Ok(String::new()),
        };
        let text = match text {
            Ok(text) => output.stops.push(&text),
            Err(error) => {
                self.evict(id);
                let error = error.into();
                events.push(TextEvent::Failed { id, error });
                return;
            }
        };
        events.push(TextEvent::Text { id, text });
        if output.stops.stopped() {
            let tokens = output.tokens;
            self.evict(id);
            let end = TextEnd::Stop;
            events.push(TextEvent::Ended { id, end, tokens });
        }
    }

    fn finish(&mut self, id: RequestId, end: End, events: &mut Vec<TextEvent>) {
        let Some(Output {
            stream,
            mut stops,
            tokens,
        }) = self.outputs.remove(&id)
        else {
            return;
        };
        let text = match stream.finish() {
            Ok(rest) => stops.push(&rest) + &stops.finish(),
            Err(error) => {
                let error = error.into();
                events.push(TextEvent::Failed { id, error });
                return;
            }
        };
        if !text.is_empty() {
            events.push(TextEvent::Text { id, text });
        }
        let end = match end {
            _ if stops.stopped() => TextEnd::Stop,
            End::Token(_) => TextEnd::Token,
            End::Context => TextEnd::Context,
            End::Length | End::Caller => TextEnd::Length,
        };
        events.push(TextEvent::Ended { id, end, tokens });
    }
}
