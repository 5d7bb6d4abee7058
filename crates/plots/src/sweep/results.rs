//! The panels of a sweep.

use iiet_sweep::{Point, State, Table, TrialResult, higher_is_better};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::lines::Lines;
use crate::Drawn;
use crate::axis::{Points, clipped, count, range, ticks_below};
use crate::legend::shortened;
use crate::theme::{FAINT, GRID, INK, PAPER, series, text};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Pixels for the names of the lines.
const LEGEND: u32 = 300;
const LEGEND_LINE: i32 = 20;
/// Names that are listed.
const LISTED: usize = 15;
/// Characters of a name.
const LONGEST: usize = 40;

/// The quantity of each row against the key, with bars of one standard error over seeds.
pub(super) fn against_key(area: &Area<'_>, table: &Table, lines: &Lines) -> Drawn {
    let better = match higher_is_better(&table.metric) {
        true => "higher",
        false => "lower",
    };
    let title = format!(
        "{} after training; {better} is better",
        readable(&table.metric)
    );
    area.draw_text(&title, &text(18, INK, HPos::Left), (16, 22))?;
    let note = "Mean and standard error over seeds. Hollow: not trained to the end. Cross: a trial failed.";
    area.draw_text(note, &text(12, FAINT, HPos::Left), (16, 44))?;
    let (width, _) = area.dim_in_pixel();
    let (plot, legend) = area.margin(58, 0, 0, 0).split_horizontally(width - LEGEND);
    legend_of(&legend, lines)?;

    let bars = table
        .rows
        .iter()
        .filter_map(|row| row.last)
        .flat_map(|last| {
            let error = last.standard_error.unwrap_or(0.0);
            [last.mean - error, last.mean + error]
        });
    let (up, decimals) = range(bars);
    let (across, _) = range(lines.ticks.iter().map(|(place, _)| *place));
    let mut chart = ChartBuilder::on(&plot)
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(across, up.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .x_labels(0)
        .y_label_formatter(&|value| format!("{value:.decimals$}"))
        .label_style(text(12, INK, HPos::Center))
        .draw()?;
    for line in 0..lines.names.len() {
        let rows = table.rows.iter().zip(&lines.rows);
        let of_line = rows.filter(|(_, (of, _))| *of == line);
        let mut points: Vec<(f64, f64)> = of_line
            .filter_map(|(row, (_, place))| row.last.map(|last| (*place, last.mean)))
            .collect();
        points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        chart.draw_series(LineSeries::new(
            points,
            series(line).mix(0.7).stroke_width(2),
        ))?;
    }
    for (row, (line, place)) in table.rows.iter().zip(&lines.rows) {
        let color = match lines.names.len() > 1 {
            true => series(*line),
            false => series(row.trials.first().map_or(0, |trial| lines.colors[*trial])),
        };
        let plot = chart.plotting_area();
        if let Some(last) = row.last {
            let error = last.standard_error.unwrap_or(0.0);
            let bar = vec![(*place, last.mean - error), (*place, last.mean + error)];
            plot.draw(&PathElement::new(bar, color.stroke_width(2)))?;
            let at = (*place, last.mean);
            match row.finished {
                true => plot.draw(&Circle::new(at, 5, color.filled()))?,
                false => {
                    plot.draw(&Circle::new(at, 5, PAPER.filled()))?;
                    plot.draw(&Circle::new(at, 5, color.stroke_width(2)))?;
                }
            }
        }
        if row.failed > 0 {
            plot.draw(&Cross::new((*place, up.end), 5, color.stroke_width(2)))?;
        }
    }
    // Ticks are the values of the grid.
    let (left, top) = plot.get_base_pixel();
    let (from, to) = chart.plotting_area().get_pixel_range();
    let ticks = lines.ticks.iter().map(|(place, value)| {
        let (x, _) = chart.backend_coord(&(*place, up.start));
        (x - left, value.clone())
    });
    let ends = (from.start - left, from.end - left);
    let ticks: Vec<(i32, String)> = ticks.collect();
    ticks_below(&plot, &ticks, ends, to.end - top, &lines.caption)?;
    Ok(())
}

/// The evaluations of all trials against what `across` says of them.
pub(super) fn learning_curves(
    area: &Area<'_>,
    results: &[TrialResult],
    metric: &str,
    lines: &Lines,
    unit: &str,
    across: fn(&Point) -> f64,
) -> Drawn {
    let curves: Vec<(usize, &TrialResult, Points)> = results
        .iter()
        .enumerate()
        .map(|(at, result)| {
            let points = result.curve.iter();
            let points =
                points.filter_map(|point| Some((across(point), *point.values.get(metric)?)));
            (at, result, points.filter(|(_, y)| y.is_finite()).collect())
        })
        .collect();
    let all = || curves.iter().flat_map(|(_, _, points)| points);
    let longest = all().map(|(x, _)| *x).fold(0.0, f64::max).max(1e-9);
    // The first part of training would take all the height.
    let late: Vec<f64> = all()
        .filter(|(x, _)| *x > 0.2 * longest)
        .map(|(_, y)| *y)
        .collect();
    let (up, decimals) = range(late.into_iter());
    let title = format!("Learning curves against {unit}");
    area.draw_text(&title, &text(15, INK, HPos::Left), (16, 16))?;
    let plot = area.margin(28, 0, 0, 0);
    let mut chart = ChartBuilder::on(&plot)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..longest * 1.02, up.clone())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .x_labels(6)
        .x_desc(unit)
        .axis_desc_style(text(13, FAINT, HPos::Center))
        .label_style(text(12, INK, HPos::Center))
        .x_label_formatter(&|value| count(*value))
        .y_label_formatter(&|value| format!("{value:.decimals$}"))
        .draw()?;
    for (at, result, points) in curves {
        let color = series(lines.colors.get(at).copied().unwrap_or(0));
        let style = match result.state {
            State::Finished => color.stroke_width(1),
            _ => color.mix(0.5).stroke_width(1),
        };
        for part in clipped(&points, &up) {
            chart.draw_series(LineSeries::new(part, style))?;
        }
        if let Some(end) = points.last().copied().filter(|(_, y)| up.contains(y)) {
            let area = chart.plotting_area();
            match result.state {
                State::Failed => area.draw(&Cross::new(end, 4, color.stroke_width(2)))?,
                _ => area.draw(&Circle::new(end, 2, color.filled()))?,
            }
        }
    }
    Ok(())
}

/// The names of the lines with their colours.
fn legend_of(area: &Area<'_>, lines: &Lines) -> Drawn {
    if lines.names.len() < 2 {
        return Ok(());
    }
    for (at, name) in lines.names.iter().take(LISTED).enumerate() {
        let y = 20 + LEGEND_LINE * at as i32;
        let mark = vec![(4, y), (26, y)];
        area.draw(&PathElement::new(mark, series(at).stroke_width(3)))?;
        let name = shortened(name, LONGEST);
        area.draw_text(&name, &text(12, INK, HPos::Left), (34, y))?;
    }
    if lines.names.len() > LISTED {
        let y = 20 + LEGEND_LINE * LISTED as i32;
        let more = format!("and {} more", lines.names.len() - LISTED);
        area.draw_text(&more, &text(12, FAINT, HPos::Left), (34, y))?;
    }
    Ok(())
}

/// A field of `metrics.jsonl` as words.
fn readable(metric: &str) -> String {
    let words = metric.replace('_', " ");
    let mut characters = words.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => words,
    }
}
