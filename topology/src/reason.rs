//! Why something is not used.

use std::fmt;
use std::net::IpAddr;

use crate::device_list::DeviceList;
use crate::gid::GidKind;
use crate::host::{NodeKind, PortState};
use crate::prefix::Prefix;
use crate::wishes::{Family, RoceVersion};

/// Why a device, a port or an address is not used. Printed, a sentence without its subject and full stop: "the port is
/// down".
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// `RCCL_IB_DISABLE`, or `RCCL_NET=tcp`.
    Disabled,
    /// `RCCL_IB_HCA` does not allow it.
    NotAskedFor(DeviceList),
    /// Not an adapter for InfiniBand or RoCE.
    Adapter(NodeKind),
    /// The device has no ports in sysfs.
    NoPorts,
    /// The port cannot carry traffic.
    PortState {
        /// Its state.
        state: PortState,
        /// The kernel's words for the wire.
        physical: Option<String>,
    },
    /// Neither InfiniBand nor Ethernet.
    LinkLayer,
    /// InfiniBand: no subnet manager gave it an identifier.
    NoLid,
    /// The index of the partition key is empty.
    NoPartition(u16),
    /// The GID table is empty.
    NoGid,
    /// None of the port's addresses can be used; each has its own reason.
    NoUsableGid,
    /// The index that was asked for is empty.
    EmptyIndex(u8),
    /// Another index was asked for.
    OtherIndex(u8),
    /// Beyond what a queue pair can name.
    IndexTooLarge,
    /// Leads nowhere but on its own link, and on which that is the address does not say.
    LinkLocal,
    /// Not an address of a single host that others could reach.
    NotUnicast,
    /// Another version of RoCE was asked for.
    OtherVersion {
        /// The address's.
        kind: GidKind,
        /// The one that was asked for.
        wanted: RoceVersion,
    },
    /// Another family was asked for.
    OtherFamily(Family),
    /// Outside of the range that was asked for.
    OutOfRange(Prefix),
    /// Its interface is in another network namespace.
    ForeignInterface(String),
    /// Its interface is down.
    InterfaceDown(String),
    /// The port has enough better ones.
    Surplus,
}

impl Reason {
    /// A word for programs; stable.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::Disabled => "disabled",
            Reason::NotAskedFor(_) => "not-asked-for",
            Reason::Adapter(_) => "adapter",
            Reason::NoPorts => "no-ports",
            Reason::PortState { .. } => "port-state",
            Reason::LinkLayer => "link-layer",
            Reason::NoLid => "no-lid",
            Reason::NoPartition(_) => "no-partition",
            Reason::NoGid => "no-gid",
            Reason::NoUsableGid => "no-usable-gid",
            Reason::EmptyIndex(_) => "empty-index",
            Reason::OtherIndex(_) => "other-index",
            Reason::IndexTooLarge => "index-too-large",
            Reason::LinkLocal => "link-local",
            Reason::NotUnicast => "not-unicast",
            Reason::OtherVersion { .. } => "other-version",
            Reason::OtherFamily(_) => "other-family",
            Reason::OutOfRange(_) => "out-of-range",
            Reason::ForeignInterface(_) => "foreign-interface",
            Reason::InterfaceDown(_) => "interface-down",
            Reason::Surplus => "surplus",
        }
    }

    /// Whether a setting is why, so that everything may be in order.
    pub fn is_wanted(&self) -> bool {
        matches!(
            self,
            Reason::Disabled
                | Reason::NotAskedFor(_)
                | Reason::OtherIndex(_)
                | Reason::OtherVersion { .. }
                | Reason::OtherFamily(_)
                | Reason::OutOfRange(_)
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Disabled => f.write_str("RDMA is switched off (RCCL_IB_DISABLE, RCCL_NET)"),
            Reason::NotAskedFor(list) => write!(f, "RCCL_IB_HCA={list} leaves it out"),
            Reason::Adapter(NodeKind::Iwarp) => {
                f.write_str("it is an iWARP adapter, and rccl speaks RoCE and InfiniBand")
            }
            Reason::Adapter(kind) => write!(f, "it is an {kind}, and rccl speaks RoCE and InfiniBand"),
            Reason::NoPorts => f.write_str("it shows no port in sysfs"),
            Reason::PortState { state, physical } => {
                match state {
                    PortState::Other(words) => write!(f, "the port's state is \"{words}\"")?,
                    state => write!(f, "the port is {state}")?,
                }
                match (physical, state) {
                    (Some(words), _) => write!(f, " ({words})"),
                    _ => Ok(()),
                }
            }
            Reason::LinkLayer => f.write_str("its link layer is neither InfiniBand nor Ethernet"),
            Reason::NoLid => f.write_str("no subnet manager has given the port a LID"),
            Reason::NoPartition(index) => {
                write!(f, "there is no partition key at index {index} (RCCL_IB_PKEY)")
            }
            Reason::NoGid => f.write_str(
                "its GID table is empty: its network interface has no IP address, or is switched off",
            ),
            Reason::NoUsableGid => f.write_str("none of its addresses can be used"),
            Reason::EmptyIndex(index) => {
                write!(f, "its GID table has nothing at index {index} (RCCL_IB_GID_INDEX)")
            }
            Reason::OtherIndex(index) => write!(f, "RCCL_IB_GID_INDEX={index} asks for another one"),
            Reason::IndexTooLarge => f.write_str("queue pairs can name indices up to 255 only"),
            Reason::LinkLocal => f.write_str("it is link-local, which leads to no other network"),
            Reason::NotUnicast => f.write_str("it is no address by which other hosts could reach this one"),
            Reason::OtherVersion { kind, wanted } => {
                write!(f, "it is {kind}, and RCCL_IB_ROCE_VERSION_NUM={wanted} asks for the other version")
            }
            Reason::OtherFamily(wanted) => {
                write!(f, "RCCL_IB_ADDR_FAMILY={wanted} asks for the other family")
            }
            Reason::OutOfRange(range) => write!(f, "it is outside of RCCL_IB_ADDR_RANGE={range}"),
            Reason::ForeignInterface(name) => {
                write!(f, "its interface {name} is in another network namespace than this process")
            }
            Reason::InterfaceDown(name) => write!(f, "its interface {name} is down"),
            Reason::Surplus => f.write_str("the port has enough better addresses"),
        }
    }
}

impl Family {
    pub(crate) fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv4() == (self == Family::V4)
    }
}

impl RoceVersion {
    pub(crate) fn is(self, kind: GidKind) -> bool {
        match self {
            RoceVersion::V1 => kind == GidKind::RoceV1,
            RoceVersion::V2 => kind == GidKind::RoceV2,
        }
    }
}
