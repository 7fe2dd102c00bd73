//! How many channels, how wide, and which: the best set of them that a host's links carry.
//!
//! All channels of a graph have one bandwidth, as NCCL's have. It is a link's divided by a small number of channels that
//! share it, so few bandwidths need be tried. Two passes, after NCCL's rules:
//!
//! 1. *How near.* The greatest bandwidth at which there is a channel, and the nearest ways between seats that allow as
//!    many channels of it as any do. Links farther than these are never used, whatever they would add: a ring over
//!    NVLink is not slowed down to the pace of one more over the processors.
//! 2. *How many.* Of all bandwidths the one with the greatest sum over the channels; of equal sums (within one percent)
//!    the one that uses the most ports, then the one whose ports are nearest, that comes and goes by the same port, and
//!    that has the fewest channels and hops.

use std::cell::Cell;
use std::cmp::Reverse;

use super::ground::{Ground, Stand};
use super::walk::{Gate, Limits, Walks};
use crate::graph::{Channel, Graph, Hop, Pattern};
use crate::paths::PathType;

/// NCCL's limit is 64.
const MOST_CHANNELS: usize = 64;

/// Sums of bandwidths that differ by less are equal.
const EQUAL: f64 = 0.99;

/// GB/s of channels so narrow that only their sum counts.
const NARROWEST: f64 = 0.001;

/// After so many seats were looked at, narrower channels are not tried, if there are any. Real hosts need a hundredth.
const MOST_WORK: usize = 1 << 25;

/// Channels that were found together.
pub struct Set {
    pattern: Pattern,
    bandwidth: f64,
    limits: Limits,
    crossing: bool,
    channels: Vec<(Gate, Vec<usize>)>,
}

/// The best channels of any of these patterns; `None` if the links allow none.
pub fn best(ground: &Ground, patterns: &[Pattern]) -> Option<Set> {
    best_of(ground, patterns.iter().filter_map(|pattern| best_with(ground, *pattern)).collect())
}

fn best_of(ground: &Ground, sets: Vec<Set>) -> Option<Set> {
    let most = sets.iter().map(Set::sum).fold(0.0, f64::max);
    let good = sets.into_iter().filter(|set| set.sum() >= most * EQUAL);
    good.min_by_key(|set| set.rank(ground))
}

fn best_with(ground: &Ground, pattern: Pattern) -> Option<Set> {
    let all = bandwidths(ground);
    let inters = if ground.ports.is_empty() { vec![PathType::Pix] } else { ground.port_types() };
    let mut intras = ground.seat_types();
    if intras.is_empty() {
        intras.push(PathType::Loc);
    }
    let may_cross: &[bool] = if pattern == Pattern::Ring { &[false, true] } else { &[false] };
    let work = Cell::new(0);
    // The better come first, until there is one that nothing can be better than.
    let fills = |bandwidth: f64, intras: &[PathType]| -> Vec<Set> {
        let mut sets: Vec<Set> = Vec::new();
        for &inter in &inters {
            for &crossing in may_cross {
                for &intra in intras {
                    sets.extend(fill(ground, pattern, bandwidth, Limits { intra, inter }, crossing, &work));
                    if sets.last().is_some_and(|set| set.is_full(ground, bandwidth)) {
                        return sets;
                    }
                }
            }
        }
        sets
    };

    let near = all.iter().enumerate().find_map(|(place, &bandwidth)| {
        if at_most(ground, bandwidth) == 0.0 {
            return None;
        }
        let sets = fills(bandwidth, &intras);
        let most = sets.iter().map(|set| set.channels.len()).max()?;
        let nearest =
            sets.iter().filter(|set| set.channels.len() == most).map(|set| set.limits.intra).min()?;
        Some((place, nearest))
    });
    let (from, intra) = near?;

    let mut sets: Vec<Set> = Vec::new();
    let mut most = 0.0;
    for &bandwidth in &all[from..] {
        if at_most(ground, bandwidth) < most * EQUAL {
            continue;
        }
        let found = fills(bandwidth, &[intra]);
        most = found.iter().map(Set::sum).fold(most, f64::max);
        // Nothing narrower can be better than what is full, with ports as near as can be.
        let nearest = |set: &&Set| Some(&set.limits.inter) == inters.first();
        let done = found.iter().filter(nearest).any(|set| set.is_full(ground, NARROWEST));
        sets.extend(found);
        if done || (!sets.is_empty() && work.get() > MOST_WORK) {
            break;
        }
    }
    best_of(ground, sets)
}

/// What channels may have, descending: what is left of a link that several share, in MB/s.
fn bandwidths(ground: &Ground) -> Vec<f64> {
    let shares = ground.ports.len().clamp(4, MOST_CHANNELS);
    let whole = |bandwidth: f64| (bandwidth * 1000.0).floor() as u64;
    let widths = ground.widths();
    let mut all: Vec<u64> =
        widths.iter().flat_map(|width| (1..=shares).map(move |share| whole(width / share as f64))).collect();
    all.sort_unstable_by_key(|bandwidth| Reverse(*bandwidth));
    all.dedup();
    all.into_iter().filter(|bandwidth| *bandwidth > 0).map(|bandwidth| bandwidth as f64 / 1000.0).collect()
}

/// GB/s that channels so wide cannot exceed together, because of the ports and because all pass each seat.
fn at_most(ground: &Ground, bandwidth: f64) -> f64 {
    let fits = |width: f64| (width / bandwidth + 1e-6).floor();
    let most =
        (0..ground.stops.len()).map(|stop| fits(ground.stop_width(stop))).fold(f64::INFINITY, f64::min);
    match ground.ports.len() {
        0 => most * bandwidth,
        ports => (0..ports).map(|port| fits(ground.port_width(port))).sum::<f64>().min(most) * bandwidth,
    }
}

/// As many channels as there is bandwidth for, from port to port in turn.
fn fill(
    ground: &Ground,
    pattern: Pattern,
    bandwidth: f64,
    limits: Limits,
    crossing: bool,
    work: &Cell<usize>,
) -> Option<Set> {
    let mut gates = gates(ground, crossing)?;
    let mut walks = Walks::new(ground, pattern, bandwidth, limits);
    let mut channels = Vec::new();
    while !gates.is_empty() {
        gates.retain(|&gate| {
            let order = if channels.len() < MOST_CHANNELS { walks.next(gate) } else { None };
            let found = order.is_some();
            channels.extend(order.map(|order| (gate, order)));
            // Ranks that share a place take nothing of any link: one channel does for them. Where there is no way now,
            // there is none later.
            found && !walks.all_free()
        });
    }
    work.set(work.get() + walks.all_work());
    (!channels.is_empty()).then_some(Set { pattern, bandwidth, limits, crossing, channels })
}

/// By which ports channels come and go: by the same one, or crossing, by two that are near to different seats, there and
/// back. `None` if that is the same as not crossing.
fn gates(ground: &Ground, crossing: bool) -> Option<Vec<Gate>> {
    let ports = ground.ports.len();
    if ports == 0 {
        return (!crossing).then(|| vec![None]);
    }
    if !crossing {
        return Some((0..ports).map(|port| Some((port, port))).collect());
    }
    let mut gates = Vec::new();
    let mut single: Vec<usize> = Vec::new();
    for port in 0..ports {
        match single.iter().position(|other| ground.nearest_stop(*other) != ground.nearest_stop(port)) {
            Some(place) => {
                let other = single.remove(place);
                gates.extend([Some((other, port)), Some((port, other))]);
            }
            None => single.push(port),
        }
    }
    let crosses = !gates.is_empty();
    gates.extend(single.into_iter().map(|port| Some((port, port))));
    crosses.then_some(gates)
}

impl Set {
    fn sum(&self) -> f64 {
        self.bandwidth * self.channels.len() as f64
    }

    /// Ports that a channel enters by.
    fn ports(&self) -> usize {
        let mut ports: Vec<usize> =
            self.channels.iter().filter_map(|(gate, _)| gate.map(|(port, _)| port)).collect();
        ports.sort_unstable();
        ports.dedup();
        ports.len()
    }

    /// Whether it uses all ports, and no set of channels of that bandwidth has a greater sum.
    fn is_full(&self, ground: &Ground, bandwidth: f64) -> bool {
        self.ports() == ground.ports.len() && self.sum() >= at_most(ground, bandwidth) * EQUAL
    }

    /// What is better comes first, of sets of equal sums.
    fn rank(&self, ground: &Ground) -> impl Ord + use<> {
        let (intra, inter) = self.types(ground);
        let hops: u32 = self.ways(ground).map(|(_, hops)| hops).sum();
        (Reverse(self.ports()), intra, inter, self.crossing, self.channels.len(), hops)
    }

    /// The ways that the channels pass: whether by a port, and the way.
    fn ways<'s>(&'s self, ground: &'s Ground) -> impl Iterator<Item = ((bool, PathType), u32)> + 's {
        self.channels.iter().flat_map(move |(gate, order)| {
            let mut stands: Vec<Stand> = order.iter().map(|stop| Stand::Stop(*stop)).collect();
            let last = stands.len() - 1;
            let mut hops: Vec<(bool, Stand, Stand)> = Vec::new();
            match (gate, self.pattern) {
                (Some((enters, leaves)), Pattern::Ring) => {
                    hops.push((true, Stand::Port(*enters), stands[0]));
                    hops.push((true, stands[last], Stand::Port(*leaves)));
                }
                (Some((port, _)), pattern) => {
                    let heads = if pattern == Pattern::BalancedTree { 2 } else { 1 };
                    hops.extend(stands.iter().take(heads).map(|seat| (true, Stand::Port(*port), *seat)));
                }
                (None, Pattern::Ring) if last > 0 => stands.push(stands[0]),
                (None, _) => {}
            }
            hops.extend(stands.windows(2).map(|pair| (false, pair[0], pair[1])));
            hops.into_iter().map(|(by_port, from, to)| {
                let way = ground.way(from, to);
                ((by_port, way.kind), way.hops)
            })
        })
    }

    /// The farthest ways between seats, and between seats and ports. Where there are no ports NCCL writes PIX.
    fn types(&self, ground: &Ground) -> (PathType, PathType) {
        let farthest = |ports: bool, least: PathType| {
            let kinds =
                self.ways(ground).filter(|((by_port, _), _)| *by_port == ports).map(|((_, kind), _)| kind);
            kinds.fold(least, PathType::max)
        };
        let least = if ground.ports.is_empty() { PathType::Pix } else { PathType::Loc };
        (farthest(false, PathType::Loc), farthest(true, least))
    }

    /// The channels with the numbers of a host's ranks and ports. The host may be another one that is alike.
    pub fn graph(&self, ground: &Ground, id: u32) -> Graph {
        let (type_intra, type_inter) = self.types(ground);
        let channel = |(gate, order): &(Gate, Vec<usize>)| {
            let port = |port: usize| Hop::Net { dev: ground.ports[port] };
            let seats =
                order.iter().flat_map(|stop| &ground.stops[*stop]).map(|seat| ground.seats[*seat].hop());
            let enters = gate.map(|(enters, _)| port(enters));
            let leaves = gate.map(|(_, leaves)| port(leaves));
            Channel { hops: enters.into_iter().chain(seats).chain(leaves).collect() }
        };
        Graph {
            id: Some(id),
            pattern: self.pattern,
            cross_nic: Some(self.crossing.into()),
            declared_channels: Some(self.channels.len() as u32),
            bandwidth_intra: Some(self.bandwidth),
            bandwidth_inter: Some(self.bandwidth),
            latency_inter: Some(0.0),
            type_intra: Some(type_intra),
            type_inter: Some(type_inter),
            same_channels: Some(self.channels.windows(2).all(|pair| pair[0].1 == pair[1].1)),
            channels: self.channels.iter().map(channel).collect(),
        }
    }
}
