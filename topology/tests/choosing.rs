//! What is chosen on made-up hosts, and why not the rest.

mod tree;

use rccl_topology::{Choice, Family, GidKind, RoceVersion, TrafficClass, Wishes, choose};
use tree::{Tree, connectx};

/// Each rail as `number device:port index address index address`.
fn rails(choice: &Choice) -> Vec<String> {
    let show = |rail: &rccl_topology::Rail| {
        let addresses = rail.addresses.iter().map(|address| format!(" {} {}", address.index, address.gid));
        format!("{} {}:{}{}", rail.number, rail.device, rail.port, addresses.collect::<String>())
    };
    choice.rails.iter().map(show).collect()
}

/// Each rejection as `device[:port][ index address]: reason`.
fn rejected(choice: &Choice) -> Vec<String> {
    let show = |rejected: &rccl_topology::Rejected| {
        let port = rejected.port.map_or_else(String::new, |port| format!(":{port}"));
        let gid = rejected.gid.map_or_else(String::new, |(index, gid)| format!(" {index} {gid}"));
        format!("{}{port}{gid}: {}", rejected.device, rejected.reason)
    };
    choice.rejected.iter().map(show).collect()
}

fn wishes(change: impl FnOnce(&mut Wishes)) -> Wishes {
    let mut wishes = Wishes::default();
    change(&mut wishes);
    wishes
}

#[test]
fn a_connectx_uses_version_2_of_its_ipv4_address() {
    let host = connectx("10.7.0.1", 9000).host();
    let choice = choose(&host, &Wishes::default());
    assert_eq!(rails(&choice), ["0 mlx5_0:1 3 10.7.0.1 2 10.7.0.1"]);
    let rail = &choice.rails[0];
    assert_eq!((rail.addresses[0].kind, rail.addresses[1].kind), (GidKind::RoceV2, GidKind::RoceV1));
    assert_eq!((rail.addresses[0].mtu, rail.numa_node, rail.rate), (Some(4096), Some(0), Some(100.0)));
    assert_eq!(rail.addresses[0].subnet, Some("10.7.0.0/24".parse().unwrap()));
    assert_eq!(
        rejected(&choice),
        [
            "mlx5_0:1 0 fe80::1: it is link-local, which leads to no other network",
            "mlx5_0:1 1 fe80::1: it is link-local, which leads to no other network",
        ]
    );
    assert!(choice.unmatched.is_empty());
}

#[test]
fn ipv4_goes_before_global_ipv6_and_that_before_unique_local() {
    let mut tree = Tree::new();
    tree.interface("eth2", 4200, &["10.7.0.1/24", "fd07::1/64", "2001:db8::1/64"]);
    tree.device(
        "mlx5_0",
        &[("fd07::1", "v2", "eth2"), ("2001:db8::1", "v2", "eth2"), ("10.7.0.1", "v2", "eth2")],
    );
    let host = tree.host();
    assert_eq!(rails(&choose(&host, &Wishes::default())), ["0 mlx5_0:1 2 10.7.0.1 1 2001:db8::1 0 fd07::1"]);
    let ipv6 = choose(&host, &wishes(|wishes| wishes.family = Some(Family::V6)));
    assert_eq!(rails(&ipv6), ["0 mlx5_0:1 1 2001:db8::1 0 fd07::1"]);
    assert_eq!(
        rejected(&ipv6),
        ["mlx5_0:1 2 10.7.0.1: RCCL_IB_ADDR_FAMILY=AF_INET6 asks for the other family"]
    );
    let range = choose(&host, &wishes(|wishes| wishes.range = Some("fd00::/8".parse().unwrap())));
    assert_eq!(rails(&range), ["0 mlx5_0:1 0 fd07::1"]);
    assert_eq!(rejected(&range)[0], "mlx5_0:1 1 2001:db8::1: it is outside of RCCL_IB_ADDR_RANGE=fd00::/8");
}

#[test]
fn a_gid_index_overrides_everything_but_reach() {
    let host = connectx("10.7.0.1", 9000).host();
    let at = |index| {
        choose(
            &host,
            &wishes(|wishes| {
                wishes.gid_index = Some(index);
                wishes.family = Some(Family::V6);
            }),
        )
    };
    assert_eq!(rails(&at(2)), ["0 mlx5_0:1 2 10.7.0.1"]);
    assert!(
        rejected(&at(2))
            .contains(&"mlx5_0:1 3 10.7.0.1: RCCL_IB_GID_INDEX=2 asks for another one".to_owned())
    );
    assert_eq!(rails(&at(0)), [""; 0]);
    assert_eq!(rejected(&at(0))[0], "mlx5_0:1: none of its addresses can be used");
    assert_eq!(rejected(&at(9))[0], "mlx5_0:1: its GID table has nothing at index 9 (RCCL_IB_GID_INDEX)");
}

#[test]
fn version_1_is_used_where_nothing_else_is_or_it_is_asked_for() {
    let mut tree = Tree::new();
    tree.interface("eth2", 1500, &["10.7.0.1/24"]);
    tree.device("mlx4_0", &[("fe80::1", "v1", "eth2"), ("10.7.0.1", "v1", "eth2")]);
    let choice = choose(&tree.host(), &Wishes::default());
    assert_eq!(rails(&choice), ["0 mlx4_0:1 1 10.7.0.1"]);
    assert_eq!(choice.rails[0].addresses[0].mtu, Some(1024));
    let two = choose(&tree.host(), &wishes(|wishes| wishes.roce_version = Some(RoceVersion::V2)));
    assert_eq!(
        rejected(&two),
        [
            "mlx4_0:1: none of its addresses can be used",
            "mlx4_0:1 0 fe80::1: it is link-local, which leads to no other network",
            "mlx4_0:1 1 10.7.0.1: it is RoCE v1, and RCCL_IB_ROCE_VERSION_NUM=2 asks for the other version",
        ]
    );
    let one = wishes(|wishes| wishes.roce_version = Some(RoceVersion::V1));
    assert_eq!(rails(&choose(&connectx("10.7.0.1", 9000).host(), &one)), ["0 mlx5_0:1 2 10.7.0.1"]);
}

#[test]
fn link_local_addresses_alone_are_not_enough() {
    let mut tree = Tree::new();
    tree.interface("eth2", 1500, &["fe80::1/64", "169.254.1.1/16"]);
    tree.device("mlx5_0", &[("fe80::1", "v2", "eth2"), ("169.254.1.1", "v2", "eth2")]);
    let choice = choose(&tree.host(), &Wishes::default());
    assert_eq!(rails(&choice), [""; 0]);
    assert_eq!(rejected(&choice)[0], "mlx5_0:1: none of its addresses can be used");
    assert_eq!(rejected(&choice).len(), 3);
}

#[test]
fn lists_of_devices_choose_and_number() {
    let mut tree = Tree::new();
    for (number, name) in ["mlx5_0", "mlx5_1", "mlx5_2", "mlx5_10", "rxe0"].into_iter().enumerate() {
        let address = format!("10.7.{number}.1");
        tree.interface(name, 4200, &[&format!("{address}/24")]);
        tree.device(name, &[(&address, "v2", name)]);
    }
    tree.port("mlx5_1", 2, &[("10.7.9.1", "v2", "mlx5_1")]);
    let host = tree.host();
    let devices = |list: &str| {
        let choice = choose(&host, &wishes(|wishes| wishes.devices = list.parse().unwrap()));
        let rails = choice.rails.iter().map(|rail| format!("{} {}:{}", rail.number, rail.device, rail.port));
        (rails.collect::<Vec<_>>().join(", "), choice)
    };
    assert_eq!(devices("mlx5_1").0, "0 mlx5_1:1, 1 mlx5_1:2, 2 mlx5_10:1");
    assert_eq!(devices("=mlx5_1").0, "0 mlx5_1:1, 1 mlx5_1:2");
    assert_eq!(devices("=mlx5_1:2,rxe0:1").0, "0 mlx5_1:2, 1 rxe0:1");
    assert_eq!(devices("^mlx5").0, "0 rxe0:1");
    assert_eq!(devices("^=mlx5_1,rxe0").0, "0 mlx5_0:1, 1 mlx5_2:1, 2 mlx5_10:1");
    let (_, choice) = devices("mlx5_7,mlx5_0");
    assert_eq!(choice.unmatched, ["mlx5_7"]);
    assert!(rejected(&choice).contains(&"rxe0:1: RCCL_IB_HCA=mlx5_7,mlx5_0 leaves it out".to_owned()));

    // A port that is down keeps its number, so that those of equal hosts still agree.
    tree.file("sys/class/infiniband/mlx5_0/ports/1/state", "1: DOWN")
        .file("sys/class/infiniband/mlx5_0/ports/1/phys_state", "3: Disabled");
    let choice = choose(&tree.host(), &Wishes::default());
    assert_eq!(rails(&choice)[0], "1 mlx5_1:1 0 10.7.1.1");
    assert_eq!(rejected(&choice), ["mlx5_0:1: the port is down (Disabled)"]);
}

#[test]
fn a_bond_is_used_by_its_own_address() {
    let mut tree = Tree::new();
    tree.interface("bond0", 9000, &["10.7.0.1/24"]);
    tree.interface("bond0.100", 9000, &["10.8.0.1/24"]);
    tree.file("sys/class/net/bond0.100/operstate", "lowerlayerdown");
    tree.device("mlx5_bond_0", &[("10.7.0.1", "v2", "bond0"), ("10.8.0.1", "v2", "bond0.100")]);
    let choice = choose(&tree.host(), &Wishes::default());
    assert_eq!(rails(&choice), ["0 mlx5_bond_0:1 0 10.7.0.1"]);
    assert_eq!(rejected(&choice), ["mlx5_bond_0:1 1 10.8.0.1: its interface bond0.100 is down"]);
}

#[test]
fn what_a_container_does_not_see_is_not_used() {
    let mut tree = Tree::new();
    tree.interface("eth0", 1500, &["172.17.0.2/16"]);
    tree.device("mlx5_0", &[("10.7.0.1", "v2", "eth2")]);
    let choice = choose(&tree.host(), &Wishes::default());
    assert_eq!(
        rejected(&choice),
        [
            "mlx5_0:1: none of its addresses can be used",
            "mlx5_0:1 0 10.7.0.1: its interface eth2 is in another network namespace than this process",
        ]
    );
}

#[test]
fn adapters_and_ports_that_rccl_cannot_use_say_why() {
    let tree = connectx("10.7.0.1", 1500);
    tree.file("sys/class/infiniband/cxgb4_0/node_type", "4: RNIC")
        .file("sys/class/infiniband/cxgb4_0/ports/1/state", "4: ACTIVE")
        .file("sys/class/infiniband/empty0/node_type", "1: CA")
        .file("sys/class/infiniband/usnic_0/node_type", "6: usNIC UDP")
        .file("sys/class/infiniband/usnic_0/ports/1/state", "4: ACTIVE");
    tree.device("rxe0", &[]);
    let choice = choose(&tree.host(), &Wishes::default());
    let told = rejected(&choice);
    for expected in [
        "cxgb4_0: it is an iWARP adapter, and rccl speaks RoCE and InfiniBand",
        "empty0: it shows no port in sysfs",
        "usnic_0: it is an adapter of type \"6: usNIC UDP\", and rccl speaks RoCE and InfiniBand",
        "rxe0:1: its GID table is empty: its network interface has no IP address, or is switched off",
    ] {
        assert!(told.iter().any(|line| line == expected), "{expected} is not in {told:#?}");
    }
    let partition = choose(&tree.host(), &wishes(|wishes| wishes.partition = 1));
    assert_eq!(rejected(&partition)[2], "mlx5_0:1: there is no partition key at index 1 (RCCL_IB_PKEY)");
    let off = choose(&tree.host(), &wishes(|wishes| wishes.disabled = true));
    assert!(off.rails.is_empty() && off.rejected.iter().all(|r| r.reason.is_wanted()), "{off:?}");
}

#[test]
fn infiniband_goes_by_lid_and_its_first_address() {
    let tree = Tree::new();
    tree.device("mlx5_0", &[("fe80::ec0d:9a03:1:2", "v1", ""), ("fe80::1", "v1", "")]);
    let port = "sys/class/infiniband/mlx5_0/ports/1";
    tree.file(&format!("{port}/link_layer"), "InfiniBand");
    assert_eq!(
        rejected(&choose(&tree.host(), &Wishes::default())),
        ["mlx5_0:1: no subnet manager has given the port a LID"]
    );
    tree.file(&format!("{port}/lid"), "0x1f");
    let choice = choose(&tree.host(), &Wishes::default());
    assert_eq!(rails(&choice), ["0 mlx5_0:1 0 fe80::ec0d:9a03:1:2"]);
    assert_eq!((choice.rails[0].lid, choice.rails[0].addresses[0].kind), (31, GidKind::InfiniBand));
    tree.file(&format!("{port}/state"), "2: INIT");
    assert_eq!(
        rejected(&choose(&tree.host(), &Wishes::default())),
        ["mlx5_0:1: the port is initializing (LinkUp)"]
    );
}

#[test]
fn the_traffic_class_is_the_drivers_then_the_users_then_the_systems() {
    let tree = connectx("10.7.0.1", 1500);
    let class =
        |wished| choose(&tree.host(), &wishes(|wishes| wishes.traffic_class = wished)).rails[0].traffic_class;
    assert_eq!((class(None), class(Some(104))), (TrafficClass::Unset, TrafficClass::Wished(104)));
    tree.file("sys/kernel/config/rdma_cm/mlx5_0/ports/1/default_roce_tos", "96");
    assert_eq!(class(None), TrafficClass::ConnectionManager(96));
    assert_eq!(class(Some(104)).value(), 104);
    tree.file("sys/class/infiniband/mlx5_0/tc/1/traffic_class", "Global tc=106");
    assert_eq!(class(Some(104)), TrafficClass::Forced(106));
}

#[test]
fn of_many_addresses_the_best_are_told() {
    let mut tree = Tree::new();
    let addresses: Vec<String> = (1..=12).map(|host| format!("10.7.{host}.1")).collect();
    let gids: Vec<_> = addresses.iter().map(|address| (address.as_str(), "v2", "eth2")).collect();
    tree.interface("eth2", 9000, &[]);
    for number in 0..40 {
        tree.route("eth2", &format!("10.{number}.0.0/16"), true);
    }
    tree.route("eth2", "0.0.0.0/0", true);
    tree.device("mlx5_0", &gids);
    let choice = choose(&tree.host(), &Wishes::default());
    assert_eq!(choice.rails[0].addresses.len(), 8);
    assert_eq!(rejected(&choice).len(), 4);
    assert_eq!(rejected(&choice)[0], "mlx5_0:1 8 10.7.9.1: the port has enough better addresses");
    let reaches = &choice.rails[0].addresses[0].reaches;
    assert_eq!((reaches.len(), reaches.last().unwrap().to_string()), (16, "0.0.0.0/0".to_owned()));

    let adverts = choice.adverts();
    let told = postcard::to_allocvec(&adverts).unwrap();
    assert!(told.len() < 4096, "{} bytes", told.len());
    assert_eq!(postcard::from_bytes::<Vec<rccl_topology::Advert>>(&told).unwrap(), adverts);
}
