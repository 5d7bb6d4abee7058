//! Pruning against the reference (`benches/peers/compress_reference.py`), and properties.

mod data;

use data::{correlated, reference};
use iiet_compress::Hessian;
use iiet_compress::prune::{InputNorms, Pattern, SparseGpt, magnitude, wanda, zeros};

const HALF: Pattern = Pattern::Unstructured { sparsity: 0.5 };
const TWO_OF_FOUR: Pattern = Pattern::n_of_m(2, 4);

#[test]
fn wanda_is_that_of_the_reference() {
    let data = reference();
    let mut inputs = InputNorms::new(data.hessian.d_in());
    inputs.add(&data.x).unwrap();
    for inputs in [inputs, InputNorms::of(&data.hessian)] {
        for (name, pattern) in [("half", HALF), ("2of4", TWO_OF_FOUR)] {
            let mut w = data.w.clone();
            wanda(&mut w, data.d_out, &inputs, pattern).unwrap();
            assert_eq!(w, data.f32s(&format!("wanda.{name}")), "{name}");
        }
    }
}

#[test]
fn sparse_gpt_is_that_of_the_reference() {
    let data = reference();
    for (name, pattern) in [("half", HALF), ("2of4", TWO_OF_FOUR)] {
        let mut w = data.w.clone();
        SparseGpt::new(pattern)
            .prune(&mut w, data.d_out, &data.hessian)
            .unwrap();
        for (i, (found, expected)) in w
            .iter()
            .zip(data.f32s(&format!("sparse_gpt.{name}")))
            .enumerate()
        {
            assert_eq!(*found == 0.0, expected == 0.0, "{name} {i}");
            assert!(
                (found - expected).abs() < 2e-6,
                "{name} {i}: {found} {expected}"
            );
        }
    }
}

#[test]
fn on_correlated_inputs_magnitude_loses_to_wanda_and_wanda_to_sparse_gpt() {
    let (d_out, d_in) = (40, 256);
    let mut x = correlated(1, 500, d_in);
    for (i, x) in x.iter_mut().enumerate() {
        // Inputs of different sizes, which is what Wanda takes into account.
        *x *= 0.2 + (i % d_in % 7) as f32;
    }
    let w = correlated(2, d_out, d_in);
    let mut hessian = Hessian::new(d_in).unwrap();
    hessian.add(&x).unwrap();
    let inputs = InputNorms::of(&hessian);
    for pattern in [HALF, TWO_OF_FOUR] {
        let error = |prune: &dyn Fn(&mut Vec<f32>)| {
            let mut pruned = w.clone();
            prune(&mut pruned);
            assert!((zeros(&pruned) - 0.5).abs() < 1e-3);
            let difference: Vec<f32> = pruned.iter().zip(&w).map(|(a, b)| a - b).collect();
            hessian.output_error(&difference).unwrap()
        };
        let by_magnitude = error(&|w| magnitude(w, d_out, d_in, pattern).unwrap());
        let by_wanda = error(&|w| wanda(w, d_out, &inputs, pattern).unwrap());
        let compensated = error(&|w| {
            SparseGpt::new(pattern).prune(w, d_out, &hessian).unwrap();
        });
        assert!(by_wanda < 0.9 * by_magnitude, "{by_wanda} {by_magnitude}");
        assert!(compensated < 0.5 * by_wanda, "{compensated} {by_wanda}");
    }
}

#[test]
fn every_four_neighbours_keep_two() {
    let (d_out, d_in) = (5, 148);
    let mut w = correlated(4, d_out, d_in);
    let mut hessian = Hessian::new(d_in).unwrap();
    hessian.add(&correlated(5, 64, d_in)).unwrap();
    SparseGpt::new(TWO_OF_FOUR)
        .prune(&mut w, d_out, &hessian)
        .unwrap();
    for four in w.chunks(4) {
        assert_eq!(four.iter().filter(|&&w| w == 0.0).count(), 2);
    }
}
