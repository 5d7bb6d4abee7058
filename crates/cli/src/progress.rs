//! Progress on standard error: bars on a terminal, plain lines elsewhere.
//!
//! Errors of printing are ignored: a message that cannot be written is dropped.

use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use iiet_eval::report::Measuring;
use iiet_plots::{RunLabel, draw_curve};
use iiet_train::{Event, Observer, Record, RunDirectory, SourceUse, Started, TextUse};
use indicatif::{ProgressBar, ProgressStyle};

use crate::backend::Chosen;
use crate::print::errln;
use crate::signals;

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("invariant: the templates here are valid")
}

/// Shows the preparation of a corpus.
#[derive(Debug, Default)]
pub(crate) struct DataProgress {
    bar: Mutex<Option<ProgressBar>>,
}

impl DataProgress {
    fn with_bar(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        // A panic in another thread leaves this state valid.
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
        errln!("{summary}");
    }
}

/// Shows the tokens that are passed through a model for one task.
pub(crate) struct TokenBar(ProgressBar);

impl TokenBar {
    /// A bar for the task of this name.
    pub(crate) fn new(task: impl Into<Cow<'static, str>>) -> Self {
        let style = style("{prefix:>16} {wide_bar} {human_pos}/{human_len} tokens {per_sec} {eta}");
        Self(ProgressBar::new(0).with_style(style).with_prefix(task))
    }
}

/// Shows what a report measures: a bar for each task on a terminal, a line for each measurement elsewhere.
pub(crate) fn report_progress(measuring: Measuring<'_>) -> Box<dyn iiet_eval::Progress> {
    let announce = |what: &str| {
        if !std::io::stderr().is_terminal() {
            errln!("{what}");
        }
    };
    match measuring {
        Measuring::Task { model, task, items } => {
            announce(&format!("{model}: {task}, {items} items"));
            Box::new(TokenBar::new(format!("{model}: {task}")))
        }
        _ => {
            announce("measuring speeds");
            Box::new(())
        }
    }
}

impl iiet_eval::Progress for TokenBar {
    fn start(&self, tokens: u64) {
        self.0.set_length(tokens);
        self.0.reset();
    }

    fn advance(&self, tokens: u64) {
        self.0.inc(tokens);
    }
}

impl Drop for TokenBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Shows a run, and draws its curves.
pub(crate) struct RunProgress {
    /// The instructions of the device's matrix products, where there is a choice.
    products: Option<&'static str>,
    bar: Option<ProgressBar>,
    started: Instant,
    run: Option<Run>,
}

/// State since the start of the run.
struct Run {
    directory: RunDirectory,
    /// Number of steps completed before.
    first: u64,
    steps: u64,
    /// What the picture says of it.
    label: RunLabel,
}

impl RunProgress {
    pub(crate) fn new(device: &Chosen) -> Self {
        Self {
            products: device.products,
            bar: None,
            started: Instant::now(),
            run: None,
        }
    }

    fn start(&mut self, started: &Started<'_>) {
        self.started = Instant::now();
        self.run = Some(Run {
            directory: started.run.clone(),
            first: started.step,
            steps: started.steps,
            label: label(started),
        });
        self.bar = std::io::stderr().is_terminal().then(|| {
            let template = "{wide_bar} {pos}/{len} {msg} {elapsed} + {eta}";
            let bar = ProgressBar::new(started.steps).with_style(style(template));
            bar.set_position(started.step);
            bar.reset_eta();
            bar
        });
        self.say(format_args!(
            "{}, {} parameters, {} evaluations per token; {} steps of {} tokens, {}; into {}",
            started.solver,
            started.parameters,
            started.evaluations,
            started.steps,
            started.tokens_per_step,
            sources(&started.sources),
            started.run.path().display(),
        ));
        if started.left_out > 0 {
            self.say(format_args!(
                "{} pairs are left out: a side has more tokens than model.seq_len",
                started.left_out
            ));
        }
        if let Some(peak) = started.peak {
            let products = self.products;
            self.say(format_args!(
                "large matrix products reach {:.0} GFLOP/s here{}; shares below are of that",
                peak / 1e9,
                products.map_or_else(String::new, |name| format!(" ({name})")),
            ));
        }
    }

    /// Reports a logged step.
    fn logged(&self, records: &[Record]) {
        let (Some(run), Some(record)) = (&self.run, records.last()) else {
            return;
        };
        if record.validation_loss.is_some() {
            self.draw(records);
        }
        if let Some(bar) = &self.bar {
            bar.set_message(format!(
                "loss {:.3}, {:.0} tokens/s",
                record.loss, record.tokens_per_second
            ));
        }
        let right = |share: Option<f64>| {
            share.map_or_else(String::new, |share| {
                format!(", {:.1} % right", 100.0 * share)
            })
        };
        let validation = match (record.validation_loss, record.validation_bits_per_byte) {
            (Some(loss), Some(bits)) => format!(", validation {loss:.3} = {bits:.3} bits/byte"),
            (Some(loss), None) => {
                let right = right(record.validation_accuracy);
                format!("; validation {loss:.3}{right}")
            }
            _ => String::new(),
        };
        // On a terminal the bar shows the rest.
        if self.bar.is_some() && validation.is_empty() {
            return;
        }
        let share = record.flops_utilisation.map_or_else(String::new, |share| {
            format!(" at {:.0} % of peak", 100.0 * share)
        });
        let done = (record.step - run.first).max(1);
        let left = self.started.elapsed().as_secs_f64() / done as f64
            * (run.steps.saturating_sub(record.step)) as f64;
        let terms = record.terms.iter();
        let terms: Vec<String> = terms
            .map(|(name, nats)| format!("{} {nats:.3}", name.replace('_', " ")))
            .collect();
        let terms = match (terms.is_empty(), record.bits_per_byte) {
            (true, Some(bits)) => format!(" = {bits:.3} bits/byte"),
            (true, None) => String::new(),
            (false, Some(bits)) => format!(" ({}); {bits:.3} bits/byte", terms.join(", ")),
            (false, None) => format!(" ({})", terms.join(", ")),
        };
        self.say(format_args!(
            "step {}/{}: loss {:.3}{terms}{}{validation}, {:.0} tokens/s{share}, {left:.0} s left",
            record.step,
            run.steps,
            record.loss,
            right(record.accuracy),
            record.tokens_per_second,
        ));
    }

    /// Draws the curves. A failure to draw does not end the run.
    fn draw(&self, records: &[Record]) {
        if let Some(run) = &self.run
            && let Err(error) = draw_curve(&run.directory.curve(), records, &run.label)
        {
            self.say(format_args!("the curves could not be drawn: {error}"));
        }
    }

    /// Prints a separate line.
    fn say(&self, line: fmt::Arguments<'_>) {
        match &self.bar {
            Some(bar) => bar.suspend(|| errln!("{line}")),
            None => errln!("{line}"),
        }
    }
}

impl Observer for RunProgress {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::PassedOver { reason } => self.say(format_args!("passed over {reason}")),
            Event::StartingOver { run } => self.say(format_args!(
                "{}: stopped before its first checkpoint; starting from step 0",
                run.path().display()
            )),
            Event::Resuming {
                checkpoint,
                step,
                changed,
            } => {
                let checkpoint = checkpoint.display();
                self.say(format_args!(
                    "resuming from {checkpoint}, after step {step}"
                ));
                for difference in *changed {
                    self.say(format_args!("{difference}"));
                }
            }
            Event::MetricsKeptAside { kept, reason } => self.say(format_args!(
                "metrics.jsonl: {reason}; the file was renamed to {}, and its valid records \
                 are in the new one",
                kept.display()
            )),
            Event::Started(started) => {
                self.start(started);
                signals::training(true);
            }
            Event::Stage { step, solver } => {
                self.say(format_args!("step {step}: switching to {solver}"));
            }
            Event::Step { .. } => {
                if let Some(bar) = &self.bar {
                    bar.inc(1);
                }
            }
            Event::Logged { records } => self.logged(records),
            Event::Sample { step, text } => self.say(format_args!("--- step {step}\n{text}")),
            Event::Ended { records } => {
                signals::training(false);
                self.draw(records);
            }
            _ => {}
        }
    }
}

impl Drop for RunProgress {
    fn drop(&mut self) {
        signals::training(false);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What a picture of a run says besides its curves.
fn label(started: &Started<'_>) -> RunLabel {
    let baselines = &started.baselines;
    let name = started.run.path().file_name();
    RunLabel {
        name: name.map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned()),
        model: format!(
            "{}, {} evaluations per token in {} layers, {:.2} M parameters",
            started.solver,
            started.evaluations,
            started.layers,
            started.parameters as f64 / 1e6
        ),
        unigram_loss: Some(baselines.unigram_loss),
        unigram_bits_per_byte: baselines.unigram_bits_per_byte,
    }
}

/// The number of epochs of each source.
fn sources(sources: &[SourceUse]) -> String {
    let lines = sources.iter().map(|source| {
        let seen = match source.text {
            Some(TextUse { epochs, tokens }) => format!("{epochs:.2} epochs of {tokens} tokens"),
            None => format!("new examples of {} in each", source.name),
        };
        match sources.len() {
            1 => seen,
            _ => format!("{:.1} % {} ({seen})", 100.0 * source.share, source.name),
        }
    });
    lines.collect::<Vec<_>>().join(", ")
}
