//! The root's side of the control plane: who lives, and everything that is said about its communicators.
//!
//! Everything passes through one task, so the first cause of each communicator's failure is decided once and every rank
//! is told the same.

use super::case::Case;
use super::roster::Roster;
use super::shared::WORLD;
use crate::bootstrap::group::Group;
use crate::bootstrap::host::Identity;
use crate::bootstrap::message::{FromRoot, Named, Silence, State, ToRoot};
use crate::bootstrap::rendezvous::{self, Seat};
use crate::bootstrap::serving::{ConnectionId, Event};
use crate::error::{Failure, Member};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

/// A rank that has said nothing for this long is asked for a sign of life.
const PING: Duration = Duration::from_millis(1250);

/// One job, from its last arrival to its last goodbye. Ranks are the world's here.
pub(crate) struct Root {
    job: u64,
    host: Identity,
    silence: Silence,
    roster: Roster,
    by_connection: HashMap<ConnectionId, u32>,
    /// The world, and the communicators in which something is wrong.
    cases: HashMap<u64, Case>,
    next_tick: Instant,
    ticked: Instant,
    /// All ranks of this process have said goodbye.
    leaving: bool,
}

impl Root {
    pub(crate) fn new(seats: Vec<Seat>, job: u64, host: Identity, silence: Silence) -> Root {
        let now = Instant::now();
        let world = Case::new(WORLD, Group::whole(seats.len() as u32));
        Root {
            job,
            host,
            silence,
            by_connection: seats.iter().zip(0..).map(|(seat, rank)| (seat.connection, rank)).collect(),
            roster: Roster::new(seats),
            cases: HashMap::from([(WORLD, world)]),
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
            |&rank| self.roster.member(rank),
        );
        match rendezvous::welcome(self.roster.0.iter().map(|entry| &entry.seat), root) {
            Ok(welcome) => self.roster.broadcast(&welcome),
            Err(error) => {
                let cause = format!("the layout of the job cannot be told: {error}");
                return self
                    .roster
                    .broadcast(&rendezvous::refusal(cause, "place the ranks in a regular order"));
            }
        }
        while self.roster.0.iter().any(|entry| !entry.gone) {
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
                let (cause, hint) = match self.roster.0.get(joining.rank as usize) {
                    Some(entry) => (
                        format!(
                            "two processes with rank {}: {} pid {}, which has joined, and {} pid {}",
                            late.rank,
                            entry.seat.details.host.name,
                            entry.seat.details.pid,
                            late.host,
                            late.pid
                        ),
                        "give every process a rank of its own",
                    ),
                    None => (
                        format!(
                            "the job is complete with {} ranks; {late} is one too many",
                            self.roster.size()
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
        let entry = &mut self.roster.0[rank as usize];
        entry.heard = Instant::now();
        if std::mem::take(&mut entry.warned) {
            tracing::warn!("{} is back", self.roster.member(rank));
        }
        match message {
            ToRoot::Join(_) | ToRoot::Pong => {}
            ToRoot::Ask { rank: peer } => {
                if let Some(entry) = self.roster.0.get(peer as usize) {
                    let details = Box::new(entry.seat.details.clone());
                    self.roster.tell(rank, &FromRoot::Details { rank: peer, details });
                }
            }
            ToRoot::Stalled { communicator, sequence, awaited, arrived } => {
                if let Some((case, rank)) = case(&mut self.cases, &communicator, rank, &self.roster) {
                    case.stalled(rank, sequence, awaited, arrived, &self.roster);
                }
            }
            ToRoot::State { communicator, round, standing } => {
                if let Some(case) = self.cases.get_mut(&communicator)
                    && let Some(rank) = case.group().inside(rank)
                {
                    case.answered(rank, round, standing);
                }
            }
            ToRoot::Report { communicator, report } => {
                if let Some((case, rank)) = case(&mut self.cases, &communicator, rank, &self.roster) {
                    case.reported(rank, report, &self.roster);
                }
            }
            ToRoot::Goodbye { state, last } => self.goodbye(rank, state, last),
        }
    }

    fn goodbye(&mut self, rank: u32, state: State, last: Option<Vec<(u64, u32)>>) {
        let entered = state.entered;
        self.world().left(rank, state);
        let Some(others) = last else { return };
        for &(communicator, entered) in &others {
            if let Some(case) = self.cases.get_mut(&communicator)
                && let Some(rank) = case.group().inside(rank)
            {
                case.left(rank, after(entered));
            }
        }
        let entry = &mut self.roster.0[rank as usize];
        (entry.left, entry.entered) = (true, others.into_iter().collect());
        let local = self.local();
        if !self.leaving && local.contains(&rank) && local.iter().all(|&rank| self.roster.left(rank)) {
            // This process may end now. The others learn it before the one that waits for the answer.
            self.leaving = true;
            let others = (0..self.roster.size()).filter(|&other| other != rank);
            let named = local.first().map(|&root| &self.roster.0[root as usize].entered);
            let calls = named.into_iter().flatten().map(|(&id, &entered)| (id, entered)).collect();
            self.roster.tell_all(others, &FromRoot::Leaving { entered, others: calls });
        }
        self.roster.tell(rank, &FromRoot::Leaving { entered, others: Vec::new() });
    }

    fn gone(&mut self, rank: u32, how: String) {
        let entry = &mut self.roster.0[rank as usize];
        entry.gone = true;
        // Closes the writing half too.
        entry.seat.outbox = None;
        if entry.left {
            return;
        }
        if entry.seat.details.host.key == self.host.key
            && let Some(path) = &entry.seat.details.path
        {
            super::links::forget(path);
        }
        self.lost(rank, how);
    }

    /// A rank that has not left will never be heard of again: with it fail all communicators that it is in.
    fn lost(&mut self, rank: u32, how: String) {
        if std::mem::replace(&mut self.roster.0[rank as usize].lost, true) {
            return;
        }
        let member = self.roster.member(rank);
        // The call in which it is missed is the one that the rank of this process is in, if there is one.
        let sequence = super::inside(self.job).unwrap_or(0);
        let seen_by = self.name();
        let failure = Failure::PeerLost { member: member.clone(), how: how.clone(), sequence, seen_by };
        for (&id, case) in &mut self.cases {
            if id != WORLD && case.group().inside(rank).is_some() {
                case.close();
            } else if id == WORLD && !case.has_left(rank) {
                case.fail(failure.clone(), &self.roster);
            }
        }
        // Which others it is in its peers know.
        self.roster.tell_all(0..self.roster.size(), &FromRoot::Lost { member, how });
    }

    /// When something has to be done even if nobody says anything.
    fn due(&self) -> Instant {
        self.cases.values().filter_map(Case::due).fold(self.next_tick, Instant::min)
    }

    fn act(&mut self, now: Instant) {
        if now >= self.next_tick {
            self.tick(now);
        }
        self.cases.values_mut().for_each(|case| case.act(now, &self.roster));
    }

    /// Looks for ranks that say nothing.
    fn tick(&mut self, now: Instant) {
        // If this process itself was stopped, that says nothing about the others.
        let stopped = now.saturating_duration_since(self.ticked).saturating_sub(self.pulse() * 2);
        self.ticked = now;
        self.next_tick = now + self.pulse();
        self.cases.retain(|&id, case| id == WORLD || !case.idle(now));
        for rank in 0..self.roster.size() {
            if !self.roster.here(rank) {
                continue;
            }
            let entry = &mut self.roster.0[rank as usize];
            entry.heard += stopped;
            let silent = now.saturating_duration_since(entry.heard);
            let warn = silent >= self.silence.warn && !std::mem::replace(&mut entry.warned, true);
            if silent >= self.silence.fatal {
                let how = format!(
                    "has been silent for {:.0} s (stopped, swapping, in a debugger, or cut off)",
                    silent.as_secs_f64()
                );
                self.lost(rank, how);
            } else if warn {
                tracing::warn!(
                    "{} has been silent for {:.1} s (stopped, swapping, in a debugger, or cut off); given up after {:.0} s",
                    self.roster.member(rank),
                    silent.as_secs_f64(),
                    self.silence.fatal.as_secs_f64()
                );
            }
        }
        // Said even to those that were heard of: they watch the root in the same way.
        let here = (0..self.roster.size()).filter(|&rank| self.roster.here(rank));
        self.roster.tell_all(here, &FromRoot::Ping);
    }

    fn pulse(&self) -> Duration {
        self.silence.pulse().min(PING)
    }

    fn world(&mut self) -> &mut Case {
        let size = self.roster.size();
        self.cases.entry(WORLD).or_insert_with(|| Case::new(WORLD, Group::whole(size)))
    }
    /// The ranks of this process.
    fn local(&self) -> Vec<u32> {
        let here =
            |seat: &Seat| seat.details.host.key == self.host.key && seat.details.pid == std::process::id();
        (0..).zip(&self.roster.0).filter(|(_, entry)| here(&entry.seat)).map(|(rank, _)| rank).collect()
    }
    fn name(&self) -> String {
        self.local().first().map_or("the root".into(), |rank| format!("rank {rank} (root)"))
    }
}

/// A rank that has entered this call, and ended it, and no later one.
fn after(entered: u32) -> State {
    State { entered, completed: entered, calls: Vec::new() }
}

/// The case of the communicator that rank `rank` of the job speaks of, and the rank's number in it.
fn case<'a>(
    cases: &'a mut HashMap<u64, Case>,
    communicator: &Named,
    rank: u32,
    roster: &Roster,
) -> Option<(&'a mut Case, u32)> {
    let case = match cases.entry(communicator.id) {
        Entry::Occupied(case) => case.into_mut(),
        Entry::Vacant(free) => {
            let Some(group) = Group::from_spans(&communicator.members, roster.size()) else {
                tracing::debug!(rank, "spoke of a communicator of ranks that do not exist");
                return None;
            };
            let mut case = Case::new(communicator.id, group);
            // Who has left the job cannot be asked any more how far it came.
            for (number, &member) in (0..).zip(case.group().members().to_vec().iter()) {
                if let Some(&entered) = roster.0[member as usize].entered.get(&communicator.id) {
                    case.left(number, after(entered));
                }
            }
            free.insert(case)
        }
    };
    let rank = case.group().inside(rank)?;
    Some((case, rank))
}
