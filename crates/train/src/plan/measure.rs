//! The speed of this machine's device, from training steps with tokens that mean nothing.

use std::time::Instant;

use iiet_data::{Batch, Sources};
use iiet_model::{EncoderDecoder, LanguageModel};

use super::{Speed, Workload, of_end};
use crate::{
    Devices, ModelOptimizer, Parallel, ScheduleKind, Stepper, TrainError, TrainSection, TrainState,
    TrainedModel,
};

/// Steps of each length after the first, which allocates.
const ROUNDS: usize = 3;
/// Seconds after which no further round begins.
const ENOUGH: f64 = 60.0;

impl Workload<'_> {
    /// Whether the host has the memory to [`measure`](Self::measure).
    ///
    /// # Errors
    ///
    /// [`TrainError::Memory`].
    pub fn check_measurable(&self) -> Result<(), TrainError> {
        let sharing = (Parallel::devices(1), 2);
        self.memory_with(&self.config.train, sharing)?.check_host(1)
    }

    /// The speed of the device: the medians of steps of one micro-batch and of two, whose difference is a
    /// micro-batch, the rest the update.
    ///
    /// # Errors
    ///
    /// [`TrainError`] if the model cannot be trained here.
    pub fn measure(&self) -> Result<Speed, TrainError> {
        match self.config.model.encoder {
            Some(_) => self.measure_model::<EncoderDecoder>(),
            None => self.measure_model::<LanguageModel>(),
        }
    }

    fn measure_model<M: TrainedModel>(&self) -> Result<Speed, TrainError> {
        let config = of_end::<M>(&self.config);
        let model = M::initialised(&config, self.config.train.seed, self.device)?;
        // So small that random tokens cannot drive the weights away.
        let train = TrainSection {
            lr: 1e-9,
            warmup: 0,
            schedule: ScheduleKind::Wsd,
            decay: 0.0,
            ..self.config.train.clone()
        };
        let devices = Devices::one(self.device.clone());
        let mut stepper = Stepper::new(self.objective, &train, &devices);
        let mut state = stepper.start(&model, ModelOptimizer::new(&train));
        drop(model);
        let batch = self.batch(M::vocab_size(&config));
        let batches = [batch.clone(), batch];
        let mut timed = |state: TrainState<M>, count: usize| {
            let begun = Instant::now();
            let taken = stepper.step(state, &batches[..count]);
            let (state, _) = taken.map_err(|not_taken| TrainError::Value {
                key: "train.precision",
                found: train.precision.to_string(),
                allowed: format!("with random weights and tokens {}", not_taken.reason),
            })?;
            // A device that cannot wait has failed, and the next step says how.
            let _ = self.device.sync();
            Ok::<_, TrainError>((state, begun.elapsed().as_secs_f64()))
        };
        (state, _) = timed(state, 1)?;
        let begun = Instant::now();
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            if round > 0 && begun.elapsed().as_secs_f64() > ENOUGH {
                break;
            }
            for (count, times) in (1..).zip(&mut times) {
                let (after, seconds) = timed(state, count)?;
                state = after;
                times.push(seconds);
            }
        }
        let [one, two] = times.map(median);
        // Other load can make one of them longer than it is.
        let micro_batch = (two - one).clamp(one / 2.0, one);
        Ok(Speed {
            micro_batch,
            update: one - micro_batch,
        })
    }

    /// A micro-batch of the configured size, whose sources are as long as its targets.
    fn batch(&self, vocab: usize) -> Batch {
        let tokens = self
            .config
            .train
            .micro_batch_tokens(self.config.model.seq_len);
        let seq = self.config.model.seq_len.min(tokens);
        let batch = tokens / seq;
        let ids = |from: usize| -> Vec<u32> {
            let ids = (from..from + batch * seq).map(|i| i.wrapping_mul(2_654_435_761) % vocab);
            ids.map(|id| id as u32).collect()
        };
        Batch {
            inputs: ids(0),
            targets: ids(1),
            weights: vec![1.0; batch * seq],
            batch,
            seq,
            source: self.config.model.encoder.as_ref().map(|_| Sources {
                ids: ids(2),
                lengths: vec![seq; batch],
                seq,
            }),
        }
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
