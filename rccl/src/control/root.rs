//! The root's side of the control plane: who lives, what was the first failure, who is where.
//!
//! Everything passes through one task, so the first cause is decided once and every rank is told the same.

use super::compare;
use super::progress::before;
use crate::bootstrap::frame::{self, Frame};
use crate::bootstrap::host::Identity;
use crate::bootstrap::message::{FromRoot, Report, Silence, State, ToRoot};
use crate::bootstrap::rendezvous::{self, Seat};
use crate::bootstrap::serving::{ConnectionId, Event};
use crate::error::{CallOf, Failure, Member};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

/// A rank that has said nothing for this long is asked for a sign of life.
const PING: Duration = Duration::from_millis(1250);
/// How long the ranks have to say where they are.
const ROUND: Duration = Duration::from_millis(500);
/// The shortest time from the end of one round of questions to the next.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(100);
/// A link that broke is usually the first sign of a process that died: its connection here ends within this time.
const SUSPICION: Duration = Duration::from_millis(300);

/// One communicator, from its last arrival to its last goodbye.
pub(crate) struct Root {
    job: u64,
    host: Identity,
    silence: Silence,
    ranks: Vec<Rank>,
    by_connection: HashMap<ConnectionId, u32>,
    failed: bool,
    questions: Questions,
    suspicions: Vec<Suspicion>,
    next_tick: Instant,
    ticked: Instant,
    /// All ranks of this process have said goodbye.
    leaving: bool,
}

struct Rank {
    seat: Seat,
    heard: Instant,
    warned: bool,
    /// What it last said about its place in the program.
    state: State,
    /// It has said goodbye.
    left: bool,
    /// Its connection has ended.
    gone: bool,
}

/// Who wants to know where the others are, and the round of questions under way.
#[derive(Default)]
struct Questions {
    number: u32,
    /// When the round ends, whoever has not answered by then.
    end: Option<Instant>,
    answered: Vec<bool>,
    outstanding: usize,
    /// No round begins before this.
    not_before: Option<Instant>,
    /// Ranks in a call without progress, and the call's number.
    stalled: HashMap<u32, u32>,
    /// The first rank that gave up: rank, call, how long it waited.
    timeout: Option<(u32, u32, Duration)>,
}

impl Questions {
    fn wanted(&self) -> bool {
        !self.stalled.is_empty() || self.timeout.is_some()
    }
}

/// A link that broke, until it is clear whether a process did.
struct Suspicion {
    until: Instant,
    peer: u32,
    failure: Failure,
}

impl Root {
    pub(crate) fn new(seats: Vec<Seat>, job: u64, host: Identity, silence: Silence) -> Root {
        let now = Instant::now();
        Root {
            job,
            host,
            silence,
            by_connection: seats.iter().zip(0..).map(|(seat, rank)| (seat.connection, rank)).collect(),
            ranks: seats
                .into_iter()
                .map(|seat| Rank {
                    seat,
                    heard: now,
                    warned: false,
                    state: State::default(),
                    left: false,
                    gone: false,
                })
                .collect(),
            failed: false,
            questions: Questions::default(),
            suspicions: Vec::new(),
            next_tick: now + silence.pulse().min(PING),
            ticked: now,
            leaving: false,
        }
    }

    /// Welcomes everybody, then serves until the last connection has ended.
    pub(crate) async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        let root = self.local().first().map_or_else(
            // The id was made by a process that holds no rank.
            || Member { rank: u32::MAX, host: self.host.name.clone(), pid: std::process::id() },
            |&rank| self.member(rank),
        );
        match rendezvous::welcome(self.ranks.iter().map(|rank| &rank.seat), root) {
            Ok(welcome) => self.broadcast(&welcome),
            Err(error) => {
                let cause = format!("the layout of the job cannot be told: {error}");
                return self.broadcast(&rendezvous::refusal(cause, "place the ranks in a regular order"));
            }
        }
        while self.ranks.iter().any(|rank| !rank.gone) {
            let due = self.due();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => return,
                },
                () = tokio::time::sleep_until(due) => {}
            }
            self.act(Instant::now());
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Arrived { joining, outbox, .. } => {
                let late = joining.details.member(joining.rank);
                let (cause, hint) = match self.ranks.get(joining.rank as usize) {
                    Some(rank) => (
                        format!(
                            "two processes with rank {}: {} pid {}, which has joined, and {} pid {}",
                            late.rank,
                            rank.seat.details.host.name,
                            rank.seat.details.pid,
                            late.host,
                            late.pid
                        ),
                        "give every process a rank of its own",
                    ),
                    None => (
                        format!(
                            "the job is complete with {} ranks; {late} is one too many",
                            self.ranks.len()
                        ),
                        "start as many processes as the job has ranks",
                    ),
                };
                let _ = outbox.send(rendezvous::refusal(cause, hint));
            }
            Event::Said { connection, message } => {
                if let Some(&rank) = self.by_connection.get(&connection) {
                    self.hear(rank, message);
                }
            }
            Event::Full => {}
            Event::Gone { connection, how } => {
                if let Some(rank) = self.by_connection.remove(&connection) {
                    self.gone(rank, how);
                }
            }
        }
    }

    fn hear(&mut self, rank: u32, message: ToRoot) {
        let entry = &mut self.ranks[rank as usize];
        entry.heard = Instant::now();
        if std::mem::take(&mut entry.warned) {
            tracing::warn!("{} is back", self.member(rank));
        }
        match message {
            ToRoot::Join(_) | ToRoot::Pong => {}
            ToRoot::Ask { rank: peer } => {
                if let Some(peer_entry) = self.ranks.get(peer as usize) {
                    let details = Box::new(peer_entry.seat.details.clone());
                    self.tell(rank, &FromRoot::Details { rank: peer, details });
                }
            }
            ToRoot::Stalled { sequence } => {
                self.questions.stalled.insert(rank, sequence);
            }
            ToRoot::State { round, state } => {
                self.ranks[rank as usize].state = state;
                let questions = &mut self.questions;
                if questions.end.is_some()
                    && questions.number == round
                    && !std::mem::replace(&mut questions.answered[rank as usize], true)
                {
                    questions.outstanding -= 1;
                }
            }
            ToRoot::Report(report) => self.reported(rank, report),
            ToRoot::Goodbye { state } => self.goodbye(rank, state),
        }
    }

    fn reported(&mut self, rank: u32, report: Report) {
        match report {
            Report::Mismatch { sequence, calls } => self.fail(Failure::Mismatch { sequence, calls }),
            Report::Timeout { sequence, waited } => {
                self.questions.timeout.get_or_insert((rank, sequence, waited));
            }
            Report::Aborted { why } => self.fail(Failure::Aborted { member: self.member(rank), why }),
            Report::LinkLost { peer, transport, sequence, cause } => {
                let Some(entry) = self.ranks.get(peer as usize) else { return };
                if entry.left && before(entry.state.entered, sequence) {
                    return self.fail(self.left_the_job(peer, sequence, rank));
                }
                let failure = Failure::LinkLost { rank, peer, transport, sequence, cause };
                self.suspicions.push(Suspicion { until: Instant::now() + SUSPICION, peer, failure });
            }
        }
    }

    fn goodbye(&mut self, rank: u32, state: State) {
        let entry = &mut self.ranks[rank as usize];
        entry.left = true;
        entry.state = state;
        let entered = entry.state.entered;
        let local = self.local();
        if !self.leaving && local.contains(&rank) && local.iter().all(|&rank| self.ranks[rank as usize].left)
        {
            // This process may end now. The others learn it before the one that waits for the answer.
            self.leaving = true;
            for other in (0..self.ranks.len() as u32).filter(|&other| other != rank) {
                self.tell(other, &FromRoot::Leaving { entered });
            }
        }
        self.tell(rank, &FromRoot::Leaving { entered });
    }

    fn gone(&mut self, rank: u32, how: String) {
        let entry = &mut self.ranks[rank as usize];
        entry.gone = true;
        // Closes the writing half too.
        entry.seat.outbox = None;
        if !entry.left
            && entry.seat.details.host.key == self.host.key
            && let Some(path) = &entry.seat.details.path
        {
            super::links::forget(path);
        }
        if entry.left || self.failed {
            return;
        }
        // The call in which it is missed is the one that the rank of this process is in, if there is one.
        let sequence = super::inside(self.job).unwrap_or(0);
        let failure = Failure::PeerLost { member: self.member(rank), how, sequence, seen_by: self.name() };
        self.fail(failure);
    }

    /// When something has to be done even if nobody says anything.
    fn due(&self) -> Instant {
        let mut due = self.next_tick;
        if !self.failed {
            if let Some(end) = self.questions.end {
                due = due.min(end);
            } else if self.questions.wanted() {
                due = due.min(self.questions.not_before.unwrap_or_else(Instant::now));
            }
            due = self.suspicions.iter().map(|suspicion| suspicion.until).fold(due, Instant::min);
        }
        due
    }

    fn act(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.tick(now);
        }
        if self.failed {
            return;
        }
        if let Some(end) = self.questions.end {
            if now >= end || self.questions.outstanding == 0 {
                self.conclude(now);
            }
        } else if self.questions.wanted() && self.questions.not_before.is_none_or(|time| now >= time) {
            self.ask(now);
        }
        if let Some(position) = self.suspicions.iter().position(|suspicion| now >= suspicion.until) {
            let suspicion = self.suspicions.swap_remove(position);
            let peer = &self.ranks[suspicion.peer as usize];
            tracing::debug!(peer = suspicion.peer, left = peer.left, "a link broke and its peer lives");
            self.fail(suspicion.failure);
        }
    }

    /// Asks everybody where he is.
    fn ask(&mut self, now: Instant) {
        let questions = &mut self.questions;
        questions.number = questions.number.wrapping_add(1);
        questions.end = Some(now + ROUND);
        questions.answered = vec![false; self.ranks.len()];
        questions.outstanding = self.ranks.iter().filter(|rank| !rank.left && !rank.gone).count();
        let question = FromRoot::Query { round: questions.number };
        if let Ok(question) = frame::encode(&question) {
            self.broadcast(&question);
        }
    }

    /// Compares what was answered.
    fn conclude(&mut self, now: Instant) {
        self.questions.end = None;
        self.questions.not_before = Some(now + BETWEEN_ROUNDS);
        let stalled = std::mem::take(&mut self.questions.stalled);
        let timeout = self.questions.timeout.take();

        let known: Vec<(u32, &State)> = (0..)
            .zip(&self.ranks)
            .filter(|(rank, entry)| self.questions.answered[*rank as usize] || entry.left)
            .map(|(rank, entry)| (rank, &entry.state))
            .collect();
        if let Some(mismatch) = compare::mismatch(&known) {
            return self.fail(mismatch);
        }
        let waiting = stalled
            .iter()
            .map(|(&rank, &sequence)| (rank, sequence))
            .chain(timeout.map(|(rank, sequence, _)| (rank, sequence)));
        for (rank, sequence) in waiting {
            let left =
                self.ranks.iter().position(|entry| entry.left && before(entry.state.entered, sequence));
            if let Some(left) = left {
                return self.fail(self.left_the_job(left as u32, sequence, rank));
            }
        }
        let missing = |sequence: u32| -> Vec<CallOf> {
            compare::missing((0..).zip(self.ranks.iter().map(|entry| &entry.state)), sequence)
        };
        if let Some((rank, sequence, waited)) = timeout {
            let waiting_for = missing(sequence);
            return self.fail(Failure::Timeout { rank, sequence, waited, waiting_for });
        }
        // Ranks that wait in the same call get the same answer.
        let mut answers: HashMap<u32, Vec<u32>> = HashMap::new();
        for (rank, sequence) in stalled {
            answers.entry(sequence).or_default().push(rank);
        }
        for (sequence, ranks) in answers {
            let members = missing(sequence).into_iter().map(|of| (self.member(of.rank), of)).collect();
            if let Ok(answer) = frame::encode(&FromRoot::Waiting { sequence, missing: members }) {
                ranks.into_iter().for_each(|rank| self.send(rank, &answer));
            }
        }
    }

    /// Looks for ranks that say nothing.
    fn tick(&mut self, now: Instant) {
        // If this process itself was stopped, that says nothing about the others.
        let stopped = now.saturating_duration_since(self.ticked).saturating_sub(self.pulse() * 2);
        self.ticked = now;
        self.next_tick = now + self.pulse();
        let Ok(ping) = frame::encode(&FromRoot::Ping) else { return };
        for rank in 0..self.ranks.len() as u32 {
            let entry = &mut self.ranks[rank as usize];
            if entry.left || entry.gone {
                continue;
            }
            entry.heard += stopped;
            let silent = now.saturating_duration_since(entry.heard);
            // Written even to those that were heard of: they watch the root in the same way.
            self.send(rank, &ping);
            if silent >= self.silence.fatal && !self.failed {
                let how = format!(
                    "has been silent for {:.0} s (stopped, swapping, in a debugger, or cut off)",
                    silent.as_secs_f64()
                );
                let sequence = super::inside(self.job).unwrap_or(0);
                let failure =
                    Failure::PeerLost { member: self.member(rank), how, sequence, seen_by: self.name() };
                self.fail(failure);
            } else if silent >= self.silence.warn
                && !std::mem::replace(&mut self.ranks[rank as usize].warned, true)
            {
                tracing::warn!(
                    "{} has been silent for {:.1} s (stopped, swapping, in a debugger, or cut off); given up after {:.0} s",
                    self.member(rank),
                    silent.as_secs_f64(),
                    self.silence.fatal.as_secs_f64()
                );
            }
        }
    }

    fn pulse(&self) -> Duration {
        self.silence.pulse().min(PING)
    }

    /// The first failure: everybody is told, and nothing that is reported later counts.
    fn fail(&mut self, failure: Failure) {
        if self.failed {
            return;
        }
        self.failed = true;
        tracing::debug!(%failure, "the communicator failed");
        if let Ok(failure) = frame::encode(&FromRoot::Failed(failure)) {
            self.broadcast(&failure);
        }
    }

    fn left_the_job(&self, peer: u32, sequence: u32, seen_by: u32) -> Failure {
        let last = self.ranks[peer as usize].state.completed;
        Failure::PeerLost {
            member: self.member(peer),
            how: format!("left the job after op #{last}"),
            sequence,
            seen_by: format!("rank {seen_by}"),
        }
    }

    /// The ranks of this process.
    fn local(&self) -> Vec<u32> {
        let here = |rank: &Rank| {
            rank.seat.details.host.key == self.host.key && rank.seat.details.pid == std::process::id()
        };
        (0..).zip(&self.ranks).filter(|(_, rank)| here(rank)).map(|(rank, _)| rank).collect()
    }
    fn name(&self) -> String {
        self.local().first().map_or("the root".into(), |rank| format!("rank {rank} (root)"))
    }
    fn member(&self, rank: u32) -> Member {
        self.ranks[rank as usize].seat.details.member(rank)
    }

    fn tell(&self, rank: u32, message: &FromRoot) {
        if let Ok(frame) = frame::encode(message) {
            self.send(rank, &frame);
        }
    }
    fn broadcast(&self, frame: &Frame) {
        (0..self.ranks.len() as u32).for_each(|rank| self.send(rank, frame));
    }
    fn send(&self, rank: u32, frame: &Frame) {
        if let Some(outbox) = &self.ranks[rank as usize].seat.outbox {
            let _ = outbox.send(frame.clone());
        }
    }
}
