//! How a call goes on: round by round on the caller's thread, or a few rounds at a time on whichever thread comes by.

use super::round::Round;
use super::run::{Run, Stop};
use super::straight::Straight;
use super::wait::{Next, Patience, STALL, Sleeper};
use crate::control::{Awaited, Control};
use rccl_schedule::Rank;
use rccl_transport::Kind;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// As [`STALL`], of messages: who receives may well wait for work to be done first. A second look falls on ten seconds.
const MESSAGES_STALL: Duration = Duration::from_millis(1250);
/// The longest time between two reports of a call that does not move.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How far a call is.
pub(crate) enum Stage {
    /// The control plane is making links.
    Linking,
    /// All in one round.
    Round(Round, usize),
    /// One operation after the other.
    Straight(Straight),
    /// Chunk by chunk.
    Steps,
}

impl Stage {
    /// The peers that have yet to do something for the task.
    pub fn awaited(&self, run: &Run<'_>) -> Awaited {
        let ranks = match self {
            Stage::Linking => run.plan.peers.iter().copied().filter(|&peer| !run.is_linked(peer)).collect(),
            Stage::Round(..) => run.plan.peers.clone(),
            Stage::Straight(straight) => run.waited_for(straight),
            Stage::Steps => run.awaited(),
        };
        // What was sent over memory is there before its sender leaves.
        let arrived =
            |&peer: &Rank| run.links[peer as usize].as_ref().is_none_or(|link| link.kind() != Kind::Tcp);
        Awaited { arrived: ranks.iter().all(arrived), ranks }
    }
}

/// How a run ended.
pub(crate) enum Outcome {
    Done,
    /// The communicator failed meanwhile.
    Failed,
    TimedOut,
    Stopped(Stop),
}

/// The clocks of one call.
pub(crate) struct Watch {
    /// When the clock was first read: there was something to wait for.
    started: Option<Instant>,
    /// Since when nothing has moved, where that is not [`Patience`]'s to know.
    idle_since: Option<Instant>,
    /// After how long without progress the other ranks are asked next.
    stalled: Duration,
    /// Only some ranks take part, so that it says little what the others do.
    messages: bool,
    /// Links are missing.
    unlinked: bool,
}

impl Watch {
    pub fn new(messages: bool) -> Watch {
        Watch { started: None, idle_since: None, stalled: STALL, messages, unlinked: false }
    }

    /// Whether so much time has passed since there was something to wait for.
    fn is_over(&self, slice: Duration) -> bool {
        slice < Duration::MAX && self.started.is_some_and(|started| started.elapsed() >= slice)
    }

    /// It waits for links, or no longer.
    pub fn set_unlinked(&mut self, unlinked: bool) {
        self.unlinked = unlinked;
    }

    /// Something moved.
    pub fn reset(&mut self) {
        self.idle_since = None;
        self.stalled = STALL;
    }

    /// Looks at the control plane and the clock, after `waited` without progress. `peers` says whom the task waits for.
    pub fn look(
        &mut self,
        control: &Control,
        sequence: u32,
        waited: Duration,
        timeout: Duration,
        peers: impl Fn() -> Awaited,
    ) -> Option<Outcome> {
        let messages = self.messages;
        let awaited = || if messages { peers().ranks } else { Vec::new() };
        if control.failed() {
            return Some(Outcome::Failed);
        }
        control.fetch_regions();
        let patience = if messages && !self.unlinked { MESSAGES_STALL } else { STALL };
        if waited >= self.stalled.max(patience) {
            if messages {
                control.report_stalled_messages(sequence, waited, peers());
            } else {
                control.report_stall(sequence);
            }
            self.stalled = (waited * 2).min(waited + LONGEST_PAUSE);
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        let elapsed = started.elapsed();
        if elapsed >= timeout {
            control.report_timeout(sequence, elapsed, &awaited());
            return Some(Outcome::TimedOut);
        }
        None
    }

    /// As [`Watch::look`], for who does not count idle rounds.
    pub fn look_idle(
        &mut self,
        control: &Control,
        sequence: u32,
        timeout: Duration,
        peers: impl Fn() -> Awaited,
    ) -> Option<Outcome> {
        let waited = self.idle_since.get_or_insert_with(Instant::now).elapsed();
        self.look(control, sequence, waited, timeout, peers)
    }
}

/// Goes one round on: (something moved, all done).
#[inline]
pub(crate) fn go(run: &mut Run<'_>, stage: &mut Stage) -> Result<(bool, bool), Stop> {
    match stage {
        Stage::Round(round, bytes) => run.step_round(round, *bytes),
        Stage::Straight(straight) => run.step_straight(straight),
        Stage::Steps => step(run),
        Stage::Linking => Ok((false, false)),
    }
}

/// One round of a program: (something moved, all done).
pub(super) fn step(run: &mut Run<'_>) -> Result<(bool, bool), Stop> {
    let opened = run.open()?;
    run.exchange()?;
    let moved = run.advance()?;
    if run.done() {
        run.flush()?;
        return Ok((opened || moved, run.drained()));
    }
    Ok((opened || moved, false))
}

/// What a run needs to wait.
pub(crate) struct Waiting<'a> {
    pub control: &'a Control,
    pub sleeper: &'a mut Sleeper,
    pub patience: Patience,
    pub timeout: Duration,
    pub sequence: u32,
    pub peers: &'a [Rank],
    /// How long it may wait, in all: it can go on another time then.
    pub slice: Duration,
}

/// Runs to the end on this thread. `None`: it has waited for as long as it may, and has not ended.
pub(crate) fn drive(
    run: &mut Run<'_>,
    stage: &mut Stage,
    watch: &mut Watch,
    mut waiting: Waiting<'_>,
) -> Option<Outcome> {
    loop {
        match go(run, stage) {
            Ok((_, true)) => return Some(Outcome::Done),
            Ok((true, false)) => {
                waiting.patience.reset();
                continue;
            }
            Ok((false, false)) if waiting.slice.is_zero() => return None,
            Ok((false, false)) => {}
            Err(stop) => return Some(Outcome::Stopped(stop)),
        }
        let (waited, sleep) = match waiting.patience.idle() {
            Next::Poll => continue,
            Next::Look(waited) => (waited, false),
            Next::Sleep(waited) => (waited, true),
        };
        let Waiting { control, timeout, sequence, .. } = &waiting;
        if let Some(outcome) = watch.look(control, *sequence, waited, *timeout, || stage.awaited(run)) {
            return Some(outcome);
        }
        if watch.is_over(waiting.slice) {
            return None;
        }
        let Waiting { control, sleeper, peers, .. } = &mut waiting;
        if sleep {
            sleeper.sleep(run.links, peers, control.doorbell().as_fd());
        }
    }
}
