//! A call that does not move: when to ask about it, and what to say in the log.

use super::shared::{Shared, WORLD};
use crate::error::{CallOf, Member};
use std::time::Duration;
use tokio::time::Instant;

/// The first pause between two questions, which then doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A call that does not move.
pub(crate) struct Stall {
    pub sequence: u32,
    /// The ranks that it waits for; empty: all.
    pub awaited: Vec<u32>,
    /// When to ask next.
    pub ask: Instant,
    began: Instant,
    pause: Duration,
    logged: bool,
}

impl Stall {
    pub(crate) fn new(sequence: u32, awaited: Vec<u32>) -> Stall {
        let now = Instant::now();
        Stall { sequence, awaited, began: now, ask: now, pause: FIRST_PAUSE, logged: false }
    }

    /// It is being asked about: puts the next question off.
    pub(crate) fn asked(&mut self, now: Instant, late_warn: Duration) {
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
        tracing::warn!("{}{of}: {:.0} s in op #{}; {names}", shared.me, waited.as_secs_f64(), self.sequence);
    }
}

fn late(member: &Member, of: &CallOf) -> String {
    match &of.call {
        Some(call) => format!("{member}, which is in {call} (it completed #{})", of.sequence),
        None => format!("{member}, which is in no call (it completed #{})", of.sequence),
    }
}
