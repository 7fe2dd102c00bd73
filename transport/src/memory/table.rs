//! The registered memory of this process.
//!
//! Sizes are rounded up to classes, four to each power of two and at least a page, so a freed region fits many later
//! requests and at most a fifth of it is wasted. Freed regions wait in the table by class; they keep their pages, their
//! number, and their content. [`RegionTable::lookup`] stands at the head of every call, so it asks a small table of
//! recent hits first, kept by each thread: that is sound because a region stays where it is for as long as its table.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::mapping::Mapping;
use super::reserve::{MemoryError, reserved_memfd};
use crate::link::Place;

const PAGE: usize = 4096;
const MOST_REGIONS: usize = u16::MAX as usize - 1;

/// The registered regions of this process. One per process is enough, shared by all its communicators.
#[derive(Debug)]
pub struct RegionTable {
    /// Tells tables apart in the threads' recent hits; never used twice.
    identity: u64,
    regions: RwLock<Regions>,
    /// Regions that nobody holds, by class.
    free: Mutex<HashMap<usize, Vec<u16>>>,
}

#[derive(Debug, Default)]
struct Regions {
    /// By number, less one.
    all: Vec<(Mapping, OwnedFd)>,
    /// By address.
    sorted: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: usize,
    region: u16,
}

/// Registered memory that the caller holds; dropping it gives the memory back to the table.
#[derive(Debug)]
pub struct Region {
    table: Arc<RegionTable>,
    number: u16,
    pointer: NonNull<u8>,
    len: usize,
    class: usize,
}

// SAFETY: the memory belongs to the process; the handle only carries its address.
unsafe impl Send for Region {}
// SAFETY: as above; access to the bytes is the holder's affair.
unsafe impl Sync for Region {}

/// A recent hit of this thread: table, start, length, number.
type Hit = (u64, usize, usize, u16);
const RECENT: usize = 4;

thread_local! {
    static HITS: [Cell<Hit>; RECENT] = const { [const { Cell::new((0, 0, 0, 0)) }; RECENT] };
    static OLDEST: Cell<usize> = const { Cell::new(0) };
}

impl RegionTable {
    /// An empty table.
    pub fn new() -> Arc<RegionTable> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(RegionTable {
            identity: NEXT.fetch_add(1, Ordering::Relaxed),
            regions: RwLock::default(),
            free: Mutex::default(),
        })
    }

    /// Memory of `len` bytes, page-aligned, its pages reserved and faulted in. New memory is zeroed; memory that was
    /// freed before keeps what was in it. Takes as long as the kernel needs to clear the pages.
    ///
    /// # Errors
    /// [`MemoryError::Refused`] with need and limits if the pages cannot be had; [`MemoryError::Exhausted`] if no
    /// region number is left.
    pub fn alloc(self: &Arc<RegionTable>, len: usize) -> Result<Region, MemoryError> {
        let class = class_of(len).ok_or_else(|| {
            MemoryError::refused("reserving", len, std::io::Error::from(std::io::ErrorKind::OutOfMemory))
        })?;
        let kept = self.free().get_mut(&class).and_then(Vec::pop);
        let number = match kept {
            Some(number) => number,
            None => self.grow(len, class)?,
        };
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let pointer = regions.all[usize::from(number) - 1].0.pointer();
        Ok(Region { table: Arc::clone(self), number, pointer, len, class })
    }

    fn grow(&self, need: usize, class: usize) -> Result<u16, MemoryError> {
        let descriptor = reserved_memfd("rccl-region", class)?;
        let mapping = Mapping::shared(descriptor.as_fd(), class)?;
        mapping.warm();
        // A peer that maps it relies on its size.
        let seals = rustix::fs::SealFlags::SHRINK | rustix::fs::SealFlags::GROW;
        rustix::fs::fcntl_add_seals(&descriptor, seals)
            .map_err(|error| MemoryError::refused("sealing", class, error.into()))?;
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        if regions.all.len() == MOST_REGIONS {
            return Err(MemoryError::Exhausted { need });
        }
        let region = regions.all.len() as u16 + 1;
        let start = mapping.pointer().as_ptr().expose_provenance();
        let before = regions.sorted.partition_point(|span| span.start < start);
        regions.sorted.insert(before, Span { start, len: class, region });
        regions.all.push((mapping, descriptor));
        Ok(region)
    }

    /// The place of `len` bytes at `pointer` if all of them lie in one region.
    #[inline]
    pub fn lookup(&self, pointer: *const u8, len: usize) -> Option<Place> {
        let address = pointer.addr();
        let hit = HITS.with(|hits| {
            hits.iter()
                .map(Cell::get)
                .find(|&(table, start, size, _)| table == self.identity && address.wrapping_sub(start) < size)
        });
        let (_, start, size, region) = match hit {
            Some(hit) => hit,
            None => self.search(address)?,
        };
        let offset = address - start;
        (len <= size - offset).then(|| Place::in_region(region, offset as u64))
    }

    #[cold]
    fn search(&self, address: usize) -> Option<Hit> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let after = regions.sorted.partition_point(|span| span.start <= address);
        let span = *regions.sorted[..after].last()?;
        if address - span.start >= span.len {
            return None;
        }
        let hit = (self.identity, span.start, span.len, span.region);
        let oldest = OLDEST.replace((OLDEST.get() + 1) % RECENT);
        HITS.with(|hits| hits[oldest].set(hit));
        Some(hit)
    }

    /// Where region `number` begins in this process; `None` if there is no such region.
    pub fn address(&self, number: u16) -> Option<*mut u8> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let (mapping, _) = regions.all.get(usize::from(number).checked_sub(1)?)?;
        Some(mapping.pointer().as_ptr())
    }

    /// First byte and length of the region that the place lies in; `None` for plain memory, or if there is no such region.
    /// It stays mapped as long as the table lives.
    pub fn span(&self, place: Place) -> Option<(*mut u8, usize)> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let (mapping, _) = regions.all.get(usize::from(place.region()?).checked_sub(1)?)?;
        Some((mapping.pointer().as_ptr(), mapping.len()))
    }

    /// A descriptor of region `number` to be passed to a peer, and the region's length; `None` if there is no such
    /// region or no descriptor is left (`ulimit -n`).
    pub fn fd(&self, number: u16) -> Option<(OwnedFd, usize)> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let (mapping, descriptor) = regions.all.get(usize::from(number).checked_sub(1)?)?;
        Some((descriptor.try_clone().ok()?, mapping.len()))
    }

    fn free(&self) -> MutexGuard<'_, HashMap<usize, Vec<u16>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Region {
    /// First byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }
    /// Length in bytes, as asked for.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Its number, by which peers ask for it.
    pub fn number(&self) -> u16 {
        self.number
    }
    /// The place of its byte `offset`.
    pub fn place(&self, offset: usize) -> Place {
        Place::in_region(self.number, offset as u64)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.table.free().entry(self.class).or_default().push(self.number);
    }
}

/// The size class that holds `len` bytes: 4, 5, 6 or 7 eighths of a power of two, whole pages.
fn class_of(len: usize) -> Option<usize> {
    let len = len.max(PAGE);
    let step = (len.checked_next_power_of_two()? / 8).max(PAGE);
    let class = len.checked_next_multiple_of(step)?;
    (class < 1 << 47).then_some(class)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_promise_and_waste_little() {
        for len in (0..100).chain([4095, 4096, 4097, 70_000, 1 << 20, (1 << 20) + 1, 12_345_678, 1 << 40]) {
            let class = class_of(len).unwrap();
            assert!(class >= len && class.is_multiple_of(PAGE));
            assert!(class <= PAGE || class < len + len / 3 + PAGE, "{len} takes {class}");
            assert_eq!(class_of(class), Some(class));
        }
        assert_eq!(class_of(usize::MAX), None);
        assert_eq!(class_of(1 << 50), None);
    }

    #[test]
    fn lookup_finds_exactly_what_lies_inside() {
        let table = RegionTable::new();
        let regions: Vec<Region> = (0..9).map(|i| table.alloc(10_000 * (i + 1)).unwrap()).collect();
        for region in &regions {
            for offset in [0, 1, region.len() - 1] {
                let place = table.lookup(region.as_ptr().wrapping_add(offset), region.len() - offset);
                assert_eq!(place, Some(region.place(offset)));
            }
            assert_eq!(table.lookup(region.as_ptr(), 1 << 30), None, "it reaches beyond the end");
        }
        let elsewhere = [0u8; 16];
        assert_eq!(table.lookup(elsewhere.as_ptr(), 16), None);
        let other = RegionTable::new();
        assert_eq!(other.lookup(regions[0].as_ptr(), 1), None, "hits of one table count for no other");
    }

    #[test]
    fn freed_memory_is_used_again_under_its_number() {
        let table = RegionTable::new();
        let first = table.alloc(100_000).unwrap();
        let (number, pointer) = (first.number(), first.as_ptr());
        drop(first);
        let again = table.alloc(99_000).unwrap();
        assert_eq!((again.number(), again.as_ptr()), (number, pointer));
        let second = table.alloc(99_000).unwrap();
        assert_ne!(second.number(), number);
        assert_eq!(table.fd(second.number()).unwrap().1, class_of(99_000).unwrap());
        assert!(table.fd(0).is_none() && table.fd(77).is_none());
    }
}
