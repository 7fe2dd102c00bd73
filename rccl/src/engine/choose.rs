//! Which algorithm a call takes, when the user does not say.
//!
//! Those for all_reduce on 4 and 8 ranks come from one sweep, `benches/results/algorithms.csv`; those for 2 ranks in
//! shared memory from comparing exchange with direct. Those for more ranks, for several hosts and for broadcast were not
//! measured. The choice depends only on what is the same on every rank.

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
            Collective::Barrier => self.all_reduce(0),
        }
    }

    fn all_reduce(&self, bytes: u64) -> Algorithm {
        if self.ranks == 1 {
            Algorithm::Direct
        } else if self.shared {
            self.all_reduce_in_shared_memory(bytes)
        } else {
            self.all_reduce_over_sockets(bytes)
        }
    }

    /// Every rank reaches every other's memory, so one round is enough, and small calls differ only in how many messages
    /// each rank sends in it.
    fn all_reduce_in_shared_memory(&self, bytes: u64) -> Algorithm {
        let little = if self.ranks == 2 { 1 << 10 } else { 1 << 10 };
        match self.ranks {
            2..=7 if bytes <= self.eager.min(little) => Algorithm::Exchange,
            2..=7 => Algorithm::Direct,
            8..=16 if bytes <= self.eager.min(little) => Algorithm::Exchange,
            _ if bytes <= 1 << 10 => Algorithm::RecursiveDoubling,
            _ if bytes <= 64 << 10 => Algorithm::Tree,
            _ => Algorithm::Direct,
        }
    }

    /// Every message costs system calls at both ends, so few messages come before few rounds.
    fn all_reduce_over_sockets(&self, bytes: u64) -> Algorithm {
        let several_per_host = self.hosts > 1 && self.hosts < self.ranks;
        if self.ranks == 2 {
            if bytes <= self.eager { Algorithm::Exchange } else { Algorithm::Direct }
        } else if bytes <= 4 << 10 || !several_per_host && bytes <= 64 << 10 {
            Algorithm::RecursiveDoubling
        } else if several_per_host {
            Algorithm::Hierarchical
        } else if self.ranks <= 16 {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ALGORITHM_WORDS;

    fn situation(ranks: u32, hosts: u32, shared: bool) -> Situation {
        Situation { ranks, hosts, shared, eager: 8 << 10 }
    }

    #[test]
    fn the_setting_knows_every_algorithm_and_no_other() {
        let broadcast = rccl_schedule::Collective::Broadcast { root: 0 };
        let mut words: Vec<&str> = Algorithm::for_collective(&rccl_schedule::Collective::AllReduce)
            .iter()
            .chain(Algorithm::for_collective(&broadcast))
            .map(Algorithm::word)
            .collect();
        let mut known = ALGORITHM_WORDS.to_vec();
        words.sort_unstable();
        known.sort_unstable();
        assert_eq!(words, known);
    }

    #[test]
    fn what_is_chosen_can_run() {
        for ranks in [1, 2, 3, 4, 7, 8, 9, 16, 17, 64, 1000] {
            for (hosts, shared) in [(1, true), (1, false), (2, false), (ranks, false)] {
                let situation = situation(ranks, hosts.min(ranks), shared);
                for bytes in
                    (0..34).map(|shift| 1_u64 << shift).flat_map(|bytes| [0, bytes - 1, bytes, bytes + 1])
                {
                    for collective in [Collective::AllReduce, Collective::Broadcast, Collective::Barrier] {
                        let bytes = if collective == Collective::Barrier { 0 } else { bytes };
                        let chosen = situation.choose(collective, bytes);
                        assert!(
                            situation.allows(chosen, bytes),
                            "{chosen} for {collective:?} of {bytes} bytes on {ranks} ranks of {hosts} hosts"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn hosts_of_several_ranks_reduce_inside_first() {
        assert_eq!(situation(8, 2, false).choose(Collective::AllReduce, 1 << 20), Algorithm::Hierarchical);
        assert_eq!(situation(8, 8, false).choose(Collective::AllReduce, 1 << 20), Algorithm::HalvingDoubling);
    }
}
