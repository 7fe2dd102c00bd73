//! What goes: frames and pieces are made in the send area or taken from registered memory, and sent on whatever way the
//! link has.

use rccl_verbs::{Data, LocalKey, RemoteKey, RemoteMemory, Segment};

use super::failure::Failure;
use super::frame::{self, Arrival, ENTRY, Frame, Target};
use super::moving::Path;
use super::pair::{KEPT, Write};
use super::sending::{Destination, Kept, Origin, Piece};
use super::{MOST_RAILS, RcLink, no_slots};
use crate::link::{MessageId, Place, Tag, WINDOW};

impl RcLink {
    /// Whether a frame can be made; `counts_only` may use what is kept for it.
    pub(super) fn takes_frame(&self, counts_only: bool) -> bool {
        match self.path {
            Path::Pairs => self.pairs.takes_frame(counts_only),
            Path::Moving(_) => false,
            Path::Socket => {
                let frames = self.sending.frames();
                let most = frame::RING as u64 - if counts_only { 0 } else { KEPT as u64 };
                frames.end - frames.start < most && (counts_only || self.side.has_room())
            }
        }
    }

    /// Whether a piece can be made and sent at once.
    pub(super) fn takes_piece(&self) -> bool {
        self.sending.takes_piece()
            && match self.path {
                Path::Pairs => self.pairs.has_room(),
                Path::Moving(_) => false,
                Path::Socket => self.side.has_room(),
            }
    }

    /// Adds a frame for the ring; there must be room.
    pub(super) fn add_frame(
        &mut self,
        kind: frame::Kind,
        message: MessageId,
        tag: Tag,
        length: u64,
        target: Option<Target>,
    ) {
        let counts = self.receiving.tell();
        let (bytes, len) = frame::encode(&Frame { kind, message, tag, length, counts, target });
        let number = self.sending.next_frame(Kept { eager: None, len });
        let to = self.block.at(self.block.layout.sending(self.block.layout.frame(number)));
        // SAFETY: the entry has `ENTRY` bytes, and the peer has taken the frame that was there before, so nobody reads it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, ENTRY) };
        self.transmit_frame(number);
    }

    /// Sends frame `number`, which lies in the send area.
    pub(super) fn transmit_frame(&mut self, number: u64) {
        let Kept { eager, len } = self.sending.frame(number);
        let (offset, arrival) = match eager {
            Some(m) => (self.block.layout.home(m), Arrival::Eager(place_in_window(m))),
            None => (self.block.layout.frame(number), Arrival::Frame),
        };
        let immediate = frame::immediate(arrival, number);
        let from = self.block.layout.sending(offset);
        // SAFETY: the bytes lie in the send area, which only this end writes, and not before the peer has taken the frame.
        let bytes = unsafe { std::slice::from_raw_parts(self.block.at(from), len) };
        if matches!(self.path, Path::Socket) {
            self.side.say_write(immediate, bytes);
            return;
        }
        let to = self.pairs.target(0).offset(offset as u64);
        if len <= self.pairs.inline(0) {
            self.pairs.add(0, &Write { data: Data::Inline(bytes), to, immediate });
        } else {
            let segment = self.block.region(self.pairs.place(0)).segment(from..from + len);
            self.pairs.add(0, &Write { data: Data::Gather(&[segment]), to, immediate });
        }
    }

    /// Sends the pieces that wait, as far as there is room.
    pub(super) fn transmit_waiting(&mut self) {
        while let Some((piece, number)) = self.sending.next_waiting() {
            let pair = match self.path {
                Path::Pairs => self.pairs.choose(),
                Path::Moving(_) => None,
                Path::Socket => self.side.has_room().then_some(0),
            };
            let Some(pair) = pair else { return };
            self.transmit_piece(pair, &piece, number);
            self.sending.sent(pair);
        }
    }

    fn transmit_piece(&mut self, pair: usize, piece: &Piece, number: u64) {
        let &Piece { message, len, origin, destination, .. } = piece;
        let message = place_in_window(message);
        let arrival = match destination {
            Destination::Slot(_) => Arrival::Slot(message),
            Destination::Place(_) => Arrival::Landed(message),
        };
        let immediate = frame::immediate(arrival, number);
        let from: *const u8 = match origin {
            Origin::Slot(at) | Origin::Bounce(at) => self.block.at(at),
            Origin::Memory(address) => std::ptr::with_exposed_provenance(address),
        };
        if matches!(self.path, Path::Socket) {
            // SAFETY: the bytes are of the send area, or of the caller's, who keeps them as they are until the peer has
            // counted them.
            let bytes = unsafe { std::slice::from_raw_parts(from, len as usize) };
            self.side.say_write(immediate, bytes);
            return;
        }
        let place = self.pairs.place(pair);
        let key = match origin {
            Origin::Slot(_) | Origin::Bounce(_) => Some(self.block.region(place).local_key()),
            Origin::Memory(_) => {
                let keys = self.known.find(&self.rails, from, len as usize);
                keys.map(|keys| keys.local[self.chosen[place].rail])
            }
        };
        // Memory that was taken from the devices meanwhile, against the contract, is refused by them.
        let segment = Segment::new(from.expose_provenance() as u64, len, key.unwrap_or(LocalKey(0)));
        let to = match destination {
            Destination::Slot(offset) => self.pairs.target(pair).offset(offset as u64),
            Destination::Place(Target { address, keys }) => {
                RemoteMemory { address, key: RemoteKey(keys[place]) }
            }
        };
        self.pairs.add(pair, &Write { data: Data::Gather(&[segment]), to, immediate });
    }

    /// Takes the next piece of a posted message, as much of `len` bytes at `from` as one write takes. 0: not now.
    ///
    /// # Safety
    /// As for [`Link::post`](crate::Link::post).
    pub(super) unsafe fn add_piece(
        &mut self,
        m: MessageId,
        from: *const u8,
        len: usize,
        target: Option<Target>,
    ) -> Result<usize, Failure> {
        let layout = self.block.layout;
        let keys = self.known.find(&self.rails, from, len);
        let most = if keys.is_some() && target.is_some() { self.longest } else { self.options.slot };
        let len = len.min(most);
        let room = match target {
            None => self.sending.may_stage(m) && self.sending.has_slot(&layout),
            Some(_) => keys.is_some() || self.sending.has_bounce(&layout),
        };
        if !room && layout.slots == 0 && (target.is_none() || keys.is_none()) {
            return Err(no_slots(m, target.is_none()));
        }
        if !room || !self.takes_piece() {
            return Ok(0);
        }
        let destination = match target {
            Some(Target { address, keys }) => {
                let already = self.sending.message(m).map_or(0, |message| message.taken);
                Destination::Place(Target { address: address.wrapping_add(already), keys })
            }
            None => Destination::Slot(layout.slot(self.sending.slots)),
        };
        let origin = match (keys, destination) {
            (Some(_), _) => Origin::Memory(from.expose_provenance()),
            (None, Destination::Place(_)) => Origin::Bounce(layout.bounce(self.sending.bounces)),
            (None, Destination::Slot(at)) => Origin::Slot(layout.sending(at)),
        };
        if let Origin::Bounce(at) | Origin::Slot(at) = origin {
            // SAFETY: `len` bytes are readable as the caller promises; the slot or bounce has as many, and nobody else
            // uses it.
            unsafe { std::ptr::copy_nonoverlapping(from, self.block.at(at), len) };
        }
        if target.is_none() || keys.is_none() {
            self.rails.count_staged(len);
        }
        self.sending.add_piece(Piece { message: m, len: len as u32, origin, destination, pair: 0 });
        self.transmit_waiting();
        Ok(len)
    }

    /// Where the peer's devices find `len` bytes at a place, if they can.
    pub(super) fn registered(&mut self, place: Option<Place>, len: u64) -> Option<Target> {
        let place = place?;
        let first: *const u8 = match self.rails.registry.address(place) {
            Some(first) => first,
            None => std::ptr::with_exposed_provenance(place.offset() as usize),
        };
        let keys = self.known.find(&self.rails, first, usize::try_from(len).ok()?)?;
        let mut target = Target { address: first.expose_provenance() as u64, keys: [0; MOST_RAILS] };
        for (key, address) in target.keys.iter_mut().zip(&self.chosen) {
            *key = keys.remote[address.rail].0;
        }
        Some(target)
    }
}

pub(super) fn place_in_window(m: MessageId) -> usize {
    m as usize % WINDOW
}
