//! CPython's `random.Random`, as far as the harness uses it.
//!
//! The harness chooses few-shot examples with `Random(1234).sample` and bootstrap samples with
//! `Random(i).choices`, so equal prompts and standard errors require equal draws: MT19937
//! (Matsumoto and Nishimura, 1998) seeded by array, and CPython's methods for converting 32 random
//! bits to numbers (`Lib/random.py`, `Modules/_randommodule.c`).

use std::collections::HashSet;

use rand_mt::Mt;

/// `random.Random(seed)` for a seed that fits 32 bits.
pub struct PythonRandom(Mt);

impl PythonRandom {
    /// Seeds like CPython from an integer: with an array of its 32-bit digits.
    pub fn new(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// `random()`: 53 bits, in [0, 1).
    pub fn random(&mut self) -> f64 {
        let (high, low) = (self.0.next_u32() >> 5, self.0.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// `_randbelow(n)`, n at least 1: draws of as many bits as `n` has until one is below `n`.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let drawn = match bits {
                0..=32 => (self.0.next_u32() >> (32 - bits)) as usize,
                _ => {
                    let low = self.0.next_u32() as usize;
                    low | ((self.0.next_u32() >> (64 - bits)) as usize) << 32
                }
            };
            if drawn < n {
                return drawn;
            }
        }
    }

    /// The indices of `sample(range(n), k)`; `None` where CPython raises an error, for `k > n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Option<Vec<usize>> {
        if k > n {
            return None;
        }
        // The method depends on the memory of a set of k compared with that of a list of n.
        let mut set_size = 21;
        if k > 5 {
            let mut power = 1;
            while power < 3 * k {
                power *= 4;
            }
            set_size += power;
        }
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            let draw = |i: usize| {
                let at = self.below(n - i);
                let chosen = pool[at];
                pool[at] = pool[n - i - 1];
                chosen
            };
            return Some((0..k).map(draw).collect());
        }
        let mut selected = HashSet::with_capacity(k);
        let draw = |_| {
            loop {
                let at = self.below(n);
                if selected.insert(at) {
                    return at;
                }
            }
        };
        Some((0..k).map(draw).collect())
    }

    /// One index of `choices(range(n), k=..)`.
    pub fn choice(&mut self, n: usize) -> usize {
        (self.random() * n as f64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected values are CPython 3.11's, printed by the expressions in the comments.

    #[test]
    fn random_equals_cpythons() {
        let mut random = PythonRandom::new(1234); // [r.random() for _ in range(3)]
        let drawn = [random.random(), random.random(), random.random()];
        assert_eq!(drawn, RANDOM_1234);
        let mut random = PythonRandom::new(0);
        assert_eq!([random.random(), random.random()], RANDOM_0);
    }

    #[test]
    fn samples_equal_cpythons() {
        for (seed, n, k, expected) in SAMPLES {
            // random.Random(seed).sample(range(n), k)
            let drawn = PythonRandom::new(*seed).sample(*n, *k).unwrap();
            assert_eq!(drawn, *expected, "seed {seed}, {k} of {n}");
        }
        let mut random = PythonRandom::new(1234); // the second of two draws
        random.sample(100, 5).unwrap();
        assert_eq!(random.sample(100, 5).unwrap(), SECOND_OF_100);
        assert_eq!(PythonRandom::new(0).sample(3, 4), None);
    }

    #[test]
    fn choices_equal_cpythons() {
        let mut random = PythonRandom::new(7); // random.Random(7).choices(range(1000), k=6)
        let drawn: Vec<usize> = (0..6).map(|_| random.choice(1000)).collect();
        assert_eq!(drawn, CHOICES_7);
    }

    const RANDOM_1234: [f64; 3] = [0.9664535356921388, 0.4407325991753527, 0.007491470058587191];
    const RANDOM_0: [f64; 2] = [0.8444218515250481, 0.7579544029403025];
    const SAMPLES: &[(u32, usize, usize, &[usize])] = &[
        (1234, 100, 1, &[99]),
        (1234, 100, 5, &[99, 56, 14, 0, 11]),
        (1234, 21, 5, &[14, 3, 0, 2, 1]),
        (1234, 22, 5, &[14, 3, 0, 2, 18]),
        (
            1234,
            20,
            20,
            &[
                14, 3, 0, 2, 1, 10, 11, 15, 12, 5, 18, 17, 8, 6, 7, 16, 9, 4, 13, 19,
            ],
        ),
        (1234, 85, 6, &[56, 14, 0, 11, 74, 4]),
        (1234, 86, 6, &[56, 14, 0, 11, 74, 4]),
        (0, 39905, 6, &[25247, 27562, 2653, 16968, 33506, 31845]),
        (1234, 9000, 2, &[7220, 1914]),
        (5, 2, 1, &[1]),
        (5, 1, 1, &[0]),
    ];
    const SECOND_OF_100: [usize; 5] = [74, 4, 85, 88, 10];
    const CHOICES_7: [usize; 6] = [323, 150, 650, 72, 535, 365];
}
