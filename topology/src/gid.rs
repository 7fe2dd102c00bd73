//! Addresses of RDMA ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// An address of a port: 16 bytes. For RoCE an IPv6 address, or an IPv4 address mapped into one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "IpAddr", from = "IpAddr")]
pub struct Gid(pub [u8; 16]);

/// What packets from an address look like. Both ends must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GidKind {
    /// InfiniBand.
    InfiniBand,
    /// RoCE v1: Ethernet frames of a type of their own, which no router forwards.
    RoceV1,
    /// RoCE v2: UDP to port 4791.
    RoceV2,
}

/// How far an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// IPv4, private ranges too.
    Ipv4,
    /// IPv6 that is unique in the world: `2000::/3`.
    Ipv6Global,
    /// IPv6 that is unique in an organisation: `fc00::/7` (RFC 4193).
    Ipv6UniqueLocal,
    /// Of use on its own link only: `fe80::/10`, `169.254.0.0/16`.
    LinkLocal,
    /// Of no use between hosts: unspecified, loopback, multicast, or of a reserved range.
    None,
}

impl Gid {
    /// As an IP address; an IPv4 address that is mapped into IPv6 is that IPv4 address.
    pub fn ip(self) -> IpAddr {
        let address = Ipv6Addr::from(self.0);
        address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
    }

    /// Whether all bytes are zero, as in empty entries of a table.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }

    /// How far it leads, taken as an IP address.
    pub fn scope(self) -> Scope {
        match self.ip() {
            IpAddr::V4(ip) if ip.is_link_local() => Scope::LinkLocal,
            // 0.0.0.0/8, and from 224 on multicast, reserved and broadcast.
            IpAddr::V4(ip) if ip.is_loopback() || matches!(ip.octets()[0], 0 | 224..) => Scope::None,
            IpAddr::V4(_) => Scope::Ipv4,
            IpAddr::V6(ip) if ip.is_unicast_link_local() => Scope::LinkLocal,
            IpAddr::V6(ip) if ip.segments()[0] & 0xfe00 == 0xfc00 => Scope::Ipv6UniqueLocal,
            IpAddr::V6(ip) if ip.segments()[0] & 0xe000 == 0x2000 => Scope::Ipv6Global,
            IpAddr::V6(_) => Scope::None,
        }
    }

    /// InfiniBand: the subnet that it belongs to, its first 8 bytes.
    pub fn subnet_prefix(self) -> [u8; 8] {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        [a, b, c, d, e, f, g, h]
    }
}

impl From<IpAddr> for Gid {
    fn from(ip: IpAddr) -> Gid {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl From<Ipv4Addr> for Gid {
    fn from(ip: Ipv4Addr) -> Gid {
        ip.to_ipv6_mapped().into()
    }
}

impl From<Ipv6Addr> for Gid {
    fn from(ip: Ipv6Addr) -> Gid {
        Gid(ip.octets())
    }
}

impl From<Gid> for IpAddr {
    fn from(gid: Gid) -> IpAddr {
        gid.ip()
    }
}

/// The IP address that it is: `10.7.0.1`, `fd07::1`.
impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for GidKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            GidKind::InfiniBand => "InfiniBand",
            GidKind::RoceV1 => "RoCE v1",
            GidKind::RoceV2 => "RoCE v2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_as_far_as_their_ranges_say() {
        for (text, scope) in [
            ("10.7.0.1", Scope::Ipv4),
            ("192.168.1.1", Scope::Ipv4),
            ("169.254.3.4", Scope::LinkLocal),
            ("127.0.0.1", Scope::None),
            ("0.0.0.0", Scope::None),
            ("224.0.0.1", Scope::None),
            ("255.255.255.255", Scope::None),
            ("2001:db8::1", Scope::Ipv6Global),
            ("fd07::1", Scope::Ipv6UniqueLocal),
            ("fe80::5054:ff:fe00:1", Scope::LinkLocal),
            ("::1", Scope::None),
            ("ff02::1", Scope::None),
            ("::", Scope::None),
        ] {
            let gid = Gid::from(text.parse::<IpAddr>().unwrap());
            assert_eq!(gid.scope(), scope, "{text}");
            assert_eq!(gid.to_string(), text);
        }
        assert!(Gid([0; 16]).is_zero());
    }
}
