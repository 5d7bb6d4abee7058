//! Ranks connected by MPI.
//!
//! All calls of the library come from one thread, which also keeps exchanges going while the others compute, and
//! answers other ranks that ask whether this one is alive. So the library need not support threads, a rank that
//! computes for long is told from one that has stopped, and waiting has a limit: MPI itself waits forever.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ::mpi::Threading;
use ::mpi::collective::CommunicatorCollectives;
use ::mpi::point_to_point::{Destination, Source};
use ::mpi::request::scope;
use ::mpi::topology::{Communicator as _, SimpleCommunicator};

use super::{Communicator, Pending, RankError};

/// The tags of the question whether a rank is alive, and of its answer.
const ALIVE: i32 = 1;
const YES: i32 = 2;
/// How long the thread sleeps without work, before it looks for questions.
const IDLE: Duration = Duration::from_millis(20);
/// How long an exchange is polled without pause, and the pause after that.
const BUSY: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_micros(200);

/// The processes that `mpirun` or `srun` has started.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    size: usize,
    /// Closed to end the thread.
    exchanges: Option<Sender<Exchange>>,
    thread: Option<JoinHandle<()>>,
    aborted: Arc<AtomicI32>,
}

/// Ends all processes.
#[derive(Debug, Clone)]
pub struct Abort(Arc<AtomicI32>);

impl Abort {
    /// Ends all processes with this exit code, which is not 0, without writing anything.
    pub fn with(&self, code: i32) -> ! {
        self.0.store(code, Ordering::SeqCst);
        // The thread of the library does it.
        loop {
            thread::sleep(IDLE);
        }
    }
}

#[derive(Debug)]
struct Exchange {
    gathers: bool,
    bytes: Vec<u8>,
    reply: Sender<Result<Vec<u8>, RankError>>,
}

impl Mpi {
    /// Connects this process to the others. `limit` is how long a rank may not answer.
    ///
    /// # Errors
    ///
    /// [`RankError::Library`] if MPI is in use already, its thread cannot be started, or a rank is not there within the
    /// limit: which one, the library does not say.
    pub fn start(limit: Duration) -> Result<Self, RankError> {
        let (exchanges, received) = channel();
        let (ready, started) = channel();
        let aborted = Arc::new(AtomicI32::new(0));
        let of_thread = Arc::clone(&aborted);
        let thread = thread::Builder::new().name("mpi".into()).spawn(move || {
            let Some((universe, _)) = ::mpi::initialize_with_threading(Threading::Funneled) else {
                let _ = ready.send(Err(RankError::Library("it is initialised already".into())));
                return;
            };
            let world = universe.world();
            let place = (number(world.rank()), number(world.size()));
            let _ = ready.send(Ok(place));
            let progress = Progress {
                rank: place.0,
                size: place.1,
                world,
                limit,
                aborted: of_thread,
            };
            progress.run(&received);
        });
        let thread = thread.map_err(|error| RankError::Library(error.to_string()))?;
        let (rank, size) = match started.recv_timeout(limit) {
            Ok(place) => place?,
            Err(RecvTimeoutError::Disconnected) => return Err(RankError::Ended),
            Err(RecvTimeoutError::Timeout) => {
                let seconds = limit.as_secs();
                return Err(RankError::Library(format!(
                    "the ranks are not connected after {seconds} s: one has not started, or is stopped; allowed: \
                     --rank-timeout"
                )));
            }
        };
        Ok(Self {
            rank,
            size,
            exchanges: Some(exchanges),
            thread: Some(thread),
            aborted,
        })
    }

    /// What ends all processes.
    pub fn abort(&self) -> Abort {
        Abort(Arc::clone(&self.aborted))
    }

    fn begin(&self, gathers: bool, bytes: Vec<u8>) -> Pending {
        let (reply, result) = channel();
        if let Some(exchanges) = &self.exchanges {
            // If the thread has ended, the result's channel is closed.
            let _ = exchanges.send(Exchange {
                gathers,
                bytes,
                reply,
            });
        }
        Pending::new(result)
    }
}

impl Communicator for Mpi {
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

impl Drop for Mpi {
    fn drop(&mut self) {
        // Disconnects from the others, which waits for them to do so too.
        drop(self.exchanges.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The thread of the library.
struct Progress {
    rank: usize,
    size: usize,
    world: SimpleCommunicator,
    limit: Duration,
    aborted: Arc<AtomicI32>,
}

impl Progress {
    fn run(&self, exchanges: &Receiver<Exchange>) {
        loop {
            self.attend(&mut []);
            match exchanges.recv_timeout(IDLE) {
                Ok(exchange) => self.exchange(exchange, exchanges),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Runs one exchange. If a rank is silent, it and all that follow fail: whoever computes may wait for any of them.
    fn exchange(&self, exchange: Exchange, following: &Receiver<Exchange>) {
        let Exchange {
            gathers,
            bytes,
            reply,
        } = exchange;
        let length = match gathers {
            true => bytes.len() * self.size,
            false => bytes.len(),
        };
        let mut received = vec![0u8; length];
        scope(|scope| {
            let mut request = match gathers {
                true => self
                    .world
                    .immediate_all_gather_into(scope, &bytes[..], &mut received[..]),
                false => self
                    .world
                    .immediate_all_to_all_into(scope, &bytes[..], &mut received[..]),
            };
            let mut roll = Roll::new(self.size, self.limit);
            let mut failed = None;
            let begun = Instant::now();
            loop {
                request = match request.test() {
                    Ok(_) => return,
                    Err(request) => request,
                };
                self.attend(&mut roll.answered);
                if roll.is_due() {
                    self.ask();
                }
                if let Some(ranks) = roll.silent(self.rank) {
                    let seconds = self.limit.as_secs();
                    // Whoever waits ends all processes; until then the request cannot be given up.
                    let error = RankError::Silent { ranks, seconds };
                    let _ = reply.send(Err(error.clone()));
                    failed = Some(error);
                }
                if let Some(error) = &failed {
                    for exchange in following.try_iter() {
                        let _ = exchange.reply.send(Err(error.clone()));
                    }
                }
                match begun.elapsed() < BUSY {
                    true => thread::yield_now(),
                    false => thread::sleep(PAUSE),
                }
            }
        });
        // If nobody waits any more, the process is ending.
        let _ = reply.send(Ok(received));
    }

    /// Answers questions, notes answers, and ends all processes if it is asked to.
    fn attend(&self, answered: &mut [bool]) {
        let code = self.aborted.load(Ordering::SeqCst);
        if code != 0 {
            self.world.abort(code);
        }
        let any = self.world.any_process();
        while let Some((question, status)) = any.immediate_matched_probe_with_tag(ALIVE) {
            let _ = question.matched_receive_into(&mut [0u8; 0][..]);
            // An empty message does not wait for its receiver.
            self.world
                .process_at_rank(status.source_rank())
                .send_with_tag(&[0u8; 0][..], YES);
        }
        while let Some((answer, status)) = any.immediate_matched_probe_with_tag(YES) {
            let _ = answer.matched_receive_into(&mut [0u8; 0][..]);
            if let Some(answered) = answered.get_mut(number(status.source_rank())) {
                *answered = true;
            }
        }
    }

    fn ask(&self) {
        for rank in (0..self.world.size()).filter(|rank| number(*rank) != self.rank) {
            self.world
                .process_at_rank(rank)
                .send_with_tag(&[0u8; 0][..], ALIVE);
        }
    }
}

/// The ranks that have answered since they were last asked.
struct Roll {
    limit: Duration,
    since: Instant,
    asked: bool,
    told: bool,
    answered: Vec<bool>,
}

impl Roll {
    fn new(size: usize, limit: Duration) -> Self {
        Self {
            limit,
            since: Instant::now(),
            asked: false,
            told: false,
            answered: vec![false; size],
        }
    }

    /// Whether it is time to ask, which the caller then does.
    fn is_due(&mut self) -> bool {
        let due = !self.asked && self.since.elapsed() > self.limit / 4;
        if due {
            self.answered.fill(false);
            (self.asked, self.since) = (true, Instant::now());
        }
        due
    }

    /// The ranks other than `own` that have not answered within the limit, once.
    fn silent(&mut self, own: usize) -> Option<Vec<usize>> {
        if !self.asked || self.told || self.since.elapsed() < self.limit {
            return None;
        }
        let ranks = 0..self.answered.len();
        let silent: Vec<usize> = ranks
            .filter(|rank| *rank != own && !self.answered[*rank])
            .collect();
        // All are alive: the exchange goes on.
        (self.asked, self.since) = (false, Instant::now());
        self.told = !silent.is_empty();
        self.told.then_some(silent)
    }
}

fn number(of_library: i32) -> usize {
    usize::try_from(of_library).expect("invariant: ranks are not negative")
}
