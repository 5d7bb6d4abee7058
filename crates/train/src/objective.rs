//! Training objectives.

use std::fmt::Debug;

use burn::tensor::Device;
use iiet_model::{CrossEntropy, Objective, SmoothedCrossEntropy};
use toml::Table;

use crate::evaluate::BatchTensors;
use crate::{RunConfig, TrainError};

/// The name of the loss's cross-entropy term.
pub const CROSS_ENTROPY: &str = "cross_entropy";

/// The objective of a run.
pub trait TrainingObjective: Debug + Send {
    /// The same objective with its models, such as a teacher, on another device.
    fn on(&self, device: &Device) -> Box<dyn TrainingObjective>;

    /// The loss of a micro-batch: a sum over its tokens.
    fn of_batch(&self, batch: &BatchTensors) -> Box<dyn BatchObjective>;

    /// The objective's section of the configuration: its name, and every key with its value,
    /// including defaults. It is part of the run's identity: a resumed run must have the same.
    fn section(&self) -> Option<(&'static str, Table)> {
        None
    }

    /// Checks that a run can be trained with this objective.
    ///
    /// # Errors
    ///
    /// [`TrainError`] with the key, its value and the allowed values.
    fn check(&self, _config: &RunConfig) -> Result<(), TrainError> {
        Ok(())
    }

    /// The cost of the objective in addition to the trained model.
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
}

/// The loss of one micro-batch.
pub trait BatchObjective: Objective {
    /// The loss's terms by name, after the loss has been computed: sums in nats over tokens,
    /// without their weights, including [`CROSS_ENTROPY`]. None if that is the only term.
    fn terms(&mut self) -> Vec<(&'static str, f64)>;
}

/// Memory and work of a further model, such as a teacher.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Footprint {
    /// Bytes of parameters.
    pub bytes: u64,
    /// Floating-point operations per token.
    pub flops_per_token: f64,
}

/// Cross-entropy with the next token, with label smoothing if it is configured.
#[derive(Debug, Clone, Copy)]
pub struct NextToken;

impl TrainingObjective for NextToken {
    fn on(&self, _: &Device) -> Box<dyn TrainingObjective> {
        Box::new(Self)
    }

    fn of_batch(&self, batch: &BatchTensors) -> Box<dyn BatchObjective> {
        let (targets, weights) = (batch.targets.clone(), batch.weights.clone());
        match batch.label_smoothing {
            0.0 => Box::new(CrossEntropy { targets, weights }),
            s => Box::new(SmoothedCrossEntropy::new(targets, weights, s)),
        }
    }
}

impl BatchObjective for CrossEntropy {
    fn terms(&mut self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// Beside the loss, the cross-entropy without smoothing.
impl BatchObjective for SmoothedCrossEntropy {
    fn terms(&mut self) -> Vec<(&'static str, f64)> {
        let value = self.cross_entropy.take();
        let value = value.map(|sum| f64::from(sum.into_scalar::<f32>()));
        value.into_iter().map(|sum| (CROSS_ENTROPY, sum)).collect()
    }
}
