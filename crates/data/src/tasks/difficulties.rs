//! A difficulty, or a range of them to draw from.

use std::fmt;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::batches::below;

/// Written as `32`, or as `[8, 32]` for 8 to 32, each equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, or [from, to]")]
pub enum Difficulties {
    /// Always the same.
    One(u32),
    /// The first and the last.
    Range([u32; 2]),
}

impl Difficulties {
    /// The least.
    pub fn from(self) -> usize {
        match self {
            Self::One(only) => only as usize,
            Self::Range([from, _]) => from as usize,
        }
    }

    /// The greatest.
    pub fn to(self) -> usize {
        match self {
            Self::One(only) => only as usize,
            Self::Range([_, to]) => to as usize,
        }
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        self.from()..=self.to()
    }

    /// One of them.
    pub(super) fn draw(self, random: &mut ChaCha8Rng) -> usize {
        match self {
            Self::One(only) => only as usize,
            Self::Range([from, to]) => (from + below(random, to - from + 1)) as usize,
        }
    }
}

impl fmt::Display for Difficulties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(only) => write!(f, "{only}"),
            Self::Range([from, to]) => write!(f, "[{from}, {to}]"),
        }
    }
}
