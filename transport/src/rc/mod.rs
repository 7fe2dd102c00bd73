//! A link over reliable connections of RDMA devices: RoCE or InfiniBand.
//!
//! # Memory
//!
//! Each end registers one *block*: an area that the peer writes, and one from which it sends. The peer's area holds a
//! ring of *frames*, a home for each of the 32 eager messages of the window, and *slots*; `block.rs` draws it, `frame.rs`
//! draws the frames. User memory that is registered (all regions of the process's [`RegionTable`](crate::memory::RegionTable),
//! and what [`Rails::register`] was asked for) is never copied.
//!
//! # How bytes go
//!
//! Everything is an RDMA write with an immediate. The immediate completes a receive at the peer, in order on each queue
//! pair, and names what came; memory is never looked at before that completion was taken.
//!
//! ```text
//!   sender                                                  receiver
//!     |  eager(m, tag, bytes) -- into the home of m ---------> |  stays there until released
//!     |                                                        |
//!     |  open(m+1, tag, length) -- into the ring ------------> |
//!     | <--------------- into the ring -- grant(m+1, address, keys) |  once the caller opens it
//!     |  bytes ==== piece by piece, into the granted place ==> |  landed
//!     |  bytes ==== or into slots ===========================> |  if it is not registered
//!     | <------------------------------------ credit (counts) |  so the sender may have its source back
//! ```
//!
//! | source | target | copies |
//! |---|---|---|
//! | registered | registered | none |
//! | registered | not | one, out of a slot |
//! | not | registered | one, into a bounce, from which it is written to its place |
//! | not | not | two, into a slot and out of a slot; values that are computed go straight into the slot |
//!
//! Frames and eager messages travel on the first queue pair, so they keep their order. Pieces are dealt to all queue
//! pairs in turn, and counted in the order in which they were dealt, however the queue pairs overtake each other.
//!
//! # Flow control
//!
//! Nothing is written that the receiver has no room for. Every frame carries four counts of what its sender is done with
//! (messages, slots, frames, pieces); the writer of each of those knows from them which homes, slots, ring entries and
//! receive requests are free. A frame that says nothing else, a *credit*, is sent when a quarter of some room is used up
//! and when a message has come whole whose sender waits for that.
//!
//! What is written stays as it is, in the send area or in the caller's memory, until the peer has counted it: until then
//! it may have to be sent again.
//!
//! # The side socket
//!
//! The connection over which both ends met stays open. Its end says that the peer is gone, which queue pairs notice only
//! seconds later. It is looked at once in a few hundred polls, and before every sleep.
//!
//! When queue pairs fail, or a port goes down, the two ends agree over it how to go on: over fresh queue pairs, over other
//! rails, and if there are none over this socket itself. `moving.rs` says how, and why nothing is lost or late.
//!
//! # Waiting
//!
//! [`Link::watch`] names a completion channel for each rail, and the side socket. Dropping a link waits up to 20 ms until
//! the device has sent what was flushed; what the peer has not received by then is lost, so whoever drops a link first
//! needs a sign that the peer has what it needs.

#[cfg(any(test, feature = "conformance"))]
pub mod bed;
mod block;
mod error;
mod failure;
mod frame;
mod hello;
mod moving;
mod options;
mod pairs;
mod pending;
mod rails;
mod receiving;
mod registry;
mod sending;
mod side;
#[cfg(test)]
mod tests;

use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rccl_verbs::{Data, LocalKey, RemoteKey, RemoteMemory, Segment};

use crate::link::{Incoming, Kind, Limits, Link, LinkError, MessageId, Place, Result, Sink, Source, Tag};
use block::Block;
use failure::Failure;
use frame::{Arrival, ENTRY, Frame, HEADER, Target};
use moving::{Path, Strikes};
use pairs::{Arrived, KEPT, Pairs, UNCONFIRMED, Write};
use receiving::{Head, Receiving};
use registry::Known;
use sending::{Destination, Kept, Origin, Piece, Reserved, Sending, Way};
use side::Side;

pub use error::RcError;
pub use hello::Hello;
pub use options::Options;
pub use pending::Pending;
pub use rails::{RailChoice, RailDescription, Rails};
pub use registry::Registration;

/// Most rails of a link and of a process.
pub const MOST_RAILS: usize = 8;
/// Most queue pairs of a link.
pub const MOST_PAIRS: usize = 16;

/// Polls without news between two looks at the side socket.
const LOOK: u32 = 256;
/// Longest wait of a link that is dropped.
const LINGER: Duration = Duration::from_millis(20);

/// One end of a link over verbs; see the module's notes for the protocol.
pub struct RcLink {
    /// Before the block, which devices must have let go of.
    pairs: Pairs,
    block: Block,
    rails: Arc<Rails>,
    /// The rails of the process that this link uses.
    chosen: Vec<usize>,
    options: Options,
    /// Longest write that both ends' ports take.
    longest: usize,
    sending: Sending,
    receiving: Receiving,
    known: Known,
    side: Side,
    path: Path,
    /// How many ways this link has had before this one.
    epoch: u32,
    /// The last epoch for which the peer's queue pairs take writes.
    peer_ready: Option<u32>,
    /// By place.
    strikes: [Strikes; MOST_RAILS],
    /// Flushes, where faults are to be made.
    flushes: u32,
    /// Polls since the side socket was looked at.
    polls: u32,
    /// The peer is gone; what had arrived is still good.
    ended: Option<Failure>,
    /// Nothing works any more.
    failed: Option<Failure>,
}

impl RcLink {
    fn new(pending: Pending, peer: &Hello, side: TcpStream) -> std::result::Result<RcLink, RcError> {
        let Pending { rails, chosen, options, block, pairs } = pending;
        let own = chosen.iter().map(|&rail| rails.rails[rail].port.max_message);
        let theirs = peer.rails.iter().map(|rail| rail.longest);
        let ports = own.chain(theirs).min().unwrap_or(0) as usize;
        if ports < options.slot {
            let what = format!("ports take {ports} bytes in a message, a slot has {}", options.slot);
            return Err(RcError::Options { what });
        }
        let longest = options.piece.min(ports);
        let under_way = pairs.len() * UNCONFIRMED;
        let mut side = Side::new(side, options.piece.max(options.slot).max(HEADER + options.eager));
        side.say_ready(0);
        side.flush().map_err(|failure| RcError::Io {
            during: "greeting over the side socket",
            source: match failure {
                Failure::System { errno, .. } => errno.into(),
                _ => std::io::ErrorKind::ConnectionReset.into(),
            },
        })?;
        let (slots, bounces) = (block.layout.slots, block.layout.bounces);
        Ok(RcLink {
            pairs,
            block,
            rails,
            chosen,
            options,
            longest,
            sending: Sending::new(under_way),
            // A slot that was reserved is filled even if all others went out meanwhile.
            receiving: Receiving::new(under_way + 1, slots, bounces),
            known: Known::new(),
            side,
            path: Path::Pairs,
            epoch: 0,
            peer_ready: None,
            strikes: [Strikes::default(); MOST_RAILS],
            flushes: 0,
            polls: 0,
            ended: None,
            failed: None,
        })
    }

    /// How often this link has had to move to another way, because queue pairs or ports failed.
    pub fn moves(&self) -> u32 {
        self.epoch
    }

    /// The rails that it uses now; none if it goes over TCP, or is moving.
    pub fn rails(&self) -> Vec<RailDescription> {
        self.pairs.places().map(|place| self.rails.rails[self.chosen[place]].describe()).collect()
    }

    // ---- what comes ----

    /// Takes in all writes that are complete; `true` if there were any.
    fn take_in(&mut self) -> std::result::Result<bool, Failure> {
        let mut news = false;
        while let Some(arrived) = self.pairs.next()? {
            self.arrive(arrived)?;
            news = true;
        }
        if news {
            self.pairs.post_again()?;
        }
        Ok(news)
    }

    fn arrive(&mut self, Arrived { immediate, bytes }: Arrived) -> std::result::Result<(), Failure> {
        let (arrival, number) = frame::announced(immediate, |arrival| self.receiving.expected(arrival));
        match arrival {
            Arrival::Frame => {
                self.receiving.frame(number)?;
                let frame = self.read_frame(self.block.layout.frame(number), ENTRY)?;
                self.take_frame(&frame)
            }
            Arrival::Eager(message) => {
                self.receiving.frame(number)?;
                let frame = self.read_frame(self.block.layout.home(message as u64), HEADER)?;
                let fits =
                    frame.kind == frame::Kind::Eager && u64::from(bytes) == HEADER as u64 + frame.length;
                if !fits || frame.message % crate::link::WINDOW as u64 != message as u64 {
                    let what =
                        format!("{bytes} bytes for message {message} of the window, which say {frame:?}");
                    return Err(Failure::Protocol { what });
                }
                self.take_frame(&frame)
            }
            Arrival::Slot(_) | Arrival::Landed(_) => {
                let staged = self.receiving.piece(arrival, number, bytes)?;
                if staged > 0 {
                    self.rails.count_staged(staged);
                }
                Ok(())
            }
        }
    }

    /// Reads the first `len` bytes of the frame at an offset of the receive area.
    fn read_frame(&self, offset: usize, len: usize) -> std::result::Result<Frame, Failure> {
        let mut bytes = [0; ENTRY];
        // SAFETY: an entry or a home has `len` bytes, at most those of an entry; the write that filled it is complete,
        // and the peer does not write there again before it is told that the frame was taken. Should it do so against
        // the protocol, the copy is of any bytes, which are checked.
        unsafe { std::ptr::copy_nonoverlapping(self.block.at(offset), bytes.as_mut_ptr(), len) };
        frame::decode(&bytes, self.options.eager).map_err(|what| Failure::Protocol { what })
    }

    fn take_frame(&mut self, frame: &Frame) -> std::result::Result<(), Failure> {
        let Frame { kind, message, tag, length, counts, target } = *frame;
        let pairs = &mut self.pairs;
        self.sending.confirm(counts, |pair| pairs.confirm(pair))?;
        match kind {
            frame::Kind::Eager => self.receiving.announce(message, tag, length, Head::Eager),
            frame::Kind::Open => self.receiving.announce(message, tag, length, Head::Open),
            frame::Kind::Grant => self.sending.grant(message, tag, length, target),
            frame::Kind::Credit => Ok(()),
        }
    }

    /// Looks at the side socket; `true` if the peer has said anything.
    fn look(&mut self) -> std::result::Result<bool, Failure> {
        self.polls = 0;
        if self.ended.is_some() {
            return Ok(false);
        }
        let listened = self.side.flush().and(self.side.listen());
        let news = self.hear()?;
        match listened {
            Err(closed @ Failure::Closed { .. }) => self.ended = Some(closed),
            listened => listened?,
        }
        Ok(news)
    }

    /// Sends what waits for the side socket; its end is noticed elsewhere.
    fn flush_side(&mut self) -> std::result::Result<(), Failure> {
        match self.side.flush() {
            Err(Failure::Closed { .. }) => Ok(()),
            flushed => flushed,
        }
    }

    /// The failure of a rail in use whose device says that it does not work.
    fn lost_rail(&self) -> Option<Failure> {
        let mut used = self.pairs.places().map(|place| &self.rails.rails[self.chosen[place]]);
        let rail = used.find(|rail| rail.is_down())?;
        Some(Failure::Verbs {
            during: "watching the port",
            device: rail.context.name().into(),
            queue_pair: None,
            what: format!(
                "port {} went down: is its network interface up, and the cable plugged in?",
                rail.port.number
            ),
        })
    }

    /// Whether the peer's queue pairs take writes.
    fn is_ready(&self) -> bool {
        self.peer_ready == Some(self.epoch)
    }

    // ---- what goes ----

    /// Whether a frame can be made; `counts_only` may use what is kept for it.
    fn takes_frame(&self, counts_only: bool) -> bool {
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
    fn takes_piece(&self) -> bool {
        self.sending.takes_piece()
            && match self.path {
                Path::Pairs => self.pairs.has_room(),
                Path::Moving(_) => false,
                Path::Socket => self.side.has_room(),
            }
    }

    /// Adds a frame for the ring; there must be room.
    fn add_frame(
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
    fn transmit_frame(&mut self, number: u64) {
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
    fn transmit_waiting(&mut self) {
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
                keys.map(|keys| keys.local[self.chosen[place]])
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
    /// As for [`Link::post`].
    unsafe fn add_piece(
        &mut self,
        m: MessageId,
        from: *const u8,
        len: usize,
        target: Option<Target>,
    ) -> std::result::Result<usize, Failure> {
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

    // ---- failures ----

    /// An error if the link is broken, or if the peer is gone and nothing that is whole is left to be consumed.
    fn check(&self) -> Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        match &self.ended {
            Some(failure) if self.sending.is_busy() || !self.receiving.has_whole() => Err(failure.into()),
            _ => Ok(()),
        }
    }

    fn check_can_send(&self) -> Result<()> {
        match self.failed.as_ref().or(self.ended.as_ref()) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    #[cold]
    fn fail<T>(&mut self, failure: Failure) -> Result<T> {
        if matches!(failure, Failure::Misuse { .. }) {
            // A caller's mistake harms nothing, the link stays as it is.
            return Err(failure.into());
        }
        self.pairs.destroy();
        let error = LinkError::from(&failure);
        self.failed = Some(failure);
        Err(error)
    }

    /// Moves on after the device has refused a request: what has completed says more.
    #[cold]
    fn refused(&mut self, failure: Failure) -> Result<()> {
        let failure = match self.take_in() {
            Err(cause @ Failure::Verbs { .. }) => cause,
            _ => failure,
        };
        self.broken(failure)
    }

    fn misused<T>(&mut self, what: &str, m: MessageId) -> Result<T> {
        self.fail(Failure::Misuse { what: format!("{what} (message {m})") })
    }
}

fn place_in_window(m: MessageId) -> usize {
    m as usize % crate::link::WINDOW
}

fn no_slots(m: MessageId, target: bool) -> Failure {
    let whose = if target { "receiver's" } else { "sender's" };
    Failure::Misuse {
        what: format!(
            "message {m} needs a slot, because the {whose} memory is not registered, but staging is disabled (0 slots): \
             use memory that the library has allocated or registered, or allow slots"
        ),
    }
}

impl Link for RcLink {
    fn kind(&self) -> Kind {
        Kind::Verbs
    }

    fn limits(&self) -> Limits {
        Limits { eager: self.options.eager, unasked: self.options.eager, slot: self.options.slot }
    }

    fn poll(&mut self) -> Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        if self.receiving.is_due() {
            // Nobody flushed since: a caller that only receives need not.
            self.flush()?;
        }
        self.polls += 1;
        // What the peer had sent is complete here before its end is seen, so it is looked for after that.
        if self.polls >= LOOK || !self.is_ready() || !matches!(self.path, Path::Pairs) {
            if let Err(failure) = self.look() {
                return self.fail(failure);
            }
            if let Some(lost) = self.lost_rail() {
                self.broken(lost)?;
            }
        }
        match self.take_in() {
            Ok(true) => self.polls = 0,
            Ok(false) => {}
            // The peer's queue pairs are gone with it; what had come before is still good.
            Err(Failure::Verbs { .. }) if self.ended.is_some() => {}
            Err(failure) => self.broken(failure)?,
        }
        self.transmit_waiting();
        self.check()
    }

    fn flush(&mut self) -> Result<()> {
        if self.failed.is_some() || self.ended.is_some() {
            return self.check();
        }
        if self.receiving.is_due() && self.takes_frame(true) {
            self.add_frame(frame::Kind::Credit, 0, Tag::default(), 0, None);
        }
        if matches!(self.path, Path::Pairs)
            && !self.is_ready()
            && let Err(failure) = self.look()
        {
            return self.fail(failure);
        }
        match self.path {
            Path::Pairs if self.is_ready() => {
                self.make_fault();
                if let Err(failure) = self.pairs.flush() {
                    return self.refused(failure);
                }
            }
            Path::Pairs | Path::Moving(_) => {}
            Path::Socket => {
                if let Err(failure) = self.flush_side() {
                    return self.fail(failure);
                }
            }
        }
        Ok(())
    }

    fn drained(&self) -> bool {
        let flushed = match self.path {
            Path::Pairs => self.pairs.is_flushed(),
            Path::Moving(_) => self.sending.is_confirmed(),
            Path::Socket => self.side.is_flushed(),
        };
        let nothing_waits = flushed && self.sending.next_waiting().is_none() && !self.receiving.is_due();
        self.failed.is_some() || self.ended.is_some() || nothing_waits
    }

    unsafe fn send_eager(&mut self, tag: Tag, bytes: *const u8, len: usize) -> Result<bool> {
        self.check_can_send()?;
        let m = self.sending.next;
        if len > self.options.eager {
            return self.misused("an eager message above the eager limit", m);
        }
        if !self.sending.window_is_open() || !self.sending.has_place() || !self.takes_frame(false) {
            return Ok(false);
        }
        let number = self.sending.next_frame(Kept { eager: Some(m), len: HEADER + len });
        self.sending.next += 1;
        let counts = self.receiving.tell();
        let length = len as u64;
        let head = Frame { kind: frame::Kind::Eager, message: m, tag, length, counts, target: None };
        let (head, _) = frame::encode(&head);
        let to = self.block.at(self.block.layout.sending(self.block.layout.home(m)));
        // SAFETY: a home holds the frame and an eager message; the peer is done with what was in it before, so the device
        // does not read it.
        unsafe { std::ptr::copy_nonoverlapping(head.as_ptr(), to, HEADER) };
        // SAFETY: as above; the caller vouches for `len` readable bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes, to.wrapping_add(HEADER), len) };
        self.transmit_frame(number);
        Ok(true)
    }

    fn open_send(&mut self, tag: Tag, len: u64, source: Option<Place>) -> Result<Option<MessageId>> {
        self.check_can_send()?;
        if !self.sending.window_is_open() || !self.sending.has_place() || !self.takes_frame(false) {
            return Ok(None);
        }
        let registered = self.registered(source, len).is_some();
        let m = self.sending.open(tag, len, registered);
        self.add_frame(frame::Kind::Open, m, tag, len, None);
        Ok(Some(m))
    }

    fn sink(&mut self, m: MessageId) -> Result<Sink> {
        self.check()?;
        match self.sending.sink(m) {
            Some(sink) => Ok(sink),
            None => self.misused("asked for the sink of a message that is not open", m),
        }
    }

    fn reserve(&mut self, m: MessageId, len: usize) -> Result<Option<*mut u8>> {
        self.check_can_send()?;
        let layout = self.block.layout;
        if len > self.options.slot {
            return self.misused("a slot is longer than the limit", m);
        }
        if self.sending.leaving(m, Way::Staged).is_none() {
            return self.misused("reserved a slot for a message that is not staged", m);
        }
        if layout.slots == 0 {
            return self.fail(no_slots(m, true));
        }
        let room = self.sending.reserved.is_none() && self.takes_piece();
        if !room || !self.sending.may_stage(m) || !self.sending.has_slot(&layout) {
            return Ok(None);
        }
        self.sending.reserved = Some(Reserved { message: m, len });
        Ok(Some(self.block.at(layout.sending(layout.slot(self.sending.slots)))))
    }

    fn commit(&mut self, m: MessageId, len: usize) -> Result<()> {
        self.check_can_send()?;
        let Some(Reserved { message, len: most }) = self.sending.reserved else {
            return self.misused("committed without a reservation", m);
        };
        if message != m || len > most {
            return self.misused("committed another message or more bytes than were reserved", m);
        }
        self.sending.reserved = None;
        if len == 0 {
            return Ok(());
        }
        let offset = self.block.layout.slot(self.sending.slots);
        let (origin, destination) =
            (Origin::Slot(self.block.layout.sending(offset)), Destination::Slot(offset));
        self.rails.count_staged(len);
        self.sending.add_piece(Piece { message: m, len: len as u32, origin, destination, pair: 0 });
        self.transmit_waiting();
        Ok(())
    }

    unsafe fn write(&mut self, m: MessageId, _at: u64, _bytes: *const u8, _len: usize) -> Result<usize> {
        self.misused("no message of a link over verbs is written while a call lasts", m)
    }

    fn wrote(&mut self, m: MessageId, _total: u64) -> Result<()> {
        self.misused("no message of a link over verbs is written in place by its caller", m)
    }

    unsafe fn post(&mut self, m: MessageId, at: u64, bytes: *const u8, len: usize) -> Result<usize> {
        self.check_can_send()?;
        let Some(message) = self.sending.leaving(m, Way::Posted) else {
            return self.misused("posted to a message whose sink is not posted", m);
        };
        if message.taken != at {
            return self.misused("posted bytes that went before, or left some out", m);
        }
        let len = (len as u64).min(message.len - at) as usize;
        let mut done = 0;
        while done < len {
            // SAFETY: passed on; the rest of the caller's bytes.
            let went = unsafe { self.add_piece(m, bytes.wrapping_add(done), len - done, message.target) };
            match went {
                Ok(0) => break,
                Ok(went) => done += went,
                Err(failure) => return self.fail(failure),
            }
        }
        Ok(done)
    }

    fn released(&mut self, m: MessageId) -> u64 {
        self.sending.released(m)
    }

    fn close_send(&mut self, m: MessageId) {
        self.sending.close(m);
    }

    fn open_recv(
        &mut self,
        tag: Tag,
        len: u64,
        eager: bool,
        target: Option<Place>,
    ) -> Result<Option<MessageId>> {
        self.check()?;
        let Some(m) = self.receiving.room() else { return Ok(None) };
        let granted = !eager && len > self.options.eager as u64;
        if !granted || self.ended.is_some() {
            self.receiving.open(len, granted, None);
            return Ok(Some(m));
        }
        if !self.takes_frame(false) {
            return Ok(None);
        }
        let target = self.registered(target, len);
        self.receiving.open(len, true, target.map(|target| target.address));
        self.add_frame(frame::Kind::Grant, m, tag, len, target);
        Ok(Some(m))
    }

    fn incoming(&mut self, m: MessageId) -> Result<Option<Incoming>> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        let Some(message) = self.receiving.message(m) else {
            return self.misused("asked for the head of a message that is not open", m);
        };
        if !self.receiving.is_announced(m) {
            return Ok(None);
        }
        let source = match message.head {
            Head::Eager => Source::Eager(self.block.at(self.block.layout.home(m) + HEADER)),
            _ if message.lands() => Source::Landing,
            _ => Source::Staged,
        };
        Ok(Some(Incoming { tag: message.tag, len: Some(message.announced), source }))
    }

    fn peek(&mut self, m: MessageId) -> Result<Option<(*const u8, usize)>> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        let layout = &self.block.layout;
        Ok(self.receiving.front(m).map(|(turn, used, left)| {
            let bytes = self.block.at(layout.slot(turn) + used as usize);
            (bytes.cast_const(), left as usize)
        }))
    }

    unsafe fn read(&mut self, m: MessageId, _at: u64, _bytes: *mut u8, _len: usize) -> Result<usize> {
        self.misused("no message of a link over verbs is read", m)
    }

    fn landed(&mut self, m: MessageId) -> u64 {
        self.receiving.landed(m)
    }

    fn release(&mut self, m: MessageId, total: u64) -> Result<()> {
        if !self.receiving.release(m, total) {
            return self.misused("released a message that is not open", m);
        }
        Ok(())
    }

    fn close_recv(&mut self, m: MessageId) {
        self.receiving.close(m);
    }

    fn arm(&mut self) -> bool {
        if self.failed.is_some() {
            return false;
        }
        match self.look() {
            Ok(false) if self.ended.is_none() => {}
            Ok(_) => return false,
            Err(failure) => {
                // The next poll says so.
                let _ = self.fail::<()>(failure);
                return false;
            }
        }
        // What fails here is reported by the next poll.
        self.pairs.arm().is_ok() && !self.pairs.has_news()
    }

    fn disarm(&mut self) {
        self.pairs.disarm();
        // Whoever slept may have been woken by the side socket.
        self.polls = LOOK;
    }

    fn watch(&self, add: &mut dyn FnMut(BorrowedFd<'_>, bool)) {
        for channel in self.pairs.channels() {
            add(channel.fd(), false);
        }
        add(self.side.socket().as_fd(), !self.side.is_flushed());
    }
}

impl RcLink {
    /// Where the peer's devices find `len` bytes at a place, if they can.
    fn registered(&mut self, place: Option<Place>, len: u64) -> Option<Target> {
        let place = place?;
        let first: *const u8 = match self.rails.registry.address(place) {
            Some(first) => first,
            None => std::ptr::with_exposed_provenance(place.offset() as usize),
        };
        let keys = self.known.find(&self.rails, first, usize::try_from(len).ok()?)?;
        let mut target = Target { address: first.expose_provenance() as u64, keys: [0; MOST_RAILS] };
        for (key, &rail) in target.keys.iter_mut().zip(&self.chosen) {
            *key = keys.remote[rail].0;
        }
        Some(target)
    }

    /// Puts a queue pair into the error state where that was asked for.
    fn make_fault(&mut self) {
        let every = self.options.fault_every;
        if every > 0 {
            self.flushes += 1;
            if self.flushes.is_multiple_of(every) {
                self.pairs.fail((self.flushes / every) as usize);
            }
        }
    }

    /// Until what was flushed has left, but not for long.
    fn linger(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < LINGER {
            let left = match self.path {
                Path::Pairs if !self.is_ready() => return,
                Path::Pairs => self.pairs.is_quiet().unwrap_or(true) || self.pairs.next().is_err(),
                Path::Moving(_) => return,
                // What was read leaves nothing behind for which the system would discard what is on its way out.
                Path::Socket => self.look().is_err() || self.ended.is_some() || self.side.is_flushed(),
            };
            if left {
                return;
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for RcLink {
    fn drop(&mut self) {
        if self.failed.is_none() && self.ended.is_none() {
            self.linger();
        }
    }
}
