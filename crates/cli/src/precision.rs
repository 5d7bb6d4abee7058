//! `--precision` and other arguments for float types, checked against the device.

use anyhow::ensure;
use burn::tensor::Device;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use iiet_model::Precision;

use crate::backend::Chosen;

/// `--precision`, for the commands that run a model.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct PrecisionArgument {
    /// Precision of weights and activations; logits are always f32.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = parser())]
    precision: Precision,
}

impl PrecisionArgument {
    /// The precision, if the device supports it.
    pub(crate) fn on(self, chosen: &Chosen) -> anyhow::Result<Precision> {
        check("--precision", self.precision, chosen)
    }
}

/// Parses a precision; the help lists all of them.
pub(crate) fn parser() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(Precision::ALL.map(Precision::name))
        .try_map(|name| name.parse::<Precision>())
}

/// Rejects a precision that the device does not support.
pub(crate) fn check(
    argument: &str,
    precision: Precision,
    chosen: &Chosen,
) -> anyhow::Result<Precision> {
    ensure!(
        precision.works_on(&chosen.device),
        "{argument} {precision}: not supported by {}; supported: {}",
        chosen.name,
        names_on(&chosen.device)
    );
    Ok(precision)
}

/// The precisions that a device supports.
pub(crate) fn names_on(device: &Device) -> String {
    Precision::names(|precision| precision.works_on(device))
}
