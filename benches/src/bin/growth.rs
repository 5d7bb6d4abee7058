//! Growth of the time of a training step with the sequence length and with the number of corrections.
//!
//!     cargo xtask bench growth -- [--config small] [--tokens 2048] [--steps 5] [--out docs/growth.svg]
//!
//! Longer sequences keep the number of tokens per batch; corrections are those of IIET. The table also
//! contains the model's FLOPs: if time grows in proportion, their quotient is constant.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::tensor::Device;
use clap::Parser;
use iiet_benches::{TrainingStep, preset};
use iiet_model::{Cost, LanguageModel, Precision};
use iiet_train::{RunConfig, matrix_product_peak};
use plotters::prelude::*;

const SEQUENCES: [usize; 5] = [128, 256, 512, 1024, 2048];
const CORRECTIONS: [usize; 6] = [0, 1, 2, 3, 5, 8];

#[derive(Parser)]
struct Arguments {
    /// A preset of configs/.
    #[arg(long, default_value = "small")]
    config: String,
    /// Tokens per batch, a multiple of the longest sequence.
    #[arg(long, default_value_t = 2048)]
    tokens: usize,
    /// Number of timed steps, of which the median is taken.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// An SVG of both curves.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One measurement.
struct Point {
    /// Sequence length, or number of corrections.
    at: usize,
    /// Microseconds per token.
    time: f64,
    /// MFLOPs per token, forward and backward.
    flops: f64,
    /// The share of attention's scores and weighted values.
    attention: f64,
}

// As in the binary.
#[global_allocator]
static ALLOCATOR: iiet_train::HugePages = iiet_train::HugePages;

fn main() -> anyhow::Result<()> {
    iiet_train::keep_freed_memory();
    let arguments = Arguments::parse();
    let longest = SEQUENCES[SEQUENCES.len() - 1];
    anyhow::ensure!(
        arguments.tokens > 0 && arguments.tokens.is_multiple_of(longest) && arguments.steps > 0,
        "--tokens must be a multiple of {longest}, --steps at least 1"
    );
    let peak = matrix_product_peak(&Device::default(), Precision::F32).unwrap_or(f64::NAN);
    println!("matrix products reach {:.0} GFLOP/s", peak / 1e9);
    let by_sequence = SEQUENCES
        .iter()
        .map(|&seq| measure(&arguments, seq, 3, seq))
        .collect::<anyhow::Result<Vec<_>>>()?;
    print("seq, r = 3", &by_sequence, peak);
    let by_corrections = CORRECTIONS
        .iter()
        .map(|&r| measure(&arguments, 256, r, r))
        .collect::<anyhow::Result<Vec<_>>>()?;
    print("r, seq 256", &by_corrections, peak);
    if let Some(path) = &arguments.out {
        draw(path, &by_sequence, &by_corrections)
            .map_err(|error| anyhow::anyhow!("cannot draw {}: {error}", path.display()))?;
    }
    Ok(())
}

fn measure(arguments: &Arguments, seq: usize, r: usize, at: usize) -> anyhow::Result<Point> {
    let path = preset(&arguments.config);
    let set = [
        "model.solver=iterative_implicit_euler".to_owned(),
        format!("model.solver.iterations={r}"),
        format!("model.seq_len={seq}"),
    ];
    let config = RunConfig::load(&path, &set)?;
    let model = config.model.config(config.data.vocab_size, None);
    let model = LanguageModel::init(&model, config.train.seed, &Device::default())?;
    let cost = Cost::of(&model);
    let flops = 3.0 * cost.forward_flops_per_token;
    let attention =
        cost.total_evaluations() as f64 * (6 * config.model.d_model) as f64 * (seq as f64 + 1.0);
    let mut step = TrainingStep::new(model, &config.train, arguments.tokens / seq, seq);
    let mut seconds = Vec::new();
    for run in 0..=arguments.steps {
        let start = Instant::now();
        step.take();
        if run > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Point {
        at,
        time: seconds[seconds.len() / 2] / arguments.tokens as f64 * 1e6,
        flops: flops / 1e6,
        attention: attention / flops,
    })
}

fn print(name: &str, points: &[Point], peak: f64) {
    println!("| {name} | us per token | MFLOPs per token | attention's share | share of peak |");
    println!("| --- | --- | --- | --- | --- |");
    for point in points {
        println!(
            "| {} | {:.1} | {:.1} | {:.1} % | {:.0} % |",
            point.at,
            point.time,
            point.flops,
            100.0 * point.attention,
            100.0 * point.flops / point.time * 1e12 / peak
        );
    }
    println!();
}

fn draw(
    path: &Path,
    by_sequence: &[Point],
    by_corrections: &[Point],
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (960, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(480);
    for (part, points, label) in [
        (left, by_sequence, "tokens per sequence, r = 3"),
        (right, by_corrections, "corrections r, 256 tokens"),
    ] {
        let end = points.iter().map(|p| p.at).max().unwrap_or(1) as f64;
        let top = points.iter().map(|p| p.time).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(&part)
            .caption("Microseconds per token", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(50)
            .build_cartesian_2d(0.0..end * 1.02, 0.0..top * 1.1)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(label)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        // The first time scaled by the growth of FLOPs.
        let scale = points[0].time / points[0].flops;
        let flops = points.iter().map(|p| (p.at as f64, p.flops * scale));
        let grey = RGBColor(150, 150, 150);
        chart
            .draw_series(LineSeries::new(flops, grey.stroke_width(1)))?
            .label("proportional to FLOPs")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], grey));
        let blue = RGBColor(40, 90, 160);
        let times = points.iter().map(|p| (p.at as f64, p.time));
        chart
            .draw_series(LineSeries::new(times, blue.stroke_width(2)).point_size(3))?
            .label("measured")
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], blue));
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(grey)
            .draw()?;
    }
    area.present()?;
    Ok(())
}
