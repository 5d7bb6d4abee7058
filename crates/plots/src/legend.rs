//! Legends outside of the plot: marks and names in a row.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::Drawn;
use crate::theme::{INK, text};

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stroke {
    pub(crate) color: RGBColor,
    pub(crate) opacity: f64,
    /// Pixels.
    pub(crate) width: u32,
    pub(crate) dashed: bool,
    /// Whether each point is to be seen.
    pub(crate) marked: bool,
}

/// Pixels of dashes and of the gaps between them.
pub(crate) const DASH: (i32, i32) = (6, 4);
/// Pixels of a mark.
const MARK: i32 = 28;
const SIZE: u32 = 13;

/// Draws entries from the left at a height.
pub(crate) fn legend(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    entries: &[(Stroke, &str)],
    (left, y): (i32, i32),
) -> Drawn {
    let mut x = left;
    for (stroke, name) in entries {
        let style = stroke.color.mix(stroke.opacity).stroke_width(stroke.width);
        let end = x + MARK;
        match stroke.dashed {
            true => {
                let mut at = x;
                while at < end {
                    let dash = vec![(at, y), ((at + DASH.0).min(end), y)];
                    area.draw(&PathElement::new(dash, style))?;
                    at += DASH.0 + DASH.1;
                }
            }
            false => area.draw(&PathElement::new(vec![(x, y), (end, y)], style))?,
        }
        if stroke.marked {
            area.draw(&Circle::new((x + MARK / 2, y), 3, stroke.color.filled()))?;
        }
        area.draw_text(name, &text(SIZE, INK, HPos::Left), (end + 6, y))?;
        x = end + 6 + width_of(name, SIZE) + 20;
    }
    Ok(())
}

/// About so many pixels wide is a text: a character is a little more than half as wide as it is high.
pub(crate) fn width_of(text: &str, size: u32) -> i32 {
    (0.54 * f64::from(size) * text.chars().count() as f64).ceil() as i32
}

/// The end of a long name: there names differ.
pub(crate) fn shortened(name: &str, longest: usize) -> String {
    match name.chars().count() {
        length if length <= longest => name.to_owned(),
        length => {
            let end: String = name.chars().skip(length - longest + 2).collect();
            format!("..{end}")
        }
    }
}
