//! Kinds of machines, and which algorithms they are best served by, as the simulator says.
//!
//! A class is a [cluster](rccl_schedule::simulate::Cluster) with round figures of its kind. Its profile was made from that
//! cluster file by `rccl tune --cluster`, as the first line of the profile says; a test compares some of it with the simulator.

use super::cluster_file::ClusterFile;
use super::profile::{Path, Profile};
use rccl_schedule::simulate::Cluster;
use std::fmt;
use std::sync::OnceLock;

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Hosts of a few ranks that reach each other over TCP, 25 Gbit/s.
    Tcp,
    /// Hosts that reach each other over RDMA, 100 Gbit/s.
    Verbs,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 2] = [Class::Tcp, Class::Verbs];

    /// That of hosts that are joined by `network`; `None` for shared memory.
    pub fn of(network: Path) -> Option<Class> {
        match network {
            Path::Shm => None,
            Path::Verbs => Some(Class::Verbs),
            Path::Tcp => Some(Class::Tcp),
        }
    }

    /// The name.
    pub fn word(&self) -> &'static str {
        match self {
            Class::Tcp => "tcp-25g",
            Class::Verbs => "roce-100g",
        }
    }

    /// Its cluster, in the format of `rccl simulate --cluster`.
    pub fn cluster(&self) -> &'static str {
        match self {
            Class::Tcp => include_str!("classes/tcp-25g.cluster.toml"),
            Class::Verbs => include_str!("classes/roce-100g.cluster.toml"),
        }
    }

    /// What [`Class::cluster`] describes, with as many ranks on each host as so many ranks on so many hosts have on average.
    pub fn model(&self, ranks: u32, hosts: u32) -> Cluster {
        // A test reads both.
        let cluster =
            toml::from_str(self.cluster()).map_or_else(|_| Cluster::default(), ClusterFile::cluster);
        Cluster { ranks_per_host: ranks.div_ceil(hosts.max(1)).max(1), ..cluster }
    }

    /// Its profile.
    pub fn profile(&self) -> &'static Profile {
        static PROFILES: [OnceLock<Profile>; 2] = [const { OnceLock::new() }; 2];
        let (place, text) = match self {
            Class::Tcp => (&PROFILES[0], include_str!("classes/tcp-25g.toml")),
            Class::Verbs => (&PROFILES[1], include_str!("classes/roce-100g.toml")),
        };
        // A test reads both.
        place.get_or_init(|| Profile::parse(text).unwrap_or_default())
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rccl_schedule::{Algorithm, Collective};

    #[test]
    fn every_class_knows_every_collective_on_every_layout() {
        for class in Class::ALL {
            let text = match class {
                Class::Tcp => include_str!("classes/tcp-25g.toml"),
                Class::Verbs => include_str!("classes/roce-100g.toml"),
            };
            let profile = Profile::parse(text).unwrap();
            assert_eq!(&profile, class.profile());
            let file: ClusterFile = toml::from_str(class.cluster()).unwrap();
            assert_eq!(file.cluster().rail, class.model(24, 3).rail);
            assert_eq!(class.model(24, 3).ranks_per_host, 8);
            for ranks in [2, 3, 8, 100, 4096] {
                for hosts in [2, 3, 8, 64, 512].into_iter().filter(|&hosts| hosts <= ranks) {
                    let tuned = profile.nearest(ranks, hosts).unwrap();
                    for collective in Collective::ALL {
                        for bytes in [0, 8, 4096, 1 << 20, 1 << 40] {
                            let chosen = tuned.choose(&collective, bytes).unwrap();
                            assert!(Algorithm::for_collective(&collective).contains(&chosen.algorithm));
                        }
                    }
                }
            }
        }
    }
}
