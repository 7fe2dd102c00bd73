//! Which of this host's addresses others are told.

use crate::config::{Family, Interfaces};
use rccl_topology::{Host, Interface, Network, Prefix};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// An address of an interface that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub interface: String,
    pub ip: IpAddr,
    /// The addresses that are reached by it without a router, if that is known.
    pub subnet: Option<Prefix>,
    /// The interface leads to no other host, as far as can be seen: it has no carrier, or is a bridge to containers and
    /// virtual machines.
    pub dead_end: bool,
}

/// Which addresses may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Interfaces by name; `None`: everything but loopback, dead ends and the bridges of container and machine managers, as
    /// long as there is something else.
    pub interfaces: Option<Interfaces>,
    /// Only this family of IP; `None`: both.
    pub family: Option<Family>,
}

/// Bridges that look the same on every host and lead nowhere.
const LOCAL_BRIDGES: [&str; 4] = ["docker", "virbr", "lxcbr", "cni"];

impl Choice {
    /// The addresses of `all` that others may be told, in the order of the interfaces, IPv4 first within one.
    /// Link-local ones are left out unless their interface was asked for and has no other.
    pub(crate) fn select(&self, all: &[Address]) -> Vec<IpAddr> {
        let family = |address: &&Address| match self.family {
            Some(Family::V4) => address.ip.is_ipv4(),
            Some(Family::V6) => address.ip.is_ipv6(),
            None => true,
        };
        let mut named: Vec<&Address> =
            all.iter().filter(family).filter(|address| self.allows(&address.interface)).collect();
        named.sort_by_key(|address| (is_link_local(address.ip), address.ip.is_loopback()));
        let good: Vec<IpAddr> = named
            .iter()
            .filter(|address| !is_link_local(address.ip) && !address.ip.is_loopback())
            .filter(|address| {
                let local = LOCAL_BRIDGES.iter().any(|bridge| address.interface.starts_with(bridge));
                self.interfaces.is_some() || !(local || address.dead_end)
            })
            .map(|address| address.ip)
            .collect();
        if !good.is_empty() {
            return good;
        }
        // Nothing better: bridges, then loopback; link-local only when the interface was named.
        named
            .iter()
            .filter(|address| !is_link_local(address.ip) || self.interfaces.is_some())
            .map(|address| address.ip)
            .collect()
    }

    fn allows(&self, interface: &str) -> bool {
        self.interfaces.as_ref().is_none_or(|interfaces| interfaces.allows(interface))
    }
}

/// `169.254.0.0/16` and `fe80::/10`: they lead to nobody without naming an interface.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// All addresses of the interfaces that are up.
///
/// # Errors
/// The system's, for instance when no descriptor is left.
pub(crate) fn addresses() -> io::Result<Vec<Address>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the function stores a list in `first` when it succeeds, and touches nothing else.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: `next` is an entry of the list that getifaddrs made and that is freed only below.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_flags & libc::IFF_UP as u32 == 0 {
            continue;
        }
        // SAFETY: not null, and every socket address begins with its family.
        let family = i32::from(unsafe { (*entry.ifa_addr).sa_family });
        let ip_of = |address: *const libc::sockaddr| match family {
            _ if address.is_null() => None,
            libc::AF_INET => {
                // SAFETY: not null, and the entry's family says that its addresses are IPv4 socket addresses.
                let address = unsafe { &*address.cast::<libc::sockaddr_in>() };
                Some(IpAddr::V4(Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes())))
            }
            libc::AF_INET6 => {
                // SAFETY: not null, and the entry's family says that its addresses are IPv6 socket addresses.
                let address = unsafe { &*address.cast::<libc::sockaddr_in6>() };
                Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
            }
            _ => None,
        };
        let Some(ip) = ip_of(entry.ifa_addr) else { continue };
        let subnet = ip_of(entry.ifa_netmask).and_then(|mask| Prefix::new(ip, ones(mask)));
        // SAFETY: every entry has a name that ends with a zero byte and lives as long as the list.
        let interface = unsafe { std::ffi::CStr::from_ptr(entry.ifa_name) };
        let interface = interface.to_string_lossy().into_owned();
        let dead_end = entry.ifa_flags & libc::IFF_RUNNING as u32 == 0;
        found.push(Address { interface, ip, subnet, dead_end });
    }
    // SAFETY: the list came from getifaddrs, is freed once, and nothing points into it any more.
    unsafe { libc::freeifaddrs(first) };
    mark_bridges(&mut found);
    Ok(found)
}

/// Bits that are set in a mask, which are its first.
fn ones(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(mask) => mask.to_bits().count_ones(),
        IpAddr::V6(mask) => mask.to_bits().count_ones(),
    };
    ones as u8 // at most 128
}

/// Marks the addresses of bridges that lead to containers and virtual machines only.
fn mark_bridges(found: &mut [Address]) {
    let root = Path::new("/");
    let is_bridge =
        |address: &&mut Address| root.join("sys/class/net").join(&address.interface).join("bridge").exists();
    let mut bridges = found.iter_mut().filter(is_bridge).peekable();
    // Most hosts of a cluster have none, and need not read about all their interfaces.
    if bridges.peek().is_some() {
        let network = Network::of_this_host().unwrap_or_default();
        let host = Host { interfaces: Interface::all(root, &network), ..Host::default() };
        bridges.for_each(|address| address.dead_end |= host.stays_inside(&address.interface));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn host() -> Vec<Address> {
        [
            ("lo", "127.0.0.1"),
            ("lo", "::1"),
            ("docker0", "172.17.0.1"),
            ("br-c0ffee", "172.18.0.1"),
            ("eth0", "10.0.0.3"),
            ("eth0", "fe80::1"),
            ("eth0", "2001:db8::3"),
            ("ib0", "192.168.5.3"),
        ]
        .into_iter()
        .map(|(interface, ip)| Address {
            interface: interface.into(),
            ip: ip.parse().unwrap(),
            subnet: None,
            dead_end: interface.starts_with("br-"),
        })
        .collect()
    }

    fn select(interfaces: &str, family: Option<Family>) -> Vec<String> {
        let mut config = Config::default();
        if !interfaces.is_empty() {
            config.set("RCCL_SOCKET_IFNAME", interfaces).unwrap();
        }
        let choice = Choice { interfaces: config.socket_ifname, family };
        choice.select(&host()).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn interfaces_are_chosen_as_nccl_users_write_them() {
        assert_eq!(select("", None), ["10.0.0.3", "2001:db8::3", "192.168.5.3"]);
        assert_eq!(select("", Some(Family::V6)), ["2001:db8::3"]);
        assert_eq!(select("ib", None), ["192.168.5.3"]);
        assert_eq!(select("=eth0", Some(Family::V4)), ["10.0.0.3"]);
        assert_eq!(select("^docker,br-,lo,eth", None), ["192.168.5.3"]);
        assert_eq!(select("^=ib0", Some(Family::V4)), ["172.17.0.1", "172.18.0.1", "10.0.0.3"]);
        assert_eq!(select("br-", None), ["172.18.0.1"]);
        assert_eq!(select("lo", None), ["127.0.0.1", "::1"]);
        assert_eq!(select("=eth", None), [""; 0]);
    }

    #[test]
    fn a_host_without_network_still_has_loopback() {
        let choice = Choice::default();
        let alone: Vec<_> = host().into_iter().filter(|address| address.interface == "lo").collect();
        assert_eq!(choice.select(&alone), ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        let dead: Vec<_> = host().into_iter().filter(|address| address.dead_end).collect();
        assert_eq!(choice.select(&dead), ["172.18.0.1".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn the_loopback_reaches_its_subnet() {
        let all = addresses().unwrap();
        let loopback = all.iter().find(|address| address.ip == IpAddr::from([127, 0, 0, 1])).unwrap();
        assert!(loopback.subnet.unwrap().contains([127, 7, 7, 7].into()) && !loopback.dead_end);
    }
}
