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
use iiet_model::{EncoderDecoder, LanguageModel, Observer, Side, Source};
use iiet_ode::{Layer, Options, SolverConfig};
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
    /// For each correction, the sums over sequences.
    sums: Vec<Vec<Sums>>,
    sequences: u64,
    tokens: u64,
}

/// Sums over sequences of `w` tokens with the mean change `m`: the mean over all tokens is a ratio of sums.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    w: f64,
    wm: f64,
    ww: f64,
    wwm: f64,
    wwmm: f64,
}

impl Sums {
    fn add(&mut self, w: f64, m: f64) {
        self.w += w;
        self.wm += w * m;
        self.ww += w * w;
        self.wwm += w * w * m;
        self.wwmm += w * w * m * m;
    }

    fn mean(&self) -> f64 {
        self.wm / self.w
    }

    /// The standard error of the ratio over `n` sequences (Cochran, *Sampling Techniques*, section 2.11): for
    /// sequences of one length that of a mean.
    fn standard_error(&self, n: f64) -> f64 {
        let mean = self.mean();
        let squares = self.wwmm - 2.0 * mean * self.wwm + mean * mean * self.ww;
        (squares.max(0.0) * n / (n - 1.0)).sqrt() / self.w
    }
}

impl InfluenceMeter {
    /// A measurement without data.
    ///
    /// # Errors
    ///
    /// [`DistillError::NoCorrections`] if no layer of the model has any.
    pub fn new(model: &LanguageModel) -> Result<Self, DistillError> {
        let config = model.config();
        Ok(Self::empty(&corrections(&config.solver, config.n_layers)?))
    }

    /// A measurement of one side of an encoder-decoder.
    ///
    /// # Errors
    ///
    /// [`DistillError::NoCorrections`] if no layer of the side has any.
    pub fn of_side(model: &EncoderDecoder, side: Side) -> Result<Self, DistillError> {
        let config = model.config();
        let stack = config.stack(side);
        Ok(Self::empty(&corrections(&stack.solver, stack.n_layers)?))
    }

    fn empty(corrections: &[usize]) -> Self {
        Self {
            sums: corrections
                .iter()
                .map(|r| vec![Sums::default(); *r])
                .collect(),
            sequences: 0,
            tokens: 0,
        }
    }

    /// Adds one batch.
    ///
    /// # Shapes
    ///
    /// - ids: `[batch, seq]`, below `vocab_size`
    pub fn add(&mut self, model: &LanguageModel, ids: Tensor<2, Int>) {
        let [batch, seq] = ids.dims();
        let mut pass = model.pass(&ids);
        let mut changes = self.changes(vec![seq; batch]);
        model.walk(
            model.start(ids),
            model.sizes().n_layers,
            &mut pass,
            &mut changes,
        );
    }

    /// Adds one batch of sources with their targets; padding does not count.
    ///
    /// # Shapes
    ///
    /// - source: `[batch, source]`
    /// - ids: `[batch, target]`, below `vocab_size`, of these lengths
    pub fn add_pairs(
        &mut self,
        model: &EncoderDecoder,
        side: Side,
        source: &Source,
        (ids, lengths): (Tensor<2, Int>, Vec<usize>),
    ) {
        match side {
            Side::Encoder => {
                let mut changes = self.changes(source.lengths().to_vec());
                model.watch(source, ids, &mut changes, &mut ());
            }
            Side::Decoder => {
                let mut changes = self.changes(lengths);
                model.watch(source, ids, &mut (), &mut changes);
            }
        }
    }

    /// An observer of a batch of sequences of these lengths.
    fn changes(&mut self, lengths: Vec<usize>) -> Changes<'_> {
        self.sequences += lengths.len() as u64;
        self.tokens += lengths.iter().map(|length| *length as u64).sum::<u64>();
        Changes {
            sums: &mut self.sums,
            lengths,
            corrections: 0,
            previous: None,
        }
    }

    /// The table.
    pub fn finish(self) -> Influence {
        let n = self.sequences as f64;
        let table = |value: &dyn Fn(&Sums) -> f64| -> Vec<Vec<f64>> {
            let rows = self.sums.iter();
            rows.map(|row| row.iter().map(value).collect()).collect()
        };
        let standard_error = table(&|sums| sums.standard_error(n));
        Influence {
            tokens: self.tokens,
            sequences: self.sequences,
            influence: table(&Sums::mean),
            standard_error: standard_error
                .into_iter()
                .map(|row| row.into_iter().map(|e| (n > 1.0).then_some(e)).collect())
                .collect(),
        }
    }
}

/// Measures the change by each correction.
struct Changes<'a> {
    sums: &'a mut [Vec<Sums>],
    /// The tokens of each sequence of the batch.
    lengths: Vec<usize>,
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
            let sums = &mut self.sums[layer.index()][self.corrections];
            let changes = distance(previous, output);
            let seq = changes.len() / self.lengths.len();
            for (changes, length) in changes.chunks(seq).zip(&self.lengths) {
                let sum: f64 = changes[..*length].iter().copied().map(f64::from).sum();
                sums.add(*length as f64, sum / *length as f64);
            }
            self.corrections += 1;
        }
    }

    fn after(&mut self, _: Layer, _: &Tensor<3>) {
        (self.corrections, self.previous) = (0, None);
    }
}

/// The number of corrections of each of so many layers.
///
/// # Errors
///
/// [`DistillError::NoCorrections`] if no layer has any.
pub fn corrections(solver: &SolverConfig, n_layers: usize) -> Result<Vec<usize>, DistillError> {
    let schedule = solver.iterations();
    let corrections = schedule.map(|schedule| schedule.per_layer(n_layers));
    match corrections {
        Some(corrections) if corrections.iter().any(|r| *r > 0) => Ok(corrections),
        _ => Err(DistillError::NoCorrections {
            solver: solver.name(),
        }),
    }
}

/// `1 - cos(a, b)` of each token, one sequence after the other.
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
        .try_into_vec_as::<f32>()
        .expect("invariant: float tensors can be read as f32")
}
