//! A quantised matrix: codes, scales and zero points.
//!
//! The codes are those of the format `pack-quantized` of compressed-tensors, byte by byte: per row, the codes of the
//! inputs in order, as unsigned numbers of 8 bits, or of 4 bits with the earlier input in the lower half of a byte.
//! In words of 32 bits in little-endian order that is code i in the bits from `i bits` on. Zero points have one byte
//! each here, `[d_out, d_in / group]`; [`StoredMatrix`](crate::StoredMatrix) packs them.

use half::f16;

use crate::CompressError;
use crate::error::check_length;
use crate::scheme::{Bits, Grid, Scheme};

/// A quantised matrix `[d_out, d_in]` that borrows its parts: what products take.
#[derive(Debug, Clone, Copy)]
pub struct PackedView<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) d_out: usize,
    pub(crate) d_in: usize,
    pub(crate) codes: &'a [u8],
    pub(crate) scales: &'a [f16],
    pub(crate) zeros: &'a [u8],
}

impl<'a> PackedView<'a> {
    /// The matrix of these parts. Only lengths are checked, so this is cheap; the values come from a
    /// [`PackedMatrix`], which checked them.
    ///
    /// # Shapes
    ///
    /// - `codes`: `d_out` rows of [`Scheme::row_bytes`]
    /// - `scales`: `[d_out, d_in / group]`
    /// - `zeros`: `[d_out, d_in / group]`; empty for symmetric groups
    ///
    /// # Errors
    ///
    /// When groups do not divide `d_in`, and for other lengths.
    pub fn new(
        scheme: Scheme,
        d_out: usize,
        d_in: usize,
        codes: &'a [u8],
        scales: &'a [f16],
        zeros: &'a [u8],
    ) -> Result<Self, CompressError> {
        scheme.check(d_out, d_in)?;
        let groups = d_out * (d_in / scheme.group());
        check_length("codes", codes.len(), d_out * scheme.row_bytes(d_in))?;
        check_length("scales", scales.len(), groups)?;
        let zero_points = if scheme.symmetric() { 0 } else { groups };
        check_length("zero points", zeros.len(), zero_points)?;
        Ok(Self {
            scheme,
            d_out,
            d_in,
            codes,
            scales,
            zeros,
        })
    }

    /// How the matrix is quantised.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Output width.
    pub fn d_out(&self) -> usize {
        self.d_out
    }

    /// Input width.
    pub fn d_in(&self) -> usize {
        self.d_in
    }

    /// Scales, `[d_out, d_in / group]`.
    pub fn scales(&self) -> &'a [f16] {
        self.scales
    }

    /// Zero points, `[d_out, d_in / group]`; empty for symmetric groups.
    pub fn zeros(&self) -> &'a [u8] {
        self.zeros
    }

    /// Bytes of codes, scales and zero points.
    pub fn bytes(&self) -> usize {
        self.codes.len() + size_of_val(self.scales) + self.zeros.len()
    }

    pub(crate) fn groups_per_row(&self) -> usize {
        self.d_in / self.scheme.group()
    }

    pub(crate) fn row_codes(&self, row: usize) -> &'a [u8] {
        let bytes = self.scheme.row_bytes(self.d_in);
        &self.codes[row * bytes..][..bytes]
    }

    pub(crate) fn row_scales(&self, row: usize) -> &'a [f16] {
        let groups = self.groups_per_row();
        &self.scales[row * groups..][..groups]
    }

    /// Empty for symmetric groups.
    pub(crate) fn row_zeros(&self, row: usize) -> &'a [u8] {
        match self.scheme.symmetric() {
            true => &[],
            false => &self.zeros[row * self.groups_per_row()..][..self.groups_per_row()],
        }
    }

    /// Scale and zero point of a group.
    pub fn grid(&self, row: usize, group: usize) -> Grid {
        Grid {
            scale: self.row_scales(row)[group],
            zero: match self.scheme.symmetric() {
                true => self.scheme.bits().middle(),
                false => self.row_zeros(row)[group],
            },
        }
    }

    /// The code of one weight.
    pub fn code(&self, row: usize, column: usize) -> u8 {
        let codes = self.row_codes(row);
        match self.scheme.bits() {
            Bits::Eight => codes[column],
            Bits::Four => (codes[column / 2] >> (column % 2 * 4)) & 15,
        }
    }

    /// All codes, one byte each, `[d_out, d_in]`.
    pub fn unpack(&self) -> Vec<u8> {
        match self.scheme.bits() {
            Bits::Eight => self.codes.to_vec(),
            Bits::Four => self.codes.iter().flat_map(|b| [b & 15, b >> 4]).collect(),
        }
    }
}

/// A quantised matrix `[d_out, d_in]` with its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedMatrix {
    scheme: Scheme,
    d_out: usize,
    d_in: usize,
    codes: Vec<u8>,
    scales: Vec<f16>,
    zeros: Vec<u8>,
}

impl PackedMatrix {
    /// A matrix of packed codes, with the shapes of [`PackedView::new`].
    ///
    /// # Errors
    ///
    /// As there, and for non-finite scales and zero points above [`Bits::max_code`].
    pub fn new(
        scheme: Scheme,
        d_out: usize,
        d_in: usize,
        codes: Vec<u8>,
        scales: Vec<f16>,
        zeros: Vec<u8>,
    ) -> Result<Self, CompressError> {
        PackedView::new(scheme, d_out, d_in, &codes, &scales, &zeros)?;
        if let Some(index) = scales.iter().position(|s| !s.is_finite()) {
            return Err(CompressError::Value {
                what: "scale",
                index,
                found: scales[index].to_string(),
                allowed: "a finite number",
            });
        }
        check_codes("zero point", scheme.bits(), &zeros)?;
        Ok(Self {
            scheme,
            d_out,
            d_in,
            codes,
            scales,
            zeros,
        })
    }

    /// Packs codes that have one byte each, `[d_out, d_in]`.
    ///
    /// # Errors
    ///
    /// As [`PackedMatrix::new`], and for codes above [`Bits::max_code`].
    pub fn pack(
        scheme: Scheme,
        d_out: usize,
        d_in: usize,
        codes: &[u8],
        scales: Vec<f16>,
        zeros: Vec<u8>,
    ) -> Result<Self, CompressError> {
        scheme.check(d_out, d_in)?;
        check_length("codes", codes.len(), d_out * d_in)?;
        check_codes("code", scheme.bits(), codes)?;
        let packed = match scheme.bits() {
            Bits::Eight => codes.to_vec(),
            Bits::Four => {
                let (pairs, _) = codes.as_chunks::<2>();
                pairs.iter().map(|[low, high]| low | high << 4).collect()
            }
        };
        Self::new(scheme, d_out, d_in, packed, scales, zeros)
    }

    /// The matrix as products take it.
    pub fn view(&self) -> PackedView<'_> {
        PackedView {
            scheme: self.scheme,
            d_out: self.d_out,
            d_in: self.d_in,
            codes: &self.codes,
            scales: &self.scales,
            zeros: &self.zeros,
        }
    }

    /// Packed codes, scales and zero points, with the shapes of [`PackedView::new`].
    pub fn into_parts(self) -> (Vec<u8>, Vec<f16>, Vec<u8>) {
        (self.codes, self.scales, self.zeros)
    }
}

fn check_codes(what: &'static str, bits: Bits, codes: &[u8]) -> Result<(), CompressError> {
    match codes.iter().position(|&c| c > bits.max_code()) {
        None => Ok(()),
        Some(index) => Err(CompressError::Value {
            what,
            index,
            found: codes[index].to_string(),
            allowed: "0 to 15",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_input_is_in_the_lower_half_of_a_byte() {
        let scheme = Scheme::new(4, 32, false).unwrap();
        let codes: Vec<u8> = (0..32).map(|i| i % 16).collect();
        let scales = vec![f16::from_f32(0.5)];
        let matrix = PackedMatrix::pack(scheme, 1, 32, &codes, scales, vec![3]).unwrap();
        let view = matrix.view();
        assert_eq!(view.row_codes(0)[..3], [0x10, 0x32, 0x54]);
        assert_eq!(view.unpack(), codes);
        assert_eq!(view.code(0, 21), 5);
        assert_eq!(view.grid(0, 0).value(view.code(0, 21)), 1.0);
        // 16 bytes of codes, two of the scale, one of the zero point.
        assert_eq!(view.bytes(), 19);
    }

    #[test]
    fn parts_that_do_not_fit_are_rejected() {
        let scheme = Scheme::new(4, 32, true).unwrap();
        let scale = || vec![f16::ONE];
        let pack = |codes: &[u8], scales, zeros| {
            PackedMatrix::pack(scheme, 1, 32, codes, scales, zeros).map(|_| ())
        };
        assert_eq!(pack(&[15; 32], scale(), vec![]), Ok(()));
        let error = pack(&[16; 32], scale(), vec![]).unwrap_err();
        assert_eq!(error.to_string(), "code 0: 16, allowed is 0 to 15");
        let error = pack(&[0; 31], scale(), vec![]).unwrap_err();
        assert_eq!(error.to_string(), "codes: 31 entries, expected 32");
        assert!(pack(&[0; 32], vec![], vec![]).is_err());
        assert!(pack(&[0; 32], scale(), vec![8]).is_err());
        let error = pack(&[0; 32], vec![f16::NAN], vec![]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "scale 0: NaN, allowed is a finite number"
        );
    }
}
