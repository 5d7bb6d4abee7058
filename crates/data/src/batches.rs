//! Batches as a pure function of seed and index.
//!
//! A row is an example: a window of a text, a prompt with its completion, or what another source
//! gives ([`Examples`]). An epoch is one permutation of the examples, drawn by Fisher and Yates'
//! shuffle with ChaCha8 seeded from (seed, epoch). The epochs' examples make one endless sequence,
//! and batch `i` is its places `i * batch` to `(i + 1) * batch`: any batch can be had without those
//! before it, and a batch may span two epochs. Examples that are computed have no epochs: each place has its
//! own.

use std::sync::{Arc, Mutex, PoisonError};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::batch::{Batch, MAX_BATCH_TOKENS};
use crate::error::DataError;
use crate::examples::{Examples, TextWindows};
use crate::pairs::Pairs;
use crate::token_file::TokenFile;

/// The infinite sequence of shuffled batches of a source of examples; cheap to clone.
#[derive(Clone, Debug)]
pub struct Batches {
    examples: Arc<dyn Examples>,
    batch: usize,
    seed: u64,
    /// The index of this source in a mixture; each source has separate permutations.
    source: u64,
    permutations: Arc<Mutex<Vec<Permutation>>>,
}

/// The order of one epoch's examples.
#[derive(Clone, Debug)]
struct Permutation {
    epoch: u128,
    order: Arc<[u32]>,
}

/// Number of cached permutations: a batch may span two epochs.
const KEPT: usize = 2;

impl Batches {
    /// Batches of `batch` rows of `seq` tokens from a token file: windows of its text, or its pairs of
    /// prompts and completions.
    ///
    /// # Errors
    /// If `batch` or `seq` is 0 or their product exceeds 2^28, the file has fewer than two tokens, more than
    /// 2^32 - 1 windows, or a pair that is longer than a row.
    pub fn new(tokens: TokenFile, batch: usize, seq: usize, seed: u64) -> Result<Self, DataError> {
        check_size(batch, seq)?;
        Self::of(examples(tokens, seq)?, batch, seed)
    }

    /// Batches of `batch` examples.
    ///
    /// # Errors
    /// If `batch` or the length of a row is 0 or their product beyond 2^28, or the number of examples
    /// is not 1 to 2^32 - 1 and they are not endless.
    pub fn of(examples: Arc<dyn Examples>, batch: usize, seed: u64) -> Result<Self, DataError> {
        Self::for_source(examples, batch, seed, 0)
    }

    /// The same as [`of`](Self::of), for a source of a mixture.
    pub(crate) fn for_source(
        examples: Arc<dyn Examples>,
        batch: usize,
        seed: u64,
        source: u64,
    ) -> Result<Self, DataError> {
        check_size(batch, examples.seq())?;
        let count = examples.count();
        if count == 0 || (count > u64::from(u32::MAX) && !examples.is_endless()) {
            return Err(DataError::Config {
                key: "the number of windows or examples",
                found: count.to_string(),
                allowed: format!("1 to {}", u32::MAX),
            });
        }
        Ok(Self {
            examples,
            batch,
            seed,
            source,
            permutations: Arc::default(),
        })
    }

    /// Batch `index` of the sequence, which is infinite.
    ///
    /// # Errors
    /// If the file contains a token outside its vocabulary, or an epoch's permutation does not fit in memory
    /// (four bytes per window).
    pub fn get(&self, index: u64) -> Result<Batch, DataError> {
        let first = u128::from(index) * self.batch as u128;
        let mut batch = self.empty(self.batch);
        for place in first..first + self.batch as u128 {
            self.push_place(place, &mut batch)?;
        }
        Ok(batch)
    }

    /// Appends the example at a position of the infinite sequence.
    pub(crate) fn push_place(&self, place: u128, batch: &mut Batch) -> Result<(), DataError> {
        if self.examples.is_endless() {
            // Every place has an example of its own, in no order that could be shuffled.
            return self.examples.push(self.seed, place as u64, batch);
        }
        let count = u128::from(self.windows());
        let permutation = self.permutation(place / count)?;
        // The remainder is below `count`, which fits in 32 bits.
        let example = permutation.order[(place % count) as usize];
        self.examples.push(self.seed, u64::from(example), batch)
    }

    /// Batch `index` of the examples in their order, without shuffling; `None` past the end. The last batch
    /// may have fewer rows.
    ///
    /// # Errors
    /// If the file contains a token outside its vocabulary.
    pub fn in_order(&self, index: u64) -> Result<Option<Batch>, DataError> {
        let first = index.saturating_mul(self.batch as u64);
        if first >= self.windows() {
            return Ok(None);
        }
        let end = self.windows().min(first.saturating_add(self.batch as u64));
        let windows: Vec<u64> = (first..end).collect();
        self.of_windows(&windows).map(Some)
    }

    /// A batch of the given examples, one per row.
    ///
    /// # Errors
    /// [`DataError::OutOfRange`] for a window that does not exist, or if the file contains a token outside
    /// its vocabulary.
    pub fn of_windows(&self, windows: &[u64]) -> Result<Batch, DataError> {
        let mut batch = self.empty(windows.len());
        for &window in windows {
            if window >= self.windows() {
                return Err(DataError::OutOfRange {
                    what: "windows",
                    start: window,
                    end: window.saturating_add(1),
                    len: self.windows(),
                });
            }
            self.examples.push(self.seed, window, &mut batch)?;
        }
        Ok(batch)
    }

    /// The number of windows of a text, or examples of another source, which is the number of rows of an
    /// epoch.
    pub fn windows(&self) -> u64 {
        self.examples.count()
    }

    /// Rows per batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Tokens per row.
    pub fn seq(&self) -> usize {
        self.examples.seq()
    }

    /// The source of the rows.
    pub fn examples(&self) -> &Arc<dyn Examples> {
        &self.examples
    }

    /// The number of epochs completed before batch `index`.
    pub fn epoch_of(&self, index: u64) -> f64 {
        index as f64 * self.batch as f64 / self.windows() as f64
    }

    pub(crate) fn empty(&self, rows: usize) -> Batch {
        Batch::with_capacity(rows, self.seq())
    }

    fn permutation(&self, epoch: u128) -> Result<Permutation, DataError> {
        let mut kept = self
            .permutations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().find(|kept| kept.epoch == epoch) {
            return Ok(found.clone());
        }
        if kept.len() == KEPT {
            kept.remove(0);
        }
        let order = permutation(self.seed, self.source, epoch, self.windows() as u32)?.into();
        let made = Permutation { epoch, order };
        kept.push(made.clone());
        Ok(made)
    }
}

/// The examples of a token file of text or of prompts with completions.
pub(crate) fn examples(tokens: TokenFile, seq: usize) -> Result<Arc<dyn Examples>, DataError> {
    if tokens.has_sources() {
        return Err(DataError::DocumentKind {
            path: tokens.path().to_path_buf(),
            found: "pairs of source and target",
            allowed: "texts, or prompts with completions",
        });
    }
    Ok(match tokens.has_prompts() {
        true => Arc::new(Pairs::new(tokens, seq)?),
        false => Arc::new(TextWindows::new(tokens, seq)?),
    })
}

pub(crate) fn check_size(batch: usize, seq: usize) -> Result<(), DataError> {
    let product = batch.checked_mul(seq);
    for (key, value) in [("batch", batch), ("seq", seq)] {
        if value == 0 || product.is_none_or(|product| product > MAX_BATCH_TOKENS) {
            return Err(DataError::Config {
                key,
                found: value.to_string(),
                allowed: "at least 1, with batch * seq at most 268435456".to_owned(),
            });
        }
    }
    Ok(())
}

/// A random permutation of the numbers below `n`; `stream` is the index of a source, or another number.
pub(crate) fn permutation(
    seed: u64,
    stream: u64,
    epoch: u128,
    n: u32,
) -> Result<Vec<u32>, DataError> {
    let mut order = Vec::new();
    order
        .try_reserve_exact(n as usize)
        .map_err(|_| DataError::OutOfMemory {
            what: "the permutation of an epoch's examples",
            bytes: 4 * u64::from(n),
        })?;
    order.extend(0..n);
    shuffle(seed, stream, epoch, &mut order);
    Ok(order)
}

/// Fisher and Yates' shuffle. Implemented here because `rand`'s may change between releases, and with it the
/// meaning of a seed.
pub(crate) fn shuffle(seed: u64, stream: u64, epoch: u128, order: &mut [u32]) {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..24].copy_from_slice(&epoch.to_le_bytes());
    key[24..].copy_from_slice(b"windows1");
    let mut random = ChaCha8Rng::from_seed(key);
    random.set_stream(stream);
    for last in (1..order.len() as u32).rev() {
        order.swap(last as usize, below(&mut random, last + 1) as usize);
    }
}

/// An unbiased random number below `n` (Lemire, 2019, arXiv:1805.10941): the upper half of a product, with
/// rejection where the lower half would cause a bias.
pub(crate) fn below(random: &mut ChaCha8Rng, n: u32) -> u32 {
    loop {
        let product = u64::from(random.next_u32()) * u64::from(n);
        if product as u32 >= n.wrapping_neg() % n {
            return (product >> 32) as u32;
        }
    }
}

/// Windows for validation during training: evenly spaced, always the same, in order, and together at most
/// `max_tokens` tokens (but at least one window).
///
/// `windows` and `seq` are those of [`Batches`]; the result is used with [`Batches::of_windows`].
pub fn evaluation_windows(windows: u64, seq: usize, max_tokens: u64) -> Vec<u64> {
    let count = windows.min((max_tokens / (seq as u64).max(1)).max(1));
    // The midpoints of `count` equal parts.
    (0..u128::from(count))
        .map(|part| ((2 * part + 1) * u128::from(windows) / (2 * u128::from(count))) as u64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenWriter;

    /// A file of the tokens 0, 1, 2, ..
    fn counting(len: u32) -> (tempfile::TempDir, TokenFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.bin");
        let mut writer = TokenWriter::create(&path, 1000, [0; 32]).unwrap();
        writer.push(&(0..len).collect::<Vec<_>>(), 0).unwrap();
        writer.finish().unwrap();
        let file = TokenFile::open(&path).unwrap();
        (folder, file)
    }

    #[test]
    fn windows_equal_those_computed_by_hand() {
        // 8 tokens, rows of 3: windows 0123, 3456, 67; the last one is padded.
        let (_folder, file) = counting(8);
        let batches = Batches::new(file, 2, 3, 0).unwrap();
        assert_eq!(batches.windows(), 3);
        let first = batches.in_order(0).unwrap().unwrap();
        assert_eq!(first.inputs, [0, 1, 2, 3, 4, 5]);
        assert_eq!(first.targets, [1, 2, 3, 4, 5, 6]);
        assert_eq!(first.weights, [1.0; 6]);
        let last = batches.in_order(1).unwrap().unwrap();
        assert_eq!((last.batch, last.seq), (1, 3));
        assert_eq!(last.inputs, [6, 0, 0]);
        assert_eq!(last.targets, [7, 0, 0]);
        assert_eq!(last.weights, [1.0, 0.0, 0.0]);
        assert_eq!(batches.in_order(2).unwrap(), None);
        assert_eq!(batches.in_order(u64::MAX).unwrap(), None);
        // 7 tokens fill exactly two windows.
        let (_folder, file) = counting(7);
        assert_eq!(Batches::new(file, 2, 3, 0).unwrap().windows(), 2);
    }

    #[test]
    fn the_order_is_pinned() {
        // A change of this order changes the data order of every run.
        let order = |seed, epoch| permutation(seed, 0, epoch, 8).unwrap();
        let orders = [order(0, 0), order(0, 1), order(1, 0)];
        let pinned = [
            [2, 5, 0, 4, 1, 6, 7, 3],
            [0, 2, 5, 6, 7, 4, 1, 3],
            [1, 0, 7, 2, 6, 3, 5, 4],
        ];
        assert_eq!(orders, pinned);
    }

    #[test]
    fn every_epoch_visits_every_window_once() {
        let (_folder, file) = counting(100);
        let batches = Batches::new(file, 4, 9, 3).unwrap(); // 11 windows
        let mut firsts = Vec::new();
        for index in 0..33 {
            let batch = batches.get(index).unwrap();
            firsts.extend(batch.inputs.chunks(9).map(|row| row[0] / 9));
        }
        for epoch in firsts.chunks(11) {
            let mut sorted = epoch.to_vec();
            sorted.sort();
            assert_eq!(sorted, (0..11).collect::<Vec<_>>());
        }
        assert_ne!(firsts[..11], firsts[11..22]);
        assert_eq!(batches.epoch_of(11), 4.0);
    }

    #[test]
    fn batches_do_not_depend_on_earlier_calls() {
        let (_folder, file) = counting(200);
        let batches = Batches::new(file.clone(), 3, 7, 5).unwrap();
        let sequence: Vec<Batch> = (0..50).map(|i| batches.get(i).unwrap()).collect();
        for index in [49, 0, 31, 7, 30] {
            let fresh = Batches::new(file.clone(), 3, 7, 5).unwrap();
            assert_eq!(fresh.get(index).unwrap(), sequence[index as usize]);
            assert_eq!(batches.get(index).unwrap(), sequence[index as usize]);
        }
        let other = Batches::new(file, 3, 7, 6).unwrap();
        assert_ne!(other.get(0).unwrap(), sequence[0]);
    }

    #[test]
    fn the_last_index_and_the_smallest_file_are_valid() {
        let (_folder, file) = counting(2);
        let batches = Batches::new(file.clone(), 8, 512, 0).unwrap();
        let batch = batches.get(u64::MAX).unwrap();
        assert_eq!(batch.counted(), 8);
        for (batch, seq) in [(0, 1), (1, 0), (usize::MAX, 2), (1 << 20, 1 << 20)] {
            let invalid = Batches::new(file.clone(), batch, seq, 0);
            assert!(matches!(invalid, Err(DataError::Config { .. })));
        }
        let (_folder, file) = counting(1);
        let short = Batches::new(file, 1, 1, 0);
        assert!(matches!(
            short,
            Err(DataError::TooFewTokens { tokens: 1, .. })
        ));
    }

    #[test]
    fn evaluation_windows_equal_those_computed_by_hand() {
        assert_eq!(evaluation_windows(10, 4, 8), [2, 7]);
        assert_eq!(evaluation_windows(3, 4, 1000), [0, 1, 2]);
        assert_eq!(evaluation_windows(9, 4, 1), [4]);
        assert_eq!(evaluation_windows(u64::MAX, 1, 2).len(), 2);
        let (_folder, file) = counting(41);
        let batches = Batches::new(file, 1, 4, 0).unwrap();
        assert_eq!(
            batches.of_windows(&[2, 7]).unwrap().inputs,
            [8, 9, 10, 11, 28, 29, 30, 31]
        );
        assert!(batches.of_windows(&[10]).is_err());
    }
}
