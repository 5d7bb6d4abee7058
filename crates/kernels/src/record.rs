//! Recording of operations for the backward pass, written once.
//!
//! Both kinds of operation have `N` inputs, whose gradients are computed from the first `KEPT` of them. A
//! [`MemoryBound`] operation is so cheap that Burn's gradient checkpointing may drop its output and recompute
//! it. A [`ComputeBound`] operation never runs twice, and may keep further values for its backward pass.
//! Constants of an operation, such as an epsilon, are fields of the type that implements the trait.

use std::array;
use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

/// An operation that is limited by memory bandwidth.
pub(crate) trait MemoryBound<B: Backend, const N: usize, const KEPT: usize>:
    Clone + Debug + Send + 'static
{
    fn forward(&self, inputs: [FloatTensor<B>; N]) -> FloatTensor<B>;

    /// Gradients to the inputs.
    fn backward(self, kept: [FloatTensor<B>; KEPT], dy: FloatTensor<B>) -> [FloatTensor<B>; N];

    /// Runs the operation and records it.
    fn record<C: CheckpointStrategy>(
        self,
        inputs: [FloatTensor<Autodiff<B, C>>; N],
    ) -> FloatTensor<Autodiff<B, C>> {
        let again = Again::<B, Self, N, KEPT> {
            operation: self.clone(),
            inputs: inputs.each_ref().map(|x| x.id()),
            backend: PhantomData,
        };
        let nodes = inputs.each_ref().map(|x| x.node());
        let node = MemoryBoundNode::<Self, KEPT>(PhantomData);
        match Backward::<B, N>::prepare::<C>(node, nodes)
            .memory_bound()
            .retro_forward(again)
            .parents(&inputs)
            .stateful()
        {
            OpsKind::Tracked(mut prepared) => {
                let kept = array::from_fn(|i| prepared.checkpoint(&inputs[i]));
                let y = self.forward(inputs.map(|x| x.into_primitive()));
                prepared.finish((self, kept), y)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(self.forward(inputs.map(|x| x.into_primitive())))
            }
        }
    }
}

/// An operation that is limited by arithmetic.
pub(crate) trait ComputeBound<B: Backend, const N: usize, const KEPT: usize>:
    Debug + Send + Sized + 'static
{
    /// Values that the forward pass keeps for the backward pass, in addition to the inputs.
    type Memory: Clone + Debug + Send + 'static;
    /// Further outputs, which are not differentiable.
    type Aside;

    /// The operation without recording.
    fn forward(self, inputs: [FloatTensor<B>; N]) -> (FloatTensor<B>, Self::Aside);

    fn forward_with_memory(
        self,
        inputs: [FloatTensor<B>; N],
    ) -> (FloatTensor<B>, Self::Aside, Self::Memory);

    /// Gradients to the inputs.
    fn backward(
        memory: Self::Memory,
        kept: [FloatTensor<B>; KEPT],
        dy: FloatTensor<B>,
    ) -> [FloatTensor<B>; N];

    /// Runs the operation and records it.
    fn record<C: CheckpointStrategy>(
        self,
        inputs: [FloatTensor<Autodiff<B, C>>; N],
    ) -> (FloatTensor<Autodiff<B, C>>, Self::Aside) {
        let nodes = inputs.each_ref().map(|x| x.node());
        let node = ComputeBoundNode::<Self, KEPT>(PhantomData);
        match Backward::<B, N>::prepare::<C>(node, nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prepared) => {
                let kept = array::from_fn(|i| prepared.checkpoint(&inputs[i]));
                let (y, aside, memory) =
                    self.forward_with_memory(inputs.map(|x| x.into_primitive()));
                (prepared.finish((memory, kept), y), aside)
            }
            OpsKind::UnTracked(prepared) => {
                let (y, aside) = self.forward(inputs.map(|x| x.into_primitive()));
                (prepared.finish(y), aside)
            }
        }
    }
}

/// Adds gradients to those that the parents of an operation have so far.
fn register<B: Backend, const N: usize>(
    parents: [Option<NodeId>; N],
    gradients: [FloatTensor<B>; N],
    all: &mut Gradients,
) {
    for (parent, gradient) in parents.into_iter().zip(gradients) {
        if let Some(parent) = parent {
            all.register::<B>(parent, gradient);
        }
    }
}

#[derive(Debug)]
struct MemoryBoundNode<Op, const KEPT: usize>(PhantomData<Op>);

impl<B, Op, const N: usize, const KEPT: usize> Backward<B, N> for MemoryBoundNode<Op, KEPT>
where
    B: Backend,
    Op: MemoryBound<B, N, KEPT>,
{
    type State = (Op, [NodeId; KEPT]);

    fn backward(self, ops: Ops<Self::State, N>, all: &mut Gradients, inputs: &mut Checkpointer) {
        let dy = all.consume::<B>(&ops.node);
        let (operation, kept) = ops.state;
        let kept = kept.map(|id| inputs.retrieve_node_output::<FloatTensor<B>>(id));
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        register::<B, N>(parents, operation.backward(kept, dy), all);
    }
}

#[derive(Debug)]
struct ComputeBoundNode<Op, const KEPT: usize>(PhantomData<Op>);

impl<B, Op, const N: usize, const KEPT: usize> Backward<B, N> for ComputeBoundNode<Op, KEPT>
where
    B: Backend,
    Op: ComputeBound<B, N, KEPT>,
{
    type State = (Op::Memory, [NodeId; KEPT]);

    fn backward(self, ops: Ops<Self::State, N>, all: &mut Gradients, inputs: &mut Checkpointer) {
        let dy = all.consume::<B>(&ops.node);
        let (memory, kept) = ops.state;
        let kept = kept.map(|id| inputs.retrieve_node_output::<FloatTensor<B>>(id));
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        register::<B, N>(parents, Op::backward(memory, kept, dy), all);
    }
}

/// Recomputes the output if Burn's checkpointing dropped it.
#[derive(Debug)]
struct Again<B, Op, const N: usize, const KEPT: usize> {
    operation: Op,
    inputs: [NodeId; N],
    backend: PhantomData<B>,
}

impl<B, Op, const N: usize, const KEPT: usize> RetroForward for Again<B, Op, N, KEPT>
where
    B: Backend,
    Op: MemoryBound<B, N, KEPT>,
{
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let inputs = self
            .inputs
            .map(|id| states.get_state::<FloatTensor<B>>(&id));
        states.save(out, self.operation.forward(inputs));
    }
}
