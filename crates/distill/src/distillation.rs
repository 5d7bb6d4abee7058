//! The loss of a student: cross-entropy, divergence from the teacher, distance to the teacher's layers.
//!
//! ```text
//! L = sum_t c_t ( a CE_t + b T^2 KL(teacher_t || student_t) + gamma D_t )
//! D_t = mean over layers n and features of SmoothL1( y_n[t] - y_n^teacher[t] )
//! SmoothL1(d) = d^2 / 2 where |d| < 1, |d| - 1/2 elsewhere
//! ```
//!
//! The sum is divided by the number of tokens, as for cross-entropy alone. Gradients flow to the student
//! only. The teacher runs without autodiff, once per micro-batch. Only its last hidden states and, if gamma
//! is above 0, its layers' outputs are kept until the next; logits of either model exist for a chunk of
//! tokens at a time.
//!
//! Liu et al., *IIET*, EMNLP 2025 (arXiv 2509.22463), section 4.

use burn::tensor::{Device, Int, Tensor};
use iiet_data::Tokenizer;
use iiet_kernels::{DistillationMix, in_f32, linear_distillation};
use iiet_model::{EncoderDecoder, LanguageModel, Objective, model_hash};
use iiet_ode::Layer;
use iiet_train::{
    BatchObjective, BatchTensors, CROSS_ENTROPY, Footprint, NextToken, RunConfig, TrainError,
    TrainedModel, TrainingObjective,
};
use toml::Table;

use crate::{DistillError, DistillSection};

/// The objective of a configuration: distillation if it has a teacher, else cross-entropy.
///
/// # Errors
///
/// The errors of [`DistillSection::of`] and [`Distillation::open`].
pub fn objective_of(
    config: &RunConfig,
    device: &Device,
) -> Result<Box<dyn TrainingObjective>, DistillError> {
    Ok(match (DistillSection::of(config)?, &config.model.encoder) {
        (None, _) => Box::new(NextToken),
        (Some(section), None) => Box::new(Distillation::<LanguageModel>::open(&section, device)?),
        (Some(section), Some(_)) => {
            Box::new(Distillation::<EncoderDecoder>::open(&section, device)?)
        }
    })
}

/// The training objective of a student. The layers of an encoder-decoder that are compared are the decoder's.
#[derive(Debug)]
pub struct Distillation<M = LanguageModel> {
    teacher: M,
    section: DistillSection,
}

impl<M: TrainedModel> Distillation<M> {
    /// Opens the teacher of the section.
    ///
    /// # Errors
    ///
    /// [`DistillError::Model`], and [`DistillError::AnotherTeacher`] if its hash differs from the section's.
    pub fn open(section: &DistillSection, device: &Device) -> Result<Self, DistillError> {
        let found = model_hash(&section.teacher)?;
        if found != section.teacher_hash {
            return Err(DistillError::AnotherTeacher {
                path: section.teacher.clone(),
                found,
                wanted: section.teacher_hash.clone(),
            });
        }
        let teacher = M::read(&section.teacher, device)?;
        Ok(Self {
            teacher,
            section: section.clone(),
        })
    }

    /// The teacher.
    pub fn teacher(&self) -> &M {
        &self.teacher
    }

    /// Rejects a tokenizer whose token ids differ from the teacher's.
    ///
    /// # Errors
    ///
    /// [`DistillError::AnotherTokenizer`], [`DistillError::Data`].
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<(), DistillError> {
        let path = self.section.teacher.join("tokenizer.json");
        match Tokenizer::open(&path)?.vocab_hash() == tokenizer.vocab_hash() {
            true => Ok(()),
            false => Err(DistillError::AnotherTokenizer { path }),
        }
    }
}

impl<M: TrainedModel> TrainingObjective for Distillation<M> {
    fn on(&self, device: &Device) -> Box<dyn TrainingObjective> {
        Box::new(Self {
            teacher: self.teacher.copied_to(device),
            section: self.section.clone(),
        })
    }

    fn of_batch(&self, batch: &BatchTensors) -> Box<dyn BatchObjective> {
        if !self.section.asks() {
            return NextToken.of_batch(batch);
        }
        let mut states = States {
            layers: (self.section.smooth_l1 > 0.0).then(Vec::new),
            last: None,
        };
        self.teacher.loss_of(&batch.inner(), &mut states);
        let teacher_layers = states.layers.unwrap_or_default();
        Box::new(OfBatch {
            section: self.section.clone(),
            teacher: states.last.expect("invariant: set by the objective above"),
            share: 1.0 / teacher_layers.len() as f64,
            teacher_layers,
            targets: batch.targets.clone(),
            weights: batch.weights.clone(),
            parts: None,
            apart: None,
        })
    }

    fn section(&self) -> Option<(&'static str, Table)> {
        Some((DistillSection::NAME, self.section.table()))
    }

    fn check(&self, config: &RunConfig) -> Result<(), TrainError> {
        self.section.check(config)
    }

    fn footprint(&self) -> Footprint {
        let cost = self.teacher.step_cost();
        Footprint {
            bytes: cost.parameters * size_of::<f32>() as u64,
            flops_per_token: match self.section.asks() {
                // As if sources were as long as targets.
                true => cost.flops_per_token + cost.flops_per_source_token,
                false => 0.0,
            },
        }
    }
}

/// The teacher's states on a batch, collected by an objective without a loss.
struct States {
    /// The layers' outputs, if required.
    layers: Option<Vec<Tensor<3>>>,
    /// The last hidden states and the projection.
    last: Option<(Tensor<3>, Tensor<2>)>,
}

impl Objective for States {
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1> {
        let nothing = Tensor::zeros([1], &hidden.device());
        self.last = Some((hidden, projection));
        nothing
    }

    fn of_layer(&mut self, _: Layer, y: &Tensor<3>) -> Option<Tensor<1>> {
        if let Some(layers) = &mut self.layers {
            layers.push(y.clone());
        }
        None
    }
}

/// The loss of one micro-batch.
struct OfBatch {
    section: DistillSection,
    /// The teacher's last hidden states and projection.
    teacher: (Tensor<3>, Tensor<2>),
    /// The teacher's layer outputs; empty if gamma is 0.
    teacher_layers: Vec<Tensor<3>>,
    /// The weight of one layer in the mean over layers.
    share: f64,
    targets: Tensor<2, Int>,
    weights: Tensor<2>,
    /// Cross-entropy and divergence, once computed.
    parts: Option<Tensor<1>>,
    /// `sum_t c_t D_t` so far.
    apart: Option<Tensor<1>>,
}

impl Objective for OfBatch {
    fn of_hidden(&mut self, hidden: Tensor<3>, projection: Tensor<2>) -> Tensor<1> {
        let [batch, seq, d_model] = hidden.dims();
        let rows = batch * seq;
        let (of_teacher, teacher_projection) = self.teacher.clone();
        let loss = linear_distillation(
            [hidden.reshape([rows, d_model]), projection],
            [of_teacher.reshape([rows, d_model]), teacher_projection],
            self.targets.clone().reshape([rows]),
            self.weights.clone().reshape([rows]),
            DistillationMix {
                cross_entropy: self.section.cross_entropy,
                divergence: self.section.divergence,
                temperature: self.section.temperature,
            },
        );
        self.parts = Some(loss.parts);
        loss.loss
    }

    fn of_layer(&mut self, layer: Layer, y: &Tensor<3>) -> Option<Tensor<1>> {
        let teacher = self.teacher_layers.get(layer.index())?.clone();
        let apart = smooth_l1(y.clone(), teacher, self.weights.clone()) * self.share;
        let known = apart.clone().inner();
        self.apart = Some(match self.apart.take() {
            Some(sum) => sum + known,
            None => known,
        });
        Some(apart * self.section.smooth_l1)
    }
}

impl BatchObjective for OfBatch {
    fn terms(&mut self) -> Vec<(&'static str, f64)> {
        let read = |tensor: &Option<Tensor<1>>| {
            let values = tensor.clone().map(Tensor::try_into_vec_as::<f32>);
            let values = values.transpose();
            values
                .expect("invariant: float tensors can be read as f32")
                .unwrap_or_default()
        };
        let names = [CROSS_ENTROPY, "divergence", "smooth_l1"];
        let sums = [read(&self.parts), read(&self.apart)].concat();
        let sums = sums.into_iter().map(f64::from);
        names.into_iter().zip(sums).collect()
    }
}

/// `sum_t weights[t] * mean over features of SmoothL1(a[t] - b[t])`.
///
/// # Shapes
///
/// - a and b: `[batch, seq, d_model]`
/// - weights: `[batch, seq]`
/// - output: `[1]`
fn smooth_l1(a: Tensor<3>, b: Tensor<3>, weights: Tensor<2>) -> Tensor<1> {
    let apart = (in_f32(a) - Tensor::from_inner(in_f32(b))).abs();
    // With m = min(|d|, 1), m^2 / 2 + (|d| - m) covers both branches.
    let near = apart.clone().clamp_max(1.0);
    let distance = near.clone().square() * 0.5 + (apart - near);
    let [batch, seq, _] = distance.dims();
    let of_token = distance.mean_dim(2).reshape([batch, seq]);
    (of_token * weights).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{DType, TensorData};

    /// Two tokens of three features, with differences to the teacher that are small, large and negative.
    fn value(of: [f64; 6], weights: [f64; 2]) -> (f64, Vec<f64>) {
        let device = Device::default();
        let tensor = |values: &[f64], shape: Vec<usize>| {
            let data = TensorData::new::<f64, _>(values.to_vec(), shape);
            Tensor::<3>::from_data(data, (&device, DType::F64))
        };
        let a = tensor(&of, vec![1, 2, 3]).autodiff().require_grad();
        let b = tensor(&[1.0; 6], vec![1, 2, 3]);
        let weights = tensor(&weights, vec![1, 1, 2]).reshape([1, 2]);
        let sum = smooth_l1(a.clone(), b, weights);
        let gradient = a.grad(&sum.backward()).unwrap();
        let gradient = gradient.try_into_vec_as::<f64>().unwrap();
        (sum.into_scalar::<f64>(), gradient)
    }

    #[test]
    fn smooth_l1_equals_values_computed_by_hand() {
        // Differences 0.5, 3, -2 of the first token, -0.25, 0, 1 of the second.
        let (sum, gradient) = value([1.5, 4.0, -1.0, 0.75, 1.0, 2.0], [1.0, 0.5]);
        let first = (0.125 + 2.5 + 1.5) / 3.0;
        let second = (0.03125 + 0.0 + 0.5) / 3.0;
        assert!((sum - (first + 0.5 * second)).abs() < 1e-12, "{sum}");
        let expected = [0.5, 1.0, -1.0, -0.125, 0.0].map(|d| d / 3.0);
        for (a, b) in gradient.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{gradient:?}");
        }
    }

    #[test]
    fn smooth_l1_gradient_equals_finite_differences() {
        let at = [1.3, 4.2, -1.7, 0.6, 1.1, 2.9];
        let (_, gradient) = value(at, [0.7, 1.3]);
        let step = 1e-6;
        for i in 0..at.len() {
            let moved = |by: f64| {
                let mut at = at;
                at[i] += by;
                value(at, [0.7, 1.3]).0
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope - gradient[i]).abs() < 1e-8, "{slope} {gradient:?}");
        }
    }
}
