//! What a run minimises.

use std::fmt::Debug;

use burn::tensor::Device;
use iiet_model::{CrossEntropy, Objective};
use toml::Table;

use crate::evaluate::BatchTensors;
use crate::{RunConfig, TrainError};

/// The name of the term that is the cross-entropy with the text.
pub const CROSS_ENTROPY: &str = "cross_entropy";

/// The loss of a run.
pub trait TrainingObjective: Debug + Send {
    /// The same loss, with whatever it asks, such as a teacher, on a device.
    fn on(&self, device: &Device) -> Box<dyn TrainingObjective>;

    /// The loss of a micro-batch: a sum over its tokens.
    fn of_batch(&self, batch: &BatchTensors) -> Box<dyn BatchObjective>;

    /// Its own section of the configuration: the name, and every key with its value, those left at
    /// their defaults included. It belongs to the run's identity: a resumed run must have the same.
    fn section(&self) -> Option<(&'static str, Table)> {
        None
    }

    /// Whether a run can be trained with it.
    ///
    /// # Errors
    ///
    /// [`TrainError`] with the key, what was found and what is allowed.
    fn check(&self, _config: &RunConfig) -> Result<(), TrainError> {
        Ok(())
    }

    /// What it takes besides the trained model.
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
}

/// The loss of one micro-batch.
pub trait BatchObjective: Objective {
    /// The terms by name, once the loss has been computed: sums in nats over tokens, without the
    /// weights that they have in the loss, [`CROSS_ENTROPY`] among them. None if that is the loss.
    fn terms(&mut self) -> Vec<(&'static str, f64)>;
}

/// Memory and work of another model, such as a teacher.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Footprint {
    /// Bytes of parameters.
    pub bytes: u64,
    /// Floating-point operations a token.
    pub flops_per_token: f64,
}

/// Cross-entropy with the next token.
#[derive(Debug, Clone, Copy)]
pub struct NextToken;

impl TrainingObjective for NextToken {
    fn on(&self, _: &Device) -> Box<dyn TrainingObjective> {
        Box::new(Self)
    }

    fn of_batch(&self, batch: &BatchTensors) -> Box<dyn BatchObjective> {
        Box::new(CrossEntropy {
            targets: batch.targets.clone(),
            weights: batch.weights.clone(),
        })
    }
}

impl BatchObjective for CrossEntropy {
    fn terms(&mut self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}
