//! Dispatch from the public functions to the backends, written once for all operations.
//!
//! An operation is a trait over Burn's backends whose methods have bodies composed of Burn's primitives.
//! [`operation!`] declares the trait and lists the backends. `Autodiff` implements it by recording the
//! backward pass (see [`crate::record`]), Flex by its kernels, and [`composed!`] lists the backends without a
//! kernel for it. The public function calls [`routed!`].
//!
//! To add a kernel for GPUs, implement the operation's trait for `burn::backend::Cube` in a file beside the
//! one for Flex, and remove `Cube` from the operation's [`composed!`] list.

#![cfg_attr(
    feature = "ndarray",
    allow(deprecated, reason = "Burn deprecates ndarray, but still includes it")
)]

use burn::backend::{DispatchTensor, DispatchTensorKind};

/// Declares the trait of an operation, and implements it for Burn's dispatcher.
macro_rules! operation {
    ($(#[$attribute:meta])* pub trait $operation:ident: Backend { $($methods:tt)* }) => {
        #[burn::backend::backend_extension(
            Flex: cfg(feature = "flex"),
            NdArray: cfg(feature = "ndarray"),
            Cube: cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda")),
            Autodiff
        )]
        $(#[$attribute])*
        pub trait $operation: burn::backend::Backend { $($methods)* }
    };
}

/// Lists the backends on which an operation runs its composed bodies: `composed!(Swiglu: NdArray, Cube)`.
macro_rules! composed {
    ($operation:ident: $($backend:ident),+) => {
        $($crate::route::composed!(@ $backend $operation);)+
    };
    (@ NdArray $operation:ident) => {
        #[cfg(feature = "ndarray")]
        impl $operation for burn::backend::NdArray {}
    };
    (@ Cube $operation:ident) => {
        #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
        impl $operation for burn::backend::Cube {}
    };
}

/// Calls a method of an operation on the backend of the first operand. `else` names the composed body, which
/// the dispatcher runs if that backend is not listed.
macro_rules! routed {
    ($operation:ident::$method:ident($first:ident $(, $other:expr)* $(,)?), else $composed:ident) => {
        if $crate::route::is_routed(&$first) {
            <burn::backend::Dispatch as $operation>::$method($first $(, $other)*)
        } else {
            $composed::<burn::backend::Dispatch>($first $(, $other)*)
        }
    };
}

pub(crate) use {composed, operation, routed};

/// Whether [`operation!`] lists the tensor's backend.
pub(crate) fn is_routed(tensor: &DispatchTensor) -> bool {
    fn named(kind: &DispatchTensorKind) -> bool {
        match kind {
            #[cfg(feature = "flex")]
            DispatchTensorKind::Flex(_) => true,
            #[cfg(feature = "ndarray")]
            DispatchTensorKind::NdArray(_) => true,
            #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
            DispatchTensorKind::Cube(_) => true,
            DispatchTensorKind::Autodiff(inner) => named(inner),
            #[allow(unreachable_patterns, reason = "depends on the backends compiled in")]
            _ => false,
        }
    }
    named(&tensor.kind)
}
