//! Some rows of the weights, by blocks and by spans of sixteen groups, whose scales fill a register.

use std::ops::Range;

use half::f16;

use super::LINE;
use crate::packed::PackedView;
use crate::scheme::Bits;

/// Some rows of the weights.
pub(super) struct Piece<'a> {
    pub(super) bits: Bits,
    /// Bytes of a row of codes.
    row_bytes: usize,
    codes: &'a [u8],
    /// Groups of a row.
    groups: usize,
    /// log2 of the words of a group.
    pub(super) shift: u32,
    scales: &'a [f16],
    /// Zero points like scales, or none.
    zeros: Option<&'a [u8]>,
}

impl<'a> Piece<'a> {
    pub(super) fn new(weights: &PackedView<'a>, rows: Range<usize>) -> Self {
        let scheme = weights.scheme;
        let row_bytes = scheme.row_bytes(weights.d_in);
        let groups = weights.groups_per_row();
        let grids = rows.start * groups..rows.end * groups;
        let words = scheme.group() / (32 / scheme.bits().count());
        Self {
            bits: scheme.bits(),
            row_bytes,
            codes: &weights.codes[rows.start * row_bytes..rows.end * row_bytes],
            groups,
            shift: words.trailing_zeros(),
            scales: &weights.scales[grids.clone()],
            zeros: (!scheme.symmetric()).then(|| &weights.zeros[grids]),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.codes.len() / self.row_bytes
    }

    #[cfg(target_arch = "x86_64")]
    pub(super) fn symmetric(&self) -> bool {
        self.zeros.is_none()
    }

    /// The blocks of each span of sixteen groups of a row, in order.
    #[inline(always)]
    pub(super) fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        let blocks = self.row_bytes.div_ceil(LINE);
        let of_span = 1 << self.shift;
        (0..blocks)
            .step_by(of_span)
            .map(move |from| from..(from + of_span).min(blocks))
    }

    /// The codes of a row.
    #[inline(always)]
    pub(super) fn codes(&self, row: usize) -> &'a [u8] {
        &self.codes[row * self.row_bytes..][..self.row_bytes]
    }

    /// The scales of a row.
    #[inline(always)]
    pub(super) fn scales(&self, row: usize) -> &'a [f16] {
        &self.scales[row * self.groups..][..self.groups]
    }

    /// The zero points of a row, unless groups are symmetric.
    #[inline(always)]
    pub(super) fn zeros(&self, row: usize) -> Option<&'a [u8]> {
        let zeros = self.zeros?;
        Some(&zeros[row * self.groups..][..self.groups])
    }
}

/// The first N values, and then zeros if there are fewer.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(values: &[T]) -> [T; N] {
    match values.first_chunk() {
        Some(values) => *values,
        None => {
            let mut padded = [T::default(); N];
            padded[..values.len()].copy_from_slice(values);
            padded
        }
    }
}

/// The number in f32, which is exact. For loops that are vectorised: conversion instructions of f16 are not part of
/// the oldest x86-64.
#[inline(always)]
pub(super) fn widened(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    // The exponent's bias is 15 in f16 and 127 in f32; the product is exact for subnormal numbers, too.
    let size = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits((127 + 127 - 15) << 23);
    f32::from_bits(size.to_bits() | ((bits & 0x8000) << 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finite_f16_is_widened_exactly() {
        for x in (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite()) {
            assert_eq!(widened(x).to_bits(), x.to_f32().to_bits(), "{x}");
        }
    }
}
