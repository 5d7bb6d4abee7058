//! Progress on standard error: bars on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::Record;

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("invariant: the templates here are valid")
}

/// Shows the preparation of a corpus.
#[derive(Debug, Default)]
pub struct DataProgress {
    bar: Mutex<Option<ProgressBar>>,
}

impl DataProgress {
    fn with_bar(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        // A panic elsewhere leaves nothing here that could not be drawn.
        act(&mut self
            .bar
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()));
    }
}

impl iiet_data::Progress for DataProgress {
    fn stage(&self, name: &str, total_bytes: Option<u64>) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let bar = match total_bytes {
            Some(total) => ProgressBar::new(total).with_style(style(
                "{prefix:>24} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            )),
            None => ProgressBar::new_spinner().with_style(style("{prefix:>24} {spinner} {bytes}")),
        };
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.with_bar(|slot| *slot = Some(bar));
    }

    fn advance(&self, bytes: u64) {
        self.with_bar(|slot| {
            if let Some(bar) = slot {
                bar.inc(bytes);
            }
        });
    }

    fn done(&self, summary: &str) {
        self.with_bar(|slot| {
            if let Some(bar) = slot.take() {
                bar.finish_and_clear();
            }
        });
        eprintln!("{summary}");
    }
}

/// Shows the steps of a run.
pub(crate) struct StepProgress {
    bar: Option<ProgressBar>,
    started: Instant,
    first: u64,
    steps: u64,
}

impl StepProgress {
    /// A display for a run that stands after step `first` of `steps`.
    pub(crate) fn new(first: u64, steps: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{wide_bar} {pos}/{len} {msg} {elapsed} + {eta}";
            let bar = ProgressBar::new(steps).with_style(style(template));
            bar.set_position(first);
            bar.reset_eta();
            bar
        });
        Self {
            bar,
            started: Instant::now(),
            first,
            steps,
        }
    }

    /// A step is done.
    pub(crate) fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// A step was logged.
    pub(crate) fn record(&self, record: &Record) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!(
                "loss {:.3}, {:.0} tokens/s",
                record.loss, record.tokens_per_second
            ));
        }
        let validation = match (record.validation_loss, record.validation_bits_per_byte) {
            (Some(loss), Some(bits)) => format!(", validation {loss:.3} = {bits:.3} bits/byte"),
            _ => String::new(),
        };
        let share = record.flops_utilisation.map_or_else(String::new, |share| {
            format!(" at {:.0} % of peak", 100.0 * share)
        });
        // On a terminal the bar says the rest.
        if self.bar.is_some() && validation.is_empty() {
            return;
        }
        let done = (record.step - self.first).max(1);
        let left = self.started.elapsed().as_secs_f64() / done as f64
            * (self.steps.saturating_sub(record.step)) as f64;
        let terms = record.terms.iter();
        let terms: Vec<String> = terms
            .map(|(name, nats)| format!("{} {nats:.3}", name.replace('_', " ")))
            .collect();
        let terms = match terms.is_empty() {
            true => " =".to_owned(),
            false => format!(" ({});", terms.join(", ")),
        };
        self.say(&format!(
            "step {}/{}: loss {:.3}{terms} {:.3} bits/byte{validation}, {:.0} tokens/s{share}, {:.0} s left",
            record.step,
            self.steps,
            record.loss,
            record.bits_per_byte,
            record.tokens_per_second,
            left,
        ));
    }

    /// A line of its own.
    pub(crate) fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// The run is over.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
