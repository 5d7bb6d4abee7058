//! Batches from several sources, mixed by weight.
//!
//! Rows are numbered from 0 through the whole run; the source of row `p` of a mixture with weights `w_1 ..
//! w_n` that sum to 1 depends only on `p` and the weights. Source `i` is assigned the time `(j + 1/2) / w_i`
//! for its `j`-th row; the mixture is the rows of all sources in order of time, and for equal times in order
//! of sources. So after `p` rows source `i` has contributed `p w_i` of them, to within `(1 + n w_i) / 2`: the
//! weights hold in every part of the run, not only on average. (With a random source for each row, shares
//! would deviate by the square root of `p`. A greedy choice of the source that is furthest behind, as in
//! Megatron-LM's blended data set, is as even but has to be replayed from the first row.)
//!
//! Weights are rounded to integers that sum to 2^32, and all counts are integers: after 2^32 rows the pattern
//! repeats, every source has contributed exactly its number, and no rounding error accumulates.
//!
//! The `j`-th row of a source is the `j`-th element of its own infinite sequence of epochs ([`Batches`]), so
//! a window is never repeated before all others of its source have been visited.

use std::sync::Arc;

use crate::batch::Batch;
use crate::batches::{Batches, examples};
use crate::error::DataError;
use crate::examples::WeightedExamples;
use crate::token_file::TokenFile;

/// The period of the pattern of sources, in rows.
const PERIOD: u64 = 1 << 32;
/// Limit on the number of sources; larger values are assumed to be mistakes.
const MAX_SOURCES: usize = 1 << 10;

/// The infinite sequence of batches from several sources; cheap to clone.
///
/// With a single source it equals that source's [`Batches`].
#[derive(Clone, Debug)]
pub struct MixedBatches {
    sources: Vec<Batches>,
    pattern: Pattern,
    batch: usize,
}

impl MixedBatches {
    /// Batches of `batch` rows of `seq` tokens from these files, with one weight per file.
    ///
    /// # Errors
    /// The errors of [`Batches::new`]; [`DataError::Config`] if there are no sources or more than 1024, or a
    /// weight is not finite and above 0 or is less than 2^-32 of the sum.
    pub fn new(
        sources: &[(TokenFile, f64)],
        batch: usize,
        seq: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        let sources = sources.iter().map(|(tokens, weight)| {
            // A row without tokens is rejected with the batch's own message.
            Ok((examples(tokens.clone(), seq.max(1))?, *weight))
        });
        let sources = sources.collect::<Result<Vec<_>, DataError>>()?;
        if seq == 0 {
            return Err(DataError::Config {
                key: "seq",
                found: "0".to_owned(),
                allowed: "at least 1".to_owned(),
            });
        }
        Self::of(&sources, batch, seed)
    }

    /// Batches of `batch` rows from these sources, with one weight per source.
    ///
    /// # Errors
    /// The errors of [`Batches::of`] and of the weights; [`DataError::Config`] if the sources' rows differ in
    /// length.
    pub fn of(sources: &[WeightedExamples], batch: usize, seed: u64) -> Result<Self, DataError> {
        let weights: Vec<f64> = sources.iter().map(|(_, weight)| *weight).collect();
        let pattern = Pattern::new(&weights)?;
        let lengths = sources.iter().map(|(examples, _)| examples.seq());
        if let Some(other) = lengths
            .clone()
            .find(|other| Some(*other) != lengths.clone().next())
        {
            return Err(DataError::Config {
                key: "the length of a source's rows",
                found: other.to_string(),
                allowed: "that of the first source".to_owned(),
            });
        }
        let sources = sources
            .iter()
            .enumerate()
            .map(|(at, (examples, _))| {
                Batches::for_source(Arc::clone(examples), batch, seed, at as u64)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            sources,
            pattern,
            batch,
        })
    }

    /// Batch `index` of the sequence, which is infinite.
    ///
    /// # Errors
    /// The errors of [`Batches::get`].
    pub fn get(&self, index: u64) -> Result<Batch, DataError> {
        let first = &self.sources[0];
        let mut batch = first.empty(self.batch);
        let start = u128::from(index) * self.batch as u128;
        for row in start..start + self.batch as u128 {
            let (source, place) = self.pattern.at(row);
            self.sources[source].push_place(place, &mut batch)?;
        }
        Ok(batch)
    }

    /// The number of rows of each source before batch `index`.
    pub fn rows_before(&self, index: u64) -> Vec<u128> {
        self.pattern
            .rows_before(u128::from(index) * self.batch as u128)
    }

    /// The number of epochs that each source has completed before batch `index`.
    pub fn epochs_before(&self, index: u64) -> Vec<f64> {
        let rows = self.rows_before(index);
        let sources = rows.into_iter().zip(&self.sources);
        sources
            .map(|(rows, source)| rows as f64 / source.windows() as f64)
            .collect()
    }

    /// Each source's share of the rows.
    pub fn shares(&self) -> Vec<f64> {
        let counts = self.pattern.counts.iter();
        counts.map(|count| *count as f64 / PERIOD as f64).collect()
    }

    /// The batches of each source.
    pub fn sources(&self) -> &[Batches] {
        &self.sources
    }
}

/// The assignment of rows to sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    /// The number of rows of each source per period; they sum to [`PERIOD`].
    counts: Vec<u64>,
}

impl Pattern {
    fn new(weights: &[f64]) -> Result<Self, DataError> {
        let invalid = |found: String, allowed: &str| DataError::Config {
            key: "data.source",
            found,
            allowed: allowed.to_owned(),
        };
        if weights.is_empty() || weights.len() > MAX_SOURCES {
            let found = format!("{} sources", weights.len());
            return Err(invalid(found, "1 to 1024 sources"));
        }
        let sum: f64 = weights.iter().sum();
        if let Some(weight) = weights.iter().find(|w| !(w.is_finite() && **w > 0.0)) {
            let found = format!("a weight of {weight}");
            return Err(invalid(found, "weights that are finite and above 0"));
        }
        if !sum.is_finite() {
            return Err(invalid("weights of an infinite sum".into(), "a finite sum"));
        }
        // Rounding the cumulative sums makes the counts sum to the period.
        let mut running = 0.0;
        let mut before = 0;
        let mut counts = Vec::with_capacity(weights.len());
        for (at, weight) in weights.iter().enumerate() {
            running += weight;
            let upto = match at + 1 == weights.len() {
                true => PERIOD,
                false => ((running / sum * PERIOD as f64).round() as u64).min(PERIOD),
            };
            if upto <= before {
                let found = format!("a weight of {weight} beside a sum of {sum}");
                return Err(invalid(found, "weights of at least 2^-32 of their sum"));
            }
            counts.push(upto - before);
            before = upto;
        }
        Ok(Self { counts })
    }

    /// The source of a row, and the number of rows of that source before it.
    fn at(&self, row: u128) -> (usize, u128) {
        let (period, within) = (row / u128::from(PERIOD), (row % u128::from(PERIOD)) as u64);
        let (source, index) = self.within(within);
        let before = period * u128::from(self.counts[source]);
        (source, before + u128::from(index))
    }

    /// The number of rows of each source among the first `rows`.
    fn rows_before(&self, rows: u128) -> Vec<u128> {
        let (period, within) = (
            rows / u128::from(PERIOD),
            (rows % u128::from(PERIOD)) as u64,
        );
        let whole = self.counts.iter().map(|count| period * u128::from(*count));
        match within {
            0 => whole.collect(),
            _ => {
                // The rows up to and including the last one, which is row `index` of its source.
                let (source, index) = self.within(within - 1);
                whole
                    .enumerate()
                    .map(|(other, rows)| rows + u128::from(self.upto(source, index, other)))
                    .collect()
            }
        }
    }

    /// The same as [`at`](Self::at), within a period.
    fn within(&self, row: u64) -> (usize, u64) {
        let n = self.counts.len() as u64;
        for (source, &count) in self.counts.iter().enumerate() {
            // The number of its rows so far is its share of the rows, up to the number of sources.
            let near = (u128::from(row) * u128::from(count) / u128::from(PERIOD)) as u64;
            let mut low = near.saturating_sub(n + 1);
            let mut high = count.min(near + n + 2);
            while low < high {
                let index = low + (high - low) / 2;
                match self.rank(source, index) < row {
                    true => low = index + 1,
                    false => high = index,
                }
            }
            if low < count && self.rank(source, low) == row {
                return (source, low);
            }
        }
        unreachable!("invariant: the ranks of a period's rows are 0 to its length")
    }

    /// The position of a source's `index`-th row among all rows of the period.
    fn rank(&self, source: usize, index: u64) -> u64 {
        let others = 0..self.counts.len();
        let upto: u64 = others.map(|other| self.upto(source, index, other)).sum();
        upto - 1
    }

    /// The number of rows of `other` up to the `index`-th row of `source`.
    ///
    /// Times are `(2 j + 1) / (2 count)`. The rows of `other` not after `(2 index + 1) / (2 a)` are those
    /// with `(2 j + 1) a <= (2 index + 1) b`; rows at equal times count for earlier sources only.
    fn upto(&self, source: usize, index: u64, other: usize) -> u64 {
        if other == source {
            return index + 1;
        }
        let [a, b] = [source, other].map(|at| u128::from(self.counts[at]));
        let limit = u128::from(2 * index + 1) * b;
        // The largest allowed odd multiple of `a`, as a count of odd numbers.
        let multiples = match other < source {
            true => limit / a,
            false => limit.div_ceil(a) - 1,
        };
        (multiples.div_ceil(2)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenWriter;

    fn sources(pattern: &Pattern, rows: std::ops::Range<u128>) -> Vec<usize> {
        rows.map(|row| pattern.at(row).0).collect()
    }

    #[test]
    fn rows_equal_those_computed_by_hand() {
        // Times of A: 2/3, 2, 10/3, ..; of B: 2, 6, ..; at equal times A is first.
        let pattern = Pattern::new(&[3.0, 1.0]).unwrap();
        assert_eq!(pattern.counts, [3 << 30, 1 << 30]);
        assert_eq!(sources(&pattern, 0..8), [0, 0, 1, 0, 0, 0, 1, 0]);
        assert_eq!(pattern.at(2), (1, 0));
        assert_eq!(pattern.at(7), (0, 5));
        let pattern = Pattern::new(&[0.2, 0.2]).unwrap();
        assert_eq!(sources(&pattern, 0..4), [0, 1, 0, 1]);
        assert_eq!(Pattern::new(&[5.0]).unwrap().at(1 << 70), (0, 1 << 70));
    }

    #[test]
    fn every_row_of_every_source_occurs_once_and_in_order() {
        for weights in [
            vec![0.7, 0.3],
            vec![1.0, 2.0, 3.0, 1.0],
            vec![1e-6, 1.0],
            vec![0.1; 10],
            vec![1e-3, 0.5, 1e-3, 0.2, 0.2],
        ] {
            let pattern = Pattern::new(&weights).unwrap();
            let sum: f64 = weights.iter().sum();
            let n = weights.len() as f64;
            // Also across the end of a period, and at large indices.
            for start in [0, u128::from(PERIOD) - 500, u128::from(PERIOD) << 40] {
                let mut next = pattern.rows_before(start);
                for row in start..start + 1500 {
                    assert_eq!(pattern.rows_before(row), next);
                    let (source, place) = pattern.at(row);
                    assert_eq!(place, next[source], "row {row} of {weights:?}");
                    next[source] += 1;
                }
                for (rows, weight) in next.iter().zip(&weights) {
                    let (rows, share) = (*rows as f64, weight / sum);
                    let error = rows - (start + 1500) as f64 * share;
                    let rounding = (start + 1500) as f64 * 2f64.powi(-32);
                    assert!(error.abs() <= (1.0 + n * share) / 2.0 + rounding);
                }
            }
        }
    }

    #[test]
    fn invalid_weights_are_errors() {
        for (weights, expected) in [
            (vec![], "0 sources"),
            (vec![1.0; 1025], "1025 sources"),
            (vec![1.0, 0.0], "a weight of 0"),
            (vec![1.0, f64::NAN], "a weight of NaN"),
            (vec![1e300, 1.0], "2^-32"),
            (vec![1.0, 1e300], "2^-32"),
            (vec![f64::MAX, f64::MAX], "finite sum"),
        ] {
            let error = Pattern::new(&weights).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// A file of `len` tokens that are all `token`.
    fn constant(folder: &tempfile::TempDir, token: u32, len: usize) -> TokenFile {
        let path = folder.path().join(format!("{token}.tokens"));
        let mut writer = TokenWriter::create(&path, 1000, [0; 32]).unwrap();
        writer.push(&vec![token; len], 0).unwrap();
        writer.finish().unwrap();
        TokenFile::open(&path).unwrap()
    }

    #[test]
    fn batches_contain_the_sources_in_their_shares() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            (constant(&folder, 1, 41), 3.0),
            (constant(&folder, 2, 13), 1.0),
        ];
        let batches = MixedBatches::new(&files, 4, 4, 0).unwrap();
        let rows = |index| {
            let batch = batches.get(index).unwrap();
            batch.inputs.chunks(4).map(|row| row[0]).collect::<Vec<_>>()
        };
        assert_eq!([rows(0), rows(1)], [[1, 1, 2, 1], [1, 1, 2, 1]]);
        // After 10 batches: 30 rows of 10 windows, 10 rows of 3.
        assert_eq!(batches.rows_before(10), [30, 10]);
        assert_eq!(batches.epochs_before(10), [3.0, 10.0 / 3.0]);
        assert_eq!(batches.shares(), [0.75, 0.25]);
        batches.get(u64::MAX).unwrap();
    }

    #[test]
    fn a_mixture_of_one_source_equals_that_source() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        let mut writer = TokenWriter::create(&path, 1000, [0; 32]).unwrap();
        writer.push(&(0..100).collect::<Vec<_>>(), 0).unwrap();
        writer.finish().unwrap();
        let file = TokenFile::open(&path).unwrap();
        let mixed = MixedBatches::new(&[(file.clone(), 0.3)], 3, 7, 5).unwrap();
        let alone = Batches::new(file.clone(), 3, 7, 5).unwrap();
        for index in [0, 1, 7, 1000, u64::MAX] {
            assert_eq!(mixed.get(index).unwrap(), alone.get(index).unwrap());
        }
        // The same file as two sources has two orders.
        let twice = MixedBatches::new(&[(file.clone(), 1.0), (file, 1.0)], 2, 7, 5).unwrap();
        let rows: Vec<u32> = (0..8).flat_map(|i| twice.get(i).unwrap().inputs).collect();
        let firsts: Vec<u32> = rows.chunks(7).map(|row| row[0]).collect();
        let order = |from: usize| firsts.iter().skip(from).step_by(2).collect::<Vec<_>>();
        assert_ne!(order(0), order(1));
    }
}
