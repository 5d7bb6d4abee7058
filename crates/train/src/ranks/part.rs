//! How a parameter is divided among ranks.

use std::ops::Range;

use super::Ranks;

/// The part of every parameter that one of several ranks sums, and with a sharded optimiser also updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) rank: usize,
    pub(crate) size: usize,
}

impl Part {
    /// The part of this process.
    pub(crate) fn of(ranks: &Ranks) -> Self {
        Self {
            rank: ranks.rank(),
            size: ranks.size(),
        }
    }

    /// Everything.
    pub(crate) const WHOLE: Self = Self { rank: 0, size: 1 };

    /// The length of a parameter's parts, the last of which may be shorter or empty.
    pub(crate) fn longest(length: usize, size: usize) -> usize {
        length.div_ceil(size)
    }

    /// The elements of a flattened parameter of this length; may be empty.
    pub(crate) fn range(self, length: usize) -> Range<usize> {
        let longest = Self::longest(length, self.size);
        let at = |rank: usize| (rank * longest).min(length);
        at(self.rank)..at(self.rank + 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_follow_each_other(length in 0usize..2000, size in 1usize..40) {
            let mut end = 0;
            for rank in 0..size {
                let range = Part { rank, size }.range(length);
                prop_assert_eq!(range.start, end);
                prop_assert!(range.len() <= Part::longest(length, size));
                end = range.end;
            }
            prop_assert_eq!(end, length);
        }
    }
}
