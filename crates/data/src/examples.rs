//! Sources of examples, the rows of batches.
//!
//! Text is one source of examples ([`TextWindows`]), prompts with completions are another
//! ([`Pairs`](crate::Pairs)), computed tasks a third ([`TaskExamples`](crate::TaskExamples)). What an
//! example is follows from the seed and its number alone, so that a run can stop and go on anywhere.

use std::fmt::Debug;
use std::sync::Arc;

use crate::batch::Batch;
use crate::error::DataError;
use crate::token_file::TokenFile;

/// A source of examples, each a row of inputs, targets and weights.
///
/// ```
/// use std::sync::Arc;
///
/// use iiet_data::{Batch, Batches, DataError, Examples};
///
/// /// Ten digits to be repeated after a separator; only the repetition counts.
/// #[derive(Debug)]
/// struct Copying;
///
/// impl Examples for Copying {
///     fn seq(&self) -> usize {
///         20
///     }
///     fn count(&self) -> u64 {
///         1 << 16
///     }
///     fn push(&self, seed: u64, index: u64, batch: &mut Batch) -> Result<(), DataError> {
///         let digit = |i: u64| ((seed + index * 7919 + i * i) % 10) as u32;
///         let digits: Vec<u32> = (0..10).map(digit).collect();
///         let row = [&digits[..], &[10], &digits[..]].concat();
///         let weights: Vec<f32> = (0..20).map(|at| if at < 10 { 0.0 } else { 1.0 }).collect();
///         batch.push_row(&row[..20], &row[1..], &weights)
///     }
/// }
///
/// let batches = Batches::of(Arc::new(Copying), 4, 0)?;
/// assert_eq!(batches.get(123)?.counted(), 4 * 10);
/// # Ok::<(), DataError>(())
/// ```
pub trait Examples: Debug + Send + Sync {
    /// Tokens per row.
    fn seq(&self) -> usize;

    /// Number of examples per epoch, 1 to 2^32 - 1. [`Batches`](crate::Batches) visits each once per epoch,
    /// in a new order for each epoch.
    fn count(&self) -> u64;

    /// Whether there is a new example for each place of the sequence, as where examples are computed.
    /// Then there are no epochs, nothing is shuffled, and `count` is `u64::MAX`.
    fn is_endless(&self) -> bool {
        false
    }

    /// Appends example `index`, below [`count`](Self::count), with [`Batch::push_row`]. The same seed and
    /// index must always give the same row; sources that are stored on disk ignore the seed.
    ///
    /// # Errors
    /// If the example cannot be read.
    fn push(&self, seed: u64, index: u64, batch: &mut Batch) -> Result<(), DataError>;
}

/// A source of examples and its weight in a mixture.
pub type WeightedExamples = (Arc<dyn Examples>, f64);

/// The windows of a text: `seq + 1` tokens each, starting `seq` tokens after the previous one, so that every
/// token but the first is a target exactly once.
#[derive(Clone, Debug)]
pub struct TextWindows {
    tokens: TokenFile,
    seq: usize,
    windows: u64,
}

impl TextWindows {
    /// The windows of a file for rows of `seq` tokens.
    ///
    /// # Errors
    /// If `seq` is 0, or the file has fewer than two tokens.
    pub fn new(tokens: TokenFile, seq: usize) -> Result<Self, DataError> {
        if seq == 0 {
            return Err(DataError::Config {
                key: "seq",
                found: "0".to_owned(),
                allowed: "at least 1".to_owned(),
            });
        }
        if tokens.len() < 2 {
            return Err(DataError::TooFewTokens {
                path: tokens.path().to_path_buf(),
                tokens: tokens.len(),
            });
        }
        Ok(Self {
            windows: (tokens.len() - 1).div_ceil(seq as u64),
            tokens,
            seq,
        })
    }
}

impl Examples for TextWindows {
    fn seq(&self) -> usize {
        self.seq
    }

    fn count(&self) -> u64 {
        self.windows
    }

    fn push(&self, _seed: u64, index: u64, batch: &mut Batch) -> Result<(), DataError> {
        let seq = self.seq as u64;
        let start = index * seq;
        let end = (start + seq + 1).min(self.tokens.len());
        let tokens = self.tokens.read(start..end)?;
        let targets = tokens.len() - 1; // at least one, given the number of windows
        batch.push_row(&tokens[..targets], &tokens[1..], &vec![1.0; targets])
    }
}
