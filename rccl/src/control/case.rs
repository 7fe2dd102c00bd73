//! One communicator as the root sees it: where its ranks are, and what was its first failure.
//!
//! The world's lasts as long as the job. That of another communicator begins when one of its ranks says that something
//! is wrong, and is closed when it has failed or nothing is asked any more. Ranks are the communicator's here.

use super::compare;
use super::links::left_after;
use super::progress::before;
use super::roster::Roster;
use super::shared::WORLD;
use crate::bootstrap::group::Group;
use crate::bootstrap::message::{FromRoot, Report, Standing, State};
use crate::error::{CallOf, Failure, Member};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use tokio::time::Instant;

/// How long the ranks have to say where they are.
const ROUND: Duration = Duration::from_millis(500);
/// The shortest time from the end of one round of questions to the next.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(100);
/// A link that broke is usually the first sign of a process that died: its connection here ends within this time.
const SUSPICION: Duration = Duration::from_millis(300);

pub(super) struct Case {
    id: u64,
    group: Group,
    parts: Vec<Part>,
    failed: bool,
    questions: Questions,
    suspicions: Vec<Suspicion>,
    /// Who has waited for messages of whom that had left.
    in_vain: HashSet<(u32, u32)>,
}

/// What a rank last said of itself.
#[derive(Clone, Default)]
struct Part {
    state: State,
    /// It has left the communicator.
    left: bool,
    /// It has answered in the present round.
    answered: bool,
}

/// Who wants to know where the others are, and the round of questions under way.
#[derive(Default)]
struct Questions {
    number: u32,
    /// When the round ends, whoever has not answered by then.
    end: Option<Instant>,
    outstanding: usize,
    /// No round begins before this.
    not_before: Option<Instant>,
    /// Ranks in a call without progress.
    stalled: HashMap<u32, Wait>,
    /// The first rank that gave up, and how long it waited.
    timeout: Option<(u32, Wait, Duration)>,
    /// A link broke, and its other end may have left.
    broken: bool,
}

/// What a rank waits in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wait {
    sequence: u32,
    /// The ranks that it waits for; empty: all.
    awaited: Vec<u32>,
}

impl Questions {
    fn wanted(&self) -> bool {
        !self.stalled.is_empty() || self.timeout.is_some() || self.broken
    }
}

/// A link that broke, until it is clear whether a process did.
struct Suspicion {
    until: Instant,
    rank: u32,
    peer: u32,
    sequence: u32,
    /// As of [`Report::LinkLost`].
    arrived: bool,
    failure: Failure,
}

impl Case {
    pub(super) fn new(id: u64, group: Group) -> Case {
        let parts = vec![Part::default(); group.size() as usize];
        let (questions, suspicions) = (Questions::default(), Vec::new());
        Case { id, group, parts, failed: false, questions, suspicions, in_vain: HashSet::new() }
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }
    /// Whether nothing is to be done, and nothing lost by forgetting it.
    pub(super) fn idle(&self, now: Instant) -> bool {
        let expects_nothing = self.suspicions.is_empty() && self.in_vain.is_empty();
        let quiet = self.questions.end.is_none() && !self.questions.wanted() && expects_nothing;
        self.failed || (quiet && self.questions.not_before.is_none_or(|time| now >= time))
    }

    /// Messages have no numbers, so it cannot be told whether one who has left had sent his; what is on its way still comes.
    /// If nothing was (`arrived`: there is no link yet, or it is memory), nothing will, if that is said again after he had
    /// left: the first time he may have linked, sent and left meanwhile.
    pub(super) fn stalled(
        &mut self,
        rank: u32,
        sequence: u32,
        awaited: Vec<u32>,
        arrived: bool,
        roster: &Roster,
    ) {
        for &peer in awaited.iter().filter(|_| arrived) {
            if let Some(failure) = self.gone(peer, rank, sequence, roster)
                && !self.in_vain.insert((rank, peer))
            {
                return self.fail(failure, roster);
            }
        }
        self.questions.stalled.insert(rank, Wait { sequence, awaited });
    }

    pub(super) fn answered(&mut self, rank: u32, round: u32, standing: Standing) {
        let part = &mut self.parts[rank as usize];
        match standing {
            // It has not made the communicator: it has entered nothing.
            Standing::Absent => {}
            Standing::In(state) => part.state = state,
            Standing::Left(state) => (part.state, part.left) = (state, true),
        }
        let questions = &mut self.questions;
        if questions.end.is_some()
            && questions.number == round
            && !std::mem::replace(&mut part.answered, true)
        {
            questions.outstanding = questions.outstanding.saturating_sub(1);
        }
    }

    /// A rank has left the communicator, without being asked.
    pub(super) fn left(&mut self, rank: u32, state: State) {
        let part = &mut self.parts[rank as usize];
        (part.state, part.left) = (state, true);
    }
    pub(super) fn has_left(&self, rank: u32) -> bool {
        self.parts[rank as usize].left
    }

    pub(super) fn reported(&mut self, rank: u32, report: Report, roster: &Roster) {
        match report {
            Report::Mismatch { sequence, calls } => self.fail(Failure::Mismatch { sequence, calls }, roster),
            Report::Timeout { sequence, waited, awaited } => {
                self.questions.timeout.get_or_insert((rank, Wait { sequence, awaited }, waited));
            }
            Report::Aborted { why } => {
                let member = self.member(rank, roster);
                self.fail(Failure::Aborted { member, why }, roster);
            }
            Report::Left { peer, last, sequence } if peer < self.group.size() => {
                let member = self.member(peer, roster);
                self.fail(left_after(self.id, member, last, sequence, format!("rank {rank}")), roster);
            }
            Report::LinkLost { peer, transport, sequence, cause, arrived } if peer < self.group.size() => {
                if let Some(failure) = self.left_behind(peer, rank, sequence, arrived, roster) {
                    return self.fail(failure, roster);
                }
                // Ranks say unasked that they leave the world, and only that.
                self.questions.broken |= self.id != WORLD;
                let failure = Failure::LinkLost { rank, peer, transport, sequence, cause };
                let until = Instant::now() + SUSPICION;
                self.suspicions.push(Suspicion { until, rank, peer, sequence, arrived, failure });
            }
            Report::Left { .. } | Report::LinkLost { .. } => {
                tracing::debug!(rank, "a report names a rank that does not exist");
            }
        }
    }

    /// When something has to be done even if nobody says anything.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.failed {
            return None;
        }
        if self.questions.end.is_some() {
            // Suspicions wait for what the round brings.
            return self.questions.end;
        }
        let asks = self.questions.wanted().then(|| self.questions.not_before.unwrap_or_else(Instant::now));
        let judges = self.suspicions.iter().map(|suspicion| suspicion.until).min();
        asks.into_iter().chain(judges).min()
    }

    pub(super) fn act(&mut self, now: Instant, roster: &Roster) {
        if self.failed {
            return;
        }
        if let Some(end) = self.questions.end {
            if now >= end || self.questions.outstanding == 0 {
                self.conclude(now, roster);
            }
        } else if self.questions.wanted() && self.questions.not_before.is_none_or(|time| now >= time) {
            self.ask(now, roster);
        }
        if !self.failed && self.questions.end.is_none() && !self.questions.broken {
            self.judge(now, roster);
        }
    }

    /// Asks everybody where he is.
    fn ask(&mut self, now: Instant, roster: &Roster) {
        let questions = &mut self.questions;
        questions.number = questions.number.wrapping_add(1);
        questions.end = Some(now + ROUND);
        questions.outstanding = 0;
        for (part, &member) in self.parts.iter_mut().zip(self.group.members()) {
            part.answered = false;
            questions.outstanding += usize::from(!part.left && roster.here(member));
        }
        let question = FromRoot::Query { communicator: self.id, round: questions.number };
        roster.tell_all(self.group.members().iter().copied(), &question);
    }

    /// Compares what was answered.
    fn conclude(&mut self, now: Instant, roster: &Roster) {
        self.questions.end = None;
        self.questions.not_before = Some(now + BETWEEN_ROUNDS);
        self.questions.broken = false;
        let stalled = std::mem::take(&mut self.questions.stalled);
        let timeout = self.questions.timeout.take();
        // Ranks that wait in the same call get the same answer.
        let mut waits: BTreeMap<Wait, Vec<u32>> = BTreeMap::new();
        for (rank, wait) in
            stalled.into_iter().chain(timeout.iter().map(|(rank, wait, _)| (*rank, wait.clone())))
        {
            waits.entry(wait).or_default().push(rank);
        }

        let mismatch = self.mismatch(&waits);
        let left = || self.left_in(&waits, roster);
        let left_at_last = || {
            let (rank, Wait { sequence, awaited }, _) = timeout.as_ref()?;
            awaited.iter().find_map(|&peer| self.gone(peer, *rank, *sequence, roster))
        };
        if let Some(failure) = mismatch.or_else(left).or_else(left_at_last) {
            return self.fail(failure, roster);
        }
        if let Some((rank, wait, waited)) = timeout {
            let waiting_for = self.missing(&wait);
            let failure = Failure::Timeout { rank, sequence: wait.sequence, waited, waiting_for };
            return self.fail(failure, roster);
        }
        for (wait, ranks) in waits {
            let missing = self.missing(&wait).into_iter().map(|of| (self.member(of.rank, roster), of));
            let answer = FromRoot::Waiting {
                communicator: self.id,
                sequence: wait.sequence,
                missing: missing.collect(),
            };
            roster.tell_all(ranks.into_iter().filter_map(|rank| self.group.outside(rank)), &answer);
        }
    }

    /// Compares what the ranks called, if somebody waits in a call that all are to make: only then do the numbers of
    /// calls say something about each other.
    fn mismatch(&self, waits: &BTreeMap<Wait, Vec<u32>>) -> Option<Failure> {
        let mut comparable = vec![true; self.parts.len()];
        for &rank in waits.iter().filter(|(wait, _)| !wait.awaited.is_empty()).flat_map(|(_, ranks)| ranks) {
            comparable[rank as usize] = false;
        }
        waits.keys().any(|wait| wait.awaited.is_empty()).then_some(())?;
        let known: Vec<(u32, &State)> = (0..)
            .zip(&self.parts)
            .filter(|(rank, part)| (part.answered || part.left) && comparable[*rank as usize])
            .map(|(rank, part)| (rank, &part.state))
            .collect();
        compare::mismatch(&known)
    }

    /// The failure of a call of all ranks that can never end because somebody has left.
    fn left_in(&self, waits: &BTreeMap<Wait, Vec<u32>>, roster: &Roster) -> Option<Failure> {
        waits.iter().filter(|(wait, _)| wait.awaited.is_empty()).find_map(|(Wait { sequence, .. }, ranks)| {
            let seen_by = *ranks.first()?;
            (0..self.group.size()).find_map(|peer| self.missed(peer, seen_by, *sequence, roster))
        })
    }

    /// The ranks that keep a call waiting, with what each last did.
    fn missing(&self, wait: &Wait) -> Vec<CallOf> {
        if wait.awaited.is_empty() {
            return compare::missing((0..).zip(self.parts.iter().map(|part| &part.state)), wait.sequence);
        }
        let awaited = wait.awaited.iter().filter_map(|&rank| Some((rank, self.parts.get(rank as usize)?)));
        compare::whereabouts(awaited.map(|(rank, part)| (rank, &part.state)))
    }

    /// The failure that a link broke because `peer` has left and is needed, if that is so.
    fn left_behind(
        &self,
        peer: u32,
        seen_by: u32,
        sequence: u32,
        arrived: bool,
        roster: &Roster,
    ) -> Option<Failure> {
        if arrived {
            self.gone(peer, seen_by, sequence, roster)
        } else {
            self.missed(peer, seen_by, sequence, roster)
        }
    }

    /// As [`Case::gone`], unless `peer` has entered the call before.
    fn missed(&self, peer: u32, seen_by: u32, sequence: u32, roster: &Roster) -> Option<Failure> {
        let entered = self.parts[peer as usize].state.entered;
        before(entered, sequence).then(|| self.gone(peer, seen_by, sequence, roster))?
    }

    /// The failure that `peer` has left and is needed in a call, if it has.
    fn gone(&self, peer: u32, seen_by: u32, sequence: u32, roster: &Roster) -> Option<Failure> {
        let part = self.parts.get(peer as usize)?;
        if part.left {
            let last = part.state.completed;
            return Some(left_after(
                self.id,
                self.member(peer, roster),
                last,
                sequence,
                format!("rank {seen_by}"),
            ));
        }
        // It cannot be asked any more how far it came in this communicator.
        roster.left(self.group.outside(peer)?).then(|| Failure::PeerLost {
            member: self.member(peer, roster),
            how: "left the job".into(),
            sequence,
            seen_by: format!("rank {seen_by}"),
        })
    }

    /// Decides on links that broke and whose ends' processes live.
    fn judge(&mut self, now: Instant, roster: &Roster) {
        let Some(position) = self.suspicions.iter().position(|suspicion| now >= suspicion.until) else {
            return;
        };
        let Suspicion { rank, peer, sequence, arrived, failure, .. } = self.suspicions.swap_remove(position);
        let failure = self.left_behind(peer, rank, sequence, arrived, roster).unwrap_or(failure);
        tracing::debug!(peer, "a link broke and its peer lives");
        self.fail(failure, roster);
    }

    /// The first failure: everybody is told, and nothing that is reported later counts.
    pub(super) fn fail(&mut self, failure: Failure, roster: &Roster) {
        if self.failed {
            return;
        }
        self.failed = true;
        tracing::debug!(communicator = self.id, %failure, "a communicator failed");
        let members = self.group.members().iter().copied();
        roster.tell_all(members, &FromRoot::Failed { communicator: self.id, failure });
    }

    /// It has failed, and its ranks know.
    pub(super) fn close(&mut self) {
        self.failed = true;
    }

    fn member(&self, rank: u32, roster: &Roster) -> Member {
        roster.member_as(self.group.members()[rank as usize], rank)
    }
}
