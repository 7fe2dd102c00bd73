//! The registered memory of another process, mapped here when it is first met.

use std::os::fd::{AsFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

use super::mapping::Mapping;
use super::reserve::MemoryError;

const LEAF: usize = 256;

/// What a region number of a peer stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Mapped here.
    Ready {
        /// First byte of the region, in this process.
        pointer: *mut u8,
        /// Bytes in the region.
        len: usize,
    },
    /// Asked for and not here yet.
    Pending,
    /// It cannot be had.
    Failed(String),
}

/// The regions of one other process.
///
/// Links ask with [`PeerRegions::resolve`]. The control plane takes the numbers that are missing
/// ([`PeerRegions::take_requests`]), has the owner pass the descriptors ([`RegionTable::fd`](super::RegionTable::fd)),
/// enters them ([`PeerRegions::insert`]), and then rings the [`Doorbell`](crate::shm::Doorbell) of every thread that
/// polls a link to that peer. A mapping stays until this value is dropped.
#[derive(Debug, Default)]
pub struct PeerRegions {
    /// Two levels of 256, filled on demand; what was published stays.
    leaves: Root,
    wanted: Mutex<Wanted>,
}

#[derive(Debug)]
struct Root([AtomicPtr<Leaf>; LEAF]);

#[derive(Debug)]
struct Leaf([AtomicPtr<Entry>; LEAF]);

#[derive(Debug)]
enum Entry {
    Mapped(Mapping),
    Failed(String),
}

#[derive(Debug, Default)]
struct Wanted {
    /// Not yet taken by the control plane.
    requests: Vec<u16>,
    /// Taken, and not yet answered.
    asked: Vec<u16>,
}

impl Default for Root {
    fn default() -> Root {
        Root([const { AtomicPtr::new(ptr::null_mut()) }; LEAF])
    }
}

impl PeerRegions {
    /// Nothing is mapped yet.
    pub fn new() -> PeerRegions {
        PeerRegions::default()
    }

    /// What region `number` is here; asks for it if it was never met. Two loads when it is mapped.
    #[inline]
    pub fn resolve(&self, number: u16) -> Resolved {
        match self.entry(number) {
            Some(Entry::Mapped(mapping)) => {
                Resolved::Ready { pointer: mapping.pointer().as_ptr(), len: mapping.len() }
            }
            Some(Entry::Failed(reason)) => Resolved::Failed(reason.clone()),
            None => self.ask(number),
        }
    }

    #[inline]
    fn entry(&self, number: u16) -> Option<&Entry> {
        let [leaf, index] = number.to_be_bytes().map(usize::from);
        let leaf = self.leaves.0[leaf].load(Ordering::Acquire);
        // SAFETY: null, or a leaf that was published whole and is freed only in `drop`.
        let leaf = unsafe { leaf.as_ref() }?;
        let entry = leaf.0[index].load(Ordering::Acquire);
        // SAFETY: null, or an entry that was published whole and is freed only in `drop`.
        unsafe { entry.as_ref() }
    }

    #[cold]
    fn ask(&self, number: u16) -> Resolved {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !wanted.requests.contains(&number) && !wanted.asked.contains(&number) {
            wanted.requests.push(number);
        }
        Resolved::Pending
    }

    /// The numbers that links have asked for since the last time. Each is told once.
    pub fn take_requests(&self) -> Vec<u16> {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = std::mem::take(&mut wanted.requests);
        wanted.asked.extend(&requests);
        requests
    }

    /// Maps region `number` of `len` bytes. What was entered first for a number stays.
    ///
    /// # Errors
    /// [`MemoryError::BadRegion`] if the descriptor is shorter than `len` or may still shrink, [`MemoryError::Refused`]
    /// if it cannot be mapped. Links that ask for the number get the same text from then on.
    pub fn insert(&self, number: u16, descriptor: OwnedFd, len: usize) -> Result<(), MemoryError> {
        match map(number, &descriptor, len) {
            Ok(mapping) => {
                self.publish(number, Entry::Mapped(mapping));
                Ok(())
            }
            Err(error) => {
                self.fail(number, error.to_string());
                Err(error)
            }
        }
    }

    /// The owner has no such region or cannot pass it: links that ask for it get `reason`.
    pub fn fail(&self, number: u16, reason: String) {
        self.publish(number, Entry::Failed(reason));
    }

    fn publish(&self, number: u16, entry: Entry) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.requests.retain(|&other| other != number);
        wanted.asked.retain(|&other| other != number);
        if self.entry(number).is_some() {
            return;
        }
        let [leaf, index] = number.to_be_bytes().map(usize::from);
        if self.leaves.0[leaf].load(Ordering::Relaxed).is_null() {
            let fresh = Leaf([const { AtomicPtr::new(ptr::null_mut()) }; LEAF]);
            self.leaves.0[leaf].store(Box::into_raw(Box::new(fresh)), Ordering::Release);
        }
        let leaf = self.leaves.0[leaf].load(Ordering::Relaxed);
        // SAFETY: not null any more; leaves are freed only in `drop`, and only made under the lock that is held here.
        let leaf = unsafe { &*leaf };
        leaf.0[index].store(Box::into_raw(Box::new(entry)), Ordering::Release);
    }
}

fn map(number: u16, descriptor: &OwnedFd, len: usize) -> Result<Mapping, MemoryError> {
    let bad = |what: String| MemoryError::BadRegion { region: number, what };
    let io = |error: rustix::io::Errno| bad(format!("its descriptor cannot be asked for its size: {error}"));
    let size = rustix::fs::fstat(descriptor).map_err(io)?.st_size;
    if len == 0 || size < len as i64 {
        return Err(bad(format!("{len} bytes were announced, its memory has {size}")));
    }
    if !rustix::fs::fcntl_get_seals(descriptor).map_err(io)?.contains(rustix::fs::SealFlags::SHRINK) {
        return Err(bad("its memory is not sealed against shrinking".into()));
    }
    let mapping = Mapping::shared(descriptor.as_fd(), len)?;
    mapping.warm();
    Ok(mapping)
}

impl Drop for PeerRegions {
    fn drop(&mut self) {
        for leaf in &mut self.leaves.0 {
            let leaf = *leaf.get_mut();
            if leaf.is_null() {
                continue;
            }
            // SAFETY: made by `Box::into_raw` in `publish`, and nobody borrows `self` any more.
            let mut leaf = unsafe { Box::from_raw(leaf) };
            for entry in &mut leaf.0 {
                let entry = *entry.get_mut();
                if !entry.is_null() {
                    // SAFETY: as above.
                    drop(unsafe { Box::from_raw(entry) });
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::RegionTable;

    #[test]
    fn a_region_is_asked_for_once_and_then_shared() {
        let table = RegionTable::new();
        let region = table.alloc(5000).unwrap();
        let peers = PeerRegions::new();
        let number = region.number();
        assert_eq!(peers.resolve(number), Resolved::Pending);
        assert_eq!(peers.resolve(number), Resolved::Pending);
        assert_eq!(peers.take_requests(), [number]);
        assert_eq!(peers.resolve(number), Resolved::Pending);
        assert!(peers.take_requests().is_empty());
        let (descriptor, len) = table.fd(number).unwrap();
        peers.insert(number, descriptor, len).unwrap();
        let Resolved::Ready { pointer, len } = peers.resolve(number) else { panic!("not mapped") };
        assert!(len >= 5000 && pointer != region.as_ptr());
        // SAFETY: the region has 5000 bytes and nobody else uses it.
        unsafe { region.as_ptr().wrapping_add(4999).write(42) };
        // SAFETY: the mapping has `len` bytes, at least 5000.
        assert_eq!(unsafe { pointer.wrapping_add(4999).read() }, 42);
    }

    #[test]
    fn what_cannot_be_mapped_says_why_from_then_on() {
        let peers = PeerRegions::new();
        let table = RegionTable::new();
        let region = table.alloc(4096).unwrap();
        let (descriptor, _) = table.fd(region.number()).unwrap();
        let error = peers.insert(9, descriptor, 1 << 20).unwrap_err().to_string();
        assert!(error.contains("region 9") && error.contains("4096"), "{error}");
        assert_eq!(peers.resolve(9), Resolved::Failed(error));
        peers.fail(65534, "its owner is gone".into());
        assert_eq!(peers.resolve(65534), Resolved::Failed("its owner is gone".into()));
    }
}
