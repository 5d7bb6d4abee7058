//! Data parallelism: a copy of the model and of its optimizer's state on each device.
//!
//! ```text
//! g_i = sum of the gradients of micro-batches i, i + N, i + 2N, ..    on device i of N
//! g   = sum_i g_i                                                     on every device
//! ```
//!
//! Losses are sums over tokens, so `g` equals the sum on one device, up to the order of additions. Every copy
//! then applies the same update `g`, so all copies stay bitwise identical without exchanging weights. With a sharded
//! optimiser each process updates its part of every parameter, and the parts are gathered.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

use burn::module::Param;
use burn::tensor::{Device, StreamId, Tensor, TensorData};
use iiet_data::{Batch, DataError};
use iiet_kernels::on_workers;
use iiet_model::{ParameterMapper, Role, map_parameters};

use super::Passes;
use crate::accuracy::Counting;
use crate::evaluate::batch_tensors;
use crate::gradients::AccumulatedGradients;
use crate::optimizer::ModelOptimizer;
use crate::ranks::{Exchange, Part};
use crate::{Devices, RankError, Ranks, TrainedModel, TrainingObjective};

/// The options of one device.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) device: Device,
    pub(super) objective: Box<dyn TrainingObjective>,
}

/// The state of one device.
#[derive(Debug)]
pub(super) struct Copy<M> {
    /// With autodiff.
    pub(super) model: M,
    pub(super) optimizer: ModelOptimizer,
}

/// The results of one device, or of all, on their micro-batches.
#[derive(Default)]
pub(super) struct Losses {
    /// The loss in nats, summed over tokens.
    pub(super) nats: f64,
    /// The loss's terms, likewise.
    pub(super) terms: BTreeMap<&'static str, f64>,
    /// Number of targets.
    pub(super) tokens: u64,
    /// Number of tokens of their sources.
    pub(super) source_tokens: u64,
    /// Those that were the most likely token, if they are counted.
    pub(super) right: u64,
}

/// Copies of a model and an optimizer that are on the first device, without autodiff.
pub(super) fn copies<M: TrainedModel>(
    model: &M,
    optimizer: ModelOptimizer,
    devices: &Devices,
) -> Vec<Copy<M>> {
    let on = |device: &Device, optimizer: ModelOptimizer| Copy {
        model: model.copied_to(device).train(),
        optimizer,
    };
    let others = devices.others().iter();
    let others: Vec<Copy<M>> = others
        .map(|device| on(device, optimizer.on(device)))
        .collect();
    let mut copies = vec![on(devices.first(), optimizer)];
    copies.extend(others);
    copies
}

/// Runs the same function on each device in parallel. With one device, it runs on the kernels' threads,
/// because it consists of thousands of parallel loops. With several, each device has a thread that is not one
/// of the kernels', which must not wait for others.
pub(super) fn on_each<I: Send, O: Send>(
    workers: &mut [Worker],
    inputs: Vec<I>,
    work: impl Fn(&mut Worker, I) -> O + Sync,
) -> Vec<O> {
    let work = &work;
    let (first, others) = workers
        .split_first_mut()
        .expect("invariant: there is at least one device");
    let mut inputs = inputs.into_iter();
    let input = inputs.next().expect("invariant: one input per device");
    if others.is_empty() {
        return vec![on_workers(|| work(first, input))];
    }
    // A GPU backend has a queue per thread, and orders two queues by where a buffer was allocated, not by
    // which queue last wrote to it. So all work on a device is submitted to one queue, that of this thread.
    let queue = StreamId::current();
    thread::scope(|scope| {
        let others: Vec<_> = others
            .iter_mut()
            .zip(inputs)
            .map(|(worker, input)| scope.spawn(move || queue.executes(|| work(worker, input))))
            .collect();
        let mut outputs = vec![work(first, input)];
        for other in others {
            outputs.push(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        outputs
    })
}

impl Worker {
    /// The sums over this device's micro-batches, with their numbers in the step and one at a time in memory.
    ///
    /// The loss is multiplied by `scale`, a power of two, and so are its gradients. If an exchange is given, the
    /// gradients that are complete early go there.
    pub(super) fn gradients<M: TrainedModel>(
        &self,
        copy: &Copy<M>,
        own: impl Iterator<Item = (usize, Result<Batch, DataError>)>,
        passes: Passes,
        scale: f64,
        mut exchange: Option<&mut Exchange<'_>>,
    ) -> Result<(Losses, AccumulatedGradients), DataError> {
        let Passes {
            precision,
            recompute,
            accuracy,
            corrections,
            label_smoothing,
            dropout,
        } = passes;
        // In f32 these are the parameters themselves.
        let mut model = copy.model.clone().rounded(precision);
        if let Some(r) = corrections {
            model = model.with_corrections(r);
        }
        let (mut losses, mut gradients) = (Losses::default(), AccumulatedGradients::default());
        let mut own = own.peekable();
        while let Some((at, batch)) = own.next() {
            let complete = exchange.as_deref_mut().filter(|_| own.peek().is_none());
            let batch = batch_tensors(&batch?, &self.device)
                .smoothed(label_smoothing)
                .dropped(dropout.at(at))
                .scaled(scale);
            let mut objective = self.objective.of_batch(&batch);
            let (nats, right) = match accuracy {
                false => {
                    let objective = &mut *objective;
                    let nats = gradients.add_loss(&model, &batch, objective, recompute, complete);
                    (nats, 0)
                }
                true => {
                    let mut counting = Counting::new(&mut *objective, &batch);
                    let objective = &mut counting;
                    let nats = gradients.add_loss(&model, &batch, objective, recompute, complete);
                    (nats, counting.right())
                }
            };
            losses.add(Losses {
                nats,
                terms: objective.terms().into_iter().collect(),
                tokens: batch.tokens,
                source_tokens: batch.source_tokens(),
                right,
            });
        }
        losses.nats /= scale;
        losses.terms.values_mut().for_each(|sum| *sum /= scale);
        Ok((losses, gradients))
    }
}

impl<M: TrainedModel> Copy<M> {
    /// The state after one step of AdamW along the gradients multiplied by `scale`. It is updated in place if
    /// the parameters are not shared; otherwise they are copied.
    pub(super) fn updated(self, gradients: AccumulatedGradients, scale: f64, lr: f64) -> Self {
        let Self {
            model,
            mut optimizer,
        } = self;
        let model = optimizer.step(model, gradients, scale, lr);
        Self { model, optimizer }
    }

    /// The updated values of a rank's part of each parameter, which the model does not have yet.
    pub(super) fn updated_part(
        &mut self,
        gradients: AccumulatedGradients,
        scale: f64,
        lr: f64,
        part: Part,
    ) -> BTreeMap<String, Tensor<1>> {
        self.optimizer
            .step_part(&self.model, gradients, scale, lr, part)
    }

    /// The copy with other values of the named parameters.
    pub(super) fn with_values(self, by_name: BTreeMap<String, Vec<f32>>) -> Self {
        let Self { model, optimizer } = self;
        let model = map_parameters(model, &mut WithValues(by_name));
        Self { model, optimizer }
    }
}

struct WithValues(BTreeMap<String, Vec<f32>>);

impl ParameterMapper for WithValues {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        _role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        let Some(values) = self.0.remove(name) else {
            return parameter;
        };
        parameter.map(|tensor| {
            let data = TensorData::new::<f32, _>(values, tensor.shape());
            let after = Tensor::from_data(data, &tensor.device());
            match tensor.is_require_grad() {
                true => after.autodiff().require_grad(),
                false => after,
            }
        })
    }
}

impl Losses {
    /// The sums over all ranks.
    pub(super) fn across(self, ranks: &Ranks) -> Result<Self, RankError> {
        if ranks.size() == 1 {
            return Ok(self);
        }
        // Counts are exact in f64 up to 2^53, and every rank has the same terms.
        let counts = [self.tokens, self.source_tokens, self.right].map(|count| count as f64);
        let own: Vec<f64> = [self.nats]
            .into_iter()
            .chain(counts)
            .chain(self.terms.values().copied())
            .collect();
        let sums = ranks.sums(&own)?;
        let (nats, counts, terms) = (sums[0], &sums[1..4], &sums[4..]);
        Ok(Self {
            nats,
            tokens: counts[0] as u64,
            source_tokens: counts[1] as u64,
            right: counts[2] as u64,
            terms: self.terms.into_keys().zip(terms.iter().copied()).collect(),
        })
    }

    pub(super) fn add(&mut self, other: Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        self.source_tokens += other.source_tokens;
        self.right += other.right;
        for (name, nats) in other.terms {
            *self.terms.entry(name).or_default() += nats;
        }
    }
}
