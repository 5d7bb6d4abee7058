//! `[distill]`: the teacher, and the weights of its loss terms.

use std::path::{Path, PathBuf};

use iiet_train::{ModelSection, RunConfig, TrainError};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::DistillError;

/// `[distill]`: `loss = a CE + b T^2 KL(teacher || student) + gamma SmoothL1`, each per token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillSection {
    /// The teacher's model directory.
    pub teacher: PathBuf,
    /// blake3 of its configuration and weights, in hexadecimal, so that a resumed run uses the same teacher.
    pub teacher_hash: String,
    /// `a`, the weight of the cross-entropy with the text.
    #[serde(default = "one")]
    pub cross_entropy: f64,
    /// `b`, the weight of the divergence from the teacher.
    #[serde(default = "one")]
    pub divergence: f64,
    /// `T`, the temperature of both distributions in the divergence.
    #[serde(default = "one")]
    pub temperature: f64,
    /// `gamma`, the weight of the distance between the layers' outputs; 5 in the paper's experiments.
    #[serde(default)]
    pub smooth_l1: f64,
}

fn one() -> f64 {
    1.0
}

impl DistillSection {
    /// The section's name.
    pub const NAME: &'static str = "distill";

    /// The section of a configuration; none if there is no teacher.
    ///
    /// # Errors
    ///
    /// [`DistillError::Train`] for a section of another objective, [`DistillError::Section`] for an invalid
    /// key or value.
    pub fn of(config: &RunConfig) -> Result<Option<Self>, DistillError> {
        let Some((_, table)) = config.objective_section(&[Self::NAME])? else {
            return Ok(None);
        };
        let section: Result<Self, _> = Value::Table(table.clone()).try_into();
        let section = section.map_err(|error| DistillError::Section {
            reason: error.message().to_owned(),
        })?;
        section.validate()?;
        Ok(Some(section))
    }

    /// All keys with their values.
    pub(crate) fn table(&self) -> Table {
        Table::try_from(self).expect("invariant: the section serialises as TOML")
    }

    /// Whether the loss has terms of the teacher.
    pub(crate) fn asks(&self) -> bool {
        self.divergence > 0.0 || self.smooth_l1 > 0.0
    }

    /// A student keeps its teacher's solver, and a teacher's distribution takes the place of smoothed labels.
    pub(crate) fn check(&self, config: &RunConfig) -> Result<(), TrainError> {
        let refuse = |key, found, allowed: &str| {
            Err(TrainError::Value {
                key,
                found,
                allowed: allowed.to_owned(),
            })
        };
        if let Some(stage) = config.train.stages.first() {
            let found = format!("a list that begins with {}", stage.solver);
            return refuse(
                "train.stages",
                found,
                "a student keeps its solver; allowed: none",
            );
        }
        let smoothing = config.train.label_smoothing;
        if smoothing > 0.0 && self.asks() {
            let allowed = "allowed: 0, unless distill.divergence and distill.smooth_l1 are 0";
            return refuse("train.label_smoothing", smoothing.to_string(), allowed);
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), TrainError> {
        let refuse = |key, found: f64, allowed: &str| {
            Err(TrainError::Value {
                key,
                found: found.to_string(),
                allowed: allowed.to_owned(),
            })
        };
        for (key, value) in [
            ("distill.cross_entropy", self.cross_entropy),
            ("distill.divergence", self.divergence),
            ("distill.smooth_l1", self.smooth_l1),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return refuse(key, value, "allowed: finite, 0 or above");
            }
        }
        // The backward pass starts from the hidden states' term.
        if self.cross_entropy + self.divergence == 0.0 {
            let allowed = "allowed: above 0, unless distill.divergence is";
            return refuse("distill.cross_entropy", self.cross_entropy, allowed);
        }
        if !(0.01..=100.0).contains(&self.temperature) {
            let allowed = "allowed: 0.01 to 100";
            return refuse("distill.temperature", self.temperature, allowed);
        }
        Ok(())
    }
}

/// The configuration of a student of such a model: a file without `[model]`, `train.init` and the teacher. Its sizes and
/// initial weights are the teacher's; its schedule is chosen later.
///
/// # Errors
///
/// [`DistillError::Train`] if the file cannot be read, or if it or one of the assignments of `sets` contains
/// a key that the teacher determines; [`DistillError::Section`].
pub fn load_student(
    path: &Path,
    model: &ModelSection,
    (teacher, teacher_hash): (&Path, &str),
    sets: &[String],
) -> Result<RunConfig, DistillError> {
    let section = Value::try_from(model);
    let section = section.expect("invariant: the section serialises as TOML");
    let teacher = Value::String(teacher.display().to_string());
    let table = |entries: &[(&str, Value)]| {
        let entries = entries.iter().cloned();
        Value::Table(
            entries
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    };
    let given = Table::from_iter([
        ("model".to_owned(), section),
        ("train".to_owned(), table(&[("init", teacher.clone())])),
        (
            DistillSection::NAME.to_owned(),
            table(&[("teacher", teacher), ("teacher_hash", teacher_hash.into())]),
        ),
    ]);
    let config = RunConfig::load_given(path, &given, "the teacher", sets)?;
    if let Some(section) = DistillSection::of(&config)? {
        section.check(&config)?;
    }
    Ok(config)
}
