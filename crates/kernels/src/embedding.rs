//! The embedding's rows of some tokens, `y_t = E[ids_t]`.
//!
//! ```text
//! dE[i] = sum over t with ids_t = i of dy_t
//! ```
//!
//! The sum over a frequent token's occurrences has thousands of terms, so it is taken in f32 whatever the
//! embedding's type.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch};
use burn::tensor::{Int, Tensor};

use crate::ops::{FusedOps, is_routed};
use crate::precision::widened;

/// `weight[ids]`.
///
/// # Shapes
///
/// - weight: `[vocab, d_model]`
/// - ids: `[batch, seq]`, below `vocab`
/// - output: `[batch, seq, d_model]`
pub fn embedding(weight: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let (weight, ids) = (weight.into_dispatch(), ids.into_dispatch());
    Tensor::from_dispatch(if is_routed(&weight) {
        <Dispatch as FusedOps>::embed(weight, ids)
    } else {
        forward::<Dispatch>(weight, ids)
    })
}

pub(crate) fn forward<B: Backend>(weight: FloatTensor<B>, ids: IntTensor<B>) -> FloatTensor<B> {
    B::embedding(weight, ids)
}

pub(crate) fn tracked<B: FusedOps, C: CheckpointStrategy>(
    weight: FloatTensor<Autodiff<B, C>>,
    ids: IntTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let prepared = Backward::<B, 1>::prepare::<C>(EmbeddingBackward, [weight.node()])
        .compute_bound()
        .stateful();
    let weight = weight.into_primitive();
    match prepared {
        OpsKind::Tracked(prepared) => {
            let state = (ids.clone(), weight.clone());
            prepared.finish(state, B::embed(weight, ids))
        }
        OpsKind::UnTracked(prepared) => prepared.finish(B::embed(weight, ids)),
    }
}

#[derive(Debug)]
struct EmbeddingBackward;

impl<B: FusedOps> Backward<B, 1> for EmbeddingBackward {
    /// The ids, and the weight for its shape.
    type State = (IntTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (ids, weight) = ops.state;
        if let [Some(node)] = ops.parents {
            let d_weight = B::embedding_backward(weight, widened::<B>(dy), ids);
            grads.register::<B>(node.id, d_weight);
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::{DType, Device, TensorData, Tolerance};

    use super::*;
    use crate::{in_f32, linear};

    #[test]
    fn a_thousand_occurrences_add_up_in_a_half_precision_too() {
        let device = Device::default();
        let ids = Tensor::<2, Int>::from_data([[2; 1000]], &device);
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let weight = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
            let weight = weight.cast(dtype).autodiff().require_grad();
            let y = embedding(weight.clone(), ids.clone());
            assert_eq!((y.dtype(), y.dims()), (dtype, [1, 1000, 2]));
            // A projection is tied to it, whose gradient is one for each entry.
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
