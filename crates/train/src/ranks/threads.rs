//! Ranks that are threads of one process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Communicator, Pending, RankError};

/// One of several ranks that are threads of one process: to test what is exchanged between ranks, without a
/// library that connects processes.
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    size: usize,
    /// The number of this rank's next operation.
    next: AtomicUsize,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Ranks that have ended.
    ended: BTreeSet<usize>,
    /// Operations that some ranks have not begun, by number.
    begun: BTreeMap<usize, Vec<Begun>>,
}

/// A rank's part of an operation.
#[derive(Debug)]
struct Begun {
    rank: usize,
    /// Whether every rank receives all of the bytes.
    gathers: bool,
    bytes: Vec<u8>,
    reply: Sender<Result<Vec<u8>, RankError>>,
}

impl Threads {
    /// All ranks, in order.
    pub fn new(size: usize) -> Vec<Self> {
        let shared = Arc::default();
        let ranks = (0..size).map(|rank| Self {
            rank,
            size,
            next: AtomicUsize::new(0),
            shared: Arc::clone(&shared),
        });
        ranks.collect()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, gathers: bool, bytes: Vec<u8>) -> Pending {
        let (reply, result) = channel();
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let mut shared = self.shared();
        let ended = shared.ended.clone();
        let begun = shared.begun.entry(number).or_default();
        begun.push(Begun {
            rank: self.rank,
            gathers,
            bytes,
            reply,
        });
        if begun.len() == self.size {
            let mut begun = shared.begun.remove(&number).unwrap_or_default();
            begun.sort_by_key(|begun| begun.rank);
            complete(&begun);
        } else if ended
            .iter()
            .any(|rank| begun.iter().all(|begun| begun.rank != *rank))
        {
            // The channels close.
            shared.begun.remove(&number);
        }
        Pending::new(result)
    }
}

/// Sends each rank its result.
fn complete(begun: &[Begun]) {
    let first = &begun[0];
    for own in begun {
        let message = if own.gathers != first.gathers || own.bytes.len() != first.bytes.len() {
            Err(RankError::Message {
                rank: own.rank,
                reason: format!("{} bytes instead of {}", own.bytes.len(), first.bytes.len()),
            })
        } else if own.gathers {
            Ok(begun.iter().flat_map(|of| of.bytes.clone()).collect())
        } else {
            let length = own.bytes.len() / begun.len();
            let from = own.rank * length;
            let blocks = begun.iter().map(|of| &of.bytes[from..from + length]);
            Ok(blocks.flatten().copied().collect())
        };
        // A rank that no longer waits does not matter.
        let _ = own.reply.send(message);
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_to_all(&self, blocks: Vec<u8>) -> Pending {
        self.begin(false, blocks)
    }

    fn all_gather(&self, block: Vec<u8>) -> Pending {
        self.begin(true, block)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let rank = self.rank;
        let mut shared = self.shared();
        shared.ended.insert(rank);
        // What still needs this rank never completes.
        shared
            .begun
            .retain(|_, begun| begun.iter().any(|begun| begun.rank == rank));
    }
}
