//! What is shown of captured and made-up hosts, word by word.
//!
//! With `WRITE_GOLDEN=1` the expected texts are written instead of compared; look at the difference.

use super::*;
use crate::tree::Tree;
use rccl_topology::Neighbour;
use rccl_topology::processors::Processors;

fn subject(tree: &Tree, neighbours: Vec<Neighbour>) -> Subject {
    let host = ThisHost { processors: Processors::discover(tree.root()), host: tree.host(), neighbours };
    Subject::of(tree.root(), host)
}

/// Compares what people are shown with the text that is kept.
fn golden(name: &str, subject: &Subject) {
    let text = people(subject, None);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/topo/tests/{name}.txt"));
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == kept, "{} is not what is shown:\n{text}", path.display());
}

#[test]
fn a_virtual_machine() {
    golden("vm", &subject(&Tree::captured("vm"), Vec::new()));
}

#[test]
fn two_sockets_with_a_bond_and_vlans() {
    let neighbour = |interface: &str, system: &str, port: &str| Neighbour {
        interface: interface.into(),
        system: Some(system.into()),
        chassis: Some("02:00:00:00:00:01".into()),
        port: Some(port.into()),
    };
    let neighbours =
        vec![neighbour("eno1np0", "leaf-a", "Ethernet1/7"), neighbour("ens5np0", "leaf-b", "Ethernet1/7")];
    golden("two-sockets-bond", &subject(&Tree::captured("two-sockets-bond"), neighbours));
}

#[test]
fn four_rdma_adapters() {
    golden("four-rdma", &subject(&Tree::captured("four-rdma"), Vec::new()));
}

#[test]
fn a_container_without_pci() {
    golden("container", &subject(&Tree::captured("container"), Vec::new()));
}

#[test]
fn programs_get_limits_distances_and_switches() {
    let subject = subject(
        &Tree::captured("container"),
        Neighbour::parse(
            r#"{"lldp":[{"interface":[{"name":"eth0","chassis":[{"name":[{"value":"leaf1"}]}]}]}]}"#,
        ),
    );
    let value: serde_json::Value = serde_json::from_str(&json(&subject, None)).unwrap();
    let host = &value["host"];
    let limits =
        serde_json::json!({"affinity": "4-7", "cpuset": "4-7", "quota": 2.5, "memory": 8_589_934_592_u64});
    assert_eq!(host["processors"]["limits"], limits);
    assert_eq!(host["processors"]["nodes"][1]["distances"], serde_json::json!([[0, 12], [1, 10]]));
    let cache = serde_json::json!({"level": 3, "kind": "unified", "bytes": 33_554_432, "cpus": "0-15"});
    assert_eq!(host["processors"]["caches"][0], cache);
    assert_eq!(host["neighbours"], serde_json::json!([{"interface": "eth0", "system": "leaf1"}]));
    assert_eq!(host["interfaces"][0]["linked"], 14);
    assert_eq!(host["network"]["addresses"][1]["ip"], "10.244.3.9");
    assert_eq!(value["system"]["cpus"].as_array().unwrap().len(), 2);
}
