//! What hosts consist of, as NCCL's topology files describe it: NUMA nodes, PCI trees, GPUs and network ports.
//!
//! ```text
//! System > Cpu (a NUMA node) > Pci > Pci …              switches and bridges
//!                                  > Gpu > Link, C2c    to other GPUs, to the processor
//!                                  > Nic > Net          ports
//!                            > Nic > Net                ports that hang on no PCI device
//! ```
//!
//! What a file does not say is `None`: NCCL's files may be partial, and NCCL fills the gaps from the machine that it
//! runs on. NCCL writes -1 for numbers that it does not know; those are `None`, too.

mod cpu_set;
mod discover;
mod pci;

use std::fmt;

use serde::{Serialize, Serializer};

pub use cpu_set::{CpuSet, CpuSetError};
pub use pci::{BusId, BusIdError, LinkSpeed, PciClass, PciClassError};

/// One or several hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct System {
    /// Version of the file's format: 1, and 2 in AMD's dialect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// A name that somebody gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// NUMA nodes of all hosts, in the file's order.
    pub cpus: Vec<Cpu>,
}

/// A NUMA node: processors that share a memory, and what hangs on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Which host this belongs to, in files of several hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Hex>,
    /// The kernel's number of the NUMA node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    /// Its logical processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<CpuSet>,
    /// Instruction set: "x86_64", "arm64", "ppc64".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The processor's word for its maker: "GenuineIntel", "AuthenticAMD".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// CPUID family. Old versions of NCCL add its two parts in another way than the processor's manual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u32>,
    /// CPUID model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<u32>,
    /// PCI devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Pci>,
    /// Network devices without a PCI device: bridges, tunnels, virtual ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
}

/// A PCI device: a switch or bridge with devices below it, a GPU, a network adapter, or another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pci {
    /// Its address.
    pub bus: BusId,
    /// What kind of device it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<PciClass>,
    /// Maker, device, and the same of the board.
    #[serde(flatten)]
    pub ids: PciIds,
    /// Speed of a lane: the lesser of what the device and the port above it can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<LinkSpeed>,
    /// Lanes; the lesser of what the device and the port above it have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// Switches that this one is joined to beside the tree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<BusId>,
    /// GPUs of this device: one; several where ranks share it, or where it is cut into parts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<Gpu>,
    /// Network ports of this device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
    /// Devices below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Pci>,
}

/// The numbers by which a PCI device says who made what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PciIds {
    /// Maker of the chip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<Hex>,
    /// The maker's number of the chip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Hex>,
    /// Maker of the board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subsystem_vendor: Option<Hex>,
    /// The maker's number of the board.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subsystem_device: Option<Hex>,
}

/// A GPU, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Gpu {
    /// The driver's number of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<u32>,
    /// NVIDIA: compute capability, 90 for 9.0. AMD: the number of compute units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sm: Option<u32>,
    /// AMD: the architecture, "gfx942" or "906".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gcn: Option<String>,
    /// AMD: properties of the architecture, as bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<u32>,
    /// Which part of a GPU that is cut into parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<u32>,
    /// The rank that uses it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Whether network adapters can read and write its memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gdr: Option<bool>,
    /// Links to other GPUs and to switches between them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Coherent links to the processor.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub c2c: Vec<C2c>,
}

/// Links from a GPU to another device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// What kind of links.
    pub kind: LinkKind,
    /// Where they lead; several switches of one fabric may have one made-up address.
    pub target: BusId,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// What kind of device the target is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<PciClass>,
}

/// What kind of links a GPU has to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// NVIDIA's.
    NvLink,
    /// AMD's.
    Xgmi,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LinkKind::NvLink => "NVLink",
            LinkKind::Xgmi => "xGMI",
        })
    }
}

/// Coherent links between a GPU and the processor that it is packaged with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct C2c {
    /// MB/s of one link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<u32>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// A network adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Nic {
    /// Its ports.
    pub nets: Vec<Net>,
}

/// A port of a network adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Net {
    /// The kernel's name: "mlx5_0", "eth0".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its number among the host's ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<u32>,
    /// Microseconds that a message takes at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// Mb/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// Number of the adapter's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// The adapter's identity, the same for its ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guid: Option<Hex>,
    /// Connections that it can hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Whether it can read and write the memory of GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gdr: Option<bool>,
    /// Whether the network can reduce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduces: Option<bool>,
    /// Whether connections may use it; one that was merged into another port is not used by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<bool>,
}

/// A number that people know in hexadecimal. Prints as "0x10de".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl Serialize for Hex {
    /// As text: JSON's numbers lose bits above 2^53.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Pci {
    /// A device of which no more is known than its address.
    pub fn new(bus: BusId) -> Pci {
        Pci {
            bus,
            class: None,
            ids: PciIds::default(),
            speed: None,
            width: None,
            joined: Vec::new(),
            gpus: Vec::new(),
            nics: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// What it is: what hangs on it says more than its class, and partial files have the class alone.
    pub fn role(&self) -> Role {
        if !self.gpus.is_empty() {
            Role::Gpu
        } else if !self.nics.is_empty() {
            Role::Nic
        } else if !self.devices.is_empty() {
            Role::Switch
        } else {
            self.class.map_or(Role::Other, PciClass::role)
        }
    }
}

/// What a PCI device is to a collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A switch or bridge: other devices hang on it.
    Switch,
    /// A GPU or another accelerator.
    Gpu,
    /// A network adapter.
    Nic,
    /// Something else.
    Other,
}

impl System {
    /// The hosts, each with its NUMA nodes, in the order in which the file names them first. NUMA nodes without a host
    /// belong to one.
    pub fn hosts(&self) -> Vec<(Option<Hex>, Vec<&Cpu>)> {
        let mut hosts: Vec<(Option<Hex>, Vec<&Cpu>)> = Vec::new();
        for cpu in &self.cpus {
            match hosts.iter_mut().find(|(host, _)| *host == cpu.host) {
                Some((_, cpus)) => cpus.push(cpu),
                None => hosts.push((cpu.host, vec![cpu])),
            }
        }
        hosts
    }

    /// Each host as a system of its own, in the order of [`System::hosts`].
    pub fn each_host(&self) -> Vec<System> {
        let System { version, name, .. } = self;
        let alone = |cpus: Vec<&Cpu>| System {
            version: *version,
            name: name.clone(),
            cpus: cpus.into_iter().cloned().collect(),
        };
        self.hosts().into_iter().map(|(_, cpus)| alone(cpus)).collect()
    }
}
