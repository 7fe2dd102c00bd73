//! Memory that a device may read and write.

use std::alloc::{self, Layout};
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use crate::domain::ProtectionDomain;
use crate::error::{Error, Result};
use crate::memlock::LockedMemory;
use crate::sys::{ibv_access_flags, ibv_mr, ibv_sge};

/// What may be done with a region. The device may always read it for its own process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Receives may be stored here.
    pub local_write: bool,
    /// Peers may write here; brings `local_write` with it, as verbs demand.
    pub remote_write: bool,
    /// Writes may become visible in any order, save that all of a message are visible before its completion is. Faster
    /// on some machines; left out where library, kernel or device do not know it.
    pub relaxed_ordering: bool,
}

impl Access {
    /// Sends from here, and receives to here.
    pub const LOCAL: Access = Access { local_write: true, remote_write: false, relaxed_ordering: false };
    /// As [`LOCAL`](Access::LOCAL), and peers may write here.
    pub const REMOTE_WRITE: Access = Access { remote_write: true, ..Access::LOCAL };

    pub(crate) fn flags(self) -> u32 {
        let flag = |set: bool, flag: ibv_access_flags| if set { flag.0 } else { 0 };
        flag(self.local_write || self.remote_write, ibv_access_flags::IBV_ACCESS_LOCAL_WRITE)
            | flag(self.remote_write, ibv_access_flags::IBV_ACCESS_REMOTE_WRITE)
            | flag(self.relaxed_ordering, ibv_access_flags::IBV_ACCESS_RELAXED_ORDERING)
    }
}

/// The key by which this process's device knows a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalKey(pub u32);

/// The key by which a peer's device proves that it may use a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteKey(pub u32);

/// A piece of a registered region, which a request reads from or stores to. It does not keep the region alive: once
/// that is dropped, the device refuses the request ([`Status::LocalProtection`](crate::Status::LocalProtection)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    address: u64,
    length: u32,
    key: LocalKey,
}

impl Segment {
    /// A piece of a region from its key: what [`MemoryRegion::segment`] gives, for who keeps keys apart from the region.
    /// If the range does not lie in it, the device refuses the request.
    pub fn new(address: u64, length: u32, key: LocalKey) -> Segment {
        Segment { address, length, key }
    }

    /// Bytes.
    pub fn length(self) -> u32 {
        self.length
    }

    #[cfg(test)]
    pub(crate) fn for_test(address: u64, length: u32) -> Segment {
        Segment { address, length, key: LocalKey(1) }
    }

    pub(crate) fn raw(self) -> ibv_sge {
        ibv_sge { addr: self.address, length: self.length, lkey: self.key.0 }
    }
}

/// A place in a peer's registered memory, as that peer has told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteMemory {
    /// The address in the peer's process, or what it was registered as.
    pub address: u64,
    /// The key of the region that it lies in.
    pub key: RemoteKey,
}

impl RemoteMemory {
    /// The place `bytes` further.
    pub fn offset(self, bytes: u64) -> RemoteMemory {
        RemoteMemory { address: self.address.wrapping_add(bytes), ..self }
    }
}

/// Registered memory: its own ([`ProtectionDomain::allocate`]), the caller's ([`register`](ProtectionDomain::register))
/// or another device's ([`register_dmabuf`](ProtectionDomain::register_dmabuf)). Dropping it takes it from the device
/// first and frees its own memory then, so that no transfer under way can reach freed memory: it fails with a
/// protection error, at the peer with a remote access error.
///
/// The device writes here without asking: all access is through raw pointers, and what may be read when is a matter of
/// completions.
pub struct MemoryRegion {
    raw: NonNull<ibv_mr>,
    address: u64,
    length: usize,
    pages: Option<Pages>,
    domain: ProtectionDomain,
}

// SAFETY: the verbs lock by themselves (see context.rs), and the memory is reached through raw pointers only.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    pub(crate) fn allocate(domain: &ProtectionDomain, length: usize, access: Access) -> Result<MemoryRegion> {
        let pages = Pages::new(length)?;
        // SAFETY: the pages belong to the region, which frees them after it has taken them from the device, and hands
        // out raw pointers to them only.
        let mut region = unsafe { MemoryRegion::register(domain, pages.start(), pages.length(), access) }?;
        region.pages = Some(pages);
        Ok(region)
    }

    /// # Safety
    ///
    /// As for [`ProtectionDomain::register`].
    pub(crate) unsafe fn register(
        domain: &ProtectionDomain,
        address: *mut u8,
        length: usize,
        access: Access,
    ) -> Result<MemoryRegion> {
        let device = domain.context().name();
        let functions = domain.context().functions();
        if length == 0 {
            return Err(Error::argument(format!("no bytes to register on {device}")));
        }
        LockedMemory::now().check(device, address.addr(), length)?;
        let optional = ibv_access_flags::IBV_ACCESS_RELAXED_ORDERING.0;
        let flags = access.flags();
        // As the header chooses: only the newer function knows which flags may be left out where they are not known.
        let (call, raw) = match &functions.ibv_reg_mr_iova2 {
            Ok(register) if flags & optional != 0 => {
                let named = address.expose_provenance() as u64;
                // SAFETY: the domain is there, and the caller vouches for the memory.
                ("ibv_reg_mr_iova2", unsafe { register(domain.raw(), address.cast(), length, named, flags) })
            }
            _ => {
                let flags = (flags & !optional) as i32;
                // SAFETY: the domain is there, and the caller vouches for the memory.
                ("ibv_reg_mr", unsafe { functions.ibv_reg_mr(domain.raw(), address.cast(), length, flags) })
            }
        };
        let Some(raw) = NonNull::new(raw) else {
            let source = io::Error::last_os_error();
            if source.raw_os_error() == Some(libc::ENOMEM) {
                // Another thread may have taken what was left.
                LockedMemory::now().check(device, address.addr(), length)?;
            }
            return Err(Error::call(call, format!("{device}, {length} bytes"), source));
        };
        Ok(MemoryRegion {
            raw,
            address: address.expose_provenance() as u64,
            length,
            pages: None,
            domain: domain.clone(),
        })
    }

    /// # Safety
    ///
    /// As for [`ProtectionDomain::register_dmabuf`].
    pub(crate) unsafe fn register_dmabuf(
        domain: &ProtectionDomain,
        descriptor: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        address: u64,
        access: Access,
    ) -> Result<MemoryRegion> {
        let register = domain.context().functions().ibv_reg_dmabuf_mr.as_ref().map_err(Clone::clone)?;
        let flags = access.flags() as i32;
        // SAFETY: the domain is there, the descriptor open, and the caller vouches for the memory.
        let raw = unsafe { register(domain.raw(), offset, length, address, descriptor.as_raw_fd(), flags) };
        match NonNull::new(raw) {
            Some(raw) => Ok(MemoryRegion { raw, address, length, pages: None, domain: domain.clone() }),
            None => {
                let object = format!("{}, {length} bytes", domain.context().name());
                Err(Error::call("ibv_reg_dmabuf_mr", object, io::Error::last_os_error()))
            }
        }
    }

    /// Where it begins in this process; for a dma-buf the address that it was registered as, which may be no memory.
    pub fn as_ptr(&self) -> *mut u8 {
        match &self.pages {
            Some(pages) => pages.start(),
            None => std::ptr::with_exposed_provenance_mut(self.address as usize),
        }
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// A piece of it for a request.
    ///
    /// # Panics
    ///
    /// If the range does not lie in the region, or has 4 GiB or more.
    pub fn segment(&self, range: Range<usize>) -> Segment {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "bytes {range:?} of a memory region of {}",
            self.length
        );
        let length = u32::try_from(range.len()).expect("a segment has less than 4 GiB");
        Segment { address: self.address + range.start as u64, length, key: self.local_key() }
    }

    /// What a peer needs to know to write to it, from `offset` on. Only of use if [`Access::remote_write`] was given.
    ///
    /// # Panics
    ///
    /// If the offset lies behind the region's end.
    pub fn remote(&self, offset: usize) -> RemoteMemory {
        assert!(offset <= self.length, "byte {offset} of a memory region of {}", self.length);
        RemoteMemory { address: self.address + offset as u64, key: self.remote_key() }
    }

    /// Its key for this process.
    pub fn local_key(&self) -> LocalKey {
        // SAFETY: the region is registered as long as `self` lives.
        LocalKey(unsafe { self.raw.as_ref() }.lkey)
    }

    /// Its key for peers.
    pub fn remote_key(&self) -> RemoteKey {
        // SAFETY: the region is registered as long as `self` lives.
        RemoteKey(unsafe { self.raw.as_ref() }.rkey)
    }

    /// The protection domain that it belongs to.
    pub fn domain(&self) -> &ProtectionDomain {
        &self.domain
    }
}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryRegion")
            .field("address", &format_args!("{:#x}", self.address))
            .field("length", &self.length)
            .field("key", &self.local_key())
            .finish_non_exhaustive()
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        // SAFETY: the region came from one of the functions that register, and is taken off once.
        let code = unsafe { self.domain.context().functions().ibv_dereg_mr(self.raw.as_ptr()) };
        if code != 0 {
            // Nothing made here keeps a region busy. Should it happen still, the device may go on writing: the memory
            // must then never be used for anything else.
            std::mem::forget(self.pages.take());
        }
    }
}

/// Whole pages of zeroed memory. Whole, because a page that the device knows is kept out of forked children
/// ([`Library::prepare_for_fork`](crate::Library::prepare_for_fork)), with all that lies on it.
struct Pages {
    start: NonNull<u8>,
    layout: Layout,
}

impl Pages {
    fn new(length: usize) -> Result<Pages> {
        let impossible = || Error::argument(format!("{length} bytes of memory to register"));
        let page = rustix::param::page_size();
        let rounded = length.checked_next_multiple_of(page).filter(|&rounded| rounded > 0);
        let layout =
            Layout::from_size_align(rounded.ok_or_else(impossible)?, page).map_err(|_| impossible())?;
        // SAFETY: the layout has at least one page.
        let start = unsafe { alloc::alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Ok(Pages { start, layout }),
            None => Err(Error::call(
                "alloc",
                format!("{} bytes", layout.size()),
                io::ErrorKind::OutOfMemory.into(),
            )),
        }
    }

    fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn length(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_for_peers_to_write_is_access_to_write() {
        let flags = Access { remote_write: true, ..Access::default() }.flags();
        assert_eq!(flags, Access::REMOTE_WRITE.flags());
        assert_eq!(flags, 3);
        assert_eq!(Access { relaxed_ordering: true, ..Access::LOCAL }.flags(), 1 | 1 << 20);
    }

    #[test]
    fn pages_are_whole_and_zeroed() {
        let page = rustix::param::page_size();
        let pages = Pages::new(page + 1).unwrap();
        assert_eq!((pages.length(), pages.start().addr() % page), (2 * page, 0));
        // SAFETY: the memory is allocated, and nobody writes to it.
        let bytes = unsafe { std::slice::from_raw_parts(pages.start(), pages.length()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        assert!(Pages::new(0).is_err());
        assert!(Pages::new(usize::MAX).is_err());
    }

    #[test]
    fn a_remote_place_moves_by_bytes() {
        let place = RemoteMemory { address: 4096, key: RemoteKey(7) };
        assert_eq!(place.offset(16), RemoteMemory { address: 4112, key: RemoteKey(7) });
    }
}
