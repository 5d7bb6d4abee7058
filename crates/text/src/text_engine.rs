//! The engine for strings: prompts in, text out as it comes, up to a stop text.

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
    /// The text.
    pub prompt: String,
    /// The most tokens to add.
    pub max_tokens: usize,
    /// The text ends before the first of these.
    pub stop: Vec<String>,
    /// Whether the text goes on when the context is full, without its oldest tokens.
    pub sliding: bool,
    /// How tokens are chosen.
    pub sampler: Sampler,
}

/// What became of a request in a step.
#[derive(Debug)]
#[non_exhaustive]
pub enum TextEvent {
    /// Its text goes on: whole characters, never part of a stop text, and empty where a token
    /// completes none.
    Text {
        /// Whose.
        id: RequestId,
        /// What is new.
        text: String,
    },
    /// Its text has ended.
    Ended {
        /// Whose.
        id: RequestId,
        /// Why.
        end: TextEnd,
        /// Tokens that were added, those of a stop text included.
        tokens: usize,
    },
    /// It cannot be continued.
    Failed {
        /// Whose.
        id: RequestId,
        /// Why.
        error: TextError,
    },
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextEnd {
    /// The model chose a token that ends a text.
    Token,
    /// It has as many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// A stop text came.
    Stop,
}

/// Continues prompts side by side.
#[derive(Debug)]
pub struct TextEngine {
    text_model: TextModel,
    engine: Engine,
    outputs: HashMap<RequestId, Output>,
}

/// From the tokens of one text to its characters.
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
    /// If the options have no rows.
    pub fn new(text_model: TextModel, options: EngineOptions, device: &Device) -> Self {
        Self {
            engine: Engine::new(text_model.model().clone(), options, device),
            text_model,
            outputs: HashMap::new(),
        }
    }

    /// Takes up a request, as [`Engine::admit`].
    ///
    /// # Errors
    ///
    /// As [`TextModel::encode`] and [`Engine::admit`].
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

    /// Takes out a request; whether it was still there.
    pub fn evict(&mut self, id: RequestId) -> bool {
        self.outputs.remove(&id);
        self.engine.evict(id).is_some()
    }

    /// Whether there is no request left.
    pub fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// Requests that are waiting, being read, or being continued.
    pub fn requests(&self) -> usize {
        self.engine.requests()
    }

    /// How long all steps so far have taken.
    pub fn speed(&self) -> Speed {
        self.engine.speed()
    }

    /// How many corrections all tokens so far took, where these stop by a tolerance.
    pub fn corrections(&self) -> CorrectionCount {
        self.engine.corrections()
    }

    /// As [`Engine::step`].
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
            // Its text stopped in this step already.
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
