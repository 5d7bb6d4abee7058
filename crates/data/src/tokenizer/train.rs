//! Trains the tokenizer with the `tokenizers` crate.
//!
//! Its trainer is parallel but deterministic: words are counted exactly, and among pairs of equal frequency
//! the one with the smaller ids is merged first.

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerBuilder};

use super::{DOCUMENT_END, MAX_VOCAB, MIN_VOCAB, Tokenizer, failed, words};
use crate::error::DataError;

impl Tokenizer {
    /// Trains a byte-level BPE tokenizer of at most `vocab_size` tokens on these texts; fewer if no remaining
    /// pair occurs twice. The same texts give the same tokenizer.
    ///
    /// All distinct words are held in memory, and the time is quadratic in a word's length: use megabytes of
    /// text, not gigabytes, and split text without spaces and line ends.
    ///
    /// # Errors
    /// [`DataError::Config`] if `vocab_size` is below 257 (the bytes and the document-end token).
    pub fn train(
        texts: impl Iterator<Item = String> + Send,
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        if !(MIN_VOCAB..=MAX_VOCAB).contains(&vocab_size) {
            return Err(DataError::Config {
                key: "vocab_size",
                found: vocab_size.to_string(),
                allowed: format!("{MIN_VOCAB} to {MAX_VOCAB}"),
            });
        }
        let split = Split::new(
            SplitPattern::Regex(words::LLAMA_3.to_owned()),
            SplitDelimiterBehavior::Isolated,
            false,
        );
        let byte_level = ByteLevel::new(false, false, false);
        let split = split.map_err(failed)?;
        let sequence = Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(byte_level),
        ]);
        let mut tokenizer = TokenizerBuilder::<
            BPE,
            tokenizers::NormalizerWrapper,
            Sequence,
            ByteLevel,
            ByteLevel,
        >::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(sequence))
        .with_post_processor(None)
        .with_decoder(Some(byte_level))
        .build()
        .map_err(failed)?;
        let mut trainer = BpeTrainerBuilder::new()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(vec![AddedToken::from(DOCUMENT_END, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        tokenizer.train(&mut trainer, texts).map_err(failed)?;
        let mut json = tokenizer.to_string(true).map_err(failed)?.into_bytes();
        json.push(b'\n');
        Self::from_json(json)
    }
}
