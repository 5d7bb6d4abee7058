use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use iiet_kernels::{linear_cross_entropy, linear_distillation};

use crate::check::{Input, assert_differentiates, assert_equal, random};

const FACTOR: f64 = 0.7;

fn composed(
    [hidden, projection]: [Tensor<2>; 2],
    [teacher_hidden, teacher_projection]: [Tensor<2>; 2],
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> Tensor<1> {
    let log_q = log_softmax(hidden.matmul(projection), 1);
    let log_p = log_softmax(teacher_hidden.matmul(teacher_projection), 1);
    let picked = log_q.clone().gather(1, targets.unsqueeze_dim(1));
    let divergence = (log_p.clone().exp() * (log_p - log_q)).sum_dim(1);
    let losses = divergence * FACTOR - picked;
    (losses.squeeze_dim::<1>(1) * weights).sum()
}

fn targets(tokens: usize, vocab: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..tokens).map(|t| (t * 7919 % vocab) as i32).collect();
    Tensor::from_data(TensorData::new::<i32, _>(ids, [tokens]), device)
}

/// Tokens, the student's width, the teacher's, vocabulary.
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

type Loss = fn([Tensor<2>; 2], [Tensor<2>; 2], Tensor<1, Int>, Tensor<1>) -> Tensor<1>;

fn fused(s: [Tensor<2>; 2], t: [Tensor<2>; 2], ids: Tensor<1, Int>, w: Tensor<1>) -> Tensor<1> {
    linear_distillation(s, t, ids, w, FACTOR).loss
}

/// The student's projection its own matrix, the teacher's a transposed embedding.
fn run(x: &[Tensor<1>], [tokens, d, d_teacher, vocab]: Sizes, loss: Loss) -> Tensor<1> {
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
    )
}

#[test]
fn equals_the_composition() {
    for sizes in [
        [1, 1, 1, 1],
        [3, 2, 4, 17],
        [17, 33, 5, 3],
        [65, 5, 17, 130],
    ] {
        assert_equal(&inputs(sizes), &|x| run(x, sizes, fused), &|x| {
            run(x, sizes, composed)
        });
    }
}

#[test]
fn differentiates() {
    let sizes = [3, 2, 4, 5];
    assert_differentiates(&inputs(sizes), &|x| run(x, sizes, fused));
}

#[test]
fn a_teacher_that_is_the_student_adds_nothing() {
    let device = Device::default().autodiff();
    let x = |n, seed| random(n, seed).on(burn::tensor::DType::F32, &device);
    let model = [x(4 * 3, 1).reshape([4, 3]), x(3 * 9, 2).reshape([3, 9])];
    let (ids, weights) = (targets(4, 9, &device), Tensor::ones([4], &device));
    let [hidden, projection] = model.clone();
    let alone = linear_cross_entropy(hidden, projection, ids.clone(), weights.clone());
    let with = linear_distillation(model.clone(), model, ids, weights, 3.0);
    let [alone, loss, divergence] =
        [alone, with.loss, with.divergence].map(|x| x.into_scalar::<f32>());
    assert!(
        (alone - loss).abs() < 1e-5 && divergence.abs() < 1e-6,
        "{alone} {loss} {divergence}"
    );
}

/// Two chunks of at most 2^24 logits.
#[test]
fn in_several_chunks() {
    let sizes = [250, 2, 3, 80_001];
    let [tokens, d, d_teacher, vocab] = sizes;
    let device = Device::default();
    let x = inputs(sizes).map(|input| input.on(burn::tensor::DType::F32, &device));
    let whole = run(&x, sizes, fused).into_scalar::<f32>();
    let mut parts = 0.0;
    for part in [0..100, 100..200, 200..tokens] {
        let rows =
            |x: &Tensor<1>, width: usize| x.clone().reshape([tokens, width]).slice([part.clone()]);
        let student = [rows(&x[0], d), x[1].clone().reshape([d, vocab])];
        let projection = x[3].clone().reshape([vocab, d_teacher]).transpose();
        let teacher = [rows(&x[2], d_teacher), projection];
        let ids = targets(tokens, vocab, &device).slice([part.clone()]);
        let weights = x[4].clone().slice([part.clone()]);
        parts += linear_distillation(student, teacher, ids, weights, FACTOR)
            .loss
            .into_scalar::<f32>();
    }
    assert!((whole / parts - 1.0).abs() < 1e-5, "{whole} {parts}");
}
