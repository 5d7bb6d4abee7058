//! The sums of a step over micro-batches, devices and processes.

use std::collections::BTreeSet;
use std::time::Duration;

use super::copies::{Losses, on_each};
use super::{MicroBatches, StepError, Stepper, TrainState};
use crate::gradients::AccumulatedGradients;
use crate::ranks::{Exchange, Layout, Summed};
use crate::{Devices, RankError, Shard, TrainedModel};

/// Sums over the micro-batches of a step.
pub(super) struct Sums {
    /// Equal on every device. With a sharded optimiser, this process's part of each.
    pub(super) gradients: Vec<AccumulatedGradients>,
    /// All parameters with a gradient; empty for a single process.
    pub(super) names: BTreeSet<String>,
    /// The gradient norm.
    pub(super) norm: f64,
    pub(super) losses: Losses,
    pub(super) waited: Duration,
}

impl Stepper<'_> {
    /// Losses and their gradients; micro-batches are distributed in turn, first to the devices of the first
    /// process.
    pub(super) fn sums<M: TrainedModel, B: MicroBatches + ?Sized>(
        &mut self,
        state: &mut TrainState<M>,
        batches: &B,
    ) -> Result<Sums, StepError> {
        let (count, passes, devices) = (self.workers.len(), self.passes, self.devices);
        let ranks = devices.ranks();
        let (first, total) = (ranks.rank() * count, devices.parallel().count());
        let scale = state.loss_scale.map_or(1.0, |scale| scale.scale);
        let mut exchange = (ranks.size() > 1).then(|| {
            let layout = Layout::of(state.model(), ranks.size());
            Exchange::new(ranks, layout, self.transfer, self.shard == Shard::None)
        });
        // Several devices add up before the processes do, so nothing is complete early.
        let mut early = exchange.as_mut().filter(|_| count == 1);
        let inputs = state.copies.iter_mut().enumerate();
        let inputs = inputs.map(|(at, copy)| (first + at, copy, early.take()));
        let inputs = inputs.collect();
        let of_each = on_each(&mut self.workers, inputs, |worker, (at, copy, exchange)| {
            let own = (at..batches.count()).step_by(total);
            let own = own.map(|at| (at, batches.get(at)));
            worker.gradients(copy, own, passes, scale, exchange)
        });
        let mut losses = Losses::default();
        let mut gradients = Vec::with_capacity(count);
        for of_device in of_each {
            let (of_device, own) = of_device?;
            losses.add(of_device);
            gradients.push(own);
        }
        let gradients = AccumulatedGradients::sums(gradients, devices.all_reduce());
        let mut sums = Sums {
            gradients,
            names: BTreeSet::new(),
            norm: 0.0,
            losses: losses.across(ranks)?,
            waited: Duration::ZERO,
        };
        if let Some(exchange) = exchange {
            sums = sums.across(exchange, devices)?;
        }
        for gradients in &mut sums.gradients {
            gradients.divide_by(scale);
        }
        let squares = sums
            .gradients
            .first()
            .map_or(0.0, AccumulatedGradients::sum_of_squares);
        let squares = match self.shard {
            Shard::None => squares,
            Shard::Optimizer => ranks.sums(&[squares])?[0],
        };
        sums.norm = squares.sqrt();
        Ok(sums)
    }
}

impl Sums {
    /// The sums over all processes, on every device.
    fn across(self, mut exchange: Exchange<'_>, devices: &Devices) -> Result<Self, RankError> {
        if let Some(first) = self.gradients.into_iter().next() {
            first.give(&mut exchange);
        }
        let Summed {
            gradients,
            names,
            waited,
        } = exchange.finish()?;
        let of_each = vec![gradients; devices.all().count()].into_iter();
        let of_each = of_each.zip(devices.all());
        let of_each = of_each.map(|(values, on)| AccumulatedGradients::from_host(values, on));
        Ok(Self {
            gradients: of_each.collect(),
            names,
            waited,
            ..self
        })
    }

    /// Checks that loss and gradient norm are finite.
    pub(super) fn non_finite(&self) -> Option<(&'static str, f64)> {
        let values = [("loss", self.losses.nats), ("gradient norm", self.norm)];
        values.into_iter().find(|(_, value)| !value.is_finite())
    }
}
