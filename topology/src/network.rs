//! Addresses, routes and kinds of the network interfaces, as the kernel tells them by netlink (rtnetlink(7)).
//!
//! sysfs has neither, and the kinds of some only. `/proc/net/route` has the main table only, and hosts with several rails have a table for each.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::prefix::Prefix;

/// Addresses, routes, kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Addresses of interfaces.
    pub addresses: Vec<Address>,
    /// Routes to other hosts, of all tables.
    pub routes: Vec<Route>,
    /// What virtual interfaces are, by their names: "veth", "macvlan", "bridge" (IFLA_INFO_KIND).
    #[serde(default)]
    pub kinds: BTreeMap<String, String>,
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
    /// Bits that it has in common with its subnet.
    pub length: u8,
}

/// Where packets to some addresses leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// To these addresses.
    pub destination: Prefix,
    /// Through this interface.
    pub interface: String,
    /// To a router there, not to the addresses themselves.
    pub gateway: bool,
}

impl Address {
    /// The subnet that it is in.
    pub fn subnet(&self) -> Option<Prefix> {
        Prefix::new(self.ip, self.length)
    }
}

/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Beyond so many a host is a router of the Internet.
const MOST_MESSAGES: usize = 1 << 16;

// Numbers of linux/rtnetlink.h, linux/netlink.h, linux/if_addr.h and linux/if_link.h.
const GET_LINK: u16 = 18;
const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const REQUEST_DUMP: u16 = 0x301;
const INET: u8 = 2;
const INET6: u8 = 10;
const UNICAST: u8 = 1;

impl Network {
    /// Asks the kernel, in this process's network namespace. Takes a millisecond for some hundred routes.
    ///
    /// # Errors
    /// The system's: no descriptor left, netlink refused by a seccomp filter, or no answer within 2 s.
    pub fn of_this_host() -> io::Result<Network> {
        let links = dump(GET_LINK)?;
        let names: Vec<(u32, String)> = links.iter().filter_map(|link| read_link(link)).collect();
        let kinds = links.iter().filter_map(|link| Some((read_link(link)?.1, read_kind(link)?))).collect();
        let addresses = dump(GET_ADDRESS)?;
        let routes = dump(GET_ROUTE)?;
        let mut network = Network {
            addresses: addresses.iter().filter_map(|message| read_address(message, &names)).collect(),
            routes: routes.iter().flat_map(|message| read_routes(message, &names)).collect(),
            kinds,
        };
        // The kernel's order is that of its tables.
        network.routes.sort_by_key(|route| std::cmp::Reverse(route.destination.length()));
        Ok(network)
    }
}

/// All messages that answer a request, without their headers, but for those beyond the limit.
fn dump(kind: u16) -> io::Result<Vec<Vec<u8>>> {
    let flags = SocketFlags::CLOEXEC;
    // NETLINK_ROUTE is protocol 0, the default.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    // nlmsghdr: length, type, flags, sequence, port; then the smallest body, of which only the family counts: any.
    let mut request = Vec::new();
    request.extend_from_slice(&20_u32.to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&u32::from(kind).to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut messages = Vec::new();
    let mut buffer = vec![0_u8; 64 << 10];
    while messages.len() < MOST_MESSAGES {
        let (length, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        if rest.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some((kind, body, after)) = next_message(rest) {
            match kind {
                DONE => return Ok(messages),
                ERROR => {
                    let code = number(body, 0).unwrap_or(0) as i32;
                    return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
                }
                _ => messages.push(body.to_vec()),
            }
            rest = after;
        }
    }
    Ok(messages)
}

/// Type and body of the first message, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = number(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let body = bytes.get(16..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or(&[])))
}

/// Types and contents of the attributes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]);
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & 0x3fff, content)) // without the flags of nesting and byte order
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

fn name(names: &[(u32, String)], index: u32) -> Option<String> {
    names.iter().find(|(known, _)| *known == index).map(|(_, name)| name.clone())
}

/// ifinfomsg: family, padding, type u16, index i32, flags, change; IFLA_IFNAME is 3.
fn read_link(message: &[u8]) -> Option<(u32, String)> {
    let (_, name) = attributes(message.get(16..)?).find(|(kind, _)| *kind == 3)?;
    Some((number(message, 4)?, string(name)?))
}

/// IFLA_LINKINFO is 18, and IFLA_INFO_KIND inside of it 1.
fn read_kind(message: &[u8]) -> Option<String> {
    let (_, info) = attributes(message.get(16..)?).find(|(kind, _)| *kind == 18)?;
    let (_, kind) = attributes(info).find(|(kind, _)| *kind == 1)?;
    string(kind)
}

/// Up to the byte 0 that ends it.
fn string(bytes: &[u8]) -> Option<String> {
    Some(String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next()?).into_owned())
}

/// ifaddrmsg: family, prefix length, flags, scope, index u32; IFA_ADDRESS is 1, IFA_LOCAL 2. On links between two
/// points IFA_ADDRESS is the other end.
fn read_address(message: &[u8], names: &[(u32, String)]) -> Option<Address> {
    let (family, length) = (*message.first()?, *message.get(1)?);
    let find = |wanted| attributes(message.get(8..)?).find(|(kind, _)| *kind == wanted);
    let (_, content) = find(2).or_else(|| find(1))?;
    Some(Address { interface: name(names, number(message, 4)?)?, ip: address(family, content)?, length })
}

/// rtmsg: family, destination length, source length, tos, table, protocol, scope, type, flags u32; RTA_DST is 1,
/// RTA_OIF 4, RTA_GATEWAY 5, RTA_MULTIPATH 9, RTA_VIA 18. Several routes where there are several ways.
fn read_routes(message: &[u8], names: &[(u32, String)]) -> Vec<Route> {
    let read = || {
        let (family, length, kind) = (*message.first()?, *message.get(1)?, *message.get(7)?);
        if kind != UNICAST {
            return None;
        }
        let (mut destination, mut ways, mut gateway) = (None, Vec::new(), false);
        for (kind, content) in attributes(message.get(12..)?) {
            match kind {
                1 => destination = address(family, content),
                4 => ways.push((number(content, 0)?, false)),
                5 | 18 => gateway = true,
                9 => ways.extend(next_hops(content)),
                _ => {}
            }
        }
        let any: IpAddr =
            if family == INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let destination = Prefix::new(destination.unwrap_or(any), length)?;
        let route = |(index, hop_gateway)| {
            Some(Route { destination, interface: name(names, index)?, gateway: gateway || hop_gateway })
        };
        Some(ways.into_iter().filter_map(route).collect())
    };
    read().unwrap_or_default()
}

/// rtnexthop: length u16, flags, hops, index i32, then attributes.
fn next_hops(mut bytes: &[u8]) -> Vec<(u32, bool)> {
    let mut hops = Vec::new();
    while let (Some(length), Some(index)) = (bytes.get(..2), number(bytes, 4)) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let Some(inside) = bytes.get(8..length) else { break };
        hops.push((index, attributes(inside).any(|(kind, _)| matches!(kind, 5 | 18))));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + content.len() as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn names() -> Vec<(u32, String)> {
        vec![(2, "eth0".into()), (3, "eth1".into())]
    }

    #[test]
    fn this_host_has_loopback_and_routes_name_interfaces() {
        let network = Network::of_this_host().unwrap();
        let loopback = |address: &Address| address.ip.is_loopback() && address.interface == "lo";
        assert!(network.addresses.iter().any(loopback), "{network:?}");
    }

    #[test]
    fn messages_are_read_as_the_headers_say() {
        let mut link = vec![0; 16];
        link[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        link.extend(attribute(3, b"eth7\0"));
        assert_eq!((read_link(&link), read_kind(&link)), (Some((7, "eth7".into())), None));
        link.extend(attribute(18 | 0x8000, &[attribute(1, b"veth\0"), attribute(2, &[0; 8])].concat()));
        assert_eq!(read_kind(&link).as_deref(), Some("veth"));

        let mut message = vec![INET, 24, 0, 0];
        message.extend_from_slice(&2_u32.to_ne_bytes());
        message.extend(attribute(1, &[10, 7, 0, 9]));
        message.extend(attribute(2, &[10, 7, 0, 1]));
        let expected = Address { interface: "eth0".into(), ip: "10.7.0.1".parse().unwrap(), length: 24 };
        assert_eq!(read_address(&message, &names()), Some(expected));

        let mut message = vec![INET, 16, 0, 0, 254, 0, 0, UNICAST, 0, 0, 0, 0];
        message.extend(attribute(1, &[10, 8, 0, 0]));
        let mut hops = Vec::new();
        for (index, gateway) in [(2_u32, true), (3, false)] {
            let inside = if gateway { attribute(5, &[10, 7, 0, 254]) } else { Vec::new() };
            hops.extend_from_slice(&(8 + inside.len() as u16).to_ne_bytes());
            hops.extend_from_slice(&[0, 0]);
            hops.extend_from_slice(&index.to_ne_bytes());
            hops.extend(inside);
        }
        message.extend(attribute(9, &hops));
        let route = |interface: &str, gateway| Route {
            destination: "10.8.0.0/16".parse().unwrap(),
            interface: interface.into(),
            gateway,
        };
        assert_eq!(read_routes(&message, &names()), [route("eth0", true), route("eth1", false)]);
        // Not a way to other hosts.
        message[7] = 2;
        assert_eq!(read_routes(&message, &names()), []);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let mut message = vec![INET, 24, 0, 0];
        message.extend_from_slice(&2_u32.to_ne_bytes());
        message.extend(attribute(2, &[10, 7, 0, 1]));
        for length in 0..message.len() {
            assert_eq!(read_address(&message[..length], &names()), None);
            assert_eq!(read_routes(&message[..length], &names()), []);
            assert_eq!(read_link(&message[..length]), None);
            assert_eq!(read_kind(&message[..length]), None);
            let _ = next_message(&message[..length]);
        }
        assert!(next_hops(&[0; 64]).is_empty());
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }
}
