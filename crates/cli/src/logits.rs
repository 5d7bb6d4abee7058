//! `iiet logits`

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use burn::tensor::{Int, Tensor, TensorData};
use iiet_files::write_file;
use iiet_model::{CorrectionCount, Inference};
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::backend::DeviceArgument;
use crate::corrections::{self, CorrectionArguments};
use crate::output;
use crate::precision::PrecisionArgument;
use crate::print::outln;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A model directory, that of a run, or a name on the Hugging Face hub.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: PathBuf,
    /// Token ids, sequences of equal length separated by semicolons: "1,2,3;4,5,6".
    #[arg(long, value_name = "IDS")]
    ids: String,
    /// The file to write: logits [batch, seq, vocab] in f32 and input_ids.
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
    let config = iiet_model::load_config(&arguments.model)?;
    let config = arguments.corrections.configure(config)?;
    let rows = parse_ids(&arguments.ids, config.vocab_size)?;
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

    let logits_bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let ids_bytes: Vec<u8> = ids.iter().flat_map(|x| x.to_le_bytes()).collect();
    let logits_shape = vec![shape[0], shape[1], config.vocab_size];
    let views = [
        (
            "logits",
            TensorView::new(Dtype::F32, logits_shape, &logits_bytes)?,
        ),
        (
            "input_ids",
            TensorView::new(Dtype::I64, shape.to_vec(), &ids_bytes)?,
        ),
    ];
    let file = serialize(views, None)?;
    write_file(&arguments.out, |out| out.write_all(&file))
        .with_context(|| format!("writing {}", arguments.out.display()))?;
    outln!(
        "{}: logits [{}, {}, {}]",
        arguments.out.display(),
        shape[0],
        shape[1],
        config.vocab_size
    )
}

/// Sequences of equal, positive length with ids below `vocab_size`.
fn parse_ids(text: &str, vocab_size: usize) -> anyhow::Result<Vec<Vec<i64>>> {
    let mut rows: Vec<Vec<i64>> = Vec::new();
    for (number, row) in text.split(';').enumerate() {
        let ids: Vec<i64> = row
            .split(',')
            .map(|word| match word.trim().parse::<i64>() {
                Ok(id) if (0..vocab_size as i64).contains(&id) => Ok(id),
                Ok(id) => bail!("--ids: {id}; allowed: 0 to {}", vocab_size - 1),
                Err(_) => bail!("--ids: {word:?} is no token id; expected \"1,2,3;4,5,6\""),
            })
            .collect::<anyhow::Result<_>>()?;
        if let Some(first) = rows.first() {
            ensure!(
                first.len() == ids.len(),
                "--ids: sequence {} has {} tokens, the first has {}; all must be of one length",
                number + 1,
                ids.len(),
                first.len()
            );
        }
        rows.push(ids);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_batch() {
        assert_eq!(parse_ids("1,2; 3 ,4", 5).unwrap(), [[1, 2], [3, 4]]);
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
            let error = parse_ids(text, 5).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
