//! What the engine and the control thread share for one rank of one communicator.

use super::links::{Halves, Made};
use super::progress::Progress;
use super::session::Command;
use super::station::Station;
use crate::bootstrap::group::Group;
use crate::bootstrap::message::Report;
use crate::error::{CallOf, Error, Failure, Member, Result};
use rccl_schedule::Layout;
use rccl_transport::shm::Doorbell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::Notify;

/// The id of the communicator that the job begins with.
pub(crate) const WORLD: u64 = 0;

/// State of one rank; see [`super::Control`] for what the fields mean to the engine. Ranks are the communicator's.
pub(crate) struct Shared {
    pub id: u64,
    /// Its ranks in the job.
    pub group: Arc<Group>,
    pub me: Member,
    pub layout: Layout,
    pub station: Arc<Station>,
    pub bell: Arc<Doorbell>,
    pub progress: Progress,
    pub failed: AtomicBool,
    /// Number of the last call that was reported as stalled.
    pub stalled: AtomicU32,
    /// TCP links that lower ranks are making.
    pub halves: Halves,
    failure: OnceLock<Arc<Failure>>,
    /// Communicators that fail when this one does.
    followers: Mutex<Vec<Weak<Shared>>>,
    made: Mutex<Vec<Made>>,
    waiting: Mutex<Vec<(Member, CallOf)>>,
    closed: AtomicBool,
    closing: Notify,
}

impl Shared {
    /// # Errors
    /// [`Error::System`] when there is no descriptor for a doorbell.
    ///
    /// # Panics
    /// If the rank of `station` is not one of `group`.
    pub(crate) fn new(id: u64, group: Arc<Group>, station: Arc<Station>) -> Result<Shared> {
        let rank = group.inside(station.me.rank).expect("a rank makes only communicators that it is in");
        let bell = Doorbell::new().map_err(|source| Error::System {
            during: "making an eventfd".into(),
            source: Arc::new(source),
            hint: "raise the limit of open files (`ulimit -n`)".into(),
        })?;
        Ok(Shared {
            id,
            me: Member { rank, ..station.me.clone() },
            layout: station.layout.of_members(group.members()),
            group,
            station,
            bell: Arc::new(bell),
            progress: Progress::default(),
            failed: AtomicBool::new(false),
            stalled: AtomicU32::new(0),
            halves: Halves::default(),
            failure: OnceLock::new(),
            followers: Mutex::default(),
            made: Mutex::default(),
            waiting: Mutex::default(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        })
    }

    /// Sets the failure unless there is one, and wakes the engine.
    pub(crate) fn fail(&self, failure: Failure) {
        if self.failure.set(Arc::new(failure.clone())).is_ok() {
            self.failed.store(true, Ordering::Release);
            self.wake();
            let followers = self.followers().clone();
            followers.iter().filter_map(Weak::upgrade).for_each(|follower| follower.fail(failure.clone()));
        }
    }
    /// From now on `follower` fails when this communicator does.
    pub(crate) fn lead(&self, follower: &Arc<Shared>) {
        let mut followers = self.followers();
        followers.retain(|known| known.strong_count() > 0);
        followers.push(Arc::downgrade(follower));
        drop(followers);
        if let Some(failure) = self.failure() {
            follower.fail((*failure).clone());
        }
    }
    fn followers(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn failure(&self) -> Option<Arc<Failure>> {
        self.failure.get().cloned()
    }
    pub(crate) fn wake(&self) {
        if let Err(error) = self.bell.ring() {
            tracing::debug!(%error, "the doorbell cannot be rung");
        }
    }
    /// Tells the root; `otherwise` holds if it does not decide.
    pub(crate) fn report(&self, report: Report, otherwise: Failure) {
        self.station.command(self.reporting(report, otherwise));
    }
    /// As [`Shared::report`], as a command.
    pub(crate) fn reporting(&self, report: Report, otherwise: Failure) -> Command {
        Command::Report { communicator: self.id, group: self.group.clone(), report, otherwise }
    }

    /// The links that were made since the last time.
    pub(crate) fn take_made(&self) -> Vec<Made> {
        std::mem::take(&mut self.made())
    }
    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Hands a link to the engine.
    pub(crate) fn deliver(&self, made: Made) {
        tracing::debug!(
            communicator = self.id,
            rank = self.me.rank,
            peer = made.peer,
            kind = made.kind.word(),
            reason = made.reason,
            "linked"
        );
        let mut links = self.made();
        if !self.closed.load(Ordering::Relaxed) {
            links.push(made);
        }
        drop(links);
        self.wake();
    }
    pub(crate) fn waiting(&self) -> MutexGuard<'_, Vec<(Member, CallOf)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the communicator, if that was not done before; of the job's last one waits for the session's end, at most a second.
    pub(crate) fn leave(&self) {
        let Some(left) = self.station.leave(self.id, self.progress.state()) else { return };
        self.close();
        let (said, heard) = sync_channel(1);
        self.station.command(Command::Leave { communicator: self.id, last: left.last.then_some(said) });
        if left.last {
            let _ = heard.recv_timeout(Duration::from_secs(1));
        }
    }

    /// The rank has left: ends what makes links, and drops those that nobody took.
    pub(crate) fn close(&self) {
        let unused = {
            let mut links = self.made();
            self.closed.store(true, Ordering::Release);
            std::mem::take(&mut *links)
        };
        drop(unused);
        self.halves.clear();
        self.closing.notify_waiters();
    }
    /// Does `work` unless the rank leaves meanwhile.
    pub(crate) async fn while_open<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        tokio::select! {
            done = work => Some(done),
            () = closing => None,
        }
    }
}
