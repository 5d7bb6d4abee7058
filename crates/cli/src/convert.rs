//! `iiet convert`

use std::path::PathBuf;

use anyhow::{Context, bail};
use iiet_files::{NewDirectory, open_regular, write_file};
use iiet_model::{Inference, Precision, SaveOptions, load_as, save};
use iiet_ode::{IterationSchedule, SolverConfig, SolverName, SolverOption};
use serde_json::Value;

use crate::print::outln;
use crate::{backend, precision};

/// Files that belong to a model and have nothing to do with its solver.
const ALONG: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "generation_config.json",
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The model directory to convert.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The solver of the new model, such as iterative_implicit_euler.
    #[arg(long, value_name = "NAME")]
    solver: String,
    /// Corrections of an implicit solver: one number, or one for each layer as in 3,1,0.
    #[arg(long, value_name = "R")]
    iterations: Option<String>,
    /// 2 or 4, for runge_kutta and predictor_corrector.
    #[arg(long, value_name = "ORDER")]
    predictor_order: Option<usize>,
    /// How weights are stored.
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = precision::parser())]
    dtype: Precision,
    /// The directory to write; it must not exist yet, or be empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let out = &arguments.out;
    let place = || out.display().to_string();
    let before = iiet_model::load_config(&arguments.model)?;
    let mut config = before.clone();
    config.solver = solver(arguments, before.solver)?;
    config.validate()?;
    let directory = NewDirectory::create(out).with_context(place)?;

    let chosen = backend::for_files()?;
    if chosen.on_host {
        let inference = Inference {
            precision: Precision::F32,
            tokens: 0,
            logits: 0,
            cached: 0,
            cache: Precision::F32,
        };
        let estimate = inference.memory("converting", &config, &chosen.device)?;
        estimate.check("convert on a machine with more")?;
    }
    let model = load_as(&config, &arguments.model, &chosen.device)?;
    let options = SaveOptions {
        stored: arguments.dtype,
        ..SaveOptions::default()
    };
    let mut manifest = save(&model, directory.partial(), &options)?;
    for name in ALONG {
        let from = arguments.model.join(name);
        if from.exists() {
            let mut file = open_regular(&from).with_context(|| from.display().to_string())?;
            let to = directory.partial().join(name);
            let copied = write_file(&to, |to| std::io::copy(&mut file, to).map(drop));
            let record = copied.with_context(|| format!("copying {}", from.display()))?;
            manifest.add(name, record);
        }
    }
    manifest.write(directory.partial())?;
    directory.finish().with_context(place)?;
    outln!("{}", out.display())
}

/// The solver asked for; options that are not given stay as they are.
fn solver(arguments: &Arguments, before: SolverConfig) -> anyhow::Result<SolverConfig> {
    let name = Value::from(arguments.solver.as_str());
    let name: SolverName = serde_json::from_value(name).context("--solver")?;
    let mut options = before.options;
    if let Some(text) = &arguments.iterations {
        if !name.reads(SolverOption::Iterations) {
            bail!("--iterations: {} takes none", arguments.solver);
        }
        options.iterations = iterations(text).context("--iterations")?;
    }
    if let Some(order) = arguments.predictor_order {
        if !name.reads(SolverOption::PredictorOrder) {
            bail!("--predictor-order: {} has none", arguments.solver);
        }
        options.predictor_order = order;
    }
    Ok(SolverConfig { name, options })
}

/// Corrections as written: one number, or one for each layer.
pub(crate) fn iterations(text: &str) -> anyhow::Result<IterationSchedule> {
    let numbers: Vec<usize> = text
        .split(',')
        .map(|word| word.trim().parse())
        .collect::<Result<_, _>>()
        .with_context(|| format!("{text:?}; expected 3, or 3,1,0"))?;
    Ok(match numbers.as_slice() {
        [one] => IterationSchedule::Uniform(*one),
        _ => IterationSchedule::PerLayer(numbers),
    })
}
