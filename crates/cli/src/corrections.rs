//! `--iterations` and `--tolerance`: how the commands that ask a model let it take its corrections.

use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use iiet_model::{CorrectionCount, LanguageModel, ModelConfig};
use iiet_ode::{IterationSchedule, SolverConfig};
use iiet_train::override_solver;
use toml::{Table, Value};

use crate::print::errln;

/// Instead of what the model's configuration says.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CorrectionArguments {
    /// Corrections in each layer instead of the model's: 3, or one number a layer, 3,1,0. There may be
    /// more than the model was trained with.
    #[arg(long, value_name = "N|LIST", value_parser = schedule)]
    iterations: Option<IterationSchedule>,
    /// Stop a token's corrections in a layer once one changes its state by no more than X times its
    /// size.
    #[arg(long, value_name = "X")]
    tolerance: Option<f64>,
}

impl CorrectionArguments {
    /// The configuration of a model that takes its corrections so.
    pub(crate) fn configure(&self, config: ModelConfig) -> anyhow::Result<ModelConfig> {
        let solver = self.solver(&config.solver)?;
        let config = ModelConfig { solver, ..config };
        config.validate()?;
        Ok(config)
    }

    /// A model with its weights, that takes its corrections so.
    pub(crate) fn apply(&self, model: LanguageModel) -> anyhow::Result<LanguageModel> {
        let solver = self.solver(&model.config().solver)?;
        Ok(model.with_solver_options(&solver)?)
    }

    /// What was asked for, in words; `None` for the model as it is.
    pub(crate) fn describe(&self) -> Option<String> {
        let schedule = self.iterations.as_ref();
        let parts = [
            schedule.map(|schedule| format!("iterations={}", numbers(schedule))),
            self.tolerance
                .map(|tolerance| format!("tolerance={tolerance}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// Refuses them for a sequence-to-sequence model.
    pub(crate) fn refuse(&self, model: &Path) -> anyhow::Result<()> {
        ensure!(
            self.describe().is_none(),
            "--iterations and --tolerance: for language models; {} is a sequence-to-sequence model, with \
             a schedule for each side in its config.json",
            model.display()
        );
        Ok(())
    }

    fn solver(&self, of_model: &SolverConfig) -> anyhow::Result<SolverConfig> {
        let mut table = Table::new();
        let mut given = "";
        if let Some(tolerance) = self.tolerance {
            table.insert("tolerance".into(), tolerance.into());
            given = "--tolerance";
        }
        if let Some(schedule) = &self.iterations {
            let schedule = Value::try_from(schedule)?;
            table.insert("iterations".into(), schedule);
            given = "--iterations";
        }
        override_solver(of_model, &Value::Table(table))
            .map_err(|reason| anyhow!("{given}: the model's solver has no such option: {reason}"))
    }
}

/// A schedule as written: one number, or one for each layer.
pub(crate) fn schedule(text: &str) -> anyhow::Result<IterationSchedule> {
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

fn numbers(schedule: &IterationSchedule) -> String {
    match schedule {
        IterationSchedule::Uniform(r) => r.to_string(),
        IterationSchedule::PerLayer(r) => {
            let r: Vec<String> = r.iter().map(ToString::to_string).collect();
            r.join(",")
        }
    }
}

/// Says how many corrections were taken, where that was counted.
pub(crate) fn report(count: CorrectionCount) {
    if let Some(mean) = count.mean() {
        errln!("corrections: {mean:.3} a token and layer, of those that the schedule allows");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_numbers_or_lists() {
        assert_eq!(schedule("3").unwrap(), IterationSchedule::Uniform(3));
        let list = IterationSchedule::PerLayer(vec![3, 1, 0]);
        assert_eq!(schedule("3, 1,0").unwrap(), list);
        assert_eq!(numbers(&list), "3,1,0");
        for text in ["", "x", "3,", "-1"] {
            let error = schedule(text).unwrap_err().to_string();
            assert!(error.contains("expected 3, or 3,1,0"), "{error}");
        }
    }
}
