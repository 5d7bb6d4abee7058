//! A context and its continuation in tokens, split as in the harness.

use iiet_text::TextTokenizer;

use crate::error::EvalError;
use crate::python_text::rstrip;

/// A context and a continuation in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPair {
    /// The context.
    pub context: Vec<u32>,
    /// The tokens to score.
    pub continuation: Vec<u32>,
}

impl EncodedPair {
    /// The tokens of a context and of a continuation, split as in `TemplateLM.loglikelihood`: white
    /// space at the context's end belongs to the continuation; both are encoded together, and the
    /// continuation starts after as many tokens as the context alone has. An empty context is
    /// replaced by the prefix token, or by the continuation's first token if that is the prefix
    /// already.
    ///
    /// # Errors
    /// [`EvalError::Text`] if a part of the text cannot be encoded.
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
