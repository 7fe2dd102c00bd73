//! The search for channels: in which order rings and trees pass the ranks of a host, and by which ports they come and
//! go; and how the channels of many hosts are joined to rings and trees of a whole job.
//!
//! ```text
//! System, seats --> ground    seats, ports, the way from each to each, what links carry
//!                   walk      one channel: a walk over all seats
//!                   channels  the best set of channels  --> Graphs, as NCCL's graph files have them
//! what hosts tell of the job  --> learnt                --> fabric
//! Graphs of all hosts, fabric --> job                   --> rings and trees over all ranks
//! ```
//!
//! All of it is arithmetic on what is said: without a clock, random numbers, or the order in which a file lists things.
//! So all ranks that know the same find the same, and need not agree on it. The rules are those of NCCL's search (2.30,
//! its `src/graph/search.cc`), but not its steps: bandwidths are not of a fixed list, but what links carry and shares of
//! that; and what NCCL decides while it runs is not considered, as in [`crate::paths`].
//!
//! ```
//! use rccl_topology::{search, xml};
//!
//! let gpu = |bus: u32| format!(r#"<pci busid="0:{bus}:0.0" class="0x030200" link_speed="" link_width="16"/>"#);
//! let text = format!(r#"<system version="1">
//!   <cpu numaid="0" arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="85">{}{}</cpu>
//!   <cpu numaid="1" arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="85">{}{}</cpu></system>"#,
//!   gpu(1), gpu(3), gpu(2), gpu(4));
//! let host = xml::parse_system(text.as_bytes())?.value;
//! let found = search::graphs(&host, &search::seats(&host), search::Reach::Host).unwrap();
//! let hops: Vec<String> = found.graphs[0].channels[0].hops.iter().map(ToString::to_string).collect();
//! // 0 and 2 hang on one NUMA node, 1 and 3 on the other.
//! assert_eq!(hops, ["gpu 0", "gpu 2", "gpu 1", "gpu 3"]);
//! # Ok::<(), xml::Error>(())
//! ```

mod channels;
mod fabric;
mod ground;
pub mod job;
pub mod learnt;
mod seats;
mod walk;

use std::fmt;

use crate::graph::{Graphs, Pattern};
use crate::paths::Network;
use crate::system::System;
use channels::Set;
use ground::Ground;

pub use fabric::{Fabric, Wiring};
pub use seats::{Place, Seat, numa_number, seats, seats_on_nodes};

/// How far channels lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Round in one host, without ports.
    Host,
    /// In by a port and out by a port, to other hosts.
    Job,
}

/// Why there are no channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No rank is on the host.
    NoSeats,
    /// A rank's place is not in the system.
    NoSuchPlace(Seat),
    /// The system is of several hosts; each is searched by itself ([`System::each_host`]).
    SeveralHosts,
    /// The host has no port, and the channels shall lead to others.
    NoPorts,
    /// More than 512 ranks on the host, or ports of it.
    TooMany,
    /// Links are missing: there is no way over all ranks.
    NoWay,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoSeats => {
                f.write_str("there is no rank on the host, because it has no GPU and no NUMA node")
            }
            Error::NoSuchPlace(Seat { rank, place }) => {
                write!(f, "rank {rank} is on {place}, which the host does not have")
            }
            Error::SeveralHosts => f.write_str("these are several hosts; each is searched by itself"),
            Error::NoPorts => f.write_str("the host has no network port by which channels could leave it"),
            Error::TooMany => f.write_str("more than 512 ranks or ports of one host are not searched"),
            Error::NoWay => f.write_str("no way leads over all ranks of the host: links are missing"),
        }
    }
}

impl std::error::Error for Error {}

/// The rings (graph 0) and trees (graph 1) of a host.
///
/// A ring passes all seats once. A tree is a chain over all seats, whose head talks to the other hosts; in a balanced
/// tree the head's neighbour does, too. Bandwidths are of one channel.
///
/// # Errors
/// See [`Error`].
pub fn graphs(host: &System, seats: &[Seat], reach: Reach) -> Result<Graphs, Error> {
    let mut all = graphs_of_all([(host, seats)], reach).map_err(|(_, error)| error)?;
    Ok(all.remove(0))
}

/// What [`graphs`] finds in each of several hosts. Hosts that are alike are searched once.
///
/// # Errors
/// The first host with one, by its place, and the [`Error`].
pub fn graphs_of_all<'h>(
    hosts: impl IntoIterator<Item = (&'h System, &'h [Seat])>,
    reach: Reach,
) -> Result<Vec<Graphs>, (usize, Error)> {
    let mut known: Vec<(Ground, [Set; 2])> = Vec::new();
    let search = |(host, seats)| {
        let ground = Ground::new(host, seats, reach == Reach::Host)?;
        if reach == Reach::Job && ground.ports.is_empty() {
            return Err(Error::NoPorts);
        }
        let sets = match known.iter().position(|(known, _)| known.is_like(&ground)) {
            Some(place) => &known[place].1,
            None => {
                let rings = channels::best(&ground, &[Pattern::Ring]).ok_or(Error::NoWay)?;
                let trees = channels::best(&ground, &[Pattern::BalancedTree, Pattern::Tree]);
                let sets = [rings, trees.ok_or(Error::NoWay)?];
                known.push((ground.clone(), sets));
                &known[known.len() - 1].1
            }
        };
        let graphs = (0..).zip(sets).map(|(id, set)| set.graph(&ground, id)).collect();
        Ok(Graphs { version: Some(1), graphs })
    };
    let found = hosts.into_iter().map(search).enumerate();
    found.map(|(place, found)| found.map_err(|error| (place, error))).collect()
}

/// The numbers of a host's ports, as graphs have them, ascending: rail 0 is the first.
pub fn rails(host: &System) -> Vec<u64> {
    ground::ports(&Network::new(&ground::in_order(host))).into_iter().map(|(dev, _)| dev).collect()
}
