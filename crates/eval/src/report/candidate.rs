//! Models whose directories have been looked into: what is known before any weights are read.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use iiet_model::{available_memory, quantisation, weight_bytes};
use iiet_ode::{Options, SolverConfig};
use serde::Serialize;

use super::cost::PlainCost;
use super::kind::Kind;
use super::sides::Sides;
use super::speed::Workload;
use crate::error::EvalError;
use crate::evaluation::{Prepared, Settings};

/// A stack of layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stack {
    /// Its solver, as the configuration names it.
    pub solver: &'static str,
    /// Corrections of each layer, for a solver that takes any.
    pub iterations: Option<Vec<usize>>,
    /// Layers.
    pub layers: usize,
}

impl Stack {
    pub(super) fn of(solver: &SolverConfig, layers: usize) -> Self {
        let schedule = solver.iterations();
        Self {
            solver: solver.name(),
            iterations: schedule.map(|schedule| schedule.per_layer(layers)),
            layers,
        }
    }
}

/// What a model's small files say.
pub(super) struct Outline {
    pub stacks: Sides<Stack>,
    pub d_model: usize,
    pub d_ff: usize,
    pub context: usize,
    pub vocab_size: usize,
    pub parameters: u64,
    pub costs: Sides<PlainCost>,
    /// What identifies the tokenizer.
    pub tokenizer: Vec<u8>,
}

/// A model that is to be compared.
pub(super) struct Candidate {
    pub path: PathBuf,
    pub outline: Outline,
    /// Bytes of the weight files.
    pub weight_bytes: u64,
    /// Whether matrices of 8 or 4 bits are among them, which stay so in memory.
    packed: bool,
}

impl Candidate {
    pub(super) fn open<K: Kind>(path: &Path, device: &Device) -> Result<Self, EvalError> {
        Ok(Self {
            path: path.to_owned(),
            outline: K::outline(path, device)?,
            weight_bytes: weight_bytes(path)?,
            packed: quantisation(path)?.is_some(),
        })
    }

    /// Weights in f32, and keys and values of a workload for full contexts.
    fn memory(&self, workload: &Workload) -> u64 {
        let Workload { batch, beam, .. } = *workload;
        let cache = |cost: &PlainCost, rows: usize| {
            let tokens = self.outline.context.saturating_mul(rows) as u64;
            cost.cache_bytes.saturating_mul(tokens)
        };
        let cache = match &self.outline.costs {
            Sides::One(cost) => cache(cost, batch),
            Sides::Two { encoder, decoder } => {
                cache(encoder, batch).saturating_add(cache(decoder, batch.saturating_mul(beam)))
            }
        };
        let weights = match self.packed {
            true => self.weight_bytes,
            false => size_of::<f32>() as u64 * self.outline.parameters,
        };
        cache.saturating_add(weights)
    }
}

/// A workload that fits the smallest context.
pub(super) fn workload<K: Kind>(
    candidates: &[Candidate],
    tasks: &[Prepared],
) -> Result<Workload, EvalError> {
    let smallest = candidates.iter().min_by_key(|model| model.outline.context);
    let smallest = smallest.ok_or(EvalError::Nothing { of: "model" })?;
    let context = smallest.outline.context;
    K::workload(context, tasks).ok_or_else(|| EvalError::Context {
        model: smallest.path.clone(),
        context,
    })
}

pub(super) fn check_memory(candidates: &[Candidate], workload: &Workload) -> Result<(), EvalError> {
    let needed = candidates.iter().map(|model| model.memory(workload));
    let (needed, available) = (needed.fold(0, u64::saturating_add), available_memory());
    match needed <= available {
        true => Ok(()),
        false => Err(EvalError::Memory {
            models: candidates.len(),
            needed,
            available,
        }),
    }
}

/// What a reader should know before comparing.
pub(super) fn notes(candidates: &[Candidate], settings: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    if differ(candidates, |model| &model.outline.tokenizer) {
        notes.push(
            "The tokenizers differ: bits per byte, accuracies and scores of texts compare, figures by the \
             token (costs, tokens/s) do not."
                .to_owned(),
        );
    }
    if differ(candidates, |model| &model.outline.context) {
        notes.push(
            "The contexts differ: a model with a shorter one sees less of a long text, and FLOPs are \
             at each model's own."
                .to_owned(),
        );
    }
    if let Some(limit) = settings.limit {
        notes.push(format!(
            "The first {limit} documents of each task at most; its order may not be random."
        ));
    }
    notes
}

fn differ<T: PartialEq>(candidates: &[Candidate], of: fn(&Candidate) -> &T) -> bool {
    candidates
        .windows(2)
        .any(|pair| of(&pair[0]) != of(&pair[1]))
}
