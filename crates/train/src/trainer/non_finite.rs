//! Non-finite values, set within a run, never change parameters or moments, on logged and on
//! unlogged steps.

use std::sync::atomic::AtomicBool;

use burn::module::Param;
use burn::tensor::Tensor;
use iiet_model::{ParameterMapper, ParameterVisitor, Role, map_parameters, visit_parameters};

use super::*;
use crate::NextToken;

/// A trainer after two successful steps, on a separate corpus.
pub(super) fn trainer<'a>(config: &'a RunConfig, devices: &'a Devices) -> Trainer<'a> {
    let run = ClaimedRun::new(Some(&config.data.cache.join("run")), "").unwrap();
    let corpus = prepare_corpus(&config.data, &()).unwrap();
    let mut trainer = {
        let objective = &NextToken;
        let plan = Plan {
            config,
            objective,
            devices,
            revision: None,
            observer: Box::leak(Box::new(())),
        };
        Trainer::start(plan, run, corpus).unwrap()
    };
    for _ in 0..2 {
        trainer.take_step().unwrap();
    }
    trainer
}

pub(super) fn config(folder: &std::path::Path, log_every: u64) -> RunConfig {
    let text = folder.join("text.txt");
    let lines = (0..200).map(|i| format!("line {i} of a text, twice {}\n", 2 * i));
    std::fs::write(&text, lines.collect::<String>()).unwrap();
    let file = folder.join("config.toml");
    let toml = format!(
        "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 16\n\
         solver = {{ name = 'iterative_implicit_euler', iterations = 1 }}\n\
         [data]\nsource = '{}'\ncache = '{}'\nvocab_size = 270\n\
         [train]\nsteps = 20\nbatch = 2\naccumulation = 2\nlr = 1e-2\nlog_every = {log_every}\n",
        text.display(),
        folder.join("cache").display(),
    );
    std::fs::write(&file, toml).unwrap();
    RunConfig::load(&file, &[]).unwrap()
}

/// The bits of every parameter.
#[derive(Default, PartialEq)]
pub(super) struct Bits(Vec<(String, Vec<u32>)>);

impl ParameterVisitor for Bits {
    fn visit<const D: usize>(&mut self, name: &str, _role: Role, parameter: &Param<Tensor<D>>) {
        let values = parameter.val().try_into_vec_as::<f32>().unwrap();
        let bits = values.into_iter().map(f32::to_bits).collect();
        self.0.push((name.to_owned(), bits));
    }
}

/// The bits of a model and of its moments.
pub(super) fn copy_bits((model, optimizer): (&LanguageModel, &ModelOptimizer)) -> (Bits, Vec<u32>) {
    let mut bits = Bits::default();
    visit_parameters(model, &mut bits);
    let moments = optimizer.moments.values();
    let moments = moments.flat_map(|m| [Some(m.first.clone()), m.second.clone()]);
    let moments = moments.flatten();
    let moments = moments.flat_map(|m| m.try_into_vec_as::<f32>().unwrap());
    (bits, moments.map(f32::to_bits).collect())
}

fn bits(trainer: &Trainer<'_>) -> ((Bits, Vec<u32>), u64, u64) {
    let state = trainer.state();
    let bits = copy_bits((state.model(), state.optimizer()));
    (bits, state.step(), state.tokens())
}

/// Sets every value of the parameters whose name has this suffix.
#[derive(Clone, Copy)]
struct Set(&'static str, f32);

impl Set {
    fn within(self, trainer: &mut Trainer<'_>) {
        let state = trainer.take_state();
        trainer.state = Some(state.with_model(|model| map_parameters(model, &mut { self })));
    }
}

impl ParameterMapper for Set {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        _role: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        if !name.ends_with(self.0) {
            return parameter;
        }
        parameter.map(|tensor| {
            let set = Tensor::full(tensor.shape(), self.1, &tensor.device().inner());
            set.autodiff().require_grad()
        })
    }
}

#[test]
fn a_non_finite_validation_loss_is_an_error_and_not_written() {
    let devices = Devices::one(Device::default());
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1000);
    let mut trainer = trainer(&config, &devices);
    Set("model.norm.weight", f32::INFINITY).within(&mut trainer);
    let error = trainer.evaluate().unwrap_err();
    assert!(
        matches!(error, TrainError::Broken { step: 2, .. }),
        "{error}"
    );
    assert!(checkpoint::list(&trainer.run).unwrap().is_empty());
}

#[test]
fn a_truncated_corpus_ends_the_run_with_a_checkpoint() {
    let devices = Devices::one(Device::default());
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), 1000);
    let mut trainer = trainer(&config, &devices);
    let tokens = trainer.corpus.sources[0]
        .prepared()
        .unwrap()
        .train
        .path()
        .to_owned();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(tokens)
        .unwrap();
    file.set_len(200).unwrap();
    let error = trainer.run(&AtomicBool::new(false)).unwrap_err();
    assert!(
        matches!(error, TrainError::DataLost { step: 3, .. }),
        "{error}"
    );
    let said = error.to_string();
    assert!(
        said.contains("train.tokens") && said.contains("step-2"),
        "{said}"
    );
    assert_eq!(checkpoint::list(&trainer.run).unwrap()[0].0, 2);
}

#[test]
fn non_finite_values_update_nothing() {
    let devices = Devices::one(Device::default());
    for log_every in [1, 1000] {
        for (sets, expected) in [
            (vec![Set("0.mlp.up_proj.weight", f32::NAN)], "loss"),
            (vec![Set("model.norm.weight", f32::INFINITY)], "loss"),
            (vec![Set("history.weight_c", f32::NEG_INFINITY)], "loss"),
            // A product that is zero, of factors whose gradient overflows.
            (
                vec![
                    Set("1.mlp.up_proj.weight", 1e30),
                    Set("1.mlp.down_proj.weight", 0.0),
                ],
                "gradient norm",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let config = config(folder.path(), log_every);
            let mut trainer = trainer(&config, &devices);
            for set in sets {
                set.within(&mut trainer);
            }
            let before = bits(&trainer);
            let error = trainer.run(&AtomicBool::new(false)).unwrap_err();
            match &error {
                TrainError::NonFinite { step: 3, what, .. } => {
                    assert_eq!(*what, expected, "{error}")
                }
                _ => panic!("{error}"),
            }
            assert!(bits(&trainer) == before, "{error}");
            assert!(checkpoint::list(&trainer.run).unwrap().is_empty());
        }
    }
}
