//! Q4_K: 256 4-bit integers q in eight groups of 32, x = (d s) q - (e m).
//!
//! A block is d and e in half precision, 12 bytes with the eight 6-bit pairs of s and m, and 128 bytes with the
//! integers. Of the 12 bytes, 0 to 3 and 4 to 7 have s and m of the first four groups in their lower six bits;
//! those of group 4 + i have their lower four bits in the lower and the upper half of byte 8 + i, and their two
//! upper bits in those of bytes i and 4 + i. Of each 32 of the 128 bytes, the lower halves are one group and the
//! upper halves the next.

use super::half_at;

const BLOCK: usize = 256;
const GROUP: usize = 32;
const SCALES: usize = 4;
const INTEGERS: usize = SCALES + 12;
const BYTES: usize = INTEGERS + BLOCK / 2;

pub(super) fn dequantize(block: &[u8; BYTES]) -> [f32; BLOCK] {
    let (d, e) = (half_at(block, 0).to_f32(), half_at(block, 2).to_f32());
    let mut values = [0.0; BLOCK];
    for (group, values) in values.chunks_exact_mut(GROUP).enumerate() {
        let (s, m) = scale_and_minimum(&block[SCALES..INTEGERS], group);
        let (scale, minimum) = (d * f32::from(s), e * f32::from(m));
        let start = INTEGERS + group / 2 * GROUP;
        let shift = 4 * (group % 2);
        for (x, pair) in values.iter_mut().zip(&block[start..]) {
            *x = scale * f32::from(pair >> shift & 15) - minimum;
        }
    }
    values
}

fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => {
            let (low, s, m) = (packed[group + 4], packed[group - 4], packed[group]);
            (low & 15 | s >> 6 << 4, low >> 4 | m >> 6 << 4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_scales_and_minima() {
        let mut block = [0; BYTES];
        block[..4].copy_from_slice(&[0x00, 0x3c, 0x00, 0x38]); // 1 and 0.5
        // Group 1: s = 2, m = 6. Group 6: s = 0b11_0101 = 53, m = 0b10_0011 = 35.
        block[SCALES + 1] = 2;
        block[SCALES + 5] = 6;
        block[SCALES + 10] = 0x35;
        block[SCALES + 2] = 0b1100_0000;
        block[SCALES + 6] = 0b1000_0000;
        // The first pair of groups 0 and 1, and that of groups 6 and 7.
        block[INTEGERS] = 0x71;
        block[INTEGERS + 96] = 0x03;
        let x = dequantize(&block);
        assert_eq!(x[0], 0.0);
        assert_eq!([x[32], x[33]], [2.0 * 7.0 - 3.0, -3.0]);
        assert_eq!([x[192], x[193]], [53.0 * 3.0 - 17.5, -17.5]);
        assert_eq!(x[224], 0.0);
    }
}
