//! The public face: a communicator. Its collectives are in [`collectives`](super::collectives).

use crate::background;
use crate::bootstrap::{Meeting, UniqueId};
use crate::buffer::Buffer;
use crate::call::Call;
use crate::config::Config;
use crate::control::{Control, JoinOptions};
use crate::element::Element;
use crate::engine::{Engine, Task};
use crate::error::{Error, Result};
use crate::flow::{self, Driven, Flow, Job, Tried};
use crate::fork;
use crate::meet;
use crate::one_sided::OneSided;
use crate::registered::Registered;
use crate::request::Caller;
use crate::stream::{self, Stream};
use crate::topology::Topology;
use crate::tuner::{self, Decision, Tuner};
use crate::work::{Finish, Held, OwnedBuf};
use rccl_schedule::Collective as Schedule;
use rccl_transport::memory::RegionTable;
use std::collections::HashMap;
use std::ops::DerefMut;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A group of ranks that call collectives together.
///
/// A handle: clones are the same communicator. Every rank must make the same calls in the same order, with the same
/// type, count, operator and root; a rank that does otherwise gets [`Failure::Mismatch`](crate::Failure::Mismatch), and so does
/// every other rank. Threads that share a communicator are served one at a time; the order of their calls must then
/// agree on all ranks.
///
/// Calls block until this rank's part is done: its result is there, and its memory is no longer read by anybody. Every
/// call has a deadline ([`Config::timeout`]). After a failure the communicator is broken on all ranks: every call
/// returns the same first cause.
///
/// Dropping the last handle says goodbye to the other ranks and never blocks for long.
#[derive(Clone)]
pub struct Communicator {
    shared: Arc<Shared>,
    /// Where this handle's calls are made.
    stream: Option<Stream>,
    _handles: Arc<Handles>,
}

/// All handles of a communicator, calls under way among them. The progress thread keeps what is shared for a moment after
/// the last call; if that were enough to stay, a process that ends meanwhile would end without a goodbye.
struct Handles(Arc<Shared>);

impl Drop for Handles {
    fn drop(&mut self) {
        if self.0.born.check().is_ok() {
            self.0.one_sided.abandon();
        }
        // A call whose `Work` was dropped goes on; the progress thread leaves after it.
        if !self.0.flow.is_busy() {
            self.0.control.let_go();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Queue pairs are seen by both processes, and a link that goes waits for what it has sent.
        if self.born.check().is_err() {
            self.flow.abandon();
        }
    }
}

pub(crate) struct Shared {
    rank: u32,
    size: u32,
    label: String,
    pub(crate) control: Control,
    regions: Arc<RegionTable>,
    config: Config,
    /// How often it was shrunk, by the ranks that were left.
    pub(crate) shrunk: Mutex<HashMap<Vec<u32>, u32>>,
    /// The engine's, which may be asked while calls run.
    tuner: Arc<Tuner>,
    pub(crate) flow: Flow,
    one_sided: OneSided,
    pub(crate) born: fork::Generation,
}

/// What [`Communicator::builder`] collects.
pub struct Builder {
    config: Config,
    label: String,
}

impl Builder {
    /// Uses these settings instead of the environment's.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }
    /// Names the communicator in errors and logs.
    pub fn label(mut self, label: impl Into<String>) -> Builder {
        self.label = label.into();
        self
    }
    /// Joins as [`Communicator::new`] does.
    ///
    /// # Errors
    /// As [`Communicator::new`].
    pub fn connect(self, id: &UniqueId, rank: u32, size: u32) -> Result<Communicator> {
        Communicator::join(&Meeting::Id(*id), rank, size, &self.config, self.label)
    }
    /// Joins as [`Communicator::from_env`] does.
    ///
    /// # Errors
    /// As [`Communicator::from_env`].
    pub fn from_env(self) -> Result<Communicator> {
        let invitation = meet::ask_launcher(&self.config)?;
        let joined = Communicator::join(
            &invitation.meeting,
            invitation.rank,
            invitation.size,
            &self.config,
            self.label,
        );
        drop(invitation.exchange);
        joined
    }
}

impl Communicator {
    /// Joins the job that the launcher started this process in (`mpirun`, `mpiexec`, `srun`, `torchrun`, `rccl run`, or
    /// plain `RANK` and `WORLD_SIZE` variables; without any, a communicator of one rank). Blocks until all ranks have
    /// joined, at most [`Config::init_timeout`].
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a setting that cannot be used; [`Error::Join`] when the ranks do not come together,
    /// with who is missing or who was refused and why.
    pub fn from_env() -> Result<Communicator> {
        Builder { config: Config::from_env()?, label: "world".into() }.from_env()
    }

    /// Joins rank `rank` of `size` to the communicator that `id` names; every rank passes the same id, made by
    /// [`UniqueId::create`] in one process that takes part or lives as long. Blocks until all ranks have joined.
    ///
    /// # Errors
    /// As [`Communicator::from_env`], and [`Error::InvalidArgument`] when `rank >= size`.
    pub fn new(id: &UniqueId, rank: u32, size: u32) -> Result<Communicator> {
        Communicator::join(&Meeting::Id(*id), rank, size, &Config::from_env()?, "world".into())
    }

    /// Starts with the environment's settings.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a setting that cannot be used.
    pub fn builder() -> Result<Builder> {
        Ok(Builder { config: Config::from_env()?, label: "world".into() })
    }

    pub(crate) fn join(
        meeting: &Meeting,
        rank: u32,
        size: u32,
        config: &Config,
        label: String,
    ) -> Result<Communicator> {
        if rank >= size {
            return Err(Error::InvalidArgument {
                call: "Communicator::new",
                what: format!("rank {rank} of {size} ranks"),
                hint: "ranks count from 0 to size - 1".into(),
            });
        }
        let topology = Topology::read(config, rank)?;
        let regions = registered_memory();
        let mut options = JoinOptions::new(config, regions.clone());
        options.ring = topology.ring(size);
        if rank == 0 {
            options.profile = tuner::load(config, size)?;
        }
        let control = Control::join(meeting, rank, size, options)?;
        topology.joined(config, control.layout());
        Communicator::over(control, rank, size, config.clone(), label, regions)
    }

    fn over(
        control: Control,
        rank: u32,
        size: u32,
        config: Config,
        label: String,
        regions: Arc<RegionTable>,
    ) -> Result<Communicator> {
        let engine = Engine::new(control.clone(), regions.clone(), label.clone(), &config, rank)?;
        let tuner = engine.tuner();
        let (flow, born) = (Flow::new(engine), fork::Generation::now());
        let shrunk = Mutex::default();
        let one_sided = OneSided::new(control.clone(), label.clone(), config.timeout);
        let shared =
            Shared { rank, size, label, control, regions, config, shrunk, tuner, flow, one_sided, born };
        let shared = Arc::new(shared);
        Ok(Communicator { _handles: Arc::new(Handles(shared.clone())), stream: None, shared })
    }

    /// A communicator of these ranks of this one, in this order; this rank is one of them.
    pub(crate) fn child(&self, id: u64, members: &[u32], label: String) -> Result<Communicator> {
        let Shared { control, config, regions, .. } = &*self.shared;
        let rank = members.iter().position(|&member| member == self.rank()).unwrap_or(0) as u32;
        let control = control.child(id, members)?;
        Communicator::over(control, rank, members.len() as u32, config.clone(), label, regions.clone())
    }

    /// This process's number, `0..size`.
    pub fn rank(&self) -> u32 {
        self.shared.rank
    }

    /// The same communicator, whose calls are made on `stream` when they are made by this handle and its clones: each
    /// begins when everything that was made on the stream before has ended, whichever communicators that was on. Blocking
    /// calls return when they have ended. Communicators that are made from this one have no stream.
    #[must_use]
    pub fn on(&self, stream: &Stream) -> Communicator {
        Communicator { stream: Some(stream.clone()), ..self.clone() }
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// Memory that the other ranks of this host can map: collectives on it move data without a copy between. Zeroed.
    ///
    /// # Errors
    /// [`Error::System`] when the memory cannot be had, with the need and the limit; [`Error::Forked`] in a forked
    /// child.
    pub fn alloc<T: Element>(&self, n: usize) -> Result<Buffer<T>> {
        self.shared.born.check()?;
        Buffer::new(&self.shared.regions, n)
    }

    /// Registers memory that was made elsewhere with the RDMA devices of this process, so that collectives on it move data
    /// over them without a copy, as they do with what [`Communicator::alloc`] gives. Takes time in proportion to the
    /// memory's length; the same memory again is counted. Between ranks of one host, and over TCP, it changes nothing,
    /// and where there is no RDMA it does nothing.
    ///
    /// # Errors
    /// [`Error::System`] when the process may not lock so much memory, with the need and the limit, or when a device
    /// refuses; [`Error::Forked`] in a forked child.
    pub fn register<B: OwnedBuf>(&self, memory: B) -> Result<Registered<B>> {
        self.shared.born.check()?;
        Registered::new(self.shared.control.link_settings().verbs.as_ref().ok(), memory)
    }

    /// Whether the communicator works still, as far as this process has heard. Never blocks.
    ///
    /// # Errors
    /// The failure that broke it, as every call on it answers from now on; [`Error::Forked`] in a forked child.
    pub fn check(&self) -> Result<()> {
        self.shared.born.check()?;
        let control = &self.shared.control;
        let Some(failure) = control.failure() else { return Ok(()) };
        Err(Error::Failed { communicator: self.shared.label.clone(), reporter: control.me(), failure })
    }

    /// Gives up on purpose: every rank's current and later calls fail with `why`, as soon as it has heard of that. Returns at
    /// once, from any thread. Does nothing in a forked child.
    pub fn abort(&self, why: &str) {
        if self.shared.born.check().is_ok() {
            self.shared.control.abort(why);
        }
    }

    /// Leaves the communicator, after this rank's last call; waits for calls that are under way, and some seconds for signals of
    /// this rank's that nobody has waited for.
    ///
    /// # Errors
    /// The failure that broke the communicator, if one did; [`Error::Finished`] if it was finished before, as every later
    /// call through a clone; [`Error::Forked`] in a forked child.
    pub fn finish(self) -> Result<()> {
        self.shared.born.check()?;
        self.shared.flow.work_off();
        self.shared.one_sided.finish();
        let broken = self.engine().engine.finish();
        self.shared.control.goodbye();
        broken.map_or(Ok(()), Err)
    }

    /// Leaves the communicator as dropping its last handle does, though there may be others: for programs that end and
    /// do not know who else holds one. Waits for no call.
    pub fn leave(&self) {
        self.shared.one_sided.leave();
        self.shared.control.let_go();
    }

    /// The name in errors and logs.
    pub fn label(&self) -> &str {
        &self.shared.label
    }

    /// The word of the algorithm that `call` takes here; "none" for messages and groups, which take none, and for a root
    /// that does not exist.
    pub fn algorithm(&self, call: &Call) -> &'static str {
        self.decision(call).map_or("none", |decision| decision.algorithm.word())
    }

    /// The algorithm that `call` takes here, and what decided so; `None` where [`Communicator::algorithm`] says "none".
    pub fn decision(&self, call: &Call) -> Option<Decision> {
        let schedule = self.schedule(call)?;
        Some(self.shared.tuner.decide_call(call, &schedule))
    }

    /// What this communicator's choices go by: the host of each rank, and what is known of the job's hosts.
    pub fn layout(&self) -> (Arc<[u32]>, tuner::Hosts) {
        let control = &self.shared.control;
        (control.layout().host.clone(), control.tuning().hosts)
    }

    /// The program that this rank runs for `call`, one operation a line; nothing where [`Communicator::algorithm`] says
    /// "none".
    pub fn explain(&self, call: &Call) -> String {
        if self.schedule(call).is_some() { self.engine().engine.explain_program(call) } else { String::new() }
    }

    /// What a call's programs compute, if it has any.
    fn schedule(&self, call: &Call) -> Option<Schedule> {
        let schedule = call.collective.schedule(call.root.unwrap_or(0));
        schedule.filter(|collective| collective.root().is_none_or(|root| root < self.size()))
    }

    /// How each rank that was met so far is reached, and why so: (rank, transport, reason). Nothing in a forked child.
    pub fn transports(&self) -> Vec<(u32, String, String)> {
        if self.shared.born.check().is_err() {
            return Vec::new();
        }
        let engine = self.engine();
        let reached = engine.engine.reached().iter();
        reached.map(|peer| (peer.peer, peer.kind.word().to_string(), peer.reason.clone())).collect()
    }

    /// How many bytes this process's links over RDMA have copied through memory of their own, counted where they are sent
    /// and where they arrive, since the devices were opened by the first communicator that uses them: 0 shows that all
    /// went straight from the callers' memory to the peers'. Short messages, which travel with their announcement, are
    /// not counted. 0 also where this process uses no RDMA.
    pub fn staged_bytes(&self) -> u64 {
        self.shared.control.link_settings().verbs.as_ref().map_or(0, |rdma| rdma.rails.staged_bytes())
    }

    /// Runs what was asked for on this thread.
    ///
    /// # Safety
    /// As for [`Engine::execute`].
    #[inline]
    pub(crate) unsafe fn execute(&self, task: Result<Task>) -> Result<()> {
        self.shared.born.check()?;
        if self.stream.is_some() {
            let end = Held::new(());
            // SAFETY: the caller's promise; it has ended before this returns.
            unsafe { self.submit(task, end.clone()) };
            self.help_until(None, || end.is_done());
            return end.result();
        }
        // SAFETY: the caller's promise.
        let result = unsafe { self.shared.flow.execute(task?) };
        if self.shared.flow.is_busy() {
            // Another thread submitted something meanwhile, which nobody could move.
            let _ = background::look_after(&self.shared);
        }
        result
    }

    /// As [`Communicator::execute`], for a short call that was made before, which waits for no longer than this here.
    ///
    /// # Safety
    /// As for [`Flow::execute_for`].
    #[inline]
    pub(crate) unsafe fn execute_for(
        &self,
        task: &Task,
        slice: Duration,
        end: impl FnOnce() -> Arc<dyn Finish>,
    ) -> Result<Tried> {
        self.shared.born.check()?;
        if self.stream.is_some() {
            return Ok(Tried::Not);
        }
        // SAFETY: the caller's promise.
        let tried = unsafe { self.shared.flow.execute_for(task, slice, end) };
        if matches!(tried, Tried::Ended(_)) && self.shared.flow.is_busy() {
            let _ = background::look_after(&self.shared); // as above
        }
        Ok(tried)
    }

    /// Submits what was asked for; the progress thread moves it if nobody waits for it.
    ///
    /// # Safety
    /// As for [`Engine::begin`], until `end` is told; that may be at once.
    pub(crate) unsafe fn submit(&self, task: Result<Task>, end: Arc<dyn Finish>) {
        // SAFETY: the caller's promise.
        unsafe { self.submit_within(task, None, end) };
    }

    /// As [`Communicator::submit`]; the task may take this long once it has begun, if not as long as its stream or
    /// communicator says.
    ///
    /// # Safety
    /// As for [`Communicator::submit`].
    pub(crate) unsafe fn submit_within(
        &self,
        task: Result<Task>,
        timeout: Option<Duration>,
        end: Arc<dyn Finish>,
    ) {
        let tried = match &task {
            // What needs nobody who is not there yet ends here, and wakes no thread.
            // SAFETY: the caller's promise.
            Ok(task) if timeout.is_none() => unsafe {
                self.execute_for(task, Duration::ZERO, || end.clone()).unwrap_or(Tried::Not)
            },
            _ => Tried::Not,
        };
        let submitted = match tried {
            Tried::Ended(result) => return end.finish(result),
            Tried::Waits => true,
            // SAFETY: the caller's promise.
            Tried::Not => unsafe { self.queue(task, timeout, end) },
        };
        if submitted
            && self.stream.as_ref().is_none_or(Stream::is_in_background)
            && let Err(error) = background::look_after(&self.shared)
        {
            // Whoever waits moves it all the same.
            tracing::warn!(%error, "asynchronous calls make progress only while they are waited for");
        }
    }

    /// Submits what was asked for to whoever waits for it. `false`: it has ended already, because it was refused.
    ///
    /// # Safety
    /// As for [`Communicator::submit`].
    pub(crate) unsafe fn queue(
        &self,
        task: Result<Task>,
        timeout: Option<Duration>,
        end: Arc<dyn Finish>,
    ) -> bool {
        match self.shared.born.check().and(task) {
            Ok(task) => {
                match &self.stream {
                    // SAFETY: the caller's promise.
                    None => unsafe {
                        self.shared.flow.submit(Job { task: task.into(), after: Vec::new(), timeout, end })
                    },
                    // SAFETY: as above.
                    Some(stream) => unsafe {
                        stream::submit(&[stream], timeout, vec![(&self.shared, task.into(), end)])
                    },
                }
                true
            }
            Err(error) => {
                if let Some(stream) = &self.stream {
                    stream.refused(&error);
                }
                end.finish(Err(error));
                false
            }
        }
    }

    /// Moves this communicator's tasks, and those of its stream, until `done` or until the deadline.
    pub(crate) fn help_until(&self, deadline: Option<Instant>, done: impl Fn() -> bool) {
        match &self.stream {
            None => flow::help(&[&self.shared.flow], deadline, done),
            Some(stream) => stream.help_until(deadline, done),
        }
        if self.shared.flow.is_busy() && self.shared.born.check().is_ok() {
            let _ = background::look_after(&self.shared);
        }
    }

    /// Who asks for a call.
    #[inline]
    pub(crate) fn caller(&self) -> Caller {
        Caller { rank: self.shared.rank, size: self.shared.size }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.shared.config
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn one_sided(&self) -> &OneSided {
        &self.shared.one_sided
    }

    fn engine(&self) -> impl DerefMut<Target = Driven> + '_ {
        self.shared.flow.engine()
    }
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shared { rank, size, label, .. } = &*self.shared;
        f.debug_struct("Communicator").field("label", label).field("rank", rank).field("size", size).finish()
    }
}

/// As [`Communicator::alloc`], for all communicators that this process has or will have.
///
/// # Errors
/// As [`Communicator::alloc`].
pub fn alloc<T: Element>(n: usize) -> Result<Buffer<T>> {
    Buffer::new(&registered_memory(), n)
}

/// The process's registered memory, which all its communicators share.
fn registered_memory() -> Arc<RegionTable> {
    static REGIONS: Mutex<Option<(fork::Generation, Arc<RegionTable>)>> = Mutex::new(None);
    let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
    match &*regions {
        Some((born, regions)) if born.check().is_ok() => regions.clone(),
        // A forked child shares the pages of its parent's regions, and must not use them for its own.
        _ => regions.insert((fork::Generation::now(), RegionTable::new())).1.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_handle_leaves_whoever_else_keeps_what_is_shared() {
        let world = Communicator::new(&UniqueId::create(&Config::default()).unwrap(), 0, 1).unwrap();
        let (kept, another) = (world.shared().clone(), world.clone());
        drop(world);
        assert!(kept.control.child(1, &[0]).is_ok(), "a handle is left");
        drop(another);
        assert!(kept.control.child(2, &[0]).is_err(), "the session has ended");
    }
}
