//! A context and its continuation in tokens, divided as the harness divides them.

use iiet_text::TextTokenizer;

use crate::error::EvalError;
use crate::python_text::rstrip;

/// A context and a continuation in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPair {
    /// What is given.
    pub context: Vec<u32>,
    /// What is scored.
    pub continuation: Vec<u32>,
}

impl EncodedPair {
    /// The tokens of a context and of a continuation, as `TemplateLM.loglikelihood` divides them:
    /// white space at the context's end belongs to the continuation; both are encoded together and
    /// the continuation is what follows as many tokens as the context alone has. An empty context
    /// is the prefix token, or the continuation's own first token if that is the prefix already.
    ///
    /// # Errors
    /// [`EvalError::Text`] if a part of the text has no token.
    pub fn new(
        tokenizer: &TextTokenizer,
        context: &str,
        continuation: &str,
    ) -> Result<Self, EvalError> {
        if context.is_empty() {
            let mut tokens = tokenizer.encode_bare(continuation)?;
            if tokens.first() != Some(&tokenizer.prefix()) {
                tokens.insert(0, tokenizer.prefix());
            }
            let continuation = tokens.split_off(1);
            return Ok(Self {
                context: tokens,
                continuation,
            });
        }
        let whole = [context, continuation].concat();
        let context = tokenizer.encode(rstrip(context))?;
        let mut whole = tokenizer.encode(&whole)?;
        let continuation = whole.split_off(context.len().min(whole.len()));
        Ok(Self {
            context,
            continuation,
        })
    }
}
