//! Colours, text, and how pictures follow a dark page.
//!
//! Pictures are drawn in the colours of a light page. A style in the file has viewers exchange paper,
//! ink and grids where they prefer dark pages (`prefers-color-scheme`), as browsers do for pictures in a
//! page too. Colours of data are the same on both.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) const PAPER: RGBColor = WHITE;
pub(crate) const INK: RGBColor = BLACK;
/// Of axes, captions and references.
pub(crate) const FAINT: RGBColor = RGBColor(110, 110, 110);
pub(crate) const GRID: RGBColor = RGBColor(232, 232, 232);
/// Writing on dark cells, which are dark on every page.
pub(crate) const ON_DARK: RGBColor = RGBColor(254, 254, 254);
/// Writing on light cells.
pub(crate) const ON_LIGHT: RGBColor = RGBColor(1, 1, 1);

/// Colours of data, which are told apart by people with any kind of colour vision as far as ten
/// can be, and are seen on white and on black.
pub(crate) const SERIES: [RGBColor; 10] = [
    RGBColor(47, 119, 214),
    RGBColor(213, 94, 0),
    RGBColor(36, 150, 96),
    RGBColor(168, 90, 184),
    RGBColor(190, 140, 10),
    RGBColor(30, 160, 180),
    RGBColor(215, 85, 140),
    RGBColor(150, 105, 75),
    RGBColor(125, 140, 45),
    RGBColor(128, 128, 128),
];

/// What is exchanged on a dark page.
const DARK: [(RGBColor, &str); 4] = [
    (PAPER, "#0d1117"),
    (INK, "#e6edf3"),
    (FAINT, "#9aa4af"),
    (GRID, "#2a3038"),
];

/// The colour of a series.
pub(crate) fn series(number: usize) -> RGBColor {
    SERIES[number % SERIES.len()]
}

/// Text, anchored in the middle of its height.
pub(crate) fn text(size: u32, color: RGBColor, anchor: HPos) -> TextStyle<'static> {
    TextStyle {
        color: color.to_backend_color(),
        ..TextStyle::from(("sans-serif", size).into_font())
    }
    .pos(Pos::new(anchor, VPos::Center))
}

/// Adds the style for dark pages to a picture.
pub(crate) fn follow_page(svg: &mut String) {
    let rules = DARK.map(|(RGBColor(red, green, blue), dark)| {
        let light = format!("#{red:02X}{green:02X}{blue:02X}");
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
    });
    let style = format!(
        "\n<style>@media (prefers-color-scheme:dark){{{}}}</style>",
        rules.concat()
    );
    if let Some(end) = svg.find('>') {
        svg.insert_str(end + 1, &style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_of_a_dark_page_has_a_rule() {
        let mut svg = "<svg width=\"1\">\n<rect fill=\"#FFFFFF\"/>\n</svg>".to_owned();
        follow_page(&mut svg);
        assert!(
            svg.starts_with("<svg width=\"1\">\n<style>@media (prefers-color-scheme:dark){[fill=\"#FFFFFF\"]{fill:#0d1117}"),
            "{svg}"
        );
        assert!(
            svg.contains("[stroke=\"#E8E8E8\"]{stroke:#2a3038}"),
            "{svg}"
        );
    }
}
