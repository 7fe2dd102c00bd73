//! `rccl topo --rings`: what it finds in a host and over many, its files, and what it refuses.

mod topo;

use serde_json::Value;
use std::collections::BTreeSet;
use topo::{file, nccl, refused, stdout, topo};

#[test]
fn a_host_has_rings_and_trees() {
    let host = nccl("yccl-topo.xml");
    let text = stdout(&topo(&[&host, "--rings"]));
    let end = "
graph 0: ring, 1 channel, 10 GB/s inside of a host (SYS), 10 GB/s between hosts (PIX)
  channel 0: gpu 0 -> gpu 1 -> gpu 2 -> gpu 3 -> gpu 0
graph 1: balanced tree, 1 channel, 10 GB/s inside of a host (SYS), 10 GB/s between hosts (PIX)
  channel 0: gpu 0 -> gpu 1 -> gpu 2 -> gpu 3
";
    assert!(text.ends_with(end), "{text}");
    // As a file it says what is in the one that NCCL wrote, and the ranks.
    let found = tempfile::NamedTempFile::new().unwrap();
    let path = found.path().to_str().unwrap();
    assert_eq!(stdout(&topo(&[&host, "--rings", "--graph-out", path])), "");
    let shown = stdout(&topo(&["--graph", path]));
    assert_eq!(shown, end.trim_start());
    let theirs = stdout(&topo(&["--graph", &nccl("yccl-graph.xml")]));
    assert!(theirs.starts_with(&shown), "{theirs}");
    let svg = stdout(&topo(&[&host, "--rings", "--svg", "-"]));
    assert!(svg.contains(">GPU 0000:3b:00.0</text>") && svg.contains(">ring: 1 channel,"), "{svg}");
}

#[test]
fn ranks_on_numa_nodes_go_round_too() {
    let text = stdout(&topo(&[&nccl("yccl-topo.xml"), "--rings", "--ranks", "3"]));
    let ring = "channel 0: rank 0 on cpu 0 -> rank 1 on cpu 0 -> rank 2 on cpu 1 -> rank 0 on cpu 0\n";
    assert!(text.contains(ring), "{text}");
    // Whatever this machine is.
    let text = stdout(&topo(&["--rings", "--ranks", "2"]));
    assert!(text.contains("graph 0: ring, ") && text.contains("rank 1 on cpu "), "{text}");
}

#[test]
fn many_hosts_are_joined_leaf_by_leaf_and_rail_by_rail() {
    let (host, cluster) = (nccl("azure-ndv4.xml"), file("docs/clusters/clos-2to1.toml"));
    let many = [&host[..], "--rings", "--hosts", "64", "--cluster", &cluster];
    let text = stdout(&topo(&many));
    assert!(text.contains("\nrings over 64 hosts, 512 ranks\n"), "{text}");
    assert_eq!(text.matches(": rail ").count(), 8);
    assert_eq!(text.matches(", 64 hops between hosts, 2 from leaf to leaf\n").count(), 8);
    let by_rail = stdout(&topo(&[&many[..], &["--rail-optimised"]].concat()));
    assert_eq!(by_rail.matches(", 64 hops between hosts, 2 from leaf to leaf\n").count(), 8, "{by_rail}");
    assert_eq!(by_rail.matches(" to another rail").count(), 0);
    // Without a cluster file nothing is known of leaves. Few ranks are listed.
    let few = stdout(&topo(&[&host, "--rings", "--hosts", "2"]));
    assert!(!few.contains("leaf") && few.contains("\nrings over 2 hosts, 16 ranks\n"), "{few}");
    assert_eq!(few.matches(" | ").count(), 8);
    assert_eq!(few, stdout(&topo(&[&host, "--rings", "--hosts", "2"])));
}

#[test]
fn a_cluster_file_says_whether_rails_have_leaves_of_their_own() {
    let (host, file) = (nccl("oci-h100.xml"), tempfile::Builder::new().suffix(".toml").tempfile().unwrap());
    let cluster = file.path().to_str().unwrap();
    // With an odd number of hosts, rings that cross ports change rails once.
    let three = [&host[..], "--rings", "--hosts", "3", "--cluster", cluster];
    let shown = |by_rail: bool, options: &[&str]| {
        std::fs::write(&file, format!("[network]\nrail_optimised = {by_rail}\n")).unwrap();
        stdout(&topo(&[&three[..], options].concat()))
    };
    let (by_host, by_rail) = (shown(false, &[]), shown(true, &[]));
    assert!(by_host.contains(", 0 from leaf to leaf, 1 to another rail\n"), "{by_host}");
    assert!(by_rail.contains(", 1 from leaf to leaf, 1 to another rail\n"), "{by_rail}");
    assert_eq!(shown(false, &["--rail-optimised"]), by_rail);
}

#[test]
fn trees_between_hosts_are_double_binary() {
    let host = nccl("azure-ndv4.xml");
    for hosts in [2_usize, 5, 64] {
        let text = stdout(&topo(&[&host, "--rings", "--hosts", &hosts.to_string(), "--json", "-"]));
        let value: Value = serde_json::from_str(&text).unwrap();
        let trees = value["search"]["trees"].as_array().unwrap();
        assert_eq!(trees.len(), 2 * value["graphs"]["graphs"][1]["channels"].as_array().unwrap().len());
        let inner: Vec<BTreeSet<u64>> = trees.iter().map(|tree| check_tree(tree, hosts)).collect();
        // Of the two trees of a channel no host has two children in both.
        assert!(inner.chunks(2).all(|pair| pair[0].is_disjoint(&pair[1])), "{hosts}");
    }
}

/// Depth and shape of a tree over hosts of 8; answers the hosts that have two children.
fn check_tree(tree: &Value, hosts: usize) -> BTreeSet<u64> {
    let parents: Vec<Option<usize>> =
        tree["parents"].as_array().unwrap().iter().map(|it| it.as_u64().map(|rank| rank as usize)).collect();
    assert_eq!(parents.len(), 8 * hosts);
    assert_eq!(parents.iter().filter(|parent| parent.is_none()).count(), 1);
    let between_hosts = hosts.ilog2() as usize + 1;
    for rank in 0..parents.len() {
        // Into each host at its head or the one after, and down a chain of eight at the end.
        let depth = std::iter::successors(Some(rank), |rank| parents[*rank]).take(1000).count() - 1;
        assert!(depth <= 2 * between_hosts + 7, "{depth}");
    }
    let edges = tree["edges"].as_array().unwrap();
    assert_eq!(edges.len(), hosts - 1);
    let upper: Vec<u64> = edges.iter().map(|edge| edge["parent"][0].as_u64().unwrap()).collect();
    let children = |host: &u64| upper.iter().filter(|it| *it == host).count();
    assert!(upper.iter().all(|host| children(host) <= 2));
    upper.iter().filter(|host| children(host) == 2).copied().collect()
}

#[test]
fn hosts_of_a_file_are_joined() {
    let host = |hash: u32| {
        format!(
            r#"<cpu host_hash="{hash}" numaid="0"><pci busid="0:1:0.0" class="0x020000" link_speed="16.0 GT/s PCIe"
                 link_width="16"><nic><net name="a" dev="0" speed="100000"/></nic></pci></cpu>"#
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("three.xml");
    std::fs::write(&path, format!("<system version=\"1\">{}{}{}</system>", host(1), host(2), host(3)))
        .unwrap();
    let path = path.to_str().unwrap();
    let text = stdout(&topo(&[path, "--rings"]));
    let end = "\
rings over 3 hosts, 3 ranks
  ring 0: rail 0, 3 hops between hosts
    0 | 1 | 2
trees over 3 hosts, double binary, with chains in the hosts
  tree 0: half of channel 0, 2 ranks deep, 2 edges between hosts
  tree 1: half of channel 0, 2 ranks deep, 2 edges between hosts
";
    assert!(text.ends_with(end), "{text}");
    let out = folder.path().join("graph.xml");
    let out = out.to_str().unwrap();
    assert!(
        refused(&[path, "--rings", "--hosts", "2"]).contains("--hosts 2 is for one host, and these are 3")
    );
    assert!(refused(&[path, "--rings", "--graph-out", out]).contains("of one host, and these are 3"));
}

#[test]
fn what_cannot_be_done_is_said() {
    let host = nccl("yccl-topo.xml");
    for (arguments, words) in [
        (&[&host[..], "--hosts", "2"][..], "--rings"),
        (&[&host, "--rings", "--graph", &nccl("yccl-graph.xml")], "cannot be used with"),
        (
            &[&host, "--rings", "--hosts", "2", "--cluster", "/nowhere.toml"],
            "cannot read cluster file /nowhere.toml",
        ),
        (&[&host, "--rings", "--graph-out", "-", "--json", "-"], "can be standard output"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(words), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no-port.xml");
    std::fs::write(&path, "<system version=\"1\"><cpu numaid=\"0\"/></system>").unwrap();
    let said = refused(&[path.to_str().unwrap(), "--rings", "--hosts", "2"]);
    assert!(said.contains("no rings: host 0: the host has no network port"), "{said}");
}
