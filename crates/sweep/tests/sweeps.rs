//! Whole sweeps with trials that are no processes: which trial runs when, and what is left behind.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use iiet_sweep::{
    Ended, Job, Launcher, Outcome, Process, State, Sweep, SweepDirectory, SweepError, SweepOptions,
    TrialResult, read_results,
};
use iiet_train::RunConfig;

const BASE: &str = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 8\nsolver = \"explicit_euler\"\n[train]\nsteps = 80\nbatch = 2\nlr = 1.0\neval_every = 10\nseed = 5\n";

/// Trials whose loss after a step is `lr + 1 / step`, and that fail where the rate is 13.
#[derive(Default)]
struct Fake {
    /// What was started: the trial, whether it went on, and until when.
    started: Vec<(String, bool, u64)>,
    /// So many trials end by themselves; the others run until they are asked to stop.
    ending: Option<usize>,
    most_at_once: usize,
    running: std::rc::Rc<std::cell::Cell<usize>>,
}

struct FakeProcess {
    how: Option<Ended>,
    running: std::rc::Rc<std::cell::Cell<usize>>,
}

impl Launcher for Fake {
    type Process = FakeProcess;

    fn launch(&mut self, job: &Job<'_>) -> io::Result<FakeProcess> {
        let number = self.started.len();
        let name = job.trial.name.clone();
        self.started.push((name, job.resume, job.until));
        self.running.set(self.running.get() + 1);
        self.most_at_once = self.most_at_once.max(self.running.get());
        let lr = job.trial.config.train.lr;
        let fails = lr == 13.0;
        let ends = self.ending.is_none_or(|ending| number < ending);
        let last = match (fails, ends) {
            (true, _) => 7,
            (false, true) => job.until,
            (false, false) => 10,
        };
        fs::create_dir_all(job.run.join("checkpoints"))?;
        fs::write(job.run.join("config.toml"), job.trial.config.to_toml())?;
        let lines = (10..=last).step_by(10).map(|step| {
            let loss = lr + 1.0 / step as f64;
            format!(
                "{{\"step\":{step},\"tokens\":{},\"tokens_per_second\":100.0,\"evaluations\":2,\
                 \"loss\":9.0,\"validation_loss\":{loss}}}\n",
                100 * step
            )
        });
        fs::write(job.run.join("metrics.jsonl"), lines.collect::<String>())?;
        if last == job.trial.config.train.steps {
            fs::create_dir_all(job.run.join("model"))?;
        }
        Ok(FakeProcess {
            how: match (fails, ends) {
                (true, _) => Some(Ended::Failed("the loss is NaN".into())),
                (false, true) => Some(Ended::Done),
                (false, false) => None,
            },
            running: self.running.clone(),
        })
    }
}

impl Process for FakeProcess {
    fn poll(&mut self) -> io::Result<Option<Ended>> {
        let how = self.how.take();
        if how.is_some() {
            self.running.set(self.running.get() - 1);
        }
        Ok(how)
    }

    fn stop(&mut self) {
        self.how = Some(Ended::Stopped);
    }
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("base.toml"), BASE).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self, grid: &[&str], seeds: u64) -> SweepOptions {
        SweepOptions {
            directory: SweepDirectory::new(&self.path("sweep")),
            config: RunConfig::load(&self.path("base.toml"), &[]).unwrap(),
            grid: grid.iter().map(|text| text.parse().unwrap()).collect(),
            seeds,
            halving: false,
            jobs: 1,
            threads: 4,
            retry: false,
        }
    }

    fn results(&self) -> Vec<TrialResult> {
        read_results(&self.path("sweep/sweep.jsonl")).unwrap()
    }
}

fn run(options: SweepOptions, fake: &mut Fake) -> Outcome {
    let mut sweep = Sweep::open(options).unwrap();
    sweep.run(fake, &AtomicBool::new(false), &mut ()).unwrap()
}

fn names(started: &[(String, bool, u64)]) -> Vec<&str> {
    started.iter().map(|(name, ..)| name.as_str()).collect()
}

#[test]
fn every_combination_is_run_once_with_each_seed_and_failures_are_results() {
    let place = Place::new();
    let mut fake = Fake::default();
    let outcome = run(place.options(&["train.lr=2,13,3"], 2), &mut fake);
    assert_eq!(outcome, Outcome::Complete);
    assert_eq!(
        names(&fake.started),
        [
            "lr=2_seed=5",
            "lr=13_seed=5",
            "lr=3_seed=5",
            "lr=2_seed=6",
            "lr=13_seed=6",
            "lr=3_seed=6"
        ]
    );
    let results = place.results();
    let states: Vec<State> = results.iter().map(|result| result.state).collect();
    let (done, failed) = (State::Finished, State::Failed);
    assert_eq!(states, [done, done, failed, failed, done, done]);
    assert_eq!(results[2].reason.as_deref(), Some("the loss is NaN"));
    let first = &results[0];
    assert_eq!((first.step, first.steps, first.tokens), (80, 80, 8000));
    // 8000 tokens at 100 per second.
    assert_eq!(
        (first.seconds, first.threads, first.curve.len()),
        (80.0, 4, 8)
    );
    assert_eq!(first.last["validation_loss"], 2.0 + 1.0 / 80.0);
    assert_eq!(first.config["train"]["seed"], 5);

    // Again: nothing is left to run, and failures stay unless they are to be tried again.
    let mut again = Fake::default();
    run(place.options(&["train.lr=2,13,3"], 2), &mut again);
    assert_eq!(again.started, []);
    let retry = SweepOptions {
        retry: true,
        ..place.options(&["train.lr=2,13,3"], 2)
    };
    run(retry, &mut again);
    assert_eq!(names(&again.started), ["lr=13_seed=5", "lr=13_seed=6"]);
    assert!(again.started.iter().all(|(_, resume, _)| *resume));

    // A larger grid adds trials, a smaller one forgets none.
    let mut more = Fake::default();
    run(place.options(&["train.lr=2,4"], 2), &mut more);
    assert_eq!(names(&more.started), ["lr=4_seed=5", "lr=4_seed=6"]);
    assert_eq!(place.results().len(), 8);
}

#[test]
fn an_interrupt_stops_what_runs_and_the_next_call_goes_on() {
    let place = Place::new();
    let options = || SweepOptions {
        jobs: 2,
        ..place.options(&["train.lr=2,3,4,5"], 1)
    };
    let interrupt = AtomicBool::new(false);
    struct InterruptAfterTheThird<'a>(usize, &'a AtomicBool);
    impl iiet_sweep::Observer for InterruptAfterTheThird<'_> {
        fn on(&mut self, event: &iiet_sweep::Event<'_>, _: &[TrialResult]) {
            if matches!(event, iiet_sweep::Event::Begun { .. }) {
                self.0 += 1;
                self.1.store(self.0 == 3, Ordering::Relaxed);
            }
        }
    }
    let mut fake = Fake {
        ending: Some(1),
        ..Fake::default()
    };
    let mut sweep = Sweep::open(options()).unwrap();
    assert_eq!(sweep.threads(), 2);
    let mut observer = InterruptAfterTheThird(0, &interrupt);
    let outcome = sweep.run(&mut fake, &interrupt, &mut observer).unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    assert_eq!((fake.started.len(), fake.most_at_once), (3, 2));
    let states: Vec<State> = place.results().iter().map(|result| result.state).collect();
    let (left, waiting) = (State::Unfinished, State::Waiting);
    assert_eq!(states, [State::Finished, left, left, waiting]);
    assert_eq!(place.results()[1].step, 10);

    // The directory is held as long as the sweep lives.
    assert!(matches!(
        Sweep::open(options()),
        Err(SweepError::Busy { .. })
    ));
    drop(sweep);
    let mut again = Fake::default();
    assert_eq!(run(options(), &mut again), Outcome::Complete);
    let expected = [
        ("lr=3_seed=5", true),
        ("lr=4_seed=5", true),
        ("lr=5_seed=5", false),
    ];
    let started = again
        .started
        .iter()
        .map(|(name, resume, _)| (name.as_str(), *resume));
    assert!(started.eq(expected));
    assert!(
        place
            .results()
            .iter()
            .all(|result| result.state == State::Finished)
    );
}

#[test]
fn halving_trains_the_better_half_twice_as_long() {
    let place = Place::new();
    let options = || SweepOptions {
        halving: true,
        ..place.options(&["train.lr=4,13,2,3"], 2)
    };
    let mut fake = Fake::default();
    assert_eq!(run(options(), &mut fake), Outcome::Complete);
    // Four combinations for 20 steps, of which the failed one and the worst other are dropped; two for
    // 40; one for 80.
    let mut until: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (name, _, step) in &fake.started {
        until.entry(*step).or_default().push(name);
    }
    assert_eq!(until[&20].len(), 8);
    assert_eq!(
        until[&40],
        ["lr=2_seed=5", "lr=3_seed=5", "lr=2_seed=6", "lr=3_seed=6"]
    );
    assert_eq!(until[&80], ["lr=2_seed=5", "lr=2_seed=6"]);
    let results = place.results();
    let states: Vec<(State, u64)> = results.iter().map(|r| (r.state, r.step)).collect();
    let dropped = |step| (State::Dropped, step);
    assert_eq!(states[..2], [dropped(20); 2]);
    assert_eq!((states[2].0, states[3].0), (State::Failed, State::Failed));
    assert_eq!(states[4..6], [(State::Finished, 80); 2]);
    assert_eq!(states[6..], [dropped(40); 2]);

    // Again: the same is found without running anything.
    let mut again = Fake::default();
    assert_eq!(run(options(), &mut again), Outcome::Complete);
    assert_eq!(again.started, []);
    assert_eq!(place.results(), results);
}

#[test]
fn what_cannot_be_swept_is_refused_before_the_first_trial() {
    let place = Place::new();
    let refused = |options: SweepOptions| Sweep::open(options).unwrap_err().to_string();
    for (grid, seeds, expected) in [
        ("train.seed=1,2", 1, "train.seed is set by --seeds"),
        (
            "train.lr=1,-1",
            1,
            "trial lr=-1_seed=5: train.lr is -1; allowed: finite and above 0",
        ),
        ("train.lr=1", 0, "--seeds is 0; allowed: 1 to 10000"),
    ] {
        let error = refused(place.options(&[grid], seeds));
        assert!(error.contains(expected), "{error}");
    }
    let no_jobs = SweepOptions {
        jobs: 0,
        ..place.options(&[], 1)
    };
    assert!(refused(no_jobs).contains("--jobs is 0; allowed: 1 or more"));
    let uneven = SweepOptions {
        halving: true,
        ..place.options(&["train.steps=40,80"], 1)
    };
    assert!(refused(uneven).contains("differ in train.steps"));
    // With results, another configuration is another sweep.
    run(place.options(&["train.lr=1,2"], 1), &mut Fake::default());
    let mut other = place.options(&["train.lr=1,2"], 1);
    other.config.train.batch = 4;
    let error = refused(other);
    assert!(error.contains("train.batch was 2 and is 4"), "{error}");
    let mut elsewhere = place.options(&[], 1);
    elsewhere.directory = SweepDirectory::new(Path::new(&place.path("")));
    let error = refused(elsewhere);
    assert!(
        error.contains("holds base.toml and no sweep") || error.contains("no sweep"),
        "{error}"
    );
}
