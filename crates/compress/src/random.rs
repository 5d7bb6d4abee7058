//! Random numbers for tests.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Uniform in (-1, 1).
pub(crate) fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..n)
        .map(|_| (random.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}
