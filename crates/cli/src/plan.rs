//! `iiet plan`

use std::path::PathBuf;

use anyhow::{Context, ensure};
use iiet_distill::objective_of;
use iiet_train::{Machines, Parallel, Phase, Plan, RunConfig, Shard, Speed, Workload};

use crate::backend::{self, DeviceArgument};
use crate::print::{errln, outln};

const GIB: f64 = (1u64 << 30) as f64;

/// What a reader of the figures has to know.
const ASSUMED: &str = "\
Every rank has a copy of weights and gradients on each of its devices, and trains on as many of the step's
micro-batches, train.accumulation, as every other. Then the ranks exchange gradients, each sending the bytes of a ring;
with train.shard = \"optimizer\" each keeps a part of the moments, and updated weights are gathered. The exchange
overlaps the last backward pass with train.recompute = \"layer\", and otherwise nothing.

Not counted: the latency of messages, the sum over the devices of one rank, reading of data, validation, checkpoints,
and with --peak the update. Memory is the peak of a process with one device on a host; on a GPU buckets, program
and heap are in host memory. Pairs of source and target are assumed to fill their micro-batch.";

#[derive(clap::Args)]
#[command(after_help = ASSUMED)]
pub(crate) struct Arguments {
    /// The configuration; configs/ has presets.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a key of the configuration, such as train.shard=optimizer; repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Processes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count)]
    ranks: usize,
    /// Devices of each process.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = count)]
    devices_per_rank: usize,
    /// What each rank sends to others, in 10^9 bytes per second; required if there are several.
    #[arg(long, value_name = "GB/s", value_parser = positive)]
    bandwidth: Option<f64>,
    /// What a device computes in training, in 10^12 operations per second: its peak times the utilisation that `iiet
    /// train` prints (without recomputation, whose operations are counted here and not there). Without it, steps of
    /// the configured micro-batch are timed on --device.
    #[arg(long, value_name = "TFLOP/s", value_parser = positive)]
    peak: Option<f64>,
    /// The memory of a device, to say whether a run fits, and if not, what would.
    #[arg(long, value_name = "GiB", value_parser = positive)]
    memory: Option<f64>,
    /// Print JSON: bytes, seconds, and the efficiency as a share.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgument,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = RunConfig::load(&arguments.config, &arguments.set)?;
    let parallel = Parallel {
        ranks: arguments.ranks,
        devices_per_rank: arguments.devices_per_rank,
    };
    let bandwidth = arguments.bandwidth.map(|gigabytes| gigabytes * 1e9);
    ensure!(
        bandwidth.is_some() || parallel.ranks == 1,
        "--ranks {} needs --bandwidth GB/s: what each rank can send to others",
        parallel.ranks
    );
    // Before anything is measured.
    parallel.micro_batches(&config.train)?;
    let chosen = match arguments.peak {
        Some(_) => backend::for_files()?,
        None => arguments.device.open()?,
    };
    let objective = objective_of(&config, &chosen.device)?;
    let workload = Workload::new(&config, &*objective, &chosen.device)?;
    let speed = match arguments.peak {
        Some(peak) => workload.speed_at(peak * 1e12),
        None => {
            if chosen.on_host {
                let measurable = workload.check_measurable();
                measurable
                    .context("give --peak TFLOP/s: the model is too large to be timed here")?;
            }
            errln!("timing steps on {}", chosen.name);
            workload.measure()?
        }
    };
    let machines = Machines {
        parallel,
        // A single rank sends nothing.
        bandwidth: bandwidth.unwrap_or(f64::INFINITY),
        memory: arguments.memory.map(|gibibytes| (gibibytes * GIB) as u64),
    };
    let plan = workload.plan(&machines, speed)?;
    match arguments.json {
        true => outln!("{}", serde_json::to_string_pretty(&plan)?),
        false => outln!("{}", lines(&plan, &config).join("\n")),
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_048_576) => Ok(count),
        _ => Err("allowed: 1 to 2^20".to_owned()),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("allowed: finite and above 0".to_owned()),
    }
}

fn lines(plan: &Plan, config: &RunConfig) -> Vec<String> {
    let row = |name: &str, value: String| format!("{name:<26} {value}");
    let Parallel {
        ranks,
        devices_per_rank,
    } = plan.parallel;
    let mut lines = vec![
        row("parameters", plan.parameters.to_string()),
        row(
            "devices",
            format!("{ranks} ranks with {devices_per_rank} each"),
        ),
        row(
            "step",
            format!(
                "{} tokens: {} micro-batches, {} on each device",
                plan.tokens_per_step, config.train.accumulation, plan.micro_batches
            ),
        ),
        row("evaluations per token", plan.evaluations.to_string()),
        "\nmemory of a device".to_owned(),
    ];
    lines.extend(
        memory(plan, config)
            .into_iter()
            .map(|(name, value)| row(&name, value)),
    );
    if ranks > 1 {
        lines.push("\nsent by each rank in a step".to_owned());
        let precision = config.train.transfer.bytes() * 8;
        for (name, bytes) in [
            (
                format!("  gradients, {precision} bits"),
                plan.sent.gradients,
            ),
            ("  updated weights".to_owned(), plan.sent.weights),
        ] {
            lines.push(row(&name, size(bytes)));
        }
    }
    lines.push("\ntime of a step".to_owned());
    lines.extend(
        times(plan)
            .into_iter()
            .map(|(name, value)| row(name, value)),
    );
    lines.extend(misfit(plan));
    lines
}

fn memory(plan: &Plan, config: &RunConfig) -> Vec<(String, String)> {
    let moments = match (config.train.shard, plan.parallel.ranks) {
        (Shard::Optimizer, 2..) => format!("  moments, one of {} parts", plan.parallel.ranks),
        _ => "  moments".to_owned(),
    };
    let kinds = plan.memory.kinds().into_iter();
    let mut rows: Vec<(String, String)> = kinds
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(name, bytes)| match name {
            "moments" => (moments.clone(), size(bytes)),
            _ => (format!("  {name}"), size(bytes)),
        })
        .collect();
    if plan.memory.exclusive > 0 {
        let exclusive = format!("-{}", size(plan.memory.exclusive));
        rows.push(("  never there at once".to_owned(), exclusive));
    }
    let peak = |phase: Phase| {
        let name = format!("  in the {}", phase.name);
        (name, size(phase.bytes()))
    };
    match plan.parallel.ranks {
        1 => rows.push(("  peak".to_owned(), size(plan.memory.total()))),
        _ => rows.extend(plan.memory.phases().map(peak)),
    }
    rows
}

fn times(plan: &Plan) -> Vec<(&'static str, String)> {
    let seconds = |seconds: f64| format!("{seconds:.4} s");
    let Speed { micro_batch, .. } = plan.speed;
    let rate = plan.micro_batch_flops / micro_batch / 1e12;
    let time = &plan.time;
    let exchanged = format!(
        "{}, of which {} behind the backward pass",
        seconds(time.exchanged),
        seconds(time.hidden)
    );
    vec![
        (
            "  micro-batch",
            format!("{} at {rate:.3} TFLOP/s", seconds(micro_batch)),
        ),
        ("  computed", seconds(time.computed)),
        ("  updated", seconds(time.updated)),
        ("  exchanged", exchanged),
        ("  step", seconds(time.step)),
        ("  on one device", seconds(plan.one_device)),
        ("efficiency", format!("{:.1} %", 100.0 * plan.efficiency)),
        (
            "tokens per second",
            format!("{:.0}", plan.tokens_per_second),
        ),
    ]
}

/// Whether it fits, and if not, why not and what would.
fn misfit(plan: &Plan) -> Vec<String> {
    let Some(of_device) = plan.memory_of_device else {
        return Vec::new();
    };
    let (needed, there) = (size(plan.memory_peak), size(of_device));
    if plan.memory_peak <= of_device {
        return vec![format!("\nfits: {needed} of {there} a device")];
    }
    let mut kinds = plan.memory.peak().kinds;
    kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let largest = kinds[..2]
        .iter()
        .map(|(name, bytes)| format!("{name} {}", size(*bytes)));
    let largest: Vec<String> = largest.collect();
    let mut lines = vec![format!(
        "\ndoes not fit: {needed} of {there} a device; the most are {}",
        largest.join(" and ")
    )];
    lines.extend(plan.remedies.iter().map(|remedy| {
        let fits = if remedy.bytes <= of_device {
            "fits"
        } else {
            "does not fit"
        };
        format!(
            "  --set {}: {}, {fits}",
            remedy.set.replace(", ", " --set "),
            size(remedy.bytes)
        )
    }));
    lines
}

fn size(bytes: u64) -> String {
    let gibibytes = bytes as f64 / GIB;
    match gibibytes < 1.0 {
        true => format!("{:.1} MiB", 1024.0 * gibibytes),
        false => format!("{gibibytes:.1} GiB"),
    }
}
