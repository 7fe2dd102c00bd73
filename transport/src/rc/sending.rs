//! What this end sends: the window of messages, the frames and pieces that the peer has not confirmed, and which slots
//! are in use. Nothing here knows of queue pairs: frames and pieces outlive them.

use std::collections::VecDeque;

use super::block::Layout;
use super::failure::Failure;
use super::frame::{Counts, RING, Target};
use crate::link::{MessageId, Sink, Tag, WINDOW};

/// A number that no message has.
const FREE: MessageId = MessageId::MAX;

/// A granted message, from its opening to its closing.
#[derive(Clone, Copy)]
pub(super) struct Outbound {
    number: MessageId,
    pub(super) tag: Tag,
    pub(super) len: u64,
    /// Its source is registered.
    pub(super) registered: bool,
    way: Option<Way>,
    /// Where the receiver wants it, once that is known.
    pub(super) target: Option<Target>,
    /// Bytes that were handed over.
    pub(super) taken: u64,
    /// Bytes that the receiver has counted.
    counted: u64,
    /// Where the last piece ends that the device reads from the caller's memory.
    read_until: u64,
}

/// A [`Sink`] that will not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Filled by the caller, slot by slot.
    Staged,
    /// Read from the caller's memory, into slots or the granted place.
    Posted,
}

/// What the receiver has said of a message.
#[derive(Clone, Copy)]
struct Grant {
    number: MessageId,
    tag: Tag,
    length: u64,
    target: Option<Target>,
}

/// Where the bytes of a piece lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// At this offset of the block, in a slot.
    Slot(usize),
    /// At this offset of the block, in a bounce.
    Bounce(usize),
    /// At this address, in the caller's memory.
    Memory(usize),
}

/// Where the bytes of a piece go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// To this offset of the peer's receive area, a slot.
    Slot(usize),
    /// Into the granted place.
    Place(Target),
}

/// A piece that the peer has not counted, with all that it takes to send it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) message: MessageId,
    pub(super) len: u32,
    pub(super) origin: Origin,
    pub(super) destination: Destination,
    /// The queue pair that it went to.
    pub(super) pair: usize,
}

/// A frame that the peer has not taken: it lies in the send area.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// The message in whose home it lies, if it is an eager one; else it lies in the ring.
    pub(super) eager: Option<MessageId>,
    pub(super) len: usize,
}

/// The next slot, given to the caller to fill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved {
    pub(super) message: MessageId,
    pub(super) len: usize,
}

/// The sending half of a link.
pub(super) struct Sending {
    /// Number of the next message.
    pub(super) next: MessageId,
    /// Messages that left the peer's window.
    closed: u64,
    messages: [Outbound; WINDOW],
    /// By number modulo twice the window: a grant may come for a message that is not open yet, and the place of one that
    /// is not needed any more.
    grants: [Grant; 2 * WINDOW],
    next_grant: MessageId,
    /// Frames that were made, and those that the peer has taken.
    frames: u64,
    frames_taken: u64,
    kept: [Kept; RING],
    /// Not counted yet by the peer, and how many of them, from the front, are on their way.
    pieces: VecDeque<Piece>,
    under_way: usize,
    /// Pieces that were made.
    pieces_made: u64,
    /// Most pieces that are not counted yet.
    most_pieces: usize,
    /// Turns of slots and bounces that began, and those that are over.
    pub(super) slots: u64,
    slots_free: u64,
    pub(super) bounces: u64,
    bounces_free: u64,
    /// The slot that the caller fills.
    pub(super) reserved: Option<Reserved>,
    /// No message before this one has bytes for slots any more.
    front: MessageId,
}

fn at(m: MessageId) -> usize {
    m as usize % WINDOW
}

impl Sending {
    /// `pieces`: most pieces that can be under way.
    pub(super) fn new(pieces: usize) -> Sending {
        let free = Outbound {
            number: FREE,
            tag: Tag::default(),
            len: 0,
            registered: false,
            way: None,
            target: None,
            taken: 0,
            counted: 0,
            read_until: 0,
        };
        let none = Grant { number: FREE, tag: Tag::default(), length: 0, target: None };
        Sending {
            next: 0,
            closed: 0,
            messages: [free; WINDOW],
            grants: [none; 2 * WINDOW],
            next_grant: 0,
            frames: 0,
            frames_taken: 0,
            kept: [Kept::default(); RING],
            pieces: VecDeque::with_capacity(pieces),
            under_way: 0,
            pieces_made: 0,
            most_pieces: pieces,
            slots: 0,
            slots_free: 0,
            bounces: 0,
            bounces_free: 0,
            reserved: None,
            front: 0,
        }
    }

    /// Whether messages are open.
    pub(super) fn is_busy(&self) -> bool {
        self.messages.iter().any(|message| message.number != FREE)
    }

    /// Whether the peer has room for one more message.
    pub(super) fn window_is_open(&self) -> bool {
        self.next - self.closed < WINDOW as u64
    }

    /// Whether a message that stays open finds a place at this end.
    pub(super) fn has_place(&self) -> bool {
        self.messages[at(self.next)].number == FREE
    }

    /// Opens the next message; there is room.
    pub(super) fn open(&mut self, tag: Tag, len: u64, registered: bool) -> MessageId {
        let number = self.next;
        let message = Outbound { number, tag, len, registered, ..self.messages[at(number)] };
        self.messages[at(number)] =
            Outbound { way: None, target: None, taken: 0, counted: 0, read_until: 0, ..message };
        self.next += 1;
        number
    }

    /// The open message `m`.
    pub(super) fn message(&mut self, m: MessageId) -> Option<&mut Outbound> {
        Some(&mut self.messages[at(m)]).filter(|message| message.number == m)
    }

    /// The caller has no more to do with message `m`.
    pub(super) fn close(&mut self, m: MessageId) {
        if let Some(message) = self.message(m) {
            message.number = FREE;
        }
    }

    /// The peer takes `length` bytes of message `number`, if it has this tag.
    pub(super) fn grant(
        &mut self,
        number: MessageId,
        tag: Tag,
        length: u64,
        target: Option<Target>,
    ) -> Result<(), Failure> {
        let ahead = self.closed + 2 * WINDOW as u64;
        if number < self.next_grant || number >= ahead {
            let first = self.next_grant;
            let what = format!("grant of message {number}, expected {first}..{ahead}");
            return Err(Failure::Protocol { what });
        }
        self.next_grant = number + 1;
        self.grants[number as usize % (2 * WINDOW)] = Grant { number, tag, length, target };
        Ok(())
    }

    /// How open message `m` leaves, by what the receiver has said.
    pub(super) fn sink(&mut self, m: MessageId) -> Option<Sink> {
        let grant = self.grants[m as usize % (2 * WINDOW)];
        let message = self.message(m)?;
        match message.way {
            Some(Way::Staged) => return Some(Sink::Staged),
            Some(Way::Posted) => return Some(Sink::Posted),
            None => {}
        }
        if grant.number != m {
            return Some(Sink::Waiting);
        }
        if grant.tag != message.tag {
            return Some(Sink::Foreign(grant.tag));
        }
        let posted = grant.target.is_some() || message.registered;
        let (way, sink) = if posted { (Way::Posted, Sink::Posted) } else { (Way::Staged, Sink::Staged) };
        // Never more than the receiver has made room for, should the two differ.
        message.len = message.len.min(grant.length);
        (message.way, message.target) = (Some(way), grant.target);
        Some(sink)
    }

    /// The open message `m`, if it leaves so.
    pub(super) fn leaving(&mut self, m: MessageId, way: Way) -> Option<Outbound> {
        self.message(m).filter(|message| message.way == Some(way)).copied()
    }

    /// Whether no earlier message can have bytes for slots before those of `m`.
    pub(super) fn may_stage(&mut self, m: MessageId) -> bool {
        // What is a whole window older was closed by the peer, so it is complete.
        self.front = self.front.max((m + 1).saturating_sub(WINDOW as u64));
        while self.front < m {
            let front = self.front;
            let unfinished = self.message(front).is_some_and(|message| match message.way {
                None => true,
                Some(_) => message.target.is_none() && message.taken < message.len,
            });
            if unfinished {
                return false;
            }
            self.front += 1;
        }
        true
    }

    pub(super) fn has_slot(&self, layout: &Layout) -> bool {
        self.slots - self.slots_free < layout.slots as u64
    }

    pub(super) fn has_bounce(&self, layout: &Layout) -> bool {
        self.bounces - self.bounces_free < layout.bounces as u64
    }

    /// A frame is made: its number.
    pub(super) fn next_frame(&mut self, kept: Kept) -> u64 {
        let number = self.frames;
        self.kept[number as usize % RING] = kept;
        self.frames += 1;
        number
    }

    /// Frame `number`, which the peer has not taken.
    pub(super) fn frame(&self, number: u64) -> Kept {
        self.kept[number as usize % RING]
    }

    /// The numbers of the frames that the peer has not taken.
    pub(super) fn frames(&self) -> std::ops::Range<u64> {
        self.frames_taken..self.frames
    }

    /// Whether one more piece can be made: none waits, and the peer has room to count it.
    pub(super) fn takes_piece(&self) -> bool {
        self.under_way == self.pieces.len() && self.pieces.len() < self.most_pieces
    }

    /// A piece is made; it waits for [`Sending::next_waiting`].
    pub(super) fn add_piece(&mut self, piece: Piece) {
        self.slots += u64::from(matches!(piece.destination, Destination::Slot(_)));
        self.bounces += u64::from(matches!(piece.origin, Origin::Bounce(_)));
        if let Some(message) = self.message(piece.message) {
            message.taken += u64::from(piece.len);
            if matches!(piece.origin, Origin::Memory(_)) {
                message.read_until = message.taken;
            }
        }
        self.pieces.push_back(piece);
        self.pieces_made += 1;
    }

    /// The next piece that waits to be sent, and its number.
    pub(super) fn next_waiting(&self) -> Option<(Piece, u64)> {
        let first = self.pieces_made - self.pieces.len() as u64;
        self.pieces.get(self.under_way).map(|piece| (*piece, first + self.under_way as u64))
    }

    /// The piece that [`Sending::next_waiting`] named is on its way, on queue pair `pair`.
    pub(super) fn sent(&mut self, pair: usize) {
        if let Some(piece) = self.pieces.get_mut(self.under_way) {
            piece.pair = pair;
            self.under_way += 1;
        }
    }

    /// The way is broken: what the peer has not counted has to be sent again.
    pub(super) fn rewind(&mut self) {
        self.under_way = 0;
    }

    /// Whether the peer has everything.
    pub(super) fn is_confirmed(&self) -> bool {
        self.pieces.is_empty() && self.frames_taken == self.frames
    }

    /// How many bytes of message `m` need not stay as they are any more.
    pub(super) fn released(&mut self, m: MessageId) -> u64 {
        self.message(m).map_or(0, |message| {
            // What was copied is the caller's again at once.
            if message.counted >= message.read_until { message.taken } else { message.counted }
        })
    }

    /// Takes in the peer's counts. `confirm` hears of each write that is confirmed, and to which queue pair it went.
    pub(super) fn confirm(&mut self, counts: Counts, mut confirm: impl FnMut(usize)) -> Result<(), Failure> {
        // What was sent again carries the counts of its time, which are known already.
        let more = |now: u32, before: u64| u64::try_from(now.wrapping_sub(before as u32) as i32).unwrap_or(0);
        let closed = self.closed + more(counts.closed, self.closed);
        let slots = self.slots_free + more(counts.freed, self.slots_free);
        let frames = self.frames_taken + more(counts.frames, self.frames_taken);
        let counted = self.pieces_made - self.pieces.len() as u64;
        let pieces = counted + more(counts.pieces, counted);
        let most = [self.next, self.slots, self.frames, self.pieces_made];
        if [closed, slots, frames, pieces].iter().zip(most).any(|(count, most)| *count > most) {
            return Err(Failure::Protocol {
                what: format!(
                    "it is done with {closed} messages, {slots} slots, {frames} frames and {pieces} pieces, and was \
                     sent {most:?}"
                ),
            });
        }
        (self.closed, self.slots_free) = (closed, slots);
        debug_assert!(self.frames - self.frames_taken <= RING as u64);
        for _ in self.frames_taken..frames {
            confirm(0);
        }
        self.frames_taken = frames;
        for _ in counted..pieces {
            let Some(piece) = self.pieces.pop_front() else { break };
            if self.under_way > 0 {
                self.under_way -= 1;
                confirm(piece.pair);
            }
            self.bounces_free += u64::from(matches!(piece.origin, Origin::Bounce(_)));
            if let Some(message) = self.message(piece.message) {
                message.counted += u64::from(piece.len);
            }
        }
        Ok(())
    }
}
