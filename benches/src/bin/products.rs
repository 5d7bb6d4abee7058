//! Times the matrix products of a preset's layers, and PyTorch's in alternation.
//!
//!     cargo xtask bench products -- --python venv/bin/python [--size 55m] [--tokens 1024] [--rounds 9]
//!
//! For every projection of a layer and for the output projection: `y = x W` and the pair `dx = dy W^T`, `dW = x^T
//! dy`, in f32 and bf16. It prints medians in GFLOP/s. `IIET_PRODUCTS` selects this project's instructions,
//! `RAYON_NUM_THREADS` the threads of both sides.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use burn::tensor::{Device, Distribution, Tensor};
use clap::Parser;
use iiet_benches::{folder, preset};
use iiet_eval::report::Machine;
use iiet_kernels::{Precision, Products, backward_from, linear};
use iiet_train::RunConfig;

#[derive(Parser)]
struct Arguments {
    /// A Python with torch; without it only this project is timed.
    #[arg(long)]
    python: Option<PathBuf>,
    /// A preset of configs/.
    #[arg(long, default_value = "55m")]
    size: String,
    /// Rows of x.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Timed rounds of each side.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// A projection, `[tokens, d_in] [d_in, d_out]`.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    tokens: usize,
    d_in: usize,
    d_out: usize,
}

/// Seconds of work between two readings of the clock.
const AT_LEAST: f64 = 0.02;

#[derive(Clone, Copy)]
enum Pass {
    Forward,
    Backward,
}

// As in the binary.
#[global_allocator]
static ALLOCATOR: iiet_train::HugePages = iiet_train::HugePages;

fn main() -> anyhow::Result<()> {
    // The same setting as in the trainer.
    iiet_train::keep_freed_memory();
    let arguments = Arguments::parse();
    let machine = Machine::this();
    let processor = machine.processor.as_deref().unwrap_or(machine.architecture);
    let mut header = format!(
        "{processor}, {} threads; iiet {}, {} products",
        machine.threads,
        env!("CARGO_PKG_VERSION"),
        Products::in_use()
    );
    let mut torch = match &arguments.python {
        Some(python) => Some(Torch::start(python, machine.threads)?),
        None => None,
    };
    if let Some(torch) = &torch {
        header = format!("{header}; {}", torch.versions);
    }
    println!(
        "{header}\nGFLOP/s{:>59}{:>8}{:>8}",
        "iiet", "torch", "ratio"
    );
    for precision in [Precision::F32, Precision::Bf16] {
        for shape in shapes(&arguments)? {
            for pass in [Pass::Forward, Pass::Backward] {
                compare(shape, pass, precision, arguments.rounds, torch.as_mut())?;
            }
        }
    }
    Ok(())
}

fn shapes(arguments: &Arguments) -> anyhow::Result<Vec<Shape>> {
    let run = RunConfig::load(&preset(&arguments.size), &[])?;
    let vocab = run.data.vocab_size;
    let model = run.model.config(vocab, None);
    let (d, f) = (model.d_model, model.block.d_ff);
    let projections = [
        ("query", d, d),
        ("gate", d, f),
        ("down", f, d),
        ("vocabulary", d, vocab),
    ];
    let tokens = arguments.tokens as usize;
    let of = |(name, d_in, d_out)| Shape {
        name,
        tokens,
        d_in,
        d_out,
    };
    Ok(projections.map(of).into())
}

fn compare(
    shape: Shape,
    pass: Pass,
    precision: Precision,
    rounds: u32,
    torch: Option<&mut Torch>,
) -> anyhow::Result<()> {
    let Shape {
        name,
        tokens,
        d_in,
        d_out,
    } = shape;
    let ours = Ours::new(shape, precision);
    let (kind, products) = match pass {
        Pass::Forward => ("forward", 1.0),
        Pass::Backward => ("backward", 2.0),
    };
    let flops = products * 2.0 * (tokens * d_in * d_out) as f64;
    // The first measurement warms up, and says how often to repeat the product.
    let once = ours.seconds(pass, 1).max(1e-6);
    let times = (AT_LEAST / once).clamp(1.0, 1e4) as usize;
    let request = format!("{tokens} {d_in} {d_out} {kind} {precision} {times}");
    let (mut seconds, mut of_torch, mut torch) = (Vec::new(), Vec::new(), torch);
    for round in 0..=rounds {
        let mine = ours.seconds(pass, times);
        let theirs = torch
            .as_mut()
            .map(|torch| torch.seconds(&request))
            .transpose()?;
        if round > 0 {
            seconds.push(mine);
            of_torch.extend(theirs);
        }
    }
    let rate = flops / median(seconds) / 1e9;
    let row = format!("{precision:<5} {name:<10} {tokens:>6} {d_in:>6} {d_out:>6}  {kind:<8}");
    match torch {
        Some(_) => {
            let theirs = flops / median(of_torch) / 1e9;
            println!("{row}{rate:>20.0}{theirs:>8.0}{:>7.2}x", rate / theirs);
        }
        None => println!("{row}{rate:>20.0}"),
    }
    Ok(())
}

/// This project's operands of a shape.
struct Ours {
    x: Tensor<2>,
    w: Tensor<2>,
    dy: Tensor<2>,
}

impl Ours {
    fn new(
        Shape {
            tokens,
            d_in,
            d_out,
            ..
        }: Shape,
        precision: Precision,
    ) -> Self {
        let random = |shape: [usize; 2]| {
            let range = Distribution::Uniform(-0.5, 0.5);
            Tensor::<2>::random(shape, range, &Device::default()).cast(precision.dtype())
        };
        Self {
            x: random([tokens, d_in]),
            w: random([d_in, d_out]),
            dy: random([tokens, d_out]),
        }
    }

    /// The mean time of a pass, without the other one.
    fn seconds(&self, pass: Pass, times: usize) -> f64 {
        let tracked = |x: &Tensor<2>| x.clone().autodiff().require_grad();
        // The setting of the trainer and of the decoder.
        iiet_kernels::on_workers(|| {
            let mut seconds = 0.0;
            for _ in 0..times {
                // The clock reads tens of nanoseconds; a product takes tens of microseconds or more.
                match pass {
                    Pass::Forward => {
                        let start = Instant::now();
                        black_box(linear(self.x.clone(), self.w.clone()));
                        seconds += start.elapsed().as_secs_f64();
                    }
                    Pass::Backward => {
                        let y = linear(tracked(&self.x), tracked(&self.w));
                        let start = Instant::now();
                        black_box(backward_from([(y, self.dy.clone())]));
                        seconds += start.elapsed().as_secs_f64();
                    }
                }
            }
            seconds / times as f64
        })
    }
}

/// PyTorch's side: a process that answers each line with the seconds of a product.
struct Torch {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    versions: String,
}

impl Torch {
    fn start(python: &Path, threads: usize) -> anyhow::Result<Self> {
        let script = folder().join("peers/torch_products.py");
        let mut command = Command::new(python);
        command
            .arg(&script)
            .arg("--versions")
            .stderr(Stdio::inherit());
        let output = command
            .output()
            .with_context(|| format!("cannot run {}", python.display()))?;
        if !output.status.success() {
            bail!("{}: torch_products.py --versions failed", python.display());
        }
        let versions = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let mut process = Command::new(python)
            .arg(&script)
            .args(["--threads", &threads.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let to = process.stdin.take().expect("invariant: piped above");
        let from = BufReader::new(process.stdout.take().expect("invariant: piped above"));
        Ok(Self {
            process,
            to,
            from,
            versions,
        })
    }

    fn seconds(&mut self, request: &str) -> anyhow::Result<f64> {
        // The other side's idle threads spin for a while after their work.
        sleep(Duration::from_millis(50));
        writeln!(self.to, "{request}").context("PyTorch's side has ended")?;
        let mut line = String::new();
        if self.from.read_line(&mut line)? == 0 {
            bail!("PyTorch's side ended without an answer");
        }
        sleep(Duration::from_millis(50));
        line.trim().parse().context("expected seconds")
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // It has nothing to lose, and waiting for its end takes a second.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
