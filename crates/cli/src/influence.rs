//! `iiet influence`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use burn::tensor::Device;
use comfy_table::{Table, presets};
use iiet_data::Rows;
use iiet_distill::{DistillError, Influence, calibrate, calibrate_pairs};
use iiet_files::write_file;
use iiet_model::{
    EncoderDecoder, Inference, LanguageModel, ModelKind, Precision, SequenceInference, Side,
    model_kind,
};
use iiet_plots::draw_heat_map;
use indicatif::ProgressBar;

use crate::backend::DeviceArgument;
use crate::calibration::rows;
use crate::corrections::CorrectionArguments;
use crate::output;
use crate::print::outln;
use crate::sides::SideArgument;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model directory, that of a run, a name on the Hugging Face hub, or a GGUF file.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// What to calibrate on: a prepared corpus, such as data/cargo-deps-.., whose training tokens
    /// are taken, or a token file. A model that was trained on a task needs none: new examples of the task
    /// are taken.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Tokens to measure on, in windows of the model's context spread evenly over the text.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    tokens: u64,
    /// Windows at a time; the result does not depend on it.
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: usize,
    /// A JSON file to write; the heat map is drawn beside it, with the ending .svg.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    side: SideArgument,
    #[command(flatten)]
    corrections: CorrectionArguments,
    #[command(flatten)]
    device: DeviceArgument,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.batch > 0, "--batch is 0; allowed: 1 and above");
    ensure!(arguments.tokens > 0, "--tokens is 0; allowed: 1 and above");
    if let Some(out) = &arguments.out {
        ensure!(
            out.extension().is_none_or(|ending| ending != "svg"),
            "--out {}: allowed is a file for JSON, such as influence.json; the heat map is drawn beside it",
            out.display()
        );
        output::prepare(out)?;
        output::prepare(&out.with_extension("svg"))?;
    }
    let influence = match model_kind(&arguments.model)? {
        ModelKind::EncoderDecoder => of_sequences(arguments)?,
        _ => of_texts(arguments)?,
    };
    let svg = match &arguments.out {
        Some(out) => Some((out, write(&influence, out)?)),
        None => None,
    };
    say(&influence)?;
    match svg {
        Some((out, svg)) => outln!("{}, {}", out.display(), svg.display()),
        None => Ok(()),
    }
}

/// The influences of an encoder-decoder's corrections on one side.
fn of_sequences(arguments: &Arguments) -> anyhow::Result<Influence> {
    let model = &arguments.model;
    arguments.corrections.refuse(model)?;
    let config = EncoderDecoder::load_config(model)?;
    let side = arguments.side.of(&config)?;
    let chosen = arguments.device.open()?;
    if chosen.on_host {
        let columns = arguments.batch.saturating_mul(config.seq_len);
        let inference = SequenceInference {
            precision: Precision::F32,
            source: columns,
            target: columns,
        };
        let work = format!("measuring on {} pairs at a time", arguments.batch);
        let estimate = inference.memory(work, &config, &chosen.device)?;
        let estimate = estimate.stored_in(model)?;
        estimate.check("lower --batch")?;
    }
    let (rows, place) = rows(&arguments.model, arguments.data.as_deref(), "--data")?;
    let model = EncoderDecoder::load(model, &chosen.device)?;
    let Arguments { tokens, batch, .. } = *arguments;
    measure_pairs(&model, side, &rows, tokens, batch, &chosen.device).context(place)
}

/// The influences of a language model's corrections.
fn of_texts(arguments: &Arguments) -> anyhow::Result<Influence> {
    arguments.side.refuse(&arguments.model)?;
    let chosen = arguments.device.open()?;
    let device = chosen.device;
    if chosen.on_host {
        let config = iiet_model::load_config(&arguments.model)?;
        let config = arguments.corrections.configure(config)?;
        let inference = Inference {
            precision: Precision::F32,
            tokens: arguments.batch.saturating_mul(config.seq_len),
            logits: 0,
            cached: 0,
            cache: Precision::F32,
        };
        let work = format!("measuring on {} windows at a time", arguments.batch);
        let estimate = inference.memory(work, &config, &device)?;
        let estimate = estimate.stored_in(&arguments.model)?;
        estimate.check("lower --batch")?;
    }
    let (model, _) = iiet_model::load(&arguments.model, &device)?;
    let model = arguments.corrections.apply(model)?;

    let (rows, place) = rows(&arguments.model, arguments.data.as_deref(), "--data")?;
    let Arguments { tokens, batch, .. } = *arguments;
    measure(&model, &[(rows, 1.0)], tokens, batch, &device).context(place)
}

/// The table of a model on some sources, with a bar.
pub(crate) fn measure(
    model: &LanguageModel,
    sources: &[(Rows, f64)],
    tokens: u64,
    batch: usize,
    device: &Device,
) -> Result<Influence, DistillError> {
    let bar = ProgressBar::no_length();
    let influence = calibrate(model, sources, tokens, batch, device, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    influence
}

/// The table of one side of a model on some pairs, with a bar.
pub(crate) fn measure_pairs(
    model: &EncoderDecoder,
    side: Side,
    pairs: &Rows,
    tokens: u64,
    batch: usize,
    device: &Device,
) -> Result<Influence, DistillError> {
    let bar = ProgressBar::no_length();
    let progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let influence = calibrate_pairs(model, side, pairs, tokens, batch, device, progress);
    bar.finish_and_clear();
    influence
}

/// Prints the table.
pub(crate) fn say(influence: &Influence) -> anyhow::Result<()> {
    outln!("{}", table(influence))?;
    outln!(
        "1 - cos between the layer's outputs before and after each correction, mean over {} tokens \
         in {} sequences, with standard errors",
        influence.tokens,
        influence.sequences
    )
}

/// Writes the table as JSON, and beside it the heat map, whose path is returned.
pub(crate) fn write(influence: &Influence, path: &Path) -> anyhow::Result<PathBuf> {
    let json = serde_json::to_string_pretty(influence)?;
    write_file(path, |file| writeln!(file, "{json}"))
        .with_context(|| format!("writing {}", path.display()))?;
    let svg = path.with_extension("svg");
    draw_heat_map(&svg, influence)?;
    Ok(svg)
}

fn table(influence: &Influence) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let corrections = influence.influence.iter().map(Vec::len).max().unwrap_or(0);
    let heading = (1..=corrections).map(|i| format!("correction {i}"));
    table.set_header(std::iter::once("layer".to_owned()).chain(heading));
    let rows = influence.influence.iter().zip(&influence.standard_error);
    for (n, (values, errors)) in rows.enumerate() {
        let cells = values.iter().zip(errors).map(|(value, error)| match error {
            Some(error) => format!("{value:.3e} ± {error:.0e}"),
            None => format!("{value:.3e}"),
        });
        table.add_row(std::iter::once((n + 1).to_string()).chain(cells));
    }
    table
}
