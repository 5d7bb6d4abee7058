//! `iiet logits`, of a language model, or with `--source-ids` of a sequence-to-sequence model.

mod sequence;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use burn::tensor::{Int, Tensor, TensorData};
use iiet_files::write_file;
use iiet_model::{CorrectionCount, Inference, ModelKind, model_kind};
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::backend::DeviceArgument;
use crate::corrections::{self, CorrectionArguments};
use crate::output;
use crate::precision::PrecisionArgument;
use crate::print::outln;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model directory, that of a run, a name on the Hugging Face hub, or a GGUF file.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Token ids, sequences of equal length separated by semicolons: "1,2,3;4,5,6". Targets of a
    /// sequence-to-sequence model may have any lengths: "6,7;8".
    #[arg(long, value_name = "IDS")]
    ids: String,
    /// For a sequence-to-sequence model: the source of each target, of any lengths: "1,2,3;4,5".
    #[arg(long, value_name = "IDS")]
    source_ids: Option<String>,
    /// The file to write: logits [batch, seq, vocab] in f32 and input_ids; of a sequence-to-sequence model
    /// logits [batch, longest target, vocab], and ids and masks of sources and targets.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    corrections: CorrectionArguments,
    #[command(flatten)]
    precision: PrecisionArgument,
    #[command(flatten)]
    device: DeviceArgument,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    output::prepare(&arguments.out)?;
    if model_kind(&arguments.model)? == ModelKind::EncoderDecoder {
        return sequence::run(arguments);
    }
    ensure!(
        arguments.source_ids.is_none(),
        "--source-ids: {} is a language model, which has no source; give --ids alone",
        arguments.model.display()
    );
    let config = iiet_model::load_config(&arguments.model)?;
    let config = arguments.corrections.configure(config)?;
    let rows = parse_ids("--ids", &arguments.ids, config.vocab_size)?;
    check_equal_lengths(&rows)?;
    let shape = [rows.len(), rows[0].len()];
    let chosen = arguments.device.open()?;
    let precision = arguments.precision.on(&chosen)?;
    let device = chosen.device;
    if chosen.on_host {
        let tokens = shape[0] * shape[1];
        let inference = Inference {
            precision,
            tokens,
            logits: tokens,
            cached: 0,
            cache: precision,
        };
        let work = format!("computing the logits of {tokens} tokens");
        let estimate = inference.memory(work, &config, &device)?;
        let estimate = estimate.stored_in(&arguments.model)?;
        estimate.check("give fewer --ids, or --precision bf16")?;
    }
    let (model, _) = iiet_model::load_in(precision, &arguments.model, &device)?;
    let model = arguments.corrections.apply(model)?;

    let ids: Vec<i64> = rows.concat();
    let data = TensorData::new::<i64, _>(ids.clone(), shape);
    let ids_tensor = Tensor::<2, Int>::from_data(data, &device);
    let mut pass = model.pass(&ids_tensor);
    let logits = model.logits(model.hidden_in(ids_tensor, &mut pass));
    let columns = vec![0..shape[1]; shape[0]];
    let count = CorrectionCount::of(&pass.corrections, &columns, config.n_layers);
    corrections::report(count);
    let values = logits
        .try_into_vec_as::<f32>()
        .context("reading the logits back")?;

    let logits_shape = [shape[0], shape[1], config.vocab_size];
    write(
        &arguments.out,
        (&values, logits_shape),
        &[("input_ids", &ids, shape)],
    )
}

/// Writes logits, and matrices of integers with their names, and says where.
fn write(
    out: &Path,
    (logits, shape): (&[f32], [usize; 3]),
    integers: &[(&str, &[i64], [usize; 2])],
) -> anyhow::Result<()> {
    let logits: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = |entries: &[i64]| entries.iter().flat_map(|x| x.to_le_bytes()).collect();
    let integers: Vec<(&str, Vec<u8>, [usize; 2])> = integers
        .iter()
        .map(|(name, entries, shape)| (*name, bytes(entries), *shape))
        .collect();
    let mut views = vec![(
        "logits",
        TensorView::new(Dtype::F32, shape.to_vec(), &logits)?,
    )];
    for (name, bytes, shape) in &integers {
        views.push((*name, TensorView::new(Dtype::I64, shape.to_vec(), bytes)?));
    }
    let file = serialize(views, None)?;
    write_file(out, |out| out.write_all(&file))
        .with_context(|| format!("writing {}", out.display()))?;
    let [batch, seq, vocab] = shape;
    outln!("{}: logits [{batch}, {seq}, {vocab}]", out.display())
}

/// Sequences of positive length with ids below `vocab_size`; `argument` is what they were given as.
fn parse_ids(argument: &str, text: &str, vocab_size: usize) -> anyhow::Result<Vec<Vec<i64>>> {
    let row = |row: &str| {
        row.split(',')
            .map(|word| match word.trim().parse::<i64>() {
                Ok(id) if (0..vocab_size as i64).contains(&id) => Ok(id),
                Ok(id) => bail!("{argument}: {id}; allowed: 0 to {}", vocab_size - 1),
                Err(_) => bail!("{argument}: {word:?} is no token id; expected \"1,2,3;4,5,6\""),
            })
            .collect::<anyhow::Result<_>>()
    };
    text.split(';').map(row).collect()
}

fn check_equal_lengths(rows: &[Vec<i64>]) -> anyhow::Result<()> {
    let first = rows.first().map_or(0, Vec::len);
    for (number, row) in rows.iter().enumerate() {
        ensure!(
            row.len() == first,
            "--ids: sequence {} has {} tokens, the first has {first}; all must be of one length",
            number + 1,
            row.len(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_batch() {
        assert_eq!(
            parse_ids("--ids", "1,2; 3 ,4", 5).unwrap(),
            [[1, 2], [3, 4]]
        );
    }

    #[test]
    fn refuses_what_is_no_batch() {
        for (text, expected) in [
            ("", "\"\" is no token id"),
            ("1,,2", "\"\" is no token id"),
            ("1,x", "\"x\" is no token id"),
            ("5", "--ids: 5; allowed: 0 to 4"),
            ("-1", "--ids: -1; allowed: 0 to 4"),
            ("1,2;3", "sequence 2 has 1 tokens, the first has 2"),
        ] {
            let rows = parse_ids("--ids", text, 5);
            let error = rows.and_then(|rows| check_equal_lengths(&rows));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
