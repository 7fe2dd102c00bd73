//! Which algorithm a call takes, when the user does not say.
//!
//! The thresholds come from `benches/sweep.py`: `benches/results/algorithms.csv`, one host of 2 cores, 2 to 32 ranks.
//! Those for several hosts were not measured: there few rounds come first, as the network's latency does. The choice
//! depends only on what is the same on every rank.

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

    /// Every rank reaches every other's memory, so one round is enough while it is few messages.
    fn all_reduce_in_shared_memory(&self, bytes: u64) -> Algorithm {
        let one_round = match self.ranks {
            2 | 9..=16 => 1 << 10,
            3..=8 => 4 << 10,
            _ => 0,
        };
        if self.ranks <= 16 && bytes <= self.eager.min(one_round) {
            Algorithm::Exchange
        } else if self.ranks <= 8 || bytes > 256 << 10 {
            Algorithm::Direct
        } else if bytes <= 1 << 10 {
            Algorithm::RecursiveDoubling
        } else {
            Algorithm::Tree
        }
    }

    /// Every message costs system calls at both ends, so few messages come before few rounds.
    fn all_reduce_over_sockets(&self, bytes: u64) -> Algorithm {
        if self.hosts > 1 {
            return self.all_reduce_across_hosts(bytes);
        }
        match self.ranks {
            2 if bytes <= self.eager => Algorithm::Exchange,
            2..=4 if bytes <= 64 << 10 => Algorithm::RecursiveDoubling,
            2..=4 => Algorithm::Direct,
            5..=8 if bytes > 128 << 10 => Algorithm::Direct,
            _ => Algorithm::Tree,
        }
    }

    fn all_reduce_across_hosts(&self, bytes: u64) -> Algorithm {
        let several_per_host = self.hosts < self.ranks;
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
        let long = if self.shared && self.ranks == 2 { 16 << 10 } else { 512 << 10 };
        if bytes > long {
            match self.ranks {
                2 if !self.shared => Algorithm::Binomial,
                _ if self.shared || self.ranks <= 8 => Algorithm::ScatterAllGather,
                _ => Algorithm::PipelinedTree,
            }
        } else if !self.shared && self.hosts == 1 && (3..=4).contains(&self.ranks) {
            Algorithm::Chain
        } else {
            Algorithm::Binomial
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

    /// A link to every rank would make joining slow and ranks large.
    #[test]
    fn a_small_call_of_many_ranks_meets_few() {
        for (ranks, shared) in [(17, true), (256, true), (1000, true), (17, false), (1000, false)] {
            for collective in [Collective::AllReduce, Collective::Broadcast, Collective::Barrier] {
                for bytes in [0, 1, 1 << 10] {
                    let chosen = situation(ranks, 1, shared).choose(collective, bytes);
                    assert!(!matches!(chosen, Algorithm::Exchange | Algorithm::Direct), "{ranks} {chosen:?}");
                }
            }
        }
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
