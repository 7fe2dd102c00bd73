//! Rings and trees that are found in a host: on real machines, on random ones against all orders there are, and the same
//! whoever looks.

mod fixture;
mod made_up;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use made_up::hosts;
use proptest::prelude::*;
use rccl_topology::graph::{Channel, Graph, Graphs, Hop, Pattern};
use rccl_topology::paths::{Network, NodeId, NodeKind, PathType};
use rccl_topology::search::{self, Error, Place, Reach, Seat};
use rccl_topology::system::System;
use rccl_topology::xml;

fn found(host: &System, reach: Reach) -> Graphs {
    search::graphs(host, &search::seats(host), reach).unwrap_or_else(|error| panic!("{error}"))
}

fn words(channel: &Channel) -> String {
    channel.hops.iter().map(Hop::to_string).collect::<Vec<_>>().join(" ")
}

fn machines() -> impl Iterator<Item = (String, System)> {
    let names =
        fixture::names().into_iter().filter(|name| !name.contains("graph") && !name.contains("malformed"));
    names.map(|name| (name.clone(), fixture::system(&name)))
}

/// What must hold of all that is found: every rank once, ports at the ends, the declared number.
fn check(host: &System, reach: Reach, graphs: &Graphs) {
    let mut everybody: Vec<u32> = search::seats(host).iter().map(|seat| seat.rank).collect();
    everybody.sort_unstable();
    let ports = search::rails(host);
    for graph in &graphs.graphs {
        assert_eq!(graph.declared_channels, Some(graph.channels.len() as u32));
        assert!(!graph.channels.is_empty() && graph.bandwidth_intra > Some(0.0));
        for channel in &graph.channels {
            let mut passed: Vec<u32> = channel.hops.iter().filter_map(Hop::rank).collect();
            passed.sort_unstable();
            assert_eq!(passed, everybody, "{}", words(channel));
            let port = |hop: &Hop| matches!(hop, Hop::Net { dev } if ports.contains(dev));
            let places: Vec<usize> =
                (0..channel.hops.len()).filter(|place| port(&channel.hops[*place])).collect();
            match reach {
                Reach::Host => assert_eq!(places, [0; 0]),
                Reach::Job => assert_eq!(places, [0, channel.hops.len() - 1], "{}", words(channel)),
            }
        }
    }
}

/// The ports by which rings come.
fn ports_used(ring: &Graph) -> Vec<u64> {
    let first = |channel: &Channel| match channel.hops[0] {
        Hop::Net { dev } => dev,
        _ => panic!("{}", words(channel)),
    };
    let mut ports: Vec<u64> = ring.channels.iter().map(first).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[test]
fn what_nccl_found_on_a_machine_is_found() {
    let nccl = fixture::graphs("yccl-graph.xml");
    let ours = found(&fixture::system("yccl-topo.xml"), Reach::Host);
    for (nccl, ours) in nccl.graphs.iter().zip(&ours.graphs) {
        let mut ours = ours.clone();
        for hop in ours.channels.iter_mut().flat_map(|channel| &mut channel.hops) {
            if let Hop::Gpu { rank, .. } = hop {
                // That file does not say them.
                *rank = None;
            }
        }
        assert_eq!(&ours, nccl);
    }
    assert_eq!(ours.graphs.len(), 2);
}

#[test]
fn every_machine_has_rings_over_all_its_ports() {
    // Channels of rings between hosts, GB/s of each, ports, farthest ways between GPUs and to ports.
    let expected = [
        ("amd-8p-rome-n4.xml", 1, 16.0, 1, PathType::Phb, PathType::Sys),
        // The link between the sockets carries 10.
        ("aws-p4d-24xl.xml", 4, 2.5, 4, PathType::Sys, PathType::Pix),
        // A GPU's PCI link carries 24, and all rings.
        ("azure-ndv4.xml", 8, 3.0, 8, PathType::Sys, PathType::Pix),
        ("oci-h100.xml", 16, 22.5, 16, PathType::Nvl, PathType::Pix),
        // Of 16 and of 10 ports one and two have a tenth of the others' bandwidth.
        ("tcp-only-61-nets.xml", 15, 1.25, 15, PathType::Sys, PathType::Sys),
        ("yccl-topo.xml", 8, 1.25, 8, PathType::Sys, PathType::Phb),
    ];
    let mut machines = machines();
    for (name, channels, bandwidth, ports, intra, inter) in expected {
        let (file, host) = machines.next().unwrap();
        assert_eq!(file, name);
        for reach in [Reach::Host, Reach::Job] {
            check(&host, reach, &found(&host, reach));
        }
        let ring = &found(&host, Reach::Job).graphs[0];
        assert_eq!((ring.channels.len(), ring.bandwidth_inter), (channels, Some(bandwidth)), "{name}");
        assert_eq!(ports_used(ring).len(), ports, "{name}");
        assert_eq!((ring.type_intra, ring.type_inter), (Some(intra), Some(inter)), "{name}");
    }
    assert!(machines.next().is_none());
}

#[test]
fn no_ring_of_any_machine_crosses_sockets_more_often_than_it_must() {
    for (name, host) in machines() {
        let look = Look::at(&host);
        for reach in [Reach::Host, Reach::Job] {
            for channel in &found(&host, reach).graphs[0].channels {
                // There and back, if there are ranks on several sockets and no links between GPUs beside.
                let least = look.least_crossings(channel);
                assert!(look.crossings(channel) <= least, "{name}: {} crosses {least} times", words(channel));
            }
        }
    }
}

/// A host whose nodes are known by what channels say of them.
struct Look {
    network: Network,
    seats: Vec<Seat>,
    /// By node and node.
    crosses: Vec<Vec<bool>>,
}

impl Look {
    fn at(host: &System) -> Look {
        let network = Network::new(host);
        let crosses = network
            .nodes()
            .map(|(to, _)| network.paths_to(to).iter().map(|path| path.kind == PathType::Sys).collect())
            .collect();
        Look { network, seats: search::seats(host), crosses }
    }

    fn node(&self, hop: &Hop) -> NodeId {
        let by_kind = |wanted: &dyn Fn(&NodeKind) -> bool| {
            // Interfaces without a device are listed with every NUMA node, and count where they are listed first.
            let found = self.network.nodes().filter(|(_, node)| wanted(&node.kind));
            found.min_by_key(|(_, node)| node.numa).unwrap().0
        };
        let seat = self.seats.iter().find(|seat| hop.rank() == Some(seat.rank));
        match (hop, seat.map(|seat| seat.place)) {
            (_, Some(Place::Gpu { bus, .. })) => {
                by_kind(&|kind| matches!(kind, NodeKind::Gpu { bus: its, .. } if *its == bus))
            }
            (_, Some(Place::Numa { number })) => self.network.find(&format!("cpu {number}")).unwrap(),
            (Hop::Net { dev }, None) => {
                let is_port = |kind: &NodeKind| matches!(kind, NodeKind::Net { dev: Some(its), .. } if u64::from(*its) == *dev);
                let known = self.network.nodes().any(|(_, node)| is_port(&node.kind));
                match known {
                    true => by_kind(&is_port),
                    // Adapters that show no ports are counted by address.
                    false => {
                        let mut nics: Vec<_> = self
                            .network
                            .nodes()
                            .filter(|(_, node)| matches!(node.kind, NodeKind::Nic { .. }))
                            .map(|(id, node)| (node.bus(), id))
                            .collect();
                        nics.sort();
                        nics[*dev as usize].1
                    }
                }
            }
            (hop, None) => panic!("{hop} has no rank"),
        }
    }

    fn cross(&self, one: NodeId, other: NodeId) -> usize {
        usize::from(self.crosses[one.index()][other.index()])
    }

    /// How often a ring goes from socket to socket.
    fn crossings(&self, ring: &Channel) -> usize {
        let nodes: Vec<NodeId> = ring.hops.iter().map(|hop| self.node(hop)).collect();
        let inside: usize = nodes.windows(2).map(|pair| self.cross(pair[0], pair[1])).sum();
        match ring.closes(Pattern::Ring) {
            true => inside + self.cross(nodes[nodes.len() - 1], nodes[0]),
            false => inside,
        }
    }

    /// The same of the best of all orders of the ranks, between the same ports. Exact for any number of ranks: only who
    /// is last counts, and which have been passed (Held and Karp).
    fn least_crossings(&self, ring: &Channel) -> usize {
        let closes = ring.closes(Pattern::Ring);
        let mut hops = ring.hops.clone();
        let (first, last) = match closes {
            true => (hops[0], hops[0]),
            false => (hops.remove(0), hops.pop().unwrap()),
        };
        if closes {
            hops.remove(0);
        }
        let between: Vec<NodeId> = hops.iter().map(|hop| self.node(hop)).collect();
        let (first, last) = (self.node(&first), self.node(&last));
        if between.is_empty() {
            return self.cross(first, last);
        }
        let costs: Vec<Vec<usize>> = between
            .iter()
            .map(|one| between.iter().map(|other| self.cross(*one, *other)).collect())
            .collect();
        let mut best = vec![vec![usize::MAX; between.len()]; 1 << between.len()];
        for (place, node) in between.iter().enumerate() {
            best[1 << place][place] = self.cross(first, *node);
        }
        for passed in 1..best.len() {
            for at in (0..between.len()).filter(|at| passed & (1 << at) != 0) {
                for to in (0..between.len()).filter(|to| passed & (1 << to) == 0) {
                    let with = best[passed][at].saturating_add(costs[at][to]);
                    let known = &mut best[passed | 1 << to][to];
                    *known = with.min(*known);
                }
            }
        }
        let all = &best[best.len() - 1];
        between.iter().zip(all).map(|(node, cost)| cost + self.cross(*node, last)).min().unwrap()
    }
}

#[test]
fn ranks_without_gpus_go_round_by_numa_node() {
    let text = r#"<system version="1">
      <cpu numaid="0" arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="143">
        <pci busid="0:1:0.0" class="0x020000" link_speed="16.0 GT/s PCIe" link_width="16">
          <nic><net name="a" dev="0" speed="100000"/></nic></pci></cpu>
      <cpu numaid="1" arch="x86_64" vendor="GenuineIntel" familyid="6" modelid="143">
        <pci busid="0:2:0.0" class="0x020000" link_speed="16.0 GT/s PCIe" link_width="16">
          <nic><net name="b" dev="1" speed="100000"/></nic></pci></cpu></system>"#;
    let host = xml::parse_system(text.as_bytes()).unwrap().value;
    let seats = search::seats_on_nodes(&host, 6);
    let graphs = search::graphs(&host, &seats, Reach::Job).unwrap();
    let ring = &graphs.graphs[0];
    // By one port and back by the other: so each passes between the sockets once, in its direction. Twice 12.5 GB/s
    // there and back would be more than the 22 that there are.
    assert_eq!((ring.channels.len(), ring.bandwidth_intra, ring.cross_nic), (2, Some(12.5), Some(1)));
    let passed = |channel: &Channel| channel.hops.iter().filter_map(Hop::rank).collect::<Vec<u32>>();
    assert_eq!(words(&ring.channels[0]).split(" rank").next(), Some("net 0"));
    assert_eq!(passed(&ring.channels[0]), [0, 1, 2, 5, 3, 4]);
    assert_eq!(words(&ring.channels[1]).split(" rank").next(), Some("net 1"));
    assert_eq!(passed(&ring.channels[1]), [3, 4, 5, 2, 0, 1]);
    // They come back from a file.
    let read = xml::parse_graphs(xml::write_graphs(&graphs).as_bytes()).unwrap();
    assert_eq!((read.value, read.notes.len()), (graphs, 0));
    // One NUMA node: no link limits, and one channel is enough.
    let one = xml::parse_system(br#"<system><cpu numaid="0"/></system>"#).unwrap().value;
    let graphs = search::graphs(&one, &search::seats_on_nodes(&one, 3), Reach::Host).unwrap();
    assert_eq!(graphs.graphs[0].channels.len(), 1);
    assert_eq!(graphs.graphs[0].type_intra, Some(PathType::Loc));
}

/// As many ranks as cores, on eight NUMA nodes with 16 ports.
#[test]
fn many_ranks_on_a_host_take_no_age() {
    let host = fixture::system("tcp-only-61-nets.xml");
    let start = Instant::now();
    let graphs = search::graphs(&host, &search::seats_on_nodes(&host, 256), Reach::Job).unwrap();
    println!("256 ranks on a host: {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(ports_used(&graphs.graphs[0]).len(), 15);
    let passed = |channel: &Channel| channel.hops.iter().filter_map(Hop::rank).collect::<BTreeSet<u32>>();
    assert!(graphs.graphs.iter().flat_map(|graph| &graph.channels).all(|it| passed(it).len() == 256));
}

#[test]
fn what_cannot_be_searched_is_said() {
    let host = xml::parse_system(br#"<system><cpu numaid="0"/></system>"#).unwrap().value;
    let seat = |number| Seat { rank: 4, place: Place::Numa { number } };
    assert_eq!(search::graphs(&host, &[], Reach::Host), Err(Error::NoSeats));
    assert_eq!(search::graphs(&host, &[seat(0)], Reach::Job), Err(Error::NoPorts));
    let error = search::graphs(&host, &[seat(7)], Reach::Host).unwrap_err();
    assert_eq!(error.to_string(), "rank 4 is on NUMA node 7, which the host does not have");
    let two = xml::parse_system(
        br#"<system><cpu host_hash="1" numaid="0"/><cpu host_hash="2" numaid="0"/></system>"#,
    );
    let two = two.unwrap().value;
    assert_eq!(search::graphs(&two, &[seat(0)], Reach::Host), Err(Error::SeveralHosts));
    assert_eq!(two.each_host().len(), 2);
    assert!(search::graphs(&two.each_host()[1], &[seat(0)], Reach::Host).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Machines whose only narrow places are their ports.
    #[test]
    fn all_ports_are_used_and_no_ring_crosses_sockets_needlessly(made in hosts(true)) {
        let host = made.system();
        let look = Look::at(&host);
        for reach in [Reach::Host, Reach::Job] {
            if reach == Reach::Job && made.ports() == 0 {
                continue;
            }
            let graphs = found(&host, reach);
            check(&host, reach, &graphs);
            for channel in &graphs.graphs[0].channels {
                prop_assert_eq!(look.crossings(channel), look.least_crossings(channel), "{}", words(channel));
            }
            if reach == Reach::Job {
                let ring = &graphs.graphs[0];
                prop_assert_eq!(ports_used(ring).len(), made.ports());
                prop_assert_eq!(ring.bandwidth_inter, Some(1.25));
                prop_assert_eq!(ports_used(&graphs.graphs[1]).len(), made.ports());
            }
        }
    }

    /// Machines with narrow links anywhere.
    #[test]
    fn links_carry_all_channels(made in hosts(false)) {
        let host = made.system();
        for reach in [Reach::Host, Reach::Job] {
            if reach == Reach::Job && made.ports() == 0 {
                continue;
            }
            let graphs = found(&host, reach);
            check(&host, reach, &graphs);
            made.check_loads(&graphs.graphs[0]);
        }
    }

    #[test]
    fn the_order_of_a_file_changes_nothing(made in hosts(false), seed in any::<u64>()) {
        for reach in [Reach::Host, Reach::Job] {
            if reach == Reach::Job && made.ports() == 0 {
                continue;
            }
            prop_assert_eq!(found(&made.system(), reach), found(&made.shuffled(seed), reach));
        }
    }
}

#[test]
fn the_order_of_real_files_changes_nothing() {
    for (name, host) in machines() {
        for seed in 0..8 {
            let other = made_up::shuffle(&host, seed);
            assert_ne!(other, host, "{name}");
            for reach in [Reach::Host, Reach::Job] {
                assert_eq!(found(&host, reach), found(&other, reach), "{name} {seed}");
            }
        }
    }
}
