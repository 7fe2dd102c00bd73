//! Rings and trees, searched for: in a host, over several that look alike, or over those of a job.

use rccl_schedule::algorithm::double_tree_parent;
use rccl_topology::graph::Graphs;
use rccl_topology::job;
use rccl_topology::search::job::{Job, Member, Ring, Tree, join};
use rccl_topology::search::learnt::{self, Source};
use rccl_topology::search::{self, Fabric, Reach, Seat, Wiring};
use rccl_topology::system::System;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// More ranks than this are not listed one by one.
const MOST_LISTED: usize = 64;

/// What is searched for.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("planned").args(["rings", "explain"]).multiple(true))]
pub struct RingOptions {
    /// Search for rings and trees, and show them: in this host or a file's; under a launcher, over the hosts of the job,
    /// whose leaf switches are learnt from lldpd, or from subnets
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
    pub fabric: Option<Leaves>,
    /// Of a job that runs: how its leaves are known.
    note: Option<&'static str>,
}

/// Which switches the ports of all hosts hang on.
#[derive(Serialize)]
pub struct Leaves {
    #[serde(flatten)]
    fabric: Fabric,
    /// How that is known.
    by: By,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// A cluster file says so.
    Cluster,
    #[serde(untagged)]
    Learnt(Source),
}

impl RingOptions {
    /// Whether a number of hosts or of ranks was given.
    pub fn is_planned(&self) -> bool {
        self.hosts.is_some() || self.ranks.is_some()
    }

    /// So many hosts, with so many ranks on each.
    pub fn planned(&self) -> (u32, u32) {
        (self.hosts.unwrap_or(1), self.ranks.unwrap_or(1))
    }

    /// Searches, if that is wished: over the hosts of a system, which those of the job are in their order, if there is one.
    pub fn search(&self, system: &System, job: Option<&job::Job>) -> Result<Option<Found>, String> {
        if !self.rings {
            return Ok(None);
        }
        let mut hosts = system.each_host();
        if let Some(job) = job {
            if self.is_planned() {
                return Err("--hosts and --ranks are for a job that is planned, and this one runs".into());
            }
            if job.hosts.len() != hosts.len() {
                return Err("no rings: what a host tells of itself cannot be read".into());
            }
            learnt::keep_ports(job, &mut hosts);
        }
        if let Some(wanted) = self.hosts {
            let [host] = &hosts[..] else {
                return Err(format!("--hosts {wanted} is for one host, and these are {}", hosts.len()));
            };
            hosts = vec![host.clone(); wanted as usize];
        }
        if self.graph_out.is_some() && self.hosts.is_none() && hosts.len() > 1 {
            return Err(format!("--graph-out writes the graphs of one host, and these are {}", hosts.len()));
        }
        let seats = match job {
            Some(job) => seats_of_job(job, &hosts),
            None => self.seats(&hosts),
        };
        let reach = if hosts.len() > 1 { Reach::Job } else { Reach::Host };
        let all = hosts.iter().zip(&seats).map(|(host, seats)| (host, &seats[..]));
        let graphs = search::graphs_of_all(all, reach).map_err(|(host, error)| match hosts.len() {
            1 => format!("no rings: {error}"),
            _ => format!("no rings: host {host}: {error}"),
        })?;
        let (fabric, joined) = match reach {
            Reach::Host => (None, None),
            Reach::Job => {
                let rails: Vec<Vec<u64>> = hosts.iter().map(search::rails).collect();
                let fabric = self.fabric(&rails, job, &hosts)?;
                let members: Vec<Member<'_>> =
                    graphs.iter().zip(&rails).map(|(graphs, rails)| Member { graphs, rails }).collect();
                let unknown = Fabric::default();
                let of = fabric.as_ref().map_or(&unknown, |leaves| &leaves.fabric);
                let joined = join(&members, of, double_tree_parent);
                (fabric, Some(joined.map_err(|error| format!("no rings: {error}"))?))
            }
        };
        let graphs = graphs.into_iter().next().unwrap_or_default();
        let note = job.and_then(|_| note(fabric.as_ref()));
        Ok(Some(Found { graphs, job: joined, fabric, note }))
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

    /// What is known of the leaves: by the cluster file, else by what the hosts of the job tell.
    fn fabric(
        &self,
        rails: &[Vec<u64>],
        job: Option<&job::Job>,
        hosts: &[System],
    ) -> Result<Option<Leaves>, String> {
        let Some(file) = &self.cluster else {
            let learnt = job.and_then(|job| learnt::fabric(job, hosts));
            return Ok(learnt.map(|(fabric, source)| Leaves { fabric, by: By::Learnt(source) }));
        };
        let cluster = crate::simulate::cluster::read(Path::new(file))?;
        let by_rail = self.rail_optimised || cluster.rail_optimised;
        let wiring = if by_rail { Wiring::ByRail } else { Wiring::ByHost };
        let most = rails.iter().map(Vec::len).max().unwrap_or(0);
        let fabric = Fabric::clos(rails.len(), most, cluster.hosts_per_leaf as usize, wiring);
        Ok(Some(Leaves { fabric, by: By::Cluster }))
    }
}

fn note(fabric: Option<&Leaves>) -> Option<&'static str> {
    match fabric.map(|leaves| &leaves.by) {
        Some(By::Cluster) => None,
        Some(By::Learnt(Source::Switches)) => Some("leaves are told apart by the switches that lldpd names"),
        Some(By::Learnt(Source::Subnets)) => {
            Some("leaves are told apart by subnets: lldpd does not name the switches of all ports")
        }
        None => {
            Some("which leaf switches the hosts hang on is not known: lldpd or --cluster FILE would tell")
        }
    }
}

/// The ranks of a job's hosts: their memory is the NUMA nodes', in blocks, as launchers bind them.
fn seats_of_job(job: &job::Job, hosts: &[System]) -> Vec<Vec<Seat>> {
    let seats = |(host, system): (&job::JobHost, &System)| {
        let places = search::seats_on_nodes(system, host.ranks.len() as u32);
        places.into_iter().zip(&host.ranks).map(|(seat, &rank)| Seat { rank, ..seat }).collect()
    };
    job.hosts.iter().zip(hosts).map(seats).collect()
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
        if let Some(note) = self.note {
            let _ = writeln!(text, "{note}");
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
        if let Some(Leaves { fabric, .. }) = &self.fabric {
            let far = hops.iter().filter(|(from, to)| !fabric.is_shared(*from, *to)).count();
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
