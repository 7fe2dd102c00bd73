//! Which rails of two hosts talk to each other: examples, and what holds for any two hosts.

mod tree;

use std::net::IpAddr;

use proptest::prelude::*;
use rccl_topology::{
    Advert, Device, Gid, GidEntry, GidKind, Host, Interface, LinkLayer, NodeKind, Pairing, Port, PortState,
    Prefix, Scope, Way, Wishes, choose, pair,
};
use tree::{Tree, connectx};

fn adverts(tree: &Tree) -> Vec<Advert> {
    choose(&tree.host(), &Wishes::default()).adverts()
}

/// Pairs as `device address - address device`.
fn show(mine: &[Advert], theirs: &[Advert]) -> Vec<String> {
    let line = |pairing: Pairing| {
        let (own, other) = (&mine[pairing.mine], &theirs[pairing.theirs]);
        format!("{} {} - {} {}", own.device, own.gid, other.gid, other.device)
    };
    pair(mine, theirs).unwrap().into_iter().map(line).collect()
}

/// A host with rails eth0, eth1, … of these addresses.
fn rails(addresses: &[&str]) -> Tree {
    let mut tree = Tree::new();
    for (number, address) in addresses.iter().enumerate() {
        let (device, interface) = (format!("mlx5_{number}"), format!("eth{number}"));
        tree.interface(&interface, 4200, &[address]);
        tree.device(&device, &[(address.split_once('/').unwrap().0, "v2", &interface)]);
    }
    tree
}

#[test]
fn equal_hosts_pair_their_rails_by_number() {
    let mine = adverts(&rails(&["10.0.0.1/24", "10.1.0.1/24"]));
    let theirs = adverts(&rails(&["10.0.0.2/24", "10.1.0.2/24"]));
    let expected = ["mlx5_0 10.0.0.1 - 10.0.0.2 mlx5_0", "mlx5_1 10.1.0.1 - 10.1.0.2 mlx5_1"];
    assert_eq!(show(&mine, &theirs), expected);
}

#[test]
fn subnets_go_before_numbers() {
    let mine = adverts(&rails(&["10.0.0.1/24", "10.1.0.1/24"]));
    let theirs = adverts(&rails(&["10.1.0.2/24", "10.0.0.2/24"]));
    let expected = ["mlx5_0 10.0.0.1 - 10.0.0.2 mlx5_1", "mlx5_1 10.1.0.1 - 10.1.0.2 mlx5_0"];
    assert_eq!(show(&mine, &theirs), expected);
}

#[test]
fn the_host_with_fewer_rails_decides() {
    let mine = adverts(&rails(&["10.0.0.1/16", "10.0.1.1/16", "10.0.2.1/16"]));
    let theirs = adverts(&rails(&["10.0.0.2/16"]));
    assert_eq!(show(&mine, &theirs), ["mlx5_0 10.0.0.1 - 10.0.0.2 mlx5_0"]);
}

#[test]
fn routed_rails_need_routes_through_their_own_interfaces() {
    let (mut here, mut there) = (rails(&["10.0.1.1/24"]), rails(&["10.0.2.1/24"]));
    here.route("eth0", "10.0.0.0/8", true);
    let error = pair(&adverts(&here), &adverts(&there)).unwrap_err().to_string();
    assert!(error.contains("mlx5_0 port 1, 10.0.1.1/24 (RoCE v2, GID 0)"), "{error}");
    there.route("eth9", "10.0.0.0/8", true);
    assert!(pair(&adverts(&here), &adverts(&there)).is_err());
    there.route("eth0", "0.0.0.0/0", true);
    let found = pair(&adverts(&here), &adverts(&there)).unwrap();
    assert_eq!(found, [Pairing { mine: 0, theirs: 0, way: Way::Routed }]);
}

#[test]
fn an_interface_of_unknown_subnet_is_tried_last() {
    let mut unknown = Tree::new();
    unknown.interface("eth0", 4200, &[]);
    unknown.device("mlx5_0", &[("10.0.1.1", "v2", "eth0")]);
    let found = pair(&adverts(&unknown), &adverts(&rails(&["10.0.0.1/16"]))).unwrap();
    assert_eq!(found[0].way, Way::Unknown);
    assert!(pair(&adverts(&unknown), &adverts(&rails(&["10.9.0.1/16"]))).is_err());
}

#[test]
fn version_1_is_the_last_resort() {
    let both = connectx("10.0.0.1", 4200);
    let mut old = Tree::new();
    old.interface("eth0", 4200, &["10.0.0.2/24"]);
    old.device("mlx4_0", &[("10.0.0.2", "v1", "eth0")]);
    let found = pair(&adverts(&both), &adverts(&old)).unwrap();
    assert_eq!(adverts(&both)[found[0].mine].kind, GidKind::RoceV1);
    let found = pair(&adverts(&both), &adverts(&connectx("10.0.0.3", 4200))).unwrap();
    assert_eq!((found.len(), adverts(&both)[found[0].mine].kind), (1, GidKind::RoceV2));
}

#[test]
fn hosts_that_cannot_talk_say_why() {
    let one = adverts(&rails(&["10.0.0.1/24"]));
    assert_eq!(pair(&[], &one).unwrap_err().to_string(), "this host has no RDMA port that can be used");
    assert_eq!(pair(&one, &[]).unwrap_err().to_string(), "the other host has no RDMA port that can be used");
    let infiniband = Advert { kind: GidKind::InfiniBand, lid: 4, ..one[0].clone() };
    assert_eq!(
        pair(&one, &[infiniband]).unwrap_err().to_string(),
        "the RDMA ports of this host speak RoCE v2, those of the other host InfiniBand, which do not understand each \
         other"
    );
}

/// Hosts as odd as they come: any number of ports, states, tables, subnets and routes.
fn any_host() -> impl Strategy<Value = Host> {
    let address = (
        prop_oneof![
            (0_u8..3, 1_u8..6).prop_map(|(net, host)| IpAddr::from([10, 0, net, host])),
            (0_u16..3, 1_u16..6).prop_map(|(net, host)| IpAddr::from([0xfd07, net, 0, 0, 0, 0, 0, host])),
            (1_u16..6).prop_map(|host| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, host])),
            (1_u8..6).prop_map(|host| IpAddr::from([169, 254, 0, host])),
            Just(IpAddr::from([0; 16])),
            Just(IpAddr::from([127, 0, 0, 1])),
        ],
        any::<bool>(),
        16_u8..32,
    );
    let table = prop::collection::vec(address, 0..6);
    let port = (table, 0_u8..10, any::<bool>());
    let routes = prop::collection::vec((0_usize..5, 0_u8..3, 0_u8..33), 0..4);
    (prop::collection::vec(port, 0..5), routes).prop_map(|(ports, routes)| {
        let mut host = Host::default();
        for (number, (table, state, infiniband)) in ports.into_iter().enumerate() {
            let interface = format!("eth{number}");
            let mut gids = Vec::new();
            for (index, (ip, v2, length)) in table.into_iter().enumerate() {
                let kind = match (infiniband && state > 7, v2) {
                    (true, _) => GidKind::InfiniBand,
                    (false, true) => GidKind::RoceV2,
                    (false, false) => GidKind::RoceV1,
                };
                gids.push(GidEntry {
                    index: index as u16,
                    gid: ip.into(),
                    kind,
                    interface: Some(interface.clone()),
                });
                if state != 3 {
                    host.network.addresses.push(rccl_topology::Address {
                        interface: interface.clone(),
                        ip,
                        length,
                    });
                }
            }
            host.devices.push(Device {
                name: format!("mlx5_{number}"),
                kind: if state == 1 { NodeKind::Iwarp } else { NodeKind::ChannelAdapter },
                firmware: None,
                board: None,
                driver: None,
                pci: None,
                numa_node: None,
                ports: vec![Port {
                    number: 1,
                    state: if state == 0 { PortState::Down } else { PortState::Active },
                    physical: None,
                    link_layer: if infiniband && state > 7 {
                        LinkLayer::InfiniBand
                    } else {
                        LinkLayer::Ethernet
                    },
                    rate: None,
                    lid: u16::from(state),
                    gids,
                    partition_keys: Vec::new(),
                    connection_defaults: None,
                    forced_traffic_class: None,
                    counters: Default::default(),
                }],
            });
            let down = (state == 2).then(|| "down".to_owned());
            host.interfaces.push(Interface {
                name: interface,
                state: down,
                mtu: Some(4200),
                ..Interface::default()
            });
        }
        for (interface, net, length) in routes {
            let destination = Prefix::new(IpAddr::from([10, 0, net, 0]), length).unwrap();
            let interface = format!("eth{interface}");
            host.network.routes.push(rccl_topology::Route { destination, interface, gateway: true });
        }
        host
    })
}

fn shuffled(host: &Host, by: usize) -> Host {
    let mut host = host.clone();
    host.devices.reverse();
    let length = host.devices.len().max(1);
    host.devices.rotate_left(by % length);
    for device in &mut host.devices {
        for port in &mut device.ports {
            port.gids.reverse();
        }
    }
    host.interfaces.reverse();
    host.network.addresses.reverse();
    host.network.routes.reverse();
    host
}

type Named = Vec<((u16, Gid), (u16, Gid))>;

fn named(mine: &[Advert], theirs: &[Advert]) -> Option<Named> {
    let name = |advert: &Advert| (advert.rail, advert.gid);
    let pairs = pair(mine, theirs).ok()?;
    Some(pairs.iter().map(|pairing| (name(&mine[pairing.mine]), name(&theirs[pairing.theirs]))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_address_that_leads_nowhere_is_ever_used(host in any_host()) {
        for rail in choose(&host, &Wishes::default()).rails {
            prop_assert!(!rail.addresses.is_empty());
            for address in &rail.addresses {
                let scope = address.gid.scope();
                let usable = address.kind == GidKind::InfiniBand || scope != Scope::LinkLocal && scope != Scope::None;
                prop_assert!(usable, "{address:?}");
            }
        }
    }

    #[test]
    fn every_address_is_used_or_has_a_reason(host in any_host()) {
        let choice = choose(&host, &Wishes::default());
        for device in &host.devices {
            let rail = choice.rails.iter().find(|rail| rail.device == device.name);
            let why = |index| choice.rejected.iter().any(|rejected| {
                rejected.device == device.name && rejected.gid.is_none_or(|(at, _)| at == index)
            });
            for entry in &device.ports[0].gids {
                let used = rail.is_some_and(|rail| rail.addresses.iter().any(|a| u16::from(a.index) == entry.index));
                prop_assert!(used != why(entry.index), "{} {entry:?} {choice:?}", device.name);
            }
        }
    }

    #[test]
    fn the_order_of_what_was_found_does_not_matter(one in any_host(), two in any_host(), by in 0_usize..5) {
        let choice = choose(&one, &Wishes::default());
        prop_assert_eq!(&choice, &choose(&shuffled(&one, by), &Wishes::default()));
        let (mine, theirs) = (choice.adverts(), choose(&two, &Wishes::default()).adverts());
        let (mut turned, mut others) = (mine.clone(), theirs.clone());
        turned.reverse();
        let length = others.len().max(1);
        others.rotate_left(by % length);
        prop_assert_eq!(named(&mine, &theirs), named(&turned, &others));
    }

    #[test]
    fn both_ends_agree(one in any_host(), two in any_host()) {
        let mine = choose(&one, &Wishes::default()).adverts();
        let theirs = choose(&two, &Wishes::default()).adverts();
        let swapped = named(&theirs, &mine)
            .map(|pairs| pairs.into_iter().map(|(own, other)| (other, own)).collect::<Named>());
        prop_assert_eq!(named(&mine, &theirs), swapped);
    }

    #[test]
    fn pairs_are_of_one_kind_and_use_each_rail_once(one in any_host(), two in any_host()) {
        let mine = choose(&one, &Wishes::default()).adverts();
        let theirs = choose(&two, &Wishes::default()).adverts();
        let Ok(pairs) = pair(&mine, &theirs) else { return Ok(()) };
        prop_assert!(!pairs.is_empty());
        for (at, pairing) in pairs.iter().enumerate() {
            prop_assert_eq!(mine[pairing.mine].kind, theirs[pairing.theirs].kind);
            for other in &pairs[..at] {
                prop_assert!(mine[other.mine].rail != mine[pairing.mine].rail);
                prop_assert!(theirs[other.theirs].rail != theirs[pairing.theirs].rail);
            }
        }
        let old = pairs.iter().filter(|pairing| mine[pairing.mine].kind == GidKind::RoceV1).count();
        prop_assert!(old == 0 || old == pairs.len());
    }
}
