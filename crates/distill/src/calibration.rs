//! The influence table of a model on a part of a corpus.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use iiet_data::{Batch, BatchSize, Batches, DataError, Rows, TextWindows, evaluation_windows};
use iiet_model::{EncoderDecoder, LanguageModel, Side, Source, token_ids};

use crate::{DistillError, Influence, InfluenceMeter};

/// Measures on `tokens` tokens, in windows of the model's context that are spread evenly over each
/// source; a source's part is its weight's. Of a task the longest examples are taken, whose rows have one
/// length.
///
/// `batch` windows are held in memory at a time, and the result does not depend on it; `progress` is called
/// with the number of completed windows and their total.
///
/// # Errors
///
/// [`DistillError::NoCorrections`], [`DistillError::TooShort`] for a source shorter than a window,
/// [`DistillError::Data`].
///
/// # Panics
///
/// If `batch` is 0 or there are no sources.
pub fn calibrate(
    model: &LanguageModel,
    sources: &[(Rows, f64)],
    tokens: u64,
    batch: usize,
    device: &Device,
    mut progress: impl FnMut(u64, u64),
) -> Result<Influence, DistillError> {
    let mut meter = InfluenceMeter::new(model)?;
    let seq = model.sizes().seq_len;
    let parts = parts(sources, tokens, batch, seq)?;
    let total = parts.iter().map(|(_, windows)| windows.len() as u64).sum();
    let mut done = 0;
    for_texts(&parts, batch, device, |ids| {
        let [windows, _] = ids.dims();
        meter.add(model, ids);
        done += windows as u64;
        progress(done, total);
    })?;
    Ok(meter.finish())
}

/// The texts that [`calibrate`] would measure on, for another measurement: `[batch, seq]` each.
///
/// # Errors
///
/// [`DistillError::TooShort`] for a source shorter than a window, [`DistillError::Data`].
///
/// # Panics
///
/// If `batch` is 0 or there are no sources.
pub fn calibration_texts(
    sources: &[(Rows, f64)],
    tokens: u64,
    batch: usize,
    seq: usize,
    device: &Device,
) -> Result<Vec<Tensor<2, Int>>, DistillError> {
    let parts = parts(sources, tokens, batch, seq)?;
    let mut texts = Vec::new();
    for_texts(&parts, batch, device, |ids| texts.push(ids))?;
    Ok(texts)
}

/// Calls `f` with the windows, so many at a time: `[batch, seq]`.
fn for_texts(
    parts: &[(Batches, Vec<u64>)],
    batch: usize,
    device: &Device,
    mut f: impl FnMut(Tensor<2, Int>),
) -> Result<(), DistillError> {
    for (batches, windows) in parts {
        for windows in windows.chunks(batch) {
            let Batch {
                inputs, batch, seq, ..
            } = batches.of_windows(windows)?;
            f(token_ids(&inputs, [batch, seq], device));
        }
    }
    Ok(())
}

/// The windows of each source.
fn parts(
    sources: &[(Rows, f64)],
    tokens: u64,
    batch: usize,
    seq: usize,
) -> Result<Vec<(Batches, Vec<u64>)>, DistillError> {
    let all: f64 = sources.iter().map(|(_, weight)| weight).sum();
    let parts = sources.iter().map(|(rows, weight)| {
        let share = (tokens as f64 * weight / all).round() as u64;
        windows(rows, batch, seq, share)
    });
    parts.collect()
}

/// Measures one side of an encoder-decoder on pairs with `tokens` tokens of targets, spread evenly over the
/// source.
///
/// `batch` pairs are held in memory at a time; the result depends on it in the last digit, because pairs of
/// similar lengths are taken together. `progress` is called with the number of completed pairs and their
/// total.
///
/// # Errors
///
/// [`DistillError::NoCorrections`], [`DistillError::Data`]; also for a source that is not of pairs.
///
/// # Panics
///
/// If `batch` is 0.
pub fn calibrate_pairs(
    model: &EncoderDecoder,
    side: Side,
    pairs: &Rows,
    tokens: u64,
    batch: usize,
    device: &Device,
    mut progress: impl FnMut(u64, u64),
) -> Result<Influence, DistillError> {
    let mut meter = InfluenceMeter::of_side(model, side)?;
    let seq = model.sizes().seq_len;
    let batches = pairs.evaluation_batches(seq, BatchSize::Rows(batch), tokens)?;
    let total = batches.iter().map(|batch| batch.batch as u64).sum();
    let mut done = 0;
    for batch in batches {
        let lengths = batch.weights.chunks(batch.seq);
        let lengths: Vec<usize> = lengths
            .map(|row| row.iter().filter(|weight| **weight > 0.0).count())
            .collect();
        let rows = batch.batch as u64;
        let (source, ids) = source_and_target(batch, device)?;
        meter.add_pairs(model, side, &source, (ids, lengths));
        done += rows;
        progress(done, total);
    }
    Ok(meter.finish())
}

/// Pairs with `tokens` tokens of targets, spread evenly over the data, for another measurement: one at a time, so that there
/// is no padding.
///
/// # Errors
///
/// [`DistillError::Data`]; also for data that are not pairs.
pub fn calibration_pairs(
    pairs: &Rows,
    tokens: u64,
    seq: usize,
    device: &Device,
) -> Result<Vec<(Source, Tensor<2, Int>)>, DistillError> {
    let batches = pairs.evaluation_batches(seq, BatchSize::Rows(1), tokens)?;
    let pairs = batches
        .into_iter()
        .map(|batch| source_and_target(batch, device));
    Ok(pairs.collect::<Result<_, _>>()?)
}

/// The sources and targets of a batch of pairs; targets are `[batch, seq]`.
fn source_and_target(batch: Batch, device: &Device) -> Result<(Source, Tensor<2, Int>), DataError> {
    let source = batch.source.ok_or_else(|| DataError::Config {
        key: "the data",
        found: "without sources".to_owned(),
        allowed: "pairs of source and target".to_owned(),
    })?;
    let shape = [source.lengths.len(), source.seq];
    let ids = token_ids(&batch.inputs, [batch.batch, batch.seq], device);
    Ok((
        Source::new(token_ids(&source.ids, shape, device), source.lengths),
        ids,
    ))
}

/// A source's rows without padding, and which of them to take.
fn windows(
    rows: &Rows,
    batch: usize,
    seq: usize,
    tokens: u64,
) -> Result<(Batches, Vec<u64>), DistillError> {
    match rows {
        Rows::Text(file) => {
            // Prompts and completions too as running text: a row of their own would be padded.
            let windows = TextWindows::new(file.clone(), seq)?;
            let batches = Batches::of(Arc::new(windows), batch, 0)?;
            // The last window of a file may be short; influence takes whole ones.
            let whole = file.len().saturating_sub(1) / seq as u64;
            if whole == 0 {
                return Err(DistillError::TooShort {
                    tokens: file.len(),
                    seq,
                });
            }
            Ok((batches, evaluation_windows(whole, seq, tokens)))
        }
        Rows::Task(spec, part) => {
            let spec = spec.clone().at_its_hardest();
            spec.check_length(seq)?;
            let seq = spec.longest();
            let examples = Rows::Task(spec, *part).examples(seq)?;
            let batches = Batches::of(examples, batch, 0)?;
            let windows = evaluation_windows(batches.windows(), seq, tokens);
            Ok((batches, windows))
        }
    }
}
