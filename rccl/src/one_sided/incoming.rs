//! What comes to this rank from one other, or from itself: signals, and what was put before them.

use super::copies::Copies;
use super::window::{Destination, Windows};
use crate::communicator::Communicator;
use crate::control::{Control, thread};
use crate::element::DataType;
use crate::engine::{Message, Task};
use crate::error::{CallOf, Error, Failure, Member, Result};
use crate::stream::Stage;
use crate::work::Finish;
use rccl_schedule::Few;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often waits for signals of this rank itself, for which no message comes, look at the clock.
const LOOK: Duration = Duration::from_millis(20);
/// By when a failure that was reported is known.
const DECISION: Duration = Duration::from_secs(5);

/// What the pairs know of the communicator whose they are.
pub(super) struct Whole {
    pub control: Control,
    pub label: String,
    pub timeout: Duration,
    pub windows: Arc<Windows>,
    pub copies: Copies,
    /// Calls on streams whose turn has not come.
    pub deferred: AtomicUsize,
}

impl Whole {
    /// Where in this rank's own windows a put of its own goes.
    pub fn own_place(&self, to: Destination) -> Result<*mut u8> {
        let (rank, hint) = (self.rank(), "put into memory that the window has");
        let wrong = |what| Error::InvalidArgument { call: "put_signal", what, hint: hint.into() };
        self.windows.find(to, rank, rank).map_err(wrong)
    }

    pub fn rank(&self) -> u32 {
        self.control.me().rank
    }

    /// The failure of the communicator.
    pub fn check(&self) -> Result<()> {
        self.control.failure().map_or(Ok(()), |failure| Err(self.failed(failure)))
    }

    fn failed(&self, failure: Arc<Failure>) -> Error {
        Error::Failed { communicator: self.label.clone(), reporter: self.control.me(), failure }
    }

    /// What broke the pair of two ranks, in the numbers of the communicator.
    pub fn seen(&self, error: Error, pair: [u32; 2]) -> Error {
        match error {
            Error::Failed { failure, .. } => self.failed(Arc::new(renumbered((*failure).clone(), pair))),
            other => other,
        }
    }

    /// A wait has failed, as a call does: on all ranks, with the first cause.
    fn broken_by(&self, error: Error, source: u32) -> Error {
        match error.failure() {
            // The control plane says that to all, if the rank is missed.
            Some(Failure::PeerLost { .. }) => return error,
            Some(Failure::Timeout { waited, waiting_for, .. }) => {
                let missing: Vec<u32> = waiting_for.iter().map(|of| of.rank).collect();
                let missing = if missing.is_empty() { vec![source] } else { missing };
                self.control.report_timeout(0, *waited, &missing);
            }
            Some(Failure::LinkLost { rank, peer, transport, cause, .. }) => {
                let other = if *rank == self.rank() { *peer } else { *rank };
                self.control.report_link_lost(other, transport, None, cause);
            }
            Some(Failure::Aborted { why, .. }) => self.control.abort(why),
            Some(failure) => self.control.abort(&failure.to_string()),
            None if matches!(error, Error::Forked { .. }) => return error,
            None => self.control.abort(&error.to_string()),
        }
        let deadline = Instant::now() + DECISION;
        while !self.control.failed() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.check().err().unwrap_or(error)
    }
}

/// Signals of one rank.
pub(super) struct Incoming {
    source: u32,
    whole: Arc<Whole>,
    /// The pair's; `None` where the source is this rank itself.
    channel: Option<Communicator>,
    /// Where the next destination is received. Atomic because a task writes it, one at a time.
    destination: [AtomicU64; Destination::WORDS],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were made.
    waits: VecDeque<Wait>,
    /// Signals that have come and were not waited for yet.
    arrived: u64,
    /// A message is being received: one for each signal that is waited for, one after the other.
    receiving: bool,
    /// The control thread looks at the clock.
    watched: bool,
}

struct Wait {
    /// Signals that have yet to come.
    left: u64,
    stage: Arc<Stage>,
    since: Instant,
    timeout: Option<Duration>,
}

impl Incoming {
    pub fn new(source: u32, whole: Arc<Whole>, channel: Option<Communicator>) -> Incoming {
        Incoming { source, whole, channel, destination: Default::default(), state: Mutex::default() }
    }

    pub fn channel(&self) -> Option<&Communicator> {
        self.channel.as_ref()
    }

    /// Whether nobody waits.
    pub fn is_idle(&self) -> bool {
        self.state().waits.is_empty()
    }

    /// Has one call of the stage end when so many more signals have come, and what was put before them is there. Somebody
    /// must move the channel.
    pub fn expect(self: &Arc<Self>, signals: u64, stage: &Arc<Stage>, timeout: Option<Duration>) {
        let wait = Wait { left: signals, stage: stage.clone(), since: Instant::now(), timeout };
        self.state().waits.push_back(wait);
        self.go_on();
    }

    /// A signal has come, and what belongs to it is there.
    pub fn arrived(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.arrived += 1;
            state.receiving = false;
        }
        self.go_on();
    }

    /// Ends the waits that have what they wait for, and sees to what the next one needs.
    fn go_on(self: &Arc<Self>) {
        let (mut over, mut receive, mut watch) = (Vec::new(), None, false);
        {
            let State { waits, arrived, receiving, watched } = &mut *self.state();
            while let Some(wait) = waits.front_mut() {
                let taken = wait.left.min(*arrived);
                wait.left -= taken;
                *arrived -= taken;
                if wait.left > 0 {
                    match self.channel {
                        Some(_) if !std::mem::replace(receiving, true) => receive = Some(wait.timeout),
                        None => watch = !std::mem::replace(watched, true),
                        _ => {}
                    }
                    break;
                }
                over.extend(waits.pop_front());
            }
        }
        for wait in over {
            wait.stage.end(&Ok(()));
        }
        if let Some(timeout) = receive {
            let words = self.destination.as_ptr().cast::<u8>().cast_mut();
            let message = (DataType::U64, Destination::WORDS as u64, words);
            self.receive(message, timeout, Arc::new(Announced { of: self.clone(), timeout }));
        }
        if watch {
            match thread::control_thread() {
                Ok(control) => drop(control.spawn(self.clone().watch())),
                Err(error) => self.fail(&error),
            }
        }
    }

    /// Receives the pair's next message. Whoever moves the channel goes on with it.
    fn receive(&self, what: (DataType, u64, *mut u8), timeout: Option<Duration>, end: Arc<dyn Finish>) {
        let Some(channel) = &self.channel else { return };
        let (dtype, count, memory) = what;
        let message = Message { peer: 0, outgoing: false, dtype, count, memory };
        // SAFETY: the memory is `destination`, which `end` keeps and nobody else uses before that is told, or lies in a window,
        // which its rank leaves to others while it waits for signals.
        unsafe { channel.queue(Ok(Task::Messages(Few::One(message))), timeout, end) };
    }

    /// It is known where the next data go.
    fn announced(self: &Arc<Self>, timeout: Option<Duration>) {
        let words = self.destination.each_ref().map(|word| word.load(Ordering::Acquire));
        let to = Destination::unpack(words);
        if to.bytes == 0 {
            return self.arrived();
        }
        match self.whole.windows.find(to, self.source, self.whole.rank()) {
            Ok(place) => {
                let landed = Arc::new(Landed { of: self.clone() });
                self.receive((DataType::U8, to.bytes, place), timeout, landed);
            }
            Err(wrong) => {
                self.whole.control.abort(&wrong);
                if let Err(error) = self.whole.check() {
                    self.fail(&error);
                }
            }
        }
    }

    fn broken(&self, error: Error) {
        let error = self.whole.check().err().unwrap_or_else(|| {
            self.whole.broken_by(self.whole.seen(error, [self.source, self.whole.rank()]), self.source)
        });
        self.fail(&error);
    }

    /// Ends all waits.
    fn fail(&self, error: &Error) {
        let waits = {
            let mut state = self.state();
            state.receiving = false;
            std::mem::take(&mut state.waits)
        };
        waits.iter().for_each(|wait| wait.stage.end(&Err(error.clone())));
    }

    /// Of waits for this rank itself: there is no message whose end could tell them of a failure, or of their deadline.
    async fn watch(self: Arc<Self>) {
        let mut reported: Option<Instant> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            // Of a communicator that this rank has left nobody hears any more.
            let unheard = reported.filter(|when| when.elapsed() > DECISION).map(|_| self.timed_out());
            if let Some(failure) = self.whole.check().err().or(unheard) {
                // What follows on a stream may block, which nothing on this thread may.
                let of = self.clone();
                super::aside(move || of.fail(&failure));
                self.state().watched = false;
                return;
            }
            let mut state = self.state();
            let Some(wait) = state.waits.front() else {
                state.watched = false;
                return;
            };
            let waited = wait.since.elapsed();
            if waited >= wait.timeout.unwrap_or(self.whole.timeout) && reported.is_none() {
                reported = Some(Instant::now());
                self.whole.control.report_timeout(0, waited, &[self.source]);
            }
        }
    }

    fn timed_out(&self) -> Error {
        let waited = self.state().waits.front().map_or(Duration::ZERO, |wait| wait.since.elapsed());
        let waiting_for = vec![CallOf { rank: self.source, sequence: 0, call: None }];
        self.whole.failed(Arc::new(Failure::Timeout {
            rank: self.whole.rank(),
            sequence: 0,
            waited,
            waiting_for,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Told when a destination has come.
struct Announced {
    of: Arc<Incoming>,
    timeout: Option<Duration>,
}

impl Finish for Announced {
    fn finish(&self, result: Result<()>) {
        match result {
            Ok(()) => self.of.announced(self.timeout),
            Err(error) => self.of.broken(error),
        }
    }
}

/// Told when the data are in the window.
struct Landed {
    of: Arc<Incoming>,
}

impl Finish for Landed {
    fn finish(&self, result: Result<()>) {
        match result {
            Ok(()) => self.of.arrived(),
            Err(error) => self.of.broken(error),
        }
    }
}

/// A failure of a pair of ranks, by their numbers outside of it.
fn renumbered(failure: Failure, pair: [u32; 2]) -> Failure {
    let number = |rank: u32| pair.get(rank as usize).copied().unwrap_or(rank);
    let member = |member: Member| Member { rank: number(member.rank), ..member };
    match failure {
        Failure::Mismatch { sequence, mut calls } => {
            calls.iter_mut().for_each(|of| of.rank = number(of.rank));
            Failure::Mismatch { sequence, calls }
        }
        Failure::PeerLost { member: lost, how, sequence, seen_by } => {
            let named = [0, 1].into_iter().find(|rank| seen_by == format!("rank {rank}"));
            let seen_by = named.map_or(seen_by, |rank| format!("rank {}", number(rank)));
            Failure::PeerLost { member: member(lost), how, sequence, seen_by }
        }
        Failure::Timeout { rank, sequence, waited, mut waiting_for } => {
            waiting_for.iter_mut().for_each(|of| of.rank = number(of.rank));
            Failure::Timeout { rank: number(rank), sequence, waited, waiting_for }
        }
        Failure::Aborted { member: by, why } => Failure::Aborted { member: member(by), why },
        Failure::LinkLost { rank, peer, transport, sequence, cause } => {
            Failure::LinkLost { rank: number(rank), peer: number(peer), transport, sequence, cause }
        }
    }
}
