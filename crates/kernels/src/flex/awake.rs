//! Workers that look for work while a chain of operations runs, instead of falling asleep between two of them.
//!
//! A decoded token is some hundred loops of some tens of microseconds each, with as much serial work between them.
//! Waking a thread takes as long. So other threads wait actively, as those of OpenMP do, though only until nothing has
//! come for [`PATIENCE`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rayon::{Scope, Yield};

/// How long a thread waits actively for work. Longer gaps are serial work that is worth a wake-up.
const PATIENCE: Duration = Duration::from_micros(200);
/// Attempts to find work between two looks at the clock, after which other processes may have the processor.
const ATTEMPTS: usize = 16;

/// The chains that run now. With several, each thread has work, or is better left to the others.
static CHAINS: AtomicUsize = AtomicUsize::new(0);

/// Calls `f`, on a worker, while the other workers stay awake.
pub(crate) fn awake<'s, T>(scope: &Scope<'s>, ended: &'s AtomicBool, f: impl FnOnce() -> T) -> T {
    let caller = rayon::current_thread_index();
    let _chain = Chain::begin(ended);
    if rayon::current_num_threads() > 1 {
        scope.spawn_broadcast(move |_, context| {
            // A caller that waits for others may get its own copy of this task.
            if Some(context.index()) != caller {
                look_for_work(ended);
            }
        });
    }
    f()
}

fn look_for_work(ended: &AtomicBool) {
    let alone = || CHAINS.load(Ordering::Relaxed) == 1 && !ended.load(Ordering::Acquire);
    let mut last = Instant::now();
    while alone() {
        let idle = (0..ATTEMPTS).all(|_| {
            std::hint::spin_loop();
            rayon::yield_now() == Some(Yield::Idle) && alone()
        });
        if !idle {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            return;
        } else {
            std::thread::yield_now();
        }
    }
}

/// Says that it has ended when it is dropped, also by a panic.
struct Chain<'s> {
    ended: &'s AtomicBool,
}

impl<'s> Chain<'s> {
    fn begin(ended: &'s AtomicBool) -> Self {
        CHAINS.fetch_add(1, Ordering::Relaxed);
        Self { ended }
    }
}

impl Drop for Chain<'_> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        CHAINS.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use crate::on_workers;

    fn total(n: u64) -> u64 {
        on_workers(|| {
            (0..100)
                .map(|_| (0..n).into_par_iter().map(|x| x % 7).sum::<u64>())
                .sum()
        })
    }

    #[test]
    fn chains_run_side_by_side_and_within_each_other() {
        let expected = 100 * (0..5000).map(|x| x % 7).sum::<u64>();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(total(5000), expected));
            }
        });
        let nested = on_workers(|| (0..4).into_par_iter().map(|_| total(5000)).sum::<u64>());
        assert_eq!(nested, 4 * expected);
    }

    #[test]
    fn a_panic_ends_a_chain() {
        let failed = std::panic::catch_unwind(|| on_workers(|| panic!("expected")));
        assert!(failed.is_err());
        assert_eq!(total(10), 100 * (0..10).map(|x| x % 7).sum::<u64>());
    }
}
