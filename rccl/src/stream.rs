//! Streams: an order of calls, of whatever communicators.
//!
//! A stream is a list of *stages*, of which the last is kept. A call that is made on a stream waits for the stage that was
//! the last one, and becomes it. It takes its place in the queue of its communicator at once, and whoever comes to it
//! there leaves it until what it waits for has ended ([`Job`](crate::flow::Job)). A stage waits only for what was made before it,
//! in queues as in streams, so nothing waits for itself in one process; between ranks that is up to their programs.

use crate::background;
use crate::communicator::Shared;
use crate::error::{Error, Result};
use crate::flow::{self, Job, Todo};
use crate::fork;
use crate::work::Finish;
use rccl_transport::shm::Doorbell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An order of calls across communicators: those that are made on one stream run one after the other.
///
/// Calls of one communicator run in the order in which they were made anyway, also on different streams; those of
/// different communicators run at the same time unless a stream orders them. [`Communicator::on`](crate::Communicator::on) gives the
/// communicator whose calls are made on a stream.
///
/// ```no_run
/// # fn main() -> rccl::Result<()> {
/// let world = rccl::Communicator::from_env()?;
/// let row = world.split(Some(world.rank() / 4), 0)?.expect("a colour");
/// let stream = rccl::Stream::new();
/// let in_row = row.on(&stream).start_all_reduce(vec![1.0_f32; 1000], rccl::ReduceOp::Sum);
/// // Begins when the row's sum is there.
/// let everywhere = world.on(&stream).start_all_reduce(vec![1.0_f32; 1000], rccl::ReduceOp::Sum);
/// stream.synchronize()?;
/// # drop((in_row, everywhere));
/// # Ok(())
/// # }
/// ```
///
/// A handle: clones are the same stream. Threads may share one; what they make on it is ordered as they come. As with
/// communicators, the ranks of a job must order what they have in common alike. A call on a stream that fails does not keep
/// those behind it from running.
#[derive(Clone)]
pub struct Stream {
    line: Arc<Line>,
}

struct Line {
    tail: Mutex<Tail>,
    born: fork::Generation,
}

#[derive(Default)]
struct Tail {
    /// What the next call waits for: the last stage, and those of other streams.
    last: Vec<Arc<Stage>>,
    /// What has not ended when it was last looked at, and where that is.
    under_way: Vec<(Arc<Stage>, Arc<Shared>)>,
    /// The first error since it was last told.
    error: Option<Error>,
    /// How long each call may take that is made from now on, if not as long as its communicator's.
    timeout: Option<Duration>,
    /// Calls that are made from now on are left to whoever waits for them.
    left_to_waiters: bool,
}

/// Calls that are made together on a stream.
#[derive(Default)]
pub(crate) struct Stage {
    /// Those that have not ended.
    left: AtomicUsize,
    state: Mutex<End>,
}

/// What is to be done at the end of a stage.
type Then = Box<dyn FnOnce(Option<Error>) + Send>;

/// The same with what it is told.
type Due = VecDeque<(Then, Option<Error>)>;

thread_local! {
    /// What is to be done at the ends of stages that come while this thread does such things. A stream may be longer than a
    /// stack is deep, so one is not done inside of another.
    static AFTERWARDS: RefCell<Option<Due>> = const { RefCell::new(None) };
}

/// What happens when a stage is over.
#[derive(Default)]
struct End {
    /// Whom to ring.
    bells: Vec<Arc<Doorbell>>,
    /// What to do, with the first error.
    then: Vec<Then>,
    /// The first error.
    error: Option<Error>,
}

impl Stage {
    /// One of so many calls, whose ends [`Stage::end`] is told.
    pub fn of(calls: usize) -> Arc<Stage> {
        Arc::new(Stage { left: AtomicUsize::new(calls), ..Stage::default() })
    }

    /// The first error of its calls.
    pub fn result(&self) -> Result<()> {
        lock(&self.state).error.clone().map_or(Ok(()), Err)
    }

    /// Whether all of its calls have ended.
    pub fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Has the bell rung when it is over. Look again whether it is: it may have ended meanwhile.
    pub fn ring(&self, bell: &Arc<Doorbell>) {
        let bells = &mut lock(&self.state).bells;
        if !bells.iter().any(|known| Arc::ptr_eq(known, bell)) {
            bells.push(bell.clone());
        }
    }

    /// One of its calls has ended.
    pub fn end(&self, result: &Result<()>) {
        let mut state = lock(&self.state);
        if let Err(error) = result {
            state.error.get_or_insert_with(|| error.clone());
        }
        if self.left.fetch_sub(1, Ordering::Release) > 1 {
            return;
        }
        let End { bells, then, error } = &mut *state;
        let (bells, then, error) = (std::mem::take(bells), std::mem::take(then), error.clone());
        drop(state);
        run_all(then.into_iter().map(|then| (then, error.clone())).collect());
        for bell in bells {
            if let Err(error) = bell.ring() {
                tracing::debug!(%error, "a doorbell cannot be rung");
            }
        }
    }
}

/// Does what is to be done at the end of a stage, and what this leads to.
fn run_all(mut all: Due) {
    if all.is_empty() {
        return;
    }
    let others = AFTERWARDS.try_with(|others| match &mut *others.borrow_mut() {
        Some(others) => {
            others.append(&mut all);
            true
        }
        others => {
            *others = Some(std::mem::take(&mut all));
            false
        }
    });
    match others {
        Ok(true) => {}
        Ok(false) => {
            let next = || AFTERWARDS.with_borrow_mut(|others| others.as_mut()?.pop_front());
            while let Some((then, error)) = next() {
                run(then, error);
            }
            AFTERWARDS.set(None);
        }
        // The thread ends.
        Err(_) => all.into_iter().for_each(|(then, error)| run(then, error)),
    }
}

/// Does what is to be done at the end of a stage. A panic there is the program's, and no reason for its calls to stop.
fn run(then: impl FnOnce(Option<Error>), error: Option<Error>) {
    if catch_unwind(AssertUnwindSafe(|| then(error))).is_err() {
        tracing::error!("what was to be done at the end of a stream's calls panicked");
    }
}

/// A call of a stage: its end is told to whoever made it and to the stage.
struct OfStage {
    stage: Arc<Stage>,
    end: Arc<dyn Finish>,
}

impl Finish for OfStage {
    fn finish(&self, result: Result<()>) {
        // The stream first: who was told that a call has ended finds it ended there, too.
        self.stage.end(&result);
        self.end.finish(result);
    }
}

impl Stream {
    /// A stream on which nothing was made yet. It costs nothing but a little memory.
    pub fn new() -> Stream {
        Stream { line: Arc::new(Line { tail: Mutex::default(), born: fork::Generation::now() }) }
    }

    /// Blocks until everything that was made on the stream so far has ended. Each call has its deadline, so this has one.
    ///
    /// # Errors
    /// The first error of a call on this stream that was not told by this before; [`Error::Forked`] in a forked child.
    pub fn synchronize(&self) -> Result<()> {
        self.wait_until(None).map(|_| ())
    }

    /// As [`Stream::synchronize`], but blocks no longer than `patience`; whether everything has ended.
    ///
    /// # Errors
    /// As [`Stream::synchronize`], if everything has ended.
    pub fn synchronize_timeout(&self, patience: Duration) -> Result<bool> {
        // A deadline that no clock reaches is none.
        self.wait_until(Instant::now().checked_add(patience))
    }

    /// Whether everything that was made on the stream has ended, well or not. Never blocks.
    pub fn is_idle(&self) -> bool {
        lock(&self.line.tail).look().is_empty()
    }

    /// How long each call may take that is made on this stream from now on, counted from when it begins; `None`: as long as
    /// its communicator's ([`Config::timeout`](crate::Config::timeout)). Of calls that block in no stream nothing changes.
    pub fn set_timeout(&self, timeout: Option<Duration>) {
        lock(&self.line.tail).timeout = timeout;
    }

    /// Whether calls that are made on this stream from now on go on by themselves, as they do at first, or only while somebody waits
    /// for them: who waits at once saves waking the progress thread. `true` has what is under way go on by itself, too.
    ///
    /// # Errors
    /// [`Error::System`] when the progress thread cannot be started.
    pub fn set_background(&self, background: bool) -> Result<()> {
        let communicators: Vec<_> = {
            let mut tail = lock(&self.line.tail);
            tail.left_to_waiters = !background;
            tail.look().iter().map(|(_, communicator)| communicator.clone()).collect()
        };
        if background {
            communicators.iter().try_for_each(background::look_after)?;
        }
        Ok(())
    }

    /// Puts a stage at the end, of calls that somebody else makes; who waits for it moves these communicators. Returns what it
    /// comes after, which [`after`] waits for: the stage must not be over before.
    pub(crate) fn append(&self, stage: &Arc<Stage>, moved: &[&Arc<Shared>]) -> Vec<Arc<Stage>> {
        let (before, unattended) = {
            let mut tail = lock(&self.line.tail);
            let unattended = if tail.left_to_waiters { tail.look().to_vec() } else { Vec::new() };
            tail.look();
            tail.under_way.extend(moved.iter().map(|&shared| (stage.clone(), shared.clone())));
            (std::mem::replace(&mut tail.last, vec![stage.clone()]), unattended)
        };
        attend(unattended.iter().map(|(_, communicator)| communicator));
        before
    }

    /// How long each call may take that is made now, if not as long as its communicator's.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        lock(&self.line.tail).timeout
    }

    /// A call on it was not even begun.
    pub(crate) fn refused(&self, error: &Error) {
        lock(&self.line.tail).error.get_or_insert_with(|| error.clone());
    }

    pub(crate) fn is_in_background(&self) -> bool {
        !lock(&self.line.tail).left_to_waiters
    }

    /// Has `then` run once everything that was made on the stream so far has ended, with the first error that
    /// [`Stream::synchronize`] has not told; that tells it nevertheless. It runs on the thread that sees the end, this one if
    /// that has come already, or whoever waits for a call, or the progress thread: it may make calls on streams, and must
    /// not wait for any, nor leave a communicator.
    pub fn on_end(&self, then: impl FnOnce(Result<()>) + Send + 'static) {
        let last = lock(&self.line.tail).look().last().map(|(stage, _)| stage.clone());
        let line = self.line.clone();
        // The stage's error comes with it: somebody who waited may have been told already, and taken it from the stream.
        let then = move |of_stage: Option<Error>| {
            let error = {
                let mut tail = lock(&line.tail);
                tail.look();
                tail.error.clone().or(of_stage)
            };
            then(error.map_or(Ok(()), Err));
        };
        let mut of_stage = None;
        if let Some(stage) = last {
            let mut state = lock(&stage.state);
            if !stage.is_over() {
                state.then.push(Box::new(then));
                return;
            }
            of_stage = state.error.clone();
        }
        run(then, of_stage);
    }

    /// What is made on this stream from now on begins after everything that was made on `other` so far. Never blocks.
    pub fn wait_for(&self, other: &Stream) {
        let (others, unattended) = {
            let mut tail = lock(&other.line.tail);
            let unattended = if tail.left_to_waiters { tail.look().to_vec() } else { Vec::new() };
            (tail.last.clone(), unattended)
        };
        {
            let mut tail = lock(&self.line.tail);
            for stage in others.into_iter().filter(|stage| !stage.is_over()) {
                if !tail.last.iter().any(|known| Arc::ptr_eq(known, &stage)) {
                    tail.last.push(stage);
                }
            }
        }
        attend(unattended.iter().map(|(_, communicator)| communicator));
    }

    /// Whether both are handles on one stream.
    pub(crate) fn is(&self, other: &Stream) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool> {
        self.line.born.check()?;
        let (stages, communicators): (Vec<_>, Vec<_>) = lock(&self.line.tail).look().iter().cloned().unzip();
        let is_over = || stages.iter().all(|stage| stage.is_over());
        help(&communicators, deadline, is_over);
        if !is_over() {
            return Ok(false);
        }
        let mut tail = lock(&self.line.tail);
        tail.look();
        tail.error.take().map_or(Ok(true), Err)
    }

    /// Moves everything on the stream until `done`.
    pub(crate) fn help_until(&self, deadline: Option<Instant>, done: impl Fn() -> bool) {
        let communicators: Vec<_> =
            lock(&self.line.tail).look().iter().map(|(_, communicator)| communicator.clone()).collect();
        help(&communicators, deadline, done);
    }
}

impl Default for Stream {
    fn default() -> Stream {
        Stream::new()
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("idle", &self.is_idle()).finish()
    }
}

impl Tail {
    /// What has not ended. Keeps the first error of what has.
    fn look(&mut self) -> &[(Arc<Stage>, Arc<Shared>)] {
        for (stage, _) in self.under_way.extract_if(.., |(stage, _)| stage.is_over()) {
            // A copy: the stage may be one of other streams too, which tell it as well.
            if self.error.is_none() {
                self.error = lock(&stage.state).error.clone();
            }
        }
        self.last.retain(|stage| !stage.is_over());
        &self.under_way
    }
}

/// Puts tasks into the queues of their communicators, to begin when everything on these streams has ended. On each of them
/// they are one stage.
///
/// # Safety
/// As for [`Flow::submit`](flow::Flow::submit).
pub(crate) unsafe fn submit(
    streams: &[&Stream],
    timeout: Option<Duration>,
    tasks: Vec<(&Arc<Shared>, Todo, Arc<dyn Finish>)>,
) {
    let mut lines: Vec<&Arc<Line>> = streams.iter().map(|stream| &stream.line).collect();
    // In one order, so that nobody waits for a lock in a circle.
    lines.sort_by_key(|line| Arc::as_ptr(line));
    lines.dedup_by_key(|line| Arc::as_ptr(line));
    // The locks are held until the tasks are in their queues: these must not be in another order than the stages.
    let mut tails: Vec<MutexGuard<'_, Tail>> = lines.iter().map(|line| lock(&line.tail)).collect();
    let mut after: Vec<Arc<Stage>> = Vec::new();
    let timeout = timeout.or_else(|| tails.iter().filter_map(|tail| tail.timeout).min());
    for tail in &mut tails {
        tail.look();
        after.append(&mut tail.last);
    }
    let stage = Stage::of(tasks.len());
    for tail in &mut tails {
        tail.last.push(stage.clone());
        for (communicator, ..) in &tasks {
            tail.under_way.push((stage.clone(), Arc::clone(communicator)));
        }
    }
    // Who waits for these calls moves their communicators, and not those of what they wait for.
    let is_own = |other: &Arc<Shared>| tasks.iter().any(|(own, ..)| Arc::ptr_eq(own, other));
    let unattended = tails.iter().filter(|tail| tail.left_to_waiters).flat_map(|tail| &tail.under_way);
    let unattended: Vec<_> =
        unattended.map(|(_, other)| other).filter(|other| !is_own(other)).cloned().collect();
    for (communicator, task, end) in tasks {
        let end = Arc::new(OfStage { stage: stage.clone(), end });
        // SAFETY: the caller's promise.
        unsafe { communicator.flow.submit(Job { task, after: after.clone(), timeout, end }) };
    }
    drop(tails);
    attend(unattended.iter());
}

/// Runs `then` when all of these stages are over, on the thread that sees it; as of [`Stream::on_end`].
pub(crate) fn after(mut stages: Vec<Arc<Stage>>, then: impl FnOnce() + Send + 'static) {
    while let Some(stage) = stages.pop() {
        let mut state = lock(&stage.state);
        if !stage.is_over() {
            state.then.push(Box::new(move |_| after(stages, then)));
            return;
        }
    }
    then();
}

/// Has the progress thread move what has not ended of these communicators.
fn attend<'c>(communicators: impl Iterator<Item = &'c Arc<Shared>>) {
    let busy =
        communicators.filter(|communicator| communicator.flow.is_busy() && communicator.born.check().is_ok());
    for communicator in busy {
        if let Err(error) = background::look_after(communicator) {
            tracing::warn!(%error, "asynchronous calls make progress only while they are waited for");
        }
    }
}

fn help(communicators: &[Arc<Shared>], deadline: Option<Instant>, done: impl Fn() -> bool) {
    let mut flows: Vec<&flow::Flow> = Vec::new();
    for communicator in communicators {
        if !flows.iter().any(|known| std::ptr::eq(*known, &communicator.flow)) {
            flows.push(&communicator.flow);
        }
    }
    flow::help(&flows, deadline, done);
    // The progress thread leaves to those who wait what they wait for, and sleeps. Now the rest is its business again.
    attend(communicators.iter());
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
