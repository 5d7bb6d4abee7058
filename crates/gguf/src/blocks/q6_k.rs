//! Q6_K: 256 6-bit integers q in sixteen groups of 16, x = (d s) (q - 32).
//!
//! A block is 128 bytes with the lower four bits of the integers, 64 with the upper two, sixteen signed 8-bit s,
//! and d in half precision. Each half of the block, 128 elements, has 64 of the first bytes and 32 of the
//! second: element i has its lower bits in byte i mod 64, in the lower half of the byte if i is below 64, and
//! its upper bits in byte i mod 32, at bit 2 (i / 32).

use super::half_at;

const BLOCK: usize = 256;
const UPPER: usize = BLOCK / 2;
const SCALES: usize = UPPER + BLOCK / 4;
const SCALE: usize = SCALES + BLOCK / 16;
const BYTES: usize = SCALE + 2;

pub(super) fn dequantize(block: &[u8; BYTES]) -> [f32; BLOCK] {
    let d = half_at(block, SCALE).to_f32();
    std::array::from_fn(|element| {
        let (half, i) = (element / 128, element % 128);
        let lower = block[64 * half + i % 64] >> (i / 64 * 4) & 15;
        let upper = block[UPPER + 32 * half + i % 32] >> (i / 32 * 2) & 3;
        let q = (lower | upper << 4).cast_signed() - 32;
        let s = block[SCALES + element / 16].cast_signed();
        d * f32::from(s) * f32::from(q)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_their_bits_in_two_places() {
        let mut block = [0; BYTES];
        block[SCALE..].copy_from_slice(&[0x00, 0x38]); // 0.5
        block[SCALES] = 2;
        block[SCALES + 14] = (-4i8).cast_unsigned();
        // Element 1: 0b10_0101 = 37. Element 225 = 128 + 97: 0b01_1100 = 28.
        block[1] = 0x05;
        block[UPPER + 1] = 0b10;
        block[64 + 33] = 0xc0;
        block[UPPER + 32 + 1] = 0b0100_0000;
        let x = dequantize(&block);
        assert_eq!([x[0], x[1]], [-32.0, 5.0]);
        assert_eq!([x[224], x[225]], [64.0, 8.0]);
        assert_eq!(x[16], 0.0);
    }
}
