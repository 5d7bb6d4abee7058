//! Dropout's masks, as functions of a key and of an element's place.
//!
//! ```text
//! m = 0 with probability p, else 1 / (1 - p)        y = m x
//! ```
//!
//! Srivastava et al., *Dropout* (JMLR 15, 2014), section 10, with the weights left as they are in evaluation. A
//! mask has rows and columns. Column `64 g + 16 w + l` of a row has word w of the
//! [Philox](crate::philox) counter `(16 g + l, row, stream)`, in which the four vectors of a group of columns
//! are computed together, and is dropped if the word is below `2^32 p`. So an element's mask
//! depends neither on the shape of the tile in which it is computed, nor on threads or devices, and any part
//! can be computed again in the backward pass.

use burn::tensor::{Tensor, TensorCreationOptions, TensorData};

use crate::philox::{LANES, block, words};

/// Columns whose words are computed together.
const GROUP: usize = 4 * LANES;

/// The mask of one place of a model, at one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutMask {
    key: [u32; 2],
    stream: [u32; 2],
    /// An element is kept if its word is not below.
    threshold: u32,
    scale: f64,
}

impl DropoutMask {
    /// A mask that is zero with probability `rate`. Masks with other keys or streams are independent.
    ///
    /// # Panics
    ///
    /// If the rate is outside `0..1`.
    pub fn new(key: [u32; 2], stream: [u32; 2], rate: f64) -> Self {
        assert!(
            (0.0..1.0).contains(&rate),
            "a rate of dropout is {rate}; it must be at least 0 and below 1"
        );
        Self {
            key,
            stream,
            // The rates below 1 that round to 2^32 stay below it.
            threshold: (rate * 4_294_967_296.0) as u32,
            scale: 1.0 / (1.0 - rate),
        }
    }

    /// Four random words for a key and a counter, from which keys and streams of masks are derived.
    pub fn words(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
        block(counter, key)
    }

    /// `1 / (1 - p)`.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The mask of a tensor, with the values 0 and `1 / (1 - p)`, which is rounded to the dtype of the options.
    /// Its elements in row-major order are the columns of row 0.
    ///
    /// It is computed on the CPU and copied to the device.
    ///
    /// # Panics
    ///
    /// If there are more than `2^34` elements.
    pub fn tensor<const D: usize>(
        &self,
        shape: [usize; D],
        options: impl Into<TensorCreationOptions>,
    ) -> Tensor<D> {
        let kept = self.kept(1, shape.iter().product());
        let kept = Tensor::from_data(TensorData::new::<f32, _>(kept, shape), options);
        kept.mul_scalar(self.scale)
    }

    /// Rows of the mask one after the other, as 1 where an element is kept and 0 where it is dropped.
    pub(crate) fn kept(&self, rows: usize, columns: usize) -> Vec<f32> {
        assert!(
            rows <= 1 << 32 && columns <= 1 << 34,
            "a dropout mask has {rows} rows of {columns} columns, at most 2^32 of 2^34"
        );
        #[cfg(feature = "flex")]
        {
            crate::flex::dropout::kept(self, rows, columns)
        }
        #[cfg(not(feature = "flex"))]
        {
            let mut all = vec![0.0; rows * columns];
            for (row, kept) in all.chunks_mut(columns.max(1)).enumerate() {
                self.fill(row as u32, 0, kept);
            }
            all
        }
    }

    /// The columns of a row from `first` on, which is a multiple of 64, as in [`kept`](Self::kept).
    #[inline(always)]
    pub(crate) fn fill(&self, row: u32, first: usize, kept: &mut [f32]) {
        let (groups, tail) = kept.as_chunks_mut::<GROUP>();
        let mut column = first;
        for group in groups {
            *group = self.group(row, column);
            column += GROUP;
        }
        if !tail.is_empty() {
            tail.copy_from_slice(&self.group(row, column)[..tail.len()]);
        }
    }

    #[inline(always)]
    fn group(&self, row: u32, column: usize) -> [f32; GROUP] {
        let [high, low] = self.stream;
        let words = words([(column / 4) as u32, row, high, low], self.key);
        let mut kept = [0.0; GROUP];
        for (kept, words) in kept.as_chunks_mut::<LANES>().0.iter_mut().zip(&words) {
            for (kept, word) in kept.iter_mut().zip(words) {
                *kept = if *word < self.threshold { 0.0 } else { 1.0 };
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn an_element_is_dropped_if_its_word_is_below_the_rate() {
        let mask = DropoutMask::new([1, 2], [3, 4], 0.25);
        let kept = mask.kept(3, 150);
        for (i, kept) in kept.into_iter().enumerate() {
            let (row, column) = (i / 150, i % 150);
            let counter = (column / 64 * 16 + column % 16) as u32;
            let words = block([counter, row as u32, 3, 4], [1, 2]);
            let word = words[column % 64 / 16];
            let uniform = f64::from(word) / 4_294_967_296.0;
            assert_eq!(kept, f32::from(uniform >= 0.25), "{row} {column}");
        }
    }

    #[test]
    fn a_part_of_a_row_equals_the_whole_row() {
        let mask = DropoutMask::new([1, 2], [3, 4], 0.5);
        let whole = mask.kept(2, 400);
        for (first, length) in [(0, 1), (64, 64), (128, 100), (384, 16)] {
            let mut part = vec![9.0; length];
            mask.fill(1, first, &mut part);
            assert_eq!(part, whole[400 + first..][..length]);
        }
    }

    /// Within five standard deviations of the mean, which a fair mask leaves once in two million cases.
    #[test]
    fn as_many_elements_are_dropped_as_the_rate_says() {
        let n = 1 << 20;
        for rate in [0.0, 0.001, 0.1, 0.5, 0.9, 0.999] {
            let mask = DropoutMask::new([7, 8], [9, 10], rate);
            let dropped = mask.kept(1, n).iter().filter(|kept| **kept == 0.0).count();
            let deviation = (n as f64 * rate * (1.0 - rate)).sqrt();
            let apart = (dropped as f64 - n as f64 * rate).abs();
            assert!(apart <= 5.0 * deviation, "{rate}: {dropped} of {n}");
        }
    }

    /// The number of elements that both keep, if the masks are independent, is a quarter.
    #[test]
    fn rows_keys_and_streams_are_independent_at_every_lag() {
        let n = 1 << 18;
        let at = |key, stream| DropoutMask::new(key, stream, 0.5).kept(2, n);
        let mask = at([1, 2], [3, 4]);
        let (one, next_row) = mask.split_at(n);
        let others = [
            next_row.to_vec(),
            at([2, 2], [3, 4]),
            at([1, 3], [3, 4]),
            at([1, 2], [4, 4]),
            at([1, 2], [3, 5]),
        ];
        let shifted = [1, 4, 16, 17, 64].map(|lag| {
            let mut shifted = one.to_vec();
            shifted.rotate_left(lag);
            shifted
        });
        for (i, other) in others.iter().chain(&shifted).enumerate() {
            let both = one.iter().zip(other).filter(|(a, b)| **a * **b == 1.0);
            let apart = (both.count() as f64 - n as f64 / 4.0).abs();
            let deviation = (n as f64 * 3.0 / 16.0).sqrt();
            assert!(apart < 5.0 * deviation, "case {i}: {apart}");
        }
    }

    #[test]
    fn a_tensor_has_zeros_and_the_inverse_of_the_share_that_is_kept() {
        let mask = DropoutMask::new([1, 2], [3, 4], 0.2);
        let tensor = mask.tensor([3, 50], &Device::default());
        let values = tensor.into_data().try_into_vec_as::<f32>().unwrap();
        let expected: Vec<f32> = mask.kept(1, 150).iter().map(|k| k * 1.25).collect();
        assert_eq!(values, expected);
    }

    #[test]
    #[should_panic = "a rate of dropout is 1; it must be at least 0 and below 1"]
    fn rejects_a_rate_that_drops_everything() {
        DropoutMask::new([0; 2], [0; 2], 1.0);
    }

    #[test]
    #[should_panic = "a rate of dropout is NaN"]
    fn rejects_a_rate_that_is_no_number() {
        DropoutMask::new([0; 2], [0; 2], f64::NAN);
    }
}
