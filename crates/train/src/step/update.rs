//! The update of a step, whole on every device, or a part in each process.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Stepper;
use super::copies::{Copy, on_each};
use crate::gradients::AccumulatedGradients;
use crate::ranks::{Layout, Part, gathered};
use crate::{RankError, Shard, TrainedModel};

/// What an update needs beside gradients.
pub(super) struct Update {
    /// What gradients are multiplied by.
    pub(super) scale: f64,
    pub(super) lr: f64,
    /// The parameters that are updated.
    pub(super) names: BTreeSet<String>,
}

impl Stepper<'_> {
    /// The copies after an update, which every device computes; a sharded one is put together from the parts of
    /// all processes.
    pub(super) fn updated<M: TrainedModel>(
        &mut self,
        inputs: Vec<(Copy<M>, AccumulatedGradients)>,
        update: Update,
        waited: &mut Duration,
    ) -> (Vec<Copy<M>>, Option<RankError>) {
        let Update { scale, lr, names } = update;
        let ranks = self.devices.ranks();
        if self.shard == Shard::None || ranks.size() == 1 {
            let copies = on_each(&mut self.workers, inputs, |_, (copy, gradients)| {
                copy.updated(gradients, scale, lr)
            });
            return (copies, None);
        }
        let part = Part::of(ranks);
        let updated = on_each(&mut self.workers, inputs, |_, (mut copy, gradients)| {
            let parts = copy.updated_part(gradients, scale, lr, part);
            (copy, parts)
        });
        let (copies, mut parts): (Vec<_>, Vec<_>) = updated.into_iter().unzip();
        // The devices of a process have computed the same.
        let parts = parts.swap_remove(0).into_iter().map(|(name, values)| {
            let values = values.into_data().convert::<f32>().try_into_vec();
            (name, values.expect("invariant: converted to f32"))
        });
        let parts = parts.collect();
        let layout = Layout::of(&copies[0].model, ranks.size());
        let begun = Instant::now();
        let whole = gathered(ranks, &layout, &parts, &names);
        *waited += begun.elapsed();
        match whole {
            Ok(whole) => {
                let of_each = vec![whole; copies.len()];
                let copies = copies.into_iter().zip(of_each);
                let copies = copies.map(|(copy, whole)| copy.with_values(whole));
                (copies.collect(), None)
            }
            Err(error) => (copies, Some(error)),
        }
    }
}
