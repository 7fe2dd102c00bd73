//! What other hosts are told of a rail.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::choose::{Choice, Rail, RailAddress};
use crate::gid::{Gid, GidKind};
use crate::prefix::Prefix;

/// One address of one rail, for the peers. A rail with several addresses has several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advert {
    /// [`Rail::number`].
    pub rail: u16,
    /// The device's name, for messages.
    pub device: String,
    /// The port's number, from 1.
    pub port: u8,
    /// Index in the port's GID table; of use to its own host only.
    pub index: u8,
    /// The address.
    pub gid: Gid,
    /// How packets are wrapped.
    pub kind: GidKind,
    /// InfiniBand: the port's local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Payload of a packet in bytes: what the port can do now. [`Choice::adverts`] takes it from the network interface;
    /// who has asked the port puts that in its place. `None` if unknown.
    pub mtu: Option<u32>,
    /// The subnet that the address is in.
    pub subnet: Option<Prefix>,
    /// Other destinations that are routed through its interface.
    pub reaches: Vec<Prefix>,
}

impl Choice {
    /// All addresses of all rails, by rail, the best of each first.
    pub fn adverts(&self) -> Vec<Advert> {
        let of_rail =
            |rail: &Rail| rail.addresses.iter().map(|address| Advert::new(rail, address)).collect::<Vec<_>>();
        self.rails.iter().flat_map(of_rail).collect()
    }
}

impl Advert {
    fn new(rail: &Rail, address: &RailAddress) -> Advert {
        Advert {
            rail: rail.number,
            device: rail.device.clone(),
            port: rail.port,
            index: address.index,
            gid: address.gid,
            kind: address.kind,
            lid: rail.lid,
            mtu: address.mtu,
            subnet: address.subnet,
            reaches: address.reaches.clone(),
        }
    }

    /// Whether an address is on this one's link.
    pub(crate) fn shares_link_with(&self, ip: IpAddr) -> bool {
        self.subnet.is_some_and(|subnet| subnet.contains(ip))
    }

    /// Whether packets to an address leave through this one's interface.
    pub(crate) fn reaches(&self, ip: IpAddr) -> bool {
        self.shares_link_with(ip) || self.reaches.iter().any(|prefix| prefix.contains(ip))
    }

    /// Whether anything is known of where its packets can go.
    pub(crate) fn knows_ways(&self) -> bool {
        self.subnet.is_some() || !self.reaches.is_empty()
    }
}

/// `mlx5_0 port 1, 10.7.0.1/24 (RoCE v2, GID 3)`
impl fmt::Display for Advert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}, {}", self.device, self.port, self.gid)?;
        if let Some(subnet) = self.subnet {
            write!(f, "/{}", subnet.length())?;
        }
        write!(f, " ({}, GID {})", self.kind, self.index)
    }
}
