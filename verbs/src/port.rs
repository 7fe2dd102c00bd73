//! A port's state and limits.

use std::fmt;

use crate::sys::{ibv_mtu, ibv_port_attr, ibv_port_state};

/// A port of a device, at the time when it was asked (ibv_query_port(3)).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Port {
    /// Its number, from 1.
    pub number: u8,
    /// Whether it can carry traffic.
    pub state: PortState,
    /// What is below it.
    pub link_layer: LinkLayer,
    /// The largest path MTU that it can be set to.
    pub max_mtu: Mtu,
    /// The path MTU that it has; for RoCE what fits into the network interface's MTU.
    pub active_mtu: Mtu,
    /// Bytes that one message may have.
    pub max_message: u32,
    /// Entries of its GID table, filled or not.
    pub gids: u32,
    /// Entries of its table of partition keys.
    pub partition_keys: u16,
    /// Its local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Data rate in Gbit/s: lanes times the rate of one. `None` if the device tells numbers that are not known here.
    pub rate: Option<f64>,
}

/// Whether a port can carry traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortState {
    /// No link; for RoCE, the network interface is down or has no carrier.
    Down,
    /// Link, waiting for a subnet manager.
    Initializing,
    /// Set up, not yet told to go.
    Armed,
    /// Ready for traffic.
    Active,
    /// Active, with a link that is recovering.
    ActiveDeferred,
    /// A number of `enum ibv_port_state` that is not known here.
    Other(u32),
}

/// What a port's packets travel in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkLayer {
    /// InfiniBand.
    InfiniBand,
    /// Ethernet: RoCE, or iWARP.
    Ethernet,
    /// Not told, or not known here.
    Other(u8),
}

/// Bytes of payload in a packet. Both ends of a connection use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mtu {
    /// 256 bytes.
    Mtu256,
    /// 512 bytes.
    Mtu512,
    /// 1,024 bytes, what fits into Ethernet's usual 1,500.
    Mtu1024,
    /// 2,048 bytes.
    Mtu2048,
    /// 4,096 bytes, which needs an interface MTU of 4,200 or more.
    Mtu4096,
}

impl Mtu {
    const ALL: [Mtu; 5] = [Mtu::Mtu256, Mtu::Mtu512, Mtu::Mtu1024, Mtu::Mtu2048, Mtu::Mtu4096];

    /// Bytes: 256 to 4,096.
    pub fn bytes(self) -> u32 {
        256 << self as u32
    }

    /// The MTU of that many bytes, if there is one.
    pub fn from_bytes(bytes: u32) -> Option<Mtu> {
        Mtu::ALL.into_iter().find(|mtu| mtu.bytes() == bytes)
    }

    /// The smallest for a number that is not known here, since every port can do that.
    pub(crate) fn from_raw(raw: ibv_mtu) -> Mtu {
        Mtu::ALL.into_iter().find(|mtu| mtu.raw() == raw).unwrap_or(Mtu::Mtu256)
    }

    pub(crate) fn raw(self) -> ibv_mtu {
        ibv_mtu(self as u32 + 1)
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

impl Port {
    pub(crate) fn new(number: u8, raw: &ibv_port_attr) -> Port {
        Port {
            number,
            state: match raw.state {
                ibv_port_state::IBV_PORT_DOWN => PortState::Down,
                ibv_port_state::IBV_PORT_INIT => PortState::Initializing,
                ibv_port_state::IBV_PORT_ARMED => PortState::Armed,
                ibv_port_state::IBV_PORT_ACTIVE => PortState::Active,
                ibv_port_state::IBV_PORT_ACTIVE_DEFER => PortState::ActiveDeferred,
                ibv_port_state(other) => PortState::Other(other),
            },
            // The header's enumeration has no name: unspecified, InfiniBand, Ethernet.
            link_layer: match raw.link_layer {
                1 => LinkLayer::InfiniBand,
                2 => LinkLayer::Ethernet,
                other => LinkLayer::Other(other),
            },
            max_mtu: Mtu::from_raw(raw.max_mtu),
            active_mtu: Mtu::from_raw(raw.active_mtu),
            max_message: raw.max_msg_sz,
            gids: raw.gid_tbl_len.try_into().unwrap_or(0),
            partition_keys: raw.pkey_tbl_len,
            lid: raw.lid,
            rate: rate(raw.active_width, raw.active_speed),
        }
    }
}

/// Gbit/s of a port (InfiniBand Architecture 1.5, PortInfo: LinkWidthActive, LinkSpeedActive and its extensions).
fn rate(width: u8, speed: u8) -> Option<f64> {
    let lanes = match width {
        1 => 1.0,
        2 => 4.0,
        4 => 8.0,
        8 => 12.0,
        16 => 2.0,
        _ => return None,
    };
    let lane = match speed {
        1 => 2.5,
        2 => 5.0,
        4 | 8 => 10.0,
        16 => 14.0625,
        32 => 25.78125,
        64 => 50.0,
        128 => 100.0,
        _ => return None,
    };
    Some(lanes * lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtus_are_the_headers() {
        assert_eq!(Mtu::Mtu1024.raw(), ibv_mtu::IBV_MTU_1024);
        for mtu in Mtu::ALL {
            assert_eq!(Mtu::from_raw(mtu.raw()), mtu);
            assert_eq!(Mtu::from_bytes(mtu.bytes()), Some(mtu));
        }
        assert_eq!(Mtu::from_raw(ibv_mtu(9)), Mtu::Mtu256);
        assert_eq!(Mtu::from_bytes(1500), None);
    }

    #[test]
    fn a_port_is_read_as_the_header_says() {
        let raw = ibv_port_attr {
            state: ibv_port_state::IBV_PORT_ACTIVE,
            max_mtu: ibv_mtu::IBV_MTU_4096,
            active_mtu: ibv_mtu::IBV_MTU_1024,
            gid_tbl_len: 1024,
            max_msg_sz: 8 << 20,
            link_layer: 2,
            active_width: 2,
            active_speed: 32,
            ..Default::default()
        };
        let port = Port::new(1, &raw);
        assert_eq!((port.state, port.link_layer), (PortState::Active, LinkLayer::Ethernet));
        assert_eq!((port.active_mtu, port.rate), (Mtu::Mtu1024, Some(103.125)));
        let odd = ibv_port_attr { state: ibv_port_state(77), active_speed: 3, ..raw };
        assert_eq!((Port::new(1, &odd).state, Port::new(1, &odd).rate), (PortState::Other(77), None));
    }
}
