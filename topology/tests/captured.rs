//! Hosts whose files were written down (`tests/hosts`), and what is found on them. The command's tests compare all that it
//! shows of them; here are the facts on which choices rest.

mod tree;

use rccl_topology::paths::{Network, PathType};
use rccl_topology::processors::Processors;
use rccl_topology::system::{CpuSet, System};
use rccl_topology::{GidKind, Host, Wishes, choose, xml};
use tree::Tree;

fn carriers<'h>(host: &'h Host, of: &str) -> Vec<&'h str> {
    host.carriers(of).iter().map(|carrier| carrier.name.as_str()).collect()
}

fn cpus(list: &str) -> Option<CpuSet> {
    CpuSet::from_list(list)
}

/// The system of a tree, which can be written and read again.
fn system(tree: &Tree) -> System {
    let system = System::discover(tree.root(), &tree.host());
    let text = xml::write_system(&system);
    assert_eq!(xml::parse_system(text.as_bytes()).unwrap().value, system, "{text}");
    system
}

fn path(network: &Network, from: &str, to: &str) -> PathType {
    let [from, to] = [from, to].map(|name| network.find(name).unwrap_or_else(|| panic!("no {name}")));
    network.path(from, to).kind
}

/// Captured on a virtual machine with control groups of both versions.
#[test]
fn a_virtual_machine() {
    let tree = Tree::captured("vm");
    let found = Processors::discover(tree.root());
    assert_eq!((found.online, found.packages.len(), found.packages[0].cores), (cpus("0-1"), 1, 2));
    let sizes: Vec<(String, Option<u64>)> =
        found.caches.iter().map(|cache| (cache.to_string(), cache.bytes)).collect();
    let [k32, m1, m32] = [32 << 10, 1 << 20, 32 << 20].map(Some);
    let names = [("L3", m32), ("L2", m1), ("L2", m1), ("L1d", k32), ("L1d", k32), ("L1i", k32), ("L1i", k32)];
    assert_eq!(sizes, names.map(|(name, size)| (name.to_owned(), size)));
    assert_eq!((found.nodes.len(), found.nodes[0].memory), (1, Some(8_743_116 << 10)));
    // Groups of all processors, and no quota.
    assert_eq!((found.limits.affinity, found.limits.cpuset), (cpus("0-1"), cpus("0-1")));
    assert_eq!((found.limits.quota, found.limits.memory), (None, None));
    let system = system(&tree);
    let [node] = &system.cpus[..] else { panic!("{system:?}") };
    // Of six PCI devices one leads to the network.
    assert_eq!((node.devices.len(), node.devices[0].bus.to_string()), (1, "0000:00:03.0".into()));
    assert_eq!(tree.host().interface("eth0").unwrap().queues, Some((1, 1)));
}

#[test]
fn two_sockets_with_a_bond_and_vlans() {
    let tree = Tree::captured("two-sockets-bond");
    let host = tree.host();
    let bond = host.interface("bond0").unwrap();
    assert_eq!((bond.bond_mode.as_deref(), bond.kind.as_deref()), (Some("802.3ad"), Some("bond")));
    for name in ["bond0", "bond0.120", "bond0.3100"] {
        assert_eq!(carriers(&host, name), ["eno1np0", "ens5np0"], "{name}");
        assert_eq!(host.speed(name), Some(50_000), "{name}");
    }
    for name in ["eno1np0", "ens5np0"] {
        assert_eq!(host.interface(name).unwrap().master.as_deref(), Some("bond0"));
        assert_eq!((carriers(&host, name), host.speed(name)), (vec![name], Some(25_000)));
    }
    assert_eq!(host.interface("bond0.120").unwrap().kind.as_deref(), Some("vlan"));
    let docker = host.interface("docker0").unwrap();
    assert!(docker.is_down() && docker.lower.is_empty());
    // The members are on different sockets, which a path between them has to cross.
    let network = Network::new(&system(&tree));
    assert_eq!(path(&network, "0000:17:00.0", "0000:ca:00.0"), PathType::Sys);
    let found = Processors::discover(tree.root());
    let sockets: Vec<String> = found.packages.iter().map(|package| package.cpus.to_string()).collect();
    assert_eq!(sockets, ["0-15", "16-31"]);
    assert_eq!(found.nodes[0].distances, [(0, 10), (1, 20)].into());
    // The screen of the management controller is no GPU.
    assert!(!xml::write_system(&system(&tree)).contains("<gpu"));
}

#[test]
fn four_rdma_adapters() {
    let tree = Tree::captured("four-rdma");
    let host = tree.host();
    let nodes: Vec<Option<u32>> = host.devices.iter().map(|device| device.numa_node).collect();
    assert_eq!(nodes, [Some(0), Some(0), Some(1), Some(1)]);
    for (number, device) in host.devices.iter().enumerate() {
        let [port] = &device.ports[..] else { panic!("{device:?}") };
        let kinds: Vec<(u16, GidKind)> = port.gids.iter().map(|entry| (entry.index, entry.kind)).collect();
        let (one, two) = (GidKind::RoceV1, GidKind::RoceV2);
        assert_eq!(kinds, [(0, one), (1, two), (2, one), (3, two)], "the empty rest is left out");
        assert_eq!(port.gids[3].interface.as_deref(), Some(&*format!("ens{}np0", number + 1)));
    }
    // All four are used, each by its routable address of version 2.
    let choice = choose(&host, &Wishes::default());
    let rails: Vec<(&str, u8, String)> = choice
        .rails
        .iter()
        .map(|rail| (rail.device.as_str(), rail.addresses[0].index, rail.addresses[0].gid.to_string()))
        .collect();
    let expected = [
        ("mlx5_0", 3, "10.0.0.5"),
        ("mlx5_1", 3, "10.1.0.5"),
        ("mlx5_2", 3, "10.2.0.5"),
        ("mlx5_3", 3, "10.3.0.5"),
    ];
    assert_eq!(rails, expected.map(|(device, index, ip)| (device, index, ip.to_owned())));
    let network = Network::new(&system(&tree));
    assert_eq!(path(&network, "0000:23:00.0", "0000:43:00.0"), PathType::Phb);
    assert_eq!(path(&network, "0000:23:00.0", "0000:a3:00.0"), PathType::Sys);
    let limits = Processors::discover(tree.root()).limits;
    assert_eq!((limits.memory, limits.quota), (Some(500 << 30), None));
}

#[test]
fn a_container_without_pci() {
    let tree = Tree::captured("container");
    let system = system(&tree);
    assert!(system.cpus.iter().all(|node| node.devices.is_empty()), "{system:?}");
    let host = tree.host();
    // The other end has the number 14 in another namespace, so nobody here is behind it.
    assert_eq!(host.interface("eth0").unwrap().linked, Some(14));
    assert_eq!((carriers(&host, "eth0"), host.speed("eth0")), (vec!["eth0"], Some(10_000)));
    assert!(choose(&host, &Wishes::default()).rails.is_empty());
    let found = Processors::discover(tree.root());
    assert_eq!((found.online, found.packages.len()), (cpus("0-31"), 2));
    assert_eq!((found.limits.affinity, found.limits.cpuset), (cpus("4-7"), cpus("4-7")));
    assert_eq!((found.limits.quota, found.limits.memory), (Some(2.5), Some(8 << 30)));
}

/// What there is nothing of is absent, and this machine has processors whatever it is.
#[test]
fn an_empty_tree_and_this_machine() {
    assert_eq!(Processors::discover(Tree::new().root()), Processors::default());
    let found = Processors::discover(std::path::Path::new("/"));
    let (online, affinity) = (found.online.unwrap(), found.limits.affinity.unwrap());
    assert!(!affinity.is_empty() && online.contains(&affinity), "{affinity} of {online}");
}
