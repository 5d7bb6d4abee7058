//! `iiet influence`

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use burn::tensor::{Int, Tensor, TensorData};
use comfy_table::{Table, presets};
use iiet_data::{Batches, TokenFile, Tokenizer, evaluation_windows};
use iiet_distill::{Influence, InfluenceMeter, draw_heat_map};
use indicatif::ProgressBar;

use crate::backend::DeviceArgument;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model directory.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// What to calibrate on: a prepared corpus, such as data/cargo-deps-.., whose training tokens
    /// are taken, or a token file.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
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
    device: DeviceArgument,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let device = arguments.device.open()?.device;
    let (model, _) = iiet_model::load(&arguments.model, &device)?;
    let mut meter = InfluenceMeter::new(&model)?;
    ensure!(arguments.batch > 0, "--batch is 0; allowed: 1 and above");

    let file = match arguments.data.is_dir() {
        true => arguments.data.join("train.tokens"),
        false => arguments.data.clone(),
    };
    let tokens = TokenFile::open(&file)?;
    let tokenizer = Tokenizer::open(&arguments.model.join("tokenizer.json"))?;
    ensure!(
        tokenizer.vocab_hash() == tokens.vocab_hash(),
        "{}: written with another tokenizer than that of {}; prepare the corpus with data.tokenizer = {:?}",
        file.display(),
        arguments.model.display(),
        arguments.model.join("tokenizer.json")
    );

    let seq = model.config().seq_len;
    let batches = Batches::new(tokens, arguments.batch, seq, 0)?;
    // The last window of a file may be short; influence takes whole ones.
    let whole = (batches.tokens().len() - 1) / seq as u64;
    ensure!(
        whole > 0,
        "{}: {} tokens, fewer than one window of the model's context of {seq}",
        file.display(),
        batches.tokens().len()
    );
    let windows = evaluation_windows(whole, seq, arguments.tokens);
    let bar = ProgressBar::new(windows.len() as u64);
    for windows in windows.chunks(arguments.batch) {
        let batch = batches.of_windows(windows)?;
        let ids: Vec<i64> = batch.inputs.iter().map(|id| i64::from(*id)).collect();
        let data = TensorData::new::<i64, _>(ids, [batch.batch, batch.seq]);
        meter.add(&model, Tensor::<2, Int>::from_data(data, &device));
        bar.inc(windows.len() as u64);
    }
    bar.finish_and_clear();

    let influence = meter.finish();
    println!("{}", table(&influence));
    println!(
        "1 - cos between the layer's outputs before and after each correction, mean over {} tokens \
         in {} sequences, with standard errors",
        influence.tokens, influence.sequences
    );
    if let Some(out) = &arguments.out {
        let json = serde_json::to_string_pretty(&influence)?;
        fs::write(out, json + "\n").with_context(|| format!("writing {}", out.display()))?;
        let svg = out.with_extension("svg");
        draw_heat_map(&svg, &influence)?;
        println!("{}, {}", out.display(), svg.display());
    }
    Ok(())
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
