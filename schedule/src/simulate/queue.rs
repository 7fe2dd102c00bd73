//! What happens next.

use super::cluster::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A chunk of an edge comes to the link with this number on its route.
    Hop { hop: u8 },
    /// A chunk has left the sender's processor, and goes to the first link.
    Leave,
    /// A chunk of an edge is all there.
    Arrive,
    /// An operation has made a chunk of its value.
    Made,
    /// The sender of a message learns that a chunk of it has been taken.
    Released,
    /// The sender at an edge has a grant, and looks whether it can go on.
    Granted,
}

/// An event: when, what, of which edge, operation or message, and with how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub time: Time,
    /// Of two at one time, the one that was put in first comes first: that is what makes runs repeat exactly.
    order: u32,
    pub what: What,
    pub of: u32,
    pub bytes: u32,
}

/// Events in order of time.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Event>>,
    /// Events of the present time, which need no sorting: they come after all that were put in before.
    put: u32,
}

impl Queue {
    pub(super) fn put(&mut self, time: Time, what: What, of: u32, bytes: u32) {
        self.put = self.put.wrapping_add(1);
        self.heap.push(Reverse(Event { time, order: self.put, what, of, bytes }));
    }

    pub(super) fn next(&mut self) -> Option<Event> {
        self.heap.pop().map(|Reverse(event)| event)
    }
}
