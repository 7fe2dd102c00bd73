//! The links of a cluster under so many ranks, their names, and the way from rank to rank.

use std::fmt;

use super::cluster::{Cluster, Link, Time};
use crate::program::Rank;

/// A kind of link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// A host's memory.
    Memory,
    /// From a host to its leaf.
    Out,
    /// From a leaf to a host.
    In,
    /// From a leaf to a spine.
    Up,
    /// From a spine to a leaf.
    Down,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 5] = [Class::Memory, Class::Out, Class::In, Class::Up, Class::Down];

    /// The name that tables print.
    pub fn word(&self) -> &'static str {
        match self {
            Class::Memory => "memory",
            Class::Out => "host to leaf",
            Class::In => "leaf to host",
            Class::Up => "leaf to spine",
            Class::Down => "spine to leaf",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The links that messages from one rank to another pass, one after the other.
#[derive(Clone, Copy, Default)]
pub(super) struct Route {
    pub links: [u32; 4],
    pub hops: u8,
}

impl Route {
    fn of(path: &[u32]) -> Route {
        let mut links = [0; 4];
        links[..path.len()].copy_from_slice(path);
        Route { links, hops: path.len() as u8 }
    }
    pub(super) fn path(&self) -> &[u32] {
        &self.links[..usize::from(self.hops)]
    }
    /// Both ranks are on one host.
    pub(super) fn is_local(&self) -> bool {
        self.hops == 1
    }
}

/// All links, numbered: memories, out, in (host by host, rail by rail), up, down (leaf by leaf, spine by spine).
pub(super) struct Links<'a> {
    cluster: &'a Cluster,
    ranks: u32,
    hosts: u32,
    leaves: u32,
    pub all: Vec<Link>,
}

impl<'a> Links<'a> {
    /// The error says which of [`Cluster::slow`] does not exist.
    pub(super) fn of(cluster: &'a Cluster, ranks: u32) -> Result<Links<'a>, String> {
        let hosts = cluster.hosts(ranks);
        let leaves = cluster.leaves(hosts);
        let (ports, trunks) = (hosts * cluster.rails, leaves * cluster.spines);
        let mut all = vec![cluster.memory; hosts as usize];
        all.resize((hosts + 2 * ports) as usize, cluster.rail);
        all.resize((hosts + 2 * ports + 2 * trunks) as usize, trunk(cluster));

        let mut links = Links { cluster, ranks, hosts, leaves, all };
        for slow in &cluster.slow {
            let number = match links.host(&slow.what) {
                Some(host) => host,
                None => links.find(&slow.what).ok_or_else(|| links.unknown(&slow.what))?,
            };
            links.all[number as usize] = links.all[number as usize].slower(slow.factor);
        }
        Ok(links)
    }

    fn unknown(&self, name: &str) -> String {
        format!(
            "nothing is called {name:?}; there are `host 0` to `host {}`, and links such as {}, {} and {}",
            self.hosts - 1,
            self.name(0),
            self.name(self.hosts),
            self.name(self.all.len() as u32 - 1),
        )
    }

    /// The number of the host that `host 3` names, which is that of its memory too.
    pub(super) fn host(&self, name: &str) -> Option<u32> {
        name.strip_prefix("host ")?.parse().ok().filter(|&host| host < self.hosts)
    }

    fn find(&self, name: &str) -> Option<u32> {
        let words: Vec<&str> = name.split_whitespace().collect();
        let number = |word: &str, below: u32| word.parse().ok().filter(|&number: &u32| number < below);
        let (ports, trunks) = (self.hosts * self.cluster.rails, self.leaves * self.cluster.spines);
        match words[..] {
            ["host", host, "memory"] => number(host, self.hosts),
            ["host", host, "rail", rail, way @ ("out" | "in")] => {
                let port = number(host, self.hosts)? * self.cluster.rails + number(rail, self.cluster.rails)?;
                Some(self.hosts + port + if way == "in" { ports } else { 0 })
            }
            ["leaf", leaf, "spine", spine, way @ ("up" | "down")] => {
                let trunk =
                    number(leaf, self.leaves)? * self.cluster.spines + number(spine, self.cluster.spines)?;
                Some(self.hosts + 2 * ports + trunk + if way == "down" { trunks } else { 0 })
            }
            _ => None,
        }
    }

    /// The kind of a link, and its number among those of its kind.
    pub(super) fn class(&self, link: u32) -> (Class, u32) {
        let (ports, trunks) = (self.hosts * self.cluster.rails, self.leaves * self.cluster.spines);
        let kinds = [self.hosts, ports, ports, trunks, trunks];
        let mut number = link;
        for (class, many) in Class::ALL.into_iter().zip(kinds) {
            if number < many {
                return (class, number);
            }
            number -= many;
        }
        unreachable!("links are numbered by what they are")
    }

    pub(super) fn name(&self, link: u32) -> String {
        let (class, number) = self.class(link);
        let port = || format!("host {} rail {}", number / self.cluster.rails, number % self.cluster.rails);
        let trunk =
            || format!("leaf {} spine {}", number / self.cluster.spines, number % self.cluster.spines);
        match class {
            Class::Memory => format!("host {number} memory"),
            Class::Out => port() + " out",
            Class::In => port() + " in",
            Class::Up => trunk() + " up",
            Class::Down => trunk() + " down",
        }
    }

    /// The host of a rank.
    pub(super) fn host_of(&self, rank: Rank) -> u32 {
        match self.cluster.placement {
            super::Placement::Block => rank / self.cluster.ranks_per_host,
            super::Placement::RoundRobin => rank % self.hosts,
        }
    }

    pub(super) fn route(&self, from: Rank, to: Rank) -> Route {
        let Cluster { rails, spines, hosts_per_leaf, .. } = *self.cluster;
        let rail = |rank| self.cluster.index(rank, self.ranks) % rails;
        let (source, target) = (self.host_of(from), self.host_of(to));
        if source == target {
            return Route::of(&[source]);
        }
        let ports = self.hosts * rails;
        let out = self.hosts + source * rails + rail(from);
        let into = self.hosts + ports + target * rails + rail(to);
        let of_group = self.cluster.leaves_of_group();
        let leaf = |host: u32, rail: u32| host / hosts_per_leaf * of_group + rail % of_group;
        let (source, target) = (leaf(source, rail(from)), leaf(target, rail(to)));
        if source == target {
            return Route::of(&[out, into]);
        }
        let spine = (mix((u64::from(from) << 32) | u64::from(to)) % u64::from(spines)) as u32;
        let up = self.hosts + 2 * ports + source * spines + spine;
        let down = self.hosts + 2 * ports + self.leaves * spines + target * spines + spine;
        Route::of(&[out, up, down, into])
    }

    /// A link between a leaf and a spine, if nothing is slow.
    pub(super) fn trunk(&self) -> Link {
        trunk(self.cluster)
    }

    /// How long the first bit takes on a route.
    pub(super) fn latency(&self, route: &Route) -> Time {
        route.path().iter().map(|&link| self.all[link as usize].latency).sum()
    }

    /// How long a message of `bytes` takes on a route that nothing else uses.
    pub(super) fn transfer(&self, route: &Route, bytes: u64) -> Time {
        let slowest = route.path().iter().map(|&link| self.all[link as usize].rate.time(bytes)).max();
        self.latency(route) + slowest.unwrap_or(0)
    }
}

/// A link between a leaf and a spine: what a leaf's links up carry together, dealt to the spines.
fn trunk(cluster: &Cluster) -> Link {
    let rails = f64::from(cluster.rails / cluster.leaves_of_group()) * f64::from(cluster.hosts_per_leaf);
    let thinner = cluster.oversubscription * f64::from(cluster.spines) / rails;
    Link { latency: cluster.trunk_latency, rate: cluster.rail.rate.slower(thinner) }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> Cluster {
        Cluster {
            ranks_per_host: 2,
            hosts_per_leaf: 2,
            spines: 3,
            oversubscription: 2.0,
            ..Cluster::default()
        }
    }

    #[test]
    fn every_link_is_found_by_its_name() {
        let cluster = cluster();
        let links = Links::of(&cluster, 12).unwrap();
        assert_eq!(links.all.len(), 6 + 2 * 12 + 2 * 9);
        for link in 0..links.all.len() as u32 {
            assert_eq!(links.find(&links.name(link)), Some(link), "{}", links.name(link));
        }
        for wrong in
            ["", "host", "host 6 memory", "host 0 rail 2 out", "leaf 0 spine 3 up", "host 0 rail 0 up"]
        {
            assert_eq!(links.find(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn routes_are_as_long_as_hosts_are_far() {
        let cluster = cluster();
        let links = Links::of(&cluster, 12).unwrap();
        let names = |from, to| {
            let route = links.route(from, to);
            route.path().iter().map(|&link| links.name(link)).collect::<Vec<_>>()
        };
        assert_eq!(names(0, 1), ["host 0 memory"]);
        assert_eq!(names(1, 2), ["host 0 rail 1 out", "host 1 rail 0 in"]);
        let far = names(3, 11);
        assert_eq!((&far[0][..], &far[3][..]), ("host 1 rail 1 out", "host 5 rail 1 in"));
        assert!(far[1].starts_with("leaf 0 spine ") && far[2].starts_with("leaf 2 spine "), "{far:?}");
        assert_eq!(far[1].trim_end_matches(" up")[6..], far[2].trim_end_matches(" down")[6..], "one spine");
    }

    #[test]
    fn rails_of_a_group_of_hosts_have_leaves_of_their_own() {
        let cluster = Cluster { rail_optimised: true, ..cluster() };
        let links = Links::of(&cluster, 12).unwrap();
        let leaf = |from, to| match links.route(from, to).path() {
            [_, up, down, _] => [up, down].map(|&link| links.name(link)[..7].trim_end().to_owned()),
            path => panic!("{path:?}"),
        };
        // One rail and group of two hosts; else another rail, another group, or both.
        assert_eq!(links.route(1, 3).path().len(), 2);
        assert_eq!(leaf(0, 3), ["leaf 0", "leaf 1"]);
        assert_eq!(leaf(1, 5), ["leaf 1", "leaf 3"]);
        assert_eq!(leaf(11, 2), ["leaf 5", "leaf 0"]);
        for link in 0..links.all.len() as u32 {
            assert_eq!(links.find(&links.name(link)), Some(link), "{}", links.name(link));
        }
        // A leaf has half of the rails of one under which all of a host's come together.
        let trunk = |cluster: &Cluster| trunk(cluster).rate.time(1 << 30);
        assert_eq!(trunk(&cluster), 2 * trunk(&Cluster { rail_optimised: false, ..cluster.clone() }));
    }

    #[test]
    fn trunks_carry_what_rails_do_over_the_oversubscription() {
        let cluster = cluster();
        let links = Links::of(&cluster, 12).unwrap();
        // 2 hosts of 2 rails of 12.5 GB/s are 50 GB/s, half of that over 3 spines.
        let trunk = links.all[links.find("leaf 1 spine 1 up").unwrap() as usize];
        let time = trunk.rate.time(25_000_000_000 / 3) as f64;
        assert!((time / 1e12 - 1.0).abs() < 1e-6, "{time}");
    }
}
