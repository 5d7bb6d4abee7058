use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_kernels::{DistillationMix, linear_cross_entropy, linear_distillation};

use crate::check::{Input, assert_differentiates, assert_equal, random};

const MIXES: [DistillationMix; 4] = [
    mix(1.0, 0.7, 1.0),
    mix(0.3, 1.5, 2.0),
    mix(0.0, 1.0, 0.5),
    mix(1.0, 0.0, 4.0),
];

const fn mix(cross_entropy: f64, divergence: f64, temperature: f64) -> DistillationMix {
    DistillationMix {
        cross_entropy,
        divergence,
        temperature,
    }
}

fn composed(
    [hidden, projection]: [Tensor<2>; 2],
    [teacher_hidden, teacher_projection]: [Tensor<2>; 2],
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    mix: DistillationMix,
) -> Tensor<1> {
    let z = hidden.matmul(projection);
    let picked = log_softmax(z.clone(), 1).gather(1, targets.unsqueeze_dim(1));
    let log_q = log_softmax(z / mix.temperature, 1);
    let log_p = log_softmax(
        teacher_hidden.matmul(teacher_projection) / mix.temperature,
        1,
    );
    let divergence = (log_p.clone().exp() * (log_p - log_q)).sum_dim(1);
    let divergence = divergence * mix.temperature.powi(2);
    let losses = divergence * mix.divergence - picked * mix.cross_entropy;
    (losses.squeeze_dim::<1>(1) * weights).sum()
}

fn targets(tokens: usize, vocab: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..tokens).map(|t| (t * 7919 % vocab) as i32).collect();
    Tensor::from_data(TensorData::new::<i32, _>(ids, [tokens]), device)
}

/// Tokens, the student's width, the teacher's width, vocabulary.
type Sizes = [usize; 4];

fn inputs([tokens, d, d_teacher, vocab]: Sizes) -> [Input; 5] {
    [
        random(tokens * d, 1),
        random(d * vocab, 2),
        random(tokens * d_teacher, 3).constant(),
        random(d_teacher * vocab, 4).constant(),
        random(tokens, 5)
            .map(|x| if x < -0.5 { 0.0 } else { x })
            .constant(),
    ]
}

type Loss =
    fn([Tensor<2>; 2], [Tensor<2>; 2], Tensor<1, Int>, Tensor<1>, DistillationMix) -> Tensor<1>;

fn fused(
    s: [Tensor<2>; 2],
    t: [Tensor<2>; 2],
    ids: Tensor<1, Int>,
    w: Tensor<1>,
    mix: DistillationMix,
) -> Tensor<1> {
    linear_distillation(s, t, ids, w, mix).loss
}

/// The student's projection is a separate matrix, the teacher's a transposed embedding.
fn run(
    x: &[Tensor<1>],
    [tokens, d, d_teacher, vocab]: Sizes,
    mix: DistillationMix,
    loss: Loss,
) -> Tensor<1> {
    let student = [
        x[0].clone().reshape([tokens, d]),
        x[1].clone().reshape([d, vocab]),
    ];
    let teacher = [
        x[2].clone().reshape([tokens, d_teacher]),
        x[3].clone().reshape([vocab, d_teacher]).transpose(),
    ];
    loss(
        student,
        teacher,
        targets(tokens, vocab, &x[0].device()),
        x[4].clone(),
        mix,
    )
}

#[test]
fn equals_the_composed_form() {
    for sizes in [
        [1, 1, 1, 1],
        [3, 2, 4, 17],
        [17, 33, 5, 3],
        [65, 5, 17, 130],
    ] {
        for mix in MIXES {
            assert_equal(&inputs(sizes), &|x| run(x, sizes, mix, fused), &|x| {
                run(x, sizes, mix, composed)
            });
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let sizes = [3, 2, 4, 5];
    for mix in MIXES {
        assert_differentiates(&inputs(sizes), &|x| run(x, sizes, mix, fused));
    }
}

#[test]
fn divergence_of_a_student_from_itself_is_zero() {
    let device = Device::default().autodiff();
    let x = |n, seed| random(n, seed).on(burn::tensor::DType::F32, &device);
    let model = [x(4 * 3, 1).reshape([4, 3]), x(3 * 9, 2).reshape([3, 9])];
    let (ids, weights) = (targets(4, 9, &device), Tensor::ones([4], &device));
    let [hidden, projection] = model.clone();
    let alone = linear_cross_entropy(hidden, projection, ids.clone(), weights.clone());
    let with = linear_distillation(model.clone(), model, ids, weights, mix(1.0, 3.0, 2.0));
    let [alone, loss] = [alone, with.loss].map(|x| x.into_scalar::<f32>());
    let parts = with.parts.try_into_vec_as::<f32>().unwrap();
    assert!(
        (alone - loss).abs() < 1e-5 && (alone - parts[0]).abs() < 1e-5 && parts[1].abs() < 1e-5,
        "{alone} {loss} {parts:?}"
    );
}

/// Two chunks of at most 2^24 logits.
#[test]
fn several_chunks_equal_the_composed_form() {
    let sizes = [250, 2, 3, 80_001];
    let [tokens, d, d_teacher, vocab] = sizes;
    let device = Device::default();
    let x = inputs(sizes).map(|input| input.on(burn::tensor::DType::F32, &device));
    let whole = run(&x, sizes, MIXES[0], fused).into_scalar::<f32>();
    let mut parts = 0.0;
    for part in [0..100, 100..200, 200..tokens] {
        let rows =
            |x: &Tensor<1>, width: usize| x.clone().reshape([tokens, width]).slice([part.clone()]);
        let student = [rows(&x[0], d), x[1].clone().reshape([d, vocab])];
        let projection = x[3].clone().reshape([vocab, d_teacher]).transpose();
        let teacher = [rows(&x[2], d_teacher), projection];
        let ids = targets(tokens, vocab, &device).slice([part.clone()]);
        let weights = x[4].clone().slice([part.clone()]);
        parts += linear_distillation(student, teacher, ids, weights, MIXES[0])
            .loss
            .into_scalar::<f32>();
    }
    assert!((whole / parts - 1.0).abs() < 1e-5, "{whole} {parts}");
}
