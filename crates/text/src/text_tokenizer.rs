//! Text to tokens, following `transformers`.
//!
//! A model directory's `tokenizer.json` defines the tokenization, and the files next to it the tokens that
//! begin and end a text ([`SpecialTokens`]); if they name neither, `config.json` does, by id.

use std::path::{Path, PathBuf};

use iiet_data::{Words, parse_tokenizer, untrusted};
use iiet_files::read_regular;
use tokenizers::Tokenizer;

use crate::error::TextError;
use crate::special_tokens::{SpecialTokens, Template, read_object};

/// A model directory's tokenizer with its special tokens.
pub struct TextTokenizer {
    inner: Tokenizer,
    hash: blake3::Hash,
    path: PathBuf,
    bos: Option<u32>,
    eos: Option<u32>,
    /// The tokens added to each text in place of the post-processor.
    template: Option<Template>,
    /// BOS, else EOS: the token before a text without context.
    prefix: u32,
    prefix_text: String,
    words: Option<ByWords>,
    rule: String,
}

/// The encoder for long texts, if the tokenizer is of a known kind: the `tokenizers` crate needs about two
/// hundred bytes of memory per byte of text.
struct ByWords {
    words: Words,
    /// Texts that contain one of these are encoded as a whole, because they are not split at words only.
    added: Vec<String>,
    /// The tokens that the post-processor adds.
    around: Template,
}

impl TextTokenizer {
    /// Opens the tokenizer of a model directory.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if it cannot be read or has neither a BOS nor an EOS token,
    /// [`TextError::Vocabulary`] if it has ids beyond the model's `vocab_size`.
    pub fn open(model: &Path, vocab_size: usize) -> Result<Self, TextError> {
        let path = model.join("tokenizer.json");
        let failed = |message: String| TextError::Tokenizer {
            path: path.clone(),
            message,
        };
        let bytes = read_regular(&path).map_err(TextError::io(&path))?;
        let inner = parse_tokenizer(&bytes).map_err(|error| failed(error.to_string()))?;
        let greatest = inner.get_vocab(true).into_values().max();
        match greatest {
            Some(found) if found as usize >= vocab_size => {
                return Err(TextError::Vocabulary {
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
            class,
        } = SpecialTokens::read(model, |token| inner.token_to_id(token))?;
        if bos.is_none() && eos.is_none() {
            (bos, eos) = ids_of_config(model)?;
        }
        let Some(prefix) = bos.or(eos) else {
            return Err(failed(
                "tokenizer_config.json and config.json name neither a BOS nor an EOS token; one is required to precede a text".into(),
            ));
        };
        if prefix as usize >= vocab_size {
            return Err(TextError::Vocabulary {
                path: model.join("config.json"),
                found: prefix,
                vocab_size,
            });
        }
        let prefix_text = untrusted(|| inner.decode(&[prefix], false))
            .map_err(|error| failed(error.to_string()))?;
        let words = ByWords::of(&bytes, &inner);
        let rule = rule(&inner, template.as_ref(), class);
        Ok(Self {
            words,
            rule,
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

    /// A hash of `tokenizer.json`.
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// How text becomes tokens here, in a sentence: what `tokenizer.json` decides, and what the tokenizer
    /// class. Results should have it beside them, because versions of `transformers` differ.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// The token that begins a text, if there is one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if there is one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// BOS, else EOS: the token before a text without context.
    pub fn prefix(&self) -> u32 {
        self.prefix
    }

    /// The tokens of a text with the special tokens that the tokenizer adds, unless the text begins
    /// with the spelling of the prefix token (the harness's `tok_encode`).
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if a part of the text cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        self.encode_with(text, !text.starts_with(&self.prefix_text))
    }

    /// The tokens of a text without those that the tokenizer adds. Special tokens that are spelled out in the
    /// text are recognised, as in `transformers`.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if a part of the text cannot be encoded.
    pub fn encode_bare(&self, text: &str) -> Result<Vec<u32>, TextError> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        if let Some(by_words) = &self.words
            && by_words.added.iter().all(|added| !text.contains(added))
        {
            let around = self.template.as_ref().unwrap_or(&by_words.around);
            let ids = untrusted(|| by_words.words.encode(text, self.inner.get_model()))
                .map_err(|error| self.failed(&error))?;
            return Ok(match add_special {
                true => [&around.before[..], &ids, &around.after].concat(),
                false => ids,
            });
        }
        let by_post_processor = add_special && self.template.is_none();
        let encoding = untrusted(|| self.inner.encode_fast(text, by_post_processor))
            .map_err(|error| self.failed(&error))?;
        let ids = encoding.get_ids();
        Ok(match &self.template {
            Some(template) if add_special => [&template.before, ids, &template.after].concat(),
            _ => ids.to_vec(),
        })
    }

    /// The id of a token by its spelling in the vocabulary, special ones included.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Decodes tokens to text, without special tokens.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the decoder fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        untrusted(|| self.inner.decode(tokens, true)).map_err(|error| self.failed(&error))
    }

    /// The text of a token, special or not.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] if the decoder fails.
    pub fn spelling(&self, token: u32) -> Result<String, TextError> {
        untrusted(|| self.inner.decode(&[token], false)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &tokenizers::Error) -> TextError {
        TextError::Tokenizer {
            path: self.path.clone(),
            message: error.to_string(),
        }
    }
}

impl ByWords {
    fn of(json: &[u8], inner: &Tokenizer) -> Option<Self> {
        let words = Words::of(json)?;
        let ids = |special| {
            let encoding = untrusted(|| inner.encode_fast("a", special)).ok()?;
            Some(encoding.get_ids().to_vec())
        };
        let (plain, whole) = (ids(false)?, ids(true)?);
        if plain.is_empty() {
            return None;
        }
        let at = whole.windows(plain.len()).position(|part| part == plain)?;
        let added = inner.get_added_tokens_decoder().into_values();
        Some(Self {
            words,
            added: added.map(|token| token.content).collect(),
            around: Template {
                before: whole[..at].to_vec(),
                after: whole[at + plain.len()..].to_vec(),
            },
        })
    }
}

fn rule(inner: &Tokenizer, template: Option<&Template>, class: Option<&str>) -> String {
    let spellings = |ids: &[u32]| match ids {
        [] => "nothing".to_owned(),
        ids => ids
            .iter()
            .map(|id| inner.id_to_token(*id).unwrap_or_default())
            .collect::<Vec<_>>()
            .join(" "),
    };
    let around = match (template, class) {
        (Some(template), Some(class)) => format!(
            "{} before it and {} after it, as {class} of transformers 4",
            spellings(&template.before),
            spellings(&template.after)
        ),
        _ => "special tokens as its post_processor says".to_owned(),
    };
    let differs = match class {
        Some("LlamaTokenizer") if inner.get_normalizer().is_some() => {
            "; transformers 5 leaves out its normalizer"
        }
        _ => "",
    };
    format!("text as tokenizer.json says, {around}{differs}")
}

/// BOS and EOS by id, from `config.json`.
fn ids_of_config(model: &Path) -> Result<(Option<u32>, Option<u32>), TextError> {
    let config = read_object(&model.join("config.json"))?.unwrap_or_default();
    let id = |name: &str| {
        let value = config.get(name)?;
        let first = value.as_array().and_then(|list| list.first());
        first.unwrap_or(value).as_u64()?.try_into().ok()
    };
    Ok((id("bos_token_id"), id("eos_token_id")))
}
