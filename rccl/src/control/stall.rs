//! A call that does not move: when to ask about it, and what to say in the log.

use super::shared::{Shared, WORLD};
use crate::error::{CallOf, Member};
use std::time::Duration;
use tokio::time::Instant;

/// The first pause between two questions, which then doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// When messages are asked about of which nothing more is said: not as long as anything lasts.
const UNASKED: Duration = Duration::from_secs(1 << 24);

/// A call that does not move.
pub(crate) struct Stall {
    pub sequence: u32,
    /// The ranks that it waits for, with messages; empty: all.
    pub awaited: Vec<u32>,
    /// What these have sent so far is here.
    pub arrived: bool,
    /// It has waited for the root, which had left.
    pub in_vain: bool,
    /// When to ask next.
    pub ask: Instant,
    began: Instant,
    /// When the engine last said that it does not move.
    said: Instant,
    pause: Duration,
    logged: bool,
}

impl Stall {
    pub(crate) fn new(sequence: u32, waited: Duration, awaited: Vec<u32>, arrived: bool) -> Stall {
        let now = Instant::now();
        let began = now.checked_sub(waited).unwrap_or(now);
        let (pause, logged) = (FIRST_PAUSE, false);
        Stall { sequence, awaited, arrived, in_vain: false, began, said: now, ask: now, pause, logged }
    }

    /// Messages are not numbered, so they are asked about when it is said again that they do not move. Whether the other is
    /// the same stall, going on.
    pub(crate) fn said_again(&mut self, other: &Stall) -> bool {
        let kind = |stall: &Stall| (stall.sequence, stall.arrived);
        let same = kind(self) == kind(other) && self.awaited == other.awaited && other.began <= self.said;
        if same {
            (self.said, self.ask) = (other.said, other.ask);
        }
        same
    }

    /// It is being asked about: puts the next question off.
    pub(crate) fn asked(&mut self, now: Instant, late_warn: Duration) {
        if !self.awaited.is_empty() {
            self.ask = now + UNASKED;
            return;
        }
        self.ask = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        // One question falls on the moment at which the missing are to be named.
        let late = self.began + late_warn;
        if now < late && late < self.ask {
            self.ask = late;
        }
    }

    /// Says once in the log who is missing, when that is known and it has lasted for `late_warn`.
    pub(crate) fn log_if_late(&mut self, shared: &Shared, late_warn: Duration) {
        let waited = self.began.elapsed();
        if self.logged || waited < late_warn {
            return;
        }
        self.logged = true;
        let missing = shared.waiting();
        let names: Vec<String> = missing.iter().map(|(member, of)| late(member, of)).collect();
        let names = if names.is_empty() {
            "all ranks have entered it".into()
        } else {
            format!("missing: {}", names.join("; "))
        };
        let of = match shared.id {
            WORLD => String::new(),
            id => format!(" of sub-communicator {id:016x} of {} ranks", shared.group.size()),
        };
        let call =
            if self.awaited.is_empty() { format!("op #{}", self.sequence) } else { "a message".into() };
        tracing::warn!("{}{of}: {:.0} s in {call}; {names}", shared.me, waited.as_secs_f64());
    }
}

fn late(member: &Member, of: &CallOf) -> String {
    match &of.call {
        Some(call) => format!("{member}, which is in {call} (it completed #{})", of.sequence),
        None => format!("{member}, which is in no call (it completed #{})", of.sequence),
    }
}
