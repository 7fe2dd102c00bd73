//! Pictures: well-formed SVG in which everything is that the files hold.

mod fixture;

use fixture::{graphs, names, system};
use rccl_topology::draw;
use rccl_topology::system::System;
use roxmltree::{Document, Node};

fn all<'d>(document: &'d Document<'d>, name: &'static str) -> impl Iterator<Item = Node<'d, 'd>> {
    document.descendants().filter(move |node| node.tag_name().name() == name)
}

fn texts(document: &Document<'_>) -> Vec<String> {
    all(document, "text").map(|node| node.text().unwrap_or_default().to_owned()).collect()
}

/// Lines; the arrow's head has no stroke.
fn lines(document: &Document<'_>) -> usize {
    all(document, "path").filter(|node| node.attribute("stroke").is_some()).count()
}

#[test]
fn every_file_is_drawn_within_its_picture() {
    for name in names().iter().filter(|name| !name.contains("malformed")) {
        let svg = match name.contains("graph") {
            true => draw::svg(None, Some(&graphs(name))),
            false => draw::svg(Some(&system(name)), None),
        };
        let document = Document::parse(&svg).unwrap();
        let number = |node: Node<'_, '_>, name: &str| node.attribute(name).unwrap().parse::<f64>().unwrap();
        let page = (number(document.root_element(), "width"), number(document.root_element(), "height"));
        for node in all(&document, "rect") {
            assert!(number(node, "x") + number(node, "width") <= page.0, "{name}");
            assert!(number(node, "y") + number(node, "height") <= page.1, "{name}");
        }
    }
}

#[test]
fn every_device_and_port_has_its_box() {
    let svg = draw::svg(Some(&system("oci-h100.xml")), None);
    let document = Document::parse(&svg).unwrap();
    let texts = texts(&document);
    for words in
        ["NUMA node 1", "CPUs 0-55,112-167", "GPU 0000:0f:00.0", "18 x NVLink to switches", "net 3 mlx5_4"]
    {
        assert!(texts.iter().any(|text| text == words), "{words}: {texts:?}");
    }
    // The page, the host, 2 NUMA nodes, 40 devices, 16 ports.
    assert_eq!(all(&document, "rect").count(), 1 + 1 + 2 + 40 + 16);
    assert_eq!(lines(&document), 0);
}

#[test]
fn links_between_gpus_are_lines() {
    let svg = draw::svg(Some(&system("amd-8p-rome-n4.xml")), None);
    // 16 ends.
    assert_eq!(lines(&Document::parse(&svg).unwrap()), 8);
}

#[test]
fn rings_come_back_and_trees_do_not() {
    let svg = draw::svg(Some(&system("yccl-topo.xml")), Some(&graphs("yccl-graph.xml")));
    let document = Document::parse(&svg).unwrap();
    let texts = texts(&document);
    let titles: Vec<&String> =
        texts.iter().filter(|text| text.contains("channel") && text.contains(':')).collect();
    assert_eq!(
        titles,
        [
            "ring: 1 channel, 10 GB/s inside of a host (SYS), 10 GB/s between hosts (PIX)",
            "balanced tree: 1 channel, 10 GB/s inside of a host (SYS), 10 GB/s between hosts (PIX)",
            "collnet direct: no channels",
            "tree: no channels",
            "nvls: no channels",
        ]
    );
    // 4 in the ring, 3 in the tree.
    assert_eq!(lines(&document), 7);
    assert_eq!(all(&document, "path").filter(|node| node.attribute("marker-end").is_some()).count(), 4);
}

#[test]
fn names_cannot_break_out_of_the_picture() {
    let mut machine = system("yccl-topo.xml");
    machine.cpus[0].vendor = Some("<script>&\u{0}\"".to_owned());
    let svg = draw::svg(Some(&machine), None);
    assert!(!svg.contains("<script"));
    assert!(texts(&Document::parse(&svg).unwrap()).contains(&"x86_64 <script>&\u{fffd}\"".to_owned()));
    assert!(Document::parse(&draw::svg(Some(&System::default()), None)).is_ok());
}
