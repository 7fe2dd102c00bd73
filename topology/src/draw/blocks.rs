//! A system as boxes in boxes.

use std::collections::{BTreeSet, HashMap};

use super::layout::{Block, Placed};
use super::svg::{Area, Canvas};
use crate::paths::{net_bandwidth, pci_bandwidth};
use crate::system::{BusId, Cpu, Gpu, Hex, LinkKind, Net, Nic, Pci, PciClass, Role, System};

/// One box for each host.
pub fn hosts(system: &System) -> Vec<Block> {
    let hosts = system.hosts();
    let several = hosts.len() > 1;
    let block = |(index, (hash, cpus)): (usize, (Option<Hex>, Vec<&Cpu>))| {
        let number = if several { format!(" {index}") } else { String::new() };
        let hash = hash.map_or_else(String::new, |hash| format!(", {hash}"));
        Block {
            words: vec![format!("host{number}{hash}")],
            fill: "#f7f7f7",
            children: cpus.into_iter().map(cpu).collect(),
            gpu: None,
        }
    };
    hosts.into_iter().enumerate().map(block).collect()
}

fn cpu(cpu: &Cpu) -> Block {
    let number = cpu.numa.map_or_else(String::new, |number| format!(" {number}"));
    let mut words = vec![format!("NUMA node{number}")];
    let make: Vec<&str> = [&cpu.arch, &cpu.vendor].into_iter().flatten().map(String::as_str).collect();
    if !make.is_empty() {
        words.push(make.join(" "));
    }
    if let Some(affinity) = &cpu.affinity {
        words.push(format!("CPUs {}", shortened(&affinity.to_string())));
    }
    let children = cpu.devices.iter().map(device).chain(cpu.nics.iter().map(nic));
    Block { words, fill: "#e8e4d4", children: children.collect(), gpu: None }
}

/// Every other processor is a long list.
fn shortened(ranges: &str) -> String {
    match ranges.char_indices().nth(30) {
        Some((end, _)) => format!("{}...", &ranges[..end]),
        None => ranges.to_owned(),
    }
}

fn device(device: &Pci) -> Block {
    let (name, fill) = match device.role() {
        Role::Switch => ("PCI switch", "#d5e3f0"),
        Role::Gpu => ("GPU", "#d8ecd0"),
        Role::Nic => ("NIC", "#f6dfc6"),
        Role::Other => ("PCI", "#ececec"),
    };
    let link = format!("{} GB/s", super::rounded(pci_bandwidth(device)));
    let children = device.nics.iter().flat_map(|nic| &nic.nets).map(port);
    let children = children.chain(device.devices.iter().map(self::device)).collect();
    let links = device.gpus.iter().flat_map(|gpu| &gpu.links);
    let gpu = !device.gpus.is_empty();
    let mut words = vec![format!("{name} {}", device.bus), link];
    words.extend(device.gpus.iter().map(gpu_words));
    words.extend(device.gpus.first().and_then(switch_words));
    Block {
        words,
        fill,
        children,
        gpu: gpu.then(|| (device.bus, links.map(|link| (link.kind, link.target)).collect())),
    }
}

fn gpu_words(gpu: &Gpu) -> String {
    let parts = [("gpu", gpu.dev), ("rank", gpu.rank), ("sm", gpu.sm), ("part", gpu.part)];
    let said = parts.into_iter().filter_map(|(name, value)| value.map(|value| format!("{name} {value}")));
    let gcn = gpu.gcn.iter().cloned();
    said.chain(gcn).collect::<Vec<_>>().join(", ")
}

/// Links to the switches between GPUs, which have no box.
fn switch_words(gpu: &Gpu) -> Option<String> {
    let to_switches = gpu.links.iter().filter(|link| link.class == Some(PciClass::NV_SWITCH));
    let count: u64 = to_switches.map(|link| u64::from(link.count.unwrap_or(1))).sum();
    (count > 0).then(|| format!("{count} x {} to switches", LinkKind::NvLink))
}

/// A network device that hangs on no PCI device.
fn nic(nic: &Nic) -> Block {
    let children = nic.nets.iter().map(port).collect();
    Block { words: vec!["network devices without PCI".to_owned()], fill: "#f6dfc6", children, gpu: None }
}

fn port(net: &Net) -> Block {
    let number = net.dev.map_or_else(String::new, |dev| format!("net {dev} "));
    let name = net.name.clone().unwrap_or_default();
    let speed = match net.speed {
        Some(_) => format!("{} GB/s", super::rounded(net_bandwidth(net))),
        None => "speed unknown".to_owned(),
    };
    Block { words: vec![format!("{number}{name}"), speed], fill: "#fff4e6", children: Vec::new(), gpu: None }
}

/// Lines between the GPUs of a host that are linked.
pub fn draw_links(canvas: &mut Canvas, host: &Block, placed: &Placed) {
    let mut gpus = Vec::new();
    collect(host, placed, &mut gpus);
    let areas: HashMap<BusId, Area> = gpus.iter().map(|(bus, area, _)| (*bus, *area)).collect();
    // Each end lists the link; it is drawn once.
    let ends = gpus.iter().flat_map(|(bus, _, links)| links.iter().map(|(_, target)| (*bus, *target)));
    let pairs: BTreeSet<(BusId, BusId)> = ends.map(|(one, other)| (one.min(other), one.max(other))).collect();
    for (one, other) in pairs {
        if let (Some(one), Some(other)) = (areas.get(&one), areas.get(&other)) {
            canvas.line(curve(one, other), "#4a9a3a", false);
        }
    }
}

type Linked<'b> = (BusId, Area, &'b [(LinkKind, BusId)]);

fn collect<'b>(block: &'b Block, placed: &Placed, gpus: &mut Vec<Linked<'b>>) {
    if let Some((bus, links)) = &block.gpu {
        gpus.push((*bus, placed.area, links));
    }
    for (child, placed) in block.children.iter().zip(&placed.children) {
        collect(child, placed, gpus);
    }
}

/// From lower edge to lower edge, hanging the lower the farther they are; round what lies between two in one column.
fn curve(one: &Area, other: &Area) -> String {
    let end = |area: &Area| (area.x + area.width / 2.0, area.y + area.height);
    let ((x1, y1), (x2, y2)) = (end(one), end(other));
    let sag = 14.0 + (x2 - x1).abs() / 12.0;
    let bow = if (x2 - x1).abs() < one.width { one.width } else { 0.0 };
    format!("M{x1} {y1}C{} {} {} {} {x2} {y2}", x1 + bow, y1 + sag, x2 + bow, y2 + sag)
}
