//! The peak speed for computing utilisation: that of large matrix products on the same device.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use iiet_kernels::{Precision, linear};

/// Rows and columns: 7 GFLOP per product, so that launch overhead is negligible, and about 30 MB, which fits
/// on every device.
const SIZE: usize = 1536;

/// Number of timed products after the first, which may compile its kernel.
const PRODUCTS: usize = 3;

/// The speed, in floating-point operations per second, of the fastest of a few products of large square
/// matrices, in the precision and with the operation of training. Takes about a seventh of a second on two
/// CPU cores. `None` if the device reports a failure.
///
/// The fastest, because other load on the machine can only slow it down.
pub fn matrix_product_peak(device: &Device, precision: Precision) -> Option<f64> {
    let device = device.clone().inner();
    let matrix = || Tensor::<2>::ones([SIZE, SIZE], &device).cast(precision.dtype());
    let (a, b) = (matrix(), matrix());
    let mut fastest = f64::INFINITY;
    for run in 0..=PRODUCTS {
        device.sync().ok()?;
        let start = Instant::now();
        let product = linear(a.clone(), b.clone());
        device.sync().ok()?;
        let seconds = start.elapsed().as_secs_f64();
        drop(product);
        if run > 0 {
            fastest = fastest.min(seconds);
        }
    }
    Some(2.0 * (SIZE as f64).powi(3) / fastest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_plausible() {
        // Every machine that runs this test computes a million operations per second.
        for precision in Precision::ALL {
            let peak = matrix_product_peak(&Device::default(), precision).unwrap();
            assert!(peak.is_finite() && peak > 1e6, "{precision}: {peak}");
        }
    }
}
