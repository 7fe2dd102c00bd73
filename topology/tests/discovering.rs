//! What is read of made-up hosts.

mod tree;

use rccl_topology::{Congestion, GidKind, Host, LinkLayer, Network, NodeKind, PortState};
use tree::{Tree, connectx};

#[test]
fn a_connectx_is_read_whole() {
    let tree = connectx("10.7.0.1", 9000);
    let port = "sys/class/infiniband/mlx5_0/ports/1";
    tree.file("sys/class/infiniband/mlx5_0/tc/1/traffic_class", "Global tc=106")
        .file("sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_mode", "RoCE v2")
        .file("sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos", "104")
        .file(&format!("{port}/hw_counters/out_of_sequence"), "17")
        .file(&format!("{port}/hw_counters/lifespan"), "10")
        .file("sys/class/net/eth2/qos/trust", "dscp")
        .file("sys/class/net/bonding_masters", "");
    for priority in 0..8 {
        let enabled = if priority == 3 { "1" } else { "0" };
        tree.file(&format!("sys/class/net/eth2/ecn/roce_np/enable/{priority}"), enabled);
    }
    let host = tree.host();
    let [device] = &host.devices[..] else { panic!("{host:?}") };
    assert_eq!((device.name.as_str(), &device.kind), ("mlx5_0", &NodeKind::ChannelAdapter));
    assert_eq!(device.firmware.as_deref(), Some("20.31.1014"));
    assert_eq!(device.board.as_deref(), Some("MT_0000000359"));
    assert_eq!(device.driver.as_deref(), Some("mlx5_core"));
    assert_eq!((device.pci.as_deref(), device.numa_node), (Some("0000:3b:00.0"), Some(0)));
    let [port] = &device.ports[..] else { panic!("{device:?}") };
    assert_eq!((port.number, &port.state, port.link_layer), (1, &PortState::Active, LinkLayer::Ethernet));
    assert_eq!((port.physical.as_deref(), port.rate, port.lid), (Some("LinkUp"), Some(100.0), 0));
    assert_eq!(port.forced_traffic_class, Some(106));
    let defaults = port.connection_defaults.as_ref().unwrap();
    assert_eq!((defaults.roce_mode, defaults.traffic_class), (Some(GidKind::RoceV2), Some(104)));
    assert_eq!(port.counters.iter().collect::<Vec<_>>(), [(&"out_of_sequence".to_owned(), &17)]);
    assert_eq!(port.partition_keys.len(), 1);
    let gids: Vec<_> = port.gids.iter().map(|e| (e.index, e.gid.to_string(), e.kind)).collect();
    let expected = [
        (0, "fe80::1", GidKind::RoceV1),
        (1, "fe80::1", GidKind::RoceV2),
        (2, "10.7.0.1", GidKind::RoceV1),
        (3, "10.7.0.1", GidKind::RoceV2),
    ];
    assert_eq!(gids, expected.map(|(index, gid, kind)| (index, gid.to_owned(), kind)));
    let [interface] = &host.interfaces[..] else { panic!("{host:?}") };
    assert_eq!((interface.name.as_str(), interface.mtu, interface.carrier), ("eth2", Some(9000), Some(true)));
    let expected = Congestion { notifying: Some(8), trust: Some("dscp".into()), ..Congestion::default() };
    assert_eq!(interface.congestion, expected);
}

#[test]
fn what_cannot_be_read_is_absent() {
    let tree = Tree::new();
    tree.file("sys/class/infiniband/odd0/ports/1/gids/0", "fe80:0000:0000:0000:0000:0000:0000:0001")
        .file("sys/class/infiniband/odd0/ports/1/gids/1", "garbage")
        .file("sys/class/infiniband/odd0/ports/x/state", "4: ACTIVE")
        .file("sys/class/net/eth0/speed", "-1");
    let host = tree.host();
    let device = &host.devices[0];
    assert_eq!(device.kind, NodeKind::Other(String::new()));
    assert_eq!((&device.firmware, &device.pci, device.numa_node), (&None, &None, None));
    assert_eq!(device.ports.len(), 1);
    // An address of unknown type is of no use.
    assert_eq!((device.ports[0].gids.len(), device.ports[0].link_layer), (0, LinkLayer::Unknown));
    assert_eq!((host.interfaces[0].speed, host.interfaces[0].mtu), (None, None));
}

#[test]
fn bonds_and_vlans_name_what_they_rest_on() {
    let mut tree = Tree::new();
    tree.interface("bond0", 9000, &["10.7.0.1/24"]);
    tree.interface("eth2", 9000, &[]);
    tree.interface("bond0.100", 9000, &["10.8.0.1/24"]);
    tree.file("sys/class/net/bond0/bonding/mode", "802.3ad 4")
        .link("sys/class/net/bond0/lower_eth2", "../eth2")
        .link("sys/class/net/eth2/master", "../bond0")
        .link("sys/class/net/bond0.100/lower_bond0", "../bond0")
        .file("sys/class/net/bond0.100/uevent", "DEVTYPE=vlan\nINTERFACE=bond0.100");
    let host = tree.host();
    let bond = host.interface("bond0").unwrap();
    assert_eq!(
        (bond.lower.as_slice(), bond.bond_mode.as_deref()),
        (&["eth2".to_owned()][..], Some("802.3ad"))
    );
    assert_eq!(host.interface("eth2").unwrap().master.as_deref(), Some("bond0"));
    assert_eq!(host.interface("bond0.100").unwrap().kind.as_deref(), Some("vlan"));
}

/// Whatever this machine is, reading it does not fail, and gives the same twice.
#[test]
fn this_machine_can_be_read() {
    let read = || Host::discover(std::path::Path::new("/"), Network::of_this_host().unwrap());
    let host = read();
    assert!(host.interface("lo").is_some(), "{host:?}");
    let names = |host: &Host| host.devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&host), names(&read()));
    if std::env::var_os("RCCL_TEST_RDMA").is_some() {
        let choice = rccl_topology::choose(&host, &rccl_topology::Wishes::default());
        assert!(!choice.rails.is_empty(), "RCCL_TEST_RDMA is set, and no port can be used: {choice:?}");
    }
}
