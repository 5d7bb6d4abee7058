//! Logits of a sequence-to-sequence model, for sources and targets of any lengths.

use anyhow::{Context, ensure};
use iiet_model::{EncoderDecoder, SequenceInference, Source, padded, token_ids};

use super::{Arguments, parse_ids, write};

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let model = arguments.model.display();
    let config = EncoderDecoder::load_config(&arguments.model)?;
    let source_ids = arguments.source_ids.as_ref().with_context(|| {
        format!(
            "--source-ids: {model} is a sequence-to-sequence model; give a source for each of --ids"
        )
    })?;
    arguments.corrections.refuse(&arguments.model)?;
    let rows = |argument, text: &str| {
        let rows = texts(argument, text, config.vocab_size)?;
        for (number, row) in rows.iter().enumerate() {
            ensure!(
                row.len() <= config.seq_len,
                "{argument}: sequence {} has {} tokens; allowed: {}, the model's context",
                number + 1,
                row.len(),
                config.seq_len
            );
        }
        Ok(rows)
    };
    let sources = rows("--source-ids", source_ids)?;
    let targets = rows("--ids", &arguments.ids)?;
    ensure!(
        sources.len() == targets.len(),
        "--source-ids has {} sequences and --ids {}; each target needs one source",
        sources.len(),
        targets.len()
    );
    let of = |rows: &[Vec<u32>]| {
        let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
        padded(&rows)
    };
    let ((source_ids, source_shape), (ids, shape)) = (of(&sources), of(&targets));

    let chosen = arguments.device.open()?;
    let precision = arguments.precision.on(&chosen)?;
    let device = chosen.device;
    if chosen.on_host {
        let inference = SequenceInference {
            precision,
            source: source_ids.len(),
            target: ids.len(),
        };
        let work = format!(
            "computing the logits of {} tokens from sources of {}",
            ids.len(),
            source_ids.len()
        );
        let estimate = inference.memory(work, &config, &device)?;
        let estimate = estimate.stored_in(&arguments.model)?;
        estimate.check("give fewer --ids, or --precision bf16")?;
    }
    let model = EncoderDecoder::load_in(precision, &arguments.model, &device)?;
    let lengths = sources.iter().map(Vec::len).collect();
    let source = Source::new(token_ids(&source_ids, source_shape, &device), lengths);
    let logits = model.forward(&source, token_ids(&ids, shape, &device));
    let values = logits
        .try_into_vec_as::<f32>()
        .context("reading the logits back")?;

    let wide = |ids: &[u32]| -> Vec<i64> { ids.iter().map(|id| i64::from(*id)).collect() };
    let (source_ids, target_ids) = (wide(&source_ids), wide(&ids));
    let source_mask = mask(&sources, source_shape);
    let target_mask = mask(&targets, shape);
    write(
        &arguments.out,
        (&values, [shape[0], shape[1], config.vocab_size]),
        &[
            ("source_ids", &source_ids, source_shape),
            ("source_mask", &source_mask, source_shape),
            ("target_ids", &target_ids, shape),
            ("target_mask", &target_mask, shape),
        ],
    )
}

/// Sequences of positive length; an empty one is named by its number.
fn texts(argument: &str, text: &str, vocab_size: usize) -> anyhow::Result<Vec<Vec<u32>>> {
    for (number, row) in text.split(';').enumerate() {
        ensure!(
            !row.trim().is_empty(),
            "{argument}: sequence {} is empty; allowed: one token and more",
            number + 1
        );
    }
    let rows = parse_ids(argument, text, vocab_size)?;
    let narrow = |row: Vec<i64>| row.into_iter().map(|id| Ok(u32::try_from(id)?)).collect();
    rows.into_iter().map(narrow).collect()
}

/// One for a token and zero for padding.
fn mask(rows: &[Vec<u32>], [_, seq]: [usize; 2]) -> Vec<i64> {
    let row = |row: &Vec<u32>| {
        let tokens = row.len();
        (0..seq).map(move |column| i64::from(column < tokens))
    };
    rows.iter().flat_map(row).collect()
}
