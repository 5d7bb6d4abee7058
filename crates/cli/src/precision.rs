//! `--precision` and other arguments that name a float type, checked against the device.

use anyhow::ensure;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use iiet_model::Precision;

use crate::backend::Chosen;

/// `--precision`, for the commands that ask a model.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct PrecisionArgument {
    /// The type of weights and activations; logits are f32 in any case.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parser())]
    precision: Precision,
}

impl PrecisionArgument {
    /// The precision, if the device computes with it.
    pub(crate) fn on(self, chosen: &Chosen) -> anyhow::Result<Precision> {
        check("--precision", self.precision, chosen)
    }
}

/// Reads a precision and lists them all in the help.
pub(crate) fn parser() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name))
        .try_map(|name| name.parse::<Precision>())
}

/// Refuses a precision that the device does not compute with.
pub(crate) fn check(
    argument: &str,
    precision: Precision,
    chosen: &Chosen,
) -> anyhow::Result<Precision> {
    let works = |precision: &Precision| precision.works_on(&chosen.device);
    let allowed = Precision::ALL.into_iter().filter(works);
    let allowed: Vec<&str> = allowed.map(Precision::name).collect();
    ensure!(
        works(&precision),
        "{argument} {precision}: {} does not compute with it; allowed there: {}",
        chosen.name,
        allowed.join(", ")
    );
    Ok(precision)
}
