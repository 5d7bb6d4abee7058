//! The influence table as a picture: layers down, corrections across, darker for more.

use std::path::Path;

use iiet_distill::Influence;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::theme::{FAINT, INK, ON_DARK, ON_LIGHT, PAPER, text};
use crate::{Drawn, PlotError, save};

const CELL: (u32, u32) = (120, 26);
const LEFT: i32 = 80;
const TOP: i32 = 104;
/// The least width for the title and what is below it.
const NARROWEST: u32 = 620;
/// Of the colour bar, with its numbers.
const BAR: (u32, u32) = (18, 110);
/// Powers of ten between the ends of the colour bar: whatever is smaller is as light.
const DECADES: f64 = 6.0;
/// From little to much: ColorBrewer's sequential "Blues" (Harrower and Brewer, 2003).
const BLUES: [(f64, f64, f64); 5] = [
    (239.0, 243.0, 255.0),
    (189.0, 215.0, 231.0),
    (107.0, 174.0, 214.0),
    (33.0, 113.0, 181.0),
    (8.0, 48.0, 107.0),
];

/// Writes the heat map of a table as SVG. The colours are logarithmic: influences fall by orders of
/// magnitude from one correction to the next.
///
/// # Errors
///
/// [`PlotError`] if the file cannot be drawn or written.
pub fn draw_heat_map(path: &Path, influence: &Influence) -> Result<(), PlotError> {
    save(path, |svg| render(svg, influence))
}

fn render(svg: &mut String, table: &Influence) -> Drawn {
    let layers = table.influence.len();
    let r = table.influence.iter().map(Vec::len).max().unwrap_or(0);
    let cells = (CELL.0 * r as u32, CELL.1 * layers as u32);
    let bar_height = cells.1.max(8 * CELL.1);
    let size = (
        (LEFT as u32 + cells.0 + BAR.1 + 20).max(NARROWEST),
        TOP as u32 + bar_height + 24,
    );
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&PAPER)?;
    let (width, height) = (CELL.0 as i32, CELL.1 as i32);
    let title = "Influence of each correction on its layer's output";
    area.draw_text(title, &text(18, INK, HPos::Left), (12, 22))?;
    let what = format!(
        "1 - cos between the outputs before and after it, mean over {} tokens; 0 if it changes nothing",
        table.tokens
    );
    area.draw_text(&what, &text(12, FAINT, HPos::Left), (12, 46))?;
    for i in 1..=r {
        let x = LEFT + width * (i as i32 - 1) + width / 2;
        let name = format!("correction {i}");
        area.draw_text(&name, &text(13, INK, HPos::Center), (x, TOP - 14))?;
    }
    let scale = Scale::of(table);
    for (n, row) in table.influence.iter().enumerate() {
        let y = TOP + height * n as i32;
        let middle = y + height / 2 - 1;
        let name = format!("layer {}", n + 1);
        area.draw_text(&name, &text(13, INK, HPos::Right), (LEFT - 8, middle))?;
        for (i, value) in row.iter().enumerate() {
            let x = LEFT + width * i as i32;
            let share = scale.share(*value);
            let cell = [(x, y), (x + width - 2, y + height - 2)];
            area.draw(&Rectangle::new(cell, color(share).filled()))?;
            let ink = if share > 0.6 { ON_DARK } else { ON_LIGHT };
            let style = text(12, ink, HPos::Center);
            area.draw_text(&format!("{value:.2e}"), &style, (x + width / 2, middle))?;
        }
    }
    let left = LEFT + cells.0 as i32 + 24;
    scale.bar(&area, (left, TOP), bar_height as i32)?;
    area.present()?;
    Ok(())
}

/// The logarithmic scale of the colours.
struct Scale {
    /// Powers of ten at the light and at the dark end.
    lowest: f64,
    highest: f64,
    /// Whether there are values below the light end.
    cut: bool,
}

impl Scale {
    /// From the power of ten above all values down to that below them, but no more than so many.
    fn of(table: &Influence) -> Self {
        let values = table.influence.iter().flatten().copied();
        let powers = values.filter(|x| *x > 0.0 && x.is_finite()).map(f64::log10);
        let (low, high) = powers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), power| {
            (low.min(power), high.max(power))
        });
        let highest = if high.is_finite() { high.ceil() } else { 0.0 };
        let lowest = if low.is_finite() { low.floor() } else { -1.0 };
        Self {
            lowest: lowest.clamp(highest - DECADES, highest - 1.0),
            highest,
            cut: lowest < highest - DECADES || table.influence.iter().flatten().any(|x| *x <= 0.0),
        }
    }

    /// How far a value lies from the light to the dark end, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        match value > 0.0 {
            true => {
                let share = (value.log10() - self.lowest) / (self.highest - self.lowest);
                share.clamp(0.0, 1.0)
            }
            false => 0.0,
        }
    }

    /// The colour bar with a number at each power of ten.
    fn bar(
        &self,
        area: &DrawingArea<SVGBackend<'_>, Shift>,
        (left, top): (i32, i32),
        height: i32,
    ) -> Drawn {
        let right = left + BAR.0 as i32;
        for y in 0..height {
            let share = 1.0 - f64::from(y) / f64::from(height - 1);
            let band = [(left, top + y), (right, top + y + 1)];
            area.draw(&Rectangle::new(band, color(share).filled()))?;
        }
        let decades = (self.highest - self.lowest) as i32;
        for step in 0..=decades {
            let power = self.highest as i32 - step;
            let y = top + (height - 1) * step / decades;
            let most = if step == decades && self.cut {
                "≤ "
            } else {
                ""
            };
            let tick = vec![(right, y), (right + 5, y)];
            area.draw(&PathElement::new(tick, FAINT.stroke_width(1)))?;
            let name = format!("{most}1e{power}");
            area.draw_text(&name, &text(12, INK, HPos::Left), (right + 9, y))?;
        }
        let name = "logarithmic";
        area.draw_text(name, &text(12, FAINT, HPos::Left), (left, top - 16))?;
        Ok(())
    }
}

/// A colour of the scale.
fn color(share: f64) -> RGBColor {
    let place = share * (BLUES.len() - 1) as f64;
    let at = (place as usize).min(BLUES.len() - 2);
    let (from, to, rest) = (BLUES[at], BLUES[at + 1], place - at as f64);
    let mix = |from: f64, to: f64| (from + (to - from) * rest).round() as u8;
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(influence: Vec<Vec<f64>>) -> Influence {
        Influence {
            tokens: 4096,
            sequences: 1,
            standard_error: influence.iter().map(|row| vec![None; row.len()]).collect(),
            influence,
        }
    }

    fn drawn(influence: Vec<Vec<f64>>) -> String {
        let mut svg = String::new();
        render(&mut svg, &table(influence)).unwrap();
        svg
    }

    #[test]
    fn every_value_has_its_cell_and_the_scale_its_bar() {
        let svg = drawn(vec![vec![0.25, 0.001], vec![], vec![0.0]]);
        for text in [
            "2.50e-1",
            "1.00e-3",
            "0.00e0",
            "layer 3",
            "correction 2",
            "logarithmic",
            "\n1e0\n",
            "\n≤ 1e-3\n",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        // The background, three cells, and the bar, a pixel in height each.
        assert_eq!(svg.matches("<rect").count(), 4 + 8 * CELL.1 as usize);
        let all_above_zero = drawn(vec![vec![0.25, 0.0011]]);
        assert!(all_above_zero.contains("\n1e-3\n"));
    }

    #[test]
    fn colours_are_logarithmic_and_bounded() {
        let scale = Scale::of(&table(vec![vec![0.05, 1e-17]]));
        // From 0.1 down by six powers of ten.
        assert_eq!((scale.highest, scale.lowest), (-1.0, -7.0));
        assert!((scale.share(1e-4) - 0.5).abs() < 1e-12);
        assert_eq!(
            [scale.share(0.1), scale.share(1e-17), scale.share(0.0)],
            [1.0, 0.0, 0.0]
        );
        assert_eq!(color(0.0), RGBColor(239, 243, 255));
        assert_eq!(color(0.5), RGBColor(107, 174, 214));
        assert_eq!(color(1.0), RGBColor(8, 48, 107));
    }

    #[test]
    fn equal_values_and_an_empty_table_are_drawn() {
        drawn(vec![vec![0.5], vec![0.5]]);
        drawn(vec![vec![1.0, 1.0]]);
        drawn(vec![]);
    }
}
