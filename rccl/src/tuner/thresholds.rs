//! Rules by thresholds, for layouts that no profile knows.
//!
//! Those of one host come from `benches/sweep.py`: `benches/results/algorithms.csv`, one host of 2 cores, 2 to 16 ranks, each
//! bound to a core; `benches/tuner.sh` looks how good they are. Those for several hosts were not measured, but for two ranks:
//! there few rounds come first, as the network's latency does.

use rccl_schedule::{Algorithm, Collective, Layout};

/// What the choice depends on besides the call.
pub(crate) struct Situation {
    pub ranks: u32,
    pub hosts: u32,
    /// Every rank can share memory with every other.
    pub shared: bool,
    /// Longest message that every link can send eagerly.
    pub eager: u64,
    /// Every element is reduced in order of rank.
    pub fixed: bool,
    /// The ranks of each host follow one another.
    pub in_order: bool,
}

impl Situation {
    pub fn new(layout: &Layout, shm: bool, eager: u64, fixed: bool) -> Situation {
        let hosts = layout.hosts();
        let in_order = layout.host.is_sorted();
        Situation { ranks: layout.ranks(), hosts, shared: hosts == 1 && shm, eager, fixed, in_order }
    }

    /// Whether every message of a call is eager, so that nobody waits for anybody's grant: a call of `block` bytes a
    /// block and `vector` bytes in all.
    pub fn is_eager(&self, block: u64, vector: u64) -> bool {
        // Two ranks that share memory have one message each to wait for, and what is registered is not copied twice
        // (4 KiB, us, eager and granted: broadcast 1.48 and 0.62, all_gather 1.06 and 0.74; plain memory 1.49 and 1.61,
        // 1.06 and 1.31). More ranks than cores lose more by waiting (4 ranks, 4 KiB: all_reduce 7.4 and 13.7).
        let pair = self.shared && self.ranks == 2;
        vector <= self.eager && (!pair || block <= 512)
    }

    /// The algorithm for a call of `bytes` bytes a block.
    pub fn choose(&self, collective: &Collective, bytes: u64) -> Algorithm {
        match collective {
            Collective::AllReduce if self.fixed => self.all_reduce_in_order(bytes),
            Collective::Reduce { .. } if self.fixed && bytes <= 16 << 10 => Algorithm::Direct,
            Collective::Reduce { .. } if self.fixed => Algorithm::ReduceGather,
            Collective::ReduceScatter if self.fixed => Algorithm::Direct,
            Collective::AllReduce => self.all_reduce(bytes),
            Collective::Broadcast { .. } => self.broadcast(bytes),
            Collective::Reduce { .. } => self.reduce(bytes),
            Collective::AllGather | Collective::ReduceScatter => self.gather_or_scatter_all(bytes),
            Collective::Gather { .. } => self.gather(bytes),
            Collective::Scatter { .. } => self.scatter(bytes),
            _ => self.all_to_all(bytes),
        }
    }

    /// Between hosts of which one has more ranks than processors, where that makes another algorithm the best: to pass
    /// something on takes a switch of processes. Measured on two hosts of a processor each, 4 and 8 ranks
    /// (`benches/tuner.sh`): short reduce and gather take 0.43 to 0.85 of the time of the class's binomial. (all_reduce of
    /// 32 KiB by doubling 0.65 to 0.80 of it, but where four hosts have 1 Gbit/s 6.6 times as long: it moves more bytes.)
    pub fn choose_crowded(&self, collective: &Collective, bytes: u64) -> Option<Algorithm> {
        if self.fixed || self.ranks > 16 || !self.several_per_host() {
            return None;
        }
        match collective {
            Collective::Reduce { .. } | Collective::Gather { .. } if bytes <= 8 << 10 => {
                Some(Algorithm::Direct)
            }
            Collective::AllToAll if self.in_order && (8 << 10..=256 << 10).contains(&bytes) => {
                Some(Algorithm::Hierarchical)
            }
            _ => None,
        }
    }

    /// One pass reduces all ranks' operands, on every rank or on the one that owns the slice.
    fn all_reduce_in_order(&self, bytes: u64) -> Algorithm {
        let one_round = self.ranks <= 16 && bytes <= self.eager.min(4 << 10);
        if one_round { Algorithm::Exchange } else { Algorithm::Direct }
    }

    fn reduce(&self, bytes: u64) -> Algorithm {
        let halves = match self.ranks {
            _ if !self.shared => u64::MAX,
            2 => 16 << 10,
            3..=8 => 128 << 10,
            _ => 256 << 10,
        };
        match self.ranks {
            _ if bytes > halves => Algorithm::ReduceGather,
            2..=4 => Algorithm::Direct,
            5..=8 if self.shared => Algorithm::Direct,
            _ => Algorithm::Binomial,
        }
    }

    fn gather_or_scatter_all(&self, bytes: u64) -> Algorithm {
        match self.ranks {
            _ if self.several_per_host() => Algorithm::Hierarchical,
            0..=3 => Algorithm::Direct,
            4..=16 if self.shared => Algorithm::Direct,
            _ if bytes <= 4 << 10 => Algorithm::Bruck,
            _ if self.shared || self.ranks <= 8 => Algorithm::Direct,
            _ => Algorithm::Ring,
        }
    }

    fn scatter(&self, bytes: u64) -> Algorithm {
        if self.ranks > 16 && bytes <= 4 << 10 { Algorithm::Binomial } else { Algorithm::Direct }
    }

    /// As scatter; over sockets, whoever receives from many pays for many.
    fn gather(&self, bytes: u64) -> Algorithm {
        let many = !self.shared && self.ranks > 4 && bytes <= 1 << 10;
        if many { Algorithm::Binomial } else { self.scatter(bytes) }
    }

    fn all_to_all(&self, bytes: u64) -> Algorithm {
        match self.ranks {
            _ if self.several_per_host() && self.in_order && bytes <= 4 << 10 => Algorithm::Hierarchical,
            17.. if bytes <= 512 => Algorithm::Bruck,
            33.. => Algorithm::Pairwise,
            _ => Algorithm::Direct,
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
            9..=16 => 1 << 10,
            2 | 4 => 4 << 10,
            5..=8 => 8 << 10,
            _ => 0,
        };
        match self.ranks {
            _ if 0 < one_round && bytes <= self.eager.min(one_round) => Algorithm::Exchange,
            3..=16 if bytes <= 8 << 10 => Algorithm::RecursiveDoubling,
            _ if self.ranks <= 8 || bytes > 256 << 10 => Algorithm::Direct,
            _ if bytes <= 1 << 10 => Algorithm::RecursiveDoubling,
            _ => Algorithm::Tree,
        }
    }

    /// Every message costs system calls at both ends, so few messages come before few rounds.
    fn all_reduce_over_sockets(&self, bytes: u64) -> Algorithm {
        if self.hosts > 1 {
            return self.all_reduce_across_hosts(bytes);
        }
        if self.ranks == 2 {
            // One round of whole vectors moves twice the bytes of two rounds of halves, in half the messages. From 512 KiB
            // on halving takes 0.63 to 0.96 of direct's time.
            return match bytes {
                _ if bytes <= self.eager => Algorithm::Exchange,
                ..=0x8000 | 0x1_0001..=0x4_0000 => Algorithm::RecursiveDoubling,
                ..=0x1_0000 => Algorithm::Direct,
                _ => Algorithm::HalvingDoubling,
            };
        }
        let (doubling, tree, halving) = match self.ranks {
            3 => (32 << 10, 0, 512 << 10),
            4 => (32 << 10, 0, u64::MAX),
            5..=8 => (32 << 10, 64 << 10, 1 << 20),
            _ => (8 << 10, u64::MAX, 0),
        };
        match bytes {
            _ if bytes <= doubling => Algorithm::RecursiveDoubling,
            _ if bytes <= tree => Algorithm::Tree,
            _ if bytes <= halving => Algorithm::HalvingDoubling,
            _ => Algorithm::Direct,
        }
    }

    fn all_reduce_across_hosts(&self, bytes: u64) -> Algorithm {
        let several_per_host = self.several_per_host();
        if self.ranks == 2 {
            match bytes {
                _ if bytes <= self.eager => Algorithm::Exchange,
                ..=0x8000 => Algorithm::RecursiveDoubling,
                _ => Algorithm::Direct,
            }
        } else if bytes <= 4 << 10 || !several_per_host && bytes <= 64 << 10 {
            Algorithm::RecursiveDoubling
        } else if several_per_host {
            // A ring across hosts moves as little as can be between neighbours, in many steps. As simulated on 4 to 64
            // hosts of 8 ranks, 25 Gbit/s, 8 us: 256 KiB take 0.97 to 0.14 of its time, 1 MiB on 4 hosts 1.13.
            let few_steps = self.hosts > 2 && bytes <= u64::from(self.hosts) << 16;
            if few_steps { Algorithm::HierarchicalHalving } else { Algorithm::Hierarchical }
        } else if self.ranks <= 16 {
            Algorithm::HalvingDoubling
        } else {
            Algorithm::Ring
        }
    }

    fn broadcast(&self, bytes: u64) -> Algorithm {
        if self.shared {
            return match self.ranks {
                2 if bytes > 16 << 10 => Algorithm::ScatterAllGather,
                // Whoever passes something on must first be given a processor: 8 B takes 36 us instead of 64 on 16
                // ranks, 8.3 instead of 12 on 8, and 16 MiB on 8 3.8 ms instead of 4.7 by scatter_allgather.
                5..=16 => Algorithm::Direct,
                17.. if bytes > 1 << 20 => Algorithm::ScatterAllGather,
                _ => Algorithm::Binomial,
            };
        }
        match self.ranks {
            // Two halves, each short enough to be sent at once: 64 KiB takes 18.7 us instead of 26.9.
            2 if (32 << 10 < bytes && bytes <= 64 << 10) => Algorithm::ScatterAllGather,
            3..=8 if bytes > 512 << 10 => Algorithm::ScatterAllGather,
            9.. if bytes > 2 << 20 => Algorithm::PipelinedTree,
            _ => Algorithm::Binomial,
        }
    }

    fn several_per_host(&self) -> bool {
        self.hosts > 1 && self.hosts < self.ranks
    }

    /// Whether `algorithm` can run a call of `bytes` bytes at all: an exchange needs every message to be eager.
    pub fn allows(&self, algorithm: Algorithm, bytes: u64) -> bool {
        algorithm != Algorithm::Exchange || bytes <= self.eager
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn situation(ranks: u32, hosts: u32, shared: bool) -> Situation {
        Situation { ranks, hosts, shared, eager: 8 << 10, fixed: false, in_order: true }
    }

    /// A link to every rank would make joining slow and ranks large.
    #[test]
    fn a_small_call_of_many_ranks_meets_few() {
        for (ranks, shared) in [(17, true), (256, true), (1000, true), (17, false), (1000, false)] {
            for collective in Collective::ALL {
                for bytes in [0, 1, 256] {
                    let chosen = situation(ranks, 1, shared).choose(&collective, bytes);
                    let few =
                        !matches!(chosen, Algorithm::Exchange | Algorithm::Direct | Algorithm::Pairwise);
                    assert!(few, "{collective} {ranks} {chosen:?}");
                }
            }
        }
    }

    #[test]
    fn crowded_hosts_pass_less_on() {
        let of = |ranks, collective: Collective, bytes| {
            situation(ranks, 2, false).choose_crowded(&collective, bytes).map(|algorithm| algorithm.word())
        };
        let gather = Collective::Gather { root: 0 };
        assert_eq!(of(8, Collective::Reduce { root: 1 }, 512), Some("direct"));
        assert_eq!([8 << 10, 8193].map(|bytes| of(8, gather, bytes)), [Some("direct"), None]);
        assert_eq!(
            [4, 16, 17].map(|ranks| of(ranks, gather, 64)).map(|it| it.is_some()),
            [true, true, false]
        );
        // A rank on each of two hosts shares with nobody.
        assert_eq!(of(2, gather, 8), None);
    }

    #[test]
    fn what_is_chosen_can_run() {
        for ranks in [1, 2, 3, 4, 7, 8, 9, 16, 17, 64, 1000] {
            for (hosts, shared) in [(1, true), (1, false), (2, false), (ranks, false)] {
                let situation = situation(ranks, hosts.min(ranks), shared);
                for bytes in
                    (0..34).map(|shift| 1_u64 << shift).flat_map(|bytes| [0, bytes - 1, bytes, bytes + 1])
                {
                    for collective in Collective::ALL {
                        let chosen = situation.choose(&collective, bytes);
                        assert!(
                            situation.allows(chosen, bytes)
                                && Algorithm::for_collective(&collective).contains(&chosen),
                            "{chosen} for {collective} of {bytes} bytes on {ranks} ranks of {hosts} hosts"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn hosts_of_several_ranks_reduce_inside_first() {
        assert_eq!(situation(8, 2, false).choose(&Collective::AllReduce, 1 << 20), Algorithm::Hierarchical);
        let large = |bytes| situation(128, 16, false).choose(&Collective::AllReduce, bytes);
        assert_eq!(
            [16 << 10, 1 << 20, 4 << 20].map(large),
            [Algorithm::HierarchicalHalving, Algorithm::HierarchicalHalving, Algorithm::Hierarchical]
        );
        assert_eq!(
            situation(8, 8, false).choose(&Collective::AllReduce, 1 << 20),
            Algorithm::HalvingDoubling
        );
    }
}
