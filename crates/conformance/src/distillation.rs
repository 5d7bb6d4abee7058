//! The loss of a student and its gradients against PyTorch's: text, the teacher's distribution at a
//! temperature, and its layers.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use iiet_distill::{DistillSection, Distillation};
use iiet_model::{LanguageModel, model_hash, parse_safetensors};
use iiet_ode::{IterationSchedule, Options};
use iiet_train::{BatchTensors, TrainingObjective};

use crate::finding::{difference, values};
use crate::golden::{floats, on_device};
use crate::parity::{ByName, CollectGradients, compare};
use crate::{Case, ConformanceError, Finding};

const TEACHER: &str = "iiet-r3-gqa-untied";
const ITERATIONS: [usize; 3] = [1, 0, 2];
const OF_PYTORCH: &[u8] =
    include_bytes!("../golden/distillation/iiet-r3-gqa-untied-to-1-0-2.safetensors");

pub(crate) fn check(device: &Device) -> Result<Vec<Finding>, ConformanceError> {
    let teacher = Case::all()
        .into_iter()
        .find(|case| case.name == TEACHER)
        .expect("invariant: the case is embedded");
    let folder = teacher.directory()?;
    let section = DistillSection {
        teacher: folder.path().to_owned(),
        teacher_hash: model_hash(folder.path())?,
        cross_entropy: 0.6,
        divergence: 1.5,
        temperature: 2.0,
        smooth_l1: 5.0,
    };
    let objective = Distillation::<LanguageModel>::open(&section, device)?;
    let model = teacher.model(device)?;
    let mut config = model.config();
    let schedule = IterationSchedule::PerLayer(ITERATIONS.to_vec());
    config.solver = config.solver.with_iterations(schedule);
    let student = model.with_config(&config, 0, device)?.train();

    let batch = batch(&teacher.expected()?.ids, device);
    let loss = student.objective(batch.ids.clone(), &mut *objective.of_batch(&batch));
    let found = values("loss", loss.clone().inner())?;
    let mut gradients = CollectGradients::default();
    gradients.add(&student, loss.backward());
    let mut gradients = gradients.finish()?;

    let file = parse_safetensors(Path::new(TEACHER), OF_PYTORCH)?;
    let array = |name: &str| file.tensor(name).map(|view| floats(view.data()));
    let expected = array("loss").map_err(|error| teacher.refuse(format!("loss: {error}")))?;
    let of_pytorch: ByName = file
        .iter()
        .filter_map(|(name, view)| {
            Some((name.strip_prefix("grad.")?.to_owned(), floats(view.data())))
        })
        .collect();
    // Parameters of layers without corrections have no gradient and are not in the file.
    gradients.retain(|name, gradient| {
        of_pytorch.contains_key(name) || gradient.iter().any(|g| *g != 0.0)
    });
    let finding = |what, deviation, tolerance| Finding {
        case: TEACHER.to_owned(),
        what,
        deviation,
        tolerance,
    };
    Ok(vec![
        finding(
            "loss, relative",
            difference(&found, &expected) / f64::from(expected[0]),
            2e-5,
        ),
        finding(
            "gradients",
            compare(&teacher, &gradients, &of_pytorch)?,
            1e-4,
        ),
    ])
}

/// Every token predicts the next; the last token of each row takes part only in the forward pass.
fn batch(rows: &[Vec<u32>], device: &Device) -> BatchTensors {
    let device = device.clone().autodiff();
    let shape = [rows.len(), rows[0].len()];
    let ids = on_device(rows, &device);
    let weights: Vec<f32> = (1..=shape[0] * shape[1])
        .map(|i| if i % shape[1] == 0 { 0.0 } else { 1.0 })
        .collect();
    let weights = Tensor::from_data(TensorData::new::<f32, _>(weights, shape), &device);
    let tokens = (shape[0] * (shape[1] - 1)) as u64;
    BatchTensors::of_texts(ids.clone(), ids.roll_dim(-1, 1), weights, tokens)
}
