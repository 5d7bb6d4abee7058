use std::collections::HashSet;

use burn::tensor::{DType, Device};

use super::*;

const RATES: DropoutRates = DropoutRates {
    residual: 0.1,
    attention: 0.2,
    activation: 0.3,
};

const PLACES: [Place; Place::NUMBER] = [
    Place::Embedding,
    Place::Attention,
    Place::AttentionWeights,
    Place::CrossAttention,
    Place::CrossAttentionWeights,
    Place::FeedForward,
    Place::Activation,
];

fn values(mask: &DropoutMask) -> Vec<u32> {
    let values = mask.tensor([4, 300], &Device::default());
    let values = values.into_data().try_into_vec_as::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn steps_micro_batches_layers_places_and_sides_have_masks_of_their_own() {
    let of = |seed, step, micro_batch| {
        let rates = DropoutRates {
            residual: 0.5,
            attention: 0.5,
            activation: 0.5,
        };
        Dropout::new(rates, seed, step, micro_batch).unwrap()
    };
    let mut passes = vec![of(1, 0, 0).of_decoder()];
    for x in [0, 1, 1 << 32] {
        passes.extend([of(2, x, 7), of(2, 7, x), of(x, 2, 3)]);
    }
    let mut seen = HashSet::new();
    let mut count = 0;
    for dropout in passes {
        for layer in Layer::all(3) {
            for place in PLACES {
                let mask = dropout.mask(layer, place).unwrap();
                assert_eq!(values(&mask), values(&mask));
                seen.insert(values(&mask));
                count += 1;
            }
        }
    }
    assert_eq!((count, seen.len()), (210, 210));
}

#[test]
fn each_place_has_the_rate_of_its_kind() {
    let dropout = Dropout::new(RATES, 1, 2, 3).unwrap();
    let residual = |place| {
        !matches!(
            place,
            Place::AttentionWeights | Place::CrossAttentionWeights | Place::Activation
        )
    };
    for place in PLACES {
        let rate = match place {
            Place::Activation => 0.3,
            place if residual(place) => 0.1,
            _ => 0.2,
        };
        let mask = dropout.mask(Layer::at(4), place).unwrap();
        let n = 100_000;
        let mask = mask.tensor([n], &Device::default());
        let dropped = mask.equal_elem(0.0).int().sum().into_scalar::<i64>();
        // Five standard deviations.
        let bound = 5.0 * (n as f64 * rate * (1.0 - rate)).sqrt();
        let apart = (dropped as f64 - rate * n as f64).abs();
        assert!(apart < bound, "{place:?}: {dropped} of {n}");
    }
}

#[test]
fn the_mean_of_a_mask_is_one() {
    let dropout = Dropout::new(RATES, 1, 2, 3).unwrap();
    let y = Tensor::<3>::ones([10, 100, 100], &Device::default());
    let mean = dropout.embedding(y).mean().into_scalar::<f64>();
    // Five standard deviations sqrt(p / (1 - p) / n).
    let bound = 5.0 * (0.1f64 / 0.9 / 1e5).sqrt();
    assert!((mean - 1.0).abs() < bound, "{mean}");
}

#[test]
fn one_tensor_serves_recorded_and_plain_evaluations() {
    let dropout = ContextDropout::Pass(Dropout::new(RATES, 1, 2, 3).unwrap());
    for dtype in [DType::F32, DType::BF16] {
        let masks = dropout.at_layer(Layer::at(1)).unwrap();
        assert!(masks.at_layer(Layer::at(1)).is_none());
        let x = Tensor::<3>::ones([2, 7, 30], (&Device::default(), dtype));
        let plain = masks.apply(Place::FeedForward, x.clone());
        let recorded = masks.apply(Place::FeedForward, x.clone().autodiff());
        assert!(recorded.is_autodiff() && recorded.dtype() == dtype);
        recorded
            .inner()
            .into_data()
            .assert_eq(&plain.clone().into_data(), true);
        // In the other order.
        let masks = dropout.at_layer(Layer::at(1)).unwrap();
        let recorded = masks.apply(Place::FeedForward, x.clone().autodiff());
        let again = masks.apply(Place::FeedForward, x);
        assert!(recorded.is_autodiff() && !again.is_autodiff());
        again.into_data().assert_eq(&plain.into_data(), true);
    }
}

#[test]
fn a_rate_of_zero_has_no_mask() {
    let rates = DropoutRates {
        attention: 0.5,
        ..DropoutRates::default()
    };
    assert!(!rates.are_zero() && DropoutRates::default().are_zero());
    let dropout = Dropout::new(rates, 1, 2, 3).unwrap();
    for place in PLACES {
        let weights = matches!(
            place,
            Place::AttentionWeights | Place::CrossAttentionWeights
        );
        assert_eq!(dropout.mask(Layer::FIRST, place).is_some(), weights);
    }
}

#[test]
fn rates_out_of_range_name_the_key() {
    for (rates, expected) in [
        (
            DropoutRates {
                residual: 1.0,
                ..RATES
            },
            "dropout.residual is 1; allowed: at least 0 and below 1",
        ),
        (
            DropoutRates {
                attention: -0.1,
                ..RATES
            },
            "dropout.attention is -0.1; allowed: at least 0 and below 1",
        ),
        (
            DropoutRates {
                activation: f64::NAN,
                ..RATES
            },
            "dropout.activation is NaN; allowed: at least 0 and below 1",
        ),
    ] {
        let error = Dropout::new(rates, 0, 0, 0).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
#[should_panic = "at_layer has the masks of a layer"]
fn a_pass_without_a_layer_is_not_applied() {
    let dropout = ContextDropout::Pass(Dropout::new(RATES, 1, 2, 3).unwrap());
    let x = Tensor::<3>::ones([1, 1, 4], &Device::default());
    dropout.apply(Place::FeedForward, x);
}
