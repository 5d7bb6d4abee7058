//! The batches of a run, of any kind of data.

use crate::batch::Batch;
use crate::batches::{Batches, evaluation_windows};
use crate::bucketed::{BatchSize, BucketedBatches, InOrder};
use crate::error::DataError;
use crate::mixture::MixedBatches;
use crate::prepare::{Corpus, Rows};
use crate::sequence_pairs::SequencePairs;

/// The infinite sequence of batches to train on: of text, prompts and tasks, or of pairs of source and target;
/// cheap to clone.
#[derive(Clone, Debug)]
pub struct TrainingBatches {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Rows of equal length from one source or several.
    Mixed(MixedBatches),
    /// Pairs of source and target, by length.
    Bucketed(BucketedBatches),
}

impl From<MixedBatches> for TrainingBatches {
    fn from(batches: MixedBatches) -> Self {
        let kind = Kind::Mixed(batches);
        Self { kind }
    }
}

impl From<BucketedBatches> for TrainingBatches {
    fn from(batches: BucketedBatches) -> Self {
        let kind = Kind::Bucketed(batches);
        Self { kind }
    }
}

impl TrainingBatches {
    /// Batch `index` of the sequence, a pure function of the seed and the index.
    ///
    /// # Errors
    /// Those of [`Batches::get`] and [`BucketedBatches::get`].
    pub fn get(&self, index: u64) -> Result<Batch, DataError> {
        match &self.kind {
            Kind::Mixed(batches) => batches.get(index),
            Kind::Bucketed(batches) => batches.get(index),
        }
    }

    /// The number of rows of each source in the batches before batch `index`.
    pub fn rows_before(&self, index: u64) -> Vec<u128> {
        match &self.kind {
            Kind::Mixed(batches) => batches.rows_before(index),
            Kind::Bucketed(batches) => vec![batches.rows_before(index)],
        }
    }

    /// The number of epochs of each source completed before batch `index`.
    pub fn epochs_before(&self, index: u64) -> Vec<f64> {
        match &self.kind {
            Kind::Mixed(batches) => batches.epochs_before(index),
            Kind::Bucketed(batches) => {
                vec![batches.rows_before(index) as f64 / batches.pairs().count() as f64]
            }
        }
    }

    /// Each source's share of the rows.
    pub fn shares(&self) -> Vec<f64> {
        match &self.kind {
            Kind::Mixed(batches) => batches.shares(),
            Kind::Bucketed(_) => vec![1.0],
        }
    }

    /// The number of rows in an epoch of each source: windows, examples or pairs.
    pub fn epoch_rows(&self) -> Vec<u64> {
        match &self.kind {
            Kind::Mixed(batches) => batches.sources().iter().map(Batches::windows).collect(),
            Kind::Bucketed(batches) => vec![batches.pairs().count()],
        }
    }

    /// The pairs, if the data are pairs of source and target; with the number of those left out.
    pub fn pairs(&self) -> Option<&SequencePairs> {
        match &self.kind {
            Kind::Mixed(_) => None,
            Kind::Bucketed(batches) => Some(batches.pairs()),
        }
    }
}

impl Corpus {
    /// The batches to train on, with at most `seq` tokens per row. Pairs of source and target with a longer
    /// side are left out; [`TrainingBatches::pairs`] has their number.
    ///
    /// # Errors
    /// [`DataError::Config`] for [`BatchSize::Tokens`] of anything but pairs; those of [`Rows::examples`] and
    /// [`MixedBatches::of`], or for pairs of [`SequencePairs::new`] and [`BucketedBatches::new`].
    pub fn training_batches(
        &self,
        seq: usize,
        size: BatchSize,
        seed: u64,
    ) -> Result<TrainingBatches, DataError> {
        if let [source] = &self.sources[..]
            && let Some(pairs) = source.train().pairs(seq)?
        {
            return Ok(BucketedBatches::new(pairs, size, seed)?.into());
        }
        let rows = rows_of(size)?;
        Ok(MixedBatches::of(&self.train(seq)?, rows, seed)?.into())
    }
}

impl Rows {
    /// Batches of an evenly spaced part of the rows, always the same, with at most `max_tokens` target tokens
    /// together (but at least one row) and at most `seq` tokens per row. Pairs of source and target are
    /// ordered by their longer sides, and those with a longer side are left out.
    ///
    /// # Errors
    /// [`DataError::Config`] for [`BatchSize::Tokens`] of anything but pairs; those of [`Rows::examples`], or
    /// for pairs of [`SequencePairs::new`] and [`BucketedBatches::new`]; or if the rows cannot be read.
    pub fn evaluation_batches(
        &self,
        seq: usize,
        size: BatchSize,
        max_tokens: u64,
    ) -> Result<Vec<Batch>, DataError> {
        if let Some(pairs) = self.pairs(seq)? {
            let chosen = evaluation_pairs(&pairs, max_tokens);
            return InOrder::new(&pairs, chosen, size)?.batches();
        }
        let batch = rows_of(size)?;
        let source = Batches::of(self.examples(seq)?, batch, 0)?;
        let windows = evaluation_windows(source.windows(), seq, max_tokens);
        let batches = windows.chunks(batch);
        batches.map(|windows| source.of_windows(windows)).collect()
    }
}

/// The rows per batch of anything but pairs.
fn rows_of(size: BatchSize) -> Result<usize, DataError> {
    match size {
        BatchSize::Rows(rows) => Ok(rows),
        BatchSize::Tokens(tokens) => Err(DataError::Config {
            key: "train.batch_tokens",
            found: tokens.to_string(),
            allowed:
                "train.batch, a number of rows; only pairs of source and target are batched by \
                      tokens"
                    .to_owned(),
        }),
    }
}

/// Evenly spaced pairs with at most `max_tokens` target tokens together, but at least one.
fn evaluation_pairs(pairs: &SequencePairs, max_tokens: u64) -> Vec<u32> {
    let target_tokens = |chosen: &[u32]| {
        let lengths = pairs.lengths_of(chosen);
        lengths
            .map(|lengths| u64::from(lengths.target))
            .sum::<u64>()
    };
    let mut count = pairs.count();
    loop {
        let chosen: Vec<u32> = evaluation_windows(pairs.count(), 1, count)
            .into_iter()
            .map(|pair| pair as u32)
            .collect();
        let tokens = target_tokens(&chosen);
        if tokens <= max_tokens || count <= 1 {
            return chosen;
        }
        // By the mean of these, then downwards if the next are longer.
        let expected = u128::from(count) * u128::from(max_tokens) / u128::from(tokens);
        count = (expected as u64).clamp(1, count - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence_pairs::tests::file;

    #[test]
    fn evaluation_pairs_are_spread_and_within_the_tokens() {
        // Targets of 2, 3, .., 11 tokens, ends included; together 65.
        let pairs: Vec<_> = (1..11).map(|n| (vec![7], vec![n as u32; n])).collect();
        let (_folder, file) = file(&pairs);
        let pairs = SequencePairs::new(file.clone(), 20).unwrap();
        assert_eq!(evaluation_pairs(&pairs, 65), (0..10).collect::<Vec<_>>());
        // 64 / 65 of ten pairs are nine: all but index 4, which has 6 tokens.
        assert_eq!(evaluation_pairs(&pairs, 64).len(), 9);
        assert_eq!(evaluation_pairs(&pairs, 0), [5]);
        for most in 7..70 {
            let chosen = evaluation_pairs(&pairs, most);
            let tokens: u64 = chosen.iter().map(|pair| u64::from(*pair) + 2).sum();
            assert!(tokens <= most, "{tokens} of {most}");
        }
        let rows = Rows::Text(file);
        let batches = rows
            .evaluation_batches(20, BatchSize::Tokens(24), 65)
            .unwrap();
        let widths: Vec<usize> = batches.iter().map(|batch| batch.seq).collect();
        // Rows times the longest target: 5 x 6 is more than 24, 4 x 5 is not, and so on.
        assert_eq!(widths, [5, 8, 10, 11]);
        let counted: u64 = batches.iter().map(Batch::counted).sum();
        assert_eq!(counted, 65);
        // Pairs of more than 5 tokens are left out.
        let short = rows.evaluation_batches(5, BatchSize::Rows(8), 65).unwrap();
        assert_eq!(short.iter().map(Batch::counted).sum::<u64>(), 2 + 3 + 4 + 5);
    }
}
