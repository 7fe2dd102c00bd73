//! The state of the messages that an end sends.

use super::line::SlotAt;
use super::staging::SlotWriter;
use crate::link::{MessageId, Place, Sink, Tag, WINDOW};

/// No message.
pub(super) const FREE: u64 = u64::MAX;

/// A message that this end opened and has not closed. Eager messages leave no trace here.
#[derive(Clone, Copy)]
pub(super) struct Outbound {
    pub(super) number: MessageId,
    pub(super) tag: Tag,
    pub(super) len: u64,
    /// Bytes committed to slots or landed.
    pub(super) done: u64,
    /// The peer pulls it.
    pub(super) pulled: bool,
    /// The way it leaves, once it is known; it never changes then.
    pub(super) sink: Option<Sink>,
    /// The peer's address of its first byte, for [`Sink::Copy`].
    pub(super) address: u64,
}

// SAFETY: a pointer in `sink` is an address in memory that the peer granted to this end, whichever thread uses it.
unsafe impl Send for Outbound {}

/// A grant of the peer's receiving side.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    pub(super) number: MessageId,
    pub(super) tag: Tag,
    pub(super) place: Option<Place>,
}

/// A slot that was given to the caller to fill.
#[derive(Clone, Copy)]
pub(super) struct Reserved {
    pub(super) message: MessageId,
    pub(super) slot: SlotAt,
}

/// The sending half of an end.
pub(super) struct Sending {
    /// Number of the next message.
    pub(super) next: MessageId,
    /// Messages that left the peer's window, as reported.
    closed: u64,
    pub(super) messages: [Outbound; WINDOW],
    grants: [Grant; WINDOW],
    pub(super) slots: SlotWriter,
    pub(super) reserved: Option<Reserved>,
    /// No message before this one has bytes to stage any more.
    front: MessageId,
}

#[inline]
pub(super) fn at(m: MessageId) -> usize {
    m as usize % WINDOW
}

impl Sending {
    pub(super) fn new(staging_bytes: usize) -> Sending {
        let free = Outbound {
            number: FREE,
            tag: Tag::default(),
            len: 0,
            done: 0,
            pulled: false,
            sink: None,
            address: 0,
        };
        let none = Grant { number: FREE, tag: Tag::default(), place: None };
        Sending {
            next: 0,
            closed: 0,
            messages: [free; WINDOW],
            grants: [none; WINDOW],
            slots: SlotWriter::new(staging_bytes),
            reserved: None,
            front: 0,
        }
    }

    /// Whether the peer has room for one more message.
    #[inline]
    pub(super) fn window_is_open(&self) -> bool {
        self.next - self.closed < WINDOW as u64
    }

    /// Whether a message that stays open finds a place at this end.
    #[inline]
    pub(super) fn has_place(&self) -> bool {
        self.messages[at(self.next)].number == FREE
    }

    /// The open message `m`.
    #[inline]
    pub(super) fn message(&mut self, m: MessageId) -> Option<&mut Outbound> {
        Some(&mut self.messages[at(m)]).filter(|message| message.number == m)
    }

    /// The peer's grant for message `m`.
    #[inline]
    pub(super) fn grant(&self, m: MessageId) -> Option<Grant> {
        Some(self.grants[at(m)]).filter(|grant| grant.number == m)
    }

    /// Enters a grant.
    #[inline]
    pub(super) fn enter(&mut self, grant: Grant) {
        self.grants[at(grant.number)] = grant;
    }

    /// Takes in the peer's count of closed messages (its low 16 bits); `false` if that count is impossible.
    #[inline]
    pub(super) fn credit(&mut self, closed: u16) -> bool {
        let more = u64::from(closed.wrapping_sub(self.closed as u16));
        let possible = self.closed + more <= self.next;
        if possible {
            self.closed += more;
        }
        possible
    }

    /// Whether no earlier message can have bytes to stage before those of `m`.
    pub(super) fn may_stage(&mut self, m: MessageId) -> bool {
        // What is a whole window older was closed by the peer, so it is complete.
        self.front = self.front.max((m + 1).saturating_sub(WINDOW as u64));
        while self.front < m {
            let message = &self.messages[at(self.front)];
            let unfinished = message.number == self.front
                && !message.pulled
                && match message.sink {
                    None => true,
                    Some(Sink::Staged) => message.done < message.len,
                    Some(_) => false,
                };
            if unfinished {
                return false;
            }
            self.front += 1;
        }
        true
    }
}
