//! Non-finite losses and gradients, on logged and unlogged steps.
//!
//! They are caused as a user would cause them, by a learning rate far too high after a resume; the
//! tests of `crates/train` set values within a step.

use std::fmt;
use std::time::Instant;

use anyhow::ensure;

use super::workload::{Workload, contents};

pub(super) struct Numbers {
    cases: u64,
    seconds: f64,
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NaN and infinity  {} runs ended with an error before writing a checkpoint of them, and resumed from the previous one to the clean run's end; {:.0} s",
            self.cases, self.seconds
        )
    }
}

pub(super) fn run(workload: &Workload) -> anyhow::Result<Numbers> {
    let started = Instant::now();
    let steps = format!("train.steps={}", workload.steps + 20);
    // Learning rates that overflow at once, and after a few steps.
    let rates = ["train.lr=1e30", "train.lr=1e12"];
    let mut cases = 0;
    for rate in rates {
        for (what, log, checkpoint) in [
            (
                "a logged step",
                "train.log_every=1",
                "train.checkpoint_every=0",
            ),
            (
                "an unlogged step",
                "train.log_every=1000",
                "train.checkpoint_every=0",
            ),
            (
                "a step with a checkpoint due",
                "train.log_every=1",
                "train.checkpoint_every=1",
            ),
        ] {
            let run = workload.complete("numbers")?;
            let before = contents(&run.join("checkpoints"))?;
            let mut command = workload.resume(&run);
            for set in [
                rate,
                "train.clip=0",
                "train.warmup=0",
                &steps,
                log,
                checkpoint,
            ] {
                command.args(["--set", set]);
            }
            let ended = workload.run(command)?;
            let errors = &ended.errors;
            ensure!(!ended.success, "{rate} on {what}: the run continued");
            let named = ["is NaN", "is inf", "not finite"];
            ensure!(
                named.iter().any(|words| errors.contains(words)),
                "{rate} on {what}: not reported:\n{errors}"
            );
            ensure!(
                contents(&run.join("checkpoints"))? == before,
                "{rate} on {what}: the checkpoints changed:\n{errors}"
            );
            let ended = workload.run(workload.resume(&run))?;
            ensure!(
                ended.success,
                "{rate} on {what}: not resumed:\n{}",
                ended.errors
            );
            workload.compare(&run, what)?;
            cases += 1;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Numbers { cases, seconds })
}
