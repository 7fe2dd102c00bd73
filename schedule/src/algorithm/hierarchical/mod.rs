//! Two-level algorithms for several hosts: as much as can be happens inside a host, and what crosses between hosts does
//! so once for each host that wants it, over the links of all ranks at once.
//!
//! Hosts may have different numbers of ranks, and which ranks are on a host does not matter but for the number of
//! messages of all_to_all.

mod all_gather;
mod all_reduce;
mod all_to_all;
mod halving;
mod reduce_scatter;

pub(super) use all_gather::all_gather;
pub(super) use all_reduce::all_reduce;
pub(super) use all_to_all::all_to_all;
pub(super) use halving::all_reduce as halving_all_reduce;
pub(super) use reduce_scatter::reduce_scatter;

use crate::layout::Layout;
use crate::program::Rank;

/// The ranks of all hosts, as one of them sees them.
pub(super) struct Hosts<'a> {
    /// The ranks of each host, ascending.
    members: &'a [Vec<Rank>],
    /// This rank's host.
    host: u32,
    /// Its index among the ranks of its host.
    index: u32,
}

/// The ranks of each host, ascending.
pub(super) fn members(layout: &Layout) -> Vec<Vec<Rank>> {
    let mut members = vec![Vec::new(); layout.hosts() as usize];
    for (rank, &host) in (0..).zip(layout.host.iter()) {
        members[host as usize].push(rank);
    }
    members
}

impl Hosts<'_> {
    pub(super) fn of(members: &[Vec<Rank>], host: u32, rank: Rank) -> Hosts<'_> {
        let index = members[host as usize].iter().position(|&r| r == rank).unwrap_or(0) as u32;
        Hosts { members, host, index }
    }

    /// The hosts but this rank's own, starting with the next, so that no host is everybody's first.
    fn others(&self) -> impl Iterator<Item = u32> {
        let (host, hosts) = (self.host, self.members.len() as u32);
        (1..hosts).map(move |i| (host + i) % hosts)
    }

    /// The other ranks of this rank's host, starting with the next.
    fn locals(&self) -> impl Iterator<Item = Rank> {
        let here = &self.members[self.host as usize];
        (1..here.len()).map(move |i| here[(self.index as usize + i) % here.len()])
    }

    /// The rank of `host` that deals with what the rank with this index on another host sends there or wants from there.
    fn counterpart(&self, host: u32, index: u32) -> Rank {
        let there = &self.members[host as usize];
        there[index as usize % there.len()]
    }
}
