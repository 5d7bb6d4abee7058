//! The influence of each correction on a layer's output.
//!
//! ```text
//! I[n,i] = mean over tokens of 1 - cos( yhat_n^(i-1), yhat_n^(i) )         n = 1..N, i = 1..r_n
//! ```
//!
//! `yhat_n^(i)` is the output that layer n would give if it stopped after i corrections; earlier
//! layers use all of theirs.
//!
//! Liu et al., *IIET*, EMNLP 2025 (arXiv 2509.22463), section 4.

use burn::tensor::{Int, Tensor};
use iiet_model::{LanguageModel, ModelConfig, Observer};
use iiet_ode::{Layer, Options};
use serde::{Deserialize, Serialize};

use crate::DistillError;

/// The influence of every correction of a model, measured on some text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Influence {
    /// Number of tokens.
    pub tokens: u64,
    /// Number of sequences.
    pub sequences: u64,
    /// `I[n,i]` at `[n - 1][i - 1]`, between 0 and 2: one row per layer, one value per correction.
    pub influence: Vec<Vec<f64>>,
    /// The standard error of each value, taken over the sequences' means, because the tokens of a
    /// sequence are not independent; `None` for a single sequence.
    pub standard_error: Vec<Vec<Option<f64>>>,
}

/// A running measurement: a few numbers per correction, independent of the length of the text.
#[derive(Debug, Clone)]
pub struct InfluenceMeter {
    /// For each correction, the running mean over sequences and the sum of squared deviations
    /// (Welford, 1962).
    moments: Vec<Vec<(f64, f64)>>,
    sequences: u64,
    seq: Option<usize>,
}

impl InfluenceMeter {
    /// A measurement without data.
    ///
    /// # Errors
    ///
    /// [`DistillError::NoCorrections`] if no layer of the model has any.
    pub fn new(model: &LanguageModel) -> Result<Self, DistillError> {
        let corrections = corrections(&model.config())?;
        Ok(Self {
            moments: corrections.iter().map(|r| vec![(0.0, 0.0); *r]).collect(),
            sequences: 0,
            seq: None,
        })
    }

    /// Adds one batch.
    ///
    /// The sequences of all batches must have the same length, so that the mean over sequences is
    /// the mean over tokens.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    ///
    /// # Panics
    ///
    /// If `seq` differs from that of earlier batches.
    pub fn add(&mut self, model: &LanguageModel, ids: Tensor<2, Int>) {
        let [batch, seq] = ids.dims();
        assert_eq!(
            *self.seq.get_or_insert(seq),
            seq,
            "sequences must have equal lengths"
        );
        let mut pass = model.pass(&ids);
        let mut changes = Changes {
            moments: &mut self.moments,
            before: self.sequences,
            corrections: 0,
            previous: None,
        };
        model.walk(
            model.start(ids),
            model.sizes().n_layers,
            &mut pass,
            &mut changes,
        );
        self.sequences += batch as u64;
    }

    /// The table.
    pub fn finish(self) -> Influence {
        let n = self.sequences as f64;
        let table = |value: &dyn Fn(&(f64, f64)) -> f64| -> Vec<Vec<f64>> {
            let rows = self.moments.iter();
            rows.map(|row| row.iter().map(value).collect()).collect()
        };
        let standard_error = table(&|(_, squares)| (squares / (n - 1.0) / n).sqrt());
        Influence {
            tokens: self.sequences * self.seq.unwrap_or(0) as u64,
            sequences: self.sequences,
            influence: table(&|(mean, _)| *mean),
            standard_error: standard_error
                .into_iter()
                .map(|row| row.into_iter().map(|e| (n > 1.0).then_some(e)).collect())
                .collect(),
        }
    }
}

/// Measures the change by each correction.
struct Changes<'a> {
    moments: &'a mut [Vec<(f64, f64)>],
    /// Number of sequences before this batch.
    before: u64,
    /// Number of corrections of the layer so far.
    corrections: usize,
    /// The output before the last correction.
    previous: Option<Tensor<3>>,
}

impl<M> Observer<M> for Changes<'_> {
    fn watches_corrections(&self) -> bool {
        true
    }

    fn correction(&mut self, layer: Layer, output: Tensor<3>) {
        if let Some(previous) = self.previous.replace(output.clone()) {
            let moments = &mut self.moments[layer.index()][self.corrections];
            add_to(moments, self.before, &distance(previous, output));
            self.corrections += 1;
        }
    }

    fn after(&mut self, _: Layer, _: &Tensor<3>) {
        (self.corrections, self.previous) = (0, None);
    }
}

/// The number of corrections of each layer of a model.
///
/// # Errors
///
/// [`DistillError::NoCorrections`] if no layer has any.
pub fn corrections(config: &ModelConfig) -> Result<Vec<usize>, DistillError> {
    let schedule = config.solver.iterations();
    let corrections = schedule.map(|schedule| schedule.per_layer(config.n_layers));
    match corrections {
        Some(corrections) if corrections.iter().any(|r| *r > 0) => Ok(corrections),
        _ => Err(DistillError::NoCorrections {
            solver: config.solver.name(),
        }),
    }
}

/// The mean of `1 - cos(a, b)` over the tokens of each sequence.
///
/// Computed as half the squared distance of the unit vectors: subtracting from one would lose the
/// small changes of late corrections to rounding.
fn distance(a: Tensor<3>, b: Tensor<3>) -> Vec<f32> {
    let unit = |x: Tensor<3>| {
        let norm = x.clone().square().sum_dim(2).sqrt().clamp_min(1e-12);
        x / norm
    };
    let apart = (unit(a) - unit(b)).square().sum_dim(2).mul_scalar(0.5);
    apart
        .mean_dim(1)
        .try_into_vec_as::<f32>()
        .expect("invariant: float tensors can be read as f32")
}

fn add_to((mean, squares): &mut (f64, f64), before: u64, values: &[f32]) {
    for (n, value) in (before + 1..).zip(values) {
        let value = f64::from(*value);
        let off = value - *mean;
        *mean += off / n as f64;
        *squares += off * (value - *mean);
    }
}
