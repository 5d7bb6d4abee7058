//! Products of few rows from packed weights, beside the machine's memory bandwidth.
//!
//! ```text
//! cargo run --release -p iiet-compress --example bench -- [--threads N] [--bits 4|8] [--group N] [--asymmetric]
//!     [--d-out N]
//! ```
//!
//! "cold": matrices in turn, more of them than a cache holds; "warm": the same matrix each time. GB/s are 10^9 bytes
//! of codes, scales and zero points per second; the percentage is of the bandwidth of reading, cold or warm, as many
//! bytes with the same number of threads.

use std::hint::black_box;
use std::time::Instant;

use half::{bf16, f16};
use iiet_compress::kernel::{dequantise, product};
use iiet_compress::{Activations, PackedMatrix, Scheme};
use rayon::prelude::*;

const SHAPES: [(usize, usize); 5] = [
    (2048, 512),
    (512, 2048),
    (1376, 512),
    (4096, 1024),
    (11008, 4096),
];
/// More than the caches that a machine usually has to itself.
const COLD: usize = 640 << 20;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|a| a == name);
        at.map_or(default, |at| arguments[at + 1].parse().expect("a number"))
    };
    let threads = number("--threads", 2) as usize;
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .expect("the first pool");
    let symmetric = !arguments.iter().any(|a| a == "--asymmetric");
    let group = number("--group", 128);
    println!("{threads} threads, group {group}, symmetric: {symmetric}");
    let memory: Vec<u64> = (0..COLD as u64 / 8).collect();
    for bits in [4, 8] {
        if number("--bits", bits) != bits {
            continue;
        }
        let scheme = Scheme::new(bits, group, symmetric).expect("a supported scheme");
        for (d_out, d_in) in SHAPES {
            if number("--d-out", d_out as u64) != d_out as u64 {
                continue;
            }
            let matrix = random(scheme, d_out, d_in);
            let bytes = matrix.view().bytes();
            let copies: Vec<PackedMatrix> = vec![matrix; COLD / bytes];
            let words = bytes / 8;
            let cold = time(|i| read(&memory[i % (memory.len() / words) * words..][..words]));
            let warm = time(|_| read(&memory[..words]));
            println!(
                "\n{d_out} x {d_in}, {bits} bits, {:.2} MB; reading: cold {:.1} GB/s, warm {:.1} GB/s",
                bytes as f64 / 1e6,
                bytes as f64 / cold / 1e9,
                bytes as f64 / warm / 1e9,
            );
            for activations in [Activations::F32, Activations::Int8] {
                for rows in [1, 4, 8] {
                    let x = vec![0.5; rows * d_in];
                    let mut y = vec![0.0; rows * d_out];
                    let mut call = |i: usize| {
                        let view = copies[i % copies.len()].view();
                        product(&mut y, &x, &view, activations).expect("matching lengths");
                    };
                    let out_of_cache = time(&mut call);
                    let in_cache = time(|_| call(0));
                    println!(
                        "  {activations:?} rows {rows}: cold {:8.1} us {:5.1} GB/s {:3.0} %   warm {:8.1} us {:5.1} \
                         GB/s {:3.0} %",
                        out_of_cache * 1e6,
                        bytes as f64 / out_of_cache / 1e9,
                        100.0 * cold / out_of_cache,
                        in_cache * 1e6,
                        bytes as f64 / in_cache / 1e9,
                        100.0 * warm / in_cache,
                    );
                }
            }
            // Blocks of 16 rows, which stay in a core's cache with what they become.
            let mut wide = vec![0.0; 16 * d_in];
            let mut narrow = vec![bf16::ZERO; 16 * d_in];
            let view = copies[0].view();
            let f32s = time(|i| {
                let from = i % (d_out / 16) * 16;
                dequantise(&mut wide, &view, from..from + 16).expect("inside");
            });
            let bf16s = time(|i| {
                let from = i % (d_out / 16) * 16;
                dequantise(&mut narrow, &view, from..from + 16).expect("inside");
            });
            let weights = (16 * d_in) as f64;
            println!(
                "  dequantise, one thread: f32 {:.1}, bf16 {:.1} G weights/s",
                weights / f32s / 1e9,
                weights / bf16s / 1e9
            );
        }
    }
}

fn random(scheme: Scheme, d_out: usize, d_in: usize) -> PackedMatrix {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as u8
    };
    let codes = (0..d_out * scheme.row_bytes(d_in))
        .map(|_| next())
        .collect();
    let grids = d_out * d_in / scheme.group();
    let scales = vec![f16::from_f32(0.01); grids];
    let zeros = match scheme.symmetric() {
        true => vec![],
        false => (0..grids).map(|_| next() & 15).collect(),
    };
    PackedMatrix::new(scheme, d_out, d_in, codes, scales, zeros).expect("parts that fit")
}

/// Seconds of a call: the least of rounds of at least a millisecond each, for the machine may have other work.
fn time(mut f: impl FnMut(usize)) -> f64 {
    let start = Instant::now();
    let mut least = f64::INFINITY;
    let mut i = 0;
    while start.elapsed().as_secs_f64() < 0.25 {
        let (round, from) = (Instant::now(), i);
        while round.elapsed().as_secs_f64() < 1e-3 {
            f(i);
            i += 1;
        }
        least = least.min(round.elapsed().as_secs_f64() / (i - from) as f64);
    }
    least
}

/// Reads all words, on all threads where a product would use them.
fn read(words: &[u64]) {
    const PIECE: usize = 8 << 10;
    match words.len() * 8 < 128 << 10 {
        true => black_box(sum(words)),
        false => black_box(words.par_chunks(PIECE).map(sum).reduce(|| 0, |a, b| a ^ b)),
    };
}

#[cfg(target_arch = "x86_64")]
fn sum(words: &[u64]) -> u64 {
    #[target_feature(enable = "avx512f")]
    fn wide(words: &[u64]) -> u64 {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let mut sums = [0; 32];
        for words in words.as_chunks::<32>().0 {
            for line in 0..4 {
                let address = words.as_ptr().wrapping_add(8 * line + 256).cast();
                _mm_prefetch::<_MM_HINT_T0>(address);
            }
            for l in 0..32 {
                sums[l] ^= words[l];
            }
        }
        sums.into_iter().fold(0, |a, b| a ^ b)
    }
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the instructions.
        return unsafe { wide(words) };
    }
    words.iter().fold(0, |a, b| a ^ b)
}

#[cfg(not(target_arch = "x86_64"))]
fn sum(words: &[u64]) -> u64 {
    words.iter().fold(0, |a, b| a ^ b)
}
