//! What one end gives back to the other, in one word, so that a poll that finds nothing new is one load and one
//! comparison.
//!
//! ```text
//!  63         48 47         32 31                       0
//! +-------------+-------------+--------------------------+
//! | slots freed | msgs closed | lines taken              |   cumulative, each wraps
//! +-------------+-------------+--------------------------+
//! ```
//!
//! Credit is given back late on purpose: writing this word costs the peer a cache miss, and neither ring nor window
//! is short. At most a quarter of the lines and messages and an eighth of the staging area stay unreported, so a peer
//! that finds nothing free has really filled the rest. What is left over is reported when the end has nothing else to
//! do and before it sleeps.

use super::layout::Options;

/// Polls without anything new after which leftover credit is reported.
const IDLE_POLLS: u32 = 256;
/// Messages closed that may stay unreported.
const LATE_MESSAGES: u16 = 8;

/// Cumulative counts, as in the word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Credit {
    /// Lines taken from the peer's ring.
    pub(super) taken: u32,
    /// Received messages that left the window.
    pub(super) closed: u16,
    /// Slots of the peer's staging area that are free again.
    pub(super) freed: u16,
}

impl Credit {
    #[inline]
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.freed) << 48 | u64::from(self.closed) << 32 | u64::from(self.taken)
    }
    #[inline]
    pub(super) fn from_bits(bits: u64) -> Credit {
        Credit { taken: bits as u32, closed: (bits >> 32) as u16, freed: (bits >> 48) as u16 }
    }
}

/// Decides when to report.
pub(super) struct Reporter {
    reported: Credit,
    late_lines: u32,
    idle: u32,
}

impl Reporter {
    pub(super) fn new(options: &Options) -> Reporter {
        Reporter { reported: Credit::default(), late_lines: options.lines / 4, idle: 0 }
    }

    /// Whether so much is unreported that the peer must hear now.
    #[inline]
    pub(super) fn is_due(&self, now: Credit) -> bool {
        now.taken.wrapping_sub(self.reported.taken) >= self.late_lines
            || now.closed.wrapping_sub(self.reported.closed) >= LATE_MESSAGES
    }

    /// Counts a poll that found nothing; `true` when leftover credit should be reported.
    #[inline]
    pub(super) fn is_idle(&mut self, now: Credit) -> bool {
        if now == self.reported {
            return false;
        }
        self.idle += 1;
        self.idle >= IDLE_POLLS
    }

    /// Whether anything is unreported.
    pub(super) fn is_behind(&self, now: Credit) -> bool {
        now != self.reported
    }

    /// `now` was reported.
    #[inline]
    pub(super) fn reported(&mut self, now: Credit) {
        self.reported = now;
        self.idle = 0;
    }
}
