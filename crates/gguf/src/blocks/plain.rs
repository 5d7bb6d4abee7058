//! Elements without blocks.

use half::{bf16, f16};

pub(super) fn from_f32(bytes: &[u8; 4]) -> [f32; 1] {
    [f32::from_le_bytes(*bytes)]
}

pub(super) fn from_f16(bytes: &[u8; 2]) -> [f32; 1] {
    [f16::from_le_bytes(*bytes).to_f32()]
}

pub(super) fn from_bf16(bytes: &[u8; 2]) -> [f32; 1] {
    [bf16::from_le_bytes(*bytes).to_f32()]
}

/// Rounded to the nearest, ties to even.
pub(super) fn to_f16([x]: &[f32; 1]) -> Option<[u8; 2]> {
    let rounded = f16::from_f32(*x);
    rounded.is_finite().then(|| rounded.to_le_bytes())
}

/// Rounded to the nearest, ties to even.
pub(super) fn to_bf16([x]: &[f32; 1]) -> Option<[u8; 2]> {
    let rounded = bf16::from_f32(*x);
    rounded.is_finite().then(|| rounded.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_rounded_to_even() {
        // 1 + 2^-8 is between 1 and 1 + 2^-7, and 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
        let bits = |x| to_bf16(&[x]).map(u16::from_le_bytes);
        assert_eq!(bits(1.0 + 2f32.powi(-8)), Some(0x3f80));
        assert_eq!(bits(1.0 + 3.0 * 2f32.powi(-8)), Some(0x3f82));
        let bits = |x| to_f16(&[x]).map(u16::from_le_bytes);
        assert_eq!(bits(1.0 + 2f32.powi(-11)), Some(0x3c00));
        assert_eq!(bits(1.0 + 3.0 * 2f32.powi(-11)), Some(0x3c02));
        assert_eq!(bits(65_519.0), Some(0x7bff));
        assert_eq!(bits(65_520.0), None);
    }
}
