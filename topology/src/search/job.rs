//! Rings and trees over all hosts of a job, made of the channels of each.
//!
//! The hosts are passed leaf by leaf ([`Fabric::order`]), so a ring enters and leaves each leaf switch once, or each
//! group of them. From host to host a channel keeps to its rail: it enters by the port with the number of the one that
//! it left by, because on rail-optimised fabrics other rails are farther, and on all fabrics flows of different rails
//! then do not meet at a port. Channels that cross ports, `p` to `q` and `q` to `p`, take turns at every other host.
//!
//! Trees join the heads of the hosts' chains. Which host is whose parent is for the caller to say: the double binary
//! tree of `rccl-schedule`, for one, gives each of the two trees half of a channel's data. As its subtrees are ranges of
//! vertices, most of their edges stay below a leaf if hosts are numbered leaf by leaf.

use std::fmt;

use serde::Serialize;

use super::fabric::Fabric;
use crate::graph::{Channel, Graph, Graphs, Hop, Pattern};

/// A host of a job.
#[derive(Clone, Copy, Debug)]
pub struct Member<'g> {
    /// What [`super::graphs`] found there.
    pub graphs: &'g Graphs,
    /// The numbers of its ports, rail by rail ([`super::rails`]).
    pub rails: &'g [u64],
}

/// Rings and trees over all ranks, of as many channels as every host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The hosts, as rings pass them and trees number them.
    pub order: Vec<usize>,
    /// A ring for each channel.
    pub rings: Vec<Ring>,
    /// Two trees for each channel, one after the other.
    pub trees: Vec<Tree>,
}

/// A ring over all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ring {
    /// Its way through each host, in order.
    pub stops: Vec<Stop>,
}

/// The way of a channel through a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stop {
    /// The host.
    pub host: usize,
    /// Which of the host's channels it is.
    pub channel: usize,
    /// The rail by which it comes; `None` if there are no others.
    pub enters: Option<usize>,
    /// The rail by which it goes.
    pub leaves: Option<usize>,
    /// Ranks in the order in which it passes them.
    pub ranks: Vec<u32>,
}

/// A tree over all ranks: a tree between hosts, chains in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tree {
    /// The channel that it shares with another tree.
    pub channel: usize,
    /// The parent of each rank; `None` for the root.
    pub parents: Vec<Option<u32>>,
    /// The edges between hosts.
    pub edges: Vec<Edge>,
}

/// An edge of a tree between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// Host and rail of the child.
    pub child: (usize, usize),
    /// Host and rail of the parent.
    pub parent: (usize, usize),
}

/// Why hosts cannot be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A host has no ring, or no tree.
    NoGraph {
        /// The host.
        host: usize,
        /// What it does not have.
        pattern: Pattern,
    },
    /// A host's channel has no port, and there are other hosts.
    NoPort {
        /// The host.
        host: usize,
    },
    /// The ranks of a channel of all hosts are not 0 to their number, each once.
    NotEveryRank {
        /// The channel.
        channel: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoGraph { host, pattern } => {
                write!(f, "host {host} has no channels of the pattern {pattern}")
            }
            Error::NoPort { host } => {
                write!(f, "a channel of host {host} passes none of its ports, so it leads to no other host")
            }
            Error::NotEveryRank { channel } => {
                write!(
                    f,
                    "channel {channel} of all hosts does not pass every rank from 0 on once: number ranks over all hosts"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// Joins the channels of all hosts. `parent(tree, vertex, vertices)` is the parent of a vertex in tree 0 or 1 over so
/// many vertices, `None` for the root.
///
/// Takes time in proportion to ranks and channels.
///
/// # Errors
/// See [`Error`].
pub fn join(
    members: &[Member<'_>],
    fabric: &Fabric,
    parent: impl Fn(u32, u32, u32) -> Option<u32>,
) -> Result<Job, Error> {
    let order = fabric.order(members.len());
    let rings = stops(members, &order, |graph| graph.pattern == Pattern::Ring, Pattern::Ring)?;
    let is_tree =
        |graph: &Graph| matches!(graph.pattern, Pattern::BalancedTree | Pattern::SplitTree | Pattern::Tree);
    let chains = stops(members, &order, is_tree, Pattern::Tree)?;
    let ranks = rings.first().map_or(0, |ring| ring.iter().map(|stop| stop.ranks.len()).sum());
    check(&rings, ranks)?;
    check(&chains, ranks)?;
    let patterns: Vec<Pattern> =
        members.iter().map(|member| find(member, is_tree).map_or(Pattern::Tree, |it| it.pattern)).collect();
    let mut trees = Vec::with_capacity(2 * chains.len());
    for (channel, chains) in chains.iter().enumerate() {
        for tree in 0..2 {
            let parent = |vertex| parent(tree, vertex, chains.len() as u32);
            trees.push(joined(channel, chains, &patterns, ranks, parent));
        }
    }
    Ok(Job { order, rings: rings.into_iter().map(|stops| Ring { stops }).collect(), trees })
}

fn check(channels: &[Vec<Stop>], ranks: usize) -> Result<(), Error> {
    let passes_all = |stops: &Vec<Stop>| {
        let mut seen: Vec<u32> = stops.iter().flat_map(|stop| &stop.ranks).copied().collect();
        seen.sort_unstable();
        seen.into_iter().eq(0..ranks as u32)
    };
    match channels.iter().position(|stops| !passes_all(stops)) {
        Some(channel) => Err(Error::NotEveryRank { channel }),
        None => Ok(()),
    }
}

fn find<'g>(member: &Member<'g>, wanted: impl Fn(&Graph) -> bool) -> Option<&'g Graph> {
    member.graphs.graphs.iter().find(|graph| wanted(graph) && !graph.channels.is_empty())
}

/// The way of each channel through all hosts.
fn stops(
    members: &[Member<'_>],
    order: &[usize],
    wanted: impl Fn(&Graph) -> bool,
    pattern: Pattern,
) -> Result<Vec<Vec<Stop>>, Error> {
    let mut all: Vec<Vec<Stop>> = Vec::with_capacity(members.len());
    for (host, member) in members.iter().enumerate() {
        let graph = find(member, &wanted).ok_or(Error::NoGraph { host, pattern })?;
        let stops: Vec<Stop> = graph
            .channels
            .iter()
            .enumerate()
            .map(|(number, channel)| stop(host, number, channel, member))
            .collect();
        if members.len() > 1 && stops.iter().any(|stop| stop.enters.is_none() || stop.leaves.is_none()) {
            return Err(Error::NoPort { host });
        }
        all.push(stops);
    }
    // A ring is as narrow as at its narrowest host: more channels elsewhere would not widen it.
    let channels = all.iter().map(Vec::len).min().unwrap_or(0);
    let mut ways: Vec<Vec<Stop>> = vec![Vec::with_capacity(order.len()); channels];
    for &host in order {
        let mut free = std::mem::take(&mut all[host]);
        // Those that can keep to their rail choose first.
        let mut chosen: Vec<Option<Stop>> = ways
            .iter()
            .map(|way| {
                let rail = way.last()?.leaves;
                let place = free.iter().position(|stop| stop.enters == rail)?;
                Some(free.remove(place))
            })
            .collect();
        for (way, stop) in ways.iter_mut().zip(&mut chosen) {
            way.push(stop.take().unwrap_or_else(|| free.remove(0)));
        }
    }
    Ok(ways)
}

fn stop(host: usize, channel: usize, passed: &Channel, member: &Member<'_>) -> Stop {
    let rail = |hop: Option<&Hop>| match hop {
        Some(Hop::Net { dev }) => member.rails.iter().position(|port| port == dev),
        _ => None,
    };
    Stop {
        host,
        channel,
        enters: rail(passed.hops.first()),
        leaves: rail(passed.hops.last()),
        ranks: passed.hops.iter().filter_map(Hop::rank).collect(),
    }
}

/// A tree between hosts over their chains. In a balanced tree the second rank of a host's chain talks to the second of
/// its children; else the first rank talks to all.
fn joined(
    channel: usize,
    chains: &[Stop],
    patterns: &[Pattern],
    ranks: usize,
    parent: impl Fn(u32) -> Option<u32>,
) -> Tree {
    let mut tree = Tree { channel, parents: vec![None; ranks], edges: Vec::new() };
    let mut children = vec![0; chains.len()];
    for (vertex, chain) in chains.iter().enumerate() {
        for pair in chain.ranks.windows(2) {
            tree.parents[pair[1] as usize] = Some(pair[0]);
        }
        let Some(above) = parent(vertex as u32).map(|above| above as usize) else { continue };
        let upper = &chains[above];
        let talks = match patterns[upper.host] {
            Pattern::BalancedTree => children[above] % 2,
            Pattern::SplitTree => 1,
            _ => 0,
        };
        children[above] += 1;
        if let Some(&head) = chain.ranks.first() {
            tree.parents[head as usize] = upper.ranks.get(talks).or(upper.ranks.first()).copied();
        }
        if let (Some(below), Some(rail)) = (chain.enters, upper.enters) {
            tree.edges.push(Edge { child: (chain.host, below), parent: (upper.host, rail) });
        }
    }
    tree
}

impl Ring {
    /// All ranks in order.
    pub fn ranks(&self) -> impl Iterator<Item = u32> + '_ {
        self.stops.iter().flat_map(|stop| &stop.ranks).copied()
    }

    /// From which port to which it goes between hosts, each a host and a rail.
    pub fn hops(&self) -> impl Iterator<Item = ((usize, usize), (usize, usize))> + '_ {
        let next = self.stops.iter().cycle().skip(1);
        let several = self.stops.len() > 1;
        self.stops
            .iter()
            .zip(next)
            .filter(move |_| several)
            .filter_map(|(from, to)| Some(((from.host, from.leaves?), (to.host, to.enters?))))
    }
}

impl Tree {
    /// Edges on the longest way from a rank to the root.
    pub fn depth(&self) -> usize {
        let up = |rank: &u32| self.parents[*rank as usize];
        let depth = |rank| std::iter::successors(Some(rank), up).take(self.parents.len()).count() - 1;
        (0..self.parents.len() as u32).map(depth).max().unwrap_or(0)
    }
}
