//! A host, as far as RDMA goes. What could not be read is absent, never guessed.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::gid::{Gid, GidKind};
use crate::network::{Address, Network, Route};
use crate::prefix::Prefix;

/// Devices, network interfaces, addresses and routes of a host, or of the part of it that a process sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// RDMA devices, in the natural order of their names (mlx5_2 before mlx5_10).
    pub devices: Vec<Device>,
    /// Network interfaces, in the natural order of their names.
    pub interfaces: Vec<Interface>,
    /// Addresses and routes of the interfaces.
    pub network: Network,
}

/// An RDMA device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// The kernel's name: "mlx5_0".
    pub name: String,
    /// What kind of adapter.
    pub kind: NodeKind,
    /// Version of its firmware.
    pub firmware: Option<String>,
    /// The maker's name of the board: "MT_0000000359".
    pub board: Option<String>,
    /// The kernel's driver of the PCI device: "mlx5_core". Software devices have none.
    pub driver: Option<String>,
    /// PCI address: "0000:3b:00.0". Software devices have none.
    pub pci: Option<String>,
    /// NUMA node that it hangs on.
    pub numa_node: Option<u32>,
    /// Its ports, in order.
    pub ports: Vec<Port>,
}

/// What kind of adapter a device is (node_type in sysfs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// InfiniBand or RoCE, soft-RoCE too: "1: CA".
    ChannelAdapter,
    /// RDMA over TCP: "4: RNIC".
    Iwarp,
    /// Another; the kernel's words.
    Other(String),
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeKind::ChannelAdapter => f.write_str("channel adapter"),
            NodeKind::Iwarp => f.write_str("iWARP adapter"),
            NodeKind::Other(words) => write!(f, "adapter of type \"{words}\""),
        }
    }
}

/// A port of a device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Its number, from 1.
    pub number: u8,
    /// Whether it can carry traffic.
    pub state: PortState,
    /// The kernel's words for the state of the wire: "LinkUp", "Disabled", "Polling".
    pub physical: Option<String>,
    /// What its packets travel in.
    pub link_layer: LinkLayer,
    /// Gbit/s.
    pub rate: Option<f64>,
    /// Its local identifier on InfiniBand; 0 on Ethernet.
    pub lid: u16,
    /// Filled entries of its GID table, by index. Entries that cannot be read are left out.
    pub gids: Vec<GidEntry>,
    /// Its partition keys, by index; those that are 0 are left out.
    pub partition_keys: Vec<PartitionKey>,
    /// What the kernel's connection manager uses for this port; absent where nobody made its directory in configfs.
    pub connection_defaults: Option<ConnectionDefaults>,
    /// The traffic class that mlx5's own drivers put on all queue pairs of the port, whatever those ask for.
    pub forced_traffic_class: Option<u8>,
    /// The device's counters (hw_counters), by name.
    pub counters: BTreeMap<String, u64>,
}

/// Whether a port can carry traffic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortState {
    /// It can.
    Active,
    /// No link.
    Down,
    /// InfiniBand: there is a link, and the subnet manager has not set it up.
    Initializing,
    /// InfiniBand: set up, and not yet told to go.
    Armed,
    /// Another, or not readable; the kernel's words.
    Other(String),
}

impl fmt::Display for PortState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            PortState::Active => "active",
            PortState::Down => "down",
            PortState::Initializing => "initializing",
            PortState::Armed => "armed",
            PortState::Other(words) => words,
        })
    }
}

/// What a port's packets travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkLayer {
    /// InfiniBand.
    InfiniBand,
    /// Ethernet: RoCE, or iWARP.
    Ethernet,
    /// Not known.
    Unknown,
}

impl fmt::Display for LinkLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            LinkLayer::InfiniBand => "InfiniBand",
            LinkLayer::Ethernet => "Ethernet",
            LinkLayer::Unknown => "unknown link layer",
        })
    }
}

/// A filled entry of a port's GID table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GidEntry {
    /// Where it stands in the table.
    pub index: u16,
    /// The address.
    pub gid: Gid,
    /// How packets are wrapped that are sent from it.
    pub kind: GidKind,
    /// The network interface that has the address; absent on InfiniBand, and where it cannot be read.
    pub interface: Option<String>,
}

/// An entry of a port's table of partition keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionKey {
    /// Where it stands.
    pub index: u16,
    /// The key; 0xffff is the default partition with full membership.
    pub key: u16,
}

/// What the kernel's connection manager gives to connections that it makes (`rdma_cm` in configfs). Programs that make
/// their connections themselves, as rccl does, are not bound by it; it is how administrators write down what they want.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionDefaults {
    /// default_roce_mode.
    pub roce_mode: Option<GidKind>,
    /// default_roce_tos, a traffic class; 0 is the kernel's own default.
    pub traffic_class: Option<u8>,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// The kernel's name: "eth0".
    pub name: String,
    /// The kernel's number.
    pub index: Option<u32>,
    /// operstate: "up", "down", "unknown".
    pub state: Option<String>,
    /// Whether there is a carrier; absent while the interface is switched off.
    pub carrier: Option<bool>,
    /// Bytes of a packet.
    pub mtu: Option<u32>,
    /// Mbit/s.
    pub speed: Option<u32>,
    /// The bond, bridge or VRF that it belongs to.
    pub master: Option<String>,
    /// The interfaces that it rests on: a bond's members, a bridge's ports, the parent of a VLAN or macvlan.
    pub lower: Vec<String>,
    /// The number of the interface that it is linked with, if that is another number: the other end of a veth pair, a parent.
    /// It may count in another network namespace, and may there be the same as this one's, which then is not told.
    pub linked: Option<u32>,
    /// The bond's mode: "802.3ad".
    pub bond_mode: Option<String>,
    /// The bond's member that carries all, in modes with one.
    pub active_member: Option<String>,
    /// Queues for received packets, and for packets to send.
    pub queues: Option<(u32, u32)>,
    /// What a virtual one is: "vlan", "bond", "bridge", "veth", "macvlan", "tun". By netlink, else by DEVTYPE of its uevent,
    /// which veths and macvlans lack.
    pub kind: Option<String>,
    /// Flow control and congestion marks.
    pub congestion: Congestion,
}

/// What sysfs tells of flow control and congestion marks: only mlx5 with NVIDIA's own drivers tells anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Congestion {
    /// Priorities that mark congestion for the sender (ecn/roce_np/enable): bit p for priority p.
    pub notifying: Option<u8>,
    /// Priorities that slow down when told of congestion (ecn/roce_rp/enable).
    pub reacting: Option<u8>,
    /// Priorities that are paused instead of dropped (qos/pfc).
    pub paused: Option<u8>,
    /// What priorities are taken from: "pcp" or "dscp" (qos/trust).
    pub trust: Option<String>,
}

impl Host {
    /// The interface of that name.
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The subnet that an address of an interface is in: by the length that it was given with, else by the interface's
    /// routes without a gateway. `None` if neither is known.
    pub fn subnet(&self, interface: &str, ip: IpAddr) -> Option<Prefix> {
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let own = |address: &&Address| address.interface == interface && address.ip == ip;
        let on_link =
            |route: &&Route| route.interface == interface && !route.gateway && route.destination.contains(ip);
        let by_address = self.network.addresses.iter().filter(own).filter_map(Address::subnet);
        let by_route = self.network.routes.iter().filter(on_link).map(|route| route.destination);
        let narrowest = |subnets: Vec<Prefix>| {
            let real = subnets.into_iter().filter(|subnet| (1..whole).contains(&subnet.length()));
            real.max_by_key(|subnet| subnet.length())
        };
        // An address may have been given with all its bits, while a route says what else is on its link.
        narrowest(by_address.clone().collect())
            .or_else(|| narrowest(by_route.collect()))
            .or_else(|| by_address.max_by_key(|subnet| subnet.length()))
    }
}

impl Interface {
    /// Whether it is switched off or without a carrier, as far as that is known.
    pub fn is_down(&self) -> bool {
        self.carrier == Some(false)
            || matches!(self.state.as_deref(), Some("down" | "lowerlayerdown" | "notpresent" | "dormant"))
    }
}

/// Bytes of payload that a RoCE packet may have on an interface of this MTU: 256 to 4,096 (`iboe_get_mtu` of the Linux
/// kernel, which takes 96 bytes of headers off; drivers may know better). `None` below 352.
pub fn roce_mtu(interface_mtu: u32) -> Option<u32> {
    let room = interface_mtu.checked_sub(96)?;
    [4096, 2048, 1024, 512, 256].into_iter().find(|&mtu| mtu <= room)
}

/// Orders names with numbers in them as people do: mlx5_2 before mlx5_10.
pub fn natural_order(one: &str, other: &str) -> Ordering {
    pieces(one).cmp(&pieces(other)).then_with(|| one.cmp(other))
}

/// Numbers and what is between them; numbers go by their length first, since names have no leading zeros.
fn pieces(name: &str) -> Vec<(bool, usize, &str)> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push((!digits, if digits { piece.len() } else { 0 }, piece));
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_by_their_numbers() {
        let mut names = ["mlx5_10", "rxe0", "mlx5_2", "bnxt_re0", "mlx5_bond_0", "mlx5_1"];
        names.sort_by(|one, other| natural_order(one, other));
        assert_eq!(names, ["bnxt_re0", "mlx5_1", "mlx5_2", "mlx5_10", "mlx5_bond_0", "rxe0"]);
    }

    #[test]
    fn packets_of_an_mtu_that_fits() {
        assert_eq!(roce_mtu(1500), Some(1024));
        assert_eq!(roce_mtu(4200), Some(4096));
        assert_eq!(roce_mtu(4191), Some(2048));
        assert_eq!(roce_mtu(9000), Some(4096));
        assert_eq!(roce_mtu(300), None);
        assert_eq!(roce_mtu(50), None);
    }

    #[test]
    fn a_subnet_is_known_by_address_or_route() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let route = |destination, gateway| Route {
            destination: prefix(destination),
            interface: "eth0".into(),
            gateway,
        };
        let mut host = Host::default();
        assert_eq!(host.subnet("eth0", ip("10.7.0.1")), None);
        host.network.routes = vec![route("0.0.0.0/0", true), route("10.7.0.0/24", false)];
        assert_eq!(host.subnet("eth0", ip("10.7.0.1")), Some(prefix("10.7.0.0/24")));
        assert_eq!(host.subnet("eth1", ip("10.7.0.1")), None);
        let address = |length| Address { interface: "eth0".into(), ip: ip("10.7.0.1"), length };
        host.network.addresses = vec![address(16)];
        assert_eq!(host.subnet("eth0", ip("10.7.0.1")), Some(prefix("10.7.0.0/16")));
        // An address of all bits, beside a route to its link.
        host.network.addresses = vec![address(32)];
        assert_eq!(host.subnet("eth0", ip("10.7.0.1")), Some(prefix("10.7.0.0/24")));
    }
}
