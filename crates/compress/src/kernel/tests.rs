//! The products against f64 and against each other, at odd sizes.

use half::{bf16, f16};

use super::*;
use crate::random::random;
use crate::{PackedMatrix, Scheme};

fn schemes() -> impl Iterator<Item = Scheme> {
    [4, 8].into_iter().flat_map(|bits| {
        [32, 64, 128].into_iter().flat_map(move |group| {
            [true, false].map(|symmetric| Scheme::new(bits, group, symmetric).unwrap())
        })
    })
}

fn matrix(scheme: Scheme, d_out: usize, d_in: usize) -> PackedMatrix {
    let max = f32::from(scheme.bits().max_code());
    let code = |x: f32| ((x + 1.0) / 2.0 * max).round() as u8;
    let codes: Vec<u8> = random(1, d_out * d_in).into_iter().map(code).collect();
    let grids = d_out * (d_in / scheme.group());
    let scales = random(2, grids).into_iter();
    let scales = scales.map(|s| f16::from_f32(0.01 * s)).collect();
    let zeros = match scheme.symmetric() {
        true => vec![],
        false => random(3, grids).into_iter().map(code).collect(),
    };
    PackedMatrix::pack(scheme, d_out, d_in, &codes, scales, zeros).unwrap()
}

/// The weights in f64.
fn exact(view: &PackedView) -> Vec<f64> {
    let weight = |row: usize, column: usize| {
        let grid = view.grid(row, column / view.scheme().group());
        let code = f64::from(view.code(row, column));
        grid.scale.to_f64() * (code - f64::from(grid.zero))
    };
    (0..view.d_out())
        .flat_map(|row| (0..view.d_in()).map(move |column| weight(row, column)))
        .collect()
}

/// Widths with a whole last block, with a part of one, and with less than one; several pieces and one.
fn sizes(scheme: Scheme) -> [(usize, usize); 4] {
    let group = scheme.group();
    [
        (7, group),
        (3, 5 * group),
        (1, 12 * group),
        (301, 11 * group),
    ]
}

const ALL: [Instructions; 3] = [
    Instructions::Plain,
    Instructions::Avx2,
    Instructions::Avx512,
];

fn available() -> impl Iterator<Item = Instructions> {
    ALL.into_iter().filter(|&i| i <= Instructions::best())
}

#[test]
fn products_are_those_in_f64() {
    for scheme in schemes() {
        for (d_out, d_in) in sizes(scheme) {
            let matrix = matrix(scheme, d_out, d_in);
            let view = matrix.view();
            let w = exact(&view);
            for rows in [1, 2, 3, 7, 8, 19] {
                let x = random(4, rows * d_in);
                for activations in [Activations::F32, Activations::Int8] {
                    let mut y = vec![f32::NAN; rows * d_out];
                    product(&mut y, &x, &view, activations).unwrap();
                    let context = format!("{scheme:?} {d_out} {d_in} {rows} {activations:?}");
                    assert_products(&y, &x, &w, (d_out, d_in), activations, &context);
                }
            }
        }
    }
}

/// That y is `x W^T` within the rounding of f32, or that of the inputs too.
fn assert_products(
    y: &[f32],
    x: &[f32],
    w: &[f64],
    (d_out, d_in): (usize, usize),
    activations: Activations,
    context: &str,
) {
    for (y, x) in y.chunks_exact(d_out).zip(x.chunks_exact(d_in)) {
        for (&y, w) in y.iter().zip(w.chunks_exact(d_in)) {
            let terms = x.iter().zip(w).map(|(&x, w)| f64::from(x) * w);
            let (mut sum, mut squares) = (0.0, 0.0);
            for (term, w) in terms.zip(w) {
                sum += term;
                squares += match activations {
                    Activations::F32 => term * term,
                    // Half a step of at most 1 / 127 for each input.
                    Activations::Int8 => w * w,
                };
            }
            let allowed = squares.sqrt()
                * match activations {
                    Activations::F32 => 3e-6,
                    Activations::Int8 => 4.0 * 0.5 / 127.0,
                };
            let error = (f64::from(y) - sum).abs();
            assert!(error <= allowed, "{context}: {y} {sum}");
        }
    }
}

#[test]
fn all_implementations_and_numbers_of_rows_give_the_same_bits() {
    for scheme in schemes() {
        for (d_out, d_in) in sizes(scheme) {
            let matrix = matrix(scheme, d_out, d_in);
            let view = matrix.view();
            let rows = 15;
            let x = random(5, rows * d_in);
            for activations in [Activations::F32, Activations::Int8] {
                let run = |x: &[f32], instructions| {
                    let mut y = vec![f32::NAN; x.len() / d_in * d_out];
                    product_on(&mut y, x, &view, activations, instructions).unwrap();
                    y.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
                };
                let expected = run(&x, Instructions::Plain);
                for instructions in available() {
                    assert_eq!(
                        run(&x, instructions),
                        expected,
                        "{scheme:?} {instructions:?}"
                    );
                    let single: Vec<u32> = x
                        .chunks_exact(d_in)
                        .flat_map(|x| run(x, instructions))
                        .collect();
                    assert_eq!(single, expected, "{scheme:?} {instructions:?} row by row");
                }
            }
        }
    }
}

/// AVX2, and vectors of four floats with FMA as a function.
#[cfg(target_arch = "x86_64")]
#[test]
fn narrower_vectors_give_the_same_bits() {
    for scheme in schemes() {
        let (d_out, d_in) = (5, 5 * scheme.group());
        let matrix = matrix(scheme, d_out, d_in);
        let view = matrix.view();
        let x = random(7, 3 * d_in);
        let run = |width| {
            *simd::LIMIT.write().unwrap() = width;
            let mut all = Vec::new();
            for activations in [Activations::F32, Activations::Int8] {
                let mut y = vec![f32::NAN; 3 * d_out];
                product(&mut y, &x, &view, activations).unwrap();
                all.extend(y);
            }
            let mut wide = vec![0.0; d_out * d_in];
            dequantise(&mut wide, &view, 0..d_out).unwrap();
            let mut narrow = vec![bf16::ZERO; d_out * d_in];
            dequantise(&mut narrow, &view, 0..d_out).unwrap();
            all.extend(wide);
            all.extend(narrow.into_iter().map(bf16::to_f32));
            *simd::LIMIT.write().unwrap() = simd::Width::Avx512;
            all.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        let expected = run(simd::Width::Avx512);
        assert_eq!(run(simd::Width::Avx2), expected, "{scheme:?}");
        assert_eq!(run(simd::Width::Baseline), expected, "{scheme:?}");
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let scheme = Scheme::new(4, 32, false).unwrap();
    let matrix = matrix(scheme, 999, 608);
    let x = random(6, 5 * 608);
    for activations in [Activations::F32, Activations::Int8] {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let mut y = vec![0.0; 5 * 999];
                product(&mut y, &x, &matrix.view(), activations).unwrap();
                y
            })
        };
        assert_eq!(run(1), run(2), "{activations:?}");
        assert_eq!(run(1), run(7), "{activations:?}");
    }
}

#[test]
fn a_product_by_hand() {
    // One output: weights 0.5 (q - 8) with q = 9 for the first input, 15 for the last, and 8 otherwise.
    let scheme = Scheme::new(4, 32, true).unwrap();
    let mut codes = vec![8; 32];
    (codes[0], codes[31]) = (9, 15);
    let scales = vec![f16::from_f32(0.5)];
    let matrix = PackedMatrix::pack(scheme, 1, 32, &codes, scales, vec![]).unwrap();
    let mut x = [1.0; 64];
    (x[0], x[31]) = (3.0, -2.0);
    for instructions in available() {
        let mut y = [0.0; 2];
        let view = matrix.view();
        product_on(&mut y, &x, &view, Activations::F32, instructions).unwrap();
        assert_eq!(y, [0.5 * 3.0 + 3.5 * -2.0, 4.0]);
    }
}

/// The largest codes and inputs, whose pairs must not saturate, and zero points at both ends.
#[test]
fn integers_at_the_ends_of_their_ranges_are_multiplied_exactly() {
    for scheme in schemes() {
        let (group, max) = (scheme.group(), scheme.bits().max_code());
        for (code, zero) in [(max, 0), (0, max), (max, max)] {
            let zeros = match scheme.symmetric() {
                true => vec![],
                false => vec![zero; 2],
            };
            let z = zeros.first().copied().unwrap_or(scheme.bits().middle());
            let codes = vec![code; 2 * group];
            let scales = vec![f16::ONE; 2];
            let matrix = PackedMatrix::pack(scheme, 1, 2 * group, &codes, scales, zeros).unwrap();
            for sign in [1.0, -1.0] {
                let x = vec![127.0 * sign; 2 * group];
                let expected = (i32::from(code) - i32::from(z)) as f32 * x[0] * (2 * group) as f32;
                for instructions in available() {
                    let mut y = [[0.0]; 2];
                    let view = matrix.view();
                    product_on(&mut y[0], &x, &view, Activations::Int8, instructions).unwrap();
                    many::product_on(&mut y[1], &x, &view, instructions).unwrap();
                    assert_eq!(y, [[expected]; 2], "{scheme:?} {instructions:?} {code} {z}");
                }
            }
        }
    }
}

/// What more rows are multiplied with.
#[test]
fn products_of_integers_are_those_of_rounded_inputs() {
    for scheme in schemes() {
        let (d_out, d_in) = (9, 5 * scheme.group());
        let matrix = matrix(scheme, d_out, d_in);
        let view = matrix.view();
        let x = random(8, 3 * d_in);
        let mut y = vec![f32::NAN; 3 * d_out];
        product(&mut y, &x, &view, Activations::Int8).unwrap();
        let mut expected = vec![f32::NAN; 3 * d_out];
        let rounded = rounded_inputs(&x, scheme).unwrap();
        product(&mut expected, &rounded, &view, Activations::F32).unwrap();
        for (y, expected) in y.iter().zip(expected) {
            assert!((y - expected).abs() < 1e-5, "{scheme:?}: {y} {expected}");
        }
    }
}

/// Rows in whole and partial tiles, outputs in whole and partial panels.
#[test]
fn products_of_many_rows_are_those_in_f64() {
    for scheme in schemes() {
        for (d_out, d_in) in sizes(scheme) {
            let matrix = matrix(scheme, d_out, d_in);
            let view = matrix.view();
            let w = exact(&view);
            for rows in [1, 2, 6, 9, 16, 41] {
                let x = random(9, rows * d_in);
                let rounded = rounded_inputs(&x, scheme).unwrap();
                let mut y = vec![f32::NAN; rows * d_out];
                product_of_many(&mut y, &x, &view).unwrap();
                let context = format!("{scheme:?} {d_out} {d_in} {rows}");
                assert_products(&y, &rounded, &w, (d_out, d_in), Activations::F32, &context);
            }
        }
    }
}

#[test]
fn products_of_many_rows_have_the_same_bits_everywhere() {
    for scheme in schemes() {
        let (d_out, d_in, rows) = (77, 5 * scheme.group(), 20);
        let matrix = matrix(scheme, d_out, d_in);
        let x = random(10, rows * d_in);
        let run = |x: &[f32], instructions| {
            let mut y = vec![f32::NAN; x.len() / d_in * d_out];
            many::product_on(&mut y, x, &matrix.view(), instructions).unwrap();
            y.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
        };
        let expected = run(&x, Instructions::Plain);
        for instructions in available() {
            assert_eq!(
                run(&x, instructions),
                expected,
                "{scheme:?} {instructions:?}"
            );
            let other_tiles = run(&x[3 * d_in..], instructions);
            assert_eq!(
                other_tiles,
                expected[3 * d_out..],
                "{scheme:?} {instructions:?}"
            );
        }
        for threads in [1, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let on_pool = || run(&x, Instructions::best());
            assert_eq!(
                pool.build().unwrap().install(on_pool),
                expected,
                "{threads}"
            );
        }
    }
}

#[test]
fn lengths_that_do_not_match_are_rejected() {
    let matrix = matrix(Scheme::new(4, 32, true).unwrap(), 3, 64);
    let view = matrix.view();
    let product =
        |y: usize, x: usize| product(&mut vec![0.0; y], &vec![0.0; x], &view, Activations::F32);
    assert_eq!(product(0, 0), Ok(()));
    assert_eq!(product(6, 128), Ok(()));
    assert!(product(5, 128).is_err());
    assert!(product(6, 127).is_err());
    let many = |y: usize, x: usize| product_of_many(&mut vec![0.0; y], &vec![0.0; x], &view);
    assert_eq!(many(0, 0), Ok(()));
    assert_eq!(many(30, 640), Ok(()));
    assert!(many(29, 640).is_err());
    assert!(many(30, 639).is_err());
}

#[test]
fn rows_are_dequantised_exactly() {
    for scheme in schemes() {
        for (d_out, d_in) in sizes(scheme) {
            let matrix = matrix(scheme, d_out, d_in);
            let view = matrix.view();
            let w = exact(&view);
            let rows = d_out / 3..d_out;
            let mut wide = vec![0.0; rows.len() * d_in];
            dequantise(&mut wide, &view, rows.clone()).unwrap();
            let mut narrow = vec![bf16::ZERO; rows.len() * d_in];
            dequantise(&mut narrow, &view, rows.clone()).unwrap();
            for (i, expected) in w[rows.start * d_in..].iter().enumerate() {
                assert_eq!(f64::from(wide[i]), *expected, "{scheme:?} {i}");
                assert_eq!(narrow[i], bf16::from_f32(wide[i]), "{scheme:?} {i}");
            }
        }
    }
    let matrix = matrix(Scheme::new(4, 32, true).unwrap(), 3, 64);
    let view = matrix.view();
    assert!(dequantise(&mut [0.0; 64], &view, 3..4).is_err());
    assert!(dequantise(&mut [0.0; 63], &view, 2..3).is_err());
    assert!(dequantise::<f32>(&mut [], &view, 3..3).is_ok());
}
