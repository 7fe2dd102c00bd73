//! A host as the search sees it: seats and ports, the way from each to each, and what the links on it carry.

use super::Error;
use super::seats::{Place, Seat, numa_number};
use crate::paths::{Network, NodeId, NodeKind, PathType};
use crate::system::{Cpu, Nic, Pci, System};

/// Ranks on a host, or ports of it. All ways between them are kept.
const MOST: usize = 512;

/// Seats and ports with the ways between them.
#[derive(Clone)]
pub struct Ground {
    pub seats: Vec<Seat>,
    /// What walks pass: seats that share a place, as many ranks do on a NUMA node, are one stop, or two, by which a walk may
    /// come to a place early and end there late. Each has its seats, as places in `seats`.
    pub stops: Vec<Vec<usize>>,
    /// Numbers of the ports, ascending.
    pub ports: Vec<u64>,
    /// GB/s of each link, each direction by itself.
    pub links: Vec<f64>,
    /// From point to point. Points are the places of seats, each once, and then the ports.
    ways: Vec<Vec<Way>>,
    /// The point of each stop.
    points: Vec<usize>,
    places: usize,
}

/// A path with its links.
#[derive(Clone, PartialEq)]
pub struct Way {
    pub kind: PathType,
    /// Links up before the first one down.
    pub climb: u32,
    pub hops: u32,
    pub bandwidth: f64,
    pub links: Vec<usize>,
}

/// A stop or a port, by its place in [`Ground::stops`] or [`Ground::ports`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    Stop(usize),
    Port(usize),
}

impl Ground {
    /// Reads a system of one host.
    ///
    /// Ports are left out if `inside` is said: what stays in a host needs none.
    pub fn new(host: &System, seats: &[Seat], inside: bool) -> Result<Ground, Error> {
        if seats.is_empty() {
            return Err(Error::NoSeats);
        }
        if host.hosts().len() > 1 {
            return Err(Error::SeveralHosts);
        }
        let host = in_order(host);
        let network = Network::new(&host);
        let mut seats = seats.to_vec();
        seats.sort_by_key(|seat| seat.rank);

        let mut nodes: Vec<NodeId> = Vec::new();
        let mut sharing: Vec<Vec<usize>> = Vec::new();
        for (number, seat) in seats.iter().enumerate() {
            let node = node_of(&network, &host, seat.place).ok_or(Error::NoSuchPlace(*seat))?;
            match nodes.iter().position(|known| *known == node) {
                Some(place) => sharing[place].push(number),
                None => {
                    nodes.push(node);
                    sharing.push(vec![number]);
                }
            }
        }
        let mut stops: Vec<(Vec<usize>, usize)> = Vec::new();
        for (place, mut here) in sharing.into_iter().enumerate() {
            let last = if here.len() > 1 { here.pop() } else { None };
            stops.push((here, place));
            stops.extend(last.map(|last| (vec![last], place)));
        }
        stops.sort_unstable();
        let (stops, points): (Vec<Vec<usize>>, Vec<usize>) = stops.into_iter().unzip();
        let places = nodes.len();
        let ports = if inside { Vec::new() } else { ports(&network) };
        if seats.len().max(ports.len()) > MOST {
            return Err(Error::TooMany);
        }
        nodes.extend(ports.iter().map(|(_, node)| *node));
        let ways = ways(&network, &nodes);
        let ports = ports.into_iter().map(|(dev, _)| dev).collect();
        Ok(Ground { seats, stops, ports, links: network.link_bandwidths(), ways, points, places })
    }

    /// Whether all is as far and as wide as on another: then the same is found there, but for the numbers of ranks and
    /// ports.
    pub fn is_like(&self, other: &Ground) -> bool {
        (&self.stops, &self.points, self.ports.len()) == (&other.stops, &other.points, other.ports.len())
            && self.links == other.links
            && self.ways == other.ways
    }

    /// The way from one to another.
    pub fn way(&self, from: Stand, to: Stand) -> &Way {
        &self.ways[self.point(from)][self.point(to)]
    }

    fn point(&self, stand: Stand) -> usize {
        match stand {
            Stand::Stop(stop) => self.points[stop],
            Stand::Port(port) => self.places + port,
        }
    }

    /// How far another is, seen from one: of what is equally far, all is under one switch or socket, or all is not under
    /// that of the one.
    pub fn distance(&self, from: Stand, to: Stand) -> (PathType, u32) {
        let way = self.way(from, to);
        (way.kind, way.climb)
    }

    /// The types of the ways between two stops, from near to far.
    pub fn seat_types(&self) -> Vec<PathType> {
        // Ranks that share a place are no way apart.
        let shared = (self.places < self.stops.len()).then_some(PathType::Loc);
        let ways = self.ways[..self.places].iter().enumerate();
        let others = ways.flat_map(|(from, ways)| {
            ways[..self.places].iter().enumerate().filter(move |(to, _)| *to != from).map(|(_, way)| way.kind)
        });
        distinct(shared.into_iter().chain(others))
    }

    /// The types of the ways between ports and seats, from near to far.
    pub fn port_types(&self) -> Vec<PathType> {
        distinct(self.ways[..self.places].iter().flat_map(|ways| &ways[self.places..]).map(|way| way.kind))
    }
}

impl Ground {
    /// GB/s of all links that ways lead over, each once.
    pub fn widths(&self) -> Vec<f64> {
        let ways = || self.ways.iter().flatten();
        let mut widths: Vec<f64> = ways().flat_map(|way| &way.links).map(|link| self.links[*link]).collect();
        widths.sort_unstable_by(f64::total_cmp);
        widths.dedup();
        match (widths.is_empty(), ways().next()) {
            // All ranks at one place.
            (true, Some(way)) => vec![way.bandwidth],
            _ => widths,
        }
    }

    /// GB/s that go in and out of a port, to whichever seat is best.
    pub fn port_width(&self, port: usize) -> f64 {
        let ways = self.ways[..self.places].iter().map(|ways| ways[self.places + port].bandwidth);
        ways.fold(0.0, f64::max)
    }

    /// GB/s that leave a stop, by all of its links together; those that come are as many.
    pub fn stop_width(&self, stop: usize) -> f64 {
        let here = self.points[stop];
        let others = self.ways[here].iter().enumerate().filter(|(to, _)| *to != here);
        let mut first: Vec<usize> = others.filter_map(|(_, way)| way.links.first()).copied().collect();
        first.sort_unstable();
        first.dedup();
        match first.is_empty() {
            true => f64::INFINITY,
            false => first.into_iter().map(|link| self.links[link]).sum(),
        }
    }

    /// The nearest stop of a port.
    pub fn nearest_stop(&self, port: usize) -> Option<usize> {
        (0..self.stops.len()).min_by_key(|&stop| self.distance(Stand::Port(port), Stand::Stop(stop)))
    }
}

fn distinct(types: impl Iterator<Item = PathType>) -> Vec<PathType> {
    let mut types: Vec<PathType> = types.filter(|kind| *kind != PathType::Dis).collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// The same host with everything in the order of its number or address: what is found must not depend on the order of a
/// file.
pub(super) fn in_order(host: &System) -> System {
    let mut host = host.clone();
    host.cpus.sort_by_key(|cpu| cpu.numa);
    for Cpu { devices, nics, .. } in &mut host.cpus {
        sort_devices(devices);
        sort_nics(nics);
    }
    host
}

fn sort_devices(devices: &mut [Pci]) {
    devices.sort_by_key(|device| device.bus);
    for device in devices {
        device.gpus.iter_mut().for_each(|gpu| gpu.links.sort_by_key(|link| link.target));
        device.joined.sort_unstable();
        sort_nics(&mut device.nics);
        sort_devices(&mut device.devices);
    }
}

fn sort_nics(nics: &mut [Nic]) {
    for nic in &mut *nics {
        nic.nets.sort_by(|one, other| (one.dev, &one.name).cmp(&(other.dev, &other.name)));
    }
    nics.sort_by_key(|nic| nic.nets.first().and_then(|net| net.dev));
}

fn node_of(network: &Network, host: &System, place: Place) -> Option<NodeId> {
    let found = match place {
        Place::Gpu { bus, .. } => network
            .nodes()
            .find(|(_, node)| matches!(node.kind, NodeKind::Gpu { bus: its, .. } if its == bus)),
        Place::Numa { number } => {
            let place =
                host.cpus.iter().enumerate().position(|(place, cpu)| numa_number(cpu, place) == number)?;
            network.nodes().filter(|(_, node)| node.kind == NodeKind::Cpu).nth(place)
        }
    };
    found.map(|(id, _)| id)
}

/// The ports of a host with their numbers, ascending. Where no adapter shows its ports, as in files that NCCL is to
/// complete, each adapter counts as one port, in the order of their addresses; where ports have no number, they are counted.
pub(super) fn ports(network: &Network) -> Vec<(u64, NodeId)> {
    let mut ports: Vec<(Option<u32>, NodeId)> = network
        .nodes()
        .filter_map(|(id, node)| match node.kind {
            NodeKind::Net { dev, .. } => Some((dev, id)),
            _ => None,
        })
        .collect();
    if ports.is_empty() {
        let adapters = network.nodes().filter(|(_, node)| matches!(node.kind, NodeKind::Nic { .. }));
        let mut adapters: Vec<_> = adapters.map(|(id, node)| (node.bus(), id)).collect();
        adapters.sort_unstable();
        ports = adapters.into_iter().map(|(_, id)| (None, id)).collect();
    }
    if ports.iter().any(|(dev, _)| dev.is_none()) {
        return ports.into_iter().enumerate().map(|(place, (_, id))| (place as u64, id)).collect();
    }
    let mut ports: Vec<(u64, NodeId)> =
        ports.into_iter().map(|(dev, id)| (dev.map_or(0, u64::from), id)).collect();
    // Interfaces that hang on no device are listed with every NUMA node in some files.
    ports.sort_unstable();
    ports.dedup_by_key(|(dev, _)| *dev);
    ports
}

fn ways(network: &Network, nodes: &[NodeId]) -> Vec<Vec<Way>> {
    let mut ways: Vec<Vec<Way>> = vec![Vec::with_capacity(nodes.len()); nodes.len()];
    for &to in nodes {
        let routes = network.routes_to(to);
        for (ways, &from) in ways.iter_mut().zip(nodes) {
            let path = routes.path(from);
            ways.push(Way {
                kind: path.kind,
                climb: routes.climb(from),
                hops: path.hops,
                bandwidth: path.bandwidth,
                links: routes.links(from).collect(),
            });
        }
    }
    ways
}
