//! The devices that this process uses, opened once, and the memory that they know.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rccl_verbs::{
    AsyncEvent, Context, Gid, GidEntry, GidType, Library, Port, PortEvent, PortState, ProtectionDomain,
};

use super::error::RcError;
use super::registry::{Keys, Registration, Registry};
use crate::memory::RegionTable;

/// A port of a device, and an address of it that may be used. A port with several addresses, say of a VLAN each, has
/// several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RailChoice {
    /// The kernel's name of the device: "mlx5_0", "rxe0".
    pub device: String,
    /// Its port, from 1.
    pub port: u8,
    /// Index of the address in the port's table of GIDs.
    pub gid_index: u8,
}

/// A port that this process uses.
pub(super) struct Rail {
    pub(super) context: Context,
    pub(super) domain: ProtectionDomain,
    /// As it was when it was opened.
    pub(super) port: Port,
    /// The kernel does its work on this host's processors.
    pub(super) software: bool,
    /// What the system sets on RoCE connections by default.
    pub(super) traffic_class: u8,
    /// The port went down, or the device has failed, as its events say.
    down: AtomicBool,
    /// How often the port's table of GIDs has changed, as its events say.
    gids_changed: AtomicU32,
}

/// An address that links may use, and the port that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Place of the port in [`Rails::rails`].
    pub(super) rail: usize,
    /// As it was when the port was opened.
    pub(super) gid: GidEntry,
}

/// What a rail is, for reports: `rxe0 port 1, GID 1 ::ffff:10.7.0.1 (RoCE v2), MTU 4096`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RailDescription {
    /// The device.
    pub device: String,
    /// Its port, from 1.
    pub port: u8,
    /// Index of the address in the port's table.
    pub gid_index: u32,
    /// The address.
    pub gid: Gid,
    /// How packets are wrapped.
    pub kind: GidType,
    /// Bytes of payload in a packet; a connection uses the lesser of both ends.
    pub mtu: u32,
}

impl fmt::Display for RailDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RailDescription { device, port, gid_index, gid, kind, mtu } = self;
        write!(f, "{device} port {port}, GID {gid_index} {gid} ({kind}), MTU {mtu}")
    }
}

/// The rails of this process, and what is registered on them. One per process is enough, shared by all its links. May be
/// used from any thread.
pub struct Rails {
    pub(super) rails: Vec<Rail>,
    /// In the order in which they were chosen.
    pub(super) addresses: Vec<Address>,
    pub(super) registry: Registry,
    /// Bytes that went through slots.
    staged: AtomicU64,
}

impl Rails {
    /// Opens the ports of the chosen addresses, each once. `memory` is registered memory of the process: each of its regions is registered with the
    /// devices when a link first meets it, and stays so. `relaxed_ordering` lets devices write to registered memory in any
    /// order, which is faster on some machines; bytes are never looked at before the write that brought them is complete.
    ///
    /// Takes some milliseconds a device.
    ///
    /// # Errors
    /// [`RcError::Options`] for no choice or more than 8 ports; [`RcError::Verbs`] if there is no such device, or it cannot be
    /// opened; [`RcError::Rail`] if the port is not active or the GID index is empty.
    pub fn open(
        library: &Library,
        choice: &[RailChoice],
        memory: Arc<RegionTable>,
        relaxed_ordering: bool,
    ) -> Result<Arc<Rails>, RcError> {
        let (mut rails, mut addresses) = (Vec::<Rail>::new(), Vec::new());
        for choice in choice {
            let known = rails.iter().position(|rail| rail.is(choice));
            let rail = match known {
                Some(rail) => rail,
                None => {
                    rails.push(Rail::open(library, choice)?);
                    rails.len() - 1
                }
            };
            addresses.push(Address { rail, gid: rails[rail].gid(choice.gid_index)? });
        }
        if rails.is_empty() || rails.len() > super::MOST_RAILS {
            let what = format!("{} ports, and may be 1 to {}", rails.len(), super::MOST_RAILS);
            return Err(RcError::Options { what });
        }
        let domains = rails.iter().map(|rail| rail.domain.clone()).collect();
        let registry = Registry::new(domains, memory, relaxed_ordering);
        Ok(Arc::new(Rails { rails, addresses, registry, staged: AtomicU64::new(0) }))
    }

    /// What each address is, in the order in which they were chosen.
    pub fn describe(&self) -> Vec<RailDescription> {
        self.addresses.iter().map(|address| self.of(address).describe(&address.gid)).collect()
    }

    /// The port of an address.
    pub(super) fn of(&self, address: &Address) -> &Rail {
        &self.rails[address.rail]
    }

    /// The descriptors of the open devices: while a forked child has copies of them, the queue pairs outlive this process.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rails.iter().flat_map(|rail| rail.context.descriptors())
    }

    /// Registers memory of the caller's, in whole pages, so that bytes go straight from and to it. The same range again
    /// is counted. Takes time in proportion to its length.
    ///
    /// # Errors
    /// [`RcError::Verbs`]: the process may not lock so much memory (says how much and how to raise the limit), or a
    /// device refuses.
    ///
    /// # Safety
    /// Until the registration is dropped the memory stays mapped, and its pages are nobody's whom it would harm that peers
    /// write to them: peers are told the key of what they are granted, and it opens all of the range's pages. No message
    /// that uses the memory is under way when it is dropped.
    pub unsafe fn register(self: &Arc<Rails>, address: *mut u8, len: usize) -> Result<Registration, RcError> {
        // SAFETY: passed on.
        unsafe { Registration::new(self, address, len) }
    }

    /// Bytes that went through slots or other memory of links, counted at both ends, since the rails were opened: 0 shows
    /// that everything went straight from user memory to user memory. Eager messages are not counted.
    pub fn staged_bytes(&self) -> u64 {
        self.staged.load(Ordering::Relaxed)
    }

    pub(super) fn count_staged(&self, bytes: usize) {
        self.staged.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The keys of memory that is registered on all rails, or that belongs to a region and can be.
    pub(super) fn find(&self, pointer: *const u8, len: usize) -> Option<Keys> {
        self.registry.find(pointer, len)
    }
}

impl fmt::Debug for Rails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rails").field(&self.describe()).finish()
    }
}

impl Rail {
    fn open(library: &Library, choice: &RailChoice) -> Result<Rail, RcError> {
        let refused = |what: String| RcError::Rail { device: choice.device.clone(), port: choice.port, what };
        let context = library.device(&choice.device)?.open()?;
        let port = context.port(choice.port)?;
        check_active(&port).map_err(refused)?;
        let traffic_class = default_traffic_class(&choice.device, choice.port);
        let domain = context.protection_domain()?;
        // Only a device in software has no parent on a bus.
        let software =
            !std::path::Path::new("/sys/class/infiniband").join(&choice.device).join("device").exists();
        Ok(Rail {
            context,
            domain,
            port,
            software,
            traffic_class,
            down: AtomicBool::new(false),
            gids_changed: AtomicU32::new(0),
        })
    }

    fn is(&self, choice: &RailChoice) -> bool {
        self.context.name() == choice.device && self.port.number == choice.port
    }

    /// The address at a place of the port's table.
    fn gid(&self, index: u8) -> Result<GidEntry, RcError> {
        let mut gids = self.context.gids(self.port.number)?;
        let Some(found) = gids.iter().position(|entry| entry.index == u32::from(index)) else {
            let filled: Vec<String> = gids.iter().map(|gid| format!("{} {}", gid.index, gid.gid)).collect();
            return Err(
                self.refused(format!("GID index {index} is empty; filled are: {}", filled.join(", ")))
            );
        };
        Ok(gids.swap_remove(found))
    }

    /// Whether the device has said that the port, or all of it, does not work. One system call.
    pub(super) fn is_down(&self) -> bool {
        loop {
            let down = match self.context.next_event() {
                Ok(None) => return self.down.load(Ordering::Relaxed),
                Ok(Some(AsyncEvent::Port { port, event: PortEvent::Down })) if port == self.port.number => {
                    true
                }
                Ok(Some(AsyncEvent::Port { port, event: PortEvent::Up })) if port == self.port.number => {
                    false
                }
                Ok(Some(AsyncEvent::DeviceFailed)) | Err(_) => {
                    self.down.store(true, Ordering::Relaxed);
                    return true;
                }
                Ok(Some(AsyncEvent::Port { port, event: PortEvent::GidsChanged }))
                    if port == self.port.number =>
                {
                    self.gids_changed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok(Some(_)) => continue,
            };
            self.down.store(down, Ordering::Relaxed);
        }
    }

    /// How often the port's table of GIDs has changed, as far as [`Rail::is_down`] has taken the events.
    pub(super) fn gids_changed(&self) -> u32 {
        self.gids_changed.load(Ordering::Relaxed)
    }

    /// Where an address stands in the port's table now: it moves when addresses come and go.
    pub(super) fn gid_index(&self, gid: &GidEntry) -> Result<u8, RcError> {
        let gids = self.context.gids(self.port.number)?;
        let same = |entry: &&GidEntry| entry.gid == gid.gid && entry.kind == gid.kind;
        let found = gids.iter().find(same).and_then(|entry| u8::try_from(entry.index).ok());
        found.ok_or_else(|| {
            self.refused(format!("its address {} is gone; was it taken from the network interface?", gid.gid))
        })
    }

    /// An error if new queue pairs cannot be expected to work: the port is not active, or has lost the address.
    pub(super) fn check(&self, gid: &GidEntry) -> Result<(), RcError> {
        if self.is_down() {
            return Err(self.refused(format!("it went down: {CABLE}")));
        }
        check_active(&self.context.port(self.port.number)?).map_err(|what| self.refused(what))?;
        self.gid_index(gid).map(drop)
    }

    fn refused(&self, what: String) -> RcError {
        RcError::Rail { device: self.context.name().into(), port: self.port.number, what }
    }

    pub(super) fn describe(&self, gid: &GidEntry) -> RailDescription {
        RailDescription {
            device: self.context.name().into(),
            port: self.port.number,
            gid_index: gid.index,
            gid: gid.gid,
            kind: gid.kind,
            mtu: self.port.active_mtu.bytes(),
        }
    }
}

/// What to look for when a port does not work.
pub(super) const CABLE: &str = "is its network interface up, and the cable plugged in?";

fn check_active(port: &Port) -> Result<(), String> {
    if port.state == PortState::Active {
        return Ok(());
    }
    Err(format!("its state is {:?}, not Active: {CABLE}", port.state))
}

/// What the administrator set for RoCE connections of the port (Documentation/ABI/testing/configfs-rdma_cm), 0 if nothing.
fn default_traffic_class(device: &str, port: u8) -> u8 {
    let path = format!("/sys/kernel/config/rdma_cm/{device}/ports/{port}/default_roce_tos");
    std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
