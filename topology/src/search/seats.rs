//! Where the ranks of a host work.

use std::fmt;

use serde::Serialize;

use super::ground::in_order;
use crate::graph::Hop;
use crate::system::{BusId, Cpu, Pci, Role, System};

/// A rank and where it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seat {
    /// The rank, of its whole job.
    pub rank: u32,
    /// Where its data is.
    pub place: Place,
}

/// Where a rank's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In the memory of a GPU.
    Gpu {
        /// Its address.
        bus: BusId,
        /// Its number in graph files.
        dev: u32,
    },
    /// In the memory of a NUMA node.
    Numa {
        /// Its number, as [`numa_number`] has it.
        number: u32,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Gpu { bus, .. } => write!(f, "GPU {bus}"),
            Place::Numa { number } => write!(f, "NUMA node {number}"),
        }
    }
}

impl Seat {
    /// The seat as a channel passes it.
    pub fn hop(&self) -> Hop {
        let rank = Some(self.rank);
        match self.place {
            Place::Gpu { dev, .. } => Hop::Gpu { dev: dev.into(), rank },
            Place::Numa { number } => Hop::Cpu { numa: number, rank },
        }
    }
}

/// The number of a NUMA node: the kernel's, or its place among its host's, by number, where that is not known.
pub fn numa_number(cpu: &Cpu, place: usize) -> u32 {
    cpu.numa.unwrap_or(place as u32)
}

/// A rank on every GPU of a host, or on every NUMA node where there is no GPU.
///
/// Ranks and GPUs have the numbers that the system says, if it says one for each and none twice. Else they are counted
/// from 0 in the order of the GPUs' addresses, as CUDA_DEVICE_ORDER=PCI_BUS_ID does.
pub fn seats(host: &System) -> Vec<Seat> {
    let host = &in_order(host);
    let mut gpus = Vec::new();
    host.cpus.iter().flat_map(|cpu| &cpu.devices).for_each(|device| collect(device, &mut gpus));
    if gpus.is_empty() {
        return seats_on_nodes(host, host.cpus.len() as u32);
    }
    gpus.sort_by_key(|gpu| (gpu.bus, gpu.part, gpu.dev, gpu.rank));
    // Files repeat devices.
    gpus.dedup();
    let devs = numbers(gpus.iter().map(|gpu| gpu.dev));
    let ranks = numbers(gpus.iter().map(|gpu| gpu.rank));
    let places = gpus.iter().zip(devs).map(|(gpu, dev)| Place::Gpu { bus: gpu.bus, dev });
    let mut seats: Vec<Seat> =
        ranks.into_iter().zip(places).map(|(rank, place)| Seat { rank, place }).collect();
    seats.sort_by_key(|seat| seat.rank);
    seats
}

/// `ranks` ranks on the NUMA nodes of a host, GPUs or not, in blocks as equal as can be.
pub fn seats_on_nodes(host: &System, ranks: u32) -> Vec<Seat> {
    let host = in_order(host);
    let mut nodes: Vec<u32> =
        host.cpus.iter().enumerate().map(|(place, cpu)| numa_number(cpu, place)).collect();
    nodes.sort_unstable();
    let seat = |rank: u32| {
        let node = u64::from(rank) * nodes.len() as u64 / u64::from(ranks);
        Seat { rank, place: Place::Numa { number: nodes[node as usize] } }
    };
    // A host without a NUMA node has no place for ranks.
    (0..if nodes.is_empty() { 0 } else { ranks }).map(seat).collect()
}

#[derive(PartialEq)]
struct Found {
    bus: BusId,
    part: Option<u32>,
    dev: Option<u32>,
    rank: Option<u32>,
}

fn collect(device: &Pci, gpus: &mut Vec<Found>) {
    let bus = device.bus;
    if device.role() == Role::Gpu && device.gpus.is_empty() {
        gpus.push(Found { bus, part: None, dev: None, rank: None });
    }
    gpus.extend(device.gpus.iter().map(|gpu| Found { bus, part: gpu.part, dev: gpu.dev, rank: gpu.rank }));
    device.devices.iter().for_each(|below| collect(below, gpus));
}

/// These numbers, or counted ones where one is missing or comes twice.
fn numbers(said: impl Iterator<Item = Option<u32>> + Clone) -> Vec<u32> {
    let all: Option<Vec<u32>> = said.clone().collect();
    let distinct = |numbers: &Vec<u32>| {
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        sorted.windows(2).all(|pair| pair[0] != pair[1])
    };
    all.filter(distinct).unwrap_or_else(|| (0..said.count() as u32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml;

    fn host(text: &str) -> System {
        xml::parse_system(text.as_bytes()).unwrap().value
    }

    #[test]
    fn gpus_have_the_numbers_of_the_file_or_counted_ones() {
        let gpu = |bus: u32, inside: &str| {
            format!(r#"<pci busid="0:{bus}:0.0" class="0x030200" link_speed="" link_width="">{inside}</pci>"#)
        };
        let of = |gpus: String| {
            let seats = seats(&host(&format!(r#"<system><cpu numaid="0">{gpus}</cpu></system>"#)));
            let numbers = seats.iter().map(|seat| match seat.place {
                Place::Gpu { bus, dev } => (seat.rank, bus.bus, dev),
                Place::Numa { .. } => panic!("{seat:?}"),
            });
            numbers.collect::<Vec<_>>()
        };
        assert_eq!(of(gpu(2, "") + &gpu(1, "")), [(0, 1, 0), (1, 2, 1)]);
        let named = gpu(1, r#"<gpu dev="4" rank="9"/>"#) + &gpu(2, r#"<gpu dev="3" rank="8"/>"#);
        assert_eq!(of(named), [(8, 2, 3), (9, 1, 4)]);
        // Two ranks on one GPU; then two files' worth of one rank number.
        let shared = gpu(1, r#"<gpu dev="0" rank="0"/><gpu dev="0" rank="1"/>"#);
        assert_eq!(of(shared), [(0, 1, 0), (1, 1, 1)]);
        let twice = gpu(1, r#"<gpu dev="0" rank="5"/>"#) + &gpu(2, r#"<gpu dev="1" rank="5"/>"#);
        assert_eq!(of(twice), [(0, 1, 0), (1, 2, 1)]);
    }

    #[test]
    fn without_gpus_ranks_sit_on_numa_nodes_in_blocks() {
        let host = host(r#"<system><cpu numaid="1"/><cpu numaid="0"/></system>"#);
        let nodes = |seats: Vec<Seat>| {
            let node = |seat: &Seat| match seat.hop() {
                Hop::Cpu { numa, rank } => (rank.unwrap(), numa),
                hop => panic!("{hop}"),
            };
            seats.iter().map(node).collect::<Vec<_>>()
        };
        assert_eq!(nodes(seats(&host)), [(0, 0), (1, 1)]);
        assert_eq!(nodes(seats_on_nodes(&host, 5)), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]);
        assert_eq!(seats_on_nodes(&System::default(), 3), []);
    }
}
