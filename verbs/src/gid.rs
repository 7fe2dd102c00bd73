//! Global identifiers: a port's addresses.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::sys::{ibv_gid, ibv_gid_entry, ibv_gid_type};

/// An address of a port: 16 bytes, for RoCE an IPv6 address or an IPv4 address mapped into one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid(pub [u8; 16]);

/// An entry of a port's table of GIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GidEntry {
    /// The address.
    pub gid: Gid,
    /// Where it stands in the port's table; queue pairs name it by this.
    pub index: u32,
    /// The port, from 1.
    pub port: u8,
    /// How packets are wrapped that are sent from it.
    pub kind: GidType,
    /// The index of the network interface that has the address (RoCE); `None` on InfiniBand.
    pub interface: Option<u32>,
}

/// How packets travel between two GIDs; both ends must have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GidType {
    /// InfiniBand.
    InfiniBand,
    /// RoCE v1: Ethernet frames, which no router forwards.
    RoceV1,
    /// RoCE v2: UDP, port 4791.
    RoceV2,
    /// Another; the number of `enum ibv_gid_type`.
    Other(u32),
}

impl Gid {
    /// As an IPv6 address, which it is or looks like.
    pub fn to_ipv6(self) -> Ipv6Addr {
        Ipv6Addr::from(self.0)
    }

    /// The IPv4 address, if one is mapped into it (`::ffff:10.7.0.1`).
    pub fn to_ipv4(self) -> Option<Ipv4Addr> {
        self.to_ipv6().to_ipv4_mapped()
    }

    /// Whether it is of `fe80::/10`: of use on its own link only.
    pub fn is_link_local(self) -> bool {
        self.to_ipv6().is_unicast_link_local()
    }

    /// Whether all bytes are zero: an empty entry.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 16]
    }

    fn from_raw(raw: ibv_gid) -> Gid {
        // SAFETY: both members of the union are 16 plain bytes.
        Gid(unsafe { raw.raw })
    }

    pub(crate) fn raw(self) -> ibv_gid {
        ibv_gid { raw: self.0 }
    }
}

impl From<Ipv6Addr> for Gid {
    fn from(address: Ipv6Addr) -> Gid {
        Gid(address.octets())
    }
}

impl From<Ipv4Addr> for Gid {
    fn from(address: Ipv4Addr) -> Gid {
        address.to_ipv6_mapped().into()
    }
}

/// As an address: `::ffff:10.7.0.1`.
impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ipv6().fmt(f)
    }
}

impl fmt::Debug for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for GidType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GidType::InfiniBand => f.write_str("InfiniBand"),
            GidType::RoceV1 => f.write_str("RoCE v1"),
            GidType::RoceV2 => f.write_str("RoCE v2"),
            GidType::Other(number) => write!(f, "type {number}"),
        }
    }
}

/// The filled entries of a port's table: in one call where the library has it (rdma-core 32), else from sysfs.
pub(crate) fn table(context: &Context, port: u8) -> Result<Vec<GidEntry>> {
    let failed = |call, source| Error::call(call, format!("{} port {port}", context.name()), source);
    let Ok(query) = &context.functions()._ibv_query_gid_table else {
        let gids = context.port(port)?.gids;
        return from_sysfs(context.sysfs(), Path::new("/sys/class/net"), port, gids)
            .map_err(|source| failed("read of the GID table in sysfs", source));
    };
    // The call answers for all ports at once, and refuses an array that is too short.
    let mut room = 0;
    for number in 1..=context.attributes()?.ports {
        room += context.port(number)?.gids as usize;
    }
    let mut entries = vec![ibv_gid_entry::default(); room];
    // SAFETY: the context is open, and the array has `room` entries of the size that is told.
    let count = unsafe { query(context.raw(), entries.as_mut_ptr(), room, 0, size_of::<ibv_gid_entry>()) };
    let Ok(count) = usize::try_from(count) else {
        let code = i32::try_from(-count).unwrap_or(libc::EIO);
        return Err(failed("ibv_query_gid_table", io::Error::from_raw_os_error(code)));
    };
    entries.truncate(count);
    Ok(entries
        .iter()
        .filter(|entry| entry.port_num == u32::from(port))
        .map(|entry| GidEntry {
            gid: Gid::from_raw(entry.gid),
            index: entry.gid_index,
            port,
            kind: match ibv_gid_type(entry.gid_type) {
                ibv_gid_type::IBV_GID_TYPE_IB => GidType::InfiniBand,
                ibv_gid_type::IBV_GID_TYPE_ROCE_V1 => GidType::RoceV1,
                ibv_gid_type::IBV_GID_TYPE_ROCE_V2 => GidType::RoceV2,
                ibv_gid_type(other) => GidType::Other(other),
            },
            interface: (entry.ndev_ifindex != 0).then_some(entry.ndev_ifindex),
        })
        .collect())
}

/// The table as the kernel shows it in files (Documentation/ABI/stable/sysfs-class-infiniband): `gids/0` has the
/// address, `gid_attrs/types/0` "IB/RoCE v1" or "RoCE v2", `gid_attrs/ndevs/0` the interface. Reading the attributes of
/// an empty entry fails.
fn from_sysfs(device: &Path, interfaces: &Path, port: u8, count: u32) -> io::Result<Vec<GidEntry>> {
    let port_directory = device.join("ports").join(port.to_string());
    let read =
        |what: String| fs::read_to_string(port_directory.join(what)).map(|text| text.trim().to_owned());
    let ethernet = read("link_layer".into())? == "Ethernet";
    let mut entries = Vec::new();
    for index in 0..count {
        let address: Ipv6Addr = read(format!("gids/{index}"))?.parse().map_err(io::Error::other)?;
        let gid = Gid::from(address);
        if gid.is_zero() {
            continue;
        }
        let Ok(kind) = read(format!("gid_attrs/types/{index}")) else { continue };
        let kind = match (kind.as_str(), ethernet) {
            ("RoCE v2", _) => GidType::RoceV2,
            ("IB/RoCE v1", true) => GidType::RoceV1,
            _ => GidType::InfiniBand,
        };
        let interface = read(format!("gid_attrs/ndevs/{index}")).ok().and_then(|name| {
            fs::read_to_string(interfaces.join(name).join("ifindex")).ok()?.trim().parse().ok()
        });
        entries.push(GidEntry { gid, index, port, kind, interface });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_apart() {
        let mapped = Gid::from(Ipv4Addr::new(10, 7, 0, 1));
        assert_eq!(mapped.to_string(), "::ffff:10.7.0.1");
        assert_eq!(mapped.to_ipv4(), Some(Ipv4Addr::new(10, 7, 0, 1)));
        assert!(!mapped.is_link_local() && !mapped.is_zero());
        let local = Gid::from("fe80::5054:ff:fe12:3456".parse::<Ipv6Addr>().unwrap());
        assert!(local.is_link_local() && local.to_ipv4().is_none());
        assert!(Gid([0; 16]).is_zero());
        assert_eq!(Gid::from_raw(local.raw()), local);
    }

    #[test]
    fn the_table_in_sysfs_is_read_without_its_empty_entries() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        };
        write("rxe0/ports/1/link_layer", "Ethernet");
        write("rxe0/ports/1/gids/0", "fe80:0000:0000:0000:5054:00ff:fe12:3456");
        write("rxe0/ports/1/gids/1", "0000:0000:0000:0000:0000:0000:0000:0000");
        write("rxe0/ports/1/gids/2", "0000:0000:0000:0000:0000:ffff:0a07:0001");
        write("rxe0/ports/1/gid_attrs/types/0", "IB/RoCE v1");
        write("rxe0/ports/1/gid_attrs/types/2", "RoCE v2");
        write("rxe0/ports/1/gid_attrs/ndevs/2", "eth0");
        write("net/eth0/ifindex", "7");
        let found = from_sysfs(&root.path().join("rxe0"), &root.path().join("net"), 1, 3).unwrap();
        let expected = [
            ("fe80::5054:ff:fe12:3456", 0, GidType::RoceV1, None),
            ("::ffff:10.7.0.1", 2, GidType::RoceV2, Some(7)),
        ];
        let seen: Vec<_> = found
            .iter()
            .map(|entry| (entry.gid.to_string(), entry.index, entry.kind, entry.interface))
            .collect();
        let seen: Vec<_> =
            seen.iter().map(|(gid, index, kind, at)| (gid.as_str(), *index, *kind, *at)).collect();
        assert_eq!(seen, expected);
        assert!(from_sysfs(root.path(), root.path(), 1, 3).is_err());
    }

    /// Where there is a device and a library that has the call.
    #[test]
    fn sysfs_and_the_library_tell_the_same() {
        let Ok(library) = crate::Library::open(None) else { return };
        for device in library.devices().unwrap_or_default() {
            let context = device.open().unwrap();
            let gids = context.port(1).unwrap().gids;
            let told = from_sysfs(context.sysfs(), Path::new("/sys/class/net"), 1, gids).unwrap();
            assert_eq!(told, context.gids(1).unwrap());
        }
    }
}
