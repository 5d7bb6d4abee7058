//! NumPy's random indices: what `Generator.choice` and the legacy `np.random.choice` draw.
//!
//! sacreBLEU resamples with `np.random.default_rng(seed).choice(n, size, replace=True)`: PCG64
//! (O'Neill, 2014; XSL-RR 128/64), seeded by NumPy's `SeedSequence`, and Lemire's bounded numbers
//! (2019). rouge-score resamples with `np.random.choice`: the Mersenne Twister and rejection under a
//! bit mask. The sources are `numpy/random/bit_generator.pyx`, `src/pcg64/pcg64.h` and
//! `src/distributions/distributions.c`.

use rand_mt::Mt;

/// `np.random.default_rng(seed)`.
pub struct NumpyGenerator {
    state: u128,
    increment: u128,
    /// The upper half of the last 64 bits, if it is still to be used.
    upper: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;

impl NumpyGenerator {
    /// Seeds as `default_rng` does from an integer.
    pub fn new(seed: u64) -> Self {
        let [state_high, state_low, stream_high, stream_low] = seed_sequence(seed);
        let join = |high: u64, low: u64| (u128::from(high) << 64) | u128::from(low);
        let mut generator = Self {
            state: 0,
            increment: (join(stream_high, stream_low) << 1) | 1,
            upper: None,
        };
        generator.step();
        generator.state = generator.state.wrapping_add(join(state_high, state_low));
        generator.step();
        generator
    }

    fn step(&mut self) {
        let product = self.state.wrapping_mul(MULTIPLIER);
        self.state = product.wrapping_add(self.increment);
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(upper) = self.upper.take() {
            return upper;
        }
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        let bits = folded.rotate_right((self.state >> 122) as u32);
        self.upper = Some((bits >> 32) as u32);
        bits as u32
    }

    /// One index of `choice(n, size)` with `n` from 1 to `2^32 - 1`.
    pub fn choice(&mut self, n: u32) -> u32 {
        if n == 1 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u64::from(self.next_u32()) * u64::from(n);
            if product as u32 >= threshold {
                return (product >> 32) as u32;
            }
        }
    }
}

/// `SeedSequence(seed).generate_state(4, np.uint64)`.
fn seed_sequence(seed: u64) -> [u64; 4] {
    let hash = |value: u32, constant: &mut u32, multiplier: u32| {
        let mixed = value ^ *constant;
        *constant = constant.wrapping_mul(multiplier);
        let mixed = mixed.wrapping_mul(*constant);
        mixed ^ (mixed >> 16)
    };
    let mix = |a: u32, b: u32| {
        let mixed = a
            .wrapping_mul(0xca01_f9dd)
            .wrapping_sub(b.wrapping_mul(0x4973_f715));
        mixed ^ (mixed >> 16)
    };
    let mut constant = 0x43b0_d7e5;
    let entropy = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut pool = entropy.map(|word| hash(word, &mut constant, 0x931e_8875));
    for source in 0..4 {
        for target in (0..4).filter(|target| *target != source) {
            let hashed = hash(pool[source], &mut constant, 0x931e_8875);
            pool[target] = mix(pool[target], hashed);
        }
    }
    let mut constant = 0x8b51_f9dd;
    let mut word = |at: usize| u64::from(hash(pool[at % 4], &mut constant, 0x58f3_8ded));
    std::array::from_fn(|i| word(2 * i) | (word(2 * i + 1) << 32))
}

/// `np.random.seed(seed)` and the global functions after it.
pub struct NumpyLegacyRandom(Mt);

impl NumpyLegacyRandom {
    /// Seeds as `np.random.seed` does.
    pub fn new(seed: u32) -> Self {
        Self(Mt::new(seed))
    }

    /// One index of `np.random.choice(n, size)` with `n` from 1 to `2^32 - 1`.
    pub fn choice(&mut self, n: u32) -> u32 {
        if n == 1 {
            return 0;
        }
        let mask = u32::MAX >> (n - 1).leading_zeros();
        loop {
            let drawn = self.0.next_u32() & mask;
            if drawn < n {
                return drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected values are NumPy 2.4's, by the expressions beside them.

    #[test]
    fn choices_are_those_of_the_generator() {
        for (seed, of_7, of_3_000_000_000, of_1000) in GENERATOR {
            let mut random = NumpyGenerator::new(seed); // rng = np.random.default_rng(seed)
            assert_eq!(random.choice(1), 0); // draws nothing
            let mut draw = |n| -> Vec<u32> { (0..5).map(|_| random.choice(n)).collect() };
            assert_eq!(draw(7), of_7); // rng.choice(7, 5)
            assert_eq!(draw(3_000_000_000), of_3_000_000_000); // rng.choice(3_000_000_000, 5)
            assert_eq!(draw(1000), of_1000); // rng.choice(1000, 5)
        }
    }

    #[test]
    fn choices_are_those_of_the_legacy_functions() {
        for (seed, of_7, of_1000, of_64) in LEGACY {
            let mut random = NumpyLegacyRandom::new(seed); // np.random.seed(seed)
            assert_eq!(random.choice(1), 0); // draws nothing
            let mut draw = |n| -> Vec<u32> { (0..5).map(|_| random.choice(n)).collect() };
            assert_eq!(draw(7), of_7); // np.random.choice(7, 5)
            assert_eq!(draw(1000), of_1000); // np.random.choice(1000, 5)
            assert_eq!(draw(64), of_64); // np.random.choice(64, 5)
        }
    }

    /// Five draws.
    type Draws = [u32; 5];

    const GENERATOR: [(u64, Draws, Draws, Draws); 4] = [
        (
            0,
            [5, 4, 3, 1, 2],
            [122920571, 225720425, 49582906, 525801878, 2439810717],
            [649, 912, 503, 606, 970],
        ),
        (
            1,
            [3, 3, 5, 6, 0],
            [2845948340, 935494355, 2607075741, 1269979346, 770976088],
            [409, 643, 549, 85, 27],
        ),
        (
            12345,
            [4, 1, 5, 2, 1],
            [2392096371, 2028764011, 2518275128, 1794926260, 639429039],
            [186, 229, 672, 613, 941],
        ),
        (
            1099511627783,
            [1, 5, 4, 1, 0],
            [461372147, 1514132298, 2655564380, 2216522156, 283480328],
            [489, 673, 15, 647, 37],
        ),
    ];
    const LEGACY: [(u32, Draws, Draws, Draws); 3] = [
        (
            0,
            [4, 5, 0, 3, 3],
            [707, 359, 9, 723, 277],
            [50, 36, 23, 6, 24],
        ),
        (
            12345,
            [2, 5, 5, 1, 4],
            [425, 382, 357, 546, 541],
            [1, 54, 49, 59, 14],
        ),
        (
            4294967295,
            [3, 2, 4, 4, 0],
            [214, 506, 473, 800, 639],
            [59, 50, 43, 11, 10],
        ),
    ];
}
