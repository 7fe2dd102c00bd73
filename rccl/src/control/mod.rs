//! The control plane: everything that the ranks of a communicator say to each other beside their data.
//!
//! ```text
//!   engine (any thread)        control thread of the process               root's control thread
//!  +--------------------+     +-----------------------------+  one TCP    +---------------------+
//!  | Control            |<--->| session: one per rank       |<----------->| root: one per       |
//!  |  progress  failed  |     |  of the job; links,         | connection  |  job                |
//!  |                    |     |  liveness, reports          |             |                     |
//!  +--------------------+     +-----------------------------+  per rank   +---------------------+
//!                                        ^ links and regions: path sockets, TCP sockets
//!                                        v directly between ranks
//! ```
//!
//! It is off the hot path: the engine writes its place into [`Progress`] and reads one flag. Only the root decides
//! what the first failure is, so all ranks report the same one; when the root itself dies, every rank finds that out
//! for itself.
//!
//! A job begins with one communicator, the world. Others are made of its ranks by [`Control::child`], without a word to
//! anybody, and share its session: threads, connection to the root, listeners, mapped memory. Each has progress, links,
//! a doorbell and a failure of its own. The root hears of a communicator when something is wrong in it.

mod case;
mod compare;
mod directory;
mod join;
pub(crate) mod links;
pub(crate) mod progress;
pub(crate) mod root;
mod roster;
mod session;
mod shared;
mod stall;
mod station;
pub(crate) mod thread;

#[cfg(test)]
mod tests;

use crate::bootstrap::group::Group;
use crate::bootstrap::message::{Report, Silence};
use crate::bootstrap::processors::Processors;
use crate::bootstrap::{Listening, Meeting};
use crate::call::Call;
use crate::config::Config;
use crate::error::{CallOf, Error, Failure, Member, Result};
use crate::tuner::{Profile, Tuning};
pub(crate) use links::link_limits;
use links::{LinkSettings, Made};
pub(crate) use progress::Progress;
use rccl_schedule::Layout;
use rccl_transport::memory::RegionTable;
use rccl_transport::shm::Doorbell;
use session::Command;
use shared::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
pub use thread::SignalsBlocked;

/// How a rank joins.
#[derive(Clone, Debug)]
pub(crate) struct JoinOptions {
    pub listening: Listening,
    /// How long to wait for all others.
    pub patience: Duration,
    pub silence: Silence,
    /// Rank 0's holds for the job.
    pub profile: Profile,
    /// After how long in one call the missing ranks are logged.
    pub late_warn: Duration,
    /// Settings that must be the same on all ranks, as one text; compared when joining.
    pub agreement: String,
    /// Memory that peers may map.
    pub regions: Arc<RegionTable>,
    pub links: LinkSettings,
    /// In which order the ranks of a host come, by their indices on it; empty: by rank. Rank 0's holds for the job.
    pub ring: Vec<u32>,
    /// Set from another thread to give up joining.
    /// What this process may use.
    pub processors: Processors,
    pub cancel: Arc<AtomicBool>,
}

impl JoinOptions {
    /// What the settings say; `regions` is the registered memory of this rank.
    pub(crate) fn new(config: &Config, regions: Arc<RegionTable>) -> JoinOptions {
        let links = LinkSettings::new(config, &regions);
        JoinOptions {
            listening: Listening::new(config),
            patience: config.init_timeout,
            silence: Silence { warn: config.silence_warn, fatal: config.silence_fatal },
            profile: Profile::default(),
            late_warn: config.late_warn,
            agreement: links.agreement(config),
            regions,
            links,
            ring: Vec::new(),
            processors: Processors::here(config.ignore_cpu_affinity),
            cancel: Arc::default(),
        }
    }
}

/// The peers that have yet to do something for a call.
pub(crate) struct Awaited {
    pub ranks: Vec<u32>,
    /// What they have sent so far has arrived: nothing of it is on its way.
    pub arrived: bool,
}

/// One rank's handle on the control plane of one communicator. Clones are handles on the same; when the last one is
/// dropped, the rank leaves the communicator.
#[derive(Clone)]
pub(crate) struct Control(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    process: u32,
}

impl Control {
    /// Joins the job at `meeting` as `rank` of `size`. Blocks until all ranks are there.
    ///
    /// # Errors
    /// [`Error::Join`] with who is missing, who is there twice, or what the root answered; [`Error::System`] when this
    /// process cannot listen.
    pub(crate) fn join(meeting: &Meeting, rank: u32, size: u32, options: JoinOptions) -> Result<Control> {
        let wrong = |(cause, hint): (String, String)| Error::Join {
            rank,
            size,
            meeting: meeting.to_string(),
            cause,
            hint,
        };
        if rank >= size {
            let cause = format!("rank {rank} does not exist in a job of {size} ranks");
            return Err(wrong((cause, "number the ranks from 0 to size - 1".into())));
        }
        let give_up = Instant::now() + options.patience + Duration::from_secs(5);
        let cancel = options.cancel.clone();
        let (result, answer) = sync_channel(1);
        let joining =
            thread::control_thread()?.spawn(join::begin(meeting.clone(), rank, size, options, result));
        loop {
            match answer.recv_timeout(Duration::from_millis(50)) {
                Ok(Ok(shared)) => {
                    shared.station.register();
                    return Ok(Control(Arc::new(Handle { shared, process: std::process::id() })));
                }
                Ok(Err(join::Failed::Join(cause))) => return Err(wrong(cause)),
                Ok(Err(join::Failed::Other(error))) => return Err(error),
                Err(RecvTimeoutError::Timeout) if cancel.load(Ordering::Relaxed) => {
                    joining.abort();
                    return Err(wrong(("joining was cancelled".into(), "nothing is to be done".into())));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < give_up => {}
                Err(_) => {
                    joining.abort();
                    let hint = "another task keeps it busy, or the process was stopped";
                    return Err(wrong(("the control thread did not answer".into(), hint.into())));
                }
            }
        }
    }

    /// A communicator of some ranks of this one: `members[i]` is the rank here of its rank `i`.
    ///
    /// Nothing is said to anybody: every member makes it for itself with the same `id` and `members`, which no other
    /// communicator of the job has ever had as its id (and which is not 0: that is the world). It shares this one's
    /// session, and lives on when this one is dropped or has failed. A member that does not make it is missed like one
    /// that does not enter a call. If a member was lost before, it is broken from the start.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when a member does not exist or is there twice, when this rank is none of them, for an
    /// id that is in use, and after [`Control::goodbye`] of all communicators; [`Error::System`] when there is no
    /// descriptor for the doorbell; [`Error::Forked`] in a forked child.
    pub(crate) fn child(&self, id: u64, members: &[u32]) -> Result<Control> {
        let parent = &self.0.shared;
        let process = std::process::id();
        if self.0.process != process {
            return Err(Error::Forked { parent: self.0.process, child: process });
        }
        let wrong = |what: String, hint: &str| Error::InvalidArgument {
            call: "making a sub-communicator",
            what,
            hint: hint.into(),
        };
        let size = parent.group.size();
        let outside: Option<Vec<u32>> = members.iter().map(|&rank| parent.group.outside(rank)).collect();
        let group =
            outside.and_then(Group::new).filter(|group| group.inside(parent.station.me.rank).is_some());
        let group = group.ok_or_else(|| {
            let members = session::shorten(&format!("{members:?}"));
            let what = format!("members {members} of {size} ranks, given by rank {}", parent.me.rank);
            wrong(what, "name ranks from 0 to size - 1, each once, this one among them")
        })?;
        let shared = Arc::new(Shared::new(id, Arc::new(group), parent.station.clone())?);
        parent.station.enter(&shared).map_err(|why| {
            wrong(format!("id {id:016x}: {why}"), "make it before the job is left, with an id of its own")
        })?;
        Ok(Control(Arc::new(Handle { shared, process })))
    }

    /// From now on `child` fails when this communicator does.
    pub(crate) fn lead(&self, child: &Control) {
        self.0.shared.lead(&child.0.shared);
    }

    /// This communicator's number in the job: 0 for the world.
    pub(crate) fn id(&self) -> u64 {
        self.0.shared.id
    }
    /// This rank, as the communicator numbers it.
    pub(crate) fn me(&self) -> Member {
        self.0.shared.me.clone()
    }
    /// Where the ranks of the communicator live.
    pub(crate) fn layout(&self) -> &Layout {
        &self.0.shared.layout
    }

    /// What the job's ranks go by when they choose algorithms.
    pub(crate) fn tuning(&self) -> &Tuning {
        &self.0.shared.station.tuning
    }

    /// How many processors the ranks of this host, of the whole job, may use together.
    pub(crate) fn processors(&self) -> usize {
        self.0.shared.station.processors as usize
    }

    /// Asks for links to these peers; they appear in [`Control::take_links`] and the doorbell rings. Asking again
    /// changes nothing. The peers must ask too: the one of a pair that is lower in the world connects.
    pub(crate) fn request_links(&self, peers: &[u32]) {
        let shared = &self.0.shared;
        shared.station.command(Command::Link(shared.id, peers.to_vec()));
    }
    /// The links that were made since the last time.
    pub(crate) fn take_links(&self) -> Vec<Made> {
        self.0.shared.take_made()
    }
    /// Has the peers' registered memory that links have asked for mapped. Call it when a call makes no progress; it
    /// costs an uncontended lock when nothing is asked for. The doorbell rings when memory was mapped.
    pub(crate) fn fetch_regions(&self) {
        self.0.shared.station.fetch_regions();
    }
    /// Rings when a link was made, memory was mapped, or the communicator failed; also what shared-memory peers ring.
    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.0.shared.bell
    }
    /// How links are made; the same on all ranks.
    pub(crate) fn link_settings(&self) -> &LinkSettings {
        &self.0.shared.station.links
    }

    /// Whether the communicator has failed, and its failure is known: one load.
    #[inline]
    pub(crate) fn failed(&self) -> bool {
        self.0.shared.failed.load(Ordering::Acquire)
    }
    /// The first cause, once it is known.
    pub(crate) fn failure(&self) -> Option<Arc<Failure>> {
        self.0.shared.failure()
    }
    /// Where the engine writes what it is doing.
    #[inline]
    pub(crate) fn progress(&self) -> &Progress {
        &self.0.shared.progress
    }
    /// The ranks that had not entered this rank's stalled call when it was last asked.
    pub(crate) fn waiting_for(&self) -> Vec<CallOf> {
        self.0.shared.waiting().iter().map(|(_, of)| of.clone()).collect()
    }

    /// Collective call number `sequence` has made no progress for a while. Finds mismatches that no link sees, and who is
    /// late. Cheap to repeat.
    pub(crate) fn report_stall(&self, sequence: u32) {
        let shared = &self.0.shared;
        if shared.stalled.swap(sequence, Ordering::Relaxed) != sequence {
            self.tell_stall(sequence, Duration::ZERO, Vec::new(), false);
        }
    }
    /// Messages have made no progress for so long, after call number `sequence`. The ranks that they wait for are the missing
    /// ones then, and this rank's calls are not compared with others of the same number. To be said again while that
    /// lasts.
    pub(crate) fn report_stalled_messages(
        &self,
        sequence: u32,
        waited: Duration,
        Awaited { ranks, arrived }: Awaited,
    ) {
        if !ranks.is_empty() {
            self.tell_stall(sequence, waited, ranks, arrived);
        }
    }

    fn tell_stall(&self, sequence: u32, waited: Duration, awaited: Vec<u32>, arrived: bool) {
        let shared = &self.0.shared;
        let stall = stall::Stall::new(sequence, waited, awaited, arrived);
        shared.station.command(Command::Stall(shared.id, stall));
    }
    /// This rank makes call `mine`, and `peer` sent data of another: number `their_sequence`, packed call `theirs`.
    ///
    /// Like all reports it returns at once; within three seconds [`Control::failed`] is true, with this failure or an
    /// earlier one.
    pub(crate) fn report_mismatch(
        &self,
        sequence: u32,
        mine: Call,
        peer: u32,
        their_sequence: u32,
        theirs: [u64; 2],
    ) {
        let mut calls = vec![
            CallOf { rank: self.0.shared.me.rank, sequence, call: Some(mine) },
            CallOf { rank: peer, sequence: their_sequence, call: Call::unpack(theirs) },
        ];
        calls.sort_by_key(|call| call.rank);
        let failure = Failure::Mismatch { sequence, calls: calls.clone() };
        self.report(Report::Mismatch { sequence, calls }, failure);
    }
    /// Call number `sequence` has waited as long as it may; `awaited` as for [`Control::report_stalled_messages`], and none
    /// of a collective.
    pub(crate) fn report_timeout(&self, sequence: u32, waited: Duration, awaited: &[u32]) {
        let waiting_for = self.waiting_for();
        let failure = Failure::Timeout { rank: self.0.shared.me.rank, sequence, waited, waiting_for };
        self.report(Report::Timeout { sequence, waited, awaited: awaited.to_vec() }, failure);
    }
    /// The link to `peer` broke, which collective call number `sequence` needed, or messages. If the peer's process has
    /// ended, that becomes the failure.
    pub(crate) fn report_link_lost(&self, peer: u32, transport: &str, sequence: Option<u32>, cause: &str) {
        let shared = &self.0.shared;
        shared.station.command(session::link_lost(shared, peer, transport, sequence, cause));
    }
    /// Breaks the communicator on all ranks; this one sees it at once. Safe from any thread, never blocks. Others that
    /// share some of its ranks, those made from it too, are left alone.
    pub(crate) fn abort(&self, why: &str) {
        let why = session::shorten(why);
        let failure = Failure::Aborted { member: self.me(), why: why.clone() };
        self.0.shared.fail(failure.clone());
        self.report(Report::Aborted { why }, failure);
        self.0.shared.station.leave_at_exit();
    }

    fn report(&self, report: Report, otherwise: Failure) {
        self.0.shared.report(report, otherwise);
    }

    /// Leaves the communicator: this rank enters no further call. Its links and doorbell are given back as soon as the
    /// engine drops what it holds. With the last communicator of the job the session ends; only this is waited for, at
    /// most a second. Also done by dropping.
    pub(crate) fn goodbye(&self) {
        self.0.goodbye();
    }

    /// As dropping it, though others may still hold what it shares.
    pub(crate) fn let_go(&self) {
        self.0.let_go();
    }

    /// Ends the session without a goodbye, as if the process were killed.
    #[cfg(test)]
    pub(crate) fn vanish(&self) {
        self.0.shared.station.command(Command::Vanish);
    }
}

impl Handle {
    /// Says goodbye, and before that what is wrong if the thread panics. Does nothing after a goodbye.
    fn let_go(&self) {
        let here =
            || self.process == std::process::id() && self.shared.station.find(self.shared.id).is_some();
        if std::thread::panicking() && here() {
            let why = String::from("its thread panicked");
            let failure = Failure::Aborted { member: self.shared.me.clone(), why: why.clone() };
            self.shared.report(Report::Aborted { why }, failure);
            self.shared.station.leave_at_exit();
        }
        self.goodbye();
    }

    fn goodbye(&self) {
        if self.process != std::process::id() {
            // A fork's child: the session and its sockets are the parent's.
            return;
        }
        self.shared.leave();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The number of the call that a rank of this process is in, for the root of the same job here; `None`: no rank here.
fn inside(job: u64) -> Option<u32> {
    station::registered(job).map(|world| world.progress.inside())
}
