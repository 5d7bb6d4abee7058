//! The backend that this binary was compiled with: the only place that names one.

use burn::tensor::Device;
#[cfg(any(feature = "vulkan", feature = "wgpu"))]
use burn::tensor::DeviceKind::DefaultDevice;

#[cfg(not(any(
    feature = "flex",
    feature = "ndarray",
    feature = "wgpu",
    feature = "vulkan",
    feature = "cuda"
)))]
compile_error!("choose a backend: --features flex, ndarray, wgpu, vulkan or cuda");

/// The device to compute on, and whether its memory is the machine's own.
pub(crate) struct Chosen {
    pub(crate) device: Device,
    pub(crate) on_host: bool,
}

/// The first of the backends compiled in; GPUs come first.
#[cfg_attr(
    feature = "ndarray",
    allow(deprecated, reason = "Burn means to drop ndarray, but still has it")
)]
pub(crate) fn choose() -> Chosen {
    let compiled_in = [
        #[cfg(feature = "cuda")]
        (Device::cuda(0), false),
        #[cfg(feature = "vulkan")]
        (Device::vulkan(DefaultDevice), false),
        #[cfg(feature = "wgpu")]
        (Device::wgpu(DefaultDevice), false),
        #[cfg(feature = "flex")]
        (Device::flex(), true),
        #[cfg(feature = "ndarray")]
        (Device::ndarray(), true),
    ];
    let (device, on_host) = compiled_in
        .into_iter()
        .next()
        .expect("invariant: without a backend this file does not compile");
    Chosen { device, on_host }
}
