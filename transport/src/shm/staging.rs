//! The staging area: slots of any length, taken in order by the writer, given back in any order by the reader.
//!
//! Only the writer knows where a slot goes; it tells the reader offset, length and index. Space comes back in the order
//! in which it was taken: the reader reports how many slots, counted from the first, are free again. A slot never
//! wraps: if it does not fit before the end of the area it begins at the start, and what was left over is lost until
//! the slot before it is free.

use super::layout::{SLOT_ALIGN, SLOTS};
use super::line::SlotAt;

/// The writer's bookkeeping.
pub(super) struct SlotWriter {
    capacity: u32,
    /// Where each slot in use begins, by index modulo `SLOTS`.
    starts: [u32; SLOTS],
    /// Oldest slot in use, and the next one to be given out; they wrap.
    first: u16,
    next: u16,
    /// Where free space begins.
    head: u32,
}

impl SlotWriter {
    pub(super) fn new(capacity: usize) -> SlotWriter {
        SlotWriter { capacity: capacity as u32, starts: [0; SLOTS], first: 0, next: 0, head: 0 }
    }

    /// Takes a slot of `len` bytes; `None` if there is no room now.
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Option<SlotAt> {
        let need = u32::try_from(len.max(1).next_multiple_of(SLOT_ALIGN)).ok()?;
        let used = self.next.wrapping_sub(self.first) as usize;
        let start = if used == 0 {
            // The start of the area is the warmest part of it.
            (need <= self.capacity).then_some(0)?
        } else if used == SLOTS {
            return None;
        } else {
            let tail = self.starts[self.first as usize % SLOTS];
            if self.head > tail {
                if need <= self.capacity - self.head {
                    self.head
                } else if need <= tail {
                    0
                } else {
                    return None;
                }
            } else if need <= tail - self.head {
                self.head
            } else {
                return None;
            }
        };
        let index = self.next;
        self.starts[index as usize % SLOTS] = start;
        self.head = start + need;
        self.next = index.wrapping_add(1);
        Some(SlotAt { index, offset: start, len: len as u32 })
    }

    /// Takes in the reader's count of free slots; `false` if that count is impossible.
    #[inline]
    pub(super) fn credit(&mut self, freed: u16) -> bool {
        let possible = freed.wrapping_sub(self.first) <= self.next.wrapping_sub(self.first);
        if possible {
            self.first = freed;
        }
        possible
    }
}

/// No slot.
pub(super) const NO_SLOT: u16 = u16::MAX;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    Held,
    Done,
}

#[derive(Clone, Copy)]
struct Held {
    state: State,
    offset: u32,
    len: u32,
    /// Place in the table of the next slot of the same message.
    next: u16,
}

/// The reader's bookkeeping.
pub(super) struct SlotReader {
    capacity: u32,
    held: [Held; SLOTS],
    /// Slots free again, from the first on; wraps.
    pub(super) freed: u16,
}

impl SlotReader {
    pub(super) fn new(capacity: usize) -> SlotReader {
        let empty = Held { state: State::Empty, offset: 0, len: 0, next: NO_SLOT };
        SlotReader { capacity: capacity as u32, held: [empty; SLOTS], freed: 0 }
    }

    /// Enters a slot that the writer filled; returns its place in the table, `None` if no honest writer says so.
    #[inline]
    pub(super) fn enter(&mut self, slot: SlotAt) -> Option<u16> {
        let place = slot.index % SLOTS as u16;
        let held = &mut self.held[place as usize];
        let ahead = slot.index.wrapping_sub(self.freed) as usize;
        if ahead >= SLOTS || held.state != State::Empty || slot.offset + slot.len > self.capacity {
            return None;
        }
        *held = Held { state: State::Held, offset: slot.offset, len: slot.len, next: NO_SLOT };
        Some(place)
    }

    /// Offset and length of a held slot.
    #[inline]
    pub(super) fn span(&self, place: u16) -> (u32, u32) {
        let held = &self.held[place as usize];
        (held.offset, held.len)
    }

    /// Links `later` behind `earlier`.
    pub(super) fn link(&mut self, earlier: u16, later: u16) {
        self.held[earlier as usize].next = later;
    }

    /// Gives a slot back; returns the one linked behind it, or [`NO_SLOT`].
    #[inline]
    pub(super) fn free(&mut self, place: u16) -> u16 {
        self.held[place as usize].state = State::Done;
        let next = self.held[place as usize].next;
        loop {
            let oldest = &mut self.held[self.freed as usize % SLOTS];
            if oldest.state != State::Done {
                return next;
            }
            oldest.state = State::Empty;
            self.freed = self.freed.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng, rngs::StdRng};
    use std::collections::VecDeque;

    #[test]
    fn slots_never_overlap_and_the_area_never_jams() {
        let mut random = StdRng::seed_from_u64(7);
        let capacity = 4096;
        let (mut writer, mut reader) = (SlotWriter::new(capacity), SlotReader::new(capacity));
        let mut live: VecDeque<(u16, u32, u32)> = VecDeque::new();
        for step in 0..50_000 {
            let len = random.random_range(0..=1024);
            match writer.take(len) {
                Some(slot) => {
                    let (start, end) = (slot.offset, slot.offset + slot.len.max(1));
                    assert!(end <= capacity as u32);
                    for &(_, from, to) in &live {
                        assert!(end <= from || start >= to, "step {step}: {start}..{end} in {from}..{to}");
                    }
                    live.push_back((reader.enter(slot).unwrap(), start, end));
                }
                None => {
                    assert!(!live.is_empty(), "step {step}: nothing is held and {len} bytes find no room")
                }
            }
            if random.random_bool(0.5) && !live.is_empty() {
                let victim = random.random_range(0..live.len().min(3));
                let (place, ..) = live.remove(victim).unwrap();
                reader.free(place);
                assert!(writer.credit(reader.freed));
            }
        }
    }

    #[test]
    fn impossible_counts_and_slots_are_refused() {
        let mut writer = SlotWriter::new(4096);
        assert!(!writer.credit(1));
        let slot = writer.take(10).unwrap();
        let mut reader = SlotReader::new(4096);
        assert!(reader.enter(SlotAt { offset: 4090, ..slot }).is_none());
        assert!(reader.enter(SlotAt { index: 64, ..slot }).is_none());
        assert!(reader.enter(slot).is_some());
        assert!(reader.enter(slot).is_none(), "the same slot twice");
    }
}
