//! The influence table as a picture: layers down, corrections across, darker for more.

use std::path::Path;

use iiet_distill::Influence;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Drawn, PlotError, save};

const CELL: (u32, u32) = (120, 26);
const MARGINS: (u32, u32) = (80, 90);

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
    let size = (
        MARGINS.0 + CELL.0 * r.max(2) as u32 + 20,
        MARGINS.1 + CELL.1 * layers as u32 + 20,
    );
    let positive = || table.influence.iter().flatten().filter(|x| **x > 0.0);
    let lowest = positive().copied().fold(f64::INFINITY, f64::min).ln();
    let highest = positive().copied().fold(0.0, f64::max).ln();
    let shade = |value: f64| match value > 0.0 && highest > lowest {
        true => (value.ln() - lowest) / (highest - lowest),
        false => f64::from(u8::from(value > 0.0)),
    };

    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, top) = (MARGINS.0 as i32, MARGINS.1 as i32);
    let (width, height) = (CELL.0 as i32, CELL.1 as i32);
    let heading =
        |text: &str, y, size| area.draw_text(text, &style(size, BLACK, HPos::Left), (12, y));
    heading("Influence 1 - cos of each correction", 20, 18)?;
    heading(&format!("{} tokens", table.tokens), 44, 13)?;
    for i in 1..=r {
        let x = left + width * (i as i32 - 1) + width / 2;
        let text = format!("correction {i}");
        area.draw_text(&text, &style(13, BLACK, HPos::Center), (x, top - 14))?;
    }
    for (n, row) in table.influence.iter().enumerate() {
        let y = top + height * n as i32;
        let text = format!("layer {}", n + 1);
        area.draw_text(
            &text,
            &style(13, BLACK, HPos::Right),
            (left - 8, y + height / 2),
        )?;
        for (i, value) in row.iter().enumerate() {
            let x = left + width * i as i32;
            let dark = shade(*value);
            let mix = |from: f64, to: f64| (from + (to - from) * dark) as u8;
            let color = RGBColor(mix(245.0, 20.0), mix(248.0, 70.0), mix(252.0, 130.0));
            let cell = [(x, y), (x + width - 2, y + height - 2)];
            area.draw(&Rectangle::new(cell, color.filled()))?;
            let ink = if dark > 0.5 { WHITE } else { BLACK };
            let middle = (x + width / 2, y + height / 2);
            area.draw_text(
                &format!("{value:.2e}"),
                &style(12, ink, HPos::Center),
                middle,
            )?;
        }
    }
    area.present()?;
    Ok(())
}

fn style(size: u32, color: RGBColor, anchor: HPos) -> TextStyle<'static> {
    TextStyle {
        color: color.to_backend_color(),
        ..TextStyle::from(("sans-serif", size).into_font())
    }
    .pos(Pos::new(anchor, VPos::Center))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(influence: Vec<Vec<f64>>) -> String {
        let standard_error = influence.iter().map(|row| vec![None; row.len()]).collect();
        let mut svg = String::new();
        let table = Influence {
            tokens: 4096,
            sequences: 1,
            influence,
            standard_error,
        };
        render(&mut svg, &table).unwrap();
        svg
    }

    #[test]
    fn every_value_has_its_cell() {
        let svg = drawn(vec![vec![0.25, 0.001], vec![], vec![0.0]]);
        for text in ["2.50e-1", "1.00e-3", "0.00e0", "layer 3", "correction 2"] {
            assert!(svg.contains(text), "{text}");
        }
        // The background and three cells.
        assert_eq!(svg.matches("<rect").count(), 4);
    }

    #[test]
    fn equal_values_and_an_empty_table_are_drawn() {
        drawn(vec![vec![0.5], vec![0.5]]);
        drawn(vec![]);
    }
}
