//! Which memory the devices know: address range to keys.
//!
//! Two kinds: regions of the process's [`RegionTable`], registered as a whole when a link first meets one and kept,
//! because they stay where they are; and memory of the user's, registered and counted on request, in whole pages. What a
//! device refuses to register (commonly for want of lockable memory) is remembered with one warning, and its bytes go
//! through slots.
//!
//! Links look ranges up for every message, so each keeps the last few answers ([`Known`]); taking a registration back
//! changes the registry's generation, by which they notice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rccl_verbs::{Access, LocalKey, MemoryRegion, ProtectionDomain, RemoteKey};

use super::MOST_RAILS;
use super::error::RcError;
use super::rails::Rails;
use crate::link::Place;
use crate::memory::RegionTable;

/// A registered range and its keys on each rail of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    start: usize,
    len: usize,
    pub(super) local: [LocalKey; MOST_RAILS],
    pub(super) remote: [RemoteKey; MOST_RAILS],
}

impl Keys {
    fn holds(&self, address: usize, len: usize) -> bool {
        let offset = address.wrapping_sub(self.start);
        offset < self.len && len <= self.len - offset
    }
}

pub(super) struct Registry {
    domains: Vec<ProtectionDomain>,
    memory: Arc<RegionTable>,
    access: Access,
    /// Changes when a range is no longer what it was.
    generation: AtomicU64,
    ranges: RwLock<Ranges>,
}

#[derive(Default)]
struct Ranges {
    /// By start.
    all: Vec<Range>,
    /// No range is longer.
    longest: usize,
}

struct Range {
    keys: Keys,
    holders: usize,
    /// By rail; empty if a device has refused.
    regions: Vec<MemoryRegion>,
}

impl Registry {
    pub(super) fn new(
        domains: Vec<ProtectionDomain>,
        memory: Arc<RegionTable>,
        relaxed_ordering: bool,
    ) -> Registry {
        let access = Access { relaxed_ordering, ..Access::REMOTE_WRITE };
        let ranges = RwLock::default();
        Registry { domains, memory, access, generation: AtomicU64::new(0), ranges }
    }

    pub(super) fn find(&self, pointer: *const u8, len: usize) -> Option<Keys> {
        let found = self.ranges.read().unwrap_or_else(PoisonError::into_inner).find(pointer.addr(), len);
        match found {
            Some(found) => found,
            None => self.meet(pointer, len),
        }
    }

    /// Where a place in a region begins in this process; `None` for plain memory.
    pub(super) fn address(&self, place: Place) -> Option<*const u8> {
        let region = self.memory.address(place.region()?)?;
        Some(region.wrapping_add(place.offset() as usize).cast_const())
    }

    /// Registers the region that the bytes lie in, if they do.
    #[cold]
    fn meet(&self, pointer: *const u8, len: usize) -> Option<Keys> {
        let (start, whole) = self.memory.span(self.memory.lookup(pointer, len)?)?;
        // Nobody else registers meanwhile, so a region is not met twice.
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = ranges.find(pointer.addr(), len) {
            return found;
        }
        // SAFETY: regions stay mapped as long as the table, which this registry holds; they are memory that peers may
        // write by its nature.
        let registered = unsafe { self.register(start, whole) };
        let (keys, regions) = match registered {
            Ok(registered) => registered,
            Err(error) => {
                tracing::warn!("{error}; messages from and to this memory are copied through slots");
                (self.keys(start, whole, &[]), Vec::new())
            }
        };
        ranges.insert(Range { keys, holders: 1, regions });
        ranges.find(pointer.addr(), len)?
    }

    /// # Safety
    /// As for [`Rails::register`].
    unsafe fn register(&self, start: *mut u8, len: usize) -> Result<(Keys, Vec<MemoryRegion>), RcError> {
        let mut regions = Vec::with_capacity(self.domains.len());
        for domain in &self.domains {
            // SAFETY: passed on.
            regions.push(unsafe { domain.register(start, len, self.access) }?);
        }
        Ok((self.keys(start, len, &regions), regions))
    }

    fn keys(&self, start: *mut u8, len: usize, regions: &[MemoryRegion]) -> Keys {
        let mut keys = Keys {
            start: start.addr(),
            len,
            local: [LocalKey(0); MOST_RAILS],
            remote: [RemoteKey(0); MOST_RAILS],
        };
        for (rail, region) in regions.iter().enumerate() {
            (keys.local[rail], keys.remote[rail]) = (region.local_key(), region.remote_key());
        }
        keys
    }
}

impl Ranges {
    /// `None`: nothing is known of these bytes; `Some(None)`: they could not be registered.
    fn find(&self, address: usize, len: usize) -> Option<Option<Keys>> {
        let after = self.all.partition_point(|range| range.keys.start <= address);
        let near = self.all[..after].iter().rev();
        let near = near.take_while(|range| address - range.keys.start < self.longest);
        let mut found = None;
        for range in near.filter(|range| range.keys.holds(address, len)) {
            if !range.regions.is_empty() {
                return Some(Some(range.keys));
            }
            found = Some(None);
        }
        found
    }

    fn insert(&mut self, range: Range) {
        self.longest = self.longest.max(range.keys.len);
        let at = self.all.partition_point(|other| other.keys.start < range.keys.start);
        self.all.insert(at, range);
    }

    fn position(&self, start: usize, len: usize) -> Option<usize> {
        self.all.iter().position(|range| (range.keys.start, range.keys.len) == (start, len))
    }
}

/// Memory of the user's that stays registered until this is dropped; see [`Rails::register`].
#[must_use = "the memory is registered as long as this value lives"]
pub struct Registration {
    rails: Arc<Rails>,
    start: usize,
    len: usize,
}

impl Registration {
    /// # Safety
    /// As for [`Rails::register`].
    pub(super) unsafe fn new(
        rails: &Arc<Rails>,
        address: *mut u8,
        len: usize,
    ) -> Result<Registration, RcError> {
        if len == 0 {
            // No bytes lie nowhere.
            return Ok(Registration { rails: Arc::clone(rails), start: address.addr(), len });
        }
        let page = rustix::param::page_size();
        let before = address.addr() % page;
        let (first, whole) = (address.wrapping_sub(before), (before + len).next_multiple_of(page));
        let start = first.addr();
        let registry = &rails.registry;
        let mut ranges = registry.ranges.write().unwrap_or_else(PoisonError::into_inner);
        let known = ranges.position(start, whole).filter(|&at| !ranges.all[at].regions.is_empty());
        if let Some(at) = known {
            ranges.all[at].holders += 1;
        } else {
            // SAFETY: the caller vouches for the bytes; the pages that they lie in are mapped as they are.
            let (keys, regions) = unsafe { registry.register(first, whole) }?;
            ranges.insert(Range { keys, holders: 1, regions });
        }
        drop(ranges);
        Ok(Registration { rails: Arc::clone(rails), start, len: whole })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let registry = &self.rails.registry;
        let mut ranges = registry.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = ranges.position(self.start, self.len) {
            ranges.all[at].holders -= 1;
            if ranges.all[at].holders == 0 {
                ranges.all.remove(at);
                registry.generation.fetch_add(1, Ordering::Release);
            }
        }
    }
}

/// The last answers of the registry that one link got.
pub(super) struct Known {
    generation: u64,
    recent: [Option<Keys>; Known::MOST],
    oldest: usize,
}

impl Known {
    const MOST: usize = 4;

    pub(super) fn new() -> Known {
        Known { generation: 0, recent: [None; Known::MOST], oldest: 0 }
    }

    /// The keys of these bytes, if they are registered.
    pub(super) fn find(&mut self, rails: &Rails, pointer: *const u8, len: usize) -> Option<Keys> {
        let now = rails.registry.generation.load(Ordering::Acquire);
        if now != self.generation {
            *self = Known { generation: now, ..Known::new() };
        }
        let hit = self.recent.iter().flatten().find(|keys| keys.holds(pointer.addr(), len));
        if let Some(hit) = hit {
            return Some(*hit);
        }
        let keys = rails.find(pointer, len)?;
        self.recent[self.oldest] = Some(keys);
        self.oldest = (self.oldest + 1) % Known::MOST;
        Some(keys)
    }
}
