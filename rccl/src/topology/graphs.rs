//! Graph files: in which order a ring passes the ranks of a host, and which graphs there are for them.

use super::{invalid, load};
use crate::error::Result;
use rccl_schedule::Layout;
use rccl_topology::graph::{Graphs, Hop, Pattern};
use rccl_topology::search::{self, Place, Reach, Seat};
use rccl_topology::system::System;
use rccl_topology::xml;
use std::path::Path;

/// Reads the graph file that the settings name: what it says, and the order of the ranks in its ring.
///
/// # Errors
/// [`InvalidSetting`](crate::Error::InvalidSetting) when it cannot be read, or a device of its ring comes twice.
pub(super) fn read(path: &Path) -> Result<(Graphs, Vec<u32>)> {
    const FILE: &str = "RCCL_GRAPH_FILE";
    let graphs = load(FILE, "graph", path, xml::load_graphs)?;
    let ring =
        ring(&graphs).map_err(|flaw| invalid(FILE, "graph", path, &format!("{}: {flaw}", path.display())))?;
    Ok((graphs, ring))
}

/// The order of the ranks of a host in the first ring's first channel, by their indices on the host; empty if the file has
/// no ring. Device numbers stand for the ranks in ascending order, whatever they are, so a file for GPUs 4 to 7 orders four
/// ranks. Ports are passed over: which of them links use is chosen elsewhere.
///
/// # Errors
/// A device comes twice.
fn ring(graphs: &Graphs) -> std::result::Result<Vec<u32>, String> {
    let rings = graphs.graphs.iter().filter(|graph| graph.pattern == Pattern::Ring);
    let Some(channel) = rings.filter_map(|graph| graph.channels.first()).next() else {
        return Ok(Vec::new());
    };
    let number = |hop: &Hop| match *hop {
        Hop::Net { .. } => None,
        Hop::Gpu { dev, .. } => Some(dev),
        // Several ranks share a NUMA node.
        Hop::Cpu { numa, rank } => Some(rank.unwrap_or(numa).into()),
    };
    let passed: Vec<u64> = channel.hops.iter().filter_map(number).collect();
    let mut devices = passed.clone();
    devices.sort_unstable();
    if let Some(twice) = devices.windows(2).find(|pair| pair[0] == pair[1]) {
        let hop = channel.hops.iter().find(|hop| number(hop) == Some(twice[0]));
        return Err(format!(
            "the first channel of its ring passes {} twice",
            hop.map_or_else(String::new, Hop::to_string)
        ));
    }
    let index = |device: &u64| devices.binary_search(device).map_or(0, |index| index as u32);
    Ok(passed.iter().map(index).collect())
}

/// Says for which hosts the file's ring of so many devices holds; where for none, as a warning.
pub(super) fn tell(path: &Path, devices: usize, layout: &Layout) {
    let (path, mut ranks) = (path.display(), vec![0; layout.hosts() as usize]);
    layout.host.iter().for_each(|&host| ranks[host as usize] += 1);
    let fitting = ranks.iter().filter(|&&ranks| ranks == devices).count();
    if devices == 0 {
        tracing::warn!("RCCL_GRAPH_FILE={path}: it has no ring, so the ranks of a host go by number");
    } else if fitting == 0 {
        let (least, most) = (ranks.iter().min().unwrap_or(&0), ranks.iter().max().unwrap_or(&0));
        let ranks = if least == most { least.to_string() } else { format!("{least} to {most}") };
        tracing::warn!(
            "RCCL_GRAPH_FILE={path}: its ring passes {devices} devices, and hosts have {ranks} ranks here, so the ranks of \
             a host go by number"
        );
    } else {
        tracing::info!("the ranks of {fitting} of {} hosts go in the order of {path}", ranks.len());
    }
}

/// Searches for the graphs of rank 0's host and the ranks there.
pub(super) fn find(system: &System, layout: &Layout) -> std::result::Result<Graphs, search::Error> {
    let ranks: Vec<u32> = layout.on_host(layout.host[0]).collect();
    let to_others = layout.hosts() > 1 && !search::rails(system).is_empty();
    search::graphs(system, &seats(system, &ranks), if to_others { Reach::Job } else { Reach::Host })
}

/// The ranks on the GPUs of a host that has just as many, in ascending order of both, as [`ring`] reads them; else on its
/// NUMA nodes.
fn seats(system: &System, ranks: &[u32]) -> Vec<Seat> {
    let mut seats = search::seats(system);
    if seats.len() != ranks.len() {
        seats = search::seats_on_nodes(system, ranks.len() as u32);
    }
    seats.sort_by_key(|seat| match seat.place {
        Place::Gpu { dev, .. } => dev,
        Place::Numa { .. } => seat.rank,
    });
    for (seat, &rank) in seats.iter_mut().zip(ranks) {
        seat.rank = rank;
    }
    seats
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graphs(rings: &[&str]) -> Graphs {
        let ring = |hops: &&str| format!("<graph pattern=\"4\"><channel>{hops}</channel><channel/></graph>");
        let rings: String = rings.iter().map(ring).collect();
        let text = format!("<graphs version=\"1\"><graph pattern=\"1\"><channel/></graph>{rings}</graphs>");
        xml::parse_graphs(text.as_bytes()).unwrap().value
    }

    fn gpus(devices: &[u64]) -> String {
        devices.iter().map(|dev| format!("<gpu dev=\"{dev}\"/>")).collect()
    }

    #[test]
    fn device_numbers_stand_for_the_ranks_in_ascending_order() {
        assert_eq!(ring(&graphs(&[&gpus(&[2, 0, 1])])).unwrap(), [2, 0, 1]);
        let with_ports = format!("<net dev=\"9\"/>{}<net dev=\"9\"/>", gpus(&[7, 4, 12, 5]));
        assert_eq!(ring(&graphs(&[&with_ports, &gpus(&[0, 1])])).unwrap(), [2, 0, 3, 1]);
        let nodes = r#"<cpu numaid="0" rank="9"/><cpu numaid="1" rank="3"/><cpu numaid="0" rank="4"/>"#;
        assert_eq!(ring(&graphs(&[nodes])).unwrap(), [2, 0, 1]);
        assert_eq!(ring(&graphs(&[r#"<cpu numaid="1"/><cpu numaid="0"/>"#])).unwrap(), [1, 0]);
        assert!(ring(&graphs(&[])).unwrap().is_empty());
        let flaw = ring(&graphs(&[&gpus(&[2, 0, 2])])).unwrap_err();
        assert_eq!(flaw, "the first channel of its ring passes gpu 2 twice");
    }

    #[test]
    fn ranks_sit_on_gpus_if_there_are_as_many_and_what_is_found_is_read_back() {
        let gpu = |bus: u32, dev: u32| {
            format!(
                r#"<pci busid="0:{bus}:0.0" class="0x030200" link_speed="8.0 GT/s PCIe" link_width="16"><gpu dev="{dev}"/></pci>"#
            )
        };
        // Devices 0 and 2 hang on one NUMA node, 1 and 3 on the other.
        let nodes = [gpu(1, 0) + &gpu(2, 2), gpu(3, 1) + &gpu(4, 3)];
        let [one, other] = &nodes;
        let text = format!(
            r#"<system version="1"><cpu numaid="0" arch="x86_64">{one}</cpu><cpu numaid="1" arch="x86_64">{other}</cpu></system>"#
        );
        let system = xml::parse_system(text.as_bytes()).unwrap().value;
        let passed = |layout: &Layout| {
            let found = find(&system, layout).unwrap();
            let again = xml::parse_graphs(xml::write_graphs(&found).as_bytes()).unwrap().value;
            assert_eq!(ring(&again), ring(&found));
            let hops = found.graphs[0].channels[0].hops.iter().map(Hop::to_string).collect::<Vec<_>>();
            (hops.join(", "), found.graphs[0].channels[0].hops[1].rank(), ring(&found).unwrap())
        };
        let (hops, rank, order) = passed(&Layout::of_hosts([0, 1, 0, 1, 0, 1, 0]));
        assert_eq!((&hops[..], rank), ("gpu 0, gpu 2, gpu 1, gpu 3", Some(4)));
        assert_eq!(order, [0, 2, 1, 3]);
        let (hops, ..) = passed(&Layout::one_host(3));
        assert_eq!(hops, "rank 0 on cpu 0, rank 1 on cpu 0, rank 2 on cpu 1");
        assert_eq!(find(&System::default(), &Layout::one_host(2)), Err(search::Error::NoSeats));
    }
}
