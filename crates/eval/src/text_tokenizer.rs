//! Text to tokens as `transformers` does it, for that is what the harness calls.
//!
//! A model directory's `tokenizer.json` says how text becomes tokens, the files beside it what begins and
//! ends a text ([`SpecialTokens`]); where they name neither, `config.json` does, by id.

use std::path::{Path, PathBuf};

use iiet_data::{parse_tokenizer, untrusted};
use tokenizers::Tokenizer;

use crate::error::EvalError;
use crate::python_text::rstrip;
use crate::special_tokens::{SpecialTokens, Template, read_object};

/// A model directory's tokenizer with its special tokens.
pub struct TextTokenizer {
    inner: Tokenizer,
    hash: blake3::Hash,
    path: PathBuf,
    bos: Option<u32>,
    eos: Option<u32>,
    /// What is added to each text in place of the post-processor.
    template: Option<Template>,
    /// BOS, else EOS: what stands before a text that has no context.
    prefix: u32,
    prefix_text: String,
}

/// A context and a continuation in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPair {
    pub context: Vec<u32>,
    pub continuation: Vec<u32>,
}

impl TextTokenizer {
    /// Opens the tokenizer of a model directory.
    ///
    /// # Errors
    /// [`EvalError::Tokenizer`] if it cannot be read or names neither BOS nor EOS,
    /// [`EvalError::Vocabulary`] if it has ids beyond the model's `vocab_size`.
    pub fn open(model: &Path, vocab_size: usize) -> Result<Self, EvalError> {
        let path = model.join("tokenizer.json");
        let failed = |message: String| EvalError::Tokenizer {
            path: path.clone(),
            message,
        };
        let bytes = std::fs::read(&path).map_err(EvalError::io(&path))?;
        let inner = parse_tokenizer(&bytes).map_err(|error| failed(error.to_string()))?;
        let greatest = inner.get_vocab(true).into_values().max();
        match greatest {
            Some(found) if found as usize >= vocab_size => {
                return Err(EvalError::Vocabulary {
                    path,
                    found,
                    vocab_size,
                });
            }
            Some(_) => {}
            None => return Err(failed("the vocabulary is empty".into())),
        }
        let SpecialTokens {
            mut bos,
            mut eos,
            template,
        } = SpecialTokens::read(model, |token| inner.token_to_id(token))?;
        if bos.is_none() && eos.is_none() {
            (bos, eos) = ids_of_config(model)?;
        }
        let Some(prefix) = bos.or(eos) else {
            return Err(failed(
                "neither a BOS nor an EOS token is named, in tokenizer_config.json or config.json; a text needs something to begin after".into(),
            ));
        };
        if prefix as usize >= vocab_size {
            return Err(EvalError::Vocabulary {
                path: model.join("config.json"),
                found: prefix,
                vocab_size,
            });
        }
        let prefix_text = untrusted(|| inner.decode(&[prefix], false))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            inner,
            hash: blake3::hash(&bytes),
            path,
            bos,
            eos,
            template,
            prefix,
            prefix_text,
        })
    }

    /// Of `tokenizer.json`: equal for equal tokenizers.
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// The token that begins a text, if there is one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if there is one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// BOS, else EOS: what a text without context comes after.
    pub fn prefix(&self) -> u32 {
        self.prefix
    }

    /// The tokens of a text with the special tokens that the tokenizer adds, unless the text begins
    /// with the spelling of the prefix token (the harness's `tok_encode`).
    ///
    /// # Errors
    /// [`EvalError::Tokenizer`] if a part of the text has no token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, EvalError> {
        self.encode_with(text, !text.starts_with(&self.prefix_text))
    }

    fn encode_with(&self, text: &str, add_special: bool) -> Result<Vec<u32>, EvalError> {
        let by_post_processor = add_special && self.template.is_none();
        let encoding = untrusted(|| self.inner.encode_fast(text, by_post_processor))
            .map_err(|error| self.failed(&error))?;
        let ids = encoding.get_ids();
        Ok(match &self.template {
            Some(template) if add_special => [&template.before, ids, &template.after].concat(),
            _ => ids.to_vec(),
        })
    }

    /// The tokens of a context and of a continuation, as `TemplateLM.loglikelihood` divides them:
    /// white space at the context's end belongs to the continuation; both are encoded together and
    /// the continuation is what follows as many tokens as the context alone has. An empty context
    /// is the prefix token, or the continuation's own first token if that is the prefix already.
    ///
    /// # Errors
    /// [`EvalError::Tokenizer`] if a part of the text has no token.
    pub fn encode_pair(&self, context: &str, continuation: &str) -> Result<EncodedPair, EvalError> {
        if context.is_empty() {
            let mut tokens = self.encode_with(continuation, false)?;
            if tokens.first() != Some(&self.prefix) {
                tokens.insert(0, self.prefix);
            }
            let continuation = tokens.split_off(1);
            return Ok(EncodedPair {
                context: tokens,
                continuation,
            });
        }
        let whole = [context, continuation].concat();
        let context = self.encode(rstrip(context))?;
        let mut whole = self.encode(&whole)?;
        let continuation = whole.split_off(context.len().min(whole.len()));
        Ok(EncodedPair {
            context,
            continuation,
        })
    }

    /// The text of tokens, special ones left out.
    ///
    /// # Errors
    /// [`EvalError::Tokenizer`] if the decoder refuses them.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, EvalError> {
        untrusted(|| self.inner.decode(tokens, true)).map_err(|error| self.failed(&error))
    }

    /// How a token is spelled, special or not.
    ///
    /// # Errors
    /// [`EvalError::Tokenizer`] if the decoder refuses it.
    pub fn spelling(&self, token: u32) -> Result<String, EvalError> {
        untrusted(|| self.inner.decode(&[token], false)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &tokenizers::Error) -> EvalError {
        EvalError::Tokenizer {
            path: self.path.clone(),
            message: error.to_string(),
        }
    }
}

/// BOS and EOS by id, from `config.json`.
fn ids_of_config(model: &Path) -> Result<(Option<u32>, Option<u32>), EvalError> {
    let config = read_object(&model.join("config.json"))?.unwrap_or_default();
    let id = |name: &str| {
        let value = config.get(name)?;
        let first = value.as_array().and_then(|list| list.first());
        first.unwrap_or(value).as_u64()?.try_into().ok()
    };
    Ok((id("bos_token_id"), id("eos_token_id")))
}
