use burn::tensor::{DType, Device, Distribution, Int, Tensor};
use iiet_kernels::kept_rows;

const FILLED: usize = 5;

fn cache(batch: usize, dtype: DType) -> Tensor<4> {
    let normal = Distribution::Normal(0.0, 1.0);
    Tensor::<4>::random([batch, 3, 7, 4], normal, &Device::default()).cast(dtype)
}

#[test]
fn equals_a_selection_of_the_filled_slots() {
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
        for rows in [
            // All stay; some are copied over others; rows change places; more, fewer and one.
            &[0, 1, 2, 3][..],
            &[0, 0, 2, 2],
            &[3, 3, 3, 3],
            &[1, 0, 3, 3],
            &[0, 0, 1, 1, 3],
            &[2, 0],
            &[1],
        ] {
            for shared in [false, true] {
                let cache = cache(4, dtype);
                let indices = Tensor::<1, Int>::from_data(rows, &Device::default());
                let expected = cache.clone().select(0, indices).into_data();
                let other = shared.then(|| cache.clone());
                let before = cache.to_data();
                let found = kept_rows(cache, rows, FILLED);
                assert_eq!(found.dtype(), dtype);
                let of_filled = |x: Tensor<4>| x.narrow(2, 0, FILLED).into_data();
                let expected = Tensor::<4>::from_data(expected, (&Device::default(), dtype));
                assert_eq!(of_filled(found), of_filled(expected), "{rows:?}");
                // A tensor that shares the memory does not change.
                if let Some(other) = other {
                    assert_eq!(other.into_data(), before, "{rows:?}");
                }
            }
        }
    }
}

#[test]
fn all_slots_and_none() {
    let rows = [1, 1, 2];
    let before = cache(3, DType::F32);
    let expected = Tensor::cat(
        vec![
            before.clone().narrow(0, 1, 1),
            before.clone().narrow(0, 1, 2),
        ],
        0,
    );
    assert_eq!(
        kept_rows(before.clone(), &rows, 7).into_data(),
        expected.into_data()
    );
    assert_eq!(kept_rows(before, &rows, 0).dims(), [3, 3, 7, 4]);
}

#[test]
#[should_panic = "kept_rows: 7 slots of the rows [0, 3]"]
fn a_row_beyond_the_batch_is_refused() {
    kept_rows(cache(3, DType::F32), &[0, 3], 7);
}
