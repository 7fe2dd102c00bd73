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
//! When queue pairs fail, a port goes down, an address gets another place in its port's table, or a device says nothing of
//! what it was given for longer than all retries take, the two ends agree over it how to go on: over fresh queue pairs,
//! over other rails, and if there are none over this socket itself. `moving.rs` says how, and why nothing is lost or late.
//! Both ends take part by polling: while one does not, the other waits. A link does not return to a rail that it has left
//! by itself, only when it moves again.
//!
//! # Waiting
//!
//! [`Link::watch`](link::Link::watch) names a completion channel for each rail, and the side socket. Dropping a link waits
//! up to 20 ms until the device has sent what was flushed; what the peer has not received by then is lost, so whoever drops
//! a link first needs a sign that the peer has what it needs.

#[cfg(any(test, feature = "conformance"))]
pub mod bed;
mod block;
mod coming;
mod contract;
mod error;
mod failure;
mod frame;
mod going;
mod hello;
mod moving;
mod options;
mod pair;
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
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::link::{self, LinkError, MessageId};
use block::Block;
use failure::Failure;
use frame::HEADER;
use moving::{Path, Strikes};
use pair::UNCONFIRMED;
use pairs::Pairs;
use rails::Address;
use receiving::Receiving;
use registry::Known;
use sending::Sending;
use side::Side;

pub use error::RcError;
pub use hello::Hello;
pub use options::Options;
pub use pending::{Connected, Pending};
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
    /// The addresses that this link uses, one for each of its rails.
    chosen: Vec<Address>,
    options: Options,
    /// Longest write that both ends' ports take.
    longest: usize,
    /// How long devices may take to say what became of a write.
    patience: Duration,
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
    fn new(pending: Pending, peer: &Hello, side: TcpStream) -> Result<RcLink, RcError> {
        let Pending { rails, chosen, options, block, pairs } = pending;
        let own = chosen.iter().map(|address| rails.of(address).port.max_message);
        let theirs = peer.rails.iter().map(|rail| rail.longest);
        let ports = own.chain(theirs).min().unwrap_or(0) as usize;
        if ports < options.slot {
            let what = format!("ports take {ports} bytes in a message, a slot has {}", options.slot);
            return Err(RcError::Options { what });
        }
        let longest = options.piece.min(ports);
        let software = chosen.iter().all(|address| rails.of(address).software);
        let patience = options.patience(software);
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
            patience,
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
        self.pairs
            .places()
            .map(|place| {
                let address = &self.chosen[place];
                self.rails.of(address).describe(&address.gid)
            })
            .collect()
    }

    /// Looks at the side socket; `true` if the peer has said anything.
    fn look(&mut self) -> Result<bool, Failure> {
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
    fn flush_side(&mut self) -> Result<(), Failure> {
        match self.side.flush() {
            Err(Failure::Closed { .. }) => Ok(()),
            flushed => flushed,
        }
    }

    /// A failure that an event of the devices tells of: a port that is down, an address that is not where it was.
    fn lost(&mut self) -> Option<Failure> {
        self.lost_rail().or_else(|| self.pairs.displaced(&self.rails, &self.chosen))
    }

    /// The failure of a rail in use whose device says that it does not work.
    fn lost_rail(&self) -> Option<Failure> {
        let mut used = self.pairs.places().map(|place| self.rails.of(&self.chosen[place]));
        let rail = used.find(|rail| rail.is_down())?;
        Some(Failure::Verbs {
            during: "watching the port",
            device: rail.context.name().into(),
            queue_pair: None,
            what: format!("port {} went down: {}", rail.port.number, rails::CABLE),
        })
    }

    /// Whether the peer's queue pairs take writes.
    fn is_ready(&self) -> bool {
        self.peer_ready == Some(self.epoch)
    }

    /// An error if the link is broken, or if the peer is gone and nothing that is whole is left to be consumed.
    fn check(&self) -> link::Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        match &self.ended {
            Some(failure) if self.sending.is_busy() || !self.receiving.has_whole() => Err(failure.into()),
            _ => Ok(()),
        }
    }

    fn check_can_send(&self) -> link::Result<()> {
        match self.failed.as_ref().or(self.ended.as_ref()) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    #[cold]
    fn fail<T>(&mut self, failure: Failure) -> link::Result<T> {
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
    fn refused(&mut self, failure: Failure) -> link::Result<()> {
        let failure = match self.take_in() {
            Err(cause @ Failure::Verbs { .. }) => cause,
            _ => failure,
        };
        self.broken(failure)
    }

    fn misused<T>(&mut self, what: &str, m: MessageId) -> link::Result<T> {
        self.fail(Failure::Misuse { what: format!("{what} (message {m})") })
    }

    /// Makes a failure where that was asked for: a queue pair comes into the error state, or, every third time, a frame is
    /// sent twice.
    fn make_fault(&mut self) {
        let every = self.options.fault_every;
        if every > 0 {
            self.flushes = self.flushes.wrapping_add(1);
            if self.flushes.is_multiple_of(every) {
                let fault = self.flushes / every;
                let last = self.sending.frames().last();
                match last.filter(|_| fault.is_multiple_of(3) && self.takes_frame(true)) {
                    Some(number) => self.transmit_frame(number),
                    None => self.pairs.fail(fault as usize),
                }
            }
        }
    }

    /// As [`Options::fault_every`], once, after so many flushes.
    #[cfg(test)]
    fn fail_after(&mut self, flushes: u32) {
        (self.options.fault_every, self.flushes) = (u32::MAX, u32::MAX - flushes);
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

fn no_slots(m: MessageId, target: bool) -> Failure {
    let whose = if target { "receiver's" } else { "sender's" };
    Failure::Misuse {
        what: format!(
            "message {m} needs a slot, because the {whose} memory is not registered, but staging is disabled (0 slots): \
             use memory that the library has allocated or registered, or allow slots"
        ),
    }
}
