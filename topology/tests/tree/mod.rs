//! Made-up file systems with RDMA devices, as the kernel would show them.
#![allow(dead_code)] // each test binary uses a part

mod manifest;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::Path;

use rccl_topology::{Address, Host, Network, Route};

/// A directory that stands for `/`; gone when dropped.
pub struct Tree {
    root: tempfile::TempDir,
    pub network: Network,
}

/// A port's GID table entry: address, "v1" or "v2", interface.
pub type Gid<'a> = (&'a str, &'a str, &'a str);

impl Tree {
    pub fn new() -> Tree {
        Tree { root: tempfile::tempdir().unwrap(), network: Network::default() }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn host(&self) -> Host {
        Host::discover(self.root(), self.network.clone())
    }

    /// Writes a file as the kernel would: with a newline.
    pub fn file(&self, path: &str, content: &str) -> &Tree {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Tree {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    /// An interface that is up, with addresses such as 10.7.0.1/24.
    pub fn interface(&mut self, name: &str, mtu: u32, addresses: &[&str]) -> &Tree {
        addresses.iter().for_each(|address| self.address(name, address));
        self.file(&format!("sys/class/net/{name}/operstate"), "up")
            .file(&format!("sys/class/net/{name}/carrier"), "1")
            .file(&format!("sys/class/net/{name}/mtu"), &mtu.to_string())
            .file(&format!("sys/class/net/{name}/speed"), "100000")
            .file(&format!("sys/class/net/{name}/ifindex"), "2")
    }

    pub fn address(&mut self, interface: &str, address: &str) {
        let (ip, length) = address.split_once('/').unwrap();
        let (ip, length): (IpAddr, u8) = (ip.parse().unwrap(), length.parse().unwrap());
        self.network.addresses.push(Address { interface: interface.into(), ip, length });
    }

    pub fn route(&mut self, interface: &str, destination: &str, gateway: bool) {
        let destination = destination.parse().unwrap();
        self.network.routes.push(Route { destination, interface: interface.into(), gateway });
    }

    /// A device with one active Ethernet port and these GIDs from index 0 on.
    pub fn device(&self, name: &str, gids: &[Gid<'_>]) -> &Tree {
        self.file(&format!("sys/class/infiniband/{name}/node_type"), "1: CA");
        self.port(name, 1, gids)
    }

    pub fn port(&self, name: &str, number: u8, gids: &[Gid<'_>]) -> &Tree {
        let port = format!("sys/class/infiniband/{name}/ports/{number}");
        self.file(&format!("{port}/state"), "4: ACTIVE")
            .file(&format!("{port}/phys_state"), "5: LinkUp")
            .file(&format!("{port}/link_layer"), "Ethernet")
            .file(&format!("{port}/rate"), "100 Gb/sec (4X EDR)")
            .file(&format!("{port}/lid"), "0x0")
            .file(&format!("{port}/pkeys/0"), "0xffff");
        for (index, (address, version, interface)) in gids.iter().enumerate() {
            let kind = if *version == "v1" { "IB/RoCE v1" } else { "RoCE v2" };
            let gid = match address.parse().unwrap() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            let words: Vec<String> = gid.segments().iter().map(|word| format!("{word:04x}")).collect();
            self.file(&format!("{port}/gids/{index}"), &words.join(":"))
                .file(&format!("{port}/gid_attrs/types/{index}"), kind)
                .file(&format!("{port}/gid_attrs/ndevs/{index}"), interface);
        }
        // The rest of the table is empty, and its attributes cannot be read.
        self.file(&format!("{port}/gids/{}", gids.len()), "0000:0000:0000:0000:0000:0000:0000:0000")
    }

    /// A PCI device, by its path from the root of its bus on, with speed and lanes of its link.
    pub fn pci(&self, path: &str, class: &str, link: (&str, u32), numa: i32) -> &Tree {
        let name = path.rsplit('/').next().unwrap();
        let device = format!("sys/devices/{path}");
        self.file(&format!("{device}/class"), class)
            .file(&format!("{device}/vendor"), "0x15b3")
            .file(&format!("{device}/device"), "0x101d")
            .file(&format!("{device}/max_link_speed"), link.0)
            .file(&format!("{device}/max_link_width"), &link.1.to_string())
            .file(&format!("{device}/numa_node"), &numa.to_string())
            .link(&format!("sys/bus/pci/devices/{name}"), &format!("../../../devices/{path}"))
    }

    /// A NUMA node.
    pub fn node(&self, number: u32, cpumap: &str) -> &Tree {
        self.file(&format!("sys/devices/system/node/node{number}/cpumap"), cpumap)
    }

    /// What a ConnectX adds: a PCI device, a driver, firmware.
    pub fn connectx(&self, name: &str, pci: &str, numa: i32) -> &Tree {
        let device = format!("sys/devices/pci0000:00/{pci}");
        self.file(&format!("{device}/numa_node"), &numa.to_string())
            .link(&format!("{device}/driver"), "../../../bus/pci/drivers/mlx5_core")
            .link(
                &format!("sys/class/infiniband/{name}/device"),
                &format!("../../../devices/pci0000:00/{pci}"),
            )
            .file(&format!("sys/class/infiniband/{name}/fw_ver"), "20.31.1014")
            .file(&format!("sys/class/infiniband/{name}/board_id"), "MT_0000000359")
    }
}

/// A bare host with one ConnectX port: each address stands in the table as v1 and as v2, the link-local one first.
pub fn connectx(address: &str, mtu: u32) -> Tree {
    let mut tree = Tree::new();
    tree.interface("eth2", mtu, &[&format!("{address}/24"), "fe80::1/64"]);
    tree.device(
        "mlx5_0",
        &[
            ("fe80::1", "v1", "eth2"),
            ("fe80::1", "v2", "eth2"),
            (address, "v1", "eth2"),
            (address, "v2", "eth2"),
        ],
    );
    tree.connectx("mlx5_0", "0000:3b:00.0", 0);
    tree
}
