//! What is simulated on: hosts, their rails, two layers of switches, and what everything costs.

use crate::layout::Layout;

/// A time or a duration in picoseconds.
pub type Time = u64;

/// One microsecond.
pub const MICROSECOND: Time = 1_000_000;

/// How long bytes take: a bandwidth, kept as picoseconds a byte with 32 binary places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

impl Rate {
    /// Bytes take no time.
    pub const INFINITE: Rate = Rate(0);

    /// So many bytes a second; `None` unless that is between 1 kB/s and 10^20 B/s.
    pub fn bytes_per_second(bytes: f64) -> Option<Rate> {
        (1e3..=1e20).contains(&bytes).then(|| Rate((1e12 / bytes * 2f64.powi(32)).round() as u64))
    }

    /// So many GB/s, with 10^9 bytes a GB.
    ///
    /// # Panics
    /// Outside of 10^-6 to 10^11 GB/s.
    pub fn gigabytes(gigabytes: f64) -> Rate {
        Rate::bytes_per_second(gigabytes * 1e9).expect("a rate between 1 kB/s and 10^20 B/s")
    }

    /// How long `bytes` take, to the nearest picosecond.
    #[inline]
    pub fn time(self, bytes: u64) -> Time {
        ((u128::from(bytes) * u128::from(self.0) + (1 << 31)) >> 32) as Time
    }

    /// Bytes take `factor` times as long.
    pub(super) fn slower(self, factor: f64) -> Rate {
        Rate((self.0 as f64 * factor).round() as u64)
    }
}

/// A link: how long the first bit takes, and how fast the others follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// From the begin of sending to the begin of receiving.
    pub latency: Time,
    /// What the link carries.
    pub rate: Rate,
}

impl Link {
    /// Everything takes `factor` times as long.
    pub(super) fn slower(self, factor: f64) -> Link {
        let latency = (self.latency as f64 * factor).round() as Time;
        Link { latency, rate: self.rate.slower(factor) }
    }
}

/// What a rank's processor spends on messages. Each piece of work occupies it; others wait their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    /// For each chunk that is sent.
    pub send: Time,
    /// For each chunk that is received.
    pub receive: Time,
    /// For the bytes at either end: what sockets copy. [`Rate::INFINITE`] where a device moves them.
    pub copy: Rate,
    /// The longest message in bytes that leaves without waiting for its receiver's grant.
    pub eager: u64,
}

/// How ranks are dealt to hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The first host is filled first.
    Block,
    /// Rank r is on host r modulo the number of hosts.
    RoundRobin,
}

/// What is slower than others of its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Slow {
    /// What: `host 3` (the processors of its ranks, and its memory), or the name of a link as results print it:
    /// `host 3 memory`, `host 3 rail 0 out`, `host 3 rail 0 in`, `leaf 1 spine 2 up`, `leaf 1 spine 2 down`.
    pub what: String,
    /// Everything takes so many times as long there.
    pub factor: f64,
}

/// A cluster of equal hosts under two layers of switches (a folded Clos network).
///
/// Every rail of a host leads to the leaf switch of that host, or, in a rail-optimised network, to the one of its number
/// among those of a group of hosts. Leaves are joined by spines: one link up and one down
/// between each leaf and each spine, which together carry what the leaf's rails carry, divided by the oversubscription.
/// A rank uses the rail whose number is its index on its host modulo the rails. Which spine a pair of ranks uses is
/// fixed by a hash of the two, as equal-cost multi-path routing does.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Ranks on each host.
    pub ranks_per_host: u32,
    /// Which rank is on which host.
    pub placement: Placement,
    /// Network ports of a host.
    pub rails: u32,
    /// Hosts under one leaf switch, or under one group of leaf switches.
    pub hosts_per_leaf: u32,
    /// Each rail of a group of hosts has a leaf switch of its own.
    pub rail_optimised: bool,
    /// Spine switches.
    pub spines: u32,
    /// How many times as much the rails under a leaf carry as its links to the spines.
    pub oversubscription: f64,
    /// Between a host and its leaf, each way; half of what it takes to cross a leaf.
    pub rail: Link,
    /// From a leaf to a spine or back, the switch counted in.
    pub trunk_latency: Time,
    /// The memory of a host: all bytes between its ranks pass it.
    pub memory: Link,
    /// Of messages between hosts.
    pub network: Overhead,
    /// Of messages in a host.
    pub local: Overhead,
    /// How fast a rank combines one more operand with what it has, in bytes of the result.
    pub reduce: Rate,
    /// How fast a rank copies in memory.
    pub copy: Rate,
    /// Messages are cut into chunks of at most so many bytes, 1 to 2^30.
    pub chunk: u32,
    /// Most chunks between two ranks, each way, that the receiver has not taken; at least 1.
    pub window: u32,
    /// What is slower than it should be.
    pub slow: Vec<Slow>,
}

impl Default for Cluster {
    /// Hosts of 8 ranks with two rails of 100 Gbit/s, 32 of them under a leaf, 16 spines, not oversubscribed. The figures
    /// are round ones of today's hardware, measured nowhere in particular.
    fn default() -> Cluster {
        Cluster {
            ranks_per_host: 8,
            placement: Placement::Block,
            rails: 2,
            hosts_per_leaf: 32,
            rail_optimised: false,
            spines: 16,
            oversubscription: 1.0,
            rail: Link { latency: 600_000, rate: Rate::gigabytes(12.5) },
            trunk_latency: 500_000,
            memory: Link { latency: 100_000, rate: Rate::gigabytes(100.0) },
            network: Overhead { send: 300_000, receive: 300_000, copy: Rate::INFINITE, eager: 16 << 10 },
            local: Overhead { send: 100_000, receive: 100_000, copy: Rate::INFINITE, eager: 8 << 10 },
            reduce: Rate::gigabytes(12.0),
            copy: Rate::gigabytes(12.0),
            chunk: 32 << 10,
            window: 32,
            slow: Vec::new(),
        }
    }
}

impl Cluster {
    /// How many hosts so many ranks need.
    pub fn hosts(&self, ranks: u32) -> u32 {
        ranks.div_ceil(self.ranks_per_host)
    }

    /// Where so many ranks live.
    pub fn layout(&self, ranks: u32) -> Layout {
        let hosts = self.hosts(ranks);
        Layout::of_hosts((0..ranks).map(|rank| match self.placement {
            Placement::Block => rank / self.ranks_per_host,
            Placement::RoundRobin => rank % hosts,
        }))
    }

    /// How many leaf switches so many hosts hang on.
    pub fn leaves(&self, hosts: u32) -> u32 {
        hosts.div_ceil(self.hosts_per_leaf) * self.leaves_of_group()
    }

    /// How many leaf switches a group of hosts hangs on.
    pub(super) fn leaves_of_group(&self) -> u32 {
        if self.rail_optimised { self.rails } else { 1 }
    }

    /// The index of a rank on its host.
    pub(super) fn index(&self, rank: u32, ranks: u32) -> u32 {
        match self.placement {
            Placement::Block => rank % self.ranks_per_host,
            Placement::RoundRobin => rank / self.hosts(ranks),
        }
    }

    /// Whether its numbers make sense: what is wrong, else.
    pub(super) fn flaw(&self) -> Option<String> {
        let at_least_one = [
            ("ranks per host", self.ranks_per_host),
            ("rails", self.rails),
            ("hosts per leaf", self.hosts_per_leaf),
            ("spines", self.spines),
            ("the window", self.window),
            ("a chunk", self.chunk),
        ];
        if let Some((what, _)) = at_least_one.into_iter().find(|&(_, number)| number == 0) {
            return Some(format!("{what} must be at least 1"));
        }
        if self.chunk > 1 << 30 {
            return Some("a chunk has at most 2^30 bytes".into());
        }
        if !(1e-3..=1e3).contains(&self.oversubscription) {
            return Some(format!(
                "oversubscription is between 0.001 and 1000, not {}",
                self.oversubscription
            ));
        }
        let far = [self.rail.latency, self.trunk_latency, self.memory.latency];
        let far =
            far.into_iter().chain([&self.network, &self.local].into_iter().flat_map(|o| [o.send, o.receive]));
        if far.into_iter().any(|time| time > 1_000_000 * MICROSECOND) {
            return Some("latencies and overheads are at most a second".into());
        }
        let odd = self.slow.iter().find(|slow| !(1e-3..=1e6).contains(&slow.factor));
        odd.map(|slow| {
            format!("{} is between 0.001 and 1,000,000 times as slow, not {}", slow.what, slow.factor)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact_where_they_can_be() {
        assert_eq!(Rate::gigabytes(12.5).time(1), 80);
        assert_eq!(Rate::gigabytes(50.0).time(1 << 30), 20 << 30);
        assert_eq!(Rate::gigabytes(3.0).time(3_000_000_000), 1_000_000 * MICROSECOND);
        assert_eq!(Rate::INFINITE.time(u64::MAX), 0);
        assert_eq!(Rate::gigabytes(1.0).slower(2.5).time(10), 25_000);
        for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e21] {
            assert_eq!(Rate::bytes_per_second(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn placements_deal_all_ranks() {
        let mut cluster = Cluster { ranks_per_host: 4, ..Cluster::default() };
        assert_eq!(cluster.layout(10).host[..], [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
        assert_eq!((cluster.index(5, 10), cluster.hosts(10)), (1, 3));
        cluster.placement = Placement::RoundRobin;
        assert_eq!(cluster.layout(10).host[..], [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(cluster.index(5, 10), 1);
    }
}
