//! The summary of a file of pairs of source and target.

use std::fmt;

use serde::Serialize;

use crate::bucketed::{BatchSize, BucketedBatches, InOrder};
use crate::error::DataError;
use crate::sequence_pairs::{PairLengths, SequencePairs};
use crate::token_file::TokenFile;

/// The tokens of the batches whose padding is reported, which is fairseq's usual `--max-tokens`.
const BATCH_TOKENS: usize = 4096;

/// The lengths of pairs of source and target, each side with its document end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairsInspection {
    /// Number of pairs.
    pub pairs: u64,
    /// Tokens of the sources.
    pub source: Lengths,
    /// Tokens of the targets.
    pub target: Lengths,
    /// The context that pairs must fit in, in tokens per side, if it is known.
    pub limit: Option<u64>,
    /// Number of pairs with a longer side, which are left out.
    pub over_limit: u64,
    /// The share of padding in batches of 4096 tokens per side, of the pairs that fit in both; none if no pair
    /// does.
    pub padding: Option<f64>,
}

/// Numbers of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// The mean.
    pub mean: f64,
    /// The median; of an even number, the mean of the middle two.
    pub median: f64,
    /// The largest.
    pub max: u32,
}

impl Lengths {
    /// Of at least one number.
    fn of(mut lengths: Vec<u32>) -> Self {
        lengths.sort_unstable();
        let sum: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        let [low, high] = [(lengths.len() - 1) / 2, lengths.len() / 2].map(|at| lengths[at]);
        Self {
            mean: sum as f64 / lengths.len() as f64,
            median: (f64::from(low) + f64::from(high)) / 2.0,
            max: *lengths.last().unwrap_or(&0),
        }
    }
}

/// Summarises a file of pairs to train on, or of those held out; `limit` is the model's context in tokens.
pub(super) fn inspect(
    file: &TokenFile,
    limit: Option<usize>,
    is_held_out: bool,
) -> Result<PairsInspection, DataError> {
    let all = SequencePairs::new(file.clone(), usize::MAX)?;
    let side = |of: fn(PairLengths) -> u32| Lengths::of(all.lengths().map(of).collect());
    let within = limit.unwrap_or(usize::MAX);
    let is_over = |lengths: &PairLengths| lengths.longer() as usize > within;
    let padding = match SequencePairs::new(file.clone(), within.min(BATCH_TOKENS)) {
        Ok(pairs) => {
            let size = BatchSize::Tokens(BATCH_TOKENS);
            Some(match is_held_out {
                true => InOrder::new(&pairs, (0..pairs.count() as u32).collect(), size)?.padding(),
                false => BucketedBatches::new(pairs, size, 0)?.padding(),
            })
        }
        Err(DataError::AllPairsTooLong { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(PairsInspection {
        pairs: all.count(),
        source: side(|lengths| lengths.source),
        target: side(|lengths| lengths.target),
        limit: limit.map(|limit| limit as u64),
        over_limit: all.lengths().filter(is_over).count() as u64,
        padding,
    })
}

impl fmt::Display for PairsInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (side, lengths) in [("source", &self.source), ("target", &self.target)] {
            writeln!(
                f,
                "{side} tokens     mean {:.1}, median {:.1}, most {}",
                lengths.mean, lengths.median, lengths.max
            )?;
        }
        if let Some(limit) = self.limit {
            writeln!(
                f,
                "left out          {} of {} pairs, with more than {limit} tokens on a side",
                self.over_limit, self.pairs
            )?;
        }
        if let Some(padding) = self.padding {
            writeln!(
                f,
                "padding           {:.1} % in batches of {BATCH_TOKENS} tokens",
                100.0 * padding
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence_pairs::tests::file;

    #[test]
    fn lengths_equal_those_computed_by_hand() {
        // With ends: sources of 3, 2, 6 and 9 tokens, targets of 2.
        let sources = [2, 1, 5, 8].map(|length| vec![7; length]);
        let pairs: Vec<_> = sources
            .into_iter()
            .map(|source| (source, vec![7]))
            .collect();
        let (_folder, file) = file(&pairs);
        let found = inspect(&file, Some(6), false).unwrap();
        assert_eq!((found.pairs, found.over_limit), (4, 1));
        let source = Lengths {
            mean: 5.0,
            median: 4.5,
            max: 9,
        };
        assert_eq!((found.source, found.target.max), (source, 2));
        // One batch of sources of 3, 2 and 6 tokens, padded to 6, and targets without padding.
        let padding = 1.0 - (11.0 + 6.0) / (18.0 + 6.0);
        assert!((found.padding.unwrap() - padding).abs() < 1e-12);
        let text = found.to_string();
        assert!(text.contains("mean 5.0, median 4.5, most 9"), "{text}");
        assert!(
            text.contains("1 of 4 pairs, with more than 6 tokens"),
            "{text}"
        );

        let found = inspect(&file, None, true).unwrap();
        assert_eq!((found.limit, found.over_limit), (None, 0));
        assert_eq!(inspect(&file, Some(1), true).unwrap().padding, None);
    }
}
