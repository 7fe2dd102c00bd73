//! The registered memory of one end of a link.
//!
//! ```text
//!  receive area, which the peer writes               send area, written here and read by the device
//! +--------+--------------------+-------------+     +--------+--------------------+-------------+---------+
//! | frames | homes of 32 eager  | slots       |     | frames | homes              | slots       | bounces |
//! | 128 B  | messages           |             |     |        |                    |             |         |
//! +--------+--------------------+-------------+     +--------+--------------------+-------------+---------+
//! 0                                          area   area                                     2 area    whole
//! ```
//!
//! Both areas are laid out alike: what is prepared at some offset of the send area is written to the same offset of the
//! peer's receive area. It stays in the send area until the peer says that it has it, so that it can be sent again.
//! Bounces hold copies of bytes on their way from memory that is not registered to a granted place.

use rccl_verbs::{Access, MemoryRegion, ProtectionDomain};

use super::error::RcError;
use super::frame::{ENTRY, RING};
use super::options::Options;
use crate::link::WINDOW;
use crate::memory::Mapping;

const PAGE: usize = 4096;

/// Offsets in a block, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    home: usize,
    slot: usize,
    pub(super) slots: usize,
    pub(super) bounces: usize,
    homes_at: usize,
    slots_at: usize,
    /// Where the send area begins.
    area: usize,
    pub(super) whole: usize,
}

impl Layout {
    pub(super) fn new(options: &Options) -> Layout {
        let (home, slot, slots) = (options.home(), options.slot, options.slots);
        let bounces = slots.div_ceil(2);
        let homes_at = RING * ENTRY;
        let slots_at = (homes_at + WINDOW * home).next_multiple_of(PAGE);
        let area = (slots_at + slots * slot).next_multiple_of(PAGE);
        let whole = (2 * area + bounces * slot).next_multiple_of(PAGE);
        Layout { home, slot, slots, bounces, homes_at, slots_at, area, whole }
    }

    /// Where frame `number` lies in an area.
    pub(super) fn frame(&self, number: u64) -> usize {
        (number % RING as u64) as usize * ENTRY
    }

    /// Where eager message `m` lies in an area, its frame first.
    pub(super) fn home(&self, m: u64) -> usize {
        self.homes_at + (m % WINDOW as u64) as usize * self.home
    }

    /// Where the `turn`-th use of a slot lies in an area; there are slots.
    pub(super) fn slot(&self, turn: u64) -> usize {
        self.slots_at + (turn % self.slots as u64) as usize * self.slot
    }

    /// Where the `turn`-th use of a bounce lies in a block; there are bounces.
    pub(super) fn bounce(&self, turn: u64) -> usize {
        2 * self.area + (turn % self.bounces as u64) as usize * self.slot
    }

    /// Where the offset of the send area lies in a block.
    pub(super) fn sending(&self, offset: usize) -> usize {
        self.area + offset
    }
}

/// The block of one end, registered on each of its rails.
pub(super) struct Block {
    /// By rail of the link. Before the memory, because it is taken from the devices first.
    regions: Vec<MemoryRegion>,
    memory: Mapping,
    pub(super) layout: Layout,
}

impl Block {
    pub(super) fn new<'a>(
        options: &Options,
        domains: impl Iterator<Item = &'a ProtectionDomain>,
    ) -> Result<Block, RcError> {
        let layout = Layout::new(options);
        let memory = Mapping::private(layout.whole)?;
        let mut regions = Vec::new();
        for domain in domains {
            // SAFETY: the block keeps the mapping until the regions are gone, and reaches it through raw pointers only.
            let region =
                unsafe { domain.register(memory.pointer().as_ptr(), layout.whole, Access::REMOTE_WRITE) };
            regions.push(region?);
        }
        Ok(Block { regions, memory, layout })
    }

    /// Byte `offset` of the block.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.memory.len());
        self.memory.pointer().as_ptr().wrapping_add(offset)
    }

    /// The block as registered on rail `rail` of the link.
    pub(super) fn region(&self, rail: usize) -> &MemoryRegion {
        &self.regions[rail]
    }

    /// The address by which peers know the block.
    pub(super) fn address(&self) -> u64 {
        self.memory.pointer().as_ptr().expose_provenance() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ARCHITECTURE.md says so.
    #[test]
    fn a_link_registers_so_much() {
        assert_eq!(Options::default().block_bytes(), 2_400_256);
    }

    #[test]
    fn parts_do_not_overlap() {
        for options in [
            Options::default(),
            Options { slots: 0, ..Options::default() },
            Options { eager: 0, slots: 1, slot: 64, ..Options::default() },
        ] {
            let layout = Layout::new(&options);
            let mut parts: Vec<(usize, usize)> = Vec::new();
            for base in [0, layout.area] {
                parts.extend((0..RING as u64).map(|n| (base + layout.frame(n), ENTRY)));
                parts.extend((0..WINDOW as u64).map(|m| (base + layout.home(m), 64 + options.eager)));
                parts.extend((0..options.slots as u64).map(|s| (base + layout.slot(s), options.slot)));
            }
            parts.extend((0..layout.bounces as u64).map(|b| (layout.bounce(b), options.slot)));
            parts.sort_unstable();
            for (one, next) in parts.iter().zip(&parts[1..]) {
                assert!(one.0 + one.1 <= next.0, "{one:?} and {next:?} of {layout:?}");
            }
            let last = parts[parts.len() - 1];
            assert!(last.0 + last.1 <= layout.whole && options.block_bytes() == layout.whole);
        }
    }
}
