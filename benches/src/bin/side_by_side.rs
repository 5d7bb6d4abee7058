//! Times training steps of this project and of PyTorch in alternation.
//!
//!     cargo xtask bench peers -- --python venv/bin/python [--size 55m=4x256]... [--steps 9] [--compile]
//!
//! Presets of language models and of encoder-decoders: of these the solver is the encoder's, and sources are as
//! long as targets. For every size and solver both sides load the same weights and train on the same tokens, each in a
//! separate process with the same number of threads. They take steps in turn, so that variations in the
//! machine's speed affect both. It prints medians, their ratio, both losses and both peaks of resident
//! memory. With `--set train.precision=bf16` PyTorch's side runs under its autocast.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use burn::tensor::Device;
use clap::Parser;
use iiet_benches::{TrainingStep, folder, preset};
use iiet_eval::report::Machine;
use iiet_kernels::Products;
use iiet_model::{
    EncoderDecoder, LanguageModel, ModelKind, Precision, SaveOptions, load, model_kind, save,
};
use iiet_train::{RunConfig, TrainedModel, Vocabulary};

/// Warm-up steps of each side: compilation, caches, the optimiser's state.
const WARM_UP: usize = 2;

#[derive(Parser)]
struct Arguments {
    /// A Python with torch, numpy and safetensors; without it only this project is timed.
    #[arg(long)]
    python: Option<PathBuf>,
    /// A preset of configs/ with sequences and tokens per batch; repeatable.
    #[arg(long, default_values = ["55m=4x256", "small=8x256"])]
    size: Vec<String>,
    /// Solvers with their corrections; repeatable.
    #[arg(long, default_values = ["explicit_euler", "predictor_corrector", "iterative_implicit_euler"])]
    solver: Vec<String>,
    /// Further keys of the configuration, such as model.solver.iterations=1; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Number of timed steps.
    #[arg(long, default_value_t = 9)]
    steps: usize,
    /// Threads of each side.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Compile PyTorch's forward and backward pass.
    #[arg(long)]
    compile: bool,
    /// Take steps of this model on request: one side of a comparison.
    #[arg(long, hide = true)]
    worker: Option<PathBuf>,
}

/// One of the given sizes.
struct Size {
    name: String,
    batch: usize,
    seq: usize,
}

impl Size {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let parse = || {
            let (name, shape) = text.split_once('=')?;
            let (batch, seq) = shape.split_once('x')?;
            let (batch, seq) = (batch.parse().ok()?, seq.parse().ok()?);
            let name = name.to_owned();
            (batch > 0 && seq > 0).then_some(Self { name, batch, seq })
        };
        parse().with_context(|| format!("--size {text}; expected such as 55m=4x256"))
    }

    fn config(&self, set: &[String]) -> anyhow::Result<RunConfig> {
        Ok(RunConfig::load(&preset(&self.name), set)?)
    }
}

// As in the binary.
#[global_allocator]
static ALLOCATOR: iiet_train::HugePages = iiet_train::HugePages;

fn main() -> anyhow::Result<()> {
    iiet_train::keep_freed_memory();
    let arguments = Arguments::parse();
    let sizes: Vec<Size> = arguments
        .size
        .iter()
        .map(|text| Size::parse(text))
        .collect::<anyhow::Result<_>>()?;
    if let Some(model) = &arguments.worker {
        return work(model, &sizes[0], &arguments.set);
    }
    if arguments.steps == 0 || arguments.threads == 0 {
        bail!("--steps and --threads must be at least 1");
    }
    println!("{}", circumstances(&arguments)?);
    println!(
        "{:<34}{:>10}{:>10}{:>8}{:>12}{:>12}{:>9}{:>9}",
        "", "iiet s", "torch s", "ratio", "loss", "torch loss", "MiB", "torch"
    );
    for size in &sizes {
        for solver in &arguments.solver {
            compare(&arguments, size, solver)?;
        }
    }
    Ok(())
}

/// What the table depends on beside the programs: the processor, the threads, and the versions of both sides.
fn circumstances(arguments: &Arguments) -> anyhow::Result<String> {
    let machine = Machine::this();
    let processor = machine.processor.as_deref().unwrap_or(machine.architecture);
    let (threads, version) = (arguments.threads, env!("CARGO_PKG_VERSION"));
    let mut text = format!(
        "{processor}, {} cores, {threads} threads; iiet {version}, {} products",
        machine.cores,
        Products::in_use()
    );
    if let Some(python) = &arguments.python {
        let mut command = Command::new(python);
        command.arg(torch_step()).arg("--versions");
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", python.display()))?;
        if !output.status.success() {
            bail!("{}: torch_step.py --versions failed", python.display());
        }
        let versions = String::from_utf8_lossy(&output.stdout);
        text = format!("{text}; {}", versions.trim());
    }
    Ok(text)
}

/// PyTorch's side.
fn torch_step() -> PathBuf {
    folder().join("peers/torch_step.py")
}

fn compare(arguments: &Arguments, size: &Size, solver: &str) -> anyhow::Result<()> {
    let sequences = size.config(&arguments.set)?.model.encoder.is_some();
    let key = match sequences {
        true => "model.encoder.solver",
        false => "model.solver",
    };
    let mut set = vec![format!("{key}={solver}")];
    set.extend(arguments.set.iter().cloned());
    set.push(format!("model.seq_len={}", size.seq));
    let config = size.config(&set)?;
    let folder = tempfile::tempdir()?;
    let flops_per_token = match sequences {
        true => write_model::<EncoderDecoder>(&config, folder.path())?,
        false => write_model::<LanguageModel>(&config, folder.path())?,
    };
    let flops = flops_per_token * (size.batch * size.seq) as f64;
    let threads = arguments.threads.to_string();
    let shape = format!("{}={}x{}", size.name, size.batch, size.seq);
    let mut ours = Command::new(std::env::current_exe()?);
    ours.arg("--worker")
        .arg(folder.path())
        .args(["--size", &shape])
        .args(arguments.set.iter().flat_map(|key| ["--set", key]))
        .env("RAYON_NUM_THREADS", &threads);
    let mut sides = vec![Side::start(&mut ours)?];
    if let Some(python) = &arguments.python {
        let mut torch = Command::new(python);
        torch
            .arg(torch_step())
            .arg("--model")
            .arg(folder.path())
            .args(["--batch", &size.batch.to_string()])
            .args(["--seq", &size.seq.to_string()])
            .args(["--threads", &threads]);
        if arguments.compile {
            torch.arg("--compile");
        }
        match config.train.precision {
            Precision::F32 => (),
            Precision::Bf16 => drop(torch.arg("--bf16")),
            Precision::F16 => bail!("train.precision=f16: PyTorch's side has f32 and bf16"),
        }
        sides.push(Side::start(&mut torch)?);
    }
    for step in 0..WARM_UP + arguments.steps {
        for side in &mut sides {
            side.step(step >= WARM_UP)?;
        }
    }
    let name = format!("{shape} {solver}");
    let results: Vec<Timed> = sides.into_iter().map(Side::end).collect::<Result<_, _>>()?;
    let ours = &results[0];
    let rate = flops / ours.seconds / 1e9;
    match results.get(1) {
        Some(torch) => println!(
            "{name:<34}{:>10.3}{:>10.3}{:>7.2}x{:>12.6}{:>12.6}{:>9}{:>9}   {rate:.0} GFLOP/s",
            ours.seconds,
            torch.seconds,
            torch.seconds / ours.seconds,
            ours.loss,
            torch.loss,
            ours.peak_kib >> 10,
            torch.peak_kib >> 10,
        ),
        None => println!(
            "{name:<34}{:>10.3}{:>30.6}{:>21}   {rate:.0} GFLOP/s",
            ours.seconds,
            ours.loss,
            ours.peak_kib >> 10
        ),
    }
    Ok(())
}

/// Writes the model of a configuration, with initial weights. Returns the operations of a training step per
/// token of a text, or of a target with a source of its length.
fn write_model<M: TrainedModel>(config: &RunConfig, folder: &Path) -> anyhow::Result<f64> {
    let vocabulary = Vocabulary {
        size: config.data.vocab_size,
        document_end: None,
    };
    let wanted = M::of_run(config, vocabulary, config.train.steps);
    let model = M::initialised(&wanted, config.train.seed, &Device::default())?;
    save(&model, folder, &SaveOptions::default())?;
    let cost = model.step_cost();
    Ok(3.0 * (cost.flops_per_token + cost.flops_per_source_token))
}

/// A process that takes a step for each input line.
struct Side {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    seconds: Vec<f64>,
    loss: f64,
}

/// The result of a side.
struct Timed {
    /// Median time of the timed steps.
    seconds: f64,
    /// The last step's loss, in nats per token.
    loss: f64,
    /// Peak resident memory.
    peak_kib: u64,
}

impl Side {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {:?}", command.get_program()))?;
        let to = process.stdin.take().expect("invariant: piped above");
        let from = process.stdout.take().expect("invariant: piped above");
        Ok(Self {
            process,
            to,
            from: BufReader::new(from),
            seconds: Vec::new(),
            loss: f64::NAN,
        })
    }

    fn step(&mut self, counts: bool) -> anyhow::Result<()> {
        // The other side's idle threads spin for a while after their work.
        sleep(Duration::from_millis(250));
        writeln!(self.to, "step").context("a side has ended")?;
        let line = self.read()?;
        let (seconds, loss) = line.split_once(' ').context("expected SECONDS LOSS")?;
        self.loss = loss.parse()?;
        if counts {
            self.seconds.push(seconds.parse()?);
        }
        Ok(())
    }

    fn read(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("a side ended without an answer");
        }
        Ok(line.trim_end().to_owned())
    }

    fn end(self) -> anyhow::Result<Timed> {
        let Self {
            mut process,
            to,
            mut from,
            mut seconds,
            loss,
        } = self;
        drop(to);
        let mut line = String::new();
        from.read_line(&mut line)?;
        process.wait()?;
        seconds.sort_by(f64::total_cmp);
        Ok(Timed {
            seconds: seconds[seconds.len() / 2],
            loss,
            peak_kib: line.trim().parse().context("expected a peak in KiB")?,
        })
    }
}

fn work(model: &Path, size: &Size, set: &[String]) -> anyhow::Result<()> {
    let (train, device) = (size.config(set)?.train, Device::default());
    match model_kind(model)? {
        ModelKind::EncoderDecoder => {
            let model = EncoderDecoder::load(model, &device)?;
            take_steps(TrainingStep::new(model, &train, size.batch, size.seq))
        }
        _ => {
            let (model, _) = load(model, &device)?;
            take_steps(TrainingStep::new(model, &train, size.batch, size.seq))
        }
    }
}

/// Takes a step for each input line, and answers with its time and its loss.
fn take_steps<M: TrainedModel>(mut step: TrainingStep<M>) -> anyhow::Result<()> {
    // Unlike println, this returns an error instead of a panic if the other end is closed.
    let mut out = std::io::stdout();
    for line in std::io::stdin().lines() {
        line?;
        let start = Instant::now();
        // The same setting as in the trainer.
        let loss = iiet_kernels::on_workers(|| step.take());
        writeln!(out, "{} {loss}", start.elapsed().as_secs_f64())?;
    }
    writeln!(out, "{}", peak_kib()?)?;
    Ok(())
}

/// Peak resident memory of this process.
fn peak_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("needs Linux")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(number.context("no VmHWM in /proc/self/status")?.parse()?)
}
