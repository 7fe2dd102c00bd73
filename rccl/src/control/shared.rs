//! What the engine and the control thread share for one rank of one communicator.

use super::links::{LinkSettings, Made};
use super::progress::Progress;
use super::session::Command;
use crate::bootstrap::message::Details;
use crate::error::{CallOf, Failure, Member};
use rccl_transport::memory::{PeerRegions, RegionTable};
use rccl_transport::shm::Doorbell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tokio::sync::mpsc::UnboundedSender;

/// State of one rank; see [`super::Control`] for what the fields mean to the engine.
pub(crate) struct Shared {
    pub job: u64,
    pub me: Member,
    pub hosts: Arc<[u32]>,
    pub details: Details,
    pub root: Member,
    pub links: LinkSettings,
    pub regions: Arc<RegionTable>,
    pub bell: Arc<Doorbell>,
    pub progress: Progress,
    pub failed: AtomicBool,
    /// Number of the last call that was reported as stalled.
    pub stalled: AtomicU32,
    /// A fallback was logged.
    pub fell_back: AtomicBool,
    failure: OnceLock<Arc<Failure>>,
    made: Mutex<Vec<Made>>,
    waiting: Mutex<Vec<(Member, CallOf)>>,
    peers: Mutex<HashMap<u32, Details>>,
    /// The memory of peers that share some with this rank.
    peer_regions: Mutex<Vec<(u32, Arc<PeerRegions>)>>,
    commands: UnboundedSender<Command>,
}

/// What is known when a rank has joined.
pub(crate) struct Start {
    pub job: u64,
    pub me: Member,
    pub hosts: Arc<[u32]>,
    pub details: Details,
    pub root: Member,
    pub links: LinkSettings,
    pub regions: Arc<RegionTable>,
    pub bell: Arc<Doorbell>,
    pub commands: UnboundedSender<Command>,
}

impl Shared {
    pub(crate) fn new(start: Start) -> Shared {
        let Start { job, me, hosts, details, root, links, regions, bell, commands } = start;
        Shared {
            job,
            me,
            hosts,
            details,
            root,
            links,
            regions,
            bell,
            progress: Progress::default(),
            failed: AtomicBool::new(false),
            stalled: AtomicU32::new(0),
            fell_back: AtomicBool::new(false),
            failure: OnceLock::new(),
            made: Mutex::default(),
            waiting: Mutex::default(),
            peers: Mutex::default(),
            peer_regions: Mutex::default(),
            commands,
        }
    }

    /// Tells the session to do something; after its end nothing happens.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    /// Sets the failure unless there is one, and wakes the engine.
    pub(crate) fn fail(&self, failure: Failure) {
        if self.failure.set(Arc::new(failure)).is_ok() {
            self.failed.store(true, Ordering::Release);
            self.wake();
        }
    }
    pub(crate) fn failure(&self) -> Option<Arc<Failure>> {
        self.failure.get().cloned()
    }
    pub(crate) fn wake(&self) {
        if let Err(error) = self.bell.ring() {
            tracing::debug!(%error, "the doorbell cannot be rung");
        }
    }

    pub(crate) fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Hands a link to the engine.
    pub(crate) fn deliver(&self, made: Made) {
        tracing::debug!(
            rank = self.me.rank,
            peer = made.peer,
            kind = made.kind.word(),
            reason = made.reason,
            "linked"
        );
        self.made().push(made);
        self.wake();
    }
    pub(crate) fn waiting(&self) -> MutexGuard<'_, Vec<(Member, CallOf)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(crate) fn peers(&self) -> MutexGuard<'_, HashMap<u32, Details>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches for requests of this peer's memory.
    pub(crate) fn watch_regions(&self, peer: u32, regions: Arc<PeerRegions>) {
        self.peer_regions.lock().unwrap_or_else(PoisonError::into_inner).push((peer, regions));
    }
    /// Passes the requests of all links on to the session.
    pub(crate) fn fetch_regions(&self) {
        for (peer, regions) in &*self.peer_regions.lock().unwrap_or_else(PoisonError::into_inner) {
            let numbers = regions.take_requests();
            if !numbers.is_empty() {
                self.command(Command::Regions(*peer, regions.clone(), numbers));
            }
        }
    }

    /// Makes this rank known to the root in the same process, if that is here.
    pub(crate) fn register(self: &Arc<Shared>) {
        let mut ranks = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        ranks.retain(|rank| rank.strong_count() > 0);
        ranks.push(Arc::downgrade(self));
    }
}

static REGISTERED: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// The lowest rank of this job in this process that has not ended.
pub(crate) fn registered(job: u64) -> Option<Arc<Shared>> {
    let ranks = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    ranks.iter().filter_map(Weak::upgrade).filter(|rank| rank.job == job).min_by_key(|rank| rank.me.rank)
}
