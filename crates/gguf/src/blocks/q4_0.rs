//! Q4_0: 32 4-bit integers q with a scale d in half precision, x = d (q - 8).
//!
//! A block is the scale, then 16 bytes; byte i has element i in its lower and element i + 16 in its upper half.
//! d = m / -8 for the element m of the largest magnitude, so that m becomes -8 exactly, and q = x / d + 8.5 cut
//! off, at most 15. The product and the sum are rounded separately, as ggml's portable build does.

use half::f16;

use super::{half_at, scale};

const BLOCK: usize = 32;
const HALF: usize = BLOCK / 2;
const BYTES: usize = 2 + HALF;

pub(super) fn dequantize(block: &[u8; BYTES]) -> [f32; BLOCK] {
    let d = half_at(block, 0).to_f32();
    std::array::from_fn(|i| {
        let pair = block[2 + i % HALF];
        let q = if i < HALF { pair & 15 } else { pair >> 4 };
        (f32::from(q) - 8.0) * d
    })
}

/// `None` if the scale is infinite in half precision.
pub(super) fn quantize(x: &[f32; BLOCK]) -> Option<[u8; BYTES]> {
    // The first of those of the same magnitude.
    let largest = x.iter().fold(
        0.0f32,
        |largest, x| if largest.abs() < x.abs() { *x } else { largest },
    );
    let d = largest / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&scale(d)?);
    // The cast saturates, for scales whose inverse is infinite; in half precision such a scale is 0.
    let q = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    for i in 0..HALF {
        block[2 + i] = q(x[i]) | q(x[i + HALF]) << 4;
    }
    Some(block)
}

/// The scale.
pub(super) fn scale_of(block: &[u8; BYTES]) -> f16 {
    half_at(block, 0)
}

/// The integers of elements 2 i and 2 i + 1 in the lower and upper half of byte i.
pub(super) fn codes(block: &[u8; BYTES]) -> [u8; HALF] {
    std::array::from_fn(|i| {
        let at = 2 + 2 * i % HALF;
        let (first, second) = (block[at], block[at + 1]);
        if i < HALF / 2 {
            first & 15 | second << 4
        } else {
            first >> 4 | second & 0xf0
        }
    })
}

/// The block of a scale and of integers in the order of [`codes`].
pub(super) fn block(scale: f16, codes: &[u8; HALF]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    let q = |element: usize| codes[element / 2] >> (element % 2 * 4) & 15;
    for i in 0..HALF {
        block[2 + i] = q(i) | q(i + HALF) << 4;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_scale_and_pairs_of_integers() {
        let mut x = [0.0; BLOCK];
        // The scale is -1: 8 is stored as 0, -7 as 15, and -8, which comes later, as 16 cut to 15.
        (x[0], x[1], x[16], x[17]) = (8.0, -7.0, -8.0, 0.4);
        let block = quantize(&x).unwrap();
        assert_eq!(block[..5], [0x00, 0xbc, 0xf0, 0x8f, 0x88]);
        let back = dequantize(&block);
        assert_eq!([back[0], back[1], back[2]], [8.0, -7.0, 0.0]);
        assert_eq!([back[16], back[17]], [-7.0, 0.0]);
    }

    #[test]
    fn codes_are_in_the_order_of_the_elements() {
        let mut bytes = [0; BYTES];
        // Elements 0 and 16, 1 and 17, .., 15 and 31.
        bytes[..6].copy_from_slice(&[0x00, 0xbc, 0xa1, 0xb2, 0xc3, 0xd4]);
        bytes[17] = 0xe5;
        let codes = codes(&bytes);
        assert_eq!(codes[..2], [0x21, 0x43]);
        assert_eq!(codes[7..10], [0x50, 0xba, 0xdc]);
        assert_eq!(codes[15], 0xe0);
        assert_eq!(block(f16::NEG_ONE, &codes), bytes);
    }

    #[test]
    fn zeros_stay_zeros() {
        let block = quantize(&[0.0; BLOCK]).unwrap();
        assert_eq!(block[..3], [0, 0x80, 0x88]);
        assert_eq!(dequantize(&block), [0.0; BLOCK]);
    }
}
