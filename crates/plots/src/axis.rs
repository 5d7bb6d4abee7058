//! Numbers beside axes.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::Drawn;
use crate::legend::{shortened, width_of};
use crate::theme::{FAINT, INK, text};

/// Points of a curve, from the left.
pub(crate) type Points = Vec<(f64, f64)>;

/// Characters of a tick.
const LONGEST: usize = 24;
const SIZE: u32 = 12;

/// A count in few characters: `300k`, `1.5M`.
pub(crate) fn count(value: f64) -> String {
    let short = |value: f64, unit: &str| {
        let text = format!("{value:.1}");
        format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match value.abs() {
        0.0..1e4 => short(value, ""),
        1e4..1e6 => short(value / 1e3, "k"),
        1e6..1e9 => short(value / 1e6, "M"),
        _ => short(value / 1e9, "G"),
    }
}

/// The range of an axis that shows all values with some space around, and the decimals that tell its
/// ticks apart.
pub(crate) fn range(values: impl Iterator<Item = f64>) -> (std::ops::Range<f64>, usize) {
    let (lowest, highest) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if lowest > highest {
        return (0.0..1.0, 1);
    }
    let space = (0.06 * (highest - lowest))
        .max(1e-3 * highest.abs())
        .max(1e-9);
    let decimals = (1.0 - (highest - lowest + 2.0 * space).log10()).ceil();
    let range = lowest - space..highest + space;
    (range, decimals.clamp(0.0, 6.0) as usize)
}

/// Round numbers in a range of positive numbers for a logarithmic scale: at least three if there are so
/// many with no more than two digits.
pub(crate) fn log_ticks(lowest: f64, highest: f64) -> Vec<f64> {
    const MANTISSAS: [&[f64]; 3] = [
        &[1.0],
        &[1.0, 2.0, 5.0],
        &[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0],
    ];
    let powers = || lowest.log10().floor() as i32..=highest.log10().floor() as i32;
    let with = |mantissas: &[f64]| -> Vec<f64> {
        let all = powers().flat_map(|power| {
            // Exact for the powers that are shown without digits after the point.
            let unit = if power < 0 {
                1.0 / 10f64.powi(-power)
            } else {
                10f64.powi(power)
            };
            mantissas.iter().map(move |mantissa| mantissa * unit)
        });
        all.filter(|tick| (lowest..=highest).contains(tick))
            .collect()
    };
    let all = MANTISSAS.map(with);
    let found = all.iter().find(|ticks| ticks.len() >= 3);
    found.unwrap_or(&all[MANTISSAS.len() - 1]).clone()
}

/// Draws ticks with their names below a plot, and what they are; names that would overlap are left
/// out. All in pixels of the area: places across, the ends of the plot, its bottom.
pub(crate) fn ticks_below(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    ticks: &[(i32, String)],
    (from, to): (i32, i32),
    bottom: i32,
    caption: &str,
) -> Drawn {
    let mut free = i32::MIN;
    for (x, name) in ticks {
        let mark = vec![(*x, bottom), (*x, bottom + 4)];
        area.draw(&PathElement::new(mark, FAINT.stroke_width(1)))?;
        let name = shortened(name, LONGEST);
        let half = width_of(&name, SIZE) / 2;
        if x - half >= free {
            area.draw_text(&name, &text(SIZE, INK, HPos::Center), (*x, bottom + 13))?;
            free = x + half + 8;
        }
    }
    let middle = ((from + to) / 2, bottom + 34);
    area.draw_text(caption, &text(13, FAINT, HPos::Center), middle)?;
    Ok(())
}

/// The parts of a curve inside a range, cut where it enters and leaves.
pub(crate) fn clipped(points: &[(f64, f64)], range: &std::ops::Range<f64>) -> Vec<Points> {
    let inside = |y: f64| (range.start..=range.end).contains(&y);
    let mut parts = Vec::new();
    let mut part = Vec::new();
    for (at, point) in points.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| points[before]);
        if let Some(before) = before
            && inside(before.1) != inside(point.1)
        {
            let outside = if inside(point.1) { before.1 } else { point.1 };
            let edge = match outside > range.end {
                true => range.end,
                false => range.start,
            };
            let share = (edge - before.1) / (point.1 - before.1);
            part.push((before.0 + share * (point.0 - before.0), edge));
        }
        match inside(point.1) {
            true => part.push(*point),
            false if part.is_empty() => {}
            false => parts.push(std::mem::take(&mut part)),
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_cut_where_they_enter_and_leave() {
        let points = [(0.0, 8.0), (1.0, 4.0), (2.0, 2.0), (3.0, 6.0), (4.0, 4.0)];
        let parts = clipped(&points, &(1.0..5.0));
        assert_eq!(parts[0], [(0.75, 5.0), (1.0, 4.0), (2.0, 2.0), (2.75, 5.0)]);
        assert_eq!(parts[1..], [vec![(3.5, 5.0), (4.0, 4.0)]]);
        assert_eq!(clipped(&points[..1], &(1.0..5.0)), [[]; 0]);
        let from_below = clipped(&[(0.0, 0.0), (2.0, 2.0)], &(1.0..5.0));
        assert_eq!(from_below, [[(1.0, 1.0), (2.0, 2.0)]]);
    }

    #[test]
    fn logarithmic_ticks_are_round() {
        assert_eq!(log_ticks(0.9, 2000.0), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(log_ticks(15.0, 120.0), [20.0, 50.0, 100.0]);
        assert_eq!(log_ticks(0.001, 0.005), [0.001, 0.002, 0.005]);
        assert_eq!(log_ticks(21.0, 33.0), [25.0, 30.0]);
    }

    #[test]
    fn counts_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (2.5, "2.5"),
            (1200.0, "1200"),
            (30_000.0, "30k"),
            (1_500_000.0, "1.5M"),
            (2e9, "2G"),
        ] {
            assert_eq!(count(value), expected);
        }
    }

    #[test]
    fn ranges_have_space_and_decimals_enough() {
        let (shown, decimals) = range([1.0, 2.0].into_iter());
        assert_eq!(shown, 0.94..2.06);
        assert_eq!(decimals, 1);
        assert_eq!(range([1.95, 1.96].into_iter()).1, 3);
        assert_eq!(range([100.0, 900.0].into_iter()).1, 0);
        assert_eq!(range(std::iter::empty()), (0.0..1.0, 1));
        let (shown, _) = range([f64::NAN, 3.0].into_iter());
        assert!(shown.start < 3.0 && shown.end > 3.0);
    }
}
