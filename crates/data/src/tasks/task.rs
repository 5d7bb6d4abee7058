//! What a generated task is.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use rand_chacha::ChaCha8Rng;

use super::Difficulties;
use crate::error::DataError;

/// One example, in the ids of the task's symbols.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// The tokens read.
    pub inputs: Vec<u32>,
    /// What to predict at each place; as many.
    pub targets: Vec<u32>,
    /// 1 where the prediction counts, else 0; as many.
    pub weights: Vec<f32>,
    /// What makes it the example it is: examples of one key are all trained on or all held out.
    pub key: Vec<u32>,
}

/// Which predictions of an example decide whether it is solved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The last one.
    Last,
    /// Each of them alone: an example counts as the share that is right.
    Each,
    /// All of them together.
    All,
}

/// A task with its options.
///
/// An implementation is the serde struct of the options, in a file of its own that alone names them.
pub trait Task: Debug {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// The option that is the difficulty, as a key of the configuration.
    fn difficulty_key(&self) -> &'static str;

    /// The difficulties that examples are drawn from.
    fn difficulties(&self) -> Difficulties;

    /// The same, to be changed.
    fn difficulties_mut(&mut self) -> &mut Difficulties;

    /// The difficulties that there are with these options.
    fn allowed(&self) -> RangeInclusive<usize>;

    /// Checks the other options.
    ///
    /// # Errors
    /// [`DataError::Config`].
    fn check(&self) -> Result<(), DataError>;

    /// How each token is spelled, by id.
    fn symbols(&self) -> Vec<String>;

    /// Tokens of an example.
    fn tokens(&self, difficulty: usize) -> usize;

    /// How many keys there are.
    fn count(&self, difficulty: usize) -> f64;

    /// Which predictions decide.
    fn judged(&self) -> Judged;

    /// Draws an example of a difficulty that is allowed.
    fn draw(&self, difficulty: usize, random: &mut ChaCha8Rng) -> Example;
}
