//! The progress thread: moves what was submitted and what nobody waits for.
//!
//! One per process, `rccl-progress`, started by the first call that needs it. It sleeps whenever nothing moves: the
//! program has better use for a processor than a thread that spins.

use crate::communicator::Shared;
use crate::control::thread::SignalsBlocked;
use crate::engine::Sleeper;
use crate::error::{Error, Result};
use crate::flow;
use rccl_transport::shm::Doorbell;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Without progress for this long the thread sleeps: every sleep costs a system call and a wake-up. An all_reduce of 16
/// MiB over 1 Gbit/s beside as much computation on 2 cores, over the longer of the two alone: 1.09 (median of 14 runs,
/// 1.02 to 1.25). With 30 us, and sleeping at once, it was 1.15 and 1.24 where this was 1.13. Turns of 100 us for this
/// thread (`sched_setattr`) gave 1.14 (16 runs, 0.99 to 1.22), so they are not asked for.
const SLEEP_AFTER: Duration = Duration::from_micros(100);

struct Background {
    /// The process that it belongs to.
    process: u32,
    bell: Arc<Doorbell>,
    /// Communicators with tasks that have not ended.
    busy: Arc<Mutex<Vec<Arc<Shared>>>>,
}

static RUNNING: Mutex<Option<Background>> = Mutex::new(None);

/// Has the progress thread move this communicator's tasks until none is left.
///
/// # Errors
/// [`Error::System`] when the thread cannot be started.
pub(crate) fn look_after(communicator: &Arc<Shared>) -> Result<()> {
    let mut running = lock(&RUNNING);
    let process = std::process::id();
    if running.as_ref().is_none_or(|background| background.process != process) {
        *running = Some(start(process)?);
    }
    let Some(Background { bell, busy, .. }) = &*running else { return Ok(()) };
    let mut busy = lock(busy);
    if !busy.iter().any(|known| Arc::ptr_eq(known, communicator)) {
        busy.push(communicator.clone());
    }
    ring(bell);
    Ok(())
}

fn start(process: u32) -> Result<Background> {
    let refused = |source: std::io::Error| Error::System {
        during: "starting the progress thread".into(),
        source: Arc::new(source),
        hint: "look at the limits of threads and open files (`ulimit -u`, `ulimit -n`)".into(),
    };
    let bell = Arc::new(Doorbell::new().map_err(refused)?);
    let busy = Arc::<Mutex<Vec<Arc<Shared>>>>::default();
    let (its_bell, its_busy) = (bell.clone(), busy.clone());
    let blocked = SignalsBlocked::new();
    let spawned = std::thread::Builder::new()
        .name("rccl-progress".into())
        .stack_size(512 << 10)
        .spawn(move || run(&its_bell, &its_busy));
    drop(blocked);
    spawned.map_err(refused)?;
    Ok(Background { process, bell, busy })
}

fn run(bell: &Doorbell, busy: &Mutex<Vec<Arc<Shared>>>) {
    let mut sleeper = Sleeper::default();
    let mut here: Vec<Arc<Shared>> = Vec::new();
    loop {
        // Dropping the last handle of a communicator says goodbye, so it must not happen under the lock.
        here.clear();
        let idle: Vec<Arc<Shared>> = {
            let mut busy = lock(busy);
            let (still, idle) = busy.drain(..).partition(|communicator| communicator.flow.is_busy());
            *busy = still;
            here.extend(busy.iter().cloned());
            idle
        };
        drop(idle);
        let flows: Vec<_> = here.iter().map(|communicator| &communicator.flow).collect();
        move_all(&flows);
        if flows.iter().any(|flow| !flow.is_busy()) {
            // Whoever may have dropped his handle waits for nothing else than this one to leave.
            continue;
        }
        let flows: Vec<_> = flows.into_iter().filter(|flow| !flow.is_helped()).collect();
        sleeper.begin();
        sleeper.add(bell.as_fd(), false);
        flow::sleep(&mut sleeper, &flows, None);
        bell.silence();
    }
}

/// Moves tasks until nothing has moved for a while.
fn move_all(flows: &[&flow::Flow]) {
    let mut idle_since = None;
    loop {
        let mut moved = false;
        for flow in flows.iter().filter(|flow| !flow.is_helped()) {
            moved |= flow.advance();
        }
        if moved {
            idle_since = None;
        } else if flows.iter().all(|flow| flow.is_helped()) {
            // Who waits has more use for the processor.
            return;
        } else if idle_since.get_or_insert_with(Instant::now).elapsed() >= SLEEP_AFTER {
            return;
        } else {
            std::thread::yield_now();
        }
    }
}

fn ring(bell: &Doorbell) {
    if let Err(error) = bell.ring() {
        tracing::debug!(%error, "the progress thread's bell cannot be rung");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
