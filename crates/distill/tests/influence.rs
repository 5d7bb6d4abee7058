//! The influence table against one computed by hand and one from whole steps with shorter schedules.

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_blocks::Projection;
use iiet_distill::{DistillError, Influence, InfluenceMeter};
use iiet_model::{At, LanguageModel, LlamaConfig, ModelConfig};
use iiet_ode::{AnySolver, IterationSchedule, Layer, Options, SolverConfig};

fn config(name: &str, iterations: IterationSchedule, n_layers: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        d_model: 16,
        n_layers,
        seq_len: 32,
        initializer_range: 0.2,
        tie_embeddings: true,
        block: LlamaConfig {
            d_ff: 24,
            n_heads: 4,
            n_kv_heads: 2,
            ..LlamaConfig::default()
        },
        solver: SolverConfig::named(name)
            .unwrap()
            .with_iterations(iterations),
        bos_token_id: None,
        eos_token_ids: Vec::new(),
    }
}

fn ids(rows: &[Vec<i64>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new::<i64, _>(rows.concat(), shape), device)
}

/// Six sequences of nine tokens.
fn sequences() -> Vec<Vec<i64>> {
    (0..6)
        .map(|row| {
            (0..9)
                .map(|t| (7 * row * row + 11 * t + row * t) % 61)
                .collect()
        })
        .collect()
}

fn measure(model: &LanguageModel, rows: &[Vec<i64>], batch: usize, device: &Device) -> Influence {
    let mut meter = InfluenceMeter::new(model).unwrap();
    for rows in rows.chunks(batch) {
        meter.add(model, ids(rows, device));
    }
    meter.finish()
}

/// One layer of textbook implicit Euler whose attention rotates a single token by 90 degrees and whose
/// feed-forward layer is zero: F(y) = R y / rms(y). From y_0 = (sqrt 2, 0),
///
/// - yhat^(0) = y_0 + R (sqrt 2, 0) ... with y / rms(y) = (sqrt 2, 0): (sqrt 2, sqrt 2), at 45 degrees;
/// - yhat^(1) = y_0 + R (1, 1) = (sqrt 2 - 1, 1), at 67.5 degrees.
///
/// So I[1,1] = 1 - cos(22.5 degrees).
#[test]
fn the_table_equals_values_computed_by_hand() {
    let device = Device::flex();
    let config = ModelConfig {
        vocab_size: 2,
        d_model: 2,
        block: LlamaConfig {
            d_ff: 1,
            n_heads: 1,
            n_kv_heads: 1,
            ..LlamaConfig::default()
        },
        ..config("implicit_euler", IterationSchedule::Uniform(1), 1)
    };
    let mut model: LanguageModel = LanguageModel::empty(&config, &device).unwrap();
    let matrix = |rows: [[f32; 2]; 2]| Param::from_tensor(Tensor::<2>::from_data(rows, &device));
    let embedding = model.model.embed_tokens.dense_mut().unwrap();
    embedding.weight = matrix([[2.0f32.sqrt(), 0.0], [0.0, 0.0]]);
    let set = |projection: &mut Projection, weight| projection.dense_mut().unwrap().weight = weight;
    let layer = &mut model.model.layers[0];
    // Row vectors times [in, out]: (1, 0) becomes (0, 1).
    set(
        &mut layer.self_attn.v_proj,
        matrix([[0.0, 1.0], [-1.0, 0.0]]),
    );
    set(
        &mut layer.self_attn.o_proj,
        matrix([[1.0, 0.0], [0.0, 1.0]]),
    );
    set(&mut layer.self_attn.q_proj, matrix([[0.0; 2]; 2]));
    set(&mut layer.self_attn.k_proj, matrix([[0.0; 2]; 2]));
    let zeros = |shape: [usize; 2]| Param::from_tensor(Tensor::<2>::zeros(shape, &device));
    set(&mut layer.mlp.gate_proj, zeros([2, 1]));
    set(&mut layer.mlp.up_proj, zeros([2, 1]));
    set(&mut layer.mlp.down_proj, zeros([1, 2]));

    let table = measure(&model, &[vec![0]], 1, &device);
    let expected = 1.0 - (std::f64::consts::PI / 8.0).cos();
    let found = table.influence[0][0];
    assert!(
        (found - expected).abs() < 1e-6,
        "{found}, expected {expected}"
    );
    assert_eq!(table.standard_error, [[None]]);
    assert_eq!((table.tokens, table.sequences), (1, 1));
}

/// `yhat_n^(i)` as the step of a solver with i corrections in layer n.
fn stopped_early(
    model: &LanguageModel,
    r: &[usize],
    rows: &[Vec<i64>],
    device: &Device,
) -> Vec<Vec<Vec<f32>>> {
    let batch = ids(rows, device);
    let mut at = model.start(batch.clone());
    let mut outputs = Vec::new();
    for layer in Layer::all(r.len()) {
        let step = |corrections: usize, at: At<AnySolver>| {
            let mut schedule = r.to_vec();
            schedule[layer.index()] = corrections;
            let schedule = IterationSchedule::PerLayer(schedule);
            let mut shorter = model.clone();
            match &mut shorter.model.solver {
                AnySolver::IterativeImplicitEuler(s) => s.options.iterations = schedule,
                AnySolver::ImplicitEuler(s) => s.options.iterations = schedule,
                other => panic!("{other:?} takes no corrections"),
            }
            shorter.walk(at, 1, &mut shorter.pass(&batch), &mut ())
        };
        let corrections = r[layer.index()];
        outputs.push(
            (0..=corrections)
                .map(|i| step(i, at.clone()).y.try_into_vec_as::<f32>().unwrap())
                .collect(),
        );
        at = step(corrections, at);
    }
    outputs
}

/// The mean over tokens of 1 - cos, in f64.
fn mean_distance(a: &[f32], b: &[f32], width: usize) -> f64 {
    let tokens = a.chunks(width).zip(b.chunks(width));
    let distances = tokens.map(|(a, b)| {
        let dot = |x: &[f32], y: &[f32]| -> f64 {
            x.iter()
                .zip(y)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum()
        };
        1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    });
    distances.sum::<f64>() / (a.len() / width) as f64
}

#[test]
fn each_value_compares_two_shorter_steps_for_every_batch_size() {
    let device = Device::flex();
    let rows = sequences();
    for (name, r) in [
        ("iterative_implicit_euler", vec![3, 0, 2, 1]),
        ("implicit_euler", vec![2, 1, 0, 3]),
    ] {
        let schedule = IterationSchedule::PerLayer(r.clone());
        let model = LanguageModel::init(&config(name, schedule, 4), 5, &device).unwrap();
        let outputs = stopped_early(&model, &r, &rows, &device);
        for batch in [1, 4, 6] {
            let table = measure(&model, &rows, batch, &device);
            assert_eq!((table.tokens, table.sequences), (54, 6));
            for (n, row) in table.influence.iter().enumerate() {
                assert_eq!(row.len(), r[n]);
                for (i, found) in row.iter().enumerate() {
                    let expected = mean_distance(&outputs[n][i], &outputs[n][i + 1], 16);
                    assert!(expected > 1e-6, "the influence must not be negligible");
                    assert!(
                        (found - expected).abs() < 1e-5 * expected + 1e-7,
                        "{name:?}, batch {batch}, layer {n}, correction {i}: {found}, {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_standard_error_is_over_sequences() {
    let device = Device::flex();
    let rows = sequences();
    let name = "iterative_implicit_euler";
    let config = config(name, IterationSchedule::Uniform(1), 2);
    let model = LanguageModel::init(&config, 5, &device).unwrap();
    let of_each: Vec<f64> = rows
        .iter()
        .map(|row| measure(&model, std::slice::from_ref(row), 1, &device).influence[1][0])
        .collect();
    let n = of_each.len() as f64;
    let mean = of_each.iter().sum::<f64>() / n;
    let variance = of_each.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let table = measure(&model, &rows, 4, &device);
    let found = table.standard_error[1][0].unwrap();
    let expected = (variance / n).sqrt();
    assert!((found / expected - 1.0).abs() < 1e-4, "{found}, {expected}");
}

#[test]
fn a_model_without_corrections_is_an_error_naming_its_solver() {
    let device = Device::flex();
    for (name, r) in [("explicit_euler", 3), ("iterative_implicit_euler", 0)] {
        let config = config(name, IterationSchedule::Uniform(r), 2);
        let model: LanguageModel = LanguageModel::empty(&config, &device).unwrap();
        let error = InfluenceMeter::new(&model).unwrap_err();
        assert!(matches!(error, DistillError::NoCorrections { solver } if solver == name));
        assert!(error.to_string().contains("_euler, has no"), "{error}");
    }
}
