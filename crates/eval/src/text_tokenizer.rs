//! Text to tokens as `transformers` does it, for that is what the harness calls.
//!
//! A model directory's `tokenizer.json` says how text becomes tokens; `tokenizer_config.json` (and
//! in older directories `special_tokens_map.json`) says which tokens begin and end a text, and for
//! two tokenizer classes may override what the first says about adding them:
//!
//! - `LlamaTokenizer` adds BOS and EOS as `add_bos_token` and `add_eos_token` say, where one of them
//!   is there. `transformers` 4 writes them and goes by them; 5 neither writes nor heeds them, and
//!   writes a post-processor that says the same. Where neither is there the post-processor decides.
//! - `GPTNeoXTokenizer` goes by them in any case and by default adds nothing.
//! - With any other class the post-processor of `tokenizer.json` decides.
//!
//! A directory without `tokenizer_config.json` has LLaMA's `<s>` and `</s>` if they are in the
//! vocabulary; else its `config.json` names BOS and EOS by id.

use std::path::{Path, PathBuf};

use iiet_data::{parse_tokenizer, untrusted};
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::error::EvalError;
use crate::python_text::rstrip;

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

struct Template {
    before: Vec<u32>,
    after: Vec<u32>,
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
        let special = Special::read(model, &inner)?;
        let id = |token: &Option<String>| {
            let Some(token) = token else { return Ok(None) };
            let id = inner.token_to_id(token);
            id.map(Some).ok_or_else(|| {
                failed(format!(
                    "the special token {token:?} is not in the vocabulary"
                ))
            })
        };
        let (mut bos, mut eos) = (id(&special.bos)?, id(&special.eos)?);
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
        let template = special.template.then(|| Template {
            before: bos.filter(|_| special.add_bos).into_iter().collect(),
            after: eos.filter(|_| special.add_eos).into_iter().collect(),
        });
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

/// What the files beside `tokenizer.json` say.
#[derive(Default)]
struct Special {
    bos: Option<String>,
    eos: Option<String>,
    /// Whether `add_bos` and `add_eos` stand in for the post-processor.
    template: bool,
    add_bos: bool,
    add_eos: bool,
    is_llama: bool,
}

impl Special {
    fn read(model: &Path, tokenizer: &Tokenizer) -> Result<Self, EvalError> {
        let Some(config) = read_object(&model.join("tokenizer_config.json"))? else {
            let llama = ["<s>", "</s>"].map(|token| tokenizer.token_to_id(token));
            return Ok(match llama.iter().all(Option::is_some) {
                true => Self::of_class("LlamaTokenizer"),
                false => Self::default(),
            });
        };
        // `transformers` turns to the older file where the newer list of tokens is missing.
        let map = match config.get("added_tokens_decoder") {
            Some(_) => None,
            None => read_object(&model.join("special_tokens_map.json"))?,
        };
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        let defaults = Self::of_class(class.unwrap_or("LlamaTokenizer"));
        let token = |name: &str, default: Option<String>| {
            let value = map.as_ref().and_then(|map| map.get(name));
            match value.or_else(|| config.get(name)) {
                None => default,
                Some(value) => spelling(value),
            }
        };
        let [add_bos, add_eos] = ["add_bos_token", "add_eos_token"]
            .map(|name| config.get(name).and_then(Value::as_bool));
        let heeded = defaults.is_llama && (add_bos.is_some() || add_eos.is_some());
        Ok(Self {
            bos: token("bos_token", defaults.bos),
            eos: token("eos_token", defaults.eos),
            template: defaults.template || heeded,
            add_bos: add_bos.unwrap_or(defaults.add_bos),
            add_eos: add_eos.unwrap_or(false),
            is_llama: defaults.is_llama,
        })
    }

    /// What a class says where the file does not.
    fn of_class(class: &str) -> Self {
        let named = |bos: &str, eos: &str| Self {
            bos: Some(bos.to_owned()),
            eos: Some(eos.to_owned()),
            ..Self::default()
        };
        match class.trim_end_matches("Fast") {
            "LlamaTokenizer" | "CodeLlamaTokenizer" => Self {
                add_bos: true,
                is_llama: true,
                ..named("<s>", "</s>")
            },
            "GPTNeoXTokenizer" => Self {
                template: true,
                ..named("<|endoftext|>", "<|endoftext|>")
            },
            "GPT2Tokenizer" => named("<|endoftext|>", "<|endoftext|>"),
            _ => Self::default(),
        }
    }
}

/// A token in `tokenizer_config.json`: its spelling, or an object that has it.
fn spelling(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("content")?.as_str());
    text.map(str::to_owned)
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

/// A JSON object, if the file is there.
fn read_object(path: &Path) -> Result<Option<serde_json::Map<String, Value>>, EvalError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(EvalError::io(path))?,
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| EvalError::Tokenizer {
            path: path.to_owned(),
            message: format!("not a JSON object: {error}"),
        })
}
