//! The queue pairs of one end of a link, and what completes on them.
//!
//! Every write carries an immediate and so uses up a receive of the peer's, which has `UNCONFIRMED` posted on each queue
//! pair and some more, so that it can confirm before it posts again: the sender counts what the peer has not confirmed
//! yet, and writes nothing beyond. A few are kept for frames that say nothing but counts; so two ends that both have used
//! up the rest can still confirm.
//!
//! Requests are gathered and posted when the link is flushed: one doorbell for each queue pair. Few of them ask for a
//! completion, because one completed request stands for all before it.

use std::time::Duration;

use rccl_verbs::{
    Completion, CompletionChannel, CompletionQueue, Kind, ReceiveBatch, RemoteKey, RemoteMemory,
};

use super::error::RcError;
use super::failure::Failure;
use super::hello::{Hello, PairHello};
use super::options::Options;
use super::pair::{AGAIN, KEPT, Pair, RECEIVE, RECEIVES, SENDS, Words, Write};
use super::rails::{Address, Rails};

/// What became of a look at the completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) immediate: u32,
    pub(super) bytes: u32,
    /// The queue pair that it came on, or 0 for the side socket.
    pub(super) pair: usize,
}

struct RailEnd {
    /// Its place in the link.
    place: usize,
    /// How often the port's table of GIDs had changed when it was looked at.
    gids_seen: u32,
    queue: CompletionQueue,
    channel: CompletionChannel,
}

/// All queue pairs of one end.
pub(super) struct Pairs {
    /// Before the completion queues, which outlive them.
    pairs: Vec<Pair>,
    rails: Vec<RailEnd>,
    receives: ReceiveBatch,
    taken: Box<[Completion; 32]>,
    /// Completions that were taken from a queue and not looked at yet, and the rail whose queue it was.
    next: usize,
    count: usize,
    rail: usize,
    /// The pair whose turn it is to get a piece.
    turn: usize,
    armed: bool,
}

impl Pairs {
    /// Makes queue pairs on the rails of the link at `places`, ready to be connected, with their receives posted. `chosen`
    /// says which rails of the process those are.
    pub(super) fn new(
        rails: &Rails,
        chosen: &[Address],
        places: &[usize],
        options: &Options,
    ) -> Result<Pairs, RcError> {
        let mut ends = Vec::new();
        for &place in places {
            let rail = rails.of(&chosen[place]);
            let channel = rail.context.completion_channel()?;
            let entries = options.queue_pairs * (SENDS + RECEIVES);
            let queue = channel.completion_queue(entries as u32, 0, 0)?;
            ends.push(RailEnd { place, gids_seen: rail.gids_changed(), queue, channel });
        }
        let mut pairs = Pairs {
            pairs: Vec::new(),
            rails: ends,
            receives: ReceiveBatch::with_capacity(RECEIVES),
            taken: Box::default(),
            next: 0,
            count: 0,
            rail: 0,
            turn: 0,
            armed: false,
        };
        for k in 0..options.queue_pairs * places.len() {
            let end = &pairs.rails[k % places.len()];
            let pair = Pair::new(rails.of(&chosen[end.place]), &end.queue, end.place, options)?;
            pairs.pairs.push(pair);
            pairs.post_receives(k).map_err(|failure| RcError::Options { what: failure.to_string() })?;
        }
        Ok(pairs)
    }

    /// What the peer is to know of each.
    pub(super) fn hello(&self) -> Vec<PairHello> {
        let hello = |pair: &Pair| PairHello {
            number: pair.number,
            psn: pair.psn,
            ece: pair.ece.map_or((0, 0), |ece| (ece.vendor, ece.options)),
        };
        self.pairs.iter().map(hello).collect()
    }

    /// The places in the link of the rails that there are, ascending.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        self.rails.iter().map(|end| end.place)
    }

    /// Leaves out the rails that are not `wanted`, and their queue pairs.
    pub(super) fn keep(&mut self, wanted: impl Fn(usize) -> bool) {
        self.pairs.retain(|pair| wanted(pair.place));
        self.rails.retain(|end| wanted(end.place));
    }

    /// Connects the k-th queue pair with the peer's k-th, which is on the same rail.
    pub(super) fn connect(
        &mut self,
        rails: &Rails,
        chosen: &[Address],
        peer: &Hello,
        options: &Options,
    ) -> Result<(), RcError> {
        for (k, pair) in self.pairs.iter_mut().enumerate() {
            let found = peer.pairs.get(k).zip(peer.rail(pair.place));
            let Some((other, end)) = found else {
                let what = format!("no queue pair {k}, or no rail at place {}", pair.place);
                return Err(RcError::Greeting { what });
            };
            pair.target = RemoteMemory { address: peer.address, key: RemoteKey(end.key) };
            let address = &chosen[pair.place];
            pair.connect(rails.of(address), &address.gid, end, other, k, options)?;
        }
        Ok(())
    }

    /// How many queue pairs there are.
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// The place in the link of the rail of queue pair `k`.
    pub(super) fn place(&self, k: usize) -> usize {
        self.pairs[k].place
    }

    /// The peer's block, as queue pair `k` reaches it.
    pub(super) fn target(&self, k: usize) -> RemoteMemory {
        self.pairs[k].target
    }

    /// Bytes that fit into a request of queue pair `k`.
    pub(super) fn inline(&self, k: usize) -> usize {
        self.pairs[k].inline
    }

    /// Whether the first queue pair takes a frame; `counts_only` may use what is kept for it.
    pub(super) fn takes_frame(&self, counts_only: bool) -> bool {
        self.pairs.first().is_some_and(|pair| pair.has_room(if counts_only { 0 } else { KEPT }))
    }

    /// Whether a queue pair takes a piece.
    pub(super) fn has_room(&self) -> bool {
        self.pairs.iter().any(|pair| pair.has_room(KEPT))
    }

    /// The queue pair that takes the next piece, if one does: in turn, passing over those that are full.
    pub(super) fn choose(&mut self) -> Option<usize> {
        let count = self.pairs.len();
        let found = (0..count).map(|i| (self.turn + i) % count).find(|&k| self.pairs[k].has_room(KEPT))?;
        self.turn = found + 1;
        Some(found)
    }

    /// Adds a write to what is posted with the next flush. There must be room.
    pub(super) fn add(&mut self, k: usize, write: &Write<'_>) {
        self.pairs[k].add(write);
    }

    /// The peer has confirmed a write of queue pair `k`.
    pub(super) fn confirm(&mut self, k: usize) {
        if let Some(pair) = self.pairs.get_mut(k) {
            pair.unconfirmed = pair.unconfirmed.saturating_sub(1);
        }
    }

    /// Whether nothing waits to be posted.
    pub(super) fn is_flushed(&self) -> bool {
        self.pairs.iter().all(|pair| pair.batch.is_empty())
    }

    /// Hands all that was added to the devices.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        for pair in &mut self.pairs {
            if !pair.batch.is_empty() {
                let posted = pair.queue_pair.post_sends(&mut pair.batch);
                if let Err(error) = posted {
                    pair.is_broken = true;
                    return Err(pair.refused("posting writes", &error));
                }
            }
        }
        Ok(())
    }

    /// The next write of the peer that is complete, `None` if there is none now.
    pub(super) fn next(&mut self) -> Result<Option<Arrived>, Failure> {
        loop {
            while self.next < self.count {
                self.next += 1;
                if let Some(arrived) = self.take(self.next - 1)? {
                    return Ok(Some(arrived));
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Whether [`Pairs::next`] would have something to tell, a write of the peer or a failure.
    pub(super) fn has_news(&mut self) -> bool {
        loop {
            while self.next < self.count {
                let completion = &self.taken[self.next];
                if !completion.is_success() || completion.id() == RECEIVE {
                    return true;
                }
                // The completion of a write of this end is no news.
                if !matches!(self.take(self.next), Ok(None)) {
                    return true;
                }
                self.next += 1;
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Takes completions off the queues; `false` if there are none. Each look begins with the first queue.
    fn fill(&mut self) -> Result<bool, Failure> {
        for (rail, end) in self.rails.iter().enumerate() {
            let polled = end.queue.poll(&mut self.taken[..]);
            self.count = polled.map_err(|error| end.refused("taking completions", &error))?;
            (self.next, self.rail) = (0, rail);
            if self.count > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn take(&mut self, index: usize) -> Result<Option<Arrived>, Failure> {
        let completion = self.taken[index];
        let (number, place) = (completion.queue_pair(), self.rails[self.rail].place);
        let Some(k) = self.pairs.iter().position(|pair| pair.number == number && pair.place == place) else {
            return Ok(None);
        };
        if !completion.is_success() {
            return Err(self.failed(k, completion));
        }
        let pair = &mut self.pairs[k];
        if completion.id() != RECEIVE {
            pair.completed = completion.id();
            return Ok(None);
        }
        pair.used += 1;
        match (completion.kind(), completion.immediate()) {
            (Some(Kind::ReceiveWrite), Some(immediate)) => {
                Ok(Some(Arrived { immediate, bytes: completion.bytes(), pair: k }))
            }
            (kind, _) => Err(Failure::Protocol { what: format!("it sent a {kind:?} where writes belong") }),
        }
    }

    /// The failure of queue pair `k`: if `completion` is only a consequence, the first that is not is looked for.
    #[cold]
    fn failed(&mut self, k: usize, completion: Completion) -> Failure {
        let mut cause = completion;
        // Successes among them stay for who salvages what came.
        for other in &self.taken[self.next..self.count] {
            if cause.status().is_consequence() && !other.is_success() {
                cause = *other;
            }
        }
        let pair = &mut self.pairs[k];
        pair.is_broken = true;
        let during = if cause.id() == RECEIVE { "receiving" } else { "writing to the peer" };
        let vendor = match cause.vendor_error() {
            0 => String::new(),
            number => format!(", vendor error {number}"),
        };
        Failure::Verbs {
            during,
            device: pair.device(),
            queue_pair: Some(cause.queue_pair().0),
            what: format!("{}{vendor}", Words(cause.status())),
        }
    }

    /// What came on queue pair `k` was out of turn: then its device has broken what reliable connections promise.
    #[cold]
    pub(super) fn disordered(&mut self, k: usize, what: &str) -> Failure {
        let pair = &mut self.pairs[k];
        pair.is_broken = true;
        Failure::Verbs {
            during: "receiving",
            device: pair.device(),
            queue_pair: Some(pair.number.0),
            what: format!("{what}; a reliable connection delivers each write once and in order"),
        }
    }

    /// Posts again the receives that were used up, where it is worth it.
    pub(super) fn post_again(&mut self) -> Result<(), Failure> {
        for k in 0..self.pairs.len() {
            if self.pairs[k].used >= AGAIN {
                self.post_receives(k)?;
            }
        }
        Ok(())
    }

    fn post_receives(&mut self, k: usize) -> Result<(), Failure> {
        let pair = &mut self.pairs[k];
        for _ in 0..pair.used {
            self.receives.push(RECEIVE, &[]);
        }
        pair.used = 0;
        let posted = pair.queue_pair.post_receives(&mut self.receives);
        posted.map_err(|error| pair.refused("posting receives", &error))
    }

    /// Asks for an event at the next write of the peer, and also at the next completion of a write of this end if that
    /// is what a caller waits for.
    pub(super) fn arm(&mut self) -> Result<(), Failure> {
        self.disarm();
        self.armed = true;
        let full = self.pairs.iter().any(|pair| !pair.has_requests(KEPT));
        for end in &self.rails {
            let armed = if full { end.queue.arm() } else { end.queue.arm_solicited() };
            armed.map_err(|error| end.refused("asking for events", &error))?;
        }
        Ok(())
    }

    /// Takes the events that came.
    pub(super) fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            for end in &self.rails {
                // What fails here fails again where it is reported.
                while let Ok(Some(_)) = end.channel.next_event() {}
            }
        }
    }

    /// The descriptors that are ready when an event has come.
    pub(super) fn channels(&self) -> impl Iterator<Item = &CompletionChannel> {
        self.rails.iter().map(|end| &end.channel)
    }

    /// Moves all queue pairs to the error state, so that nothing more comes or goes; what is complete can still be taken.
    pub(super) fn stop(&mut self) {
        for pair in &mut self.pairs {
            pair.batch.clear();
            // A device that was removed refuses, and does nothing more either.
            let _ = pair.queue_pair.fail();
        }
    }

    /// As [`Pairs::next`], passing over what failed, after [`Pairs::stop`].
    pub(super) fn salvage(&mut self) -> Option<Arrived> {
        loop {
            match self.next() {
                Ok(arrived) => return arrived,
                Err(Failure::Verbs { queue_pair: Some(_), .. }) => {}
                Err(_) => return None,
            }
        }
    }

    /// The places of the rails on which a queue pair has failed.
    pub(super) fn broken(&self) -> impl Iterator<Item = usize> {
        self.pairs.iter().filter(|pair| pair.is_broken).map(|pair| pair.place)
    }

    /// Counts all queue pairs as failed.
    pub(super) fn give_up(&mut self) {
        self.pairs.iter_mut().for_each(|pair| pair.is_broken = true);
    }

    /// Puts queue pair `k` into the error state, as if it had failed.
    pub(super) fn fail(&mut self, k: usize) {
        let count = self.pairs.len();
        if count > 0 {
            let _ = self.pairs[k % count].queue_pair.fail();
        }
    }

    /// [`Pair::overdue`] of any.
    pub(super) fn overdue(&mut self, patience: Duration) -> Option<Failure> {
        let found = self.pairs.iter_mut().find_map(|pair| pair.overdue(patience));
        // If they are refused, that is told with the next writes.
        let _ = self.flush();
        found
    }

    /// The failure of a queue pair whose address has another place in the port's table than when it was connected: it
    /// cannot send any more, as entries of removed addresses stay as they are while they are in use.
    pub(super) fn displaced(&mut self, rails: &Rails, chosen: &[Address]) -> Option<Failure> {
        for end in &mut self.rails {
            let address = &chosen[end.place];
            let rail = rails.of(address);
            let changed = rail.gids_changed();
            if std::mem::replace(&mut end.gids_seen, changed) == changed {
                continue;
            }
            // An address that is gone may come back.
            let Ok(index) = rail.gid_index(&address.gid) else { continue };
            let of_rail = |pair: &&mut Pair| pair.place == end.place && pair.gid_index != index;
            if let Some(pair) = self.pairs.iter_mut().find(of_rail) {
                pair.is_broken = true;
                return Some(Failure::Verbs {
                    during: "watching the port",
                    device: pair.device(),
                    queue_pair: Some(pair.number.0),
                    what: format!(
                        "its address {} was removed and added again: it was GID {}, and is GID {index}",
                        address.gid.gid, pair.gid_index
                    ),
                });
            }
        }
        None
    }

    /// Destroys the queue pairs: from then on no device reaches memory for them.
    pub(super) fn destroy(&mut self) {
        self.pairs.clear();
        self.rails.clear();
        (self.next, self.count) = (0, 0);
    }

    /// Whether all that was posted is over. Asks for a completion where none was asked for.
    pub(super) fn is_quiet(&mut self) -> Result<bool, Failure> {
        let mut quiet = true;
        for pair in &mut self.pairs {
            pair.ask();
            quiet &= pair.posted == pair.completed;
        }
        self.flush()?;
        Ok(quiet)
    }
}

impl RailEnd {
    fn refused(&self, during: &'static str, error: &rccl_verbs::Error) -> Failure {
        let device = self.queue.context().name().into();
        Failure::Verbs { during, device, queue_pair: None, what: error.to_string() }
    }
}
