//! The index of a layer, n in the equations.

use std::fmt::{self, Display, Formatter};

/// A layer of a network, n = 1..N.
///
/// The equations count from 1, lists from 0; only this type converts between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer {
    index: usize,
}

impl Layer {
    /// Layer 1.
    pub const FIRST: Self = Self { index: 0 };

    /// The layer at an index of a list of layers.
    pub const fn at(index: usize) -> Self {
        Self { index }
    }

    /// The layers of a network of depth `depth`, in order.
    pub fn all(depth: usize) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..depth).map(Self::at)
    }

    /// n, counted from 1 as in the equations.
    pub const fn n(self) -> usize {
        self.index + 1
    }

    /// The index in a list of layers, counted from 0.
    pub const fn index(self) -> usize {
        self.index
    }

    /// The layer after this one.
    pub const fn next(self) -> Self {
        Self::at(self.index + 1)
    }
}

impl Display for Layer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.n().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_one_in_equations_and_from_zero_in_lists() {
        assert_eq!((Layer::FIRST.n(), Layer::FIRST.index()), (1, 0));
        let all: Vec<usize> = Layer::all(3).map(Layer::n).collect();
        assert_eq!(all, [1, 2, 3]);
        assert_eq!(Layer::FIRST.next(), Layer::at(1));
        assert_eq!(Layer::at(1).to_string(), "2");
    }
}
