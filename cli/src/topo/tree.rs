//! Systems and graphs as people read them: a line for each thing, further in for what hangs on it.

use rccl_topology::graph::{Graph, Graphs};
use rccl_topology::paths::{net_bandwidth, pci_bandwidth};
use rccl_topology::system::{Cpu, Gpu, LinkKind, Net, Pci, PciClass, Role, System};

use super::lines::{Lines, named, short};

/// A system, host by host.
pub fn system(system: &System) -> String {
    let mut text = Lines::default();
    let hosts = system.hosts();
    let several = hosts.len() > 1;
    for (index, (hash, cpus)) in hosts.into_iter().enumerate() {
        if several || hash.is_some() {
            let hash = hash.map_or_else(String::new, |hash| format!("identity {hash}"));
            text.line(&[format!("host {index}"), hash]);
        }
        for node in cpus {
            text.depth = usize::from(several || node.host.is_some());
            cpu(&mut text, node);
        }
        text.depth = 0;
    }
    if system.cpus.is_empty() {
        text.line(&["no NUMA node".to_owned()]);
    }
    text.finish()
}

fn cpu(text: &mut Lines, cpu: &Cpu) {
    let make: Vec<&str> = [&cpu.arch, &cpu.vendor].into_iter().flatten().map(String::as_str).collect();
    text.line(&[
        format!("NUMA node{}", cpu.numa.map_or_else(String::new, |number| format!(" {number}"))),
        make.join(" "),
        named("family", cpu.family),
        named("model", cpu.model),
        cpu.affinity.as_ref().map_or_else(String::new, |set| format!("CPUs {set}")),
    ]);
    text.inside(|text| {
        cpu.devices.iter().for_each(|below| device(text, below));
        let nets: Vec<&Net> = cpu.nics.iter().flat_map(|nic| &nic.nets).collect();
        if !nets.is_empty() {
            text.line(&["network devices without PCI".to_owned()]);
            text.inside(|text| nets.into_iter().for_each(|net| port(text, net)));
        }
    });
}

fn device(text: &mut Lines, pci: &Pci) {
    let name = match pci.role() {
        Role::Switch => "PCI switch",
        Role::Gpu => "GPU",
        Role::Nic => "NIC",
        Role::Other => "PCI device",
    };
    let number = |id: Option<rccl_topology::system::Hex>| id.map(|id| format!("{:04x}", id.0));
    let ids = match (number(pci.ids.vendor), number(pci.ids.device)) {
        (Some(vendor), Some(device)) => format!("{vendor}:{device}"),
        _ => String::new(),
    };
    let link = match (pci.speed, pci.width) {
        (Some(speed), Some(width)) => format!("{} x{width}", speed.to_string().trim_end_matches(" PCIe")),
        _ => "link unknown".to_owned(),
    };
    text.line(&[format!("{name} {}", pci.bus), ids, link, format!("{} GB/s", short(pci_bandwidth(pci)))]);
    text.inside(|text| {
        pci.gpus.iter().for_each(|part| gpu(text, part));
        pci.nics.iter().flat_map(|nic| &nic.nets).for_each(|net| port(text, net));
        for target in &pci.joined {
            text.line(&[format!("joined to {target}")]);
        }
        pci.devices.iter().for_each(|below| device(text, below));
    });
}

fn gpu(text: &mut Lines, gpu: &Gpu) {
    text.line(&[
        format!("gpu{}", gpu.dev.map_or_else(String::new, |dev| format!(" {dev}"))),
        named("part", gpu.part),
        named("rank", gpu.rank),
        gpu.gcn.as_ref().map_or_else(String::new, |gcn| format!("architecture {gcn}")),
        named(if gpu.gcn.is_some() { "compute units" } else { "sm" }, gpu.sm),
        flag(gpu.gdr, "adapters reach its memory", "adapters do not reach its memory"),
    ]);
    text.inside(|text| {
        for link in &gpu.links {
            let to = match link.class {
                Some(PciClass::NV_SWITCH) => "switch ",
                _ => "",
            };
            let count = link.count.map_or_else(String::new, |count| format!("{count} x "));
            let kind: LinkKind = link.kind;
            text.line(&[format!("{count}{kind} to {to}{}", link.target)]);
        }
        for c2c in &gpu.c2c {
            let count = c2c.count.map_or_else(String::new, |count| format!("{count} x "));
            let bandwidth = c2c.bandwidth.map(|it| format!("{} GB/s each", short(f64::from(it) / 1000.0)));
            text.line(&[format!("{count}C2C to its processor"), bandwidth.unwrap_or_default()]);
        }
    });
}

fn port(text: &mut Lines, net: &Net) {
    let number = net.dev.map_or_else(String::new, |dev| format!(" {dev}"));
    let name = net.name.as_ref().map_or_else(String::new, |name| format!(" {name}"));
    let speed = match net.speed {
        Some(speed) => format!("{} Gb/s", short(f64::from(speed) / 1000.0)),
        None => "speed unknown".to_owned(),
    };
    text.line(&[
        format!("net{number}{name}"),
        named("port", net.port.filter(|port| *port != 0)),
        speed,
        format!("{} GB/s", short(net_bandwidth(net))),
        flag(net.gdr, "reaches GPUs' memory", ""),
        flag(net.reduces, "the network reduces", ""),
        flag(net.used, "", "not used by itself"),
    ]);
}

/// Graphs with their channels.
pub fn graphs(graphs: &Graphs) -> String {
    let mut text = Lines::default();
    for graph in &graphs.graphs {
        one_graph(&mut text, graph);
    }
    if graphs.graphs.is_empty() {
        text.line(&["no graph".to_owned()]);
    }
    text.finish()
}

fn one_graph(text: &mut Lines, graph: &Graph) {
    let bandwidth = |place: &str, bandwidth: Option<f64>, path: Option<rccl_topology::paths::PathType>| {
        let path = path.map_or_else(String::new, |path| format!(" ({path})"));
        bandwidth.map_or_else(String::new, |it| format!("{} GB/s {place}{path}", short(it)))
    };
    text.line(&[
        format!("graph{}: {}", graph.id.map_or_else(String::new, |id| format!(" {id}")), graph.pattern),
        match graph.channels.len() {
            0 => "no channels".to_owned(),
            1 => "1 channel".to_owned(),
            more => format!("{more} channels"),
        },
        bandwidth("inside of a host", graph.bandwidth_intra, graph.type_intra),
        bandwidth("between hosts", graph.bandwidth_inter, graph.type_inter),
    ]);
    text.inside(|text| {
        for (index, channel) in graph.channels.iter().enumerate() {
            let mut hops: Vec<String> = channel.hops.iter().map(ToString::to_string).collect();
            if channel.closes(graph.pattern) {
                hops.extend(hops.first().cloned());
            }
            text.line(&[format!("channel {index}: {}", hops.join(" -> "))]);
        }
    });
}

fn flag(value: Option<bool>, yes: &str, no: &str) -> String {
    match value {
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
        None => String::new(),
    }
}
