//! The longest common subsequence of two sequences of words, 64 positions at a time.
//!
//! ```text
//! t[i][j] = t[i-1][j-1] + 1                  if reference[i] = candidate[j]
//!           max(t[i-1][j], t[i][j-1])        otherwise
//! ```
//!
//! Neighbours in a row differ by 0 or 1, so a row is a string of bits (Hyyro, "Bit-parallel LCS-length
//! computation revisited", AWOCA 2004): bit j is 0 where `t[i][j]` is greater than `t[i][j-1]`, and
//! `t[i][j]` is the number of zeros up to j. A table takes an eighth of a byte per cell.

use std::collections::HashMap;

/// One of two sequences, the candidate: the columns of the table.
pub(super) struct Columns<'a> {
    candidate: &'a [u32],
    /// Numbers of 64 bits in a row.
    width: usize,
    /// The positions of each word that occurs, as bits.
    positions: HashMap<u32, Vec<u64>>,
}

impl<'a> Columns<'a> {
    /// Finds the positions of each word.
    pub(super) fn new(candidate: &'a [u32]) -> Self {
        let width = candidate.len().div_ceil(64);
        let mut positions: HashMap<u32, Vec<u64>> = HashMap::new();
        for (j, word) in candidate.iter().enumerate() {
            let bits = positions.entry(*word).or_insert_with(|| vec![0; width]);
            bits[j / 64] |= 1 << (j % 64);
        }
        Self {
            candidate,
            width,
            positions,
        }
    }

    /// The row above the table: no position is greater than the one before.
    fn first_row(&self) -> Vec<u64> {
        vec![u64::MAX; self.width]
    }

    /// Turns the row before a word of the reference into the row of the word:
    /// `v = (v + (v & m)) | (v & !m)` for the positions m of the word.
    fn advance(&self, row: &mut [u64], word: u32) {
        let Some(positions) = self.positions.get(&word) else {
            return;
        };
        let mut carry = false;
        for (v, m) in row.iter_mut().zip(positions) {
            let (sum, first) = v.overflowing_add(*v & m);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            carry = first | second;
            *v = sum | (*v & !m);
        }
    }

    /// The length of the longest common subsequence with a reference.
    pub(super) fn lcs_length(&self, reference: &[u32]) -> usize {
        let mut row = self.first_row();
        for word in reference {
            self.advance(&mut row, *word);
        }
        value(&row, self.candidate.len())
    }

    /// The positions in a reference of one longest common subsequence, in descending order: the one
    /// that rouge-score finds from the end of the table, going left where that is greater and up
    /// otherwise.
    pub(super) fn lcs_positions(&self, reference: &[u32]) -> Vec<usize> {
        let mut rows = self.first_row();
        for (i, word) in reference.iter().enumerate() {
            rows.extend_from_within(i * self.width..);
            self.advance(&mut rows[(i + 1) * self.width..], *word);
        }
        let row = |i: usize| &rows[i * self.width..(i + 1) * self.width];
        let value_above = |i: usize, j| if i > 0 { value(row(i - 1), j) } else { 0 };
        let (mut i, mut j) = (reference.len(), self.candidate.len());
        let mut positions = Vec::new();
        // t[i][j] and t[i-1][j].
        let (mut here, mut above) = (value(row(i), j), value_above(i, j));
        while i > 0 && j > 0 {
            let left = here - usize::from(rises(row(i), j));
            let above_left = above - usize::from(rises(row(i - 1), j));
            let matches = reference[i - 1] == self.candidate[j - 1];
            if matches {
                positions.push(i - 1);
            }
            if matches || left <= above {
                (i, j) = (i - 1, j - usize::from(matches));
                here = if matches { above_left } else { above };
                above = value_above(i, j);
            } else {
                j -= 1;
                (here, above) = (left, above_left);
            }
        }
        positions
    }
}

/// Zeros among the first `j` bits of a row: `t[i][j]`.
fn value(row: &[u64], j: usize) -> usize {
    let whole = row[..j / 64].iter().map(|bits| bits.count_zeros() as usize);
    let rest = row.get(j / 64).map_or(0, |bits| {
        let before = (1u64 << (j % 64)) - 1;
        (!bits & before).count_ones() as usize
    });
    whole.sum::<usize>() + rest
}

/// Whether `t[i][j]` is greater than `t[i][j-1]`, with j from 1.
fn rises(row: &[u64], j: usize) -> bool {
    (row[(j - 1) / 64] >> ((j - 1) % 64)) & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::numpy_random::NumpyGenerator;

    /// rouge-score's `_lcs_table` and `_backtrack_norec`.
    fn by_table(reference: &[u32], candidate: &[u32]) -> (usize, Vec<usize>) {
        let (rows, columns) = (reference.len(), candidate.len());
        let mut t = vec![vec![0; columns + 1]; rows + 1];
        for i in 1..=rows {
            for j in 1..=columns {
                t[i][j] = match reference[i - 1] == candidate[j - 1] {
                    true => t[i - 1][j - 1] + 1,
                    false => t[i - 1][j].max(t[i][j - 1]),
                };
            }
        }
        let (mut i, mut j, mut positions) = (rows, columns, Vec::new());
        while i > 0 && j > 0 {
            if reference[i - 1] == candidate[j - 1] {
                positions.push(i - 1);
                (i, j) = (i - 1, j - 1);
            } else if t[i][j - 1] > t[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        (t[rows][columns], positions)
    }

    #[test]
    fn lengths_and_positions_are_those_of_the_table() {
        let mut random = NumpyGenerator::new(0);
        for _ in 0..300 {
            let vocabulary = 1 + random.choice(9);
            let mut sequence = || -> Vec<u32> {
                let length = random.choice(200);
                (0..length).map(|_| random.choice(vocabulary)).collect()
            };
            let (reference, candidate) = (sequence(), sequence());
            let (length, positions) = by_table(&reference, &candidate);
            assert_eq!(Columns::new(&candidate).lcs_length(&reference), length);
            assert_eq!(
                Columns::new(&candidate).lcs_positions(&reference),
                positions
            );
        }
    }

    #[test]
    fn empty_sequences_and_whole_words_of_bits() {
        assert_eq!(Columns::new(&[1]).lcs_length(&[]), 0);
        assert_eq!(Columns::new(&[]).lcs_length(&[1]), 0);
        assert!(Columns::new(&[]).lcs_positions(&[1]).is_empty());
        assert!(Columns::new(&[1]).lcs_positions(&[]).is_empty());
        let same: Vec<u32> = (0..128).collect();
        assert_eq!(Columns::new(&same).lcs_length(&same), 128);
        assert_eq!(Columns::new(&same).lcs_positions(&same).len(), 128);
    }
}
