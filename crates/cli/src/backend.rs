//! The backends compiled into this binary and the device selected by `--device`. Only this module names
//! backends.

mod found;
mod products;
mod several;

use std::fmt;
use std::str::FromStr;

use anyhow::{bail, ensure};
use burn::tensor::Device;

pub(crate) use self::products::for_all_products;
pub(crate) use self::several::DevicesArgument;
use crate::precision;

#[cfg(not(any(
    feature = "flex",
    feature = "ndarray",
    feature = "wgpu",
    feature = "vulkan",
    feature = "cuda"
)))]
compile_error!("choose a backend: --features flex, ndarray, wgpu, vulkan or cuda");

/// A backend; cargo features, `cargo xtask --backend` and `--device` use the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Cuda,
    Vulkan,
    Wgpu,
    NdArray,
    Flex,
}

impl Backend {
    /// The first backend that is compiled in is the default. Flex is last: it is the default feature, and
    /// another backend was enabled deliberately.
    pub(crate) const ALL: [Self; 5] = [
        Self::Cuda,
        Self::Vulkan,
        Self::Wgpu,
        Self::NdArray,
        Self::Flex,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::NdArray => "ndarray",
            Self::Flex => "flex",
        }
    }

    pub(crate) fn is_compiled_in(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::NdArray => cfg!(feature = "ndarray"),
            Self::Flex => cfg!(feature = "flex"),
        }
    }

    /// Whether it computes in host memory, as a single device without a number.
    fn on_host(self) -> bool {
        matches!(self, Self::NdArray | Self::Flex)
    }

    fn compiled_in() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|b| b.is_compiled_in())
    }

    /// The backend of the device `cpu`: flex if it is compiled in, because it is faster.
    fn of_the_cpu() -> Option<Self> {
        let mut backends = [Self::Flex, Self::NdArray].into_iter();
        backends.find(|backend| backend.is_compiled_in())
    }

    /// The reason why there is no device, and the remedy.
    pub(crate) fn remedy(self) -> String {
        let remedy = match self {
            Self::Cuda => {
                "no NVIDIA GPU with a driver was found; install the driver and check that `nvidia-smi` \
                 lists the GPU"
            }
            Self::Vulkan => {
                "no Vulkan driver was found; install the GPU's (Debian: mesa-vulkan-drivers, which \
                 has one for CPUs too) and check that `vulkaninfo --summary` lists it"
            }
            Self::Wgpu => {
                "no Vulkan, Metal, DirectX 12 or OpenGL driver was found; install the GPU's (Debian: \
                 mesa-vulkan-drivers, which has one for CPUs too)"
            }
            Self::NdArray | Self::Flex => "it needs no driver",
        };
        match Self::of_the_cpu() {
            Some(_) => format!("{remedy}, or compute with --device cpu"),
            None => remedy.to_owned(),
        }
    }
}

/// A device as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceName {
    Cpu,
    Of(Backend, usize),
}

impl FromStr for DeviceName {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        const ALLOWED: &str =
            "allowed: cpu, flex, ndarray, wgpu:0, vulkan:0, cuda:0, or another number";
        if text.contains(',') {
            bail!("this command takes one device; only train and distill take several");
        }
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (text, None),
        };
        let Some(backend) = Backend::ALL.into_iter().find(|b| b.name() == name) else {
            bail!("{ALLOWED}");
        };
        let number = match number {
            None => 0,
            Some(_) if backend.on_host() => bail!("{name} has a single device and takes no number"),
            Some(number) => match number.parse() {
                Ok(number) => number,
                Err(_) => bail!("{number:?} is not a device number; {ALLOWED}"),
            },
        };
        Ok(Self::Of(backend, number))
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => write!(f, "cpu"),
            Self::Of(backend, _) if backend.on_host() => write!(f, "{}", backend.name()),
            Self::Of(backend, number) => write!(f, "{}:{number}", backend.name()),
        }
    }
}

/// `--device`, for every command that computes.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct DeviceArgument {
    /// Where to compute: cpu, flex, ndarray, wgpu:0, vulkan:0, cuda:0, .. as `iiet devices` lists them
    /// [default: the first that is compiled in of cuda, vulkan, wgpu, ndarray, flex]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceName>,
}

/// The selected device, and whether its memory is host memory.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) name: DeviceName,
    /// The instructions of matrix products, where there is a choice.
    pub(crate) products: Option<&'static str>,
    pub(crate) device: Device,
    pub(crate) on_host: bool,
}

impl DeviceArgument {
    /// The selected device, ready to compute.
    ///
    /// # Errors
    ///
    /// A message with the remedy, if the backend is not compiled in or there is no such device.
    pub(crate) fn open(self) -> anyhow::Result<Chosen> {
        open(self.device.unwrap_or_else(default_device))
    }
}

/// The device for commands that only copy weights: the CPU if available, so that no driver is needed.
pub(crate) fn for_files() -> anyhow::Result<Chosen> {
    open(match Backend::of_the_cpu() {
        Some(_) => DeviceName::Cpu,
        None => default_device(),
    })
}

pub(crate) fn default_device() -> DeviceName {
    let first = Backend::compiled_in().next();
    let first = first.expect("invariant: without a backend this file does not compile");
    DeviceName::Of(first, 0)
}

fn open(name: DeviceName) -> anyhow::Result<Chosen> {
    let compiled_in = || {
        let names: Vec<&str> = Backend::compiled_in().map(Backend::name).collect();
        names.join(", ")
    };
    let (backend, number) = match name {
        DeviceName::Of(backend, number) => (backend, number),
        DeviceName::Cpu => match Backend::of_the_cpu() {
            Some(backend) => (backend, 0),
            None => bail!(
                "--device cpu: this iiet was built with {} only; `cargo xtask` builds one with flex",
                compiled_in()
            ),
        },
    };
    ensure!(
        backend.is_compiled_in(),
        "--device {name}: this iiet was built with {}; `cargo xtask --backend {backend} ..` builds one \
         with {backend} (with cargo alone: `--features {backend}`)",
        compiled_in(),
        backend = backend.name(),
    );
    let devices = found::devices(backend);
    let Some(device) = devices.get(number) else {
        if devices.is_empty() {
            bail!("--device {name}: {}", backend.remedy());
        }
        let last = DeviceName::Of(backend, devices.len() - 1);
        bail!("--device {name}: no such device; the last is {last} (`iiet devices` lists them)");
    };
    products::check(backend)?;
    if let Err(reason) = found::ready(device) {
        bail!("--device {name} cannot compute: {reason}");
    }
    Ok(Chosen {
        name: DeviceName::Of(backend, number),
        products: products::in_use(backend),
        device: device.clone(),
        on_host: backend.on_host(),
    })
}

/// One line per device of a backend that is compiled in: its name, its description, and the precisions that
/// it supports.
pub(crate) fn described(backend: Backend) -> Vec<(DeviceName, String)> {
    let devices = found::devices(backend);
    let usable = |device: &Device| {
        products::check(backend)?;
        found::ready(device).map_err(anyhow::Error::msg)
    };
    let describe = |(number, device): (usize, &Device)| {
        let about = match usable(device) {
            Ok(()) => {
                let products = products::in_use(backend);
                format!(
                    "{}{}; {}",
                    found::description(device),
                    products.map_or_else(String::new, |name| format!(", {name} products")),
                    precision::names_on(device)
                )
            }
            Err(reason) => format!("unusable: {reason}"),
        };
        (DeviceName::Of(backend, number), about)
    };
    devices.iter().enumerate().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, written) in [
            ("cpu", "cpu"),
            ("flex", "flex"),
            ("ndarray", "ndarray"),
            ("wgpu", "wgpu:0"),
            ("vulkan:1", "vulkan:1"),
            ("cuda:12", "cuda:12"),
        ] {
            assert_eq!(text.parse::<DeviceName>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn invalid_names_are_errors() {
        for (text, expected) in [
            ("", "allowed: cpu, flex"),
            ("gpu", "allowed: cpu, flex"),
            ("CUDA:0", "allowed: cpu, flex"),
            ("cpu:0", "allowed: cpu, flex"),
            ("flex:0", "flex has a single device and takes no number"),
            ("cuda:", "\"\" is not a device number"),
            ("cuda:-1", "\"-1\" is not a device number"),
            ("wgpu:0:1", "\"0:1\" is not a device number"),
            (
                "cuda:0,cuda:1",
                "this command takes one device; only train and distill",
            ),
            ("vulkan:99999999999999999999", "is not a device number"),
        ] {
            let error = text.parse::<DeviceName>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
