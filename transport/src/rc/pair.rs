//! One queue pair of a link: making and connecting it, and what it has room for.

use std::time::{Duration, Instant};

use rccl_verbs::{
    Access, AckTimeout, Capacity, CompletionQueue, Connection, Data, Ece, GidEntry, Mtu, Operation, Psn,
    QpNumber, QueuePair, RemoteKey, RemoteMemory, SendBatch, SendRequest, Status,
};

use super::error::RcError;
use super::failure::Failure;
use super::frame::RING;
use super::hello::{PairHello, RailHello};
use super::options::Options;
use super::rails::Rail;

/// Most writes on a queue pair that the peer has not confirmed.
pub(super) const UNCONFIRMED: usize = RING;
/// Of these, and of the requests of a queue pair, how many only frames without a message may use.
pub(super) const KEPT: usize = 8;
/// Requests that a queue pair holds.
pub(super) const SENDS: usize = 2 * RING;
/// Requests without a completion, at most.
const QUIET: u32 = 16;
/// Receives that are posted again together.
pub(super) const AGAIN: u32 = 16;
/// Receives posted on each queue pair.
pub(super) const RECEIVES: usize = UNCONFIRMED + AGAIN as usize;
/// What receives carry as their number; those of sends count up from 1.
pub(super) const RECEIVE: u64 = u64::MAX;
/// Without a completion for so long, one is asked for.
const ASK: Duration = Duration::from_secs(1);
/// Bytes that should fit into a request: a frame, and a short eager message behind it.
const INLINE: u32 = 256;

/// Bytes to write, with the immediate that announces them.
pub(super) struct Write<'a> {
    pub(super) data: Data<'a>,
    pub(super) to: RemoteMemory,
    pub(super) immediate: u32,
}

/// A queue pair, and what is under way on it.
pub(super) struct Pair {
    pub(super) queue_pair: QueuePair,
    pub(super) number: QpNumber,
    /// Place of its rail in the link.
    pub(super) place: usize,
    pub(super) inline: usize,
    pub(super) psn: Psn,
    pub(super) ece: Option<Ece>,
    /// The peer's block.
    pub(super) target: RemoteMemory,
    pub(super) batch: SendBatch,
    /// Requests handed over or in the batch, and how many of them are over.
    pub(super) posted: u64,
    pub(super) completed: u64,
    quiet: u32,
    /// Writes that the peer has not confirmed.
    pub(super) unconfirmed: usize,
    /// Receives that were used up and are not posted again.
    pub(super) used: u32,
    pub(super) is_broken: bool,
    /// What completes next is awaited.
    awaited: Option<Awaited>,
    /// The entry of the port's table of GIDs that it was connected with.
    pub(super) gid_index: u8,
}

/// A device is watched, lest it never say what became of a write.
struct Awaited {
    /// When it was seen first, or when a completion was asked for.
    since: Instant,
    /// Requests that were over then.
    completed: u64,
    asked: bool,
}

impl Pair {
    pub(super) fn new(
        rail: &Rail,
        queue: &CompletionQueue,
        place: usize,
        options: &Options,
    ) -> Result<Pair, RcError> {
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
            awaited: None,
            gid_index: 0,
        })
    }

    pub(super) fn connect(
        &mut self,
        rail: &Rail,
        gid: &GidEntry,
        end: &RailHello,
        other: &PairHello,
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
        let mtu: Mtu = rail.port.active_mtu.min(end.mtu);
        self.gid_index = rail.gid_index(gid)?;
        let mut connection = Connection::new(self.gid_index, end.gid, mtu, other.number, other.psn, self.psn);
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
    pub(super) fn has_room(&self, kept: usize) -> bool {
        self.unconfirmed + kept < UNCONFIRMED && self.has_requests(kept)
    }

    pub(super) fn has_requests(&self, kept: usize) -> bool {
        // Two more are for writes that only ask for a completion.
        ((self.posted - self.completed) as usize) + kept + 2 < SENDS
    }

    /// Adds a write to what is posted with the next flush. There must be room.
    pub(super) fn add(&mut self, write: &Write<'_>) {
        self.posted += 1;
        self.unconfirmed += 1;
        self.quiet += 1;
        let signalled = self.quiet == QUIET;
        if signalled {
            self.quiet = 0;
        }
        self.batch.push(&SendRequest {
            id: self.posted,
            operation: Operation::WriteWithImmediate(write.to, write.immediate),
            data: write.data,
            signalled,
            solicited: true,
        });
    }

    /// Asks for a completion where none was asked for: by a write of nothing, which is over when all before it is.
    pub(super) fn ask(&mut self) {
        if self.quiet > 0 {
            self.quiet = 0;
            self.posted += 1;
            self.batch.push(&SendRequest {
                id: self.posted,
                operation: Operation::Write(self.target),
                data: Data::Gather(&[]),
                signalled: true,
                solicited: false,
            });
        }
    }

    /// The failure of a queue pair that has said nothing for `patience` of writes that are under way. Devices should, once
    /// all retries are used up; but soft-RoCE (of Linux 6.1) never does when a packet could not be sent while earlier
    /// ones were not acknowledged, as when its address was removed. To be called now and then, when all
    /// completions are taken.
    pub(super) fn overdue(&mut self, patience: Duration) -> Option<Failure> {
        let (now, completed) = (Instant::now(), self.completed);
        if self.posted == completed {
            self.awaited = None;
            return None;
        }
        let awaited = self.awaited.get_or_insert(Awaited { since: now, completed, asked: false });
        let waited = now - awaited.since;
        if awaited.completed != completed {
            self.awaited = None;
        } else if !awaited.asked && waited > ASK {
            (awaited.since, awaited.asked) = (now, true);
            self.ask();
        } else if awaited.asked && waited > patience {
            self.is_broken = true;
            let what = format!("it has told nothing of the writes under way for {waited:.1?}");
            let (device, queue_pair) = (self.device(), Some(self.number.0));
            return Some(Failure::Verbs { during: "writing to the peer", device, queue_pair, what });
        }
        None
    }

    pub(super) fn refused(&self, during: &'static str, error: &rccl_verbs::Error) -> Failure {
        let (device, queue_pair) = (self.device(), Some(self.number.0));
        Failure::Verbs { during, device, queue_pair, what: error.to_string() }
    }

    pub(super) fn device(&self) -> String {
        self.queue_pair.domain().context().name().into()
    }
}

/// The name of a status before its explanation, as those who know verbs look for it.
pub(super) struct Words(pub(super) Status);

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
