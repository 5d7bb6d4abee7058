//! Q8_0: 32 8-bit integers q with a scale d in half precision, x = d q.
//!
//! A block is the scale, then the integers. d = max |x| / 127, and q = x / d rounded to the nearest, ties away
//! from zero; the division is by d before it is rounded to half precision.

use half::f16;

use super::{half_at, scale};

const BLOCK: usize = 32;
const BYTES: usize = 2 + BLOCK;

pub(super) fn dequantize(block: &[u8; BYTES]) -> [f32; BLOCK] {
    let d = half_at(block, 0).to_f32();
    std::array::from_fn(|i| f32::from(block[2 + i].cast_signed()) * d)
}

/// `None` if the scale is infinite in half precision.
pub(super) fn quantize(x: &[f32; BLOCK]) -> Option<[u8; BYTES]> {
    let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&scale(d)?);
    for (q, x) in block[2..].iter_mut().zip(x) {
        // The cast saturates, for scales whose inverse is infinite; in half precision such a scale is 0.
        *q = ((x * inverse).round() as i8).cast_unsigned();
    }
    Some(block)
}

/// The scale.
pub(super) fn scale_of(block: &[u8; BYTES]) -> f16 {
    half_at(block, 0)
}

/// The integers without a sign, q + 128.
pub(super) fn codes(block: &[u8; BYTES]) -> [u8; BLOCK] {
    std::array::from_fn(|i| block[2 + i] ^ 0x80)
}

/// The block of a scale and of integers without a sign.
pub(super) fn block(scale: f16, codes: &[u8; BLOCK]) -> [u8; BYTES] {
    let mut block = [0; BYTES];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    for (q, code) in block[2..].iter_mut().zip(codes) {
        *q = code ^ 0x80;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_the_scale_and_the_integers() {
        let mut x = [0.0; BLOCK];
        // The scale is 1.
        x[..6].copy_from_slice(&[127.0, -3.0, 0.5, 1.5, -0.5, -2.49]);
        let block = quantize(&x).unwrap();
        assert_eq!(block[..2], [0x00, 0x3c]);
        let q: Vec<i8> = block[2..9].iter().map(|q| q.cast_signed()).collect();
        assert_eq!(q, [127, -3, 1, 2, -1, -2, 0]);
        let back = dequantize(&block);
        assert_eq!(back[..7], [127.0, -3.0, 1.0, 2.0, -1.0, -2.0, 0.0]);
    }

    #[test]
    fn codes_are_the_integers_without_a_sign() {
        let mut bytes = [0; BYTES];
        bytes[..5].copy_from_slice(&[0x00, 0xbc, 0, 0x80, 0x7f]);
        let codes = codes(&bytes);
        assert_eq!(codes[..4], [128, 0, 255, 128]);
        assert_eq!(scale_of(&bytes), f16::NEG_ONE);
        assert_eq!(block(f16::NEG_ONE, &codes), bytes);
    }

    #[test]
    fn zeros_and_the_smallest_numbers_become_zeros() {
        for x in [0.0, f32::from_bits(1), 1e-39] {
            let block = quantize(&[x; BLOCK]).unwrap();
            assert_eq!(dequantize(&block), [0.0; BLOCK]);
        }
    }
}
