//! Pictures as SVG: what a run measured, what a model's corrections contribute, what models are worth for
//! their cost, what a sweep found.
//!
//! Everything that draws is here, so that nothing that computes depends on how it is drawn. Files are
//! written whole or not at all.

mod axis;
mod curve;
mod error;
mod heat_map;
mod legend;
mod placement;
mod quality;
mod sweep;
mod theme;

use std::io::Write;
use std::path::Path;

use iiet_files::write_file;

pub use curve::{RunLabel, draw_curve};
pub use error::PlotError;
pub use heat_map::draw_heat_map;
pub use quality::draw_quality;
pub use sweep::draw_sweep;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// What a renderer returns: the backend's error, whatever its type.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Renders a picture and writes it.
fn save(path: &Path, render: impl FnOnce(&mut String) -> Drawn) -> Result<(), PlotError> {
    let mut svg = String::new();
    render(&mut svg).map_err(|error| PlotError::Drawing {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    theme::follow_page(&mut svg);
    let written = write_file(path, |file| file.write_all(svg.as_bytes()));
    written.map(drop).map_err(|source| PlotError::Io {
        path: path.to_owned(),
        source,
    })
}
