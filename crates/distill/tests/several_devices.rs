//! Distillation on several devices, all of them flex, each with a copy of the teacher.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use burn::tensor::{Device, Tensor};
use iiet_distill::{load_student, objective_of};
use iiet_model::{load_config, model_hash};
use iiet_ode::{IterationSchedule, Options};
use iiet_train::{
    AllReduce, ClaimedRun, Devices, ModelSection, Record, RunConfig, RunOptions, TrainingObjective,
    train,
};

/// The sum, as tensors that share memory.
#[derive(Debug)]
struct Shared;

impl AllReduce for Shared {
    fn sum(&self, of_each: Vec<Tensor<1>>) -> Vec<Tensor<1>> {
        let count = of_each.len();
        let sum = of_each.into_iter().reduce(|a, b| a + b);
        vec![sum.unwrap(); count]
    }
}

fn go(
    config: &RunConfig,
    run: &Path,
    objective: &dyn TrainingObjective,
    count: usize,
) -> Vec<Record> {
    let others = vec![Device::default(); count - 1];
    let devices = Devices::several(Device::default(), others, Shared);
    let options = RunOptions {
        run: ClaimedRun::new(Some(run), "").unwrap(),
        revision: None,
        on_host: true,
        objective,
        interrupt: &AtomicBool::new(false),
        progress: &(),
        observer: &mut (),
    };
    train(config, options, &devices).unwrap();
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records.collect()
}

#[test]
fn every_device_has_the_teacher() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let lines = (0..60).map(|i| format!("{i} and {i} make {}.\n", 2 * i));
    fs::write(path("text.txt"), lines.collect::<String>()).unwrap();
    let data = format!(
        "[data]\nsource = '{}'\ncache = '{}'\nvocab_size = 270\nvalidation = 0.1\n\
         [train]\nsteps = 6\nbatch = 1\naccumulation = 6\nlr = 1e-2\nlog_every = 1\n",
        path("text.txt").display(),
        path("cache").display(),
    );
    let model = "[model]\nd_model = 16\nd_ff = 32\nn_layers = 2\nn_heads = 2\nseq_len = 16\n\
                 solver = { name = 'iterative_implicit_euler', iterations = 2 }\n";
    fs::write(path("teacher.toml"), format!("{model}{data}")).unwrap();
    fs::write(
        path("student.toml"),
        format!("{data}[distill]\nsmooth_l1 = 5.0\ntemperature = 2.0\n"),
    )
    .unwrap();
    let config = RunConfig::load(&path("teacher.toml"), &[]).unwrap();
    let objective = objective_of(&config, &Device::default()).unwrap();
    go(&config, &path("teacher"), &*objective, 1);

    let teacher: PathBuf = path("teacher/model");
    let model = load_config(&teacher).unwrap();
    let hash = model_hash(&teacher).unwrap();
    let mut config = load_student(
        &path("student.toml"),
        &ModelSection::of(&model),
        (&teacher, &hash),
        &[],
    )
    .unwrap();
    let schedule = IterationSchedule::PerLayer(vec![1, 0]);
    config.model.solver = config.model.solver.with_iterations(schedule);
    let objective = objective_of(&config, &Device::default()).unwrap();
    let alone = go(&config, &path("one"), &*objective, 1);
    for count in [2, 3] {
        let together = go(&config, &path(&format!("of-{count}")), &*objective, count);
        for (a, b) in alone.iter().zip(&together) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-5, "{a:?} {b:?}");
            assert_eq!(a.terms.len(), 3);
            for (name, term) in &a.terms {
                let of_several = b.terms[name];
                assert!(
                    (term - of_several).abs() < 1e-5 * a.loss,
                    "{name}: {term} {of_several}"
                );
            }
        }
        assert_eq!(alone.len(), together.len());
    }
}
