//! `iiet quantize`

use iiet_compress::{Activations, Gptq, Scheme};
use iiet_model::{round_to_bits, treat_inputs};

use crate::rewritten::{RewriteArguments, Work};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Bits per weight: 8 or 4.
    #[arg(long, value_name = "N")]
    bits: u64,
    /// Weights along the input that share a scale: 32, 64 or 128; all widths of the model must be multiples.
    #[arg(long, value_name = "N", default_value_t = 128)]
    group: u64,
    /// Also a zero point for each group, for weights that do not lie around zero.
    #[arg(long)]
    asymmetric: bool,
    /// Rounds inputs of products to so many bits too, 8, at run time: for each token, in the groups of the weights.
    /// Decoding is faster, and results change a little. Without it inputs are not rounded.
    #[arg(long, value_name = "BITS", value_parser = ["8"])]
    activations: Option<String>,
    /// How weights are chosen.
    #[arg(long, value_enum, default_value_t = Method::Round)]
    method: Method,
    /// Leaves the embedding and the output projection in floats. transformers reads no other models; but in a
    /// small one these are most of the bytes.
    #[arg(long)]
    keep_embeddings: bool,
    #[command(flatten)]
    pub(crate) rewrite: RewriteArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    /// Each weight to the nearest value of its group.
    Round,
    /// Such that products change least on the texts of --calibration (GPTQ, arXiv 2210.17323).
    Gptq,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let Arguments { bits, group, .. } = *arguments;
    let scheme = Scheme::new(bits, group, !arguments.asymmetric)?;
    let embeddings = !arguments.keep_embeddings;
    let activations = match arguments.activations {
        None => Activations::F32,
        Some(_) => Activations::Int8,
    };
    let calibrated = arguments.method == Method::Gptq;
    let work = Work {
        name: "quantising",
        method: if calibrated { "gptq" } else { "round" },
        calibrated,
    };
    arguments.rewrite.run(
        work,
        |model, texts, progress| {
            match arguments.method {
                Method::Round => round_to_bits(model, scheme, embeddings)?,
                Method::Gptq => model.gptq(&Gptq::new(scheme), embeddings, texts, progress)?,
            }
            treat_inputs(model, activations);
            Ok(())
        },
        |model, pairs, progress| {
            match arguments.method {
                Method::Round => round_to_bits(model, scheme, embeddings)?,
                Method::Gptq => model.gptq(&Gptq::new(scheme), embeddings, pairs, progress)?,
            }
            treat_inputs(model, activations);
            Ok(())
        },
    )
}
