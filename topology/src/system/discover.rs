//! The machine that a process runs on.
//!
//! Paths and formats: Documentation/ABI/testing/sysfs-bus-pci, sysfs-class-net and stable/sysfs-devices-node of the Linux
//! kernel, and proc(5).
//!
//! In sysfs a PCI device lies below all bridges above it. A switch is two layers of them, its upstream port and its
//! downstream ports, and the root port of the processor is one more:
//!
//! ```text
//! pci0000:3a / 0000:3a:00.0 / 0000:3b:00.0 / 0000:3c:04.0 / 0000:3d:00.0
//!              root port      upstream       downstream     device
//! ```
//!
//! So of a device's ancestors every second is a switch, as in NCCL's files, and the one directly above it the port at the
//! other end of its link.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{BusId, Cpu, CpuSet, Gpu, Hex, LinkSpeed, Net, Nic, Pci, PciIds, Role, System};
use crate::host::{Device, Host, Interface};
use crate::sysfs::{names, parsed, text};

impl System {
    /// Reads the NUMA nodes of a host, and the PCI devices that lead to its GPUs and network adapters, beneath `root`,
    /// which is `/` but for tests; `host` is what [`Host::discover`] found beneath the same root.
    ///
    /// Ports of RDMA devices are listed in the place of the interfaces that belong to them, and the other interfaces by
    /// themselves, but for the loopback. What hangs on no PCI device is listed with the first NUMA node. A device whose NUMA
    /// node is unknown, on a host with several, gets a node without number. Takes some milliseconds, and does not fail.
    pub fn discover(root: &Path, host: &Host) -> System {
        let mut cpus = Cpus::read(root);
        let mut ports = Ports::of(root, host);
        let devices = root.join("sys/bus/pci/devices");
        let mut addresses: Vec<BusId> = names(&devices).iter().filter_map(|name| name.parse().ok()).collect();
        addresses.sort();
        for address in addresses {
            let Ok(path) = fs::canonicalize(devices.join(address.to_string())) else { continue };
            let Some(mut device) = device(&path) else { continue };
            device.nics.extend(ports.take(device.bus));
            if device.role() == Role::Gpu && !is_console(&device) {
                device.gpus.push(Gpu::default());
            }
            if !device.gpus.is_empty() || device.role() == Role::Nic {
                let node = parsed(&path.join("numa_node")); // -1 is none
                insert(&mut cpus.on(node).devices, &switches(&path), device);
            }
        }
        if let Some(nic) = ports.rest() {
            cpus.first().nics.push(nic);
        }
        System { version: Some(1), name: None, cpus: cpus.0 }
    }
}

/// The NUMA nodes of a host; one without a number where the kernel names none.
struct Cpus(Vec<Cpu>);

impl Cpus {
    fn read(root: &Path) -> Cpus {
        let cpu = Cpu { numa: None, ..processor(root) };
        let nodes = root.join("sys/devices/system/node");
        let numbered = names(&nodes).into_iter().filter_map(|name| {
            let numa = name.strip_prefix("node")?.parse().ok()?;
            let affinity: CpuSet = parsed(&nodes.join(&name).join("cpumap"))?;
            Some(Cpu { numa: Some(numa), affinity: Some(affinity), ..cpu.clone() })
        });
        let cpus: Vec<Cpu> = numbered.collect();
        Cpus(if cpus.is_empty() { vec![cpu] } else { cpus })
    }

    fn first(&mut self) -> &mut Cpu {
        &mut self.0[0]
    }

    /// The node of a device.
    fn on(&mut self, node: Option<u32>) -> &mut Cpu {
        let found = match self.0.len() {
            1 => Some(0),
            _ => self.0.iter().position(|cpu| cpu.numa == node),
        };
        let place = found.unwrap_or_else(|| {
            self.0.push(Cpu {
                numa: node,
                affinity: None,
                devices: Vec::new(),
                nics: Vec::new(),
                ..self.0[0].clone()
            });
            self.0.len() - 1
        });
        &mut self.0[place]
    }
}

/// What `/proc/cpuinfo` says of the first processor.
fn processor(root: &Path) -> Cpu {
    let text = text(&root.join("proc/cpuinfo")).unwrap_or_default();
    let first = text.lines().take_while(|line| !line.trim().is_empty());
    let facts: BTreeMap<&str, &str> = first
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let number = |key: &str| facts.get(key)?.parse().ok();
    let long_mode = facts.get("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "lm"));
    let arch = if long_mode {
        Some("x86_64")
    } else if facts.get("CPU architecture") == Some(&"8") {
        Some("arm64")
    } else {
        facts.get("cpu").filter(|name| name.starts_with("POWER")).map(|_| "ppc64")
    };
    Cpu {
        arch: arch.map(str::to_owned),
        vendor: facts.get("vendor_id").map(|&vendor| vendor.to_owned()),
        family: number("cpu family"),
        model: number("model"),
        ..Cpu::default()
    }
}

/// A PCI device by itself.
fn device(path: &Path) -> Option<Pci> {
    let bus: BusId = path.file_name()?.to_str()?.parse().ok()?;
    let hex = |file: &str| {
        let word = text(&path.join(file))?;
        u64::from_str_radix(word.strip_prefix("0x")?, 16).ok().map(Hex)
    };
    // The port at the other end of the link, if there is one: a bus without bridge has none.
    let port = path.parent().filter(|port| bus_id(port).is_some());
    let speed = |path: &Path| LinkSpeed::from_words(&text(&path.join("max_link_speed"))?);
    let width = |path: &Path| parsed(&path.join("max_link_width")).filter(|&lanes: &u32| lanes > 0);
    Some(Pci {
        class: parsed(&path.join("class")),
        ids: PciIds {
            vendor: hex("vendor"),
            device: hex("device"),
            subsystem_vendor: hex("subsystem_vendor"),
            subsystem_device: hex("subsystem_device"),
        },
        speed: lesser(speed(path), port.and_then(speed)),
        width: lesser(width(path), port.and_then(width)),
        ..Pci::new(bus)
    })
}

/// Whether a GPU by its class is the screen of a server's management controller, of a virtual machine, or inside of a
/// processor: those have a lane, or no link at all.
fn is_console(device: &Pci) -> bool {
    const VGA: u32 = 0x03_0000;
    device.class.is_some_and(|class| class.0 & 0xff_ff00 == VGA) && device.width.is_none_or(|lanes| lanes < 8)
}

/// The lesser of what is known.
fn lesser<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    [one, other].into_iter().flatten().min()
}

fn bus_id(path: &Path) -> Option<BusId> {
    path.file_name()?.to_str()?.parse().ok()
}

/// The paths of the switches above a device, the farthest first.
fn switches(path: &Path) -> Vec<PathBuf> {
    let bridges: Vec<&Path> =
        path.ancestors().skip(1).take_while(|bridge| bus_id(bridge).is_some()).collect();
    let mut switches: Vec<PathBuf> = bridges.into_iter().skip(1).step_by(2).map(Path::to_owned).collect();
    switches.reverse();
    switches
}

/// Puts a device below its switches.
fn insert(devices: &mut Vec<Pci>, switches: &[PathBuf], device: Pci) {
    let Some((path, rest)) = switches.split_first() else { return devices.push(device) };
    let known = devices.iter().position(|known| Some(known.bus) == bus_id(path));
    let place = match (known, self::device(path)) {
        (Some(place), _) => place,
        (None, Some(switch)) => {
            devices.push(switch);
            devices.len() - 1
        }
        (None, None) => return insert(devices, rest, device),
    };
    insert(&mut devices[place].devices, rest, device);
}

/// The host's network ports, by the PCI device that they belong to.
struct Ports(BTreeMap<Option<BusId>, Vec<Net>>);

impl Ports {
    fn of(root: &Path, host: &Host) -> Ports {
        let class = root.join("sys/class");
        let mut ports = Ports(BTreeMap::new());
        let mut count = 0;
        let mut add = |bus: Option<BusId>, net: Net| {
            ports.0.entry(bus).or_default().push(Net { dev: Some(count), ..net });
            count += 1;
        };
        let with_rdma: Vec<&str> = host.devices.iter().flat_map(interfaces).collect();
        for device in &host.devices {
            let path = class.join("infiniband").join(&device.name);
            // A device in software sends by its interface's adapter.
            let own = pci_of(&path);
            let bus = own.or_else(|| pci_of(&class.join("net").join(interfaces(device).next()?)));
            for net in rdma_ports(&path, device) {
                add(bus, net);
            }
        }
        let others = host.interfaces.iter().filter(|one| !with_rdma.contains(&one.name.as_str()));
        for interface in others.filter(|one| one.name != "lo") {
            let path = class.join("net").join(&interface.name);
            add(pci_of(&path), interface_port(&path, host, interface));
        }
        ports
    }

    fn take(&mut self, bus: BusId) -> Option<Nic> {
        self.0.remove(&Some(bus)).map(|nets| Nic { nets })
    }

    /// The ports of no PCI device that could be read.
    fn rest(self) -> Option<Nic> {
        let mut nets: Vec<Net> = self.0.into_values().flatten().collect();
        nets.sort_by_key(|net| net.dev);
        (!nets.is_empty()).then_some(Nic { nets })
    }
}

/// The interfaces that an RDMA device's addresses belong to.
fn interfaces(device: &Device) -> impl Iterator<Item = &str> {
    device.ports.iter().flat_map(|port| &port.gids).filter_map(|entry| entry.interface.as_deref())
}

/// The PCI device above a device of a class: its own, or that of a bus between (virtio).
fn pci_of(path: &Path) -> Option<BusId> {
    fs::canonicalize(path.join("device")).ok()?.ancestors().find_map(bus_id)
}

fn rdma_ports(path: &Path, device: &Device) -> Vec<Net> {
    // "0c42:a103:0012:3456"
    let guid = text(&path.join("node_guid"))
        .and_then(|words| u64::from_str_radix(&words.replace(':', ""), 16).ok())
        .map(Hex);
    let port = |port: &crate::host::Port| Net {
        name: Some(device.name.clone()),
        port: Some(port.number.into()),
        speed: port.rate.map(|rate| (rate * 1000.0) as u32),
        guid,
        ..Net::default()
    };
    device.ports.iter().map(port).collect()
}

fn interface_port(path: &Path, host: &Host, interface: &Interface) -> Net {
    Net {
        name: Some(interface.name.clone()),
        port: parsed(&path.join("dev_port")),
        speed: host.speed(&interface.name),
        ..Net::default()
    }
}
