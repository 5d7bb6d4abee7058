use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use iiet_kernels::linear_cross_entropy;

use crate::check::{assert_differentiates, assert_equal, gradients, random, value};

fn composed(
    hidden: Tensor<2>,
    projection: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> Tensor<1> {
    let log_p = log_softmax(hidden.matmul(projection), 1);
    let picked = log_p
        .gather(1, targets.unsqueeze_dim(1))
        .squeeze_dim::<1>(1);
    (picked * weights).sum().neg()
}

fn targets(tokens: usize, vocab: usize, device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i32> = (0..tokens).map(|t| (t * 7919 % vocab) as i32).collect();
    Tensor::from_data(TensorData::new::<i32, _>(ids, [tokens]), device)
}

/// Tokens, width, vocabulary; the projection as a separate matrix or as a transposed embedding.
fn check([tokens, d_model, vocab]: [usize; 3], tied: bool) {
    let every_third = random(tokens, 3).map(|x| if x < -0.5 { 0.0 } else { x });
    let inputs = [
        random(tokens * d_model, 1),
        random(d_model * vocab, 2),
        every_third.constant(),
    ];
    let projection = |x: &Tensor<1>| {
        if tied {
            x.clone().reshape([vocab, d_model]).transpose()
        } else {
            x.clone().reshape([d_model, vocab])
        }
    };
    type Loss = fn(Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>) -> Tensor<1>;
    let run = |x: &[Tensor<1>], loss: Loss| {
        let hidden = x[0].clone().reshape([tokens, d_model]);
        let targets = targets(tokens, vocab, &x[0].device());
        loss(hidden, projection(&x[1]), targets, x[2].clone())
    };
    assert_equal(&inputs, &|x| run(x, linear_cross_entropy), &|x| {
        run(x, composed)
    });
}

#[test]
fn equals_the_composed_form() {
    for tied in [false, true] {
        check([1, 1, 1], tied);
        check([3, 2, 17], tied);
        check([17, 65, 3], tied);
        check([65, 5, 130], tied);
        check([130, 17, 65], tied);
    }
}

#[test]
fn several_chunks_equal_one() {
    // 2^24 logits per chunk: 209 tokens at this vocabulary.
    let [tokens, d_model, vocab] = [450, 3, 80_001];
    let inputs = [
        random(tokens * d_model, 1),
        random(d_model * vocab, 2),
        random(tokens, 3).constant(),
    ];
    let run = |x: &[Tensor<1>]| {
        let hidden = x[0].clone().reshape([tokens, d_model]);
        let projection = x[1].clone().reshape([vocab, d_model]).transpose();
        let targets = targets(tokens, vocab, &x[0].device());
        linear_cross_entropy(hidden, projection, targets, x[2].clone())
    };
    let in_parts = |x: &[Tensor<1>]| {
        let hidden = x[0].clone().reshape([tokens, d_model]);
        let projection = x[1].clone().reshape([vocab, d_model]).transpose();
        let targets = targets(tokens, vocab, &x[0].device());
        let parts = [0..100, 100..200, 200..300, 300..450].map(|part| {
            linear_cross_entropy(
                hidden.clone().slice([part.clone()]),
                projection.clone(),
                targets.clone().slice([part.clone()]),
                x[2].clone().slice([part]),
            )
        });
        parts.into_iter().reduce(|a, b| a + b).unwrap()
    };
    let (loss, whole) = gradients(&inputs, DType::F32, &run);
    let (expected, parts) = gradients(&inputs, DType::F32, &in_parts);
    crate::check::assert_close("loss", &loss, &expected, 1e-5);
    for (whole, parts) in whole.iter().zip(&parts) {
        crate::check::assert_close("gradient", whole, parts, 1e-4);
    }
    let plain = value(&inputs, DType::F32, &run);
    crate::check::assert_close("plain loss", &plain, &loss, 1e-6);
}

#[test]
fn accepts_views_and_a_scaled_loss() {
    let inputs = [
        random(2 * 9 * 4, 1),
        random(4 * 30, 2),
        random(9, 3).constant(),
    ];
    type Loss = fn(Tensor<2>, Tensor<2>, Tensor<1, Int>, Tensor<1>) -> Tensor<1>;
    let run = |x: &[Tensor<1>], loss: Loss| {
        let hidden = x[0].clone().reshape([4, 18]).transpose();
        let hidden = hidden.slice([5..14, 0..4]);
        let projection = x[1].clone().reshape([4, 30]).slice([0..4, 3..20]);
        let targets = targets(9, 17, &x[0].device());
        loss(hidden, projection, targets, x[2].clone()) / 9.0
    };
    assert_equal(&inputs, &|x| run(x, linear_cross_entropy), &|x| {
        run(x, composed)
    });
}

#[test]
fn gradients_equal_finite_differences() {
    let inputs = [random(6, 1), random(8, 2), random(3, 3).constant()];
    assert_differentiates(&inputs, &|x| {
        let hidden = x[0].clone().reshape([3, 2]);
        let projection = x[1].clone().reshape([4, 2]).transpose();
        let targets = targets(3, 4, &x[0].device());
        linear_cross_entropy(hidden, projection, targets, x[2].clone())
    });
}

#[test]
fn equals_values_computed_by_hand() {
    // Logits (0, ln 3): probabilities 1/4 and 3/4; the second token is padding.
    let device = Device::default();
    let loss = linear_cross_entropy(
        Tensor::ones([2, 1], &device),
        Tensor::from_data([[0.0, 3.0f32.ln()]], &device),
        Tensor::from_data([0, 1], &device),
        Tensor::from_data([1.0, 0.0], &device),
    );
    let loss = loss.into_scalar::<f32>();
    assert!((loss - 4.0f32.ln()).abs() < 1e-6, "{loss}");
}

#[test]
#[should_panic = "target 4 in a vocabulary of 4"]
fn rejects_a_target_beyond_the_vocabulary() {
    let device = Device::default();
    linear_cross_entropy(
        Tensor::ones([1, 2], &device),
        Tensor::ones([2, 4], &device),
        Tensor::from_data([4], &device),
        Tensor::ones([1], &device),
    );
}

#[test]
#[should_panic = "do not match"]
fn does_not_broadcast() {
    let device = Device::default();
    linear_cross_entropy(
        Tensor::ones([2, 2], &device),
        Tensor::ones([2, 4], &device),
        Tensor::from_data([0, 1], &device),
        Tensor::ones([1], &device),
    );
}
