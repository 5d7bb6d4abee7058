//! The student's loss against the same composed of logits, and against finite differences.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_distill::{DistillError, DistillSection, Distillation};
use iiet_model::{
    LanguageModel, LlamaConfig, ModelConfig, Objective, ParameterMapper, ParameterVisitor, Role,
    SaveOptions, load, map_parameters, model_hash, parse_safetensors, save, visit_parameters,
};
use iiet_ode::{IterationSchedule, Layer, Options, SolverConfig};
use iiet_train::{BatchTensors, TrainingObjective};

const SHAPE: [usize; 2] = [3, 7];

fn config(iterations: Vec<usize>) -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        d_model: 16,
        n_layers: iterations.len(),
        seq_len: 32,
        initializer_range: 0.3,
        tie_embeddings: true,
        block: LlamaConfig {
            d_ff: 24,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        solver: SolverConfig::named("iterative_implicit_euler")
            .unwrap()
            .with_iterations(IterationSchedule::PerLayer(iterations)),
        bos_token_id: None,
        eos_token_ids: Vec::new(),
    }
}

/// A teacher with random weights in a directory, and the section that refers to it.
fn teacher(dir: &Path, device: &Device) -> (LanguageModel, DistillSection) {
    let teacher = LanguageModel::init(&config(vec![2, 2]), 1, device).unwrap();
    save(&teacher, dir, &SaveOptions::default()).unwrap();
    let section = DistillSection {
        teacher: dir.to_owned(),
        teacher_hash: model_hash(dir).unwrap(),
        cross_entropy: 0.6,
        divergence: 1.5,
        temperature: 2.0,
        smooth_l1: 5.0,
    };
    (teacher, section)
}

/// Synthetic tokens; the last of each row is padding.
fn batch(device: &Device) -> BatchTensors {
    let device = device.clone().autodiff();
    let [batch, seq] = SHAPE;
    let ids = |from: usize| -> Tensor<2, Int> {
        let ids: Vec<i64> = (from..from + batch * seq)
            .map(|i| (i * i * 7 % 61) as i64)
            .collect();
        Tensor::from_data(TensorData::new::<i64, _>(ids, SHAPE), &device)
    };
    let weights: Vec<f32> = (0..batch * seq)
        .map(|i| if i % seq == seq - 1 { 0.0 } else { 1.0 })
        .collect();
    let weights = Tensor::from_data(TensorData::new::<f32, _>(weights, SHAPE), &device);
    BatchTensors::of_texts(ids(0), ids(1), weights, (batch * (seq - 1)) as u64)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 2e-5 * b.abs().max(1.0)
}

/// The layers' outputs and the last hidden states.
#[derive(Default)]
struct Watch(Vec<Tensor<3>>);

impl Objective for Watch {
    fn of_hidden(&mut self, hidden: Tensor<3>, _: Tensor<2>) -> Tensor<1> {
        Tensor::zeros([1], &hidden.device())
    }

    fn of_layer(&mut self, _: Layer, y: &Tensor<3>) -> Option<Tensor<1>> {
        self.0.push(y.clone());
        None
    }
}

/// Cross-entropy, tempered divergence and distance of the layers, summed over tokens, from logits.
fn composed(student: &LanguageModel, teacher: &LanguageModel, batch: &BatchTensors) -> [f64; 3] {
    let (t, [rows, seq]) = (2.0, SHAPE);
    let plain = |x: Tensor<2, Int>| x.inner();
    let (ids, targets) = (plain(batch.ids.clone()), plain(batch.targets.clone()));
    let weights = batch.weights.clone().inner();
    let (z, u) = (student.forward(ids.clone()), teacher.forward(ids.clone()));
    let taken = log_softmax(z.clone(), 2).gather(2, targets.reshape([rows, seq, 1]));
    let (log_q, log_p) = (log_softmax(z / t, 2), log_softmax(u / t, 2));
    let divergence = (log_p.clone().exp() * (log_p - log_q)).sum_dim(2) * (t * t);
    let of_tokens = |x: Tensor<3>| {
        let sum = (x.reshape([rows, seq]) * weights.clone()).sum();
        f64::from(sum.into_scalar::<f32>())
    };
    let outputs = |model: &LanguageModel| {
        let mut watch = Watch::default();
        model.objective(ids.clone(), &mut watch);
        watch.0
    };
    let layers = outputs(student).into_iter().zip(outputs(teacher));
    let apart: f64 = layers
        .map(|(a, b)| {
            let d = (a - b).abs();
            let small = d.clone().lower_elem(1.0);
            let d = (d.clone() - 0.5).mask_where(small, d.square() * 0.5);
            of_tokens(d.mean_dim(2)) / 2.0
        })
        .sum();
    [-of_tokens(taken), of_tokens(divergence), apart]
}

#[test]
fn the_loss_equals_the_sum_of_its_weighted_terms() {
    let (dir, device) = (tempfile::tempdir().unwrap(), Device::default());
    let (teacher, section) = teacher(dir.path(), &device);
    let student = LanguageModel::init(&config(vec![1, 0]), 2, &device).unwrap();
    let batch = batch(&device);
    let objective = Distillation::<LanguageModel>::open(&section, &device).unwrap();
    let mut of_batch = objective.of_batch(&batch);
    let sum = student
        .clone()
        .train()
        .objective(batch.ids.clone(), &mut *of_batch);
    let terms = of_batch.terms();

    let expected = composed(&student, &teacher, &batch);
    let names = ["cross_entropy", "divergence", "smooth_l1"];
    assert_eq!(terms.len(), 3);
    for ((found, name), expected) in terms.iter().zip(names).zip(expected) {
        assert_eq!(found.0, name);
        assert!(close(found.1, expected), "{terms:?} {expected}");
    }
    let [ce, kl, apart] = expected;
    let sum = f64::from(sum.into_scalar::<f32>());
    assert!(close(sum, 0.6 * ce + 1.5 * kl + 5.0 * apart), "{sum}");
}

#[test]
fn a_student_equal_to_its_teacher_has_zero_divergence_and_distance() {
    let (dir, device) = (tempfile::tempdir().unwrap(), Device::default());
    let (teacher, section) = teacher(dir.path(), &device);
    let objective = Distillation::<LanguageModel>::open(&section, &device).unwrap();
    let batch = batch(&device);
    let mut of_batch = objective.of_batch(&batch);
    teacher.train().objective(batch.ids.clone(), &mut *of_batch);
    let terms = of_batch.terms();
    assert!(
        terms[0].1 > 10.0 && terms[1].1.abs() < 1e-3 && terms[2].1.abs() < 1e-6,
        "{terms:?}"
    );
}

#[test]
fn without_terms_of_the_teacher_the_loss_is_cross_entropy() {
    let (dir, device) = (tempfile::tempdir().unwrap(), Device::default());
    let (teacher, mut section) = teacher(dir.path(), &device);
    (section.divergence, section.smooth_l1) = (0.0, 0.0);
    let objective = Distillation::<LanguageModel>::open(&section, &device).unwrap();
    assert_eq!(objective.footprint().flops_per_token, 0.0);
    let batch = batch(&device);
    let mut of_batch = objective.of_batch(&batch);
    let sum = teacher.objective(batch.ids.clone(), &mut *of_batch);
    let loss = teacher.loss(batch.ids, batch.targets, batch.weights);
    assert_eq!(sum.into_scalar::<f32>(), loss.into_scalar::<f32>());
    assert!(of_batch.terms().is_empty());
}

/// Gradients by name, in the order of the parameters.
struct Collect(burn::tensor::Gradients, Vec<(String, Vec<f32>)>);

impl ParameterVisitor for Collect {
    fn visit<const D: usize>(&mut self, name: &str, _: Role, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = parameter.val().grad(&self.0) {
            let values = gradient.try_into_vec_as::<f32>().unwrap();
            self.1.push((name.to_owned(), values));
        }
    }
}

/// Moves the parameters along a direction.
struct Move<'a>(&'a [(String, Vec<f32>)], f32);

impl ParameterMapper for Move<'_> {
    fn map<const D: usize>(
        &mut self,
        name: &str,
        _: Role,
        parameter: Param<Tensor<D>>,
    ) -> Param<Tensor<D>> {
        match self.0.iter().find(|(known, _)| known == name) {
            None => parameter,
            Some((_, direction)) => parameter.map(|x| {
                let data = TensorData::new::<f32, _>(direction.clone(), x.shape());
                let along = Tensor::<D>::from_data(data, &x.device());
                x + along * self.1
            }),
        }
    }
}

#[test]
fn the_gradient_equals_finite_differences_along_itself() {
    let (dir, device) = (tempfile::tempdir().unwrap(), Device::default());
    let (_, section) = teacher(dir.path(), &device);
    let student = LanguageModel::init(&config(vec![1, 0]), 2, &device).unwrap();
    let batch = batch(&device);
    // Each term alone, and all of them.
    for [a, b, gamma] in [
        [0.6, 0.0, 0.0],
        [0.0, 1.5, 0.0],
        [1e-9, 0.0, 5.0],
        [0.6, 1.5, 5.0],
    ] {
        let section = DistillSection {
            cross_entropy: a,
            divergence: b,
            smooth_l1: gamma,
            ..section.clone()
        };
        let objective = Distillation::<LanguageModel>::open(&section, &device).unwrap();
        let loss = |model: &LanguageModel| {
            model.objective(batch.ids.clone(), &mut *objective.of_batch(&batch))
        };
        let tracked = student.clone().train();
        let mut gradients = Collect(loss(&tracked).backward(), Vec::new());
        visit_parameters(&tracked, &mut gradients);
        let direction = gradients.1;
        let squares = direction
            .iter()
            .flat_map(|(_, g)| g)
            .map(|g| f64::from(*g).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let at = |step: f64| {
            let moved =
                map_parameters(student.clone(), &mut Move(&direction, (step / norm) as f32));
            f64::from(loss(&moved).into_scalar::<f32>())
        };
        let step = 4e-3;
        let slope = (at(step) - at(-step)) / (2.0 * step);
        assert!(
            (slope / norm - 1.0).abs() < 0.01,
            "{section:?}: {slope} {norm}"
        );
    }
}

#[test]
fn another_teacher_is_an_error() {
    let (dir, device) = (tempfile::tempdir().unwrap(), Device::default());
    let (_, section) = teacher(dir.path(), &device);
    let other: LanguageModel = LanguageModel::init(&config(vec![2, 2]), 9, &device).unwrap();
    save(&other, dir.path(), &SaveOptions::default()).unwrap();
    let error = Distillation::<LanguageModel>::open(&section, &device).unwrap_err();
    assert!(
        matches!(error, DistillError::AnotherTeacher { .. }),
        "{error}"
    );
}

/// PyTorch's results: `crates/conformance/golden/distillation/README.md`.
#[test]
fn terms_and_gradients_equal_pytorchs() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let teacher = here.join("../conformance/golden/models/iiet-r3-gqa-untied");
    let read = |path: &Path| -> BTreeMap<String, Vec<f32>> {
        let bytes = std::fs::read(path).unwrap();
        let file = parse_safetensors(path, &bytes).unwrap();
        let tensors = file.tensors().into_iter().map(|(name, view)| {
            let values = match view.dtype().bitsize() {
                32 => view.data().chunks_exact(4).map(f32_of).collect(),
                _ => view
                    .data()
                    .chunks_exact(8)
                    .map(|b| i64_of(b) as f32)
                    .collect(),
            };
            (name, values)
        });
        tensors.collect()
    };
    let case = read(&teacher.join("case.safetensors"));
    let golden = read(
        &here.join("../conformance/golden/distillation/iiet-r3-gqa-untied-to-1-0-2.safetensors"),
    );
    let device = Device::default().autodiff();
    let (rows, seq) = (2, 24);
    let ids: Vec<i64> = case["input_ids"].iter().map(|id| *id as i64).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new::<i64, _>(ids, [rows, seq]), &device);
    let weights: Vec<f32> = (1..=rows * seq)
        .map(|i| if i % seq == 0 { 0.0 } else { 1.0 })
        .collect();
    let weights = Tensor::from_data(TensorData::new::<f32, _>(weights, [rows, seq]), &device);
    let batch = BatchTensors::of_texts(ids.clone(), ids.roll_dim(-1, 1), weights, 46);
    let section = DistillSection {
        teacher: teacher.clone(),
        teacher_hash: model_hash(&teacher).unwrap(),
        cross_entropy: 0.6,
        divergence: 1.5,
        temperature: 2.0,
        smooth_l1: 5.0,
    };
    let plain = Device::default();
    let (model, mut config) = load(&teacher, &plain).unwrap();
    let schedule = IterationSchedule::PerLayer(vec![1, 0, 2]);
    config.solver = config.solver.with_iterations(schedule);
    let student = model.with_config(&config, 0, &plain).unwrap().train();
    let objective = Distillation::<LanguageModel>::open(&section, &plain).unwrap();

    let mut of_batch = objective.of_batch(&batch);
    let loss = student.objective(batch.ids.clone(), &mut *of_batch);
    let found = f64::from(loss.clone().into_scalar::<f32>());
    assert!(close(found, f64::from(golden["loss"][0])), "{found}");
    for ((name, found), expected) in of_batch.terms().iter().zip(&golden["terms"]) {
        assert!(
            close(*found, f64::from(*expected)),
            "{name}: {found} {expected}"
        );
    }
    let mut whole = Golden(loss.backward(), BTreeMap::new());
    visit_parameters(&student, &mut whole);
    let mut parts: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    let by_layers = student.objective_by_layers(
        batch.ids.clone(),
        &mut *objective.of_batch(&batch),
        |part| {
            let mut part = Golden(part, BTreeMap::new());
            visit_parameters(&student, &mut part);
            for (name, values) in part.1 {
                let sum = parts.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut()
                    .zip(values)
                    .for_each(|(sum, value)| *sum += value);
            }
        },
    );
    assert!(close(f64::from(by_layers.into_scalar::<f32>()), found));
    let names: Vec<&String> = golden
        .keys()
        .filter(|name| name.starts_with("grad."))
        .collect();
    for gradients in [&whole.1, &parts] {
        assert_eq!(gradients.keys().collect::<Vec<_>>(), names);
        for (name, found) in gradients {
            let expected = &golden[name];
            let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            for (a, b) in found.iter().zip(expected) {
                assert!(
                    (a - b).abs() <= 1e-4 * largest,
                    "{name}: {a} {b} of {largest}"
                );
            }
        }
    }
}

fn f32_of(bytes: &[u8]) -> f32 {
    f32::from_le_bytes(bytes.try_into().unwrap())
}

fn i64_of(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().unwrap())
}

/// Gradients by name, as PyTorch lays them out.
struct Golden(burn::tensor::Gradients, BTreeMap<String, Vec<f32>>);

impl ParameterVisitor for Golden {
    fn visit<const D: usize>(&mut self, name: &str, role: Role, parameter: &Param<Tensor<D>>) {
        if let Some(gradient) = parameter.val().grad(&self.0) {
            let gradient = match role.transposed {
                true => gradient.transpose(),
                false => gradient,
            };
            let values = gradient.try_into_vec_as::<f32>().unwrap();
            self.1.insert(format!("grad.{name}"), values);
        }
    }
}
