//! The examples of a task, to train on or held out.
//!
//! ```text
//! side(key) = held out    if the first byte of blake3(key) is below 16, else training
//! example(seed, index)    the first on its side in the stream of ChaCha8(seed, index, side)
//! ```
//!
//! A key lies on one side whatever the seed, the difficulty or the run. So no example that is
//! validated or evaluated on is ever trained on, by any run. A draw on the wrong side is repeated:
//! what is drawn remains uniform over its side.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::{Example, TaskSpec};
use crate::batch::Batch;
use crate::error::DataError;
use crate::examples::Examples;

/// The version of the way from (seed, index) to an example: another one is another training text.
pub(super) const FORMAT: u32 = 1;

/// Of 256 keys so many are held out.
const HELD_OUT: u8 = 16;

/// Draws until an example lies on its side. Of the spaces that are allowed, at least 1024 keys, none
/// is so one-sided.
const MAX_DRAWS: usize = 100_000;

/// The two sides of a task's examples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To train on.
    Training,
    /// To validate and evaluate on.
    HeldOut,
}

impl Part {
    /// The side that a key lies on.
    pub fn of(key: &[u32]) -> Self {
        let mut hash = blake3::Hasher::new();
        for value in key {
            hash.update(&value.to_le_bytes());
        }
        match hash.finalize().as_bytes()[0] < HELD_OUT {
            true => Self::HeldOut,
            false => Self::Training,
        }
    }
}

/// The endless examples of one side, as rows of `seq` tokens.
#[derive(Clone, Debug)]
pub struct TaskExamples {
    spec: TaskSpec,
    part: Part,
    seq: usize,
}

impl TaskExamples {
    /// The examples of a task for rows of `seq` tokens.
    ///
    /// # Errors
    /// [`DataError::Config`] for impossible options, and if the longest example does not fit.
    pub fn new(spec: TaskSpec, part: Part, seq: usize) -> Result<Self, DataError> {
        spec.check()?;
        spec.check_length(seq)?;
        Ok(Self { spec, part, seq })
    }

    /// Example `index` and its difficulty.
    ///
    /// # Errors
    /// [`DataError::Config`] if no example on this side is found.
    pub fn example(&self, seed: u64, index: u64) -> Result<(usize, Example), DataError> {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16] = match self.part {
            Part::Training => 0,
            Part::HeldOut => 1,
        };
        key[24..].copy_from_slice(b"example1");
        let mut random = ChaCha8Rng::from_seed(key);
        let difficulty = self.spec.difficulties().draw(&mut random);
        let task = self.spec.task();
        let mut drawn = (0..MAX_DRAWS).map(|_| task.draw(difficulty, &mut random));
        let found = drawn.find(|example| Part::of(&example.key) == self.part);
        let example = found.ok_or_else(|| DataError::Config {
            key: task.difficulty_key(),
            found: difficulty.to_string(),
            allowed: format!("a task with examples to hold out; {MAX_DRAWS} draws gave none"),
        })?;
        Ok((difficulty, example))
    }
}

impl Examples for TaskExamples {
    fn seq(&self) -> usize {
        self.seq
    }

    fn count(&self) -> u64 {
        u64::MAX
    }

    fn is_endless(&self) -> bool {
        true
    }

    fn push(&self, seed: u64, index: u64, batch: &mut Batch) -> Result<(), DataError> {
        let (_, example) = self.example(seed, index)?;
        batch.push_row(&example.inputs, &example.targets, &example.weights)
    }
}
