//! The queue pairs of one end of a link, and what completes on them.
//!
//! Every write carries an immediate and so uses up a receive of the peer's, which has [`UNCONFIRMED`] posted on each queue
//! pair and some more, so that it can confirm before it posts again: the sender counts what the peer has not confirmed
//! yet, and writes nothing beyond. A few are kept for frames that say nothing but counts; so two ends that both have used
//! up the rest can still confirm.
//!
//! Requests are gathered and posted when the link is flushed: one doorbell for each queue pair. Few of them ask for a
//! completion, because one completed request stands for all before it.

use rccl_verbs::{
    Access, AckTimeout, Capacity, Completion, CompletionChannel, CompletionQueue, Connection, Data, Ece,
    Kind, Mtu, Operation, Psn, QpNumber, QueuePair, ReceiveBatch, RemoteKey, RemoteMemory, SendBatch,
    SendRequest, Status,
};

use super::error::RcError;
use super::failure::Failure;
use super::frame::RING;
use super::hello::{Hello, PairHello, RailHello};
use super::options::Options;
use super::rails::{Rail, Rails};

/// Most writes on a queue pair that the peer has not confirmed.
pub(super) const UNCONFIRMED: usize = RING;
/// Of these, and of the requests of a queue pair, how many only frames without a message may use.
pub(super) const KEPT: usize = 8;
/// Requests that a queue pair holds.
const SENDS: usize = 2 * RING;
/// Requests without a completion, at most.
const QUIET: u32 = 16;
/// Receives that are posted again together.
const AGAIN: u32 = 16;
/// Receives posted on each queue pair.
const RECEIVES: usize = UNCONFIRMED + AGAIN as usize;
/// What receives carry as their number; those of sends count up from 1.
const RECEIVE: u64 = u64::MAX;
/// Bytes that should fit into a request: a frame, and a short eager message behind it.
const INLINE: u32 = 256;

/// What became of a look at the completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) immediate: u32,
    pub(super) bytes: u32,
}

struct Pair {
    queue_pair: QueuePair,
    number: QpNumber,
    /// Place of its rail in the link.
    place: usize,
    inline: usize,
    psn: Psn,
    ece: Option<Ece>,
    /// The peer's block.
    target: RemoteMemory,
    batch: SendBatch,
    /// Requests handed over or in the batch, and how many of them are over.
    posted: u64,
    completed: u64,
    quiet: u32,
    /// Writes that the peer has not confirmed.
    unconfirmed: usize,
    /// Receives that were used up and are not posted again.
    used: u32,
    is_broken: bool,
}

struct RailEnd {
    /// Its place in the link.
    place: usize,
    queue: CompletionQueue,
    channel: CompletionChannel,
}

/// Bytes to write, with the immediate that announces them.
pub(super) struct Write<'a> {
    pub(super) data: Data<'a>,
    pub(super) to: RemoteMemory,
    pub(super) immediate: u32,
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
        chosen: &[usize],
        places: &[usize],
        options: &Options,
    ) -> Result<Pairs, RcError> {
        let mut ends = Vec::new();
        for &place in places {
            let rail = &rails.rails[chosen[place]];
            let channel = rail.context.completion_channel()?;
            let entries = options.queue_pairs * (SENDS + RECEIVES);
            let queue = channel.completion_queue(entries as u32, 0, 0)?;
            ends.push(RailEnd { place, queue, channel });
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
            let pair = Pair::new(&rails.rails[chosen[end.place]], &end.queue, end.place, options)?;
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
        chosen: &[usize],
        peer: &Hello,
        options: &Options,
    ) -> Result<(), RcError> {
        for (k, pair) in self.pairs.iter_mut().enumerate() {
            let found = peer.pairs.get(k).zip(peer.rail(pair.place));
            let Some((other, end)) = found else {
                let what = format!("no queue pair {k}, or no rail at place {}", pair.place);
                return Err(RcError::Greeting { what });
            };
            let target = RemoteMemory { address: peer.address, key: RemoteKey(end.key) };
            pair.connect(&rails.rails[chosen[pair.place]], end, other, target, k, options)?;
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
        let pair = &mut self.pairs[k];
        pair.posted += 1;
        pair.unconfirmed += 1;
        pair.quiet += 1;
        let signalled = pair.quiet == QUIET;
        if signalled {
            pair.quiet = 0;
        }
        pair.batch.push(&SendRequest {
            id: pair.posted,
            operation: Operation::WriteWithImmediate(write.to, write.immediate),
            data: write.data,
            signalled,
            solicited: true,
        });
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
                Ok(Some(Arrived { immediate, bytes: completion.bytes() }))
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
            device: pair.queue_pair.domain().context().name().into(),
            queue_pair: Some(cause.queue_pair().0),
            what: format!("{}{vendor}", Words(cause.status())),
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

    /// Puts queue pair `k` into the error state, as if it had failed.
    pub(super) fn fail(&mut self, k: usize) {
        let count = self.pairs.len();
        if count > 0 {
            let _ = self.pairs[k % count].queue_pair.fail();
        }
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
            if pair.quiet > 0 {
                // A write of nothing: what comes before it is over when it is.
                pair.quiet = 0;
                pair.posted += 1;
                pair.batch.push(&SendRequest {
                    id: pair.posted,
                    operation: Operation::Write(pair.target),
                    data: Data::Gather(&[]),
                    signalled: true,
                    solicited: false,
                });
            }
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

impl Pair {
    fn new(rail: &Rail, queue: &CompletionQueue, place: usize, options: &Options) -> Result<Pair, RcError> {
        let wanted = Capacity {
            sends: SENDS as u32,
            receives: RECEIVES as u32,
            send_segments: 1,
            receive_segments: 1,
            inline_bytes: INLINE,
        };
        let queue_pair = rail.domain.queue_pair(queue, queue, wanted)?;
        queue_pair.initialize(rail.port.number, options.partition_key_index, Access::REMOTE_WRITE)?;
        let number = queue_pair.number();
        let inline = queue_pair.capacity().inline_bytes as usize;
        // Providers without it refuse; then there is nothing to agree on.
        let ece = queue_pair.ece().ok().filter(|ece| ece.vendor != 0);
        Ok(Pair {
            queue_pair,
            number,
            place,
            inline,
            psn: Psn::new(random()),
            ece,
            target: RemoteMemory { address: 0, key: RemoteKey(0) },
            batch: SendBatch::with_capacity(RECEIVES),
            posted: 0,
            completed: 0,
            quiet: 0,
            unconfirmed: 0,
            used: RECEIVES as u32,
            is_broken: false,
        })
    }

    fn connect(
        &mut self,
        rail: &Rail,
        end: &RailHello,
        other: &PairHello,
        target: RemoteMemory,
        k: usize,
        options: &Options,
    ) -> Result<(), RcError> {
        if let Some(own) = self.ece
            && other.ece.0 == own.vendor
        {
            // Both ends take what both have.
            let common = Ece { vendor: own.vendor, options: own.options & other.ece.1 };
            self.queue_pair.set_ece(common)?;
        }
        self.target = target;
        let mtu: Mtu = rail.port.active_mtu.min(end.mtu);
        let index = rail.gid_index()?;
        let mut connection = Connection::new(index, end.gid, mtu, other.number, other.psn, self.psn);
        connection.destination_lid = end.lid;
        if let Some(timeout) = AckTimeout::new(options.timeout) {
            connection.timeout = timeout;
        }
        connection.retries = options.retries;
        connection.receiver_not_ready_retries = options.receiver_not_ready_retries;
        connection.service_level = options.service_level;
        connection.traffic_class = options.traffic_class.unwrap_or(rail.traffic_class);
        connection.flow_label = flow_label(self.number, other.number, k);
        self.queue_pair.ready_to_receive(&connection)?;
        self.queue_pair.ready_to_send(&connection)?;
        Ok(())
    }

    /// Whether it takes another request and the peer has a receive for it, beside `kept` ones.
    fn has_room(&self, kept: usize) -> bool {
        self.unconfirmed + kept < UNCONFIRMED && self.has_requests(kept)
    }

    fn has_requests(&self, kept: usize) -> bool {
        // One more is for the write that ends all.
        ((self.posted - self.completed) as usize) + kept + 1 < SENDS
    }

    fn refused(&self, during: &'static str, error: &rccl_verbs::Error) -> Failure {
        let device = self.queue_pair.domain().context().name().into();
        Failure::Verbs { during, device, queue_pair: Some(self.number.0), what: error.to_string() }
    }
}

/// The name of a status before its explanation, as those who know verbs look for it.
struct Words(Status);

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.0, self.0)
    }
}

/// 20 bits that differ between the queue pairs of a link, and never 0.
fn flow_label(own: QpNumber, peer: QpNumber, k: usize) -> u32 {
    let mixed = (u64::from(own.0) << 32 | u64::from(peer.0)).wrapping_add(k as u64);
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44) as u32 | 1
}

/// Bits that nobody can foresee.
fn random() -> u32 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() as u32
}
