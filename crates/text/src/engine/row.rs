//! A text being generated: its context window, and when it ends.

use iiet_model::ModelConfig;

use super::{End, Event, Request, RequestId};
use crate::TextError;

/// A request in progress.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: RequestId,
    request: Request,
    /// Prompt and continuation.
    ids: Vec<u32>,
    /// The context window.
    window: Vec<u32>,
}

/// The parts of a model's configuration that a text depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The model's context length, in tokens.
    pub(super) context: usize,
    pub(super) vocab_size: usize,
    bos: Option<u32>,
}

impl Limits {
    pub(crate) fn of<B, S>(config: &ModelConfig<B, S>) -> Self {
        Self {
            context: config.seq_len,
            vocab_size: config.vocab_size,
            bos: config.bos_token_id,
        }
    }

    /// Checks that the model can continue the prompt.
    pub(crate) fn check(&self, prompt: &[u32], sliding: bool) -> Result<(), TextError> {
        let refuse = |reason| Err(TextError::Prompt { reason });
        if prompt.is_empty() {
            return refuse("has no tokens".into());
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.vocab_size) {
            let last = self.vocab_size - 1;
            return refuse(format!("has the token {id}; allowed: 0 to {last}"));
        }
        if prompt.len() > self.context && !sliding {
            return Err(TextError::PromptTooLong {
                tokens: prompt.len(),
                context: self.context,
            });
        }
        Ok(())
    }

    /// The new window of a text that exceeded the context: the last half of it, preceded by the
    /// beginning-of-text token if the text has one.
    fn slid(&self, ids: &[u32]) -> Vec<u32> {
        let half = (self.context / 2).max(1);
        let start = ids.first().copied().filter(|id| Some(*id) == self.bos);
        let start = start.filter(|_| half > 1);
        let kept = half - usize::from(start.is_some());
        let last = &ids[ids.len() - kept..];
        start.into_iter().chain(last.iter().copied()).collect()
    }
}

impl Row {
    pub(super) fn new(id: RequestId, request: Request, limits: Limits) -> Self {
        let mut row = Self {
            id,
            ids: request.prompt.clone(),
            window: request.prompt.clone(),
            request,
        };
        row.slide(limits);
        row
    }

    /// The tokens in the context window.
    pub(super) fn window(&self) -> &[u32] {
        &self.window
    }

    /// The only token that is not in the cache, if the window has only grown by one.
    pub(super) fn last(&self) -> Option<u32> {
        self.window.last().copied()
    }

    /// The tokens added to the prompt.
    pub(super) fn new_tokens(&self) -> &[u32] {
        &self.ids[self.request.prompt.len()..]
    }

    /// Drops the oldest tokens of a window that is longer than the context. Returns whether tokens
    /// were dropped.
    pub(super) fn slide(&mut self, limits: Limits) -> bool {
        let outgrown = self.window.len() > limits.context;
        if outgrown {
            self.window = limits.slid(&self.window);
        }
        outgrown
    }

    /// Samples the next token. Returns whether the text continues.
    pub(super) fn choose(
        &mut self,
        logits: &[f32],
        limits: Limits,
        events: &mut Vec<Event>,
    ) -> bool {
        let id = self.id;
        let token = match self.request.sampler.choose(logits, &self.ids) {
            Ok(token) => token,
            Err(error) => {
                events.push(Event::Failed { id, error });
                return false;
            }
        };
        let end = if self.request.end.contains(&token) {
            Some(End::Token(token))
        } else {
            events.push(Event::Token { id, token });
            self.ids.push(token);
            self.window.push(token);
            if self.new_tokens().len() >= self.request.max_tokens {
                Some(End::Length)
            } else if self.window.len() > limits.context && !self.request.sliding {
                Some(End::Context)
            } else {
                None
            }
        };
        events.extend(end.map(|end| Event::Ended { id, end }));
        end.is_none()
    }
}
