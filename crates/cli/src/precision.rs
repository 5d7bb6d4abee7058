//! `--precision` and other arguments that name a float type, checked against the device.

use anyhow::ensure;
use burn::tensor::Device;
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
    ensure!(
        precision.works_on(&chosen.device),
        "{argument} {precision}: {} does not compute with it; allowed there: {}",
        chosen.name,
        names_on(&chosen.device)
    );
    Ok(precision)
}

/// The precisions that a device computes with.
pub(crate) fn names_on(device: &Device) -> String {
    Precision::names(|precision| precision.works_on(device))
}
