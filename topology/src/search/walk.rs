//! One channel: in which order it passes the seats of a host.
//!
//! A walk goes from stop to stop by ways that are near enough and whose links have bandwidth left, the nearest first,
//! and steps back where it can go no further. On PCI trees the first try is as good as any: nearest first leaves a
//! switch or a NUMA node only when all below it has been visited, so each link carries a ring once in each direction. To
//! that end, of stops equally near those are taken first that are far from where the walk shall end, and then those to
//! which other channels have left the most bandwidth. Links between GPUs leave the tree, and there steps back may be
//! needed; work is counted, and after [`MOST_WORK`] the walk is given up, as NCCL's is. Counting work instead of time
//! gives every rank the same answer.

use std::cmp::Reverse;

use super::ground::{Ground, Stand};
use crate::graph::Pattern;
use crate::paths::PathType;

/// So many stops are looked at for one channel, or four times as many as without a step back.
const MOST_WORK: usize = 1 << 17;

/// Differences of bandwidths, in GB/s, that are none.
const TOLERANCE: f64 = 1e-6;

/// What a channel must keep to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The farthest way between two stops.
    pub intra: PathType,
    /// The farthest way between a stop and a port.
    pub inter: PathType,
}

/// By which ports a channel comes and goes, by their places in [`Ground::ports`]; none inside of a host.
pub type Gate = Option<(usize, usize)>;

/// A search for channels that share links.
pub struct Walks<'g> {
    ground: &'g Ground,
    pattern: Pattern,
    /// GB/s of each channel. A tree sends up and down, half as much as a ring each way: it counts as a ring here, and as
    /// in NCCL from its head on.
    bandwidth: f64,
    limits: Limits,
    /// What the channels that were found leave of each link.
    left: Vec<f64>,
    /// Stops that were looked at, for this channel and in all.
    work: usize,
    all_work: usize,
    visited: Vec<bool>,
    order: Vec<usize>,
}

impl<'g> Walks<'g> {
    /// With all links free. Patterns other than rings and balanced trees are trees.
    pub fn new(ground: &'g Ground, pattern: Pattern, bandwidth: f64, limits: Limits) -> Walks<'g> {
        Walks {
            ground,
            pattern,
            bandwidth,
            limits,
            left: ground.links.clone(),
            work: 0,
            all_work: 0,
            visited: Vec::new(),
            order: Vec::new(),
        }
    }

    /// The next channel: stops in order. Keeps what it takes of the links.
    pub fn next(&mut self, gate: Gate) -> Option<Vec<usize>> {
        let stops = self.ground.stops.len();
        self.work = 0;
        self.visited = vec![false; stops];
        self.order = Vec::with_capacity(stops);
        // The last stop of a ring may go on to a port alone. That of a chain sends back up.
        let may_end = gate.is_some() && self.pattern == Pattern::Ring;
        if self.cut_off() > usize::from(may_end) {
            return None;
        }
        let found = match gate {
            Some((enters, leaves)) if self.pattern == Pattern::Ring => self.ring(enters, leaves),
            Some((port, _)) => self.tree(port),
            None => {
                // Inside of a host a ring may begin anywhere, and the first rank is as good a chain's end as any.
                self.visit(0);
                self.go_on(None)
            }
        };
        self.all_work += self.work;
        found.then(|| std::mem::take(&mut self.order))
    }

    /// How many stops were looked at.
    pub fn all_work(&self) -> usize {
        self.all_work
    }

    fn is_too_much(&self) -> bool {
        self.work > MOST_WORK.max(4 * self.visited.len().pow(2))
    }

    /// Whether the channels take nothing of any link.
    pub fn all_free(&self) -> bool {
        self.left == self.ground.links
    }

    /// How many stops there are from which no walk can go to another: that is seen sooner so than by trying all orders.
    fn cut_off(&mut self) -> usize {
        let stops = self.ground.stops.len();
        let goes_on = |walks: &mut Walks<'_>, from: usize| {
            (0..stops).filter(|to| *to != from).any(|to| {
                let free = walks.near_enough(from, to) && walks.step(from, to);
                if free {
                    walks.step_back(from, to);
                }
                free
            })
        };
        (0..stops).filter(|from| stops > 1 && !goes_on(self, *from)).count()
    }

    /// From a port over all stops to a port.
    fn ring(&mut self, enters: usize, leaves: usize) -> bool {
        let alone = self.ground.stops.len() == 1;
        for first in self.nearest(enters) {
            for last in self.nearest_but_far(leaves, Some(first)) {
                let hops =
                    [(Stand::Port(enters), Stand::Stop(first)), (Stand::Stop(last), Stand::Port(leaves))];
                if (first == last) == alone
                    && self.through_port(&hops, first, |walks| walks.go_on(Some(last)))
                {
                    return true;
                }
            }
        }
        false
    }

    /// From a port over all stops: a chain. The port talks to the first stop, in a balanced tree to the first two, half
    /// as much to each.
    fn tree(&mut self, port: usize) -> bool {
        let both = |stop| [(Stand::Port(port), Stand::Stop(stop)), (Stand::Stop(stop), Stand::Port(port))];
        let near = self.nearest(port);
        let balanced = self.pattern == Pattern::BalancedTree && self.ground.stops.len() > 1;
        for &first in &near {
            if !balanced {
                if self.through_port(&both(first), first, |walks| walks.go_on(None)) {
                    return true;
                }
                continue;
            }
            for &second in near.iter().filter(|second| **second != first) {
                let hops = [both(first), both(second)].concat();
                if self.through_port(&hops, first, |walks| walks.follow(first, second, None)) {
                    return true;
                }
            }
        }
        false
    }

    /// Goes to the first stop, and on from there; takes it all back if that leads nowhere. `hops` are all that join the
    /// channel to ports, and share its bandwidth in each direction.
    fn through_port(
        &mut self,
        hops: &[(Stand, Stand)],
        first: usize,
        go_on: impl FnOnce(&mut Walks<'g>) -> bool,
    ) -> bool {
        let share = self.bandwidth * 2.0 / hops.len() as f64;
        if self.is_too_much() || !self.take(hops, share) {
            return false;
        }
        self.visit(first);
        let found = go_on(self);
        if !found {
            self.leave();
            self.give_back(hops, share);
        }
        found
    }

    /// Visits what is not visited yet, `last` at the end if it is said.
    fn go_on(&mut self, last: Option<usize>) -> bool {
        let stops = self.ground.stops.len();
        let (from, first) = (self.order[self.order.len() - 1], self.order[0]);
        if self.order.len() == stops {
            let is_open = self.pattern != Pattern::Ring || last.is_some() || stops == 1;
            return is_open || (self.near_enough(from, first) && self.step(from, first));
        }
        self.candidates(from, last).into_iter().any(|to| self.follow(from, to, last))
    }

    /// Goes to a stop, and on from there; comes back if that leads nowhere.
    fn follow(&mut self, from: usize, to: usize, last: Option<usize>) -> bool {
        if self.is_too_much() || !self.near_enough(from, to) || !self.step(from, to) {
            return false;
        }
        self.visit(to);
        let found = self.go_on(last);
        if !found {
            self.leave();
            self.step_back(from, to);
        }
        found
    }

    /// Where a walk may go next, in the order in which that is tried.
    fn candidates(&mut self, from: usize, last: Option<usize>) -> Vec<usize> {
        let stops = self.ground.stops.len();
        let only_last = self.order.len() + 1 == stops;
        let is_next = |to: &usize| !self.visited[*to] && (last != Some(*to) || only_last);
        let mut next: Vec<usize> = (0..stops).filter(is_next).collect();
        self.work += next.len();
        next.sort_by_cached_key(|&to| {
            let way = self.ground.way(Stand::Stop(from), Stand::Stop(to));
            // In MB/s: where it was taken and given back, there is noise in the last digits.
            let left = way.links.iter().map(|link| (self.left[*link] * 1000.0).round() as u64).min();
            (self.distance(from, to), Reverse(last.map(|last| self.distance(last, to))), Reverse(left), to)
        });
        next
    }

    /// The stops that are near enough to a port, the nearest first.
    fn nearest(&self, port: usize) -> Vec<usize> {
        self.nearest_but_far(port, None)
    }

    /// Those that are equally near in such an order that the farthest from `first` come first: if a ring begins
    /// below one switch and ends below another, it passes each only once.
    fn nearest_but_far(&self, port: usize, first: Option<usize>) -> Vec<usize> {
        let way = |stop: usize| self.ground.way(Stand::Port(port), Stand::Stop(stop));
        let mut stops: Vec<usize> =
            (0..self.ground.stops.len()).filter(|stop| way(*stop).kind <= self.limits.inter).collect();
        stops.sort_by_cached_key(|&stop| {
            // Numbers that are not negative are ordered as their bits are.
            let width = way(stop).bandwidth.to_bits();
            let apart = first.map(|first| self.distance(first, stop));
            let near = self.ground.distance(Stand::Port(port), Stand::Stop(stop));
            (near, Reverse(apart), Reverse(width), stop)
        });
        stops
    }

    fn distance(&self, from: usize, to: usize) -> (PathType, u32) {
        self.ground.distance(Stand::Stop(from), Stand::Stop(to))
    }

    fn near_enough(&self, from: usize, to: usize) -> bool {
        self.ground.way(Stand::Stop(from), Stand::Stop(to)).kind <= self.limits.intra
    }

    fn visit(&mut self, stop: usize) {
        self.visited[stop] = true;
        self.order.push(stop);
    }

    fn leave(&mut self) {
        if let Some(stop) = self.order.pop() {
            self.visited[stop] = false;
        }
    }

    fn step(&mut self, from: usize, to: usize) -> bool {
        self.take(&[(Stand::Stop(from), Stand::Stop(to))], self.bandwidth)
    }

    fn step_back(&mut self, from: usize, to: usize) {
        self.give_back(&[(Stand::Stop(from), Stand::Stop(to))], self.bandwidth);
    }

    /// Takes bandwidth of all links of some hops, or of none.
    fn take(&mut self, hops: &[(Stand, Stand)], bandwidth: f64) -> bool {
        let ground = self.ground;
        let links = || hops.iter().flat_map(|(from, to)| &ground.way(*from, *to).links);
        let narrow = hops.iter().any(|(from, to)| ground.way(*from, *to).bandwidth + TOLERANCE < bandwidth);
        let mut short = narrow;
        if !narrow {
            for &link in links() {
                self.left[link] -= bandwidth;
                // One link may be on several of the hops.
                short |= self.left[link] < -TOLERANCE;
            }
            if short {
                links().for_each(|&link| self.left[link] += bandwidth);
            }
        }
        !short
    }

    fn give_back(&mut self, hops: &[(Stand, Stand)], bandwidth: f64) {
        let ground = self.ground;
        for &link in hops.iter().flat_map(|(from, to)| &ground.way(*from, *to).links) {
            self.left[link] += bandwidth;
        }
    }
}
