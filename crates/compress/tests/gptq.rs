//! GPTQ against an implementation in float64 without factors (`benches/peers/compress_reference.py`), and properties.

mod data;

use data::{correlated, reference, values};
use iiet_compress::{Gptq, Hessian, Order, Range, Scheme, round};

#[test]
fn codes_scales_and_zero_points_are_those_of_the_reference() {
    let data = reference();
    for (name, bits, symmetric, order) in [
        ("b4g32s", 4, true, Order::Inputs),
        ("b4g32a", 4, false, Order::Inputs),
        ("b4g32a-activation", 4, false, Order::Activation),
        ("b8g32s", 8, true, Order::Inputs),
    ] {
        let gptq = Gptq {
            range: Range::MinMax,
            order,
            ..Gptq::new(Scheme::new(bits, 32, symmetric).unwrap())
        };
        let matrix = gptq.quantise(&data.w, data.d_out, &data.hessian).unwrap();
        let view = matrix.view();
        let part = |part: &str| data.bytes(&format!("gptq.{name}.{part}"));
        assert_eq!(view.unpack(), part("codes"), "{name}");
        assert_eq!(view.weight_scale().1, part("scales"), "{name}");
        if !symmetric {
            let (_, _, zeros) = matrix.into_parts();
            assert_eq!(zeros, part("zeros"), "{name}");
        }
    }
}

#[test]
fn the_error_of_correlated_inputs_is_below_that_of_rounding() {
    let (d_out, d_in) = (40, 256);
    let (x, w) = (correlated(1, 500, d_in), correlated(2, d_out, d_in));
    let mut hessian = Hessian::new(d_in).unwrap();
    hessian.add(&x).unwrap();
    for symmetric in [true, false] {
        for range in [Range::MinMax, Range::LeastSquares] {
            let scheme = Scheme::new(4, 64, symmetric).unwrap();
            let error = |matrix: iiet_compress::PackedMatrix| {
                let difference: Vec<f32> = values(&matrix.view())
                    .iter()
                    .zip(&w)
                    .map(|(q, w)| q - w)
                    .collect();
                hessian.output_error(&difference).unwrap()
            };
            let rounded = error(round(&w, d_out, d_in, scheme, range).unwrap());
            for order in [Order::Inputs, Order::Activation] {
                let gptq = Gptq {
                    order,
                    range,
                    ..Gptq::new(scheme)
                };
                let compensated = error(gptq.quantise(&w, d_out, &hessian).unwrap());
                assert!(
                    compensated < 0.5 * rounded,
                    "{symmetric} {range:?} {order:?}: {compensated} {rounded}"
                );
            }
        }
    }
}

#[test]
fn with_uncorrelated_inputs_it_is_rounding() {
    // H is a multiple of the identity: nothing can compensate.
    let d_in = 160;
    let mut x = vec![0.0; d_in * d_in];
    for i in 0..d_in {
        x[i * d_in + i] = 2.0;
    }
    let mut hessian = Hessian::new(d_in).unwrap();
    hessian.add(&x).unwrap();
    let w = correlated(3, 3, d_in);
    let scheme = Scheme::new(4, 32, true).unwrap();
    for order in [Order::Inputs, Order::Activation] {
        let gptq = Gptq {
            order,
            ..Gptq::new(scheme)
        };
        let rounded = round(&w, 3, d_in, scheme, Range::LeastSquares);
        assert_eq!(gptq.quantise(&w, 3, &hessian), rounded);
    }
}

#[test]
fn what_does_not_fit_is_rejected() {
    let mut hessian = Hessian::new(48).unwrap();
    hessian.add(&[1.0; 48]).unwrap();
    let gptq = Gptq::new(Scheme::new(4, 32, true).unwrap());
    let error = gptq.quantise(&[0.0; 96], 2, &hessian).unwrap_err();
    assert_eq!(
        error.to_string(),
        "an input width of 48 is not a multiple of the group size, 32"
    );
    let mut hessian = Hessian::new(32).unwrap();
    hessian.add(&[1.0; 32]).unwrap();
    assert!(gptq.quantise(&[0.0; 63], 2, &hessian).is_err());
    assert!(gptq.quantise(&[f32::NAN; 64], 2, &hessian).is_err());
}
