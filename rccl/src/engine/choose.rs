//! Which algorithm a call takes, when the user does not say.
//!
//! The thresholds come from `rccl perf --algo` sweeps, whose figures are in ARCHITECTURE.md; the choice depends only on
//! what is the same on every rank.

use crate::call::Collective;
use crate::config::Config;
use crate::error::Result;
use rccl_schedule::{Algorithm, Layout};

/// What the choice depends on besides the call.
pub(crate) struct Situation {
    pub ranks: u32,
    pub hosts: u32,
    /// Every rank can share memory with every other.
    pub shared: bool,
    /// Longest message that every link can send eagerly.
    pub eager: u64,
}

impl Situation {
    pub fn new(layout: &Layout, shm: bool, eager: u64) -> Situation {
        let hosts = layout.hosts();
        Situation { ranks: layout.ranks(), hosts, shared: hosts == 1 && shm, eager }
    }

    /// The algorithm for a call of `bytes` bytes.
    pub fn choose(&self, collective: Collective, bytes: u64) -> Algorithm {
        match collective {
            Collective::AllReduce => self.all_reduce(bytes),
            Collective::Broadcast => self.broadcast(bytes),
            Collective::Barrier => self.small_all_reduce(),
        }
    }

    fn small_all_reduce(&self) -> Algorithm {
        // One round beats log n rounds while sending n - 1 messages costs less than waiting for another round.
        if self.ranks <= 8 { Algorithm::Exchange } else { Algorithm::RecursiveDoubling }
    }

    fn all_reduce(&self, bytes: u64) -> Algorithm {
        let several = u64::from(self.ranks.saturating_sub(1).max(1));
        // Two ranks that share memory read each other's operands where they are sooner than they could copy them.
        let little = if self.shared && self.ranks == 2 { 2 << 10 } else { 8 << 10 };
        if bytes <= self.eager && bytes * several <= little {
            return self.small_all_reduce();
        }
        if self.shared {
            return if bytes <= 16 << 10 && self.ranks > 8 {
                Algorithm::RecursiveDoubling
            } else {
                Algorithm::Direct
            };
        }
        if self.hosts > 1 && self.hosts < self.ranks {
            return Algorithm::Hierarchical;
        }
        if self.ranks <= 8 {
            Algorithm::Direct
        } else if bytes <= 64 << 10 {
            Algorithm::HalvingDoubling
        } else {
            Algorithm::Ring
        }
    }

    fn broadcast(&self, bytes: u64) -> Algorithm {
        if bytes <= 16 << 10 {
            Algorithm::Binomial
        } else if self.shared || self.ranks <= 8 {
            Algorithm::ScatterAllGather
        } else {
            Algorithm::Chain
        }
    }

    /// Whether `algorithm` can run a call of `bytes` bytes at all: an exchange needs every message to be eager.
    pub fn allows(&self, algorithm: Algorithm, bytes: u64) -> bool {
        algorithm != Algorithm::Exchange || bytes <= self.eager
    }
}

/// The algorithms of `collective` that the user allows.
///
/// # Errors
/// [`Error::InvalidSetting`](crate::Error::InvalidSetting) when `RCCL_ALGO` leaves none.
pub(crate) fn allowed(config: &Config, collective: Collective) -> Result<Vec<Algorithm>> {
    let any_root = rccl_schedule::Collective::Broadcast { root: 0 };
    let schedule =
        if collective == Collective::Broadcast { any_root } else { rccl_schedule::Collective::AllReduce };
    let candidates = Algorithm::for_collective(&schedule);
    let words: Vec<&str> = candidates.iter().map(Algorithm::word).collect();
    let left = config.algo.restrict(collective, &words)?;
    Ok(candidates.iter().copied().filter(|algorithm| left.contains(&algorithm.word())).collect())
}
