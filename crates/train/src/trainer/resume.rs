//! Resuming from a checkpoint, and checking that it belongs to the same run.

use iiet_data::Corpus;

use super::{Data, LastCheckpoint, Plan, Standing, Trainer};
use crate::checkpoint::{self, Checkpoint, DataPosition, RandomState};
use crate::config::differences;
use crate::optimizer::ModelOptimizer;
use crate::ranks::Part;
use crate::run_directory::Resume;
use crate::step::LossScale;
use crate::{
    ClaimedRun, Devices, Difference, Event, Observer, RunConfig, RunDirectory, Shard, TrainError,
    TrainedModel, Vocabulary,
};

/// A checkpoint that is compatible with the configuration.
pub(super) struct Found<M> {
    checkpoint: Checkpoint<M>,
    passed: Vec<String>,
    /// Differences in `[data]`, which are allowed if the tokens are the same.
    data: Vec<Difference>,
    changed: Vec<Difference>,
}

/// The newest complete checkpoint; none if the run was stopped before its first.
///
/// # Errors
///
/// [`TrainError::NothingToResume`], [`TrainError::ResumeMismatch`], or [`TrainError::Value`] for
/// fewer steps than are completed.
pub(super) fn find<M: TrainedModel>(
    config: &RunConfig,
    run: &RunDirectory,
    devices: &Devices,
    observer: &mut dyn Observer,
) -> Result<Option<Found<M>>, TrainError> {
    if !run.checkpoints().exists() {
        return start_over(run, observer);
    }
    let ranks = devices.ranks();
    if ranks.is_first() {
        // Incomplete files take space, but failing to remove them does not prevent resuming.
        let _ = checkpoint::remove_leftovers(run);
    }
    // The others read what is left.
    ranks.gather(&())?;
    let part = match config.train.shard {
        Shard::None => Part::WHOLE,
        Shard::Optimizer => Part::of(ranks),
    };
    let (checkpoint, passed) = checkpoint::read_newest(run, devices.first(), part)?;
    for reason in &passed {
        observer.on(&Event::PassedOver { reason });
    }
    let Some(checkpoint) = checkpoint else {
        return start_over(run, observer);
    };
    let path = &checkpoint.path;
    let before = RunConfig::load(&path.join("config.toml"), &[])?;
    let found = differences(&before, config);
    if !found.refused.is_empty() {
        return Err(TrainError::ResumeMismatch {
            path: path.clone(),
            differences: found.refused,
        });
    }
    refuse_impossible_steps(config, &checkpoint)?;
    let changed = [found.allowed.as_slice(), &found.data].concat();
    observer.on(&Event::Resuming {
        checkpoint: path,
        step: checkpoint.state.step,
        changed: &changed,
    });
    Ok(Some(Found {
        checkpoint,
        passed,
        data: found.data,
        changed: found.allowed,
    }))
}

/// Without a checkpoint the run is resumed from its start, unless it has results to lose.
fn start_over<M>(
    run: &RunDirectory,
    observer: &mut dyn Observer,
) -> Result<Option<Found<M>>, TrainError> {
    if run.model().exists() {
        return Err(TrainError::NothingToResume {
            path: run.checkpoints(),
            passed: Vec::new(),
        });
    }
    observer.on(&Event::StartingOver { run });
    Ok(None)
}

fn refuse_impossible_steps<M>(config: &RunConfig, at: &Checkpoint<M>) -> Result<(), TrainError> {
    let (train, step) = (&config.train, at.state.step);
    let refuse = |allowed: String| {
        Err(TrainError::Value {
            key: "train.steps",
            found: train.steps.to_string(),
            allowed,
        })
    };
    if step > train.steps {
        return refuse(format!(
            "allowed: at least {step}, the run's completed steps"
        ));
    }
    // The stages are shares of the steps: with more steps an earlier one may not be over yet.
    if let (Some(before), Some(now)) = (&at.state.stage, train.stage_at(step))
        && now < before.index
    {
        return refuse(format!(
            "the run is in stage {} ({}), and with this number of steps it would be back in stage {}",
            before.index + 1,
            before.solver,
            now + 1
        ));
    }
    Ok(())
}

impl<'a, M: TrainedModel> Trainer<'a, M> {
    pub(super) fn resume(
        plan: Plan<'a>,
        run: ClaimedRun,
        corpus: Corpus,
        found: Found<M>,
    ) -> Result<Self, TrainError> {
        let config = plan.config;
        let Checkpoint {
            path,
            state,
            model,
            moments,
        } = found.checkpoint;
        let data = Data::new::<M>(config, corpus)?;
        let vocabulary = Vocabulary::of(&data.corpus.tokenizer);
        let vocab_size = M::vocab_size(&M::of_run(config, vocabulary, state.step));
        let mut differences = state.identity.differences(&data.identity);
        let expected = DataPosition::after(state.step, config, &data.batches);
        for (key, before, now) in [
            (
                "the data position",
                format!("{:?}", state.data),
                format!("{expected:?}"),
            ),
            (
                "the random state",
                format!("{:?}", state.random),
                format!("{:?}", RandomState::of(config)),
            ),
            (
                "the vocabulary",
                M::vocab_size(&model.current()).to_string(),
                vocab_size.to_string(),
            ),
        ] {
            if before != now {
                let key = key.to_owned();
                differences.push(Difference { key, before, now });
            }
        }
        if !differences.is_empty() {
            // The keys explain differing hashes.
            let differences = found.data.into_iter().chain(differences).collect();
            return Err(TrainError::ResumeMismatch { path, differences });
        }
        let changed: Vec<Difference> = found.changed.into_iter().chain(found.data).collect();
        let mut optimizer = ModelOptimizer::new(&config.train);
        optimizer.moments = moments;
        let standing = Standing {
            model,
            optimizer,
            step: state.step,
            tokens: state.tokens,
            loss_scale: match LossScale::of(config.train.precision) {
                // The precision may have changed in the meantime.
                Some(first) => Some(state.loss_scale.unwrap_or(first)),
                None => None,
            },
        };
        let mut trainer = Self::assemble(plan, run, data, standing)?;
        if trainer.ranks.is_first() {
            trainer.run.log_resume(&Resume {
                step: state.step,
                passed_over: &found.passed,
                changed: &changed,
            })?;
        }
        trainer
            .retention
            .enter(state.step, &path, state.validation_loss);
        trainer.checkpoint = Some(LastCheckpoint {
            step: state.step,
            path,
        });
        Ok(trainer)
    }
}
