//! What is known of this host beside its devices: processors, network interfaces, RDMA ports, switches.

use super::lines::{Lines, bytes, named, short};
use rccl_topology::processors::{Cache, Limits, NumaNode, Processors};
use rccl_topology::{Device, Host, Interface, Neighbour, Network};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// How long lldpd may take to answer. It does in milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// More routes of an interface than these are only counted.
const MOST_ROUTES: usize = 8;

/// This host.
#[derive(Serialize)]
pub struct ThisHost {
    pub processors: Processors,
    #[serde(flatten)]
    pub host: Host,
    pub neighbours: Vec<Neighbour>,
}

impl ThisHost {
    /// Reads files, asks the kernel for addresses and routes, and lldpd for switches.
    pub fn discover() -> ThisHost {
        let root = Path::new("/");
        ThisHost {
            processors: Processors::discover(root),
            host: Host::discover(root, Network::of_this_host().unwrap_or_default()),
            neighbours: Neighbour::ask(PATIENCE),
        }
    }
}

/// Packages and caches, and what of them this process may use.
pub fn processors(processors: &Processors) -> String {
    let mut text = Lines::default();
    let online = processors.online.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let mut words = vec![format!("processors {online}")];
    words.extend(limits(processors));
    text.line(&words);
    text.inside(|text| {
        for package in &processors.packages {
            let cores = count(package.cores as usize, "core");
            text.line(&[format!("package {}", package.number), cores, format!("CPUs {}", package.cpus)]);
            let inside: Vec<&Cache> =
                processors.caches.iter().filter(|cache| package.cpus.contains(&cache.cpus)).collect();
            text.inside(|text| caches(text, &inside));
        }
        for node in &processors.nodes {
            text.line(&memory(node));
        }
    });
    text.finish()
}

/// What keeps this process from using all.
fn limits(processors: &Processors) -> Vec<String> {
    let Limits { affinity, cpuset, quota, memory } = &processors.limits;
    // A control group of all processors limits nothing, and one that the affinity follows is said by that.
    let less = |set: &&rccl_topology::system::CpuSet| Some(*set) != processors.online.as_ref();
    let affinity = affinity.as_ref().filter(less);
    let cpuset = cpuset.as_ref().filter(less).filter(|set| Some(*set) != affinity);
    let words = [
        affinity.map(|set| format!("of which this process may use {set}")),
        cpuset.map(|set| format!("its control group {set}")),
        quota.map(|quota| match quota {
            1.0 => "the time of 1 processor".to_owned(),
            quota => format!("the time of {} processors", short(quota)),
        }),
        memory.map(|memory| format!("{} of memory", bytes(memory))),
    ];
    words.into_iter().flatten().collect()
}

/// Those of one kind and size together.
fn caches(text: &mut Lines, caches: &[&Cache]) {
    let alike = |one: &&Cache, other: &&Cache| {
        (one.level, one.kind, one.bytes, one.cpus.len())
            == (other.level, other.kind, other.bytes, other.cpus.len())
    };
    let words = caches.chunk_by(alike).map(|alike| {
        let many = if alike.len() > 1 { format!("{} x ", alike.len()) } else { String::new() };
        let size = alike[0].bytes.map_or_else(String::new, |size| format!(" {}", bytes(size)));
        let shared = match alike[0].cpus.len() {
            1 => String::new(),
            cpus => format!(" of {cpus} CPUs"),
        };
        format!("{many}{}{size}{shared}", alike[0])
    });
    let words: Vec<String> = words.collect();
    if !words.is_empty() {
        text.line(&words);
    }
}

fn memory(node: &NumaNode) -> Vec<String> {
    let size = node.memory.map_or_else(|| "of unknown size".to_owned(), bytes);
    let far = node.distances.iter().filter(|(other, _)| **other != node.number);
    let far: Vec<String> = far.map(|(other, distance)| format!("{distance} to node {other}")).collect();
    let own = node.distances.get(&node.number).filter(|_| !far.is_empty());
    let own = own.map_or_else(String::new, |own| format!("distance {own}, {}", far.join(", ")));
    vec![format!("memory of NUMA node {}: {size}", node.number), own]
}

/// Network interfaces, but for the loopback, and RDMA devices.
pub fn network(this: &ThisHost) -> String {
    let mut text = Lines::default();
    let shown: Vec<&Interface> = this.host.interfaces.iter().filter(|one| one.name != "lo").collect();
    if !shown.is_empty() {
        text.line(&["network interfaces".to_owned()]);
        text.inside(|text| shown.iter().for_each(|interface| self::interface(text, this, interface)));
    }
    if !this.host.devices.is_empty() {
        text.line(&["RDMA devices".to_owned()]);
        text.inside(|text| this.host.devices.iter().for_each(|device| rdma(text, device)));
    }
    text.finish()
}

fn interface(text: &mut Lines, this: &ThisHost, interface: &Interface) {
    let host = &this.host;
    let carriers: Vec<&str> =
        host.carriers(&interface.name).iter().map(|carrier| carrier.name.as_str()).collect();
    // What it rests on directly is said by its kind already.
    let indirect = carriers != [&interface.name] && carriers != interface.lower && !carriers.is_empty();
    let speed = host.speed(&interface.name);
    text.line(&[
        interface.name.clone(),
        kind(host, interface),
        if indirect { format!("carried by {}", carriers.join(" and ")) } else { String::new() },
        if interface.is_down() { "down" } else { "up" }.to_owned(),
        speed.map_or_else(String::new, |speed| format!("{} Gb/s", short(f64::from(speed) / 1000.0))),
        named("MTU", interface.mtu),
        interface.queues.filter(|queues| *queues != (1, 1)).map_or_else(String::new, |(receive, send)| {
            format!("{} and {} to send", count(receive as usize, "queue to receive"), send)
        }),
    ]);
    text.inside(|text| {
        for neighbour in this.neighbours.iter().filter(|neighbour| neighbour.interface == interface.name) {
            let switch = neighbour.system.as_ref().or(neighbour.chassis.as_ref());
            let switch = switch.map_or("a switch without name", String::as_str);
            let port = neighbour.port.as_ref().map_or_else(String::new, |port| format!(", port {port}"));
            text.line(&[format!("plugged into {switch}{port}")]);
        }
        let addresses = host.network.addresses.iter().filter(|address| address.interface == interface.name);
        for address in addresses {
            text.line(&[format!("{}/{}", address.ip, address.length)]);
        }
        routes(text, host, &interface.name);
    });
}

/// What an interface is, and what it rests on.
fn kind(host: &Host, interface: &Interface) -> String {
    let lower = interface.lower.join(" and ");
    let kind = interface.kind.as_deref();
    match (kind, &interface.bond_mode, interface.lower.is_empty()) {
        (_, Some(mode), true) => format!("bond without members ({mode})"),
        (_, Some(mode), false) => match &interface.active_member {
            Some(active) => format!("bond of {lower} ({mode}, {active} is active)"),
            None => format!("bond of {lower} ({mode})"),
        },
        (Some("bridge"), _, true) => "bridge without ports".to_owned(),
        (Some("bridge"), _, false) => format!("bridge of {lower}"),
        (Some(kind), _, false) => format!("{kind} on {lower}"),
        (None, _, false) => format!("on {lower}"),
        (None | Some("veth"), _, true) if interface.is_end() => match host.other_end(interface) {
            Some(other) => format!("paired with {}", other.name),
            None => "paired with an interface of another namespace".to_owned(),
        },
        (Some(kind), _, true) if interface.linked.is_some() => {
            format!("{kind} on an interface of another namespace")
        }
        (kind, _, true) => kind.unwrap_or_default().to_owned(),
    }
}

fn routes(text: &mut Lines, host: &Host, interface: &str) {
    let routes: Vec<_> = host.network.routes.iter().filter(|route| route.interface == interface).collect();
    if routes.is_empty() {
        return;
    }
    let shown = routes.iter().take(MOST_ROUTES).map(|route| match route.gateway {
        true => format!("{} by a gateway", route.destination),
        false => route.destination.to_string(),
    });
    let mut words: Vec<String> = shown.collect();
    words[0].insert_str(0, "routes ");
    if routes.len() > MOST_ROUTES {
        words.push(format!("and {} more", routes.len() - MOST_ROUTES));
    }
    text.line(&words);
}

fn rdma(text: &mut Lines, device: &Device) {
    text.line(&[
        device.name.clone(),
        device.pci.as_ref().map_or_else(|| "in software".to_owned(), |address| format!("PCI {address}")),
        named("NUMA node", device.numa_node),
        device.driver.clone().unwrap_or_default(),
        device.firmware.as_ref().map_or_else(String::new, |version| format!("firmware {version}")),
    ]);
    text.inside(|text| {
        for port in &device.ports {
            text.line(&[
                format!("port {}", port.number),
                port.state.to_string(),
                port.link_layer.to_string(),
                port.rate.map_or_else(String::new, |rate| format!("{rate} Gb/s")),
            ]);
            text.inside(|text| {
                for entry in &port.gids {
                    let interface = entry.interface.clone().unwrap_or_default();
                    text.line(&[
                        format!("GID {} {}", entry.index, entry.gid),
                        entry.kind.to_string(),
                        interface,
                    ]);
                }
            });
        }
    });
}

/// "1 core", "2 cores".
fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => match what.split_once(' ') {
            Some((noun, rest)) => format!("{number} {noun}s {rest}"),
            None => format!("{number} {what}s"),
        },
    }
}
