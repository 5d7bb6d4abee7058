//! How many corrections tokens took, where they stop by a tolerance.

use std::ops::{AddAssign, Range};

/// A count over tokens and layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CorrectionCount {
    /// Corrections that tokens took, in all layers together.
    pub taken: u64,
    /// Tokens times layers.
    pub steps: u64,
}

impl CorrectionCount {
    /// Of the columns that are tokens in each row of a pass through so many layers; `taken` is what the
    /// [`Pass`](crate::Pass) counted. Nothing if it did not count.
    pub fn of(taken: &[u32], columns: &[Range<usize>], layers: usize) -> Self {
        let mut count = Self::default();
        if taken.is_empty() || columns.is_empty() {
            return count;
        }
        let seq = taken.len() / columns.len();
        for (row, columns) in taken.chunks_exact(seq.max(1)).zip(columns) {
            let taken = &row[columns.clone()];
            count.taken += taken.iter().map(|taken| u64::from(*taken)).sum::<u64>();
            count.steps += (taken.len() * layers) as u64;
        }
        count
    }

    /// Corrections of a token in a layer, on average; `None` if nothing was counted.
    pub fn mean(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.taken as f64 / self.steps as f64)
    }
}

impl AddAssign for CorrectionCount {
    fn add_assign(&mut self, other: Self) {
        self.taken += other.taken;
        self.steps += other.steps;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_does_not_count() {
        // Two rows of three columns, two layers.
        let (taken, columns) = ([1, 2, 9, 9, 3, 4], [0..2, 1..3]);
        let mut count = CorrectionCount::of(&taken, &columns, 2);
        assert_eq!((count.taken, count.steps), (10, 8));
        assert_eq!(count.mean(), Some(1.25));
        count += CorrectionCount::of(&[], &columns, 2);
        assert_eq!(count.mean(), Some(1.25));
        assert_eq!(CorrectionCount::default().mean(), None);
    }
}
