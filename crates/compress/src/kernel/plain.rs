//! The products in plain Rust: what the other implementations must equal bit by bit, and what runs without AVX-512.

use super::inputs::{Tile, WideInputs};
use super::integers::Int8Inputs;
use super::piece::{Piece, padded, widened};
use super::simd::{prefetch, vectorised};
use super::{AHEAD, LANES, LINE};
use crate::scheme::Bits;

/// Calls a function with the largest tile of 8, 4, 2 and 1 rows that are left, until none is.
macro_rules! by_tiles {
    ($rows:expr, |$from:ident| $function:ident $(::<$($constant:tt),*>)? ($($argument:expr),*)) => {{
        let mut $from = 0;
        while $from < $rows {
            match $rows - $from {
                8.. => { $function::<$($($constant,)*)? 8>($($argument),*); $from += 8; }
                4.. => { $function::<$($($constant,)*)? 4>($($argument),*); $from += 4; }
                2.. => { $function::<$($($constant,)*)? 2>($($argument),*); $from += 2; }
                _ => { $function::<$($($constant,)*)? 1>($($argument),*); $from += 1; }
            }
        }
    }};
}
#[cfg_attr(not(target_arch = "x86_64"), allow(unused_imports))]
pub(super) use by_tiles;

/// The outputs of a piece of the weights, `y[r][i]` for row r of x and row i of the piece.
pub(super) fn product(y: &mut [&mut [f32]], x: &WideInputs, piece: &Piece) {
    by_tiles!(y.len(), |from| tile(y, x, piece, from));
}

/// The same with integers.
pub(super) fn product_int8(y: &mut [&mut [f32]], x: &Int8Inputs, piece: &Piece) {
    by_tiles!(y.len(), |from| integer_tile(y, x, piece, from));
}

fn tile<const R: usize>(y: &mut [&mut [f32]], x: &WideInputs, piece: &Piece, from: usize) {
    match piece.bits {
        Bits::Four => rows::<8, R>(y, x, piece, from),
        Bits::Eight => rows::<4, R>(y, x, piece, from),
    }
}

fn integer_tile<const R: usize>(y: &mut [&mut [f32]], x: &Int8Inputs, piece: &Piece, from: usize) {
    match piece.bits {
        Bits::Four => integer_rows::<8, R>(y, x, piece, from),
        Bits::Eight => integer_rows::<4, R>(y, x, piece, from),
    }
}

vectorised! {
    #[expect(clippy::needless_range_loop, reason = "i is a row of several outputs")]
    fn rows<const V: usize, const R: usize>(y: &mut [&mut [f32]], x: &WideInputs, piece: &Piece, from: usize) {
        let x = &x.values[from * x.stride..][..R * x.stride];
        let x: &[[Tile<f32, R>; V]] = x.as_chunks().0.as_chunks().0;
        for i in 0..piece.rows() {
            let mut sums = [[0.0; LANES]; R];
            for (s, blocks) in piece.spans().enumerate() {
                let (scales, zeros) = grids(piece, i, s);
                let zeros = zeros.map(f32::from);
                for b in blocks {
                    let words = words(&piece.codes(i)[b * LINE..]);
                    let (scales, zeros) = (spread(scales, b, piece), spread(zeros, b, piece));
                    let mut parts = [[0.0; LANES]; R];
                    for k in 0..V {
                        let mask = u32::MAX >> (32 - 32 / V);
                        let mut v = [0.0; LANES];
                        for l in 0..LANES {
                            v[l] = ((words[l] >> (k * (32 / V))) & mask) as i32 as f32 - zeros[l];
                        }
                        for r in 0..R {
                            let x = &x[b][k][r].0;
                            for l in 0..LANES {
                                // The first product is not added to zero: -0 would become 0.
                                parts[r][l] = if k == 0 { v[l] * x[l] } else { v[l].mul_add(x[l], parts[r][l]) };
                            }
                        }
                    }
                    for r in 0..R {
                        for l in 0..LANES {
                            sums[r][l] = parts[r][l].mul_add(scales[l], sums[r][l]);
                        }
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                y[from + r][i] = fold(sums);
            }
        }
    }

    #[expect(clippy::needless_range_loop, reason = "i is a row of several outputs")]
    fn integer_rows<const V: usize, const R: usize>(y: &mut [&mut [f32]], x: &Int8Inputs, piece: &Piece, from: usize) {
        let planes = V / 4;
        let (values, scales_x, sums_x) = x.tile::<R>(from, planes);
        for i in 0..piece.rows() {
            let mut sums = [[0.0; LANES]; R];
            for (s, blocks) in piece.spans().enumerate() {
                let (of_groups, zeros) = grids(piece, i, s);
                let mut scales = [[0.0; LANES]; R];
                for r in 0..R {
                    for l in 0..LANES {
                        scales[r][l] = of_groups[l] * scales_x[s][r].0[l];
                    }
                }
                for b in blocks {
                    let words = words(&piece.codes(i)[b * LINE..]);
                    let zeros = spread(zeros, b, piece);
                    for r in 0..R {
                        let mut dots = [0; LANES];
                        for l in 0..LANES {
                            dots[l] = -(i32::from(zeros[l]) * sums_x[b][r].0[l]);
                        }
                        for plane in 0..planes {
                            let integers = &values[b * planes + plane][r].0;
                            for l in 0..LANES {
                                let codes = match V {
                                    8 => (words[l] >> (4 * plane)) & 0x0f0f_0f0f,
                                    _ => words[l],
                                };
                                for byte in 0..4 {
                                    let u = (integers[l] >> (8 * byte)) as i8;
                                    dots[l] += ((codes >> (8 * byte)) & 0xff) as i32 * i32::from(u);
                                }
                            }
                        }
                        let scales = spread(scales[r], b, piece);
                        for l in 0..LANES {
                            sums[r][l] = (dots[l] as f32).mul_add(scales[l], sums[r][l]);
                        }
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                y[from + r][i] = fold(sums);
            }
        }
    }
}

/// Scales and zero points of a span, and zeros after the last of a row.
#[inline(always)]
pub(super) fn grids(piece: &Piece, row: usize, span: usize) -> ([f32; LANES], [u8; LANES]) {
    let from = span * LANES;
    let zeros = match piece.zeros(row) {
        Some(zeros) => padded(&zeros[from..]),
        None => [piece.bits.middle(); LANES],
    };
    (padded(&piece.scales(row)[from..]).map(widened), zeros)
}

/// The words of a block, and zeros after the last of a row.
#[inline(always)]
pub(super) fn words(codes: &[u8]) -> [u32; LANES] {
    prefetch(codes.as_ptr().wrapping_add(AHEAD));
    let bytes: [u8; LINE] = padded(codes);
    let mut words = [0; LANES];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// For each lane of a block the value of its group, of those of the block's span.
#[inline(always)]
fn spread<T: Copy>(values: [T; LANES], block: usize, piece: &Piece) -> [T; LANES] {
    std::array::from_fn(|l| values[((block * LANES + l) >> piece.shift) % LANES])
}

/// The sum of the lanes, by halves.
#[inline(always)]
pub(super) fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}
