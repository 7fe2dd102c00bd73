//! What this end receives: the window of messages, the order of frames and pieces, and which slots are held.

use super::failure::Failure;
use super::frame::{self, Arrival, Counts, RING};
use crate::link::{MessageId, Tag, WINDOW};

/// No slot.
const NONE: u64 = u64::MAX;

/// What the peer has announced of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Nothing yet.
    None,
    /// All of it is in its home.
    Eager,
    /// It was opened, and comes piece by piece.
    Open,
}

/// One message of the window.
#[derive(Clone, Copy)]
pub(super) struct Inbound {
    pub(super) head: Head,
    pub(super) tag: Tag,
    /// Length as the peer has announced it.
    pub(super) announced: u64,
    /// Length as opened here.
    len: u64,
    /// A grant was sent; with this address, if the bytes land in their place.
    granted: bool,
    target: Option<u64>,
    /// Bytes that came.
    came: u64,
    released: u64,
    closed: bool,
    /// Turns of the first and last slot that it holds, and how much of the first is used up.
    first: u64,
    last: u64,
    used: u32,
}

const VACANT: Inbound = Inbound {
    head: Head::None,
    tag: Tag { sequence: 0, call: [0; 2] },
    announced: 0,
    len: 0,
    granted: false,
    target: None,
    came: 0,
    released: 0,
    closed: false,
    first: NONE,
    last: NONE,
    used: 0,
};

/// A slot that bytes came in.
#[derive(Clone, Copy, Default)]
struct Held {
    len: u32,
    /// Turn of the message's next slot, or [`NONE`].
    next: u64,
    done: bool,
}

/// The receiving half of a link. `base <= arrived, opened <= base + WINDOW`.
pub(super) struct Receiving {
    /// Messages before this one left the window.
    base: MessageId,
    /// Next message that the peer announces.
    arrived: MessageId,
    /// Next message that the caller opens.
    opened: MessageId,
    messages: [Inbound; WINDOW],
    /// Frames that were taken, in order.
    frames: u64,
    /// Pieces that were counted, in order.
    pieces: u64,
    /// Pieces that came on one queue pair before earlier ones on others, by number modulo the length.
    early: Box<[Option<(Arrival, u32)>]>,
    /// By turn modulo the length.
    slots: Box<[Held]>,
    slots_taken: u64,
    slots_free: u64,
    /// What the peer was told last.
    told: [u64; 4],
    /// A message has come whole whose sender waits to hear so.
    due: bool,
    /// Pieces that may be counted before the peer is told.
    late: u64,
}

fn at(m: MessageId) -> usize {
    m as usize % WINDOW
}

fn broken<T>(what: String) -> Result<T, Failure> {
    Err(Failure::Protocol { what })
}

/// `number` was completed to what is nearest to `expected` and not before it.
fn out_of_turn<T>(which: &str, number: u64, expected: u64) -> Result<T, Failure> {
    let what = match frame::before(number, expected) {
        Some(earlier) => format!("{which} {earlier} came again, {expected} was expected"),
        None => format!("{which} {number} came, {expected} was expected"),
    };
    Err(Failure::OutOfTurn { what })
}

impl Receiving {
    /// `pieces`: most pieces that can be under way.
    pub(super) fn new(pieces: usize, slots: usize, bounces: usize) -> Receiving {
        Receiving {
            base: 0,
            arrived: 0,
            opened: 0,
            messages: [VACANT; WINDOW],
            frames: 0,
            pieces: 0,
            early: vec![None; pieces].into_boxed_slice(),
            slots: vec![Held::default(); slots].into_boxed_slice(),
            slots_taken: 0,
            slots_free: 0,
            told: [0; 4],
            due: false,
            late: if bounces == 0 { 16 } else { bounces.div_ceil(2).min(16) as u64 },
        }
    }

    /// The counts that a frame carries from now on; the peer is told of them by it.
    pub(super) fn tell(&mut self) -> Counts {
        self.told = [self.base, self.slots_free, self.frames, self.pieces];
        self.due = false;
        let [closed, freed, frames, pieces] = self.told.map(|count| count as u32);
        Counts { closed, freed, frames, pieces }
    }

    /// The way is broken: pieces that came before earlier ones come again.
    pub(super) fn rewind(&mut self) {
        self.early.fill(None);
    }

    /// The address that was granted for the message at place `index` of the window, if `len` more bytes belong there.
    pub(super) fn place(&self, index: usize, len: usize) -> Option<u64> {
        let message = &self.messages[index];
        let fits = message.granted && message.came + len as u64 <= message.len;
        message.target.filter(|_| fits).map(|address| address + message.came)
    }

    /// The turn of the next slot that bytes come into, if it is free.
    pub(super) fn next_slot(&self) -> Option<u64> {
        (self.slots_taken - self.slots_free < self.slots.len() as u64).then_some(self.slots_taken)
    }

    /// Whether the peer should be told of the counts even if nothing else is to be sent.
    pub(super) fn is_due(&self) -> bool {
        let [closed, freed, frames, pieces] = self.told;
        self.due
            || self.base - closed >= WINDOW as u64 / 4
            || self.slots_free - freed >= (self.slots.len() as u64 / 4).max(1)
            || self.frames - frames >= RING as u64 / 4
            || self.pieces - pieces >= self.late
    }

    /// The number that the next frame or piece should have, by which its lower bits are completed.
    pub(super) fn expected(&self, arrival: Arrival) -> u64 {
        match arrival {
            Arrival::Frame | Arrival::Eager(_) => self.frames,
            Arrival::Slot(_) | Arrival::Landed(_) => self.pieces,
        }
    }

    /// Takes in frame `number`, or says that it is out of turn.
    pub(super) fn frame(&mut self, number: u64) -> Result<(), Failure> {
        if number != self.frames {
            return out_of_turn("frame", number, self.frames);
        }
        self.frames += 1;
        Ok(())
    }

    /// The peer announces message `m`.
    pub(super) fn announce(
        &mut self,
        m: MessageId,
        tag: Tag,
        length: u64,
        head: Head,
    ) -> Result<(), Failure> {
        if m != self.arrived {
            return broken(format!("message {m} was announced, expected {}", self.arrived));
        }
        if m - self.base >= WINDOW as u64 {
            return broken(format!("message {m} was announced while message {} is not over", self.base));
        }
        self.arrived += 1;
        let message = &mut self.messages[at(m)];
        (message.tag, message.announced, message.head) = (tag, length, head);
        self.leave();
        Ok(())
    }

    /// Takes in piece `number` of `len` bytes, or says that it is out of turn. Returns how many bytes came into slots.
    pub(super) fn piece(&mut self, arrival: Arrival, number: u64, len: u32) -> Result<usize, Failure> {
        let ahead = number - self.pieces;
        let place = (number % self.early.len() as u64) as usize;
        if ahead >= self.early.len() as u64 || self.early[place].is_some() {
            return out_of_turn("piece", number, self.pieces);
        }
        self.early[place] = Some((arrival, len));
        let mut staged = 0;
        loop {
            let place = (self.pieces % self.early.len() as u64) as usize;
            let Some((arrival, len)) = self.early[place].take() else { return Ok(staged) };
            self.pieces += 1;
            match arrival {
                Arrival::Slot(message) => {
                    self.count(message, len, false)?;
                    staged += len as usize;
                }
                Arrival::Landed(message) => self.count(message, len, true)?,
                Arrival::Frame | Arrival::Eager(_) => {}
            }
        }
    }

    /// Counts a piece of the message at place `index` of the window.
    fn count(&mut self, index: usize, len: u32, landed: bool) -> Result<(), Failure> {
        let m = self.base + (index as u64).wrapping_sub(self.base) % WINDOW as u64;
        let message = &mut self.messages[index];
        let more = message.came + u64::from(len);
        if m >= self.opened || !message.granted || message.target.is_some() != landed || more > message.len {
            return broken(format!("{len} bytes of message {m}, which was not granted so"));
        }
        message.came = more;
        self.due |= more == message.len;
        if !landed {
            self.hold(index, len)?;
        }
        self.leave();
        Ok(())
    }

    fn hold(&mut self, index: usize, len: u32) -> Result<(), Failure> {
        if self.slots_taken - self.slots_free >= self.slots.len() as u64 {
            return broken("bytes in a slot that is in use".into());
        }
        let turn = self.slots_taken;
        self.slots_taken += 1;
        *self.slot(turn) = Held { len, next: NONE, done: false };
        let last = self.messages[index].last;
        if last == NONE {
            self.messages[index].first = turn;
        } else {
            self.slot(last).next = turn;
        }
        self.messages[index].last = turn;
        Ok(())
    }

    fn slot(&mut self, turn: u64) -> &mut Held {
        let count = self.slots.len() as u64;
        &mut self.slots[(turn % count) as usize]
    }

    /// Opens the next message, `len` bytes long, if the window has room.
    pub(super) fn room(&self) -> Option<MessageId> {
        (self.opened - self.base < WINDOW as u64).then_some(self.opened)
    }

    /// The caller has opened the message that [`Receiving::room`] numbered.
    pub(super) fn open(&mut self, len: u64, granted: bool, target: Option<u64>) {
        let message = &mut self.messages[at(self.opened)];
        (message.len, message.granted, message.target) = (len, granted, target);
        self.opened += 1;
    }

    /// The message `m`, if the caller holds it open.
    pub(super) fn message(&self, m: MessageId) -> Option<&Inbound> {
        (m >= self.base && m < self.opened).then(|| &self.messages[at(m)])
    }

    /// Whether the peer has announced message `m`.
    pub(super) fn is_announced(&self, m: MessageId) -> bool {
        m < self.arrived
    }

    /// How many bytes of message `m` landed in their place.
    pub(super) fn landed(&self, m: MessageId) -> u64 {
        self.message(m).filter(|message| message.lands()).map_or(0, |message| message.came)
    }

    /// Turn of the next slot of message `m`, how much of it is used up, and how much is left.
    pub(super) fn front(&self, m: MessageId) -> Option<(u64, u32, u32)> {
        let message = self.message(m)?;
        if message.first == NONE {
            return None;
        }
        let held = &self.slots[(message.first % self.slots.len() as u64) as usize];
        Some((message.first, message.used, held.len - message.used))
    }

    /// The caller is done with the first `total` bytes of message `m`. `false`: it is not open.
    pub(super) fn release(&mut self, m: MessageId, total: u64) -> bool {
        if self.message(m).is_none() {
            return false;
        }
        let message = &mut self.messages[at(m)];
        let more = total.saturating_sub(message.released);
        message.released += more;
        self.consume(m, more);
        true
    }

    /// Frees slots of message `m` whose bytes are used.
    fn consume(&mut self, m: MessageId, mut bytes: u64) {
        while let Some((turn, _, left)) = self.front(m) {
            let message = &mut self.messages[at(m)];
            if bytes < u64::from(left) {
                message.used += bytes as u32;
                return;
            }
            bytes -= u64::from(left);
            message.used = 0;
            let held = self.slot(turn);
            held.done = true;
            let next = held.next;
            let message = &mut self.messages[at(m)];
            message.first = next;
            if next == NONE {
                message.last = NONE;
            }
        }
        while self.slots_free < self.slots_taken && self.slot(self.slots_free).done {
            self.slots_free += 1;
        }
    }

    /// The caller has no more to do with message `m`.
    pub(super) fn close(&mut self, m: MessageId) {
        if self.message(m).is_some() {
            self.messages[at(m)].closed = true;
            self.leave();
        }
    }

    /// Lets messages that are whole and closed leave the window, oldest first.
    fn leave(&mut self) {
        while self.base < self.opened.min(self.arrived) {
            let m = self.base;
            let message = &self.messages[at(m)];
            if !message.closed || !message.is_whole() {
                return;
            }
            self.consume(m, u64::MAX);
            self.messages[at(m)] = VACANT;
            self.base += 1;
        }
    }

    /// Whether a message is whole that the caller has not closed: there is something to do without the peer.
    pub(super) fn has_whole(&self) -> bool {
        (self.base..self.arrived).any(|m| {
            let message = &self.messages[at(m)];
            !message.closed && message.is_whole()
        })
    }
}

impl Inbound {
    /// Whether its bytes come into the place that was granted.
    pub(super) fn lands(&self) -> bool {
        self.target.is_some()
    }

    fn is_whole(&self) -> bool {
        match self.head {
            Head::None => false,
            Head::Eager => true,
            Head::Open => self.granted && self.came == self.len,
        }
    }
}
