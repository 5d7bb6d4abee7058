//! The backend that this binary was compiled with: the only place that names one.

use burn::tensor::Device;

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

/// The fastest kind of device among those compiled in.
pub(crate) fn choose() -> Chosen {
    #[cfg(feature = "cuda")]
    return Chosen {
        device: Device::cuda(0),
        on_host: false,
    };
    #[cfg(all(feature = "vulkan", not(feature = "cuda")))]
    return Chosen {
        device: Device::vulkan(burn::tensor::DeviceKind::DefaultDevice),
        on_host: false,
    };
    #[cfg(all(feature = "wgpu", not(any(feature = "cuda", feature = "vulkan"))))]
    return Chosen {
        device: Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        on_host: false,
    };
    #[cfg(all(
        feature = "flex",
        not(any(feature = "cuda", feature = "vulkan", feature = "wgpu"))
    ))]
    return Chosen {
        device: Device::flex(),
        on_host: true,
    };
    #[cfg(all(
        feature = "ndarray",
        not(any(
            feature = "cuda",
            feature = "vulkan",
            feature = "wgpu",
            feature = "flex"
        ))
    ))]
    return Chosen {
        device: ndarray(),
        on_host: true,
    };
}

/// Burn marks its ndarray backend as deprecated after 0.22; it is offered as long as Burn has it.
#[cfg(all(
    feature = "ndarray",
    not(any(
        feature = "cuda",
        feature = "vulkan",
        feature = "wgpu",
        feature = "flex"
    ))
))]
#[allow(deprecated)]
fn ndarray() -> Device {
    Device::ndarray()
}
