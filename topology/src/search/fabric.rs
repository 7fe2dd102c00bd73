//! Which switches hosts hang on.

use serde::Serialize;

/// The leaf switch of every port of a job, of a fabric of two layers (a folded Clos network: leaves below, spines above).
///
/// *By host*, all ports of a host lead to one leaf. *By rail* ("rail-optimised"), a group of hosts shares as many leaves
/// as a host has rails, and rail `r` of each leads to the group's leaf `r`: what stays in its rail and group passes no
/// spine. Nothing is known of the hosts of the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fabric {
    leaves: Vec<Vec<u32>>,
}

/// How the ports of hosts are spread over leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wiring {
    /// All ports of a host to one leaf.
    #[default]
    ByHost,
    /// Each rail to a leaf of its own.
    ByRail,
}

impl Fabric {
    /// The leaf of each rail of each host, numbered as one likes. A rail that is not said hangs on the last leaf that is.
    pub fn new(leaves: Vec<Vec<u32>>) -> Fabric {
        Fabric { leaves }
    }

    /// Hosts of equally many rails, so many of them (at least 1) under a leaf, or under a group of leaves.
    pub fn clos(hosts: usize, rails: usize, hosts_per_leaf: usize, wiring: Wiring) -> Fabric {
        let leaf = |host: usize, rail: usize| {
            let group = host / hosts_per_leaf.max(1);
            match wiring {
                Wiring::ByHost => group,
                Wiring::ByRail => group * rails + rail,
            }
        };
        // Less than 2^32 leaves: memory ends before.
        let leaves = |host| (0..rails).map(|rail| leaf(host, rail) as u32).collect();
        Fabric { leaves: (0..hosts).map(leaves).collect() }
    }

    /// The leaf of a host's rail; `None` if nothing is known of the host.
    pub fn leaf(&self, host: usize, rail: usize) -> Option<u32> {
        let leaves = self.leaves.get(host)?;
        leaves.get(rail).or(leaves.last()).copied()
    }

    /// So many hosts in an order that passes each leaf, or group of leaves, once: those that share all leaves are
    /// neighbours, and then those that share the first. Hosts that are equal in that stay in their order.
    pub fn order(&self, hosts: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..hosts).collect();
        order.sort_by(|&one, &other| match (self.leaves.get(one), self.leaves.get(other)) {
            (Some(one), Some(other)) => one.cmp(other),
            (one, other) => other.is_some().cmp(&one.is_some()),
        });
        order
    }

    /// Whether two ports hang on one leaf. Where nothing is known they do not.
    pub fn is_shared(&self, one: (usize, usize), other: (usize, usize)) -> bool {
        let leaf = |(host, rail)| self.leaf(host, rail);
        leaf(one).is_some_and(|leaf_of_one| Some(leaf_of_one) == leaf(other))
    }
}
