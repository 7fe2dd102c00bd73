//! The state of the messages that an end receives.

use super::line::{INLINE_BYTES, SlotAt};
use super::staging::{NO_SLOT, SlotReader};
use crate::link::{MessageId, Place, Source, Tag, WINDOW};

/// What the peer announced for a message.
#[derive(Clone, Copy)]
pub(super) enum Arrival {
    /// Nothing yet.
    None,
    /// An eager message of this length, kept in the window.
    Inline(u8),
    /// An eager message in a slot (its place in the table).
    Slot(u16),
    /// A granted message.
    Granted(Option<Place>),
}

/// One message of the receiving window: what the peer announced and what this end asked for.
#[derive(Clone, Copy)]
pub(super) struct Inbound {
    pub(super) arrival: Arrival,
    pub(super) tag: Tag,
    pub(super) inline: [u64; INLINE_BYTES / 8],
    /// Length, as opened here.
    pub(super) len: u64,
    /// The peer was offered a place that it can use.
    pub(super) lands: bool,
    /// Bytes the caller has released.
    pub(super) released: u64,
    pub(super) is_closed: bool,
    /// How to get the bytes, once that is known.
    pub(super) source: Option<Source>,
    /// Address of the first byte at the peer, for [`Source::Copy`].
    pub(super) address: u64,
    /// Unreleased slots of a staged message, and how much of the first is used up.
    head: u16,
    tail: u16,
    used: u32,
}

// SAFETY: a pointer in `source` is an address in memory that lives as long as the end, whichever thread uses it.
unsafe impl Send for Inbound {}

const VACANT: Inbound = Inbound {
    arrival: Arrival::None,
    tag: Tag { sequence: 0, call: [0; 2] },
    inline: [0; INLINE_BYTES / 8],
    len: 0,
    lands: false,
    released: 0,
    is_closed: false,
    source: None,
    address: 0,
    head: NO_SLOT,
    tail: NO_SLOT,
    used: 0,
};

/// The receiving half of an end. `base <= arrived, opened <= base + WINDOW`.
pub(super) struct Receiving {
    /// Messages before this one left the window.
    pub(super) base: MessageId,
    /// Next message that the peer announces.
    pub(super) arrived: MessageId,
    /// Next message that the caller opens.
    pub(super) opened: MessageId,
    /// On the heap, so that inline messages stay where they are when the end is moved.
    messages: Box<[Inbound; WINDOW]>,
    pub(super) slots: SlotReader,
    /// Bytes of slots that were freed and are not reported.
    pub(super) late_bytes: u32,
}

#[inline]
fn at(m: MessageId) -> usize {
    m as usize % WINDOW
}

impl Receiving {
    pub(super) fn new(staging_bytes: usize) -> Receiving {
        Receiving {
            base: 0,
            arrived: 0,
            opened: 0,
            messages: Box::new([VACANT; WINDOW]),
            slots: SlotReader::new(staging_bytes),
            late_bytes: 0,
        }
    }

    /// The place in the window of a message that is in it.
    #[inline]
    pub(super) fn message(&mut self, m: MessageId) -> &mut Inbound {
        &mut self.messages[at(m)]
    }

    /// Whether the caller holds message `m` open.
    #[inline]
    pub(super) fn is_open(&self, m: MessageId) -> bool {
        m.wrapping_sub(self.base) < self.opened - self.base
    }

    /// Opens the next message if the window has room.
    #[inline]
    pub(super) fn open(&mut self, len: u64, lands: bool) -> Option<MessageId> {
        if self.opened - self.base >= WINDOW as u64 {
            return None;
        }
        let m = self.opened;
        self.opened += 1;
        let message = self.message(m);
        message.len = len;
        message.lands = lands;
        Some(m)
    }

    /// The next message that the peer announces, unless the window is full.
    #[inline]
    pub(super) fn arrive(&mut self, tag: Tag, arrival: Arrival) -> Option<&mut Inbound> {
        if self.arrived - self.base >= WINDOW as u64 {
            return None;
        }
        let m = self.arrived;
        self.arrived += 1;
        let message = self.message(m);
        message.tag = tag;
        message.arrival = arrival;
        Some(message)
    }

    /// Appends a chunk to message `m`; `None` if no honest peer sends it.
    pub(super) fn append(&mut self, m: MessageId, slot: SlotAt) -> Option<()> {
        let place = self.slots.enter(slot)?;
        if m < self.base {
            // The caller gave the message up early.
            self.free(place);
            return Some(());
        }
        let message = &mut self.messages[at(m)];
        if m >= self.arrived || !matches!(message.arrival, Arrival::Granted(None)) {
            return None;
        }
        if message.tail == NO_SLOT {
            message.head = place;
        } else {
            self.slots.link(message.tail, place);
        }
        message.tail = place;
        Some(())
    }

    /// Offset in the staging area and length of what the next slot of `m` still holds.
    #[inline]
    pub(super) fn front(&self, m: MessageId) -> Option<(u32, u32)> {
        let message = &self.messages[at(m)];
        if message.head == NO_SLOT {
            return None;
        }
        let (offset, len) = self.slots.span(message.head);
        Some((offset + message.used, len - message.used))
    }

    /// The caller has used `bytes` more bytes of staged message `m`.
    pub(super) fn consume(&mut self, m: MessageId, mut bytes: u64) {
        while let Some((_, left)) = self.front(m) {
            if bytes < u64::from(left) {
                self.messages[at(m)].used += bytes as u32;
                return;
            }
            bytes -= u64::from(left);
            let next = self.free(self.messages[at(m)].head);
            let message = &mut self.messages[at(m)];
            message.used = 0;
            message.head = next;
            if next == NO_SLOT {
                message.tail = NO_SLOT;
            }
        }
    }

    /// Frees the slot of an eager message, once.
    #[inline]
    pub(super) fn free_eager(&mut self, m: MessageId) {
        if let Arrival::Slot(place) = self.messages[at(m)].arrival
            && place != NO_SLOT
        {
            self.messages[at(m)].arrival = Arrival::Slot(NO_SLOT);
            self.free(place);
        }
    }

    fn free(&mut self, place: u16) -> u16 {
        self.late_bytes += self.slots.span(place).1;
        self.slots.free(place)
    }

    /// The caller is done with `m`: frees what it holds and moves the window on.
    #[inline]
    pub(super) fn close(&mut self, m: MessageId) {
        self.messages[at(m)].is_closed = true;
        self.leave();
    }

    /// Lets closed messages that have arrived leave the window, oldest first.
    #[inline]
    pub(super) fn leave(&mut self) {
        while self.base < self.opened.min(self.arrived) && self.messages[at(self.base)].is_closed {
            let m = self.base;
            match self.messages[at(m)].arrival {
                Arrival::Slot(_) => self.free_eager(m),
                Arrival::Granted(_) => self.consume(m, u64::MAX),
                Arrival::None | Arrival::Inline(_) => {}
            }
            let message = &mut self.messages[at(m)];
            message.arrival = Arrival::None;
            message.released = 0;
            message.is_closed = false;
            message.source = None;
            message.head = NO_SLOT;
            message.tail = NO_SLOT;
            message.used = 0;
            self.base += 1;
        }
    }
}
