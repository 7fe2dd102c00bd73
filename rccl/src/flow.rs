//! How submitted tasks go on: the queue of a communicator, and whoever comes by to move what is at its head.
//!
//! Tasks of one communicator run one after the other, in the order in which they were submitted. A task is moved by the
//! thread that waits for it, if one does, else by the process's [progress thread](super::background). A blocking call
//! on a communicator with an empty queue never comes here: it runs on its caller's thread from beginning to end.

use crate::engine::{Again, Engine, Next, Patience, Polled, Sleeper, Task};
use crate::error::Result;
use crate::stream::Stage;
use crate::work::Finish;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long a thread naps that finds another one moving what it waits for.
const CONTENDED: Duration = Duration::from_millis(2);

/// A task, what has to end before it begins, how long it may take then, and who is told of its end.
pub(crate) struct Job {
    pub task: Todo,
    pub after: Vec<Arc<Stage>>,
    pub timeout: Option<Duration>,
    pub end: Arc<dyn Finish>,
}

/// A task in a queue.
pub(crate) enum Todo {
    Now(Task),
    /// One that depends on those before it: made when it begins.
    Later(Box<dyn FnOnce() -> Result<Task> + Send>),
}

impl From<Task> for Todo {
    fn from(task: Task) -> Todo {
        Todo::Now(task)
    }
}

impl Todo {
    fn task(self) -> Result<Task> {
        match self {
            Todo::Now(task) => Ok(task),
            Todo::Later(make) => make(),
        }
    }
}

impl Job {
    fn may_begin(&self) -> bool {
        self.after.iter().all(|stage| stage.is_over())
    }
}

/// A communicator's engine and the tasks that wait for it.
pub(crate) struct Flow {
    engine: Mutex<Driven>,
    queue: Mutex<VecDeque<Job>>,
    /// Tasks that have not ended: those in the queue, and the one that the engine is at.
    pending: AtomicUsize,
    /// Threads that move this communicator's tasks because they wait for them.
    helpers: AtomicUsize,
    /// As of [`Engine::yields`], which links may change.
    yields: AtomicBool,
}

pub(crate) struct Driven {
    pub engine: Engine,
    /// Who is told of the end of the engine's task.
    end: Option<Arc<dyn Finish>>,
}

/// What came of a task that was to run for some time.
pub(crate) enum Tried {
    Ended(Result<()>),
    /// It is under way, and who was named is told of its end.
    Waits,
    /// It has to be submitted.
    Not,
}

impl Flow {
    /// Lets go of the links without a word to anybody: they are the parent's, and this process its forked child.
    pub fn abandon(&mut self) {
        self.engine.get_mut().unwrap_or_else(PoisonError::into_inner).engine.abandon();
    }

    pub fn new(engine: Engine) -> Flow {
        Flow {
            yields: AtomicBool::new(engine.yields()),
            engine: Mutex::new(Driven { engine, end: None }),
            queue: Mutex::default(),
            pending: AtomicUsize::new(0),
            helpers: AtomicUsize::new(0),
        }
    }

    /// The engine, once nobody else is at it.
    pub fn engine(&self) -> MutexGuard<'_, Driven> {
        // A panic inside a call has no broken invariant to hide: the engine marks itself broken on errors.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, if nobody else is at it.
    fn try_engine(&self) -> Option<MutexGuard<'_, Driven>> {
        match self.engine.try_lock() {
            Ok(driven) => Some(driven),
            // As above: whoever waits must not do so for ever.
            Err(TryLockError::Poisoned(driven)) => Some(driven.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Runs a task on this thread, after those that were submitted before.
    ///
    /// # Safety
    /// As for [`Engine::execute`].
    #[inline]
    pub unsafe fn execute(&self, task: Task) -> Result<()> {
        let mut driven = self.engine();
        while self.pending.load(Ordering::Acquire) > 0 {
            drop(driven);
            self.work_off();
            driven = self.engine();
        }
        // SAFETY: the caller's promise.
        unsafe { driven.engine.execute(task) }
    }

    /// Runs a task on this thread as [`Flow::execute`], if it is a short call that was run before and nobody else is at the
    /// engine, and for as long as it waits for no longer than this; it is under way then, as if it had been submitted, and
    /// `end` is asked who is told of its end.
    ///
    /// # Safety
    /// As for [`Engine::begin`], until the end is told of what is under way.
    #[inline]
    pub unsafe fn execute_for(
        &self,
        task: &Task,
        slice: Duration,
        end: impl FnOnce() -> Arc<dyn Finish>,
    ) -> Tried {
        let Some(mut driven) = self.try_engine() else { return Tried::Not };
        if self.is_busy() {
            return Tried::Not;
        }
        // SAFETY: the caller's promise.
        match unsafe { driven.engine.execute_for(task, slice) } {
            Some(Again::Ended(result)) => Tried::Ended(result),
            Some(Again::Waits) => {
                driven.end = Some(end());
                self.pending.fetch_add(1, Ordering::Release);
                Tried::Waits
            }
            None => Tried::Not,
        }
    }

    /// Puts a task at the end of the queue; it, and those behind it, begin when what it waits for is over.
    ///
    /// # Safety
    /// As for [`Engine::begin`], until its end is told.
    pub unsafe fn submit(&self, job: Job) {
        self.pending.fetch_add(1, Ordering::Release);
        self.queue().push_back(job);
    }

    /// Whether tasks have not ended yet.
    pub fn is_busy(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    /// Whether somebody who waits moves the tasks.
    pub fn is_helped(&self) -> bool {
        self.helpers.load(Ordering::Relaxed) > 0
    }

    /// Moves this communicator's tasks until none is left.
    pub fn work_off(&self) {
        help(&[self], None, || !self.is_busy());
    }

    /// Goes one round on with the first task. `true`: something moved.
    pub fn advance(&self) -> bool {
        let Some(mut driven) = self.try_engine() else { return false };
        let driven = &mut *driven;
        if !driven.engine.is_active() {
            let Some(Job { task, timeout, end, .. }) = self.next() else { return false };
            // SAFETY: the promise of whoever submitted it.
            match unsafe { driven.engine.begin(|| task.task(), timeout) } {
                Ok(()) => driven.end = Some(end),
                Err(error) => {
                    self.finish(&*end, Err(error));
                    return true;
                }
            }
        }
        match driven.engine.poll() {
            Polled::Waits => {
                self.yields.store(driven.engine.yields(), Ordering::Relaxed);
                false
            }
            Polled::Moved => true,
            Polled::Ended(result) => {
                if let Some(end) = driven.end.take() {
                    self.finish(&*end, result);
                }
                true
            }
        }
    }

    /// The first task, if it may begin.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        if queue.front()?.may_begin() { queue.pop_front() } else { None }
    }

    /// What the first task waits for, if there is one.
    fn held_up(&self) -> Option<Vec<Arc<Stage>>> {
        self.queue().front().map(|job| job.after.clone())
    }

    fn finish(&self, end: &dyn Finish, result: Result<()>) {
        self.pending.fetch_sub(1, Ordering::Release);
        end.finish(result);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Job>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the tasks of these communicators until `done`, or until the deadline.
pub(crate) fn help(flows: &[&Flow], deadline: Option<Instant>, done: impl Fn() -> bool) {
    if done() {
        return;
    }
    for flow in flows {
        flow.helpers.fetch_add(1, Ordering::Relaxed);
    }
    let mut sleeper = Sleeper::default();
    let mut patience = Patience::new(flows.iter().any(|flow| flow.yields.load(Ordering::Relaxed)));
    while !done() {
        let mut moved = false;
        for flow in flows {
            moved |= flow.advance();
        }
        if moved {
            patience.reset();
            continue;
        }
        let next = patience.idle();
        if matches!(next, Next::Poll) {
            continue;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        if matches!(next, Next::Sleep(_)) && !done() {
            sleep(&mut sleeper, flows, deadline);
        }
    }
    for flow in flows {
        flow.helpers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sleeps until one of these communicators can go on, or for a nap. `extra` descriptors wake too.
pub(crate) fn sleep(sleeper: &mut Sleeper, flows: &[&Flow], deadline: Option<Instant>) {
    let (mut armed, mut deadline) = (true, deadline);
    for flow in flows {
        if let Some(mut driven) = flow.try_engine() {
            armed &= if driven.engine.is_active() {
                driven.engine.arm(sleeper)
            } else {
                // A task of a stream waits for one of another communicator, whose end rings the bell.
                let bell = driven.engine.doorbell();
                let held_up = flow.held_up();
                held_up.iter().flatten().for_each(|stage| stage.ring(bell));
                sleeper.add(bell.as_fd(), false);
                // Without one that it waits for the first task may begin.
                held_up.is_none_or(|stages| stages.iter().any(|stage| !stage.is_over()))
            };
        } else {
            // Somebody else is at it, for a moment or until his call has ended; nothing tells this thread when.
            let soon = Instant::now() + CONTENDED;
            deadline = Some(deadline.map_or(soon, |deadline| deadline.min(soon)));
        }
    }
    if armed {
        sleeper.nap(deadline);
    }
    sleeper.begin();
    for flow in flows {
        if let Some(mut driven) = flow.try_engine() {
            if driven.engine.is_active() {
                driven.engine.disarm();
            } else {
                driven.engine.doorbell().silence();
            }
        }
    }
}
