//! What happens when queue pairs fail: the link goes on over fresh ones, over other rails, or over the side socket.
//!
//! Nothing of a message belongs to a queue pair: frames, pieces and slots are numbered for the link, and what the peer has
//! not counted is still in the send area or in the caller's memory. So a failure costs time, not bytes:
//!
//! ```text
//!   end that sees a failure                                 its peer
//!     |  takes in what is complete, then destroys all queue pairs of epoch e
//!     |  move(e + 1, counts, offer) --- side socket ------> |  takes in what is complete, destroys its own
//!     | <------------- side socket --- move(e + 1, counts, offer) |
//!     |  forgets what the peer has counted                  |  the same
//!     |  connects what both have offered                    |  the same
//!     |  ready(e + 1) ----------------- side socket ------> |
//!     | <------------- side socket -------- ready(e + 1) -- |
//!     |  sends again: frames, then pieces, from the first that was not counted
//! ```
//!
//! Both ends may see a failure at once; then their moves cross, which comes to the same. An end that cannot connect moves
//! on to the next epoch.
//!
//! A write that comes twice, or before an earlier one, is a failure of the device like others. Soft-RoCE (of Linux 6.1)
//! delivers a write twice now and then when it sends again what was lost: of 15 failures of an all_reduce whose packets
//! were dropped for a second at a time, two were followed by such a write, which the sender had posted once.
//!
//! A write that is late cannot do harm: an end sends again only after its peer has destroyed the queue pairs on which the
//! first try could still arrive; and it gives memory back to its user only once the peer has counted what was read from
//! it, or it has counted itself all that was written to it.
//!
//! An end offers fresh queue pairs on each rail whose port is active and has its address, unless the rail has failed too
//! often within a minute ([`Options::rail_failures`](super::Options)), whichever end has seen it. Both use the rails that
//! both have offered. If there are none, both put writes on the side socket as records, for as long as the link lives: that
//! is TCP, at the price of two copies.

use std::time::{Duration, Instant};

use super::RcLink;
use super::failure::Failure;
use super::frame::{self, Arrival, ENTRY, HEADER};
use super::pairs::{Arrived, Pairs};
use super::pending::greeting;
use super::side::{Move, Record};
use crate::link;

/// Failures of a rail that are longer ago do not count.
const MINUTE: Duration = Duration::from_secs(60);

/// How bytes go.
pub(super) enum Path {
    /// By queue pairs.
    Pairs,
    /// Not now: the ends are agreeing on another way.
    Moving(Box<Moving>),
    /// As records on the side socket.
    Socket,
}

/// What this end is doing between two ways.
pub(super) struct Moving {
    /// Fresh queue pairs, which the peer was told.
    offer: Option<Pairs>,
    /// Why rails are not among them, in words.
    left: String,
    /// Rails of which this end has seen a queue pair fail, a bit each.
    failed: u32,
    /// The failure that this end has seen, if it was the first.
    why: Option<Failure>,
    since: Instant,
}

/// How often a rail has failed lately.
#[derive(Clone, Copy, Default)]
pub(super) struct Strikes {
    count: u32,
    last: Option<Instant>,
}

impl Strikes {
    fn add(&mut self) {
        self.count = self.lately() + 1;
        self.last = Some(Instant::now());
    }

    fn lately(self) -> u32 {
        if self.last.is_some_and(|last| last.elapsed() < MINUTE) { self.count } else { 0 }
    }
}

impl RcLink {
    /// A device has failed this end: the link moves, unless the peer is gone.
    #[cold]
    pub(super) fn broken(&mut self, failure: Failure) -> link::Result<()> {
        if !matches!((&failure, &self.path), (Failure::Verbs { .. }, Path::Pairs)) {
            return self.fail(failure);
        }
        // A peer that is gone is the cause, and what the device says the consequence; and the peer may have moved first.
        let epoch = self.epoch;
        if let Err(failure) = self.look() {
            return self.fail(failure);
        }
        if self.ended.is_some() {
            // What had come before is still good.
            return match self.salvage() {
                Ok(()) => self.check(),
                Err(failure) => self.fail(failure),
            };
        }
        if self.epoch == epoch
            && let Err(failure) = self.stop(Some(failure))
        {
            return self.fail(failure);
        }
        Ok(())
    }

    /// Ends the way that this link has now, and tells the peer what this end has and offers.
    fn stop(&mut self, why: Option<Failure>) -> Result<(), Failure> {
        let failed = self.pairs.broken().fold(0, |failed, place| failed | 1 << place);
        self.strike(failed);
        self.salvage()?;
        self.sending.rewind();
        self.receiving.rewind();
        self.epoch += 1;
        let (offer, left) = self.fresh_pairs();
        let hello = offer
            .as_ref()
            .map(|pairs| greeting(&self.rails, &self.chosen, &self.options, &self.block, pairs));
        let words = why.as_ref().map_or(String::new(), Failure::to_string);
        let told =
            Move { epoch: self.epoch, counts: self.receiving.tell(), failed, offer: hello, why: words };
        self.side.say_move(&told);
        self.path = Path::Moving(Box::new(Moving { offer, left, failed, why, since: Instant::now() }));
        self.flush_side()
    }

    /// A queue pair of each of these rails has failed.
    fn strike(&mut self, failed: u32) {
        for (place, strikes) in self.strikes.iter_mut().enumerate() {
            if failed & 1 << place != 0 {
                strikes.add();
            }
        }
    }

    /// Takes in what is complete, and destroys the queue pairs.
    fn salvage(&mut self) -> Result<(), Failure> {
        self.pairs.stop();
        while let Some(arrived) = self.pairs.salvage() {
            match self.arrive(arrived) {
                // What was taken is not counted twice, and what comes too early is sent again.
                Err(Failure::OutOfTurn { .. }) => {}
                done => done?,
            }
        }
        self.pairs.destroy();
        Ok(())
    }

    /// Fresh queue pairs on all rails that can be expected to work, and in words why the others cannot.
    fn fresh_pairs(&mut self) -> (Option<Pairs>, String) {
        let most = self.options.rail_failures;
        let (mut places, mut left) = (Vec::new(), Vec::new());
        for (place, address) in self.chosen.iter().enumerate() {
            let (rail, failures) = (self.rails.of(address), self.strikes[place].lately());
            if failures >= most {
                left.push(format!("{} has failed {failures} times within a minute", rail.context.name()));
            } else {
                match rail.check(&address.gid) {
                    Ok(()) => places.push(place),
                    Err(error) => left.push(error.to_string()),
                }
            }
        }
        while let Some(&last) = places.last() {
            match Pairs::new(&self.rails, &self.chosen, &places, &self.options) {
                Ok(pairs) => return (Some(pairs), left.join("; ")),
                // One of them does not work; which, is found out by leaving the last out.
                Err(error) => left.push(format!(
                    "{} has no fresh queue pairs: {error}",
                    self.rails.of(&self.chosen[last]).context.name()
                )),
            }
            places.pop();
        }
        (None, left.join("; "))
    }

    /// Takes in what the peer says on the side socket; `true` if it said anything.
    pub(super) fn hear(&mut self) -> Result<bool, Failure> {
        let mut news = false;
        while let Some(record) = self.side.next()? {
            news = true;
            match record {
                Record::Ready(epoch) => self.peer_ready = Some(epoch),
                Record::Move(told) => self.moved(*told)?,
                Record::Write(immediate, range) => self.written(immediate, range)?,
            }
        }
        Ok(news)
    }

    /// The peer's queue pairs are gone, and it has told what it has.
    fn moved(&mut self, told: Move) -> Result<(), Failure> {
        let waits = match self.path {
            Path::Pairs => {
                // The peer was first.
                self.stop(None)?;
                true
            }
            Path::Moving(_) => true,
            Path::Socket => false,
        };
        if !waits || told.epoch != self.epoch {
            let what = format!("it moves to epoch {} while this end is in epoch {}", told.epoch, self.epoch);
            return Err(Failure::Protocol { what });
        }
        let Path::Moving(moving) = std::mem::replace(&mut self.path, Path::Socket) else { return Ok(()) };
        let Moving { offer, left, failed, why, since } = *moving;
        // What both have seen is one failure.
        self.strike(told.failed & !failed);
        self.sending.confirm(told.counts, |_| {})?;
        let common = offer.zip(told.offer).and_then(|(mut pairs, mut hello)| {
            pairs.keep(|place| hello.rail(place).is_some());
            hello.keep(|place| pairs.places().any(|own| own == place));
            (pairs.len() > 0).then_some((pairs, hello))
        });
        if let Some((pairs, hello)) = common {
            self.pairs = pairs;
            self.path = Path::Pairs;
            if let Err(error) = self.pairs.connect(&self.rails, &self.chosen, &hello, &self.options) {
                self.pairs.give_up();
                let (device, what) = (self.names(), error.to_string());
                let during = "connecting fresh queue pairs";
                return self.stop(Some(Failure::Verbs { during, device, queue_pair: None, what }));
            }
            self.side.say_ready(self.epoch);
        }
        self.report(why, &told.why, since, &left);
        for number in self.sending.frames() {
            self.transmit_frame(number);
        }
        self.transmit_waiting();
        self.flush_side()
    }

    /// Says once what has happened, at the end that saw it first.
    fn report(&self, why: Option<Failure>, reason: &str, since: Instant, left: &str) {
        let peer = self.side.socket().peer_addr().map_or("a peer".into(), |address| address.to_string());
        let (ms, names) = (since.elapsed().as_millis(), self.names());
        let mut on = match self.path {
            Path::Socket => "it goes on over TCP, which is slower".to_owned(),
            _ => format!("it goes on over fresh queue pairs on {names}"),
        };
        if !left.is_empty() {
            on += &format!(" ({left})");
        }
        match why {
            Some(why) => tracing::warn!("the link over verbs to {peer} failed: {why}; after {ms} ms {on}"),
            None => tracing::info!("the link over verbs to {peer} failed there: {reason}; {on}"),
        }
    }

    /// The devices in use, in words.
    fn names(&self) -> String {
        let names = self.pairs.places().map(|place| self.rails.of(&self.chosen[place]).context.name());
        names.collect::<Vec<_>>().join(", ")
    }

    /// Carries out a write that came on the side socket.
    fn written(&mut self, immediate: u32, range: std::ops::Range<usize>) -> Result<(), Failure> {
        let len = range.len();
        let broken = |what: String| Err(Failure::Protocol { what });
        if !matches!(self.path, Path::Socket) {
            return broken("it writes on the side socket while there are queue pairs".into());
        }
        let (arrival, number) = frame::announced(immediate, |arrival| self.receiving.expected(arrival));
        let layout = &self.block.layout;
        let place = match arrival {
            Arrival::Frame => Some((self.block.at(layout.frame(number)), ENTRY)),
            Arrival::Eager(message) => {
                Some((self.block.at(layout.home(message as u64)), HEADER + self.options.eager))
            }
            Arrival::Slot(_) => {
                self.receiving.next_slot().map(|turn| (self.block.at(layout.slot(turn)), self.options.slot))
            }
            Arrival::Landed(message) => self
                .receiving
                .place(message, len)
                .map(|address| (std::ptr::with_exposed_provenance_mut(address as usize), len)),
        };
        let Some((to, _)) =
            place.filter(|&(_, most)| len <= most && number == self.receiving.expected(arrival))
        else {
            return broken(format!("a write of {len} bytes that nobody expects: {arrival:?} {number}"));
        };
        let bytes = self.side.bytes(range);
        // SAFETY: `to` has `len` bytes: of the receive area, which only the peer's writes change and whose frames, homes
        // and slots it reuses only when they are free; or of what this end has granted until the message has landed.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
        self.arrive(Arrived { immediate, bytes: len as u32, pair: 0 })
    }
}
