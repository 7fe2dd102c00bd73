//! The report on made-up hosts, word by word, and what is found between them.
//!
//! With `WRITE_GOLDEN=1` the expected texts in `tests/golden` are written instead of compared; look at the difference.

mod between;

use super::check::check;
use super::facts::{CgroupLimit, Facts, Library, Locked, OpenPort, Opened, SelfTest};
use super::finding::Severity;
use super::report::Report;
use super::text;
use crate::tree::{Tree, connectx};
use rccl_topology::{Choice, Prefix, Wishes, choose, roce_mtu};
use std::path::Path;

/// A host on which everything works that can.
fn working(tree: &Tree, wishes: &Wishes) -> (Facts, Choice) {
    let host = tree.host();
    let choice = choose(&host, wishes);
    let open = |device: &rccl_topology::Device| Opened {
        name: device.name.clone(),
        file: "/dev/infiniband/uverbs0".into(),
        error: None,
        ports: device
            .ports
            .iter()
            .map(|port| {
                let interface = port.gids.iter().find_map(|entry| host.interface(entry.interface.as_ref()?));
                let mtu = interface.and_then(|interface| roce_mtu(interface.mtu?)).unwrap_or(4096);
                OpenPort { number: port.number, active_mtu: mtu, max_mtu: 4096 }
            })
            .collect(),
        tests: choice
            .rails
            .iter()
            .filter(|rail| rail.device == device.name)
            .map(|rail| SelfTest {
                port: rail.port,
                index: rail.addresses[0].index,
                to: None,
                outcome: Ok(25),
            })
            .collect(),
    };
    let mut adverts = choice.adverts();
    for advert in &mut adverts {
        let mtu = advert.mtu.or(Some(4096));
        advert.mtu = mtu;
    }
    let facts = Facts {
        name: "node1".into(),
        identity: "one".into(),
        pid: 4711,
        kernel: "6.1.0".into(),
        version: "0.1.0".into(),
        net: "auto".into(),
        library: Library {
            path: "libibverbs.so.1".into(),
            fork: Some("unneeded".into()),
            ..Library::default()
        },
        devices: host.devices.iter().map(open).collect(),
        adverts,
        host,
        ..Facts::default()
    };
    (facts, choice)
}

fn report(facts: &Facts, choice: &Choice) -> Report {
    Report::new(facts, choice, check(facts, choice))
}

/// Compares a host's text with the one that is kept, and says whether the host is healthy.
fn golden(name: &str, facts: &Facts, choice: &Choice) -> bool {
    let report = report(facts, choice);
    let text = text::host(&report);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/doctor/tests/golden/{name}.txt"));
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == kept, "{} is not what is printed:\n{text}", path.display());
    // What is printed for programs can be read back.
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    report.healthy
}

fn default(tree: &Tree) -> (Facts, Choice) {
    working(tree, &Wishes::default())
}

#[test]
fn a_connectx_that_is_set_up_well() {
    let tree = connectx("10.7.0.1", 9000);
    tree.file("sys/class/infiniband/mlx5_0/tc/1/traffic_class", "Global tc=106");
    let (facts, choice) = default(&tree);
    assert!(golden("connectx", &facts, &choice));
}

#[test]
fn a_connectx_whose_network_is_not_set_up_for_it() {
    let tree = connectx("10.7.0.1", 1500);
    tree.file("sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos", "104")
        .file("sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_mode", "IB/RoCE v1")
        .file("sys/class/net/eth2/qos/trust", "pcp")
        .file("sys/class/net/eth2/qos/pfc", "0 0 0 0 1 0 0 0")
        .file("sys/class/infiniband/mlx5_0/ports/1/hw_counters/local_ack_timeout_err", "3");
    for priority in 0..8 {
        tree.file(&format!("sys/class/net/eth2/ecn/roce_np/enable/{priority}"), "0");
    }
    let (facts, choice) = default(&tree);
    assert!(golden("network", &facts, &choice), "warnings break nothing");
}

#[test]
fn a_bond() {
    let mut tree = Tree::new();
    tree.interface("bond0", 9000, &["10.7.0.1/24"]);
    tree.file("sys/class/net/bond0/bonding/mode", "802.3ad 4")
        .link("sys/class/net/bond0/lower_eth2", "../eth2")
        .link("sys/class/net/bond0/lower_eth3", "../eth3");
    tree.device(
        "mlx5_bond_0",
        &[("fe80::1", "v2", "bond0"), ("10.7.0.1", "v1", "bond0"), ("10.7.0.1", "v2", "bond0")],
    );
    let (facts, choice) = default(&tree);
    assert!(golden("bond", &facts, &choice));
}

#[test]
fn a_container_without_the_device_files() {
    let tree = connectx("10.7.0.1", 9000);
    let (mut facts, choice) = default(&tree);
    facts.container = Some("docker".into());
    facts.devices.clear();
    facts.unusable.insert(
        "mlx5_0".into(),
        "mlx5_0 has no device file /dev/infiniband/uverbs0: in a container pass --device=/dev/infiniband"
            .into(),
    );
    assert!(!golden("container", &facts, &choice));
}

#[test]
fn a_container_with_another_network() {
    let mut tree = Tree::new();
    tree.interface("eth0", 1500, &["172.17.0.2/16"]);
    tree.device("mlx5_0", &[("10.7.0.1", "v2", "eth2")]);
    let (mut facts, choice) = default(&tree);
    facts.container = Some("docker".into());
    assert!(!golden("namespace", &facts, &choice));
}

#[test]
fn version_1_only() {
    let mut tree = Tree::new();
    tree.interface("eth2", 9000, &["10.7.0.1/24"]);
    tree.device("mlx4_0", &[("fe80::1", "v1", "eth2"), ("10.7.0.1", "v1", "eth2")]);
    let (facts, choice) = default(&tree);
    assert!(golden("version1", &facts, &choice));
}

#[test]
fn link_local_only() {
    let mut tree = Tree::new();
    tree.interface("eth2", 9000, &["fe80::1/64"]);
    tree.device("mlx5_0", &[("fe80::1", "v1", "eth2"), ("fe80::1", "v2", "eth2")]);
    let (facts, choice) = default(&tree);
    assert!(!golden("link-local", &facts, &choice));
}

#[test]
fn a_port_that_is_down_beside_one_that_is_not() {
    let mut tree = connectx("10.7.0.1", 9000);
    tree.interface("eth3", 9000, &["10.7.1.1/24"]);
    tree.device("mlx5_1", &[("10.7.1.1", "v2", "eth3")]);
    tree.file("sys/class/infiniband/mlx5_1/ports/1/state", "1: DOWN")
        .file("sys/class/infiniband/mlx5_1/ports/1/phys_state", "3: Disabled");
    let (facts, choice) = default(&tree);
    assert!(golden("port-down", &facts, &choice));

    tree.file("sys/class/infiniband/mlx5_0/ports/1/state", "1: DOWN");
    let (facts, choice) = default(&tree);
    assert!(!report(&facts, &choice).healthy, "no port is left");
}

#[test]
fn several_devices_and_lists_of_them() {
    let mut tree = Tree::new();
    for number in [0, 1, 2, 10] {
        let (device, interface, address) =
            (format!("mlx5_{number}"), format!("eth{number}"), format!("10.7.{number}.1"));
        tree.interface(&interface, 9000, &[&format!("{address}/24")]);
        tree.device(&device, &[(&address, "v2", &interface)]);
    }
    tree.file("sys/class/infiniband/mlx5_10/ports/1/rate", "25 Gb/sec (1X EDR)");
    let (facts, choice) = default(&tree);
    assert!(golden("several", &facts, &choice));
    for (name, list) in [("several-without", "^=mlx5_1"), ("several-named", "=mlx5_2:1,mlx5_7,mlx5_10:2")] {
        let wishes = Wishes { devices: list.parse().unwrap(), ..Wishes::default() };
        let (mut facts, choice) = working(&tree, &wishes);
        facts.settings.insert("RCCL_IB_HCA".into(), list.into());
        assert!(golden(name, &facts, &choice));
    }
}

#[test]
fn a_library_that_is_missing() {
    let (mut facts, choice) = default(&connectx("10.7.0.1", 9000));
    facts.devices.clear();
    facts.library = Library {
        path: "libibverbs.so.1".into(),
        error: Some("libibverbs.so.1: not found (no such file); install libibverbs".into()),
        ..Library::default()
    };
    assert!(!golden("library", &facts, &choice));
    facts.net = "verbs".into();
    assert!(report(&facts, &choice).verdict.ends_with("because RCCL_NET=verbs demands RDMA."));
}

#[test]
fn limits_that_are_too_low() {
    let (mut facts, choice) = default(&connectx("10.7.0.1", 9000));
    facts.memory = Locked { soft: Some(64 << 10), hard: Some(64 << 10), pinned: 0, exempt: false };
    facts.cgroup.insert("mlx5_0".into(), CgroupLimit { handles: Some(2), objects: Some(2000) });
    facts.devices[0].tests[0].outcome = Err("registering 65536 bytes on mlx5_0: the limit is reached".into());
    assert!(!golden("limits", &facts, &choice));
    let limited = |soft: u64, exempt| {
        let mut facts = facts.clone();
        facts.cgroup.clear();
        facts.devices[0].tests[0].outcome = Ok(25);
        facts.memory = Locked { soft: Some(soft), hard: None, pinned: 0, exempt };
        let findings = check(&facts, &choice);
        findings.iter().find(|finding| finding.code == "locked-memory").map(|finding| finding.severity)
    };
    assert_eq!(limited(64 << 10, true), None);
    assert_eq!(limited(8 << 20, false), Some(Severity::Error));
    assert_eq!(limited(64 << 20, false), Some(Severity::Warning));
    assert_eq!(limited(4 << 30, false), None);
}

#[test]
fn a_device_that_may_not_be_opened() {
    let (mut facts, choice) = default(&connectx("10.7.0.1", 9000));
    facts.devices[0].error =
        Some("ibv_open_device on mlx5_0 (/dev/infiniband/uverbs0): Permission denied (os error 13)".into());
    (facts.devices[0].ports, facts.devices[0].tests) = (Vec::new(), Vec::new());
    assert!(!golden("permission", &facts, &choice));
}

#[test]
fn hosts_without_a_device() {
    let (mut facts, choice) = default(&Tree::new());
    assert!(golden("none", &facts, &choice), "TCP is used, and nothing else was asked for");
    facts.net = "verbs".into();
    assert!(!golden("none-demanded", &facts, &choice));
    facts.net = "auto".into();
    facts.idle_hardware.insert("0000:3b:00.0".into(), "mlx5_core".into());
    assert!(!golden("idle-hardware", &facts, &choice));
}

#[test]
fn what_settings_switch_off_is_no_error() {
    let wishes = Wishes { disabled: true, ..Wishes::default() };
    let (mut facts, choice) = working(&connectx("10.7.0.1", 9000), &wishes);
    facts.settings.insert("RCCL_IB_DISABLE".into(), "1".into());
    assert!(golden("switched-off", &facts, &choice));
}

#[test]
fn settings_that_leave_nothing_are_an_error() {
    let wishes = Wishes { range: Some("192.168.0.0/16".parse::<Prefix>().unwrap()), ..Wishes::default() };
    let (mut facts, choice) = working(&connectx("10.7.0.1", 9000), &wishes);
    facts.settings.insert("RCCL_IB_ADDR_RANGE".into(), "192.168.0.0/16".into());
    assert!(!golden("range", &facts, &choice));
}

#[test]
fn a_port_that_did_not_follow_its_interface() {
    let (mut facts, choice) = default(&connectx("10.7.0.1", 9000));
    facts.devices[0].ports[0].active_mtu = 1024;
    let findings = check(&facts, &choice);
    let codes: Vec<&str> = findings.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, ["mtu-not-taken", "traffic-class-unset"]);
}

#[test]
fn a_packet_filter_matters_to_devices_in_software() {
    let mut tree = Tree::new();
    tree.interface("eth0", 4200, &["10.7.0.1/24"]);
    tree.device("rxe0", &[("10.7.0.1", "v2", "eth0")]);
    let (mut facts, choice) = default(&tree);
    facts.filter = Some("a rule of nftables: udp dport 4791 drop".into());
    facts.library.fork = Some("disabled".into());
    assert!(golden("software", &facts, &choice));
}
