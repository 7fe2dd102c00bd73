//! What is known of a host, as one rank sees it: everything that the checks and the report are made from.
//!
//! Facts travel between ranks as JSON, and tests make them up.

use rccl_topology::{Advert, Host};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The host's name.
    pub name: String,
    /// The same for all processes that share a kernel and a network namespace, and for no others.
    pub identity: String,
    /// This process.
    pub pid: u32,
    /// The kernel's version: "6.1.0".
    pub kernel: String,
    /// rccl's version.
    pub version: String,
    /// RCCL_NET: "auto", "verbs" or "tcp".
    pub net: String,
    /// The settings of RDMA that are not at their defaults: name and value.
    pub settings: BTreeMap<String, String>,
    /// Devices, interfaces, addresses and routes.
    pub host: Host,
    /// libibverbs.
    pub library: Library,
    /// The devices that the library offers.
    pub devices: Vec<Opened>,
    /// The devices that it does not offer: name, and a sentence that says why.
    pub unusable: BTreeMap<String, String>,
    /// How much memory this process may lock.
    pub memory: Locked,
    /// The container that this process is in: "docker", "podman", "kubernetes" …
    pub container: Option<String>,
    /// Whether all network namespaces see all RDMA devices ("shared") or each its own ("exclusive").
    pub namespaces: Option<String>,
    /// Limits of this process's control group, by device.
    pub cgroup: BTreeMap<String, CgroupLimit>,
    /// What the host's packet filter seems to do with UDP to port 4791, where its rules could be read.
    pub filter: Option<String>,
    /// PCI functions that look like RDMA adapters and have no RDMA device: address and driver.
    pub idle_hardware: BTreeMap<String, String>,
    /// What other hosts are told of this one's rails; with the ports' own MTU where they could be asked.
    pub adverts: Vec<Advert>,
}

impl Facts {
    /// Whether settings switch RDMA off.
    pub fn is_off(&self) -> bool {
        self.net == "tcp" || self.settings.get("RCCL_IB_DISABLE").is_some_and(|value| value == "1")
    }
}

/// libibverbs, as it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// Its path, or the name by which it was looked for.
    pub path: String,
    /// Why it cannot be used.
    pub error: Option<String>,
    /// Why it lists no devices.
    pub list_error: Option<String>,
    /// What forks need: "enabled", "unneeded", "disabled", or why it could not be found out.
    pub fork: Option<String>,
}

/// A device that was opened, or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The kernel's name.
    pub name: String,
    /// The file that a process needs access to.
    pub file: String,
    /// Why it could not be opened or asked.
    pub error: Option<String>,
    /// Its ports.
    pub ports: Vec<OpenPort>,
    /// Tests of its rails.
    pub tests: Vec<SelfTest>,
}

/// What the device says of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenPort {
    /// Its number.
    pub number: u8,
    /// Bytes of payload of a packet now.
    pub active_mtu: u32,
    /// The most that it could be set to.
    pub max_mtu: u32,
}

/// A write from a rail to itself, or to another of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    /// The port.
    pub port: u8,
    /// The GID's index.
    pub index: u8,
    /// The port that was written to, where it was another one.
    pub to: Option<String>,
    /// Microseconds of the write, or why it failed.
    pub outcome: Result<u64, String>,
}

/// Limits on locked memory, in bytes; absent where there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locked {
    /// The limit that holds.
    pub soft: Option<u64>,
    /// What the process could raise it to by itself.
    pub hard: Option<u64>,
    /// Bytes that are pinned already.
    pub pinned: u64,
    /// Whether the process may exceed the limit (CAP_IPC_LOCK).
    pub exempt: bool,
}

/// Limits of a control group on one device; absent where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimit {
    /// Times that a device may be opened.
    pub handles: Option<u32>,
    /// Objects: queue pairs, completion queues, memory regions.
    pub objects: Option<u32>,
}
