//! NCCL's files as real machines have them: each loads, and comes back the same when it is written and read again.

mod fixture;

use std::collections::BTreeMap;

use fixture::{bytes, graphs, names, system};
use rccl_topology::graph::{Hop, Pattern};
use rccl_topology::paths::PathType;
use rccl_topology::system::{Cpu, Gpu, LinkKind, Net, Pci, System};
use rccl_topology::xml::{self, Position};

/// Every device of a system, those below switches too.
fn devices(system: &System) -> Vec<&Pci> {
    fn below<'a>(devices: &'a [Pci], all: &mut Vec<&'a Pci>) {
        for device in devices {
            all.push(device);
            below(&device.devices, all);
        }
    }
    let mut all = Vec::new();
    system.cpus.iter().for_each(|cpu| below(&cpu.devices, &mut all));
    all
}

fn gpus(system: &System) -> Vec<&Gpu> {
    devices(system).into_iter().flat_map(|device| &device.gpus).collect()
}

fn nets(system: &System) -> Vec<&Net> {
    let on_cpus = system.cpus.iter().flat_map(|cpu: &Cpu| &cpu.nics);
    let on_devices = devices(system).into_iter().flat_map(|device| &device.nics);
    on_devices.chain(on_cpus).flat_map(|nic| &nic.nets).collect()
}

/// NUMA nodes, PCI devices, GPUs, links of GPUs, ports.
fn counts(system: &System) -> [usize; 5] {
    let links = gpus(system).iter().map(|gpu| gpu.links.len()).sum();
    [system.cpus.len(), devices(system).len(), gpus(system).len(), links, nets(system).len()]
}

#[test]
fn every_file_holds_what_its_machine_has() {
    for (name, expected) in [
        ("azure-ndv4.xml", [4, 20, 0, 0, 0]),
        ("aws-p4d-24xl.xml", [2, 16, 0, 0, 0]),
        ("oci-h100.xml", [2, 40, 8, 32, 16]),
        ("amd-8p-rome-n4.xml", [7, 17, 8, 16, 1]),
        ("tcp-only-61-nets.xml", [4, 5, 4, 0, 61]),
        ("yccl-topo.xml", [2, 6, 4, 0, 10]),
    ] {
        assert_eq!(counts(&system(name)), expected, "{name}");
    }
}

#[test]
fn every_file_comes_back_the_same() {
    let names = names();
    assert!(names.len() >= 7, "{names:?}");
    for name in names.iter().filter(|name| !name.contains("malformed")) {
        if name.contains("graph") {
            let first = graphs(name);
            let again = xml::parse_graphs(xml::write_graphs(&first).as_bytes()).unwrap();
            assert_eq!((again.value, again.notes), (first, vec![]), "{name}");
        } else {
            let first = system(name);
            let again = xml::parse_system(xml::write_system(&first).as_bytes()).unwrap();
            assert_eq!((again.value, again.notes), (first, vec![]), "{name}");
        }
    }
}

/// Elements with their attributes, each with how often it is there, in one notation of numbers. This reads the text by
/// itself, so a value that both reader and writer pass over is found.
fn elements(text: &str) -> BTreeMap<String, usize> {
    let document = roxmltree::Document::parse(text).unwrap();
    let mut elements = BTreeMap::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let mut attributes: Vec<String> =
            node.attributes().map(|it| format!("{}={}", it.name(), normal(it.name(), it.value()))).collect();
        attributes.sort();
        *elements.entry(format!("{} {}", node.tag_name().name(), attributes.join(" "))).or_insert(0) += 1;
    }
    elements
}

fn normal(name: &str, value: &str) -> String {
    let number = value.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match name {
        "affinity" => value.trim_start_matches(['0', ',']).to_owned(),
        "link_speed" => value.split('.').next().unwrap_or_default().replace(" GT/s", ""),
        _ => match (number, value.parse::<f64>()) {
            (Some(number), _) => number.to_string(),
            (None, Ok(number)) => number.to_string(),
            (None, Err(_)) => value.to_owned(),
        },
    }
}

#[test]
fn no_attribute_and_no_element_is_lost() {
    for name in names().iter().filter(|name| !name.contains("malformed")) {
        let original = String::from_utf8(bytes(name)).unwrap();
        let written = match name.contains("graph") {
            true => xml::write_graphs(&graphs(name)),
            false => xml::write_system(&system(name)),
        };
        assert_eq!(elements(&written), elements(&original), "{name}");
    }
}

#[test]
fn the_real_files_hold_nothing_unknown() {
    for name in names().iter().filter(|name| !name.contains("malformed")) {
        let notes = match name.contains("graph") {
            true => xml::parse_graphs(&bytes(name)).unwrap().notes,
            false => xml::parse_system(&bytes(name)).unwrap().notes,
        };
        assert_eq!(notes, [], "{name}");
    }
}

#[test]
fn values_mean_what_the_file_says() {
    let oci = system("oci-h100.xml");
    let cpu = &oci.cpus[0];
    assert_eq!((cpu.numa, cpu.family, cpu.model), (Some(0), Some(6), Some(143)));
    assert_eq!(cpu.affinity.as_ref().unwrap().to_string(), "0-55,112-167");
    let adapter = &cpu.devices[0].devices[1].devices[0];
    let port = &adapter.nics[0].nets[1];
    assert_eq!((port.name.as_deref(), port.dev, port.speed), (Some("mlx5_1"), Some(1), Some(180_000)));
    assert_eq!(port.guid.unwrap().to_string(), "0x9a70500003ae6d94");

    let amd = system("amd-8p-rome-n4.xml");
    let gpu = gpus(&amd)[0];
    assert_eq!((amd.version, gpu.gcn.as_deref(), gpu.arch), (Some(2), Some("906"), Some(38911)));
    assert_eq!((gpu.links[0].kind, gpu.links[0].count), (LinkKind::Xgmi, Some(1)));

    let found = graphs("yccl-graph.xml");
    let ring = &found.graphs[0];
    assert_eq!((ring.pattern, ring.type_intra), (Pattern::Ring, Some(PathType::Sys)));
    // Written 0, 0x1, 0x2, 0x3.
    let order: Vec<u64> = ring.channels[0]
        .hops
        .iter()
        .map(|hop| match hop {
            Hop::Gpu { dev, .. } | Hop::Net { dev } => *dev,
            Hop::Cpu { .. } => panic!("NCCL has no such hops: {hop}"),
        })
        .collect();
    assert_eq!(order, [0, 1, 2, 3]);
}

#[test]
fn an_unclosed_element_is_named_with_line_and_column() {
    let path = fixture::path("malformed-ndv6.xml");
    let error = xml::load_system(&path).unwrap_err();
    assert_eq!(error.position, Some(Position { line: 3, column: 5 }));
    let text = error.to_string();
    let start = format!("{}:3:5: <pci> is never closed, nor 3 more after it (4:5, 5:5, 6:5)", path.display());
    assert!(text.starts_with(&start), "{text}");
    assert!(
        text.ends_with("</cpu> comes at 7:3 first; write </pci>, or <pci .../> where nothing is inside"),
        "{text}"
    );
}
