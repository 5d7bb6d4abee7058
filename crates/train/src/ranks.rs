//! The processes ("ranks") that train one model together.
//!
//! [`Communicator`] is the seam to the library that connects them: two exchanges of bytes. Everything else is
//! computed here, so it is the same with every library and in tests: sums are in f32 or f64 and in the order
//! of the ranks, so a run gives the same bits each time it is repeated with the same number of ranks.

mod agreement;
mod exchange;
mod layout;
#[cfg(feature = "mpi")]
mod mpi;
mod part;
mod threads;

use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::agreement::{Told, agree_on_data};
pub(crate) use self::exchange::{Exchange, Summed, gathered};
pub(crate) use self::layout::{LAYERS, Layout};
#[cfg(feature = "mpi")]
pub use self::mpi::{Abort, Mpi};
pub(crate) use self::part::Part;
pub use self::threads::Threads;
use crate::TrainError;

/// The exchanges of bytes between ranks.
///
/// All ranks call the same operations in the same order. An operation begins at once and proceeds beside the
/// computation.
pub trait Communicator: Debug + Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// Sends block i of `blocks` to rank i. The result has the block from rank i in place i.
    ///
    /// # Shapes
    ///
    /// - blocks and output: `size` blocks of equal length, the same on every rank
    fn all_to_all(&self, blocks: Vec<u8>) -> Pending;

    /// Sends `block` to every rank. The result has the block from rank i in place i.
    ///
    /// # Shapes
    ///
    /// - block: the same length on every rank
    /// - output: `size` such blocks
    fn all_gather(&self, block: Vec<u8>) -> Pending;
}

/// An exchange in progress.
#[derive(Debug)]
pub struct Pending(Receiver<Result<Vec<u8>, RankError>>);

impl Pending {
    /// An exchange whose result is sent through a channel.
    pub fn new(result: Receiver<Result<Vec<u8>, RankError>>) -> Self {
        Self(result)
    }

    /// An exchange that is complete.
    pub fn ready(bytes: Vec<u8>) -> Self {
        let (sender, receiver) = channel();
        sender
            .send(Ok(bytes))
            .expect("invariant: the receiver exists");
        Self(receiver)
    }

    /// The bytes received, once they are complete.
    ///
    /// # Errors
    ///
    /// [`RankError`] if another rank does not take part.
    pub fn wait(self) -> Result<Vec<u8>, RankError> {
        self.0.recv().unwrap_or(Err(RankError::Ended))
    }
}

/// A failed exchange.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RankError {
    /// Ranks that do not answer.
    #[error(
        "no answer from {} for {seconds} s: stopped, or cut off from the network; allowed: --rank-timeout",
        named(ranks)
    )]
    Silent {
        /// Their numbers.
        ranks: Vec<usize>,
        /// The time they were given.
        seconds: u64,
    },
    /// A rank has ended.
    #[error("another rank has ended")]
    Ended,
    /// The library cannot connect the ranks.
    #[error("MPI: {0}")]
    Library(String),
    /// A message that another rank of the same program would not send.
    #[error("rank {rank} sent something else than was expected: {reason}")]
    Message {
        /// The sender.
        rank: usize,
        /// What is wrong with it.
        reason: String,
    },
}

fn named(ranks: &[usize]) -> String {
    let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
    match ranks.len() {
        1 => format!("rank {}", numbers[0]),
        _ => format!("ranks {}", numbers.join(", ")),
    }
}

/// The processes of a run: this one alone, or several.
#[derive(Debug, Clone, Default)]
pub struct Ranks(Option<Arc<dyn Communicator>>);

impl Ranks {
    /// Several processes; one is as without any.
    pub fn new(communicator: impl Communicator + 'static) -> Self {
        Self((communicator.size() > 1).then(|| Arc::new(communicator) as Arc<dyn Communicator>))
    }

    /// The number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |ranks| ranks.rank())
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.0.as_ref().map_or(1, |ranks| ranks.size())
    }

    /// Whether this process is the one that prepares data, validates, and writes the run's files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    fn all_to_all(&self, blocks: Vec<u8>) -> Pending {
        match &self.0 {
            Some(ranks) => ranks.all_to_all(blocks),
            None => Pending::ready(blocks),
        }
    }

    fn all_gather(&self, block: Vec<u8>) -> Pending {
        match &self.0 {
            Some(ranks) => ranks.all_gather(block),
            None => Pending::ready(block),
        }
    }

    /// A value of each rank, in their order.
    ///
    /// # Errors
    ///
    /// [`RankError`] if a rank does not take part.
    pub fn gather<T: Serialize + DeserializeOwned>(&self, own: &T) -> Result<Vec<T>, RankError> {
        let own = serde_json::to_vec(own).expect("invariant: plain data serialises");
        let lengths = self
            .all_gather((own.len() as u64).to_le_bytes().to_vec())
            .wait()?;
        let (lengths, _) = lengths.as_chunks();
        let lengths: Vec<usize> = lengths
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes) as usize)
            .collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut block = own;
        block.resize(longest, 0);
        let blocks = self.all_gather(block).wait()?;
        let blocks = blocks.chunks(longest.max(1)).zip(&lengths).enumerate();
        blocks
            .map(|(rank, (block, length))| {
                serde_json::from_slice(&block[..*length]).map_err(|error| RankError::Message {
                    rank,
                    reason: error.to_string(),
                })
            })
            .collect()
    }

    /// Sums of numbers over the ranks, added in their order.
    ///
    /// # Errors
    ///
    /// [`RankError`] if a rank does not take part.
    pub(crate) fn sums(&self, own: &[f64]) -> Result<Vec<f64>, RankError> {
        let block = own.iter().flat_map(|x| x.to_le_bytes()).collect();
        let blocks = self.all_gather(block).wait()?;
        let (numbers, _) = blocks.as_chunks();
        let mut sums = vec![0.0; own.len()];
        for (i, number) in numbers.iter().enumerate() {
            sums[i % own.len()] += f64::from_le_bytes(*number);
        }
        Ok(sums)
    }

    /// This rank's result, if every rank succeeded.
    ///
    /// # Errors
    ///
    /// This rank's error, or [`TrainError::OtherRank`] with the first other one.
    pub fn all_succeeded<T, E: Display + From<TrainError>>(
        &self,
        own: Result<T, E>,
    ) -> Result<T, E> {
        if self.size() == 1 {
            return own;
        }
        let reasons = self.gather(&own.as_ref().err().map(ToString::to_string));
        let reasons = reasons.map_err(TrainError::from)?;
        let own = own?;
        let failed = reasons
            .into_iter()
            .enumerate()
            .find_map(|(rank, reason)| Some((rank, reason?)));
        match failed {
            None => Ok(own),
            Some((rank, reason)) => Err(TrainError::OtherRank { rank, reason }.into()),
        }
    }

    /// The first rank's value on every rank; the other ranks do not compute it.
    ///
    /// # Errors
    ///
    /// The first rank's error on every rank.
    pub fn of_first<T: Serialize + DeserializeOwned, E: Display + From<TrainError>>(
        &self,
        value: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let own = self.is_first().then(value).transpose();
        let own = self.all_succeeded(own)?;
        let of_each = self.gather(&own).map_err(TrainError::from)?;
        let first = of_each.into_iter().next().flatten();
        Ok(first.expect("invariant: the first rank has a value"))
    }
}
