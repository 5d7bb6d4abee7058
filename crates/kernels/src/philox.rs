//! A counter-based random number generator: random words as a function of a key and a counter.
//!
//! Philox4x32-10 of Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3* (SC 2011), section 3.3. Ten
//! rounds of
//!
//! ```text
//! (c0, c1, c2, c3) -> (high(M1 c2) ^ c1 ^ k0, low(M1 c2), high(M0 c0) ^ c3 ^ k1, low(M0 c0))
//! ```
//!
//! turn four words of a counter into four random words, where the key (k0, k1) grows by (W0, W1) from round to
//! round. It has no state, so threads and devices draw any part of a stream by themselves. It is the generator
//! of dropout in PyTorch's CUDA kernels too.

/// Counters that are computed together, for the compiler's vectoriser.
pub(crate) const LANES: usize = 16;

const ROUNDS: usize = 10;
const M0: u64 = 0xd251_1f53;
const M1: u64 = 0xcd9e_8d57;
const W0: u32 = 0x9e37_79b9;
const W1: u32 = 0xbb67_ae85;

/// The four words of each of [`LANES`] counters, which follow each other in their first word: word by word.
#[inline(always)]
pub(crate) fn words(counter: [u32; 4], key: [u32; 2]) -> [[u32; LANES]; 4] {
    let mut x = counter.map(|word| [word; LANES]);
    for (lane, word) in (0..).zip(&mut x[0]) {
        *word = word.wrapping_add(lane);
    }
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let [x0, x1, x2, x3] = &mut x;
        for (((c0, c1), c2), c3) in x0.iter_mut().zip(x1).zip(x2).zip(x3) {
            let (p0, p1) = (u64::from(*c0) * M0, u64::from(*c2) * M1);
            *c0 = (p1 >> 32) as u32 ^ *c1 ^ k0;
            *c1 = p1 as u32;
            *c2 = (p0 >> 32) as u32 ^ *c3 ^ k1;
            *c3 = p0 as u32;
        }
        (k0, k1) = (k0.wrapping_add(W0), k1.wrapping_add(W1));
    }
    x
}

/// The four words of one counter.
pub(crate) fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    words(counter, key).map(|lanes| lanes[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `tests/kat_vectors` of the authors' Random123.
    #[test]
    fn equals_the_known_answers_of_the_authors() {
        let digits = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let cases = [
            (
                [0; 4],
                [0; 2],
                [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8],
            ),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                digits,
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(block(counter, key), expected);
        }
    }

    #[test]
    fn lanes_are_the_counters_that_follow() {
        let (key, at) = ([3, 5], |first: u32| [first, 7, 11, 13]);
        let together = words(at(u32::MAX - 2), key);
        for (lane, first) in [u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1]
            .into_iter()
            .enumerate()
        {
            let alone = block(at(first), key);
            assert_eq!(together.map(|lanes| lanes[lane]), alone);
        }
    }
}
