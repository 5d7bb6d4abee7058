//! The error of rounding and of GPTQ with both choices of a group's range, on the projections of a model.
//!
//! ```text
//! cargo run -p iiet-compress --example ranges -- MODEL.safetensors [MATRICES]
//! ```
//!
//! Per setting: the root of the mean over matrices of |W - W'|^2 / |W|^2. For GPTQ the error is that of the outputs,
//! on synthetic correlated inputs, beside that of rounding on the same.

use iiet_compress::kernel::dequantise;
use iiet_compress::{Gptq, Hessian, PackedMatrix, Range, Scheme, round};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("a file");
    let count: usize = arguments
        .next()
        .map_or(12, |n| n.parse().expect("a number"));
    let bytes = std::fs::read(path).expect("a readable file");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut names: Vec<&str> = file
        .names()
        .into_iter()
        .filter(|n| n.ends_with("_proj.weight"))
        .collect();
    names.sort_unstable();
    let step = names.len().div_ceil(count).max(1);
    let matrices: Vec<(Vec<f32>, usize, usize)> = names
        .iter()
        .step_by(step)
        .map(|name| {
            let tensor = file.tensor(name).expect("a listed tensor");
            let values = tensor.data().as_chunks().0.iter();
            let values = values.map(|&b| f32::from_le_bytes(b)).collect();
            (values, tensor.shape()[0], tensor.shape()[1])
        })
        .filter(|(_, _, d_in)| d_in.is_multiple_of(128))
        .collect();
    println!("{} matrices", matrices.len());
    for bits in [4, 8] {
        for group in [32, 128] {
            for symmetric in [true, false] {
                let scheme = Scheme::new(bits, group, symmetric).expect("supported");
                print!("{bits} bits, group {group}, symmetric {symmetric}:");
                for range in [Range::MinMax, Range::LeastSquares] {
                    let [mut weights, mut outputs, mut gptq_outputs] = [0.0; 3];
                    for (w, d_out, d_in) in &matrices {
                        let hessian = hessian(*d_in);
                        let rounded = round(w, *d_out, *d_in, scheme, range).expect("finite");
                        let gptq = Gptq {
                            range,
                            ..Gptq::new(scheme)
                        };
                        let gptq = gptq.quantise(w, *d_out, &hessian).expect("finite");
                        let difference = difference(w, &rounded);
                        let square = |w: &[f32]| w.iter().map(|w| f64::from(w * w)).sum::<f64>();
                        weights += square(&difference) / square(w);
                        let whole = hessian.output_error(w).expect("whole rows");
                        outputs += hessian.output_error(&difference).expect("whole rows") / whole;
                        let difference = self::difference(w, &gptq);
                        gptq_outputs +=
                            hessian.output_error(&difference).expect("whole rows") / whole;
                    }
                    let n = matrices.len() as f64;
                    let [w, o, g] = [weights, outputs, gptq_outputs].map(|sum| (sum / n).sqrt());
                    print!("  {range:?}: weights {w:.4}, outputs {o:.4}, GPTQ {g:.4}");
                }
                println!();
            }
        }
    }
}

fn difference(w: &[f32], matrix: &PackedMatrix) -> Vec<f32> {
    let mut values = vec![0.0; w.len()];
    let view = matrix.view();
    dequantise(&mut values, &view, 0..view.d_out()).expect("all rows");
    values.iter().zip(w).map(|(a, b)| a - b).collect()
}

/// Of 1024 inputs that are mixtures of a quarter as many sources, and noise.
fn hessian(d_in: usize) -> Hessian {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let sources = d_in / 4;
    let mixture: Vec<f32> = (0..sources * d_in).map(|_| next()).collect();
    let mut hessian = Hessian::new(d_in).expect("a width");
    let mut row = vec![0.0; d_in];
    let mut rows = Vec::with_capacity(256 * d_in);
    for n in 1..=1024 {
        row.iter_mut().for_each(|x| *x = 0.2 * next());
        for mixture in mixture.chunks_exact(d_in) {
            let source = next();
            for (x, m) in row.iter_mut().zip(mixture) {
                *x += source * m;
            }
        }
        rows.extend_from_slice(&row);
        if n % 256 == 0 {
            hessian.add(&rows).expect("whole rows");
            rows.clear();
        }
    }
    hessian
}
