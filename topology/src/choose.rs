//! Which ports and addresses of a host are used.
//!
//! Of each port that may be used and is active, the addresses that others can reach are taken, best first: RoCE v2
//! before v1, IPv4 before global IPv6 before unique local IPv6, lower indices first. Link-local addresses are never
//! taken, on InfiniBand excepted, where all addresses look so and packets find their way by LID. Which of a port's
//! addresses a connection uses is decided per pair of hosts ([`pair`](crate::pair())).

use crate::device_list::DeviceList;
use crate::gid::{Gid, GidKind, Scope};
use crate::host::{Device, GidEntry, Host, LinkLayer, NodeKind, Port, PortState, natural_order, roce_mtu};
use crate::prefix::Prefix;
use crate::reason::Reason;
use crate::wishes::Wishes;

/// What [`choose`] decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// What is used, in the order of rails.
    pub rails: Vec<Rail>,
    /// What is not, and why; devices and ports in the same order, then their addresses by index.
    pub rejected: Vec<Rejected>,
    /// Words of `RCCL_IB_HCA` that no device has.
    pub unmatched: Vec<String>,
}

/// A port that is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Rail {
    /// Its number among the ports of this host that the user allows, whether they are usable now or not. So a port
    /// keeps its number when another goes down, and equal hosts number equally.
    pub number: u16,
    /// The device's name.
    pub device: String,
    /// The port's number, from 1.
    pub port: u8,
    /// What its packets travel in.
    pub link_layer: LinkLayer,
    /// InfiniBand: its local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Gbit/s.
    pub rate: Option<f64>,
    /// NUMA node of the device.
    pub numa_node: Option<u32>,
    /// Its usable addresses, the best first; at least one.
    pub addresses: Vec<RailAddress>,
    /// The traffic class for all its queue pairs, and who says so.
    pub traffic_class: TrafficClass,
}

/// An address of a rail.
#[derive(Clone, Debug, PartialEq)]
pub struct RailAddress {
    /// Where it stands in the port's GID table.
    pub index: u8,
    /// The address.
    pub gid: Gid,
    /// How packets are wrapped.
    pub kind: GidKind,
    /// The network interface that has it.
    pub interface: Option<String>,
    /// The subnet that it is in.
    pub subnet: Option<Prefix>,
    /// Other destinations that are routed through its interface; at most 16, the narrowest first.
    pub reaches: Vec<Prefix>,
    /// Payload of a packet, as the interface's MTU allows; the port's own `active_mtu` (ibv_query_port(3)) is what
    /// counts, and absent here.
    pub mtu: Option<u32>,
}

/// A traffic class, and who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficClass {
    /// Nobody: 0.
    Unset,
    /// `RCCL_IB_TC`.
    Wished(u8),
    /// The administrator, by the driver's `tc/<port>/traffic_class`.
    Forced(u8),
    /// The administrator, by `default_roce_tos` of rdma_cm in configfs.
    ConnectionManager(u8),
}

impl TrafficClass {
    /// The class: DSCP in the upper 6 bits, ECN in the lower 2.
    pub fn value(self) -> u8 {
        match self {
            TrafficClass::Unset => 0,
            TrafficClass::Wished(class)
            | TrafficClass::Forced(class)
            | TrafficClass::ConnectionManager(class) => class,
        }
    }
}

/// Something that is not used.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejected {
    /// The device.
    pub device: String,
    /// The port; absent where the whole device is meant.
    pub port: Option<u8>,
    /// Index and address; absent where the whole port is meant.
    pub gid: Option<(u16, Gid)>,
    /// Why.
    pub reason: Reason,
}

/// Addresses of a port that others are told of: enough for some VLANs, and little enough to be told to every peer.
const MOST_ADDRESSES: usize = 8;

/// Decides which ports and addresses of a host are used. The order of the host's lists does not matter.
pub fn choose(host: &Host, wishes: &Wishes) -> Choice {
    let mut devices: Vec<&Device> = host.devices.iter().collect();
    devices.sort_by(|one, other| natural_order(&one.name, &other.name));
    let ports = devices.iter().flat_map(|device| {
        device.ports.iter().map(|port| (device.name.as_str(), port.number)).collect::<Vec<_>>()
    });
    let mut choice = Choice { unmatched: wishes.devices.unmatched(ports), ..Choice::default() };
    let mut number = 0;
    for device in devices {
        let reject = |port, reason| Rejected { device: device.name.clone(), port, gid: None, reason };
        if let Some(reason) = unsuitable(device, wishes) {
            choice.rejected.push(reject(None, reason));
            continue;
        }
        let mut ports: Vec<&Port> = device.ports.iter().collect();
        ports.sort_by_key(|port| port.number);
        for port in ports {
            if let Some(reason) = left_out(&wishes.devices, device, port) {
                choice.rejected.push(reject(Some(port.number), reason));
                continue;
            }
            let mut rejected = Vec::new();
            match usable(host, device, port, wishes, &mut rejected) {
                Ok(addresses) => choice.rails.push(Rail {
                    number,
                    device: device.name.clone(),
                    port: port.number,
                    link_layer: port.link_layer,
                    lid: port.lid,
                    rate: port.rate,
                    numa_node: device.numa_node,
                    addresses,
                    traffic_class: traffic_class(port, wishes),
                }),
                Err(reason) => choice.rejected.push(reject(Some(port.number), reason)),
            }
            choice.rejected.append(&mut rejected);
            number += 1;
        }
    }
    choice
}

/// Why a whole device is out of the question.
fn unsuitable(device: &Device, wishes: &Wishes) -> Option<Reason> {
    if wishes.disabled {
        Some(Reason::Disabled)
    } else if device.kind != NodeKind::ChannelAdapter {
        Some(Reason::Adapter(device.kind.clone()))
    } else if device.ports.is_empty() {
        Some(Reason::NoPorts)
    } else {
        None
    }
}

fn left_out(list: &DeviceList, device: &Device, port: &Port) -> Option<Reason> {
    (!list.allows(&device.name, port.number)).then(|| Reason::NotAskedFor(list.clone()))
}

/// The port's usable addresses, best first, or why the port is not used. What is wrong with single addresses is added
/// to `rejected`.
fn usable(
    host: &Host,
    device: &Device,
    port: &Port,
    wishes: &Wishes,
    rejected: &mut Vec<Rejected>,
) -> Result<Vec<RailAddress>, Reason> {
    if port.state != PortState::Active {
        return Err(Reason::PortState { state: port.state.clone(), physical: port.physical.clone() });
    }
    match port.link_layer {
        LinkLayer::InfiniBand if port.lid == 0 => return Err(Reason::NoLid),
        LinkLayer::Unknown => return Err(Reason::LinkLayer),
        LinkLayer::InfiniBand | LinkLayer::Ethernet => {}
    }
    let keys = &port.partition_keys;
    if !keys.is_empty() && !keys.iter().any(|key| key.index == wishes.partition) {
        return Err(Reason::NoPartition(wishes.partition));
    }
    if port.gids.is_empty() {
        return Err(Reason::NoGid);
    }
    let mut entries: Vec<&GidEntry> = port.gids.iter().collect();
    entries.sort_by_key(|entry| entry.index);
    let mut addresses = Vec::new();
    for entry in &entries {
        match judge(host, port, entry, wishes) {
            Ok(address) => addresses.push(address),
            Err(reason) => rejected.push(Rejected {
                device: device.name.clone(),
                port: Some(port.number),
                gid: Some((entry.index, entry.gid)),
                reason,
            }),
        }
    }
    if let Some(wanted) =
        wishes.gid_index.filter(|&wanted| entries.iter().all(|e| e.index != u16::from(wanted)))
    {
        return Err(Reason::EmptyIndex(wanted));
    }
    addresses.sort_by_key(|address| (address.kind != GidKind::RoceV2, address.gid.scope(), address.index));
    let surplus = addresses.split_off(addresses.len().min(MOST_ADDRESSES));
    rejected.extend(surplus.into_iter().map(|address| Rejected {
        device: device.name.clone(),
        port: Some(port.number),
        gid: Some((address.index.into(), address.gid)),
        reason: Reason::Surplus,
    }));
    rejected.sort_by_key(|rejected| rejected.gid);
    if addresses.is_empty() { Err(Reason::NoUsableGid) } else { Ok(addresses) }
}

fn judge(host: &Host, port: &Port, entry: &GidEntry, wishes: &Wishes) -> Result<RailAddress, Reason> {
    let index = u8::try_from(entry.index).map_err(|_| Reason::IndexTooLarge)?;
    let mut address = RailAddress {
        index,
        gid: entry.gid,
        kind: entry.kind,
        interface: entry.interface.clone(),
        subnet: None,
        reaches: Vec::new(),
        mtu: None,
    };
    if let Some(wanted) = wishes.gid_index.filter(|&wanted| wanted != index) {
        return Err(Reason::OtherIndex(wanted));
    }
    if port.link_layer == LinkLayer::InfiniBand {
        // The subnet prefix is fe80:: where nobody set another. Partitions and routers aside, one address will do.
        let first = port.gids.iter().map(|entry| entry.index).min();
        let wanted = first.filter(|&first| wishes.gid_index.is_none() && first != entry.index);
        return wanted.map_or(Ok(address), |first| Err(Reason::OtherIndex(first as u8)));
    }
    let ip = entry.gid.ip();
    match entry.gid.scope() {
        Scope::LinkLocal => return Err(Reason::LinkLocal),
        Scope::None => return Err(Reason::NotUnicast),
        Scope::Ipv4 | Scope::Ipv6Global | Scope::Ipv6UniqueLocal => {}
    }
    if wishes.gid_index.is_none() {
        if let Some(wanted) = wishes.roce_version.filter(|wanted| !wanted.is(entry.kind)) {
            return Err(Reason::OtherVersion { kind: entry.kind, wanted });
        }
        if let Some(wanted) = wishes.family.filter(|wanted| !wanted.has(ip)) {
            return Err(Reason::OtherFamily(wanted));
        }
        if let Some(range) = wishes.range.filter(|range| !range.contains(ip)) {
            return Err(Reason::OutOfRange(range));
        }
    }
    if let Some(name) = &entry.interface {
        let Some(interface) = host.interface(name) else {
            return Err(Reason::ForeignInterface(name.clone()));
        };
        if interface.is_down() {
            return Err(Reason::InterfaceDown(name.clone()));
        }
        address.mtu = interface.mtu.and_then(roce_mtu);
        address.subnet = host.subnet(name, ip);
        address.reaches = reaches(host, name, ip.is_ipv4(), address.subnet);
    }
    Ok(address)
}

/// Destinations beyond its own subnet that packets leave for through an interface.
fn reaches(host: &Host, interface: &str, ipv4: bool, own: Option<Prefix>) -> Vec<Prefix> {
    const MOST: usize = 16;
    let leads_there = |prefix: &Prefix| {
        let local = Gid::from(prefix.ip()).scope() == Scope::LinkLocal && prefix.length() > 0;
        prefix.ip().is_ipv4() == ipv4 && !local && Some(*prefix) != own
    };
    let routes = host.network.routes.iter().filter(|route| route.interface == interface);
    let mut reached: Vec<Prefix> = routes.map(|route| route.destination).filter(leads_there).collect();
    reached.sort_by_key(|prefix| (std::cmp::Reverse(prefix.length()), *prefix));
    reached.dedup();
    // Of many the widest are kept: they cover the most.
    reached.drain(..reached.len().saturating_sub(MOST));
    reached
}

/// The driver puts its own class on all queue pairs, so that one is told even where another is wished.
fn traffic_class(port: &Port, wishes: &Wishes) -> TrafficClass {
    let defaults = port.connection_defaults.as_ref();
    match (wishes.traffic_class, port.forced_traffic_class, defaults.and_then(|known| known.traffic_class)) {
        (_, Some(class), _) => TrafficClass::Forced(class),
        (Some(class), None, _) => TrafficClass::Wished(class),
        (None, None, Some(class)) if class != 0 => TrafficClass::ConnectionManager(class),
        _ => TrafficClass::Unset,
    }
}
