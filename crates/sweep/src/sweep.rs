//! The sweep itself: which trial runs when.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use iiet_files::FileLock;
use iiet_train::{ClaimedRun, RunConfig, RunDirectory, TrainError};

use crate::result::write_results;
use crate::trial::SEED;
use crate::{
    Axis, Curve, Ended, Job, Launcher, Process, Settings, State, SweepDirectory, SweepError, Trial,
    TrialResult, read_results, rungs, survivors,
};

/// More trials are a mistake in the grid.
const MOST_TRIALS: usize = 10_000;
/// Between two looks at the running trials.
const PAUSE: Duration = Duration::from_millis(50);
/// So often a run that another process still holds is asked for; each time takes a second.
const TRIES: usize = 60;

/// What to sweep over, and how.
#[derive(Debug, Clone)]
pub struct SweepOptions {
    /// Where.
    pub directory: SweepDirectory,
    /// What the settings of the grid are on top of. Its `train.seed` is that of the first seed.
    pub config: RunConfig,
    /// The axes of the grid.
    pub grid: Vec<Axis>,
    /// Seeds for each combination, consecutive numbers.
    pub seeds: u64,
    /// Whether to use successive halving: see [`rungs`].
    pub halving: bool,
    /// Trials at a time.
    pub jobs: usize,
    /// Threads for all of them together.
    pub threads: usize,
    /// Whether failed trials of an earlier call are tried again.
    pub retry: bool,
}

/// What happens in a sweep.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A trial begins, or goes on.
    Begun {
        /// The trial.
        trial: &'a Trial,
        /// Whether it goes on.
        resume: bool,
        /// The step until which it runs now.
        until: u64,
    },
    /// The run of a trial is held by another process, which is waited for.
    Held {
        /// The trial.
        trial: &'a Trial,
    },
    /// A trial ended, or stands at a rung.
    Ended {
        /// How it stands.
        result: &'a TrialResult,
        /// Trials that have ended, at this rung.
        done: usize,
        /// Trials of this rung.
        of: usize,
    },
    /// A rung is complete.
    Halved {
        /// Its step.
        step: u64,
        /// Combinations of settings that go on.
        kept: usize,
        /// Combinations that were dropped.
        dropped: usize,
    },
}

/// Receives what happens in a sweep; `()` ignores it.
pub trait Observer {
    /// Something happened. `results` are those of all trials.
    fn on(&mut self, event: &Event<'_>, results: &[TrialResult]);
}

impl Observer for () {
    fn on(&mut self, _: &Event<'_>, _: &[TrialResult]) {}
}

/// How a call of [`Sweep::run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every trial finished, was dropped or failed.
    Complete,
    /// Some trials are unfinished; the same call goes on with them.
    Stopped,
}

/// A sweep in its directory, which no other process works on meanwhile.
#[derive(Debug)]
pub struct Sweep {
    directory: SweepDirectory,
    trials: Vec<Trial>,
    /// Of `trials`, in their order, and then those of an earlier grid.
    results: Vec<TrialResult>,
    /// Trials of one combination of settings, which lie one after the other.
    seeds: usize,
    rungs: Vec<u64>,
    jobs: usize,
    /// Of each trial.
    threads: usize,
    _lock: FileLock,
}

impl Sweep {
    /// Begins a sweep, or goes on with the one in the directory. The grid and the number of seeds may
    /// have changed since; the configuration may not.
    ///
    /// # Errors
    ///
    /// [`SweepError`]: everything that can be known before the first trial.
    pub fn open(options: SweepOptions) -> Result<Self, SweepError> {
        let SweepOptions {
            directory,
            config,
            grid,
            seeds,
            halving,
            jobs,
            threads,
            retry,
        } = options;
        for axis in &grid {
            axis.refuse_key(SEED, "is set by --seeds")?;
        }
        let combinations = Axis::product(&grid)?;
        let (seeds, jobs) = checked(combinations.len(), seeds, jobs)?;
        let first = config.train.seed;
        let all_seeds: Vec<u64> = (0..seeds as u64).map(|i| first.wrapping_add(i)).collect();
        let lock = directory.claim(&config)?;
        let trials = Trial::all(&directory.config(), &combinations, &all_seeds)?;
        let rungs = match halving {
            true => rungs_of(&trials, &combinations)?,
            false => Vec::new(),
        };
        let jobs = jobs.min(trials.len());
        let mut sweep = Self {
            directory,
            results: Vec::new(),
            trials,
            seeds,
            rungs,
            jobs,
            threads: (threads / jobs).max(1),
            _lock: lock,
        };
        sweep.stand(retry)?;
        Ok(sweep)
    }

    /// The trials, combination by combination.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// How all trials stand.
    pub fn results(&self) -> &[TrialResult] {
        &self.results
    }

    /// Threads of each trial.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Trials at a time.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// The steps after which combinations are compared, the last one at the end; empty without halving.
    pub fn rungs(&self) -> &[u64] {
        &self.rungs
    }

    /// Runs what is left to run. `sweep.jsonl` is up to date whenever a trial ends. If `interrupt` is
    /// set from outside, running trials are asked to stop, with a checkpoint, and waited for.
    ///
    /// # Errors
    ///
    /// [`SweepError::Launch`] if a trial cannot be started, [`SweepError::Io`] if results cannot be
    /// written. Running trials are stopped before.
    pub fn run<L: Launcher>(
        &mut self,
        launcher: &mut L,
        interrupt: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, SweepError> {
        self.save()?;
        let mut alive: Vec<usize> = (0..self.trials.len() / self.seeds).collect();
        let rungs = match self.rungs.is_empty() {
            true => vec![None],
            false => self.rungs.iter().copied().map(Some).collect(),
        };
        for (at, rung) in rungs.iter().enumerate() {
            let members = self.in_order(&alive);
            self.run_until(*rung, &members, launcher, interrupt, observer)?;
            if !members.iter().all(|trial| self.is_done(*trial, *rung)) {
                return Ok(Outcome::Stopped);
            }
            if let Some(step) = *rung
                && at + 1 < rungs.len()
            {
                alive = self.halve(step, &alive)?;
                let dropped = members.len() / self.seeds - alive.len();
                let kept = alive.len();
                let event = Event::Halved {
                    step,
                    kept,
                    dropped,
                };
                observer.on(&event, &self.results);
            }
        }
        Ok(Outcome::Complete)
    }

    /// The trials of combinations, all of the first seed before those of the second, so that there
    /// soon is something to see of each combination.
    fn in_order(&self, combinations: &[usize]) -> Vec<usize> {
        let seeds = 0..self.seeds;
        seeds
            .flat_map(|seed| combinations.iter().map(move |at| at * self.seeds + seed))
            .collect()
    }

    /// Runs those trials that are not there yet until a step, or to their end.
    fn run_until<L: Launcher>(
        &mut self,
        rung: Option<u64>,
        members: &[usize],
        launcher: &mut L,
        interrupt: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<(), SweepError> {
        let left = members.iter().copied();
        let mut queue: VecDeque<usize> = left.filter(|at| !self.is_done(*at, rung)).collect();
        let mut running: Vec<(usize, L::Process)> = Vec::new();
        let mut failure = None;
        let mut asked_to_stop = false;
        loop {
            let stop = failure.is_some() || interrupt.load(Ordering::Relaxed);
            if stop && !asked_to_stop {
                running.iter_mut().for_each(|(_, process)| process.stop());
                asked_to_stop = true;
            }
            while !stop
                && running.len() < self.jobs
                && let Some(at) = queue.pop_front()
            {
                match self.launch(at, rung, launcher, interrupt, observer) {
                    Ok(Some(process)) => running.push((at, process)),
                    Ok(None) => break,
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            if running.is_empty() && (stop || queue.is_empty() || failure.is_some()) {
                return failure.map_or(Ok(()), Err);
            }
            let mut ended = Vec::new();
            for (place, (at, process)) in running.iter_mut().enumerate() {
                match process.poll() {
                    Ok(None) => {}
                    Ok(Some(how)) => ended.push((place, *at, how)),
                    Err(error) => ended.push((place, *at, Ended::Failed(error.to_string()))),
                }
            }
            if ended.is_empty() {
                sleep(PAUSE);
            }
            for (place, at, how) in ended.into_iter().rev() {
                running.swap_remove(place);
                self.conclude(at, rung, how);
                if let Err(error) = self.save() {
                    failure = failure.or(Some(error));
                }
                let done = members.iter().filter(|at| self.is_done(**at, rung));
                let event = Event::Ended {
                    result: &self.results[at],
                    done: done.count(),
                    of: members.len(),
                };
                observer.on(&event, &self.results);
            }
        }
    }

    /// Starts a trial; none if the sweep was interrupted meanwhile.
    fn launch<L: Launcher>(
        &mut self,
        at: usize,
        rung: Option<u64>,
        launcher: &mut L,
        interrupt: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Option<L::Process>, SweepError> {
        let trial = &self.trials[at];
        let run = self.directory.run(&trial.name);
        let resume = RunDirectory::existing(Some(&run), "").is_ok();
        let mut tries = 0..TRIES;
        while resume && let Err(error) = ClaimedRun::existing(Some(&run), "") {
            // A trial of a sweep that was killed writes its checkpoint.
            match (error, tries.next()) {
                _ if interrupt.load(Ordering::Relaxed) => return Ok(None),
                (TrainError::RunBusy { .. }, Some(try_number)) => {
                    if try_number == 0 {
                        observer.on(&Event::Held { trial }, &self.results);
                    }
                }
                (error, _) => return Err(error.into()),
            }
        }
        let steps = trial.config.train.steps;
        let job = Job {
            trial,
            config: &self.directory.config(),
            run: &run,
            log: &self.directory.log(&trial.name),
            resume,
            until: rung.unwrap_or(steps),
            threads: self.threads,
        };
        let process = launcher.launch(&job).map_err(|source| SweepError::Launch {
            trial: trial.name.clone(),
            source,
        })?;
        let event = Event::Begun {
            trial,
            resume,
            until: job.until,
        };
        observer.on(&event, &self.results);
        self.results[at].state = State::Unfinished;
        Ok(Some(process))
    }

    /// Notes how a trial stands after its process ended.
    fn conclude(&mut self, at: usize, rung: Option<u64>, how: Ended) {
        let trial = &self.trials[at];
        let steps = trial.config.train.steps;
        let until = rung.unwrap_or(steps);
        let (curve, how) = match self.curve(trial) {
            Ok(curve) => (curve, how),
            Err(error) => (Curve::default(), Ended::Failed(error.to_string())),
        };
        let (state, reason) = match how {
            Ended::Failed(reason) => (State::Failed, Some(reason)),
            Ended::Stopped => (State::Unfinished, None),
            Ended::Done if curve.at(until).is_none() => {
                let reason = format!("it ended without an evaluation after step {until}");
                (State::Failed, Some(reason))
            }
            Ended::Done if until == steps => (State::Finished, None),
            Ended::Done => (State::Unfinished, None),
        };
        self.results[at] = TrialResult {
            reason,
            ..TrialResult::of(trial, state, self.threads, curve)
        };
    }

    /// Drops the worse half of the combinations.
    fn halve(&mut self, step: u64, alive: &[usize]) -> Result<Vec<usize>, SweepError> {
        let losses: Vec<Option<f64>> = alive
            .iter()
            .map(|combination| self.loss_at(*combination, step))
            .collect();
        let kept: Vec<usize> = survivors(&losses).into_iter().map(|at| alive[at]).collect();
        for combination in alive.iter().filter(|at| !kept.contains(at)) {
            for at in self.of_combination(*combination) {
                let state = &mut self.results[at].state;
                if !matches!(state, State::Failed | State::Finished) {
                    *state = State::Dropped;
                }
            }
        }
        self.save()?;
        Ok(kept)
    }

    /// The mean validation loss of a combination after a step; none if one of its trials failed.
    fn loss_at(&self, combination: usize, step: u64) -> Option<f64> {
        let losses = self.of_combination(combination).map(|at| {
            let mut points = self.results[at].curve.iter();
            let point = points.find(|point| point.step == step)?;
            match self.results[at].state {
                State::Failed => None,
                _ => point.values.get("validation_loss").copied(),
            }
        });
        let losses: Option<Vec<f64>> = losses.collect();
        losses.map(|losses| losses.iter().sum::<f64>() / losses.len() as f64)
    }

    fn of_combination(&self, combination: usize) -> std::ops::Range<usize> {
        combination * self.seeds..(combination + 1) * self.seeds
    }

    /// Whether there is nothing left to run of a trial until a rung, or to its end.
    fn is_done(&self, at: usize, rung: Option<u64>) -> bool {
        let result = &self.results[at];
        match (result.state, rung) {
            (State::Finished | State::Failed, _) => true,
            (_, Some(rung)) if rung < result.steps => {
                result.curve.iter().any(|point| point.step == rung)
            }
            _ => false,
        }
    }

    /// How each trial stands, by the results of earlier calls and by its run.
    fn stand(&mut self, retry: bool) -> Result<(), SweepError> {
        let path = self.directory.results();
        let mut earlier = match path.exists() {
            true => read_results(&path)?,
            false => Vec::new(),
        };
        for trial in &self.trials {
            let before = earlier.iter().position(|result| result.trial == trial.name);
            let before = before.map(|at| earlier.remove(at));
            let stays = |result: &TrialResult| match result.state {
                State::Finished => true,
                State::Failed => !retry,
                _ => false,
            };
            self.results.push(match before {
                Some(result) if stays(&result) => result,
                _ => self.found(trial)?,
            });
        }
        self.results.append(&mut earlier);
        Ok(())
    }

    /// A trial by its run alone.
    fn found(&self, trial: &Trial) -> Result<TrialResult, SweepError> {
        let curve = self.curve(trial)?;
        let run = self.directory.run(&trial.name);
        let state = match RunDirectory::existing(Some(&run), "") {
            Err(_) => State::Waiting,
            Ok(run) if curve.at(trial.config.train.steps).is_some() && run.model().exists() => {
                State::Finished
            }
            Ok(_) => State::Unfinished,
        };
        Ok(TrialResult::of(trial, state, self.threads, curve))
    }

    fn curve(&self, trial: &Trial) -> Result<Curve, SweepError> {
        Curve::read(&self.directory.run(&trial.name).join("metrics.jsonl"))
    }

    fn save(&self) -> Result<(), SweepError> {
        write_results(&self.directory.results(), &self.results)
    }
}

/// The numbers of seeds and jobs, if there can be so many trials.
fn checked(combinations: usize, seeds: u64, jobs: usize) -> Result<(usize, usize), SweepError> {
    let refuse = |option, found: String, allowed: String| {
        Err(SweepError::Option {
            option,
            found,
            allowed,
        })
    };
    let most = (MOST_TRIALS / combinations.max(1)) as u64;
    if most == 0 {
        let found = format!("a grid of {combinations} combinations");
        return refuse("--grid", found, format!("at most {MOST_TRIALS} trials"));
    }
    if seeds == 0 || seeds > most {
        let allowed = format!("1 to {most}, for at most {MOST_TRIALS} trials");
        return refuse("--seeds", seeds.to_string(), allowed);
    }
    if jobs == 0 {
        return refuse("--jobs", jobs.to_string(), "1 or more".into());
    }
    Ok((seeds as usize, jobs))
}

/// The rungs of a sweep whose trials can be compared step by step.
fn rungs_of(trials: &[Trial], combinations: &[Settings]) -> Result<Vec<u64>, SweepError> {
    let of = |key: &'static str, value: fn(&Trial) -> u64| {
        let values: std::collections::BTreeSet<u64> = trials.iter().map(value).collect();
        match values.iter().next() {
            Some(only) if values.len() == 1 => Ok(*only),
            _ => Err(SweepError::Option {
                option: "--halving",
                found: format!("given for trials that differ in {key}"),
                allowed: format!("one {key} for all trials"),
            }),
        }
    };
    let steps = of("train.steps", |trial| trial.config.train.steps)?;
    let every = of("train.eval_every", |trial| trial.config.train.eval_every)?;
    let warmup = trials.iter().map(|trial| trial.config.train.warmup).max();
    Ok(rungs(combinations.len(), steps, every, warmup.unwrap_or(0)))
}
