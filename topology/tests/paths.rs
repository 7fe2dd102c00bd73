//! Path types and bandwidths on real machines, as NCCL's rules give them.

mod fixture;

use fixture::system;
use proptest::prelude::*;
use rccl_topology::paths::{Network, NodeKind, Path, PathType};
use rccl_topology::system::System;
use rccl_topology::xml;

fn network(name: &str) -> Network {
    Network::new(&system(name))
}

fn path(network: &Network, from: &str, to: &str) -> Path {
    let node = |words: &str| network.find(words).unwrap_or_else(|| panic!("there is no {words}"));
    network.path(node(from), node(to))
}

fn check(network: &Network, expected: &[(&str, &str, PathType, f64, u32)]) {
    for &(from, to, kind, bandwidth, hops) in expected {
        for (from, to) in [(from, to), (to, from)] {
            let path = path(network, from, to);
            assert_eq!((path.kind, path.hops), (kind, hops), "{from} to {to}");
            assert!((path.bandwidth - bandwidth).abs() < 1e-9, "{from} to {to}: {} GB/s", path.bandwidth);
        }
    }
}

#[test]
fn azure_ndv4_has_gpus_and_nics_below_four_switches() {
    check(
        &network("azure-ndv4.xml"),
        &[
            ("0003:00:00.0", "0103:00:00.0", PathType::Pix, 24.0, 2),
            ("0003:00:00.0", "0004:00:00.0", PathType::Pix, 24.0, 2),
            ("0003:00:00.0", "cpu 0", PathType::Phb, 24.0, 2),
            ("cpu 0", "cpu 3", PathType::Sys, 16.0, 1),
            ("0003:00:00.0", "0101:00:00.0", PathType::Sys, 16.0, 5),
            ("000c:00:00.0", "000d:00:00.0", PathType::Sys, 16.0, 5),
        ],
    );
}

#[test]
fn oci_h100_has_layered_switches_and_nvlink() {
    check(
        &network("oci-h100.xml"),
        &[
            // Both layers of the switch are one: two links and the port's, and no PXB.
            ("gpu 0", "net mlx5_0", PathType::Pix, 22.5, 3),
            ("gpu 0", "0000:0c:00.0", PathType::Pix, 48.0, 2),
            // 18 links of 20.6 GB/s to all switches together, from each GPU.
            ("gpu 0", "gpu 7", PathType::Nvl, 370.8, 2),
            ("gpu 0", "nvswitch", PathType::Nvl, 370.8, 1),
            // The host's port above the switch has but 5 GT/s.
            ("gpu 0", "cpu 0", PathType::Phb, 6.0, 2),
            ("gpu 0", "net mlx5_3", PathType::Phb, 6.0, 5),
            ("cpu 0", "cpu 1", PathType::Sys, 22.0, 1),
        ],
    );
}

#[test]
fn a_layer_of_a_switch_is_found_by_its_own_address() {
    let network = network("oci-h100.xml");
    assert_eq!(network.find("0000:0d:00.0"), network.find("0000:08:00.0"));
    assert_eq!(network.find("0000:ff:00.0"), None);
}

#[test]
fn amd_gpus_pass_messages_on() {
    check(
        &network("amd-8p-rome-n4.xml"),
        &[
            ("gpu 0", "gpu 2", PathType::Nvl, 24.0, 1),
            // Over GPU 2 or GPU 3.
            ("gpu 0", "gpu 5", PathType::Nvb, 24.0, 2),
            // Not over two GPUs.
            ("gpu 0", "gpu 1", PathType::Sys, 16.0, 5),
            ("gpu 0", "cpu 1", PathType::Phb, 24.0, 2),
        ],
    );
}

#[test]
fn yccl_goes_over_its_processors() {
    check(
        &network("yccl-topo.xml"),
        &[
            ("gpu 0", "gpu 1", PathType::Phb, 12.0, 2),
            ("gpu 0", "gpu 2", PathType::Sys, 10.0, 3),
            ("gpu 0", "net eno1np0", PathType::Phb, 0.125, 3),
            // A bridge without a PCI device hangs on the processor.
            ("gpu 0", "net br-3c276cd5dbc3", PathType::Phb, 1.25, 3),
            ("gpu 3", "net br-3c276cd5dbc3", PathType::Sys, 1.25, 4),
            ("gpu 0", "gpu 0", PathType::Loc, 5000.0, 0),
        ],
    );
}

fn parse(text: &str) -> Network {
    Network::new(&xml::parse_system(text.as_bytes()).unwrap().value)
}

#[test]
fn coherent_links_lead_on_by_pci() {
    let network = parse(
        r#"<system><cpu numaid="0" arch="arm64">
          <pci busid="0002:01:00.0" link_speed="32.0 GT/s PCIe" link_width="4"><nic><net name="a" speed="200000"/></nic></pci>
          <pci busid="000f:01:00.0" link_speed="2.5 GT/s PCIe" link_width="16">
            <gpu dev="0" sm="121"><c2c bw="43125" count="8"/></gpu></pci>
        </cpu></system>"#,
    );
    check(
        &network,
        &[
            ("gpu 0", "cpu 0", PathType::C2c, 345.0, 1),
            ("gpu 0", "net a", PathType::P2c, 12.0, 3),
            ("cpu 0", "net a", PathType::Phb, 12.0, 2),
        ],
    );
}

#[test]
fn hosts_are_joined_by_their_nearest_ports() {
    let host = |hash: &str, speed: u32| {
        format!(
            r#"<cpu host_hash="{hash}" numaid="0" arch="x86_64">
              <pci busid="0:1:0.0" class="0x060400" link_speed="16 GT/s" link_width="16">
                <pci busid="0:2:0.0" link_speed="16 GT/s" link_width="16"><gpu dev="0"/></pci>
                <pci busid="0:3:0.0" link_speed="16 GT/s" link_width="16"><nic><net name="a" speed="{speed}"/></nic></pci>
              </pci></cpu>"#
        )
    };
    let joined = parse(&format!("<system>{}{}</system>", host("1", 100_000), host("2", 80_000)));
    check(&joined, &[("gpu 0", "host 1 gpu 0", PathType::Net, 10.0, 7)]);
    let apart = parse(r#"<system><cpu host_hash="1" numaid="0"/><cpu host_hash="2" numaid="0"/></system>"#);
    assert_eq!(path(&apart, "cpu 0", "host 1 cpu 0"), Path::NONE);
}

#[test]
fn a_link_that_one_end_lists_is_none() {
    let gpu = |bus: &str, dev: u32, links: &str| {
        format!(
            r#"<pci busid="{bus}" class="0x030200" link_speed="" link_width="0"><gpu dev="{dev}">{links}</gpu></pci>"#
        )
    };
    let link = |target: &str| format!(r#"<nvlink target="{target}" count="2" tclass="0x030200"/>"#);
    let one = gpu("0:1:0.0", 0, &link("0:2:0.0"));
    let both = gpu("0:2:0.0", 1, &link("0:1:0.0"));
    let neither = gpu("0:2:0.0", 1, "");
    let cpu =
        |one: &str, other: &str| parse(&format!(r#"<system><cpu numaid="0">{one}{other}</cpu></system>"#));
    check(&cpu(&one, &both), &[("gpu 0", "gpu 1", PathType::Nvl, 40.0, 1)]);
    check(&cpu(&one, &neither), &[("gpu 0", "gpu 1", PathType::Phb, 12.0, 2)]);
}

#[test]
fn joined_switches_are_near() {
    let side = |bus: &str, other: &str, gpu: u32| {
        format!(
            r#"<pci busid="0:{bus}:0.0" class="0x060400" link_speed="16 GT/s" link_width="16">
              <pci busid="0:{bus}1:0.0" link_speed="16 GT/s" link_width="16"><gpu dev="{gpu}"/></pci>
              <pcilink target="0:{other}:0.0"/></pci>"#
        )
    };
    let network = parse(&format!(
        r#"<system><cpu numaid="0">{}{}</cpu></system>"#,
        side("1", "2", 0),
        side("2", "1", 1)
    ));
    check(&network, &[("gpu 0", "gpu 1", PathType::Pxb, 24.0, 3)]);
}

/// Up to the first common ancestor and down again: links and narrowest bandwidth.
fn plain(tree: &Tree, from: usize, to: usize) -> (u32, f64) {
    let ancestors = |mut at: usize| {
        let mut way = vec![at];
        while let Some((parent, _)) = tree.parents[at] {
            way.push(parent);
            at = parent;
        }
        way
    };
    let (ups, downs) = (ancestors(from), ancestors(to));
    let meet = ups.iter().position(|node| downs.contains(node)).unwrap();
    let down = downs.iter().position(|node| *node == ups[meet]).unwrap();
    let climbed = ups[..meet].iter().chain(&downs[..down]);
    let narrowest = climbed.map(|node| tree.parents[*node].unwrap().1).fold(5000.0, f64::min);
    ((meet + down) as u32, narrowest)
}

/// A NUMA node with a random tree of PCI devices; node 0 is the NUMA node.
#[derive(Debug, Clone)]
struct Tree {
    parents: Vec<Option<(usize, f64)>>,
}

impl Tree {
    fn xml(&self, node: usize) -> String {
        let below: String = (0..self.parents.len())
            .filter(|at| self.parents[*at].is_some_and(|(it, _)| it == node))
            .map(|at| self.xml(at))
            .collect();
        match self.parents[node] {
            None => format!(r#"<system><cpu numaid="0">{below}</cpu></system>"#),
            Some((_, bandwidth)) => {
                let width = (bandwidth / 0.75) as u32;
                format!(
                    r#"<pci busid="0:{node:x}:0.0" class="0x060400" link_speed="8 GT/s" link_width="{width}">{below}</pci>"#
                )
            }
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    proptest::collection::vec((any::<prop::sample::Index>(), 1_u32..=16), 1..20).prop_map(|choices| {
        let mut parents = vec![None];
        for (parent, width) in choices {
            let known = parents.len();
            parents.push(Some((parent.index(known), f64::from(width) * 0.75)));
        }
        Tree { parents }
    })
}

proptest! {
    #[test]
    fn in_a_tree_the_path_is_the_only_one(tree in trees()) {
        let network = parse(&tree.xml(0));
        let id = |node: usize| match node {
            0 => network.find("cpu 0").unwrap(),
            _ => network.find(&format!("0:{node:x}:0.0")).unwrap(),
        };
        for from in 0..tree.parents.len() {
            for to in 0..tree.parents.len() {
                let path = network.path(id(from), id(to));
                let (hops, bandwidth) = plain(&tree, from, to);
                prop_assert_eq!((path.hops, path.bandwidth), (hops, bandwidth));
                prop_assert_eq!(network.path(id(to), id(from)), path);
            }
        }
    }
}

#[test]
fn every_node_of_every_file_has_a_path_to_every_other() {
    for name in fixture::names().iter().filter(|name| !name.contains("graph") && !name.contains("malformed"))
    {
        let network = network(name);
        let gpus = network.nodes().filter(|(_, node)| matches!(node.kind, NodeKind::Gpu { .. })).count();
        assert!(gpus >= 4, "{name} has {gpus} GPUs");
        // But switches between GPUs and what is no GPU: paths do not lead through GPUs.
        let devices = || network.nodes().filter(|(_, node)| node.kind != NodeKind::NvSwitch);
        for (to, _) in devices() {
            let paths = network.paths_to(to);
            assert!(devices().all(|(from, _)| paths[from.index()].bandwidth > 0.0), "{name}");
        }
    }
    assert_eq!(Network::new(&System::default()).nodes().count(), 0);
}
