//! What a rank of the job has once, however many communicators it is in.

use super::directory::{Directory, Found, Left};
use super::links::LinkSettings;
use super::session::Command;
use super::shared::{Shared, WORLD};
use crate::at_exit::at_exit;
use crate::bootstrap::handshake::Secret;
use crate::bootstrap::message::{Details, Standing, State};
use crate::error::{Failure, Member};
use crate::tuner::Tuning;
use rccl_schedule::Layout;
use rccl_transport::memory::{PeerRegions, RegionTable};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

/// A rank's place in the job: who it is, how it is reached, whom it knows. Ranks are the world's here.
pub(crate) struct Station {
    pub secret: Secret,
    pub me: Member,
    /// Where every rank of the job lives.
    pub layout: Layout,
    /// How many processors the ranks of this host have together.
    pub processors: u32,
    pub details: Details,
    pub root: Member,
    pub tuning: Tuning,
    pub links: LinkSettings,
    pub regions: Arc<RegionTable>,
    /// A fallback was logged.
    pub fell_back: AtomicBool,
    /// [`Station::leave_at_exit`] was called.
    leaves: AtomicBool,
    peers: Mutex<HashMap<u32, Details>>,
    /// The memory of peers that share some with this rank, mapped once for all communicators.
    peer_regions: Mutex<HashMap<u32, Arc<PeerRegions>>>,
    directory: Mutex<Directory>,
    /// A communicator was made or left.
    changed: Notify,
    commands: UnboundedSender<Command>,
}

/// What is known when a rank has joined.
pub(crate) struct Start {
    pub secret: Secret,
    pub me: Member,
    pub layout: Layout,
    pub processors: u32,
    pub details: Details,
    pub root: Member,
    pub tuning: Tuning,
    pub links: LinkSettings,
    pub regions: Arc<RegionTable>,
    pub commands: UnboundedSender<Command>,
}

impl Station {
    pub(crate) fn new(start: Start) -> Station {
        let Start { secret, me, layout, processors, details, root, tuning, links, regions, commands } = start;
        Station {
            secret,
            me,
            layout,
            processors,
            details,
            root,
            tuning,
            links,
            regions,
            fell_back: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            peers: Mutex::default(),
            peer_regions: Mutex::default(),
            directory: Mutex::default(),
            changed: Notify::new(),
            commands,
        }
    }

    /// Tells the session to do something; after its end nothing happens.
    pub(crate) fn command(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a communicator up, and breaks it if it cannot live: its failure may be older than itself here.
    ///
    /// # Errors
    /// Why it cannot be taken up.
    pub(crate) fn enter(&self, shared: &Arc<Shared>) -> Result<(), &'static str> {
        let failure = self.directory().enter(shared)?;
        if let Some(failure) = failure {
            shared.fail(failure);
        }
        self.changed.notify_waiters();
        Ok(())
    }
    /// Gives a communicator up after `state`; `None` if that was done before.
    pub(crate) fn leave(&self, communicator: u64, state: State) -> Option<Left> {
        let left = self.directory().leave(communicator, state);
        self.changed.notify_waiters();
        left
    }
    /// If the process exits before this rank has left all its communicators, it leaves them then: what was reported last is
    /// told before the goodbye, and the end of the process could be faster.
    pub(crate) fn leave_at_exit(&self) {
        /// The process that will do so: its forked children do not.
        static LEAVES: AtomicU32 = AtomicU32::new(0);
        self.leaves.store(true, Ordering::Release);
        let process = std::process::id();
        if LEAVES.swap(process, Ordering::Relaxed) == process {
            return;
        }
        at_exit(Box::new(|| {
            let ranks: Vec<Arc<Station>> = {
                let ranks = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
                ranks.iter().filter_map(Weak::upgrade).collect()
            };
            for station in ranks.iter().filter(|station| station.leaves.load(Ordering::Acquire)) {
                station.all().iter().for_each(|shared| shared.leave());
            }
        }));
    }
    pub(crate) fn find(&self, communicator: u64) -> Option<Arc<Shared>> {
        match self.directory().find(communicator) {
            Found::Here(shared) => Some(shared),
            _ => None,
        }
    }
    /// All communicators that the rank is in.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        self.directory().all()
    }
    /// As [`Directory::calls_left`].
    pub(crate) fn calls_left(&self) -> Vec<(u64, u32)> {
        self.directory().calls_left()
    }
    pub(crate) fn standing(&self, communicator: u64) -> Standing {
        match self.directory().find(communicator) {
            Found::Here(shared) => Standing::In(shared.progress.state()),
            Found::Left(state) => Standing::Left(state),
            Found::Absent => Standing::Absent,
        }
    }
    /// As [`Directory::find`], but waits until `deadline`, or until this rank leaves the job, for a communicator that is
    /// not there yet.
    pub(crate) async fn await_communicator(&self, communicator: u64, deadline: Instant) -> Found {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (found, closed) = {
                let directory = self.directory();
                (directory.find(communicator), directory.closed())
            };
            if closed || !matches!(found, Found::Absent) {
                return found;
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                return Found::Absent;
            }
        }
    }

    /// The root has said that a communicator failed, which may not be here yet.
    pub(crate) fn failed(&self, communicator: u64, failure: Failure) {
        let shared = self.directory().foretell(communicator, &failure);
        if let Some(shared) = shared {
            shared.fail(failure);
        }
    }
    /// The root has said that a rank was lost: breaks all communicators with it but the world, of which the root
    /// speaks apart.
    pub(crate) fn lost(&self, member: Member, how: String) {
        let all = {
            let mut directory = self.directory();
            directory.lost(member.clone(), how.clone());
            directory.all()
        };
        for shared in all.iter().filter(|shared| shared.id != WORLD) {
            if let Some(rank) = shared.group.inside(member.rank) {
                shared.fail(super::directory::peer_lost(&member, rank, &how));
            }
        }
    }
    /// The root has gone, and all communicators with it.
    pub(crate) fn root_lost(&self, how: String) {
        let all = {
            let mut directory = self.directory();
            directory.root_lost(self.root.clone(), how.clone());
            directory.all()
        };
        for shared in all {
            let sequence = shared.progress.inside();
            shared.fail(super::directory::root_lost(&self.root, &shared, how.clone(), sequence));
        }
    }

    pub(crate) fn peer(&self, rank: u32) -> Option<Details> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).get(&rank).cloned()
    }
    pub(crate) fn meet(&self, rank: u32, details: Details) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).insert(rank, details);
    }

    /// The memory of a peer that a link may name.
    pub(crate) fn regions_of(&self, rank: u32) -> Arc<PeerRegions> {
        self.peer_regions.lock().unwrap_or_else(PoisonError::into_inner).entry(rank).or_default().clone()
    }
    /// Passes what the links have asked for on to the session.
    pub(crate) fn fetch_regions(&self) {
        for (rank, regions) in &*self.peer_regions.lock().unwrap_or_else(PoisonError::into_inner) {
            let numbers = regions.take_requests();
            if !numbers.is_empty() {
                self.command(Command::Regions(*rank, regions.clone(), numbers));
            }
        }
    }

    /// Makes this rank known to the root in the same process, if that is here.
    pub(crate) fn register(self: &Arc<Station>) {
        let mut ranks = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
        ranks.retain(|rank| rank.strong_count() > 0);
        ranks.push(Arc::downgrade(self));
    }
}

static REGISTERED: Mutex<Vec<Weak<Station>>> = Mutex::new(Vec::new());

/// The lowest rank of this job in this process that is still in the world.
pub(crate) fn registered(job: u64) -> Option<Arc<Shared>> {
    let ranks = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    let of_job = ranks.iter().filter_map(Weak::upgrade).filter(|rank| rank.secret.job == job);
    of_job.filter_map(|rank| rank.find(WORLD)).min_by_key(|world| world.me.rank)
}
