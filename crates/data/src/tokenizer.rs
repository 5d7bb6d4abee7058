//! Byte-level BPE: text to token ids and back, exactly.
//!
//! A trained tokenizer splits text with the pattern of LLaMA 3 (contractions, words with the space
//! before them, numbers of up to three digits, punctuation, line ends), maps the bytes to visible
//! characters as GPT-2 does, and merges pairs in order of their frequency (Sennrich et al., 2016,
//! arXiv:1508.07909). All 256 bytes are in the vocabulary, so no text is unknown.
//!
//! Special tokens are never recognised in text: `encode` treats `<|endoftext|>` in a document as
//! its thirteen characters. Tokens that a `tokenizer.json` from another source adds without marking
//! them as special (runs of spaces, for example) are recognised, as intended by its author. BPE
//! dropout is disabled, so that the same text always has the same tokens.

mod byte_level;
mod stream;
mod train;
mod untrusted;
mod words;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use iiet_files::{read_regular, write_file};

use crate::error::DataError;
use crate::guarded::guarded;

pub use stream::TextStream;
pub use untrusted::{parse_tokenizer, untrusted};
pub use words::Words;

/// The token after each document of a trained tokenizer.
pub const DOCUMENT_END: &str = "<|endoftext|>";

/// Names of the document-end token in known tokenizers; the first match is used.
pub(crate) const DOCUMENT_ENDS: &[&str] = &[
    DOCUMENT_END,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<|im_end|>",
    "[EOS]",
    "[SEP]",
];

/// 256 bytes and the document-end token.
pub(crate) const MIN_VOCAB: usize = 257;
/// No known vocabulary is larger; a damaged file may declare a larger one, for which memory would
/// be allocated.
pub(crate) const MAX_VOCAB: usize = 1 << 20;

/// Text to token ids and back; cheap to clone.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// The bytes of the `tokenizer.json`, saved unchanged.
    json: Arc<[u8]>,
    vocab_size: usize,
    vocab_hash: [u8; 32],
    document_end: Option<u32>,
    start: Arc<[u32]>,
    token_bytes: Option<Arc<Vec<u32>>>,
    /// The fast encoder, if the tokenizer is of a known kind.
    words: Option<Arc<words::Words>>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("document_end", &self.document_end)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Opens a `tokenizer.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or is not what the `tokenizers` crate writes.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let json = read_regular(path).map_err(DataError::io(path))?;
        Self::from_json(json).map_err(|error| match error {
            DataError::Tokenizer { message, .. } => DataError::Tokenizer {
                path: Some(path.to_path_buf()),
                message,
            },
            other => other,
        })
    }

    /// Builds a tokenizer from the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    /// If the bytes are not what the `tokenizers` crate writes, or the vocabulary is empty.
    pub fn from_json(json: impl Into<Vec<u8>>) -> Result<Self, DataError> {
        let json: Vec<u8> = json.into();
        let mut inner = parse_tokenizer(&json).map_err(failed)?;
        inner.set_encode_special_tokens(true);
        let vocab = untrusted(|| Ok(inner.get_vocab(true))).map_err(failed)?;
        let mut vocab: Vec<(u32, String)> =
            vocab.into_iter().map(|(token, id)| (id, token)).collect();
        vocab.sort();
        // Ids may have gaps, so the size is one more than the largest id.
        let Some(vocab_size) = vocab.last().map(|(id, _)| *id as usize + 1) else {
            return Err(failed("the vocabulary is empty".into()));
        };
        if vocab_size > MAX_VOCAB {
            return Err(DataError::TooLarge {
                what: "the vocabulary",
                found: vocab_size as u64,
                allowed: MAX_VOCAB as u64,
            });
        }
        let mut hash = blake3::Hasher::new();
        for (id, token) in &vocab {
            hash.update(&id.to_le_bytes());
            hash.update(&(token.len() as u64).to_le_bytes());
            hash.update(token.as_bytes());
        }
        let document_end = DOCUMENT_ENDS
            .iter()
            .find_map(|name| inner.token_to_id(name));
        let start = start(&inner).map_err(failed)?.into();
        let words = words::Words::of(&json).map(Arc::new);
        let token_bytes = byte_level::token_bytes(&json, &vocab, vocab_size).map(Arc::new);
        Ok(Self {
            inner: Arc::new(inner),
            json: json.into(),
            vocab_size,
            vocab_hash: *hash.finalize().as_bytes(),
            document_end,
            start,
            token_bytes,
            words,
        })
    }

    /// Writes the `tokenizer.json`, unchanged if it was opened.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        write_file(path, |file| file.write_all(&self.json))
            .map(drop)
            .map_err(DataError::io(path))
    }

    /// The bytes of the `tokenizer.json`.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// The token ids of a text, without special tokens.
    ///
    /// # Errors
    /// If a part of the text has no token; never for a trained tokenizer.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        match &self.words {
            Some(words) => untrusted(|| words.encode(text, self.inner.get_model())).map_err(failed),
            None => self.encode_in_full(text),
        }
    }

    /// Encodes with all steps of the `tokenizer.json`.
    fn encode_in_full(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = untrusted(|| self.inner.encode_fast(text, false)).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Decodes tokens to text, without special tokens. Invalid UTF-8, as when the tokens start or
    /// end within a character, becomes U+FFFD.
    ///
    /// # Errors
    /// [`DataError::TokenOutOfRange`] for an id outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= self.vocab_size) {
            return Err(DataError::TokenOutOfRange {
                path: None,
                token,
                vocab_size: self.vocab_size,
            });
        }
        untrusted(|| self.inner.decode(tokens, true)).map_err(failed)
    }

    /// The special tokens that the file's template adds before a text, such as LLaMA's `<s>`.
    pub fn start(&self) -> Vec<u32> {
        self.start.to_vec()
    }

    /// A token's entry in the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, special or not.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// blake3 of ids and tokens: equal for tokenizers with the same vocabulary.
    pub fn vocab_hash(&self) -> [u8; 32] {
        self.vocab_hash
    }

    /// The token after each document: `<|endoftext|>`, or its equivalent in the file. `None` if the
    /// file has none; then documents are not separated.
    pub fn document_end(&self) -> Option<u32> {
        self.document_end
    }

    /// The bytes of text that each token represents, by token id, 0 for special tokens. `Some` if
    /// these add up exactly to the length of the text, as for byte-level BPE without normalisation.
    pub fn token_bytes(&self) -> Option<Vec<u32>> {
        self.token_bytes.as_deref().cloned()
    }
}

/// The tokens that the template adds before a text, found by encoding one with and without it.
fn start(inner: &tokenizers::Tokenizer) -> tokenizers::Result<Vec<u32>> {
    let refused = |error: &dyn std::fmt::Display| {
        format!("its template (post_processor) cannot be applied: {error}")
    };
    let ids = |special| {
        let encoded = guarded(|| inner.encode_fast("a", special));
        encoded.map_err(|panic| refused(&panic))
    };
    // Not every vocabulary has tokens for this text.
    let plain = match ids(false)? {
        Ok(plain) if !plain.is_empty() => plain.get_ids().to_vec(),
        _ => return Ok(Vec::new()),
    };
    let whole = ids(true)?.map_err(|error| refused(&error))?;
    let mut whole = whole.get_ids().to_vec();
    let at = whole.windows(plain.len()).position(|part| part == plain);
    whole.truncate(at.ok_or("its template (post_processor) leaves out the text")?);
    Ok(whole)
}

fn failed(error: tokenizers::Error) -> DataError {
    DataError::Tokenizer {
        path: None,
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "fn main() {\n    let naïve = \"日本\";\n    main();\n}\n// main, main 1234567\n";

    fn trained() -> Tokenizer {
        Tokenizer::train(std::iter::repeat_n(TEXT.to_owned(), 3), 280).unwrap()
    }

    #[test]
    fn encoded_text_decodes_to_itself() {
        let tokenizer = trained();
        for text in [
            TEXT,
            "",
            " ",
            "a\u{0}b",
            "never seen: ¿ßçж 🦀\r\n\r\n  \t",
            "<|endoftext|>",
        ] {
            let tokens = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&tokens).unwrap(), text);
            let bytes = tokenizer.token_bytes().unwrap();
            let sum: u32 = tokens.iter().map(|&token| bytes[token as usize]).sum();
            assert_eq!(sum as usize, text.len(), "{text:?}");
        }
    }

    #[test]
    fn the_fast_encoder_gives_the_same_tokens() {
        let tokenizer = trained();
        assert!(tokenizer.words.is_some());
        let own = include_str!("tokenizer.rs");
        let odd = "a  b\t\tc \n d\r\n\r\n  \n\te   \u{a0}\u{a0}f\u{3000}\u{3000} 12345 can't CAN'T ''' \n";
        for text in [own, odd, " ", "  ", "\n \n", " \n ", "a ", "a  "] {
            let fast = tokenizer.encode(text).unwrap();
            assert_eq!(fast, tokenizer.encode_in_full(text).unwrap(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_fast_encoder_gives_the_same_tokens_for_any_text(
            text in r"([ \t\n\ra'1é日\u{a0}{(]|let|\PC){0,60}"
        ) {
            static TOKENIZER: std::sync::LazyLock<Tokenizer> = std::sync::LazyLock::new(trained);
            let fast = TOKENIZER.encode(&text).unwrap();
            proptest::prop_assert_eq!(fast, TOKENIZER.encode_in_full(&text).unwrap());
        }
    }

    #[test]
    fn the_vocabulary_is_as_described() {
        let tokenizer = trained();
        assert_eq!(tokenizer.vocab_size(), 280);
        assert_eq!(tokenizer.document_end(), Some(0));
        assert_eq!(tokenizer.token_bytes().unwrap()[0], 0);
        assert_eq!(tokenizer.token_bytes().unwrap()[1..257], [1; 256]);
        // `!` is the first of GPT-2's visible characters.
        assert_eq!(tokenizer.encode("!").unwrap(), [1]);
        // It occurs four times per document, more than any other word.
        assert_eq!(tokenizer.encode(" main").unwrap().len(), 1);
    }

    #[test]
    fn text_that_is_one_long_word_is_accepted() {
        let long = ["a", " ", "\n", "=", "1", " \n"].map(|word| word.repeat(1 << 17));
        // The trainer's time is quadratic in the length of a word, so it receives the first part of
        // each.
        let short = long.iter().map(|text| text[..1 << 10].to_owned());
        let tokenizer = Tokenizer::train(short, 280).unwrap();
        for text in &long {
            let tokens = tokenizer.encode(text).unwrap();
            assert!(tokens == tokenizer.encode_in_full(text).unwrap());
            assert!(tokenizer.decode(&tokens).unwrap() == *text);
        }
    }

    #[test]
    fn a_word_beyond_the_limit_is_an_error_that_names_it() {
        let tokenizer = trained();
        let longest = "a".repeat(1 << 20);
        assert!(tokenizer.encode(&longest).is_ok());
        let error = tokenizer.encode(&format!("x = {longest}b")).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("1048578 bytes, \" aaaa"), "{error}");
        assert!(error.contains("at most 1048576"), "{error}");
    }

    #[test]
    fn special_tokens_are_not_recognised_in_text() {
        let tokenizer = trained();
        assert!(!tokenizer.encode("a<|endoftext|>b").unwrap().contains(&0));
        assert_eq!(tokenizer.decode(&[0, 1, 0]).unwrap(), "!");
    }

    #[test]
    fn saving_and_opening_keep_the_hash_and_the_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let tokenizer = trained();
        tokenizer.save(&path).unwrap();
        let opened = Tokenizer::open(&path).unwrap();
        assert_eq!(opened.vocab_hash(), tokenizer.vocab_hash());
        assert_eq!(opened.json(), tokenizer.json());
        assert_eq!(
            opened.encode(TEXT).unwrap(),
            tokenizer.encode(TEXT).unwrap()
        );
        std::fs::write(&path, "{}").unwrap();
        let error = Tokenizer::open(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }

    #[test]
    fn invalid_ids_and_sizes_are_errors() {
        let error = trained().decode(&[280]).unwrap_err();
        assert!(matches!(
            error,
            DataError::TokenOutOfRange {
                token: 280,
                vocab_size: 280,
                ..
            }
        ));
        assert!(Tokenizer::train(std::iter::empty(), 256).is_err());
        // An empty text still gives the bytes.
        assert_eq!(
            Tokenizer::train(std::iter::empty(), 400)
                .unwrap()
                .vocab_size(),
            257
        );
    }
}
