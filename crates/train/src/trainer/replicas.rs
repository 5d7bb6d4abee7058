//! Data parallelism: a copy of the model and its optimizer's state on each device.
//!
//! ```text
//! g_i = sum of the gradients of micro-batches i, i + N, i + 2N, ..    on device i of N
//! g   = sum_i g_i                                                     on every device
//! ```
//!
//! Losses are sums over tokens, so `g` is what one device would have summed up, but for the order of
//! additions. Every copy then takes the same step along the same `g` and stays equal to the others
//! to the last bit, without any weights being exchanged.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::thread;

use burn::module::Module;
use burn::tensor::{Device, StreamId};
use iiet_data::Batch;
use iiet_kernels::on_workers;
use iiet_model::{LanguageModel, ModelConfig, ModelError, Precision};

use crate::devices::{AllReduce, Devices};
use crate::evaluate::batch_tensors;
use crate::gradients::AccumulatedGradients;
use crate::optimizer::ModelAdamW;
use crate::{Recompute, TrainError, TrainingObjective};

/// The copies, one on each device.
pub(super) struct Replicas<'a> {
    /// The one that is validated, sampled and written to checkpoints.
    pub(super) first: Replica,
    others: Vec<Replica>,
    all_reduce: &'a dyn AllReduce,
}

/// What one device holds.
pub(super) struct Replica {
    device: Device,
    objective: Box<dyn TrainingObjective>,
    /// With autodiff.
    pub(super) model: LanguageModel,
    pub(super) optimizer: ModelAdamW,
}

/// How passes through the model are made.
#[derive(Clone, Copy)]
pub(super) struct Passes {
    /// Of the copy of the model that is differentiated.
    pub(super) precision: Precision,
    pub(super) recompute: Recompute,
    /// What the loss is multiplied by, and its gradients divided by again; a power of two.
    pub(super) scale: f64,
}

/// What one device, or all of them, made of their micro-batches.
#[derive(Default)]
pub(super) struct Losses {
    /// The loss; nats, summed over tokens.
    pub(super) nats: f64,
    /// The loss's terms, likewise.
    pub(super) terms: BTreeMap<&'static str, f64>,
    /// Valid targets.
    pub(super) tokens: u64,
}

impl<'a> Replicas<'a> {
    /// Copies of a model and an optimizer that lie on the first device, free of autodiff.
    pub(super) fn new(
        model: &LanguageModel,
        optimizer: ModelAdamW,
        objective: &dyn TrainingObjective,
        devices: &'a Devices,
    ) -> Self {
        let on = |device: &Device, optimizer: ModelAdamW| Replica {
            device: device.clone(),
            objective: objective.on(device),
            model: model.on(device).train(),
            optimizer,
        };
        let others = devices.others().iter();
        Self {
            others: others
                .map(|device| on(device, optimizer.on(device)))
                .collect(),
            first: on(devices.first(), optimizer),
            all_reduce: devices.all_reduce(),
        }
    }

    /// Losses and gradients of a step's micro-batches, dealt to the devices in turn; the gradients
    /// are the sum over all of them, once for each device.
    pub(super) fn gradients(
        &mut self,
        micro_batches: Vec<Batch>,
        passes: Passes,
    ) -> (Losses, Vec<AccumulatedGradients>) {
        let count = 1 + self.others.len();
        let mut hands: Vec<Vec<Batch>> = (0..count).map(|_| Vec::new()).collect();
        for (i, batch) in micro_batches.into_iter().enumerate() {
            hands[i % count].push(batch);
        }
        let of_each = self.on_each(hands, |replica, hand| replica.gradients(&hand, passes));
        let (losses, gradients): (Vec<Losses>, Vec<AccumulatedGradients>) =
            of_each.into_iter().unzip();
        let mut all = Losses::default();
        for of_device in losses {
            all.add(of_device);
        }
        (all, AccumulatedGradients::sums(gradients, self.all_reduce))
    }

    /// One step of AdamW on every device, along its gradients multiplied by `scale`.
    pub(super) fn update(
        &mut self,
        gradients: Vec<AccumulatedGradients>,
        scale: f64,
        lr: f64,
    ) -> Result<(), TrainError> {
        let updated = self.on_each(gradients, |replica, gradients| {
            replica.update(gradients, scale, lr)
        });
        Ok(updated.into_iter().collect::<Result<(), ModelError>>()?)
    }

    /// Gives every copy another solver.
    pub(super) fn switch(&mut self, wanted: &ModelConfig, seed: u64) -> Result<(), TrainError> {
        for Replica { model, device, .. } in [&mut self.first].into_iter().chain(&mut self.others) {
            *model = model.valid().with_config(wanted, seed, device)?.train();
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Replica> {
        [&self.first].into_iter().chain(&self.others)
    }

    /// Does the same on each device at once.
    ///
    /// One device's part is done by the kernels' threads, for it is thousands of parallel loops. With
    /// several each has a thread of its own, and none of the kernels': those must not wait for others.
    fn on_each<I: Send, O: Send>(
        &mut self,
        inputs: Vec<I>,
        work: impl Fn(&mut Replica, I) -> O + Sync,
    ) -> Vec<O> {
        let (first, others, work) = (&mut self.first, &mut self.others, &work);
        let mut inputs = inputs.into_iter();
        let input = inputs.next().expect("invariant: one input a device");
        if others.is_empty() {
            return vec![on_workers(|| work(first, input))];
        }
        // A GPU's backend keeps a queue for each thread and orders two of them by where a buffer was
        // allocated, not by who wrote to it last. So all work on a device goes to one queue, this
        // thread's, whichever thread hands it in.
        let queue = StreamId::current();
        thread::scope(|scope| {
            let others: Vec<_> = others
                .iter_mut()
                .zip(inputs)
                .map(|(replica, input)| {
                    scope.spawn(move || queue.executes(|| work(replica, input)))
                })
                .collect();
            let mut outputs = vec![work(first, input)];
            for other in others {
                outputs.push(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            outputs
        })
    }
}

impl Replica {
    /// The sums over this device's own micro-batches.
    fn gradients(&self, hand: &[Batch], passes: Passes) -> (Losses, AccumulatedGradients) {
        let Passes {
            precision,
            recompute,
            scale,
        } = passes;
        // In f32 these are the parameters themselves.
        let model = self.model.clone().in_precision(precision);
        let (mut losses, mut gradients) = (Losses::default(), AccumulatedGradients::default());
        for batch in hand {
            let batch = batch_tensors(batch, &self.device).scaled(scale);
            let mut objective = self.objective.of_batch(&batch);
            let nats = gradients.add_loss(&model, batch.ids, &mut *objective, recompute);
            losses.add(Losses {
                nats,
                terms: objective.terms().into_iter().collect(),
                tokens: batch.tokens,
            });
        }
        gradients.divide_by(scale);
        losses.nats /= scale;
        losses.terms.values_mut().for_each(|sum| *sum /= scale);
        (losses, gradients)
    }

    fn update(
        &mut self,
        gradients: AccumulatedGradients,
        scale: f64,
        lr: f64,
    ) -> Result<(), ModelError> {
        // The optimizer takes the model apart and updates it in place: a clone left here would make
        // it copy every parameter. Nothing can fail before the model is whole again.
        let hollow = LanguageModel::empty(&self.model.config(), &self.device)?;
        let model = std::mem::replace(&mut self.model, hollow);
        self.model = self.optimizer.step(model, gradients, scale, lr);
        Ok(())
    }
}

impl Losses {
    fn add(&mut self, other: Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
        for (name, nats) in other.terms {
            *self.terms.entry(name).or_default() += nats;
        }
    }
}
