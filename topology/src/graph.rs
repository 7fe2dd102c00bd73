//! Graphs: in which order collectives pass GPUs and network ports, channel by channel, as NCCL writes them into graph
//! files.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::paths::PathType;

/// What a graph file holds: a graph for each way of moving data.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Graphs {
    /// Version of the file's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The graphs.
    pub graphs: Vec<Graph>,
}

/// Channels of one shape. What a file does not say is `None`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Graph {
    /// NCCL's number of the way of moving data: 0 rings, 1 trees, the others reductions inside of switches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The shape.
    pub pattern: Pattern,
    /// Whether a channel may leave a host by another port than it enters: 0 no, 1 yes, 2 where it is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cross_nic: Option<u32>,
    /// How many channels the file says there are. Files that were written by hand may list fewer, or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared_channels: Option<u32>,
    /// GB/s of a channel between GPUs of a host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_intra: Option<f64>,
    /// GB/s of a channel between hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth_inter: Option<f64>,
    /// Microseconds from host to host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_inter: Option<f64>,
    /// The farthest path between neighbouring GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_intra: Option<PathType>,
    /// The farthest path between a GPU and the port that it uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_inter: Option<PathType>,
    /// Whether all channels pass the GPUs in the same order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_channels: Option<bool>,
    /// The channels.
    pub channels: Vec<Channel>,
}

/// One way through a host, or through several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Channel {
    /// What is passed, in order.
    pub hops: Vec<Hop>,
}

/// Something that a channel passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Hop {
    /// A network port.
    Net {
        /// Its number, as [`crate::system::Net::dev`]; in files of several hosts the host is in bits 56 to 63.
        dev: u64,
    },
    /// A GPU.
    Gpu {
        /// Its number, as [`crate::system::Gpu::dev`].
        dev: u64,
        /// The rank that uses it.
        #[serde(skip_serializing_if = "Option::is_none")]
        rank: Option<u32>,
    },
    /// A NUMA node, where a rank works without a GPU. NCCL has no such ranks, and no such hops in its files.
    Cpu {
        /// Its number, as [`crate::system::Cpu::numa`].
        numa: u32,
        /// The rank that works there.
        #[serde(skip_serializing_if = "Option::is_none")]
        rank: Option<u32>,
    },
}

impl Hop {
    /// The rank that works there; `None` for ports, and where files do not say.
    pub fn rank(&self) -> Option<u32> {
        match self {
            Hop::Net { .. } => None,
            Hop::Gpu { rank, .. } | Hop::Cpu { rank, .. } => *rank,
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, dev) = match self {
            Hop::Net { dev } => ("net", dev),
            Hop::Gpu { dev, .. } => ("gpu", dev),
            // Several ranks share one: the rank tells them apart.
            Hop::Cpu { numa, rank: Some(rank) } => return write!(f, "rank {rank} on cpu {numa}"),
            Hop::Cpu { numa, rank: None } => return write!(f, "cpu {numa}"),
        };
        match (dev >> 56, dev & ((1 << 56) - 1)) {
            (0, dev) => write!(f, "{kind} {dev}"),
            (host, dev) => write!(f, "host {host} {kind} {dev}"),
        }
    }
}

/// The shape of a graph's channels: how the GPUs of a host share the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// A tree whose port is shared by two neighbouring GPUs: one talks to the parent and a child, one to the other.
    BalancedTree,
    /// A tree: one GPU talks to the parent, its neighbour to the children.
    SplitTree,
    /// A tree: one GPU talks to parent and children.
    Tree,
    /// A ring.
    Ring,
    /// The switch between the GPUs reduces.
    Nvls,
    /// The network reduces, and each GPU talks to it.
    CollNetDirect,
    /// One that newer versions have; its number.
    Other(u32),
}

impl Pattern {
    /// The pattern with NCCL's number.
    pub fn from_number(number: u32) -> Pattern {
        match number {
            1 => Pattern::BalancedTree,
            2 => Pattern::SplitTree,
            3 => Pattern::Tree,
            4 => Pattern::Ring,
            5 => Pattern::Nvls,
            6 => Pattern::CollNetDirect,
            other => Pattern::Other(other),
        }
    }

    /// NCCL's number.
    pub fn number(self) -> u32 {
        match self {
            Pattern::BalancedTree => 1,
            Pattern::SplitTree => 2,
            Pattern::Tree => 3,
            Pattern::Ring => 4,
            Pattern::Nvls => 5,
            Pattern::CollNetDirect => 6,
            Pattern::Other(number) => number,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Pattern::BalancedTree => "balanced tree",
            Pattern::SplitTree => "split tree",
            Pattern::Tree => "tree",
            Pattern::Ring => "ring",
            Pattern::Nvls => "nvls",
            Pattern::CollNetDirect => "collnet direct",
            Pattern::Other(number) => return f.pad(&format!("pattern {number}")),
        })
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Channel {
    /// Whether it comes back to where it started: a ring that leaves by no port.
    pub fn closes(&self, pattern: Pattern) -> bool {
        pattern == Pattern::Ring && !self.hops.iter().any(|hop| matches!(hop, Hop::Net { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_keep_their_numbers() {
        for number in 0..10 {
            assert_eq!(Pattern::from_number(number).number(), number);
        }
        assert_eq!(Pattern::from_number(4).to_string(), "ring");
        assert_eq!(Pattern::from_number(9).to_string(), "pattern 9");
    }

    #[test]
    fn only_rings_inside_of_a_host_close() {
        let gpu = |dev| Hop::Gpu { dev, rank: None };
        let inside = Channel { hops: vec![gpu(0), gpu(1)] };
        let across = Channel { hops: vec![Hop::Net { dev: 0 }, gpu(0), Hop::Net { dev: 0 }] };
        assert!(
            inside.closes(Pattern::Ring) && !inside.closes(Pattern::Tree) && !across.closes(Pattern::Ring)
        );
    }

    #[test]
    fn devices_of_other_hosts_say_so() {
        assert_eq!(Hop::Net { dev: 3 }.to_string(), "net 3");
        assert_eq!(Hop::Gpu { dev: 2 << 56 | 5, rank: Some(1) }.to_string(), "host 2 gpu 5");
        assert_eq!(Hop::Cpu { numa: 1, rank: Some(7) }.to_string(), "rank 7 on cpu 1");
    }
}
