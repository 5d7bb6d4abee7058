//! The devices of this machine, initialised without a panic.
//!
//! Burn's devices are lazy: a missing adapter, driver or CUDA run-time compiler is detected by the first
//! operation, which panics. So devices are listed first, and each runs one computation here.

use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};

use burn::tensor::{Device, Tensor};

use super::Backend;

/// The devices of a backend in the order of their numbers: GPUs first, then software renderers.
#[cfg_attr(
    feature = "ndarray",
    allow(deprecated, reason = "Burn deprecates ndarray, but still includes it")
)]
pub(super) fn devices(backend: Backend) -> Vec<Device> {
    match backend {
        #[cfg(feature = "cuda")]
        Backend::Cuda => Device::enumerate(burn::tensor::DeviceType::Cuda).to_vec(),
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => adapters::ranked(burn::tensor::DeviceType::Vulkan),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => adapters::ranked(burn::tensor::DeviceType::Wgpu),
        #[cfg(feature = "ndarray")]
        Backend::NdArray => vec![Device::ndarray()],
        #[cfg(feature = "flex")]
        Backend::Flex => vec![Device::flex()],
        #[allow(unreachable_patterns, reason = "depends on the backends compiled in")]
        _ => Vec::new(),
    }
}

/// Initialises the device and runs an operation on it; the error describes why it failed.
pub(super) fn ready(device: &Device) -> Result<(), String> {
    #[cfg(feature = "vulkan")]
    adapters::refuse_spirv_in_software(device)?;
    #[cfg(any(feature = "wgpu", feature = "vulkan"))]
    adapters::bring_up(device)?;
    let sum = quietly(|| {
        let sum = Tensor::<1>::ones([2], device) + 1.0;
        sum.try_into_vec_as::<f32>()
    })?;
    match sum == [2.0, 2.0] {
        true => Ok(()),
        false => Err(format!("1 + 1 is {sum:?} there")),
    }
}

/// Sums a one from each device; the error describes why it failed. Each must be [`ready`].
#[cfg(feature = "cuda")]
pub(super) fn add_up(devices: &[Device]) -> Result<(), String> {
    use iiet_train::{AllReduce, Collective};

    let sums = quietly(|| {
        let ones = devices.iter().map(|device| Tensor::ones([2], device));
        let sums = Collective.sum(ones.collect()).into_iter();
        sums.map(Tensor::try_into_vec_as::<f32>)
            .collect::<Result<Vec<_>, _>>()
    })?;
    let expected = devices.len() as f32;
    match sums.iter().flatten().all(|sum| *sum == expected) {
        true => Ok(()),
        false => Err(format!("the sum of a one from each is {sums:?}")),
    }
}

/// The result of a computation, or the message of its error or panic.
fn quietly<T, E: Display>(compute: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // The message is part of the error, and not printed by the panic hook before it.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(AssertUnwindSafe(compute));
    panic::set_hook(hook);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => payload
                .downcast::<&str>()
                .map_or_else(|_| "it panicked".to_owned(), |message| message.to_string()),
        }),
    }
}

/// A description of the device, which must be [`ready`].
pub(super) fn description(device: &Device) -> String {
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "cuda"))]
    if let Some(identity) = device.identity() {
        return match identity.physical {
            Some(_) => identity.name,
            None => format!("{}, a software renderer", identity.name),
        };
    }
    let _ = device;
    let threads = std::thread::available_parallelism();
    threads.map_or_else(
        |_| "the CPU".to_owned(),
        |threads| format!("the CPU, {threads} threads"),
    )
}

/// wgpu's description of an adapter: a GPU, or a software renderer.
#[cfg(any(feature = "wgpu", feature = "vulkan"))]
mod adapters {
    use burn::backend::{CubeDevice, DispatchDevice, WgpuDevice, WgpuDeviceKind};
    use burn::tensor::{Device, DeviceKind, DeviceType};

    pub(super) fn ranked(api: DeviceType) -> Vec<Device> {
        let mut devices = Device::enumerate(api).to_vec();
        devices.sort_by_key(|device| match adapter(device).map(|adapter| adapter.kind) {
            Some(WgpuDeviceKind::DiscreteGpu(_)) => 0,
            Some(WgpuDeviceKind::IntegratedGpu(_)) => 1,
            Some(WgpuDeviceKind::VirtualGpu(_)) => 2,
            Some(WgpuDeviceKind::Cpu) => 4,
            _ => 3,
        });
        devices
    }

    /// With the feature `vulkan`, Burn passes SPIR-V to every Vulkan driver, and its matrix products crash
    /// Mesa's software renderer (docs/backends.md).
    #[cfg(feature = "vulkan")]
    pub(super) fn refuse_spirv_in_software(device: &Device) -> Result<(), String> {
        match adapter(device) {
            Some(adapter) if adapter.kind == WgpuDeviceKind::Cpu => Err(
                "it is a software renderer, which crashes on the SPIR-V of Burn 0.22.1 \
                 (docs/backends.md); an iiet built with wgpu but without vulkan supports it"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }

    pub(super) fn bring_up(device: &Device) -> Result<(), String> {
        let Some(adapter) = adapter(device) else {
            return Ok(());
        };
        let kind = match adapter.kind {
            WgpuDeviceKind::DiscreteGpu(n) => DeviceKind::DiscreteGpu(n),
            WgpuDeviceKind::IntegratedGpu(n) => DeviceKind::IntegratedGpu(n),
            WgpuDeviceKind::VirtualGpu(n) => DeviceKind::VirtualGpu(n),
            WgpuDeviceKind::Cpu => DeviceKind::Cpu,
            // Burn has no function for initialising these; the first operation does it.
            _ => return Ok(()),
        };
        Device::wgpu_options()
            .device_kind(kind)
            .graphics_api(adapter.backend)
            .init()
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn adapter(device: &Device) -> Option<WgpuDevice> {
        match device.as_dispatch() {
            DispatchDevice::Cube(CubeDevice::Wgpu(adapter)) => Some(adapter.clone()),
            #[allow(unreachable_patterns, reason = "depends on the backends compiled in")]
            _ => None,
        }
    }
}
