//! Batches of pairs of similar length, as a pure function of seed and index.
//!
//! Rows of a batch are padded to the longest, so pairs of similar length are put together. An epoch's order is
//! a permutation of the pairs, drawn from (seed, epoch) as in [`Batches`](crate::Batches), then sorted by the
//! lengths of target and source. The sort is stable, so that pairs of equal lengths meet others in every epoch.
//! The sorted sequence is cut into batches, whose order is shuffled from (seed, epoch) again.
//!
//! As all pairs are sorted together, the sequence of lengths is the same in every epoch, and so are the cuts and
//! the number of batches `B`: batch `i` is batch `i mod B` of epoch `i / B`, and can be had without those before
//! it. (fairseq sorts the same way and cuts once; its batches then hold the same pairs in every epoch.)

use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::{Batch, MAX_BATCH_TOKENS};
use crate::batches::{check_size, permutation, shuffle};
use crate::error::DataError;
use crate::sequence_pairs::{PairLengths, SequencePairs};

/// The size of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// This number of rows.
    Rows(usize),
    /// As many pairs of source and target as fit so that the rows times the longest source, and the rows times
    /// the longest target, are at most this number of tokens, padding included: fairseq's `--max-tokens`.
    Tokens(usize),
}

/// The infinite sequence of batches of pairs of source and target; cheap to clone.
#[derive(Clone, Debug)]
pub struct BucketedBatches {
    pairs: SequencePairs,
    seed: u64,
    /// The first place of each batch in the sorted order, and the number of pairs at the end.
    cuts: Arc<[u32]>,
    epochs: Arc<Mutex<Vec<Epoch>>>,
}

/// The order of one epoch.
#[derive(Clone, Debug)]
struct Epoch {
    number: u64,
    /// The pairs, sorted by their lengths.
    pairs: Arc<[u32]>,
    /// The batches, as indices of cuts.
    batches: Arc<[u32]>,
}

/// Number of cached epochs: devices in parallel may be in two.
const KEPT: usize = 2;
/// The stream of random numbers for the order of batches; smaller ones are those of a mixture's sources.
const BATCH_ORDER: u64 = 1 << 32;

impl BucketedBatches {
    /// Batches of this size.
    ///
    /// # Errors
    /// [`DataError::Config`] if the size is 0 or a batch might have more than 2^28 tokens per side,
    /// [`DataError::PairLongerThanBatch`] if a pair alone exceeds the number of tokens, or if there are more
    /// than 2^32 - 1 pairs.
    pub fn new(pairs: SequencePairs, size: BatchSize, seed: u64) -> Result<Self, DataError> {
        if pairs.count() > u64::from(u32::MAX) {
            return Err(DataError::TooLarge {
                what: "the number of pairs",
                found: pairs.count(),
                allowed: u64::from(u32::MAX),
            });
        }
        let mut lengths: Vec<PairLengths> = pairs.lengths().collect();
        lengths.sort_unstable();
        Ok(Self {
            cuts: cuts(&pairs, &lengths, size)?.into(),
            pairs,
            seed,
            epochs: Arc::default(),
        })
    }

    /// Batch `index` of the sequence, which is infinite. The last batch of an epoch's sorted order may have
    /// fewer rows.
    ///
    /// # Errors
    /// If the file can no longer be read, or an epoch's order does not fit in memory (four bytes per pair).
    pub fn get(&self, index: u64) -> Result<Batch, DataError> {
        let epoch = self.epoch(index / self.batches())?;
        let batch = epoch.batches[(index % self.batches()) as usize] as usize;
        let [start, end] = [self.cuts[batch], self.cuts[batch + 1]].map(|cut| cut as usize);
        self.pairs.batch(&epoch.pairs[start..end])
    }

    /// The number of batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.cuts.len() as u64 - 1
    }

    /// The pairs.
    pub fn pairs(&self) -> &SequencePairs {
        &self.pairs
    }

    /// The number of rows in the batches before batch `index`.
    pub fn rows_before(&self, index: u64) -> u128 {
        let (epoch, within) = (index / self.batches(), index % self.batches());
        let order = batch_order(self.seed, epoch, self.batches());
        let rows = order.iter().take(within as usize).map(|batch| {
            let batch = *batch as usize;
            u128::from(self.cuts[batch + 1] - self.cuts[batch])
        });
        u128::from(epoch) * u128::from(self.pairs.count()) + rows.sum::<u128>()
    }

    /// The share of tokens that are padding in all sources and targets of an epoch, from 0 to 1.
    pub fn padding(&self) -> f64 {
        let mut lengths: Vec<PairLengths> = self.pairs.lengths().collect();
        lengths.sort_unstable();
        padding(&lengths, &self.cuts)
    }

    fn epoch(&self, number: u64) -> Result<Epoch, DataError> {
        let mut kept = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().find(|kept| kept.number == number) {
            return Ok(found.clone());
        }
        if kept.len() == KEPT {
            kept.remove(0);
        }
        let count = self.pairs.count() as u32;
        let mut pairs = permutation(self.seed, 0, u128::from(number), count)?;
        self.pairs.sort(&mut pairs);
        let made = Epoch {
            number,
            pairs: pairs.into(),
            batches: batch_order(self.seed, number, self.batches()).into(),
        };
        kept.push(made.clone());
        Ok(made)
    }
}

/// The order of an epoch's batches.
fn batch_order(seed: u64, epoch: u64, batches: u64) -> Vec<u32> {
    // There are at most as many batches as pairs.
    let mut order: Vec<u32> = (0..batches as u32).collect();
    shuffle(seed, BATCH_ORDER, u128::from(epoch), &mut order);
    order
}

/// The first place of each batch among pairs with these lengths, which are sorted, and their number.
fn cuts(
    pairs: &SequencePairs,
    sorted: &[PairLengths],
    size: BatchSize,
) -> Result<Vec<u32>, DataError> {
    let longest = |side: fn(&PairLengths) -> u32| sorted.iter().map(side).max().unwrap_or(0);
    match size {
        BatchSize::Rows(rows) => {
            check_size(rows, longest(|lengths| lengths.longer()) as usize)?;
            let starts = (0..sorted.len()).step_by(rows);
            let starts = starts.map(|start| start as u32);
            Ok(starts.chain([sorted.len() as u32]).collect())
        }
        BatchSize::Tokens(tokens) => {
            if tokens == 0 || tokens > MAX_BATCH_TOKENS {
                return Err(DataError::Config {
                    key: "train.batch_tokens",
                    found: tokens.to_string(),
                    allowed: format!("1 to {MAX_BATCH_TOKENS}"),
                });
            }
            let tokens = tokens as u64;
            let mut cuts = vec![0];
            let (mut start, mut widest) = (0, 0);
            for (at, lengths) in sorted.iter().enumerate() {
                let longer = u64::from(lengths.longer());
                if longer > tokens {
                    return Err(DataError::PairLongerThanBatch {
                        path: pairs.tokens().path().to_path_buf(),
                        source_tokens: u64::from(lengths.source),
                        target_tokens: u64::from(lengths.target),
                        allowed: tokens,
                    });
                }
                widest = longer.max(widest);
                if (at - start + 1) as u64 * widest > tokens {
                    cuts.push(at as u32);
                    (start, widest) = (at, longer);
                }
            }
            cuts.push(sorted.len() as u32);
            Ok(cuts)
        }
    }
}

/// The share of padding in batches of pairs with these lengths.
fn padding(sorted: &[PairLengths], cuts: &[u32]) -> f64 {
    let (mut tokens, mut places) = (0.0, 0.0);
    for cut in cuts.windows(2) {
        let batch = &sorted[cut[0] as usize..cut[1] as usize];
        for side in [
            |lengths: &PairLengths| f64::from(lengths.source),
            |lengths: &PairLengths| f64::from(lengths.target),
        ] {
            tokens += batch.iter().map(side).sum::<f64>();
            places += batch.len() as f64 * batch.iter().map(side).fold(0.0, f64::max);
        }
    }
    1.0 - tokens / places
}

/// Batches of some of the pairs, always the same, by the lengths of their longer sides.
///
/// There are few pairs to validate on, so that those with targets of one length have sources of all lengths. In
/// the order by target, half of the tokens were padding for code and its documentation.
pub(crate) struct InOrder<'p> {
    pairs: &'p SequencePairs,
    chosen: Vec<u32>,
    cuts: Vec<u32>,
}

impl<'p> InOrder<'p> {
    /// Batches of these pairs, which must exist.
    pub fn new(
        pairs: &'p SequencePairs,
        mut chosen: Vec<u32>,
        size: BatchSize,
    ) -> Result<Self, DataError> {
        pairs.sort_by_longer(&mut chosen);
        let sorted: Vec<PairLengths> = pairs.lengths_of(&chosen).collect();
        Ok(Self {
            cuts: cuts(pairs, &sorted, size)?,
            pairs,
            chosen,
        })
    }

    pub fn batches(&self) -> Result<Vec<Batch>, DataError> {
        let batches = self.cuts.windows(2);
        batches
            .map(|cut| {
                let pairs = &self.chosen[cut[0] as usize..cut[1] as usize];
                self.pairs.batch(pairs)
            })
            .collect()
    }

    /// The share of tokens that are padding, from 0 to 1.
    pub fn padding(&self) -> f64 {
        let sorted: Vec<PairLengths> = self.pairs.lengths_of(&self.chosen).collect();
        padding(&sorted, &self.cuts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence_pairs::tests::file;

    /// Sources of `lengths[i].0` tokens and targets of `lengths[i].1`, all of the token `i + 1`.
    fn of(lengths: &[(usize, usize)]) -> (tempfile::TempDir, SequencePairs) {
        let pairs: Vec<_> = lengths
            .iter()
            .enumerate()
            // One more is the end.
            .map(|(i, (s, t))| (vec![i as u32 + 1; s - 1], vec![i as u32 + 1; t - 1]))
            .collect();
        let (folder, file) = file(&pairs);
        (folder, SequencePairs::new(file, usize::MAX).unwrap())
    }

    #[test]
    fn cuts_equal_those_computed_by_hand() {
        // Sorted by target, then source: (2, 2), (6, 2), (2, 3), (3, 3), (2, 6).
        let (_folder, pairs) = of(&[(2, 6), (2, 2), (3, 3), (2, 3), (6, 2)]);
        let cuts = |size| BucketedBatches::new(pairs.clone(), size, 0).map(|b| b.cuts.to_vec());
        assert_eq!(cuts(BatchSize::Rows(2)).unwrap(), [0, 2, 4, 5]);
        // Two rows of 6 are 12; a third would be 18.
        assert_eq!(cuts(BatchSize::Tokens(12)).unwrap(), [0, 2, 4, 5]);
        assert_eq!(cuts(BatchSize::Tokens(18)).unwrap(), [0, 3, 5]);
        assert_eq!(cuts(BatchSize::Tokens(6)).unwrap(), [0, 1, 2, 4, 5]);
        let error = cuts(BatchSize::Tokens(5)).unwrap_err().to_string();
        assert!(error.contains("6 source tokens"), "{error}");
        assert!(error.contains("train.batch_tokens = 5"), "{error}");
        for size in [
            BatchSize::Rows(0),
            BatchSize::Tokens(0),
            BatchSize::Rows(usize::MAX),
            BatchSize::Tokens(usize::MAX),
        ] {
            assert!(matches!(cuts(size), Err(DataError::Config { .. })));
        }
    }

    #[test]
    fn the_order_of_batches_is_pinned() {
        // A change of this order changes the data order of every run. Targets of 2 to 9 tokens.
        let lengths: Vec<(usize, usize)> = (2..10).map(|target| (2, target)).collect();
        let (_folder, pairs) = of(&lengths);
        let order = |seed, epoch: u64| {
            let batches = BucketedBatches::new(pairs.clone(), BatchSize::Rows(1), seed).unwrap();
            let indices = 8 * epoch..8 * (epoch + 1);
            indices
                .map(|index| batches.get(index).unwrap().seq)
                .collect::<Vec<_>>()
        };
        let orders = [order(0, 0), order(0, 1), order(1, 0)];
        let pinned = [
            [6, 2, 8, 3, 7, 4, 9, 5],
            [4, 9, 5, 2, 6, 8, 3, 7],
            [6, 9, 5, 3, 8, 4, 7, 2],
        ];
        assert_eq!(orders, pinned);
    }

    #[test]
    fn padding_equals_that_computed_by_hand() {
        let (_folder, pairs) = of(&[(2, 6), (2, 2), (3, 3), (2, 3), (6, 2)]);
        let batches = BucketedBatches::new(pairs, BatchSize::Rows(2), 0).unwrap();
        // Sources 2 6 | 2 3 | 2 padded to 6, 3, 2; targets 2 2 | 3 3 | 6.
        let (tokens, places) = (15.0 + 16.0, 12.0 + 6.0 + 2.0 + 4.0 + 6.0 + 6.0);
        assert!((batches.padding() - (1.0 - tokens / places)).abs() < 1e-12);
    }

    #[test]
    fn rows_before_counts_the_rows_of_the_batches() {
        let (_folder, pairs) = of(&[(2, 6), (2, 2), (3, 3), (2, 3), (6, 2)]);
        let batches = BucketedBatches::new(pairs, BatchSize::Rows(2), 7).unwrap();
        let mut rows = 0;
        for index in 0..20 {
            assert_eq!(batches.rows_before(index), rows);
            rows += batches.get(index).unwrap().batch as u128;
        }
        assert!(batches.get(u64::MAX).is_ok());
        assert!(batches.rows_before(u64::MAX) > 1 << 63);
    }

    #[test]
    fn pairs_of_equal_lengths_meet_others_in_every_epoch() {
        let (_folder, pairs) = of(&[(3, 3); 40]);
        let batches = BucketedBatches::new(pairs, BatchSize::Rows(10), 0).unwrap();
        let sets = |epoch: u64| {
            let mut sets: Vec<Vec<u32>> = (0..4)
                .map(|at| {
                    let batch = batches.get(4 * epoch + at).unwrap();
                    let mut rows: Vec<u32> = batch.targets.iter().step_by(3).copied().collect();
                    rows.sort();
                    rows
                })
                .collect();
            sets.sort();
            sets
        };
        assert_ne!(sets(0), sets(1));
        assert_eq!(sets(0).concat().len(), 40);
    }
}
