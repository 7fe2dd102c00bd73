//! Rings and trees, searched for: in a host, or over several that look alike.

use rccl_schedule::algorithm::double_tree_parent;
use rccl_topology::graph::Graphs;
use rccl_topology::search::job::{self, Job, Member, Ring, Tree};
use rccl_topology::search::{self, Fabric, Reach, Seat, Wiring};
use rccl_topology::system::System;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// More ranks than this are not listed one by one.
const MOST_LISTED: usize = 64;

/// What is searched for.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("planned").args(["rings", "explain"]).multiple(true))]
pub struct RingOptions {
    /// Search for rings and trees, and show them
    #[arg(long, conflicts_with = "graph")]
    rings: bool,
    /// Over so many hosts like this one; without it, inside of the host, or over all hosts of the file
    #[arg(long, value_name = "N", requires = "planned", value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    hosts: Option<u32>,
    /// So many ranks on each host's NUMA nodes, in the place of one on each GPU or, without GPUs, NUMA node
    #[arg(long, value_name = "N", requires = "planned", value_parser = clap::value_parser!(u32).range(1..=256))]
    ranks: Option<u32>,
    /// How many hosts are under a leaf switch: a cluster file, as of `rccl simulate`
    #[arg(long, value_name = "FILE", requires = "rings")]
    cluster: Option<PathBuf>,
    /// Each rail has leaf switches of its own, for each group of hosts, also if the cluster file does not say so
    #[arg(long, requires = "cluster")]
    rail_optimised: bool,
    /// Write the graphs that were found there, as NCCL's graph file; - is standard output
    #[arg(long, value_name = "OUT", requires = "rings")]
    pub graph_out: Option<PathBuf>,
}

/// What was found.
pub struct Found {
    /// The first host's graphs.
    pub graphs: Graphs,
    /// All hosts', joined, if there are several.
    pub job: Option<Job>,
    fabric: Fabric,
    is_known: bool,
}

impl RingOptions {
    pub fn are_wanted(&self) -> bool {
        self.rings
    }

    /// Whether a number of hosts or of ranks was given.
    pub fn is_planned(&self) -> bool {
        self.hosts.is_some() || self.ranks.is_some()
    }

    /// So many hosts, with so many ranks on each.
    pub fn planned(&self) -> (u32, u32) {
        (self.hosts.unwrap_or(1), self.ranks.unwrap_or(1))
    }

    /// Searches, if that is wished.
    pub fn search(&self, system: &System) -> Result<Option<Found>, String> {
        if !self.rings {
            return Ok(None);
        }
        let mut hosts = system.each_host();
        if let Some(wanted) = self.hosts {
            let [host] = &hosts[..] else {
                return Err(format!("--hosts {wanted} is for one host, and these are {}", hosts.len()));
            };
            hosts = vec![host.clone(); wanted as usize];
        }
        if self.graph_out.is_some() && self.hosts.is_none() && hosts.len() > 1 {
            return Err(format!("--graph-out writes the graphs of one host, and these are {}", hosts.len()));
        }
        let seats = self.seats(&hosts);
        let reach = if hosts.len() > 1 { Reach::Job } else { Reach::Host };
        let all = hosts.iter().zip(&seats).map(|(host, seats)| (host, &seats[..]));
        let graphs = search::graphs_of_all(all, reach).map_err(|(host, error)| match hosts.len() {
            1 => format!("no rings: {error}"),
            _ => format!("no rings: host {host}: {error}"),
        })?;
        let (fabric, job) = match reach {
            Reach::Host => (Fabric::default(), None),
            Reach::Job => {
                let rails: Vec<Vec<u64>> = hosts.iter().map(search::rails).collect();
                let fabric = self.fabric(&rails)?;
                let members: Vec<Member<'_>> =
                    graphs.iter().zip(&rails).map(|(graphs, rails)| Member { graphs, rails }).collect();
                let job = job::join(&members, &fabric, double_tree_parent);
                (fabric, Some(job.map_err(|error| format!("no rings: {error}"))?))
            }
        };
        let graphs = graphs.into_iter().next().unwrap_or_default();
        Ok(Some(Found { graphs, job, fabric, is_known: self.cluster.is_some() }))
    }

    /// The ranks of each host, counted over all.
    fn seats(&self, hosts: &[System]) -> Vec<Vec<Seat>> {
        let mut next = 0;
        let seats = |host: &System| {
            let mut seats = match self.ranks {
                Some(ranks) => search::seats_on_nodes(host, ranks),
                None => search::seats(host),
            };
            if hosts.len() > 1 {
                for (rank, seat) in (next..).zip(&mut seats) {
                    seat.rank = rank;
                }
                next += seats.len() as u32;
            }
            seats
        };
        hosts.iter().map(seats).collect()
    }

    fn fabric(&self, rails: &[Vec<u64>]) -> Result<Fabric, String> {
        let Some(file) = &self.cluster else { return Ok(Fabric::default()) };
        let cluster = crate::simulate::cluster::read(Path::new(file))?;
        let by_rail = self.rail_optimised || cluster.rail_optimised;
        let wiring = if by_rail { Wiring::ByRail } else { Wiring::ByHost };
        let most = rails.iter().map(Vec::len).max().unwrap_or(0);
        Ok(Fabric::clos(rails.len(), most, cluster.hosts_per_leaf as usize, wiring))
    }
}

impl Found {
    /// Rings and trees over all hosts, for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let Some(job) = &self.job else { return text };
        let ranks = job.rings.first().map_or(0, |ring| ring.ranks().count());
        // Writing to a string cannot fail.
        let _ = writeln!(text, "rings over {} hosts, {ranks} ranks", job.order.len());
        for (number, ring) in job.rings.iter().enumerate() {
            let _ = writeln!(text, "  ring {number}: {}", self.ring(ring));
            if ranks <= MOST_LISTED {
                let _ = writeln!(text, "    {}", listed(ring));
            }
        }
        let _ =
            writeln!(text, "trees over {} hosts, double binary, with chains in the hosts", job.order.len());
        for (number, tree) in job.trees.iter().enumerate() {
            let _ = writeln!(text, "  tree {number}: {}", self.tree(tree));
        }
        text
    }

    fn ring(&self, ring: &Ring) -> String {
        let off_rail = ring.hops().filter(|((_, leaves), (_, enters))| leaves != enters).count();
        format!("{}{}", rails(ring), self.hops("hop", ring.hops(), off_rail))
    }

    fn tree(&self, tree: &Tree) -> String {
        let edges = tree.edges.iter().map(|edge| (edge.child, edge.parent));
        let off_rail = tree.edges.iter().filter(|edge| edge.child.1 != edge.parent.1).count();
        let hops = self.hops("edge", edges, off_rail);
        format!("half of channel {}, {} ranks deep, {hops}", tree.channel, tree.depth())
    }

    fn hops(
        &self,
        what: &str,
        hops: impl Iterator<Item = ((usize, usize), (usize, usize))>,
        off_rail: usize,
    ) -> String {
        let hops: Vec<_> = hops.collect();
        let mut words = match hops.len() {
            1 => format!("1 {what} between hosts"),
            more => format!("{more} {what}s between hosts"),
        };
        if self.is_known {
            let far = hops.iter().filter(|(from, to)| !self.fabric.is_shared(*from, *to)).count();
            let _ = write!(words, ", {far} from leaf to leaf");
        }
        if off_rail > 0 {
            let _ = write!(words, ", {off_rail} to another rail");
        }
        words
    }
}

/// "rail 3, ", or of rings that cross ports "rails 0 and 2, ".
fn rails(ring: &Ring) -> String {
    let mut rails: Vec<usize> =
        ring.stops.iter().flat_map(|stop| [stop.enters, stop.leaves]).flatten().collect();
    rails.sort_unstable();
    rails.dedup();
    match &rails[..] {
        [] => String::new(),
        [one] => format!("rail {one}, "),
        [most @ .., last] => {
            let most: Vec<String> = most.iter().map(usize::to_string).collect();
            format!("rails {} and {last}, ", most.join(", "))
        }
    }
}

/// Ranks in order, hosts apart.
fn listed(ring: &Ring) -> String {
    let stop = |ranks: &Vec<u32>| ranks.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    ring.stops.iter().map(|it| stop(&it.ranks)).collect::<Vec<_>>().join(" | ")
}
