//! Products with a weight matrix, `y = x W`, that read the weights once.
//!
//! A decoder multiplies one row, or a few, with every matrix of the model: two operations for each
//! weight and row, so the time is that of streaming the weights from memory. General matrix
//! products copy their operands into tiles first and use one thread for a single row. On flex, up
//! to [`FEW_ROWS`] rows are multiplied where the weights lie, by all threads; more rows are Burn's.

use burn::tensor::Tensor;
use burn::tensor::module;

/// Beyond this many rows a product is limited by arithmetic, and tiles pay.
#[cfg(feature = "flex")]
pub(crate) const FEW_ROWS: usize = 8;

/// `x W`, without a bias.
///
/// # Shapes
///
/// - x: `[.., d_in]`
/// - weight: `[d_in, d_out]`, in either memory order
/// - output: `[.., d_out]`
///
/// # Panics
///
/// If the last axis of x is not as long as the first of the weight.
pub fn few_rows_linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    let [d_in, _] = weight.dims();
    assert_eq!(
        x.dims()[D - 1],
        d_in,
        "few_rows_linear: the last axis of x must be as long as the first of the weight"
    );
    #[cfg(feature = "flex")]
    if (1..=FEW_ROWS * d_in).contains(&x.shape().num_elements()) {
        use burn::backend::Flex;
        let operands = (
            x.clone().try_into_primitive::<Flex>(),
            weight.clone().try_into_primitive::<Flex>(),
        );
        if let (Ok(x), Ok(weight)) = operands
            && let Some(y) = crate::flex::few_rows::product(x, weight)
        {
            return Tensor::from_primitive::<Flex>(y);
        }
    }
    module::linear(x, weight, None)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::default())
    }

    #[test]
    fn few_rows_are_multiplied_in_either_memory_order() {
        for (d_in, d_out) in [
            (1, 1),
            (3, 70),
            (64, 64),
            (513, 300),
            (40, 3001),
            (3001, 40),
        ] {
            for rows in [1, 2, 5, FEW_ROWS, FEW_ROWS + 1] {
                let x = random([1, rows, d_in]);
                for weight in [random([d_in, d_out]), random([d_out, d_in]).transpose()] {
                    let found = few_rows_linear(x.clone(), weight.clone());
                    let expected = module::linear(x.clone(), weight, None);
                    let tolerance = Tolerance::absolute(1e-5 * d_in as f32);
                    found
                        .into_data()
                        .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others() {
        let x = random([FEW_ROWS, 700]);
        for weight in [random([700, 900]), random([900, 700]).transpose()] {
            let all = few_rows_linear(x.clone(), weight.clone());
            for i in 0..FEW_ROWS {
                let alone = few_rows_linear(x.clone().narrow(0, i, 1), weight.clone());
                alone
                    .into_data()
                    .assert_eq(&all.clone().narrow(0, i, 1).into_data(), true);
            }
        }
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let (x, z, q) = (random([3, 700]), random([2, 900]), random([1, 8, 1, 64]));
        let (w, cache) = (random([700, 900]), random([1, 2, 3000, 64]));
        let row = crate::CacheRow {
            from: 0,
            count: 1,
            cached: 2500,
        };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| {
                let turned = w.clone().transpose();
                let [q, k, v] = [q.clone(), cache.clone(), cache.clone()];
                (
                    few_rows_linear(x.clone(), w.clone()).into_data(),
                    few_rows_linear(x.clone().narrow(0, 0, 1), w.clone()).into_data(),
                    few_rows_linear(z.clone(), turned).into_data(),
                    crate::cached_attention(q, k, v, &[row], 0.1).into_data(),
                )
            })
        };
        let one = run(1);
        for other in [run(2), run(5)] {
            one.0.assert_eq(&other.0, true);
            one.1.assert_eq(&other.1, true);
            one.2.assert_eq(&other.2, true);
            one.3.assert_eq(&other.3, true);
        }
    }

    #[test]
    fn a_product_that_is_recorded_has_its_gradients() {
        let x = random([2, 3]).autodiff().require_grad();
        let weight = random([3, 4]).autodiff();
        let gradients = few_rows_linear(x.clone(), weight.clone()).sum().backward();
        let expected = weight.inner().sum_dim(1).transpose().expand([2, 3]);
        x.grad(&gradients)
            .unwrap()
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    }
}
