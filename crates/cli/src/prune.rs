//! `iiet prune`

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, ensure};
use iiet_compress::prune::Pattern;
use iiet_model::{ModelKind, PruneMethod, model_kind, prune_by_magnitude};

use crate::print::errln;
use crate::rewritten::{RewriteArguments, Work};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How weights are chosen.
    #[arg(long, value_enum)]
    method: Method,
    /// What becomes zero: a fraction of each matrix, such as 0.5, or N of every M neighbouring inputs, such as 2:4;
    /// for all methods but layers.
    #[arg(long, value_name = "FRACTION|N:M", allow_hyphen_values = true)]
    sparsity: Option<Sparsity>,
    /// How many layers are left out, for the method of this name.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    #[command(flatten)]
    pub(crate) rewrite: RewriteArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Method {
    /// The weights of the smallest magnitude.
    Magnitude,
    /// The smallest products of a weight's magnitude and its inputs' norm, by outputs (arXiv 2306.11695).
    Wanda,
    /// Those that cost least when the other weights compensate for them (arXiv 2301.00774).
    Sparsegpt,
    /// Whole layers: those that change the direction of the states least (arXiv 2403.03853). Of language models.
    Layers,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::Wanda => "wanda",
            Self::Sparsegpt => "sparsegpt",
            Self::Layers => "layers",
        }
    }
}

/// `--sparsity`
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sparsity(Pattern);

/// What is wrong with a value of `--sparsity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NotASparsity;

impl fmt::Display for NotASparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "allowed: a fraction above 0 and below 1, such as 0.5, or N:M with M a power of two from 2 to 128 \
             and N from 1 to M - 1, such as 2:4",
        )
    }
}

impl std::error::Error for NotASparsity {}

impl FromStr for Sparsity {
    type Err = NotASparsity;

    fn from_str(text: &str) -> Result<Self, NotASparsity> {
        let pattern = match text.split_once(':') {
            Some((zeros, of)) => {
                let [zeros, of] = [zeros, of].map(|n| n.parse::<usize>().map_err(|_| NotASparsity));
                let (zeros, of) = (zeros?, of?);
                if !(2..=128).contains(&of) || !of.is_power_of_two() || !(1..of).contains(&zeros) {
                    return Err(NotASparsity);
                }
                Pattern::n_of_m(zeros, of)
            }
            None => {
                let sparsity: f64 = text.parse().map_err(|_| NotASparsity)?;
                if !(sparsity > 0.0 && sparsity < 1.0) {
                    return Err(NotASparsity);
                }
                Pattern::Unstructured { sparsity }
            }
        };
        Ok(Self(pattern))
    }
}

/// What is to be done.
#[derive(Clone, Copy)]
enum Task {
    Magnitude(Pattern),
    Calibrated(PruneMethod, Pattern),
    Layers(usize),
}

impl Arguments {
    fn task(&self) -> anyhow::Result<Task> {
        let method = self.method.name();
        if self.method == Method::Layers {
            ensure!(
                self.sparsity.is_none(),
                "--sparsity: --method layers leaves out whole layers; give --layers, how many"
            );
            let layers = self.layers.filter(|layers| *layers > 0);
            let layers =
                layers.context("--layers is needed: how many layers to leave out, at least 1")?;
            return Ok(Task::Layers(layers));
        }
        ensure!(
            self.layers.is_none(),
            "--layers: allowed with --method layers alone, not {method}"
        );
        let sparsity = self
            .sparsity
            .context("--sparsity is needed: what becomes zero, such as 0.5 or 2:4")?;
        let Sparsity(pattern) = sparsity;
        Ok(match self.method {
            Method::Wanda => Task::Calibrated(PruneMethod::Wanda, pattern),
            Method::Sparsegpt => Task::Calibrated(PruneMethod::SparseGpt, pattern),
            _ => Task::Magnitude(pattern),
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let task = arguments.task()?;
    let model = &arguments.rewrite.model;
    if let Task::Layers(_) = task {
        ensure!(
            model_kind(model)? != ModelKind::EncoderDecoder,
            "--method layers: {} is a sequence-to-sequence model; allowed are magnitude, wanda and sparsegpt",
            model.display()
        );
    }
    let work = Work {
        name: "pruning",
        method: arguments.method.name(),
        calibrated: !matches!(task, Task::Magnitude(_)),
    };
    arguments.rewrite.run(
        work,
        |model, texts, progress| match task {
            Task::Magnitude(pattern) => prune_by_magnitude(model, pattern),
            Task::Calibrated(method, pattern) => model.prune(method, pattern, texts, progress),
            Task::Layers(count) => {
                let (shorter, left_out) = model.without_layers(count, texts, progress)?;
                let names = left_out.iter().map(ToString::to_string);
                errln!("left out: layers {}", names.collect::<Vec<_>>().join(", "));
                *model = shorter;
                Ok(())
            }
        },
        |model, pairs, progress| match task {
            Task::Magnitude(pattern) => prune_by_magnitude(model, pattern),
            Task::Calibrated(method, pattern) => model.prune(method, pattern, pairs, progress),
            Task::Layers(_) => panic!("invariant: refused before"),
        },
    )
}
