//! Byte-level BPE between `tokenizer.json` and GGUF's tokenizer model `gpt2`.
//!
//! llama.cpp knows the patterns that split text into words only by the name of a model that uses them
//! (`tokenizer.ggml.pre`), and each name implies more than the pattern. For this project's tokenizers, which
//! have LLaMA 3's pattern and no `ignore_merges`, no name of a LLaMA is right: with `llama-bpe` a word that is
//! in the vocabulary becomes one token even if the merges do not lead to it. The names with the same pattern and
//! without that are `smaug-bpe` and, for a vocabulary without BOS, `chatglm-bpe`; see [`Split`].
//!
//! The patterns are the same except for one character: `(?i:'s)` also matches an apostrophe and U+017F, `ſ`,
//! which llama.cpp's hand-written version does not. Which characters are letters and numbers depends on the
//! version of Unicode of each program.

mod check;
mod from_json;
mod metadata;
mod to_json;
mod visible;

/// A byte-level BPE tokenizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteLevelBpe {
    /// All tokens, by id.
    pub tokens: Vec<Token>,
    /// The pairs that become one token, the first ones first.
    pub merges: Vec<(String, String)>,
    /// The pattern that splits text into words.
    pub split: Split,
    /// Whether a word that is a token becomes that token even if the merges do not lead to it.
    pub ignore_merges: bool,
    /// The token that is added before a text.
    pub before: Option<u32>,
    /// The token that is added after a text.
    pub after: Option<u32>,
}

/// A token of a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its text: for [`TokenKind::Normal`], one visible character for each byte.
    pub text: String,
    /// What it is for.
    pub kind: TokenKind,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// Not text, such as the end of a document.
    Special,
    /// Text that is recognised before it is split into words.
    Added,
    /// An id that the model has and the tokenizer has not.
    Unused,
}

/// How text is split into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// The pattern of LLaMA 3: numbers of up to three digits.
    Llama3,
    /// The pattern of Qwen 2: single digits.
    Qwen2,
    /// The pattern of GPT-2.
    Gpt2,
}

/// LLaMA 3's pattern.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen 2's pattern.
const QWEN_2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Split {
    /// The pattern in `tokenizer.json`; GPT-2's is built into the byte-level step.
    fn pattern(self) -> Option<&'static str> {
        match self {
            Self::Llama3 => Some(LLAMA_3),
            Self::Qwen2 => Some(QWEN_2),
            Self::Gpt2 => None,
        }
    }
}
