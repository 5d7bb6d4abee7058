//! `--device cuda:0,cuda:1`: several GPUs of one machine, for the commands that train.

use anyhow::bail;
use burn::tensor::Device;
use iiet_train::{Devices, Ranks};

use crate::print::errln;
use crate::ranks::local_rank;

use super::{Backend, Chosen, DeviceName, default_device, open};

/// `--device`, for every command that trains.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DevicesArgument {
    /// Where to compute: cpu, flex, ndarray, wgpu:0, vulkan:0, cuda:0, .. as `iiet devices` lists them;
    /// or several GPUs, cuda:0,cuda:1,.., that share the micro-batches of a step, whose number
    /// train.accumulation must be a multiple of theirs
    /// [default: the first that is compiled in of cuda, vulkan, wgpu, ndarray, flex]
    #[arg(long = "device", value_name = "DEVICE,..", value_delimiter = ',')]
    names: Vec<DeviceName>,
}

impl DevicesArgument {
    /// The same for another process of this program.
    pub(crate) fn as_arguments(&self) -> Vec<String> {
        match self.names.is_empty() {
            true => Vec::new(),
            false => vec!["--device".into(), list(&self.names)],
        }
    }

    /// The devices asked for in each process, ready to compute and to add up, and the first of them. By default the
    /// processes of a node share its GPUs in turn.
    ///
    /// # Errors
    ///
    /// A sentence with the remedy, if one of them is not there, or they cannot train together.
    pub(crate) fn open(&self, ranks: &Ranks) -> anyhow::Result<(Chosen, Devices)> {
        refuse_strangers(&self.names)?;
        let (first, others) = match self.names.split_first() {
            Some((first, others)) => (*first, others),
            None => (default_of(local_rank()), &[][..]),
        };
        let first = open(first)?;
        let others = others.iter().map(|name| Ok(open(*name)?.device));
        let others: Vec<Device> = others.collect::<anyhow::Result<_>>()?;
        if !first.on_host && ranks.is_first() {
            let more = self.names.iter().skip(1).map(|name| format!(", {name}"));
            errln!("computing on {}{}", first.name, more.collect::<String>());
        }
        let devices = match others.is_empty() {
            true => Devices::one(first.device.clone()),
            false => together(&self.names, first.device.clone(), others)?,
        };
        Ok((first, devices.across(ranks.clone())))
    }
}

/// The default device of a process, by its number among those of its node.
fn default_of(local_rank: usize) -> DeviceName {
    match (default_device(), local_rank) {
        (DeviceName::Of(backend, _), 1..) => {
            let found = super::found::devices(backend).len();
            DeviceName::Of(backend, local_rank % found.max(1))
        }
        (name, _) => name,
    }
}

/// Refuses devices that cannot train together, whatever is compiled in and found.
fn refuse_strangers(names: &[DeviceName]) -> anyhow::Result<()> {
    if names.len() < 2 {
        return Ok(());
    }
    let cuda = |name: &&DeviceName| matches!(name, DeviceName::Of(Backend::Cuda, _));
    if let Some(other) = names.iter().find(|name| !cuda(name)) {
        bail!(
            "--device {}: several devices train together on cuda alone, and {other} is another; name one",
            list(names)
        );
    }
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            bail!("--device {}: {name} is named twice", list(names));
        }
    }
    Ok(())
}

fn list(names: &[DeviceName]) -> String {
    let names: Vec<String> = names.iter().map(DeviceName::to_string).collect();
    names.join(",")
}

#[cfg(feature = "cuda")]
fn together(names: &[DeviceName], first: Device, others: Vec<Device>) -> anyhow::Result<Devices> {
    let all = [std::slice::from_ref(&first), &others].concat();
    if let Err(reason) = super::found::add_up(&all) {
        bail!(
            "--device {}: the devices cannot add up: {reason}; they need NVIDIA's NCCL, as libnccl.so (Debian, \
             Ubuntu: libnccl-dev)",
            list(names)
        );
    }
    Ok(Devices::several(first, others, iiet_train::Collective))
}

/// Never reached: without cuda there is no first device either.
#[cfg(not(feature = "cuda"))]
fn together(names: &[DeviceName], _: Device, _: Vec<Device>) -> anyhow::Result<Devices> {
    bail!("--device {}: this iiet was built without cuda", list(names));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(list: &str) -> String {
        let names: Vec<DeviceName> = list.split(',').map(|name| name.parse().unwrap()).collect();
        let error = refuse_strangers(&names).unwrap_err();
        error.to_string()
    }

    #[test]
    fn strangers_are_refused() {
        for (list, other) in [
            ("flex,flex", "flex"),
            ("cuda:0,cpu", "cpu"),
            ("wgpu:0,wgpu:1", "wgpu:0"),
            ("cuda:0,cuda:1,vulkan", "vulkan:0"),
        ] {
            let message = refused(list);
            let expected = format!("on cuda alone, and {other} is another");
            assert!(message.contains(&expected), "{message}");
        }
        for list in ["cuda:0,cuda:0", "cuda,cuda:0", "cuda:0,cuda:1,cuda:0"] {
            let message = refused(list);
            assert!(message.ends_with("cuda:0 is named twice"), "{message}");
        }
    }

    #[test]
    fn distinct_gpus_are_not() {
        let names = ["cuda:1", "cuda:0", "cuda:7"].map(|name| name.parse().unwrap());
        refuse_strangers(&names).unwrap();
        refuse_strangers(&names[..1]).unwrap();
        refuse_strangers(&[DeviceName::Cpu]).unwrap();
    }
}
