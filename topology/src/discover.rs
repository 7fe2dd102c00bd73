//! Reading a host from sysfs.
//!
//! Paths and formats: Documentation/ABI/stable/sysfs-class-infiniband and testing/sysfs-class-net of the Linux kernel;
//! `rdma_cm` in configfs: Documentation/ABI/testing/configfs-rdma_cm; `tc`, `ecn` and `qos`: NVIDIA's own drivers only.
//! A file that is missing or cannot be read leaves its fact absent, and a bad entry of a table is left out: in
//! containers single entries are not readable, which says nothing about the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::gid::{Gid, GidKind};
use crate::host::{
    Congestion, ConnectionDefaults, Device, GidEntry, Host, Interface, LinkLayer, NodeKind, PartitionKey,
    Port, PortState,
};
use crate::network::Network;
use crate::sysfs::{names, parsed, text};

impl Host {
    /// Reads devices and interfaces beneath `root`, which is `/` but for tests and file systems of other machines; adds
    /// the addresses and routes that the caller has. Takes some milliseconds a port: its GID table has a file for each
    /// field of each entry. Does not fail: a host without RDMA has no devices.
    pub fn discover(root: &Path, network: Network) -> Host {
        let devices = root.join("sys/class/infiniband");
        let defaults = root.join("sys/kernel/config/rdma_cm");
        Host {
            devices: names(&devices)
                .iter()
                .map(|name| device(&devices.join(name), &defaults, name))
                .collect(),
            interfaces: Interface::all(root, &network),
            network,
        }
    }
}

impl Interface {
    /// Reads the network interfaces beneath `root`, some 40 small files each, and takes from `network` what they are. Does
    /// not fail.
    pub fn all(root: &Path, network: &Network) -> Vec<Interface> {
        let directory = root.join("sys/class/net");
        let names = names(&directory);
        // bonding_masters is a file.
        let names = names.iter().filter(|name| directory.join(name).is_dir());
        let read = |name: &String| {
            let read = interface(&directory.join(name), name);
            Interface { kind: network.kinds.get(name).cloned().or(read.kind.clone()), ..read }
        };
        names.map(read).collect()
    }
}

fn device(path: &Path, defaults: &Path, name: &str) -> Device {
    let ports = path.join("ports");
    let link_name = |link: &str| {
        let target = fs::read_link(path.join(link)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    };
    Device {
        name: name.into(),
        kind: match text(&path.join("node_type")).unwrap_or_default() {
            words if words.starts_with("1:") => NodeKind::ChannelAdapter,
            words if words.starts_with("4:") => NodeKind::Iwarp,
            words => NodeKind::Other(words),
        },
        firmware: text(&path.join("fw_ver")),
        board: text(&path.join("board_id")),
        driver: link_name("device/driver"),
        // Other buses have other links here.
        pci: link_name("device").filter(|address| address.matches(':').count() == 2),
        numa_node: parsed(&path.join("device/numa_node")), // -1 is none
        ports: names(&ports)
            .iter()
            .filter_map(|number| {
                let traffic_class = path.join("tc").join(number).join("traffic_class");
                let defaults = defaults.join(name).join("ports").join(number);
                Some(port(&ports.join(number), &traffic_class, &defaults, number.parse().ok()?))
            })
            .collect(),
    }
}

fn port(path: &Path, traffic_class: &Path, defaults: &Path, number: u8) -> Port {
    let link_layer = match text(&path.join("link_layer")).as_deref() {
        Some("InfiniBand") => LinkLayer::InfiniBand,
        Some("Ethernet") => LinkLayer::Ethernet,
        _ => LinkLayer::Unknown,
    };
    Port {
        number,
        state: match text(&path.join("state")).unwrap_or_default() {
            words if words.starts_with("4:") => PortState::Active,
            words if words.starts_with("1:") => PortState::Down,
            words if words.starts_with("2:") => PortState::Initializing,
            words if words.starts_with("3:") => PortState::Armed,
            words => PortState::Other(words),
        },
        physical: text(&path.join("phys_state")).map(|words| match words.split_once(": ") {
            Some((_, words)) => words.to_owned(),
            None => words,
        }),
        link_layer,
        // "100 Gb/sec (4X EDR)"
        rate: text(&path.join("rate")).and_then(|words| words.split(' ').next()?.parse().ok()),
        lid: text(&path.join("lid")).and_then(|word| hexadecimal(&word)).unwrap_or(0),
        gids: gids(path, link_layer),
        partition_keys: names(&path.join("pkeys"))
            .iter()
            .filter_map(|index| {
                let key = hexadecimal(&text(&path.join("pkeys").join(index))?)?;
                Some(PartitionKey { index: index.parse().ok()?, key })
            })
            .filter(|entry| entry.key != 0)
            .collect(),
        connection_defaults: defaults.is_dir().then(|| ConnectionDefaults {
            roce_mode: text(&defaults.join("default_roce_mode"))
                .and_then(|words| gid_kind(&words, link_layer)),
            traffic_class: parsed(&defaults.join("default_roce_tos")),
        }),
        // "Global tc=106"; without a global one the file has only classes of single flows.
        forced_traffic_class: text(traffic_class).and_then(|words| {
            words.lines().find_map(|line| line.strip_prefix("Global tc=")?.trim().parse().ok())
        }),
        counters: counters(&path.join("hw_counters")),
    }
}

fn gids(path: &Path, link_layer: LinkLayer) -> Vec<GidEntry> {
    let attributes = path.join("gid_attrs");
    let entry = |index: &String| {
        let gid: std::net::Ipv6Addr = parsed(&path.join("gids").join(index))?;
        let gid = Gid(gid.octets());
        if gid.is_zero() {
            return None;
        }
        let kind = gid_kind(&text(&attributes.join("types").join(index))?, link_layer)?;
        let interface = text(&attributes.join("ndevs").join(index));
        Some(GidEntry { index: index.parse().ok()?, gid, kind, interface })
    };
    names(&path.join("gids")).iter().filter_map(entry).collect()
}

/// The kernel calls InfiniBand's addresses and RoCE v1's by one name.
fn gid_kind(words: &str, link_layer: LinkLayer) -> Option<GidKind> {
    match (words, link_layer) {
        ("RoCE v2", _) => Some(GidKind::RoceV2),
        ("IB/RoCE v1", LinkLayer::Ethernet) => Some(GidKind::RoceV1),
        ("IB/RoCE v1", _) => Some(GidKind::InfiniBand),
        _ => None,
    }
}

fn counters(path: &Path) -> BTreeMap<String, u64> {
    // lifespan is not a counter: milliseconds for which the kernel keeps what it read.
    let names = names(path).into_iter().filter(|name| name != "lifespan");
    names.filter_map(|name| Some((name.clone(), parsed(&path.join(&name))?))).collect()
}

fn interface(path: &Path, name: &str) -> Interface {
    let files = names(path);
    let master = fs::read_link(path.join("master")).ok();
    let kind = text(&path.join("uevent"))
        .and_then(|words| Some(words.lines().find_map(|line| line.strip_prefix("DEVTYPE="))?.to_owned()))
        .or_else(|| path.join("tun_flags").exists().then(|| "tun".to_owned()));
    let index = parsed(&path.join("ifindex"));
    let queues = names(&path.join("queues"));
    let count = |of: &str| queues.iter().filter(|queue| queue.starts_with(of)).count() as u32;
    Interface {
        name: name.into(),
        index,
        state: text(&path.join("operstate")),
        carrier: parsed::<u8>(&path.join("carrier")).map(|carrier| carrier == 1),
        mtu: parsed(&path.join("mtu")),
        speed: parsed(&path.join("speed")), // -1 is unknown
        master: master.and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned())),
        lower: files.iter().filter_map(|file| Some(file.strip_prefix("lower_")?.to_owned())).collect(),
        bond_mode: text(&path.join("bonding/mode"))
            .map(|words| words.split(' ').next().unwrap_or_default().to_owned()),
        linked: parsed(&path.join("iflink")).filter(|&linked: &u32| linked > 0 && Some(linked) != index),
        active_member: text(&path.join("bonding/active_slave")),
        queues: (!queues.is_empty()).then(|| (count("rx-"), count("tx-"))),
        kind,
        congestion: Congestion {
            notifying: priorities(&path.join("ecn/roce_np/enable")),
            reacting: priorities(&path.join("ecn/roce_rp/enable")),
            paused: text(&path.join("qos/pfc")).and_then(|words| list_of_bits(&words)),
            trust: text(&path.join("qos/trust")),
        },
    }
}

/// A file for each of 8 priorities, with 0 or 1; absent unless all can be read.
fn priorities(path: &Path) -> Option<u8> {
    (0..8).try_fold(0, |bits, priority| {
        let enabled: u8 = parsed(&path.join(priority.to_string()))?;
        Some(bits | (enabled & 1) << priority)
    })
}

/// `0 0 0 1 0 0 0 0`, or with commas: priority 0 first.
fn list_of_bits(words: &str) -> Option<u8> {
    let words: Vec<&str> = words.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let bit =
        |(priority, word): (usize, &&str)| Some(word.parse::<u8>().ok().filter(|&bit| bit < 2)? << priority);
    if words.len() != 8 {
        return None;
    }
    words.iter().enumerate().map(bit).try_fold(0, |bits, bit| Some(bits | bit?))
}

fn hexadecimal(word: &str) -> Option<u16> {
    u16::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_read_in_both_forms() {
        assert_eq!(list_of_bits("0 0 0 1 0 0 0 1"), Some(0x88));
        assert_eq!(list_of_bits("0,0,0,1,0,0,0,0"), Some(8));
        assert_eq!(list_of_bits("0 0 0"), None);
        assert_eq!(list_of_bits("0 0 0 2 0 0 0 0"), None);
        assert_eq!(priorities(Path::new("/nowhere")), None);
    }

    #[test]
    fn a_machine_without_rdma_has_no_devices() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Host::discover(root.path(), Network::default()), Host::default());
    }
}
