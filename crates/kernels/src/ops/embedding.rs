//! Embedding lookup, `y_t = E[ids_t]`.
//!
//! ```text
//! dE[i] = sum over t with ids_t = i of dy_t
//! ```
//!
//! The sum over a frequent token's occurrences has thousands of terms, so it is taken in f32 for every dtype
//! of the embedding.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend};
use burn::tensor::{Int, Tensor};

use crate::precision::widened;
use crate::record::ComputeBound;
use crate::route::{composed, operation, routed};

/// `weight[ids]`.
///
/// # Shapes
///
/// - weight: `[vocab, d_model]`
/// - ids: `[batch, seq]`, below `vocab`
/// - output: `[batch, seq, d_model]`
pub fn embedding(weight: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let (weight, ids) = (weight.into_dispatch(), ids.into_dispatch());
    Tensor::from_dispatch(routed!(Embedding::embed(weight, ids), else forward))
}

operation! {
    /// The lookup over a backend's own tensors.
    pub trait Embedding: Backend {
        fn embed(weight: FloatTensor<Self>, ids: IntTensor<Self>) -> FloatTensor<Self> {
            forward::<Self>(weight, ids)
        }
    }
}

composed!(Embedding: NdArray, Cube);

// Burn's own lookup is a single pass already.
#[cfg(feature = "flex")]
impl Embedding for burn::backend::Flex {}

pub(super) fn forward<B: Backend>(weight: FloatTensor<B>, ids: IntTensor<B>) -> FloatTensor<B> {
    B::embedding(weight, ids)
}

impl<B: Embedding, C: CheckpointStrategy> Embedding for Autodiff<B, C> {
    fn embed(weight: FloatTensor<Self>, ids: IntTensor<B>) -> FloatTensor<Self> {
        Lookup::<B> { ids }.record::<C>([weight]).0
    }
}

#[derive(Debug)]
struct Lookup<B: Backend> {
    ids: IntTensor<B>,
}

impl<B: Embedding> ComputeBound<B, 1, 0> for Lookup<B> {
    /// The ids, and the weight for its shape.
    type Memory = (IntTensor<B>, FloatTensor<B>);
    type Aside = ();

    fn forward(self, [weight]: [FloatTensor<B>; 1]) -> (FloatTensor<B>, ()) {
        (B::embed(weight, self.ids), ())
    }

    fn forward_with_memory(
        self,
        [weight]: [FloatTensor<B>; 1],
    ) -> (FloatTensor<B>, (), Self::Memory) {
        let memory = (self.ids.clone(), weight.clone());
        (B::embed(weight, self.ids), (), memory)
    }

    fn backward(
        (ids, weight): Self::Memory,
        []: [FloatTensor<B>; 0],
        dy: FloatTensor<B>,
    ) -> [FloatTensor<B>; 1] {
        [B::embedding_backward(weight, widened::<B>(dy), ids)]
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, TensorData, Tolerance};

    use super::*;
    use crate::{in_f32, linear};

    #[test]
    fn half_precision_gradients_of_repeated_ids_are_summed_in_f32() {
        let device = Device::default();
        let ids = Tensor::<2, Int>::from_data([[2; 1000]], &device);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
            let weight = weight.cast(dtype).autodiff().require_grad();
            let y = embedding(weight.clone(), ids.clone());
            assert_eq!((y.dtype(), y.dims()), (dtype, [1, 1000, 2]));
            // A tied projection, whose gradient is one for each entry.
            let ones = Tensor::<2>::ones([1, 2], (&device, dtype)).autodiff();
            let projected = linear(ones, weight.clone().transpose());
            let both = in_f32(y).sum() + in_f32(projected).sum();
            let gradient = weight.grad(&both.backward()).unwrap();
            assert_eq!(gradient.dtype(), DType::F32);
            let expected = TensorData::from([[1.0, 1.0], [1.0, 1.0], [1001.0, 1001.0]]);
            gradient
                .into_data()
                .assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.0));
        }
    }
}
