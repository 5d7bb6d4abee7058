//! `--side`: which side of a sequence-to-sequence model is meant.

use std::path::Path;

use anyhow::{bail, ensure};
use iiet_distill::corrections;
use iiet_model::{EncoderDecoderConfig, Side};

/// The encoder or the decoder.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct SideArgument {
    /// The side of a sequence-to-sequence model [default: the one that takes corrections].
    #[arg(long, value_name = "SIDE", value_enum)]
    side: Option<SideName>,
}

/// A side by its name.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum SideName {
    /// The layers of the source.
    Encoder,
    /// The layers of the target.
    Decoder,
}

impl From<SideName> for Side {
    fn from(name: SideName) -> Self {
        match name {
            SideName::Encoder => Self::Encoder,
            SideName::Decoder => Self::Decoder,
        }
    }
}

impl SideArgument {
    /// The side of such a model.
    pub(crate) fn of(self, config: &EncoderDecoderConfig) -> anyhow::Result<Side> {
        let iterated = |side: &Side| {
            let stack = config.stack(*side);
            corrections(&stack.solver, stack.n_layers).is_ok()
        };
        let found: Vec<Side> = Side::ALL.into_iter().filter(iterated).collect();
        Ok(match (self.side, found.as_slice()) {
            (Some(name), _) => name.into(),
            (None, [one]) => *one,
            (None, []) => bail!("neither side of the model takes corrections"),
            (None, _) => bail!("--side: both sides take corrections; give encoder or decoder"),
        })
    }

    /// Refuses a side of a language model.
    pub(crate) fn refuse(self, model: &Path) -> anyhow::Result<()> {
        refuse_side(self.side, model)
    }
}

/// Refuses the name of a side of a language model.
pub(crate) fn refuse_side(side: Option<SideName>, model: &Path) -> anyhow::Result<()> {
    ensure!(
        side.is_none(),
        "--side: {} is a language model, which has no sides",
        model.display()
    );
    Ok(())
}
