//! The control plane: everything that the ranks of a communicator say to each other beside their data.
//!
//! ```text
//!   engine (any thread)        control thread of the process               root's control thread
//!  +--------------------+     +-----------------------------+  one TCP    +---------------------+
//!  | Control            |<--->| session: one per rank       |<----------->| root: one per       |
//!  |  progress  failed  |     |  links, liveness, reports   | connection  |  communicator       |
//!  +--------------------+     +-----------------------------+  per rank   +---------------------+
//!                                        ^ links and regions: path sockets, TCP sockets
//!                                        v directly between ranks
//! ```
//!
//! It is off the hot path: the engine writes its place into [`Progress`] and reads one flag. Only the root decides
//! what the first failure is, so all ranks report the same one; when the root itself dies, every rank finds that out
//! for itself.

mod compare;
pub(crate) mod links;
pub(crate) mod progress;
pub(crate) mod root;
mod session;
mod shared;
pub(crate) mod thread;

#[cfg(test)]
mod tests;

use crate::bootstrap::message::{Report, Silence};
use crate::bootstrap::{Listening, Meeting};
use crate::call::Call;
use crate::config::Config;
use crate::error::{CallOf, Error, Failure, Member, Result};
use links::{LinkSettings, Made};
pub(crate) use progress::Progress;
use rccl_transport::Kind;
use rccl_transport::memory::RegionTable;
use rccl_transport::shm::Doorbell;
use session::Command;
use shared::Shared;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How a rank joins.
#[derive(Clone, Debug)]
pub(crate) struct JoinOptions {
    pub listening: Listening,
    /// How long to wait for all others.
    pub patience: Duration,
    pub silence: Silence,
    /// After how long in one call the missing ranks are logged.
    pub late_warn: Duration,
    /// Settings that must be the same on all ranks, as one text; compared when joining.
    pub agreement: String,
    /// Memory that peers may map.
    pub regions: Arc<RegionTable>,
    pub links: LinkSettings,
    /// Set from another thread to give up joining.
    pub cancel: Arc<AtomicBool>,
}

impl JoinOptions {
    /// What the settings say; `regions` is the registered memory of this rank.
    pub(crate) fn new(config: &Config, regions: Arc<RegionTable>) -> JoinOptions {
        let links = LinkSettings::new(config);
        JoinOptions {
            listening: Listening::new(config),
            patience: config.init_timeout,
            silence: Silence { warn: config.silence_warn, fatal: config.silence_fatal },
            late_warn: config.late_warn,
            agreement: links.agreement(config),
            regions,
            links,
            cancel: Arc::default(),
        }
    }
}

/// One rank's handle on the control plane. Clones are handles on the same; the last one to be dropped says goodbye.
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
            thread::control_thread()?.spawn(session::begin(meeting.clone(), rank, size, options, result));
        loop {
            match answer.recv_timeout(Duration::from_millis(50)) {
                Ok(Ok(shared)) => {
                    shared.register();
                    return Ok(Control(Arc::new(Handle { shared, process: std::process::id() })));
                }
                Ok(Err(session::Failed::Join(cause))) => return Err(wrong(cause)),
                Ok(Err(session::Failed::Other(error))) => return Err(error),
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

    /// This rank.
    pub(crate) fn me(&self) -> Member {
        self.0.shared.me.clone()
    }
    /// The host index of every rank.
    pub(crate) fn hosts(&self) -> Arc<[u32]> {
        self.0.shared.hosts.clone()
    }

    /// Asks for links to these peers; they appear in [`Control::take_links`] and the doorbell rings. Asking again
    /// changes nothing. The peers must ask too: the lower rank of a pair connects.
    pub(crate) fn request_links(&self, peers: &[u32]) {
        self.0.shared.command(Command::Link(peers.to_vec()));
    }
    /// The links that were made since the last time.
    pub(crate) fn take_links(&self) -> Vec<Made> {
        std::mem::take(&mut self.0.shared.made())
    }
    /// Has the peers' registered memory that links have asked for mapped. Call it when a call makes no progress; it
    /// costs an uncontended lock when nothing is asked for. The doorbell rings when memory was mapped.
    pub(crate) fn fetch_regions(&self) {
        self.0.shared.fetch_regions();
    }
    /// Rings when a link was made, memory was mapped, or the communicator failed; also what shared-memory peers ring.
    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.0.shared.bell
    }
    /// How links are made; the same on all ranks.
    pub(crate) fn link_settings(&self) -> &LinkSettings {
        &self.0.shared.links
    }

    /// Whether the communicator has failed: one relaxed load.
    #[inline]
    pub(crate) fn failed(&self) -> bool {
        self.0.shared.failed.load(Ordering::Relaxed)
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

    /// Call number `sequence` has made no progress for a while. Finds mismatches that no link sees, and who is late.
    /// Cheap to repeat.
    pub(crate) fn report_stall(&self, sequence: u32) {
        if self.0.shared.stalled.swap(sequence, Ordering::Relaxed) != sequence {
            self.0.shared.command(Command::Stall(sequence));
        }
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
    /// Call number `sequence` has waited as long as it may.
    pub(crate) fn report_timeout(&self, sequence: u32, waited: Duration) {
        let waiting_for = self.waiting_for();
        let failure = Failure::Timeout { rank: self.0.shared.me.rank, sequence, waited, waiting_for };
        self.report(Report::Timeout { sequence, waited }, failure);
    }
    /// The link to `peer` broke. If the peer's process has ended, that becomes the failure.
    pub(crate) fn report_link_lost(&self, peer: u32, kind: Kind, sequence: u32, cause: &str) {
        self.0.shared.command(session::link_lost(&self.0.shared, peer, kind.word(), sequence, cause));
    }
    /// Breaks the communicator on all ranks; this one sees it at once. Safe from any thread, never blocks.
    pub(crate) fn abort(&self, why: &str) {
        let why = session::shorten(why);
        let failure = Failure::Aborted { member: self.me(), why: why.clone() };
        self.0.shared.fail(failure.clone());
        self.report(Report::Aborted { why }, failure);
    }

    fn report(&self, report: Report, otherwise: Failure) {
        self.0.shared.command(Command::Report(report, otherwise));
    }

    /// Says goodbye: this rank enters no further call. Waits at most a second; also done by dropping.
    pub(crate) fn goodbye(&self) {
        self.0.goodbye();
    }

    /// Ends the session without a goodbye, as if the process were killed.
    #[cfg(test)]
    pub(crate) fn vanish(&self) {
        self.0.shared.command(Command::Vanish);
    }
}

impl Handle {
    fn goodbye(&self) {
        if self.process != std::process::id() {
            // A fork's child: the session and its sockets are the parent's.
            return;
        }
        let (said, heard) = sync_channel(1);
        self.shared.command(Command::Goodbye(said));
        let _ = heard.recv_timeout(Duration::from_secs(1));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if std::thread::panicking() && self.process == std::process::id() {
            let why = String::from("its thread panicked");
            let failure = Failure::Aborted { member: self.shared.me.clone(), why: why.clone() };
            self.shared.command(Command::Report(Report::Aborted { why }, failure));
        }
        self.goodbye();
    }
}

/// The number of the call that a rank of this process is in, for the root of the same job here; `None`: no rank here.
fn inside(job: u64) -> Option<u32> {
    shared::registered(job).map(|shared| shared.progress.inside())
}
