//! A sweep as a picture: the results against one key, with a line for each combination of the others,
//! and the learning curves of all trials against tokens and against the seconds of training.

mod lines;
mod results;

use std::path::Path;

use iiet_sweep::{SweepError, Table, TrialResult};
use plotters::prelude::*;

use self::lines::{EVALUATIONS, Lines};
use crate::theme::PAPER;
use crate::{Drawn, PlotError, save};

const WIDTH: u32 = 1000;
/// The panel of results.
const RESULTS: u32 = 400;
/// The panels of learning curves.
const CURVES: u32 = 340;

/// Draws a sweep: `table` is of `results`, and `x` a key of the table, or `evaluations_per_token`: then a line
/// joins models that differ in depth and number of corrections alone. The key with the most different numbers is
/// taken unless one is given.
///
/// # Errors
///
/// [`PlotError::Sweep`] if the table has no such key; else if the file cannot be drawn or written.
pub fn draw_sweep(
    path: &Path,
    results: &[TrialResult],
    table: &Table,
    x: Option<&str>,
) -> Result<(), PlotError> {
    let lines = Lines::of(table, x).map_err(PlotError::Sweep)?;
    save(path, |svg| render(svg, results, table, &lines))
}

fn render(svg: &mut String, results: &[TrialResult], table: &Table, lines: &Lines) -> Drawn {
    let size = (WIDTH, RESULTS + CURVES);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&PAPER)?;
    let (upper, lower) = area.split_vertically(RESULTS);
    results::against_key(&upper, table, lines)?;
    let (left, right) = lower.split_horizontally(WIDTH / 2);
    let metric = &table.metric;
    results::learning_curves(&left, results, metric, lines, "tokens", |point| {
        point.tokens as f64
    })?;
    let seconds = "seconds of training";
    results::learning_curves(&right, results, metric, lines, seconds, |point| {
        point.seconds
    })?;
    area.present()?;
    Ok(())
}

/// The key that was asked for is not there.
pub(crate) fn no_such_key(key: &str, table: &Table) -> SweepError {
    SweepError::Key {
        key: key.to_owned(),
        allowed: (table.keys.iter().cloned())
            .chain([EVALUATIONS.to_owned()])
            .collect(),
    }
}
