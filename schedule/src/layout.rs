//! Where the ranks of a communicator live, and in which order those of a host come.

use std::collections::HashMap;
use std::sync::Arc;

use crate::program::Rank;

/// Where the ranks live: `host[r]` is the index of rank `r`'s host, hosts numbered by their lowest rank.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Host index by rank.
    pub host: Arc<[u32]>,
    /// By rank, a number that its place among the ranks of its host goes by; see [`Layout::in_order`].
    places: Option<Arc<[u32]>>,
}

impl Layout {
    /// Rank `r` on the `r`-th of these hosts.
    pub fn of_hosts(hosts: impl IntoIterator<Item = u32>) -> Layout {
        Layout { host: hosts.into_iter().collect(), places: None }
    }
    /// All ranks on one host.
    pub fn one_host(ranks: u32) -> Layout {
        Layout::of_hosts((0..ranks).map(|_| 0))
    }
    /// The same hosts, whose ranks rings, trees and chains pass in ascending order of `places[r]`, equal ones and, as
    /// without this, all in order of rank.
    ///
    /// # Panics
    /// Unless there is a place for each rank.
    pub fn in_order(self, places: impl Into<Arc<[u32]>>) -> Layout {
        let places = places.into();
        assert_eq!(places.len(), self.host.len(), "a place for each rank");
        Layout { places: Some(places), ..self }
    }
    /// The layout of some of the ranks, numbered in the order of `members`, which keep their places among each other.
    ///
    /// # Panics
    /// If one of `members` is not a rank of this layout.
    pub fn of_members(&self, members: &[Rank]) -> Layout {
        let mut numbers = HashMap::new();
        let hosts = members.iter().map(|&member| {
            let next = numbers.len() as u32;
            *numbers.entry(self.host[member as usize]).or_insert(next)
        });
        let part = Layout::of_hosts(hosts);
        match &self.places {
            Some(places) => part.in_order(members.iter().map(|&r| places[r as usize]).collect::<Vec<_>>()),
            None => part,
        }
    }
    /// Number of ranks.
    pub fn ranks(&self) -> u32 {
        self.host.len() as u32
    }
    /// Number of hosts.
    pub fn hosts(&self) -> u32 {
        self.host.iter().max().map_or(0, |h| h + 1)
    }
    /// The ranks on `host`, ascending.
    pub fn on_host(&self, host: u32) -> impl Iterator<Item = Rank> + '_ {
        self.host.iter().enumerate().filter(move |&(_, &h)| h == host).map(|(r, _)| r as Rank)
    }
    /// All ranks host by host, each host's in order of their places.
    pub fn host_by_host(&self) -> Vec<Rank> {
        let mut ranks: Vec<Rank> = (0..self.ranks()).collect();
        // Stable: ascending where places are equal.
        match &self.places {
            Some(places) => ranks.sort_by_key(|&r| (self.host[r as usize], places[r as usize])),
            None => ranks.sort_by_key(|&r| self.host[r as usize]),
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_host_by_host_and_by_their_places() {
        let layout = Layout::of_hosts([0, 1, 0, 1, 0, 2]);
        assert_eq!((layout.ranks(), layout.hosts()), (6, 3));
        assert_eq!(layout.host_by_host(), [0, 2, 4, 1, 3, 5]);
        let layout = layout.in_order([1, 1, 2, 0, 0, 7]);
        assert_eq!(layout.host_by_host(), [4, 0, 2, 3, 1, 5]);
        assert_eq!(layout.on_host(0).collect::<Vec<_>>(), [0, 2, 4]);
        // Where places say nothing, the rank does.
        assert_eq!(Layout::one_host(3).in_order([0; 3]).host_by_host(), [0, 1, 2]);
    }

    #[test]
    fn members_keep_their_order_and_number_hosts_anew() {
        let layout = Layout::of_hosts([0, 0, 0, 1, 1, 1]).in_order([2, 0, 1, 0, 0, 0]);
        let part = layout.of_members(&[5, 3, 2, 1, 0]);
        assert_eq!(part.host[..], [0, 0, 1, 1, 1]);
        assert_eq!(part.host_by_host(), [0, 1, 3, 2, 4], "in the job: 5 3 | 1 2 0");
        assert_eq!(part.of_members(&[4, 2]).host_by_host(), [1, 0]);
        assert_eq!(Layout::one_host(3).of_members(&[2, 0]), Layout::one_host(2));
    }
}
