//! From a system to nodes and links.

use std::collections::HashMap;

use super::{Link, LinkKind, Network, Node, NodeId, NodeKind, figures};
use crate::system::{self, BusId, Cpu, Gpu, Nic, Pci, PciClass, PciIds, Role, System};

impl Network {
    /// The devices of a system, and the links between them.
    pub fn new(system: &System) -> Network {
        let mut build = Build::default();
        for (host, (_, cpus)) in system.hosts().into_iter().enumerate() {
            let ids: Vec<NodeId> = cpus.iter().map(|cpu| build.cpu(host, cpu)).collect();
            for (cpu, &from) in cpus.iter().zip(&ids) {
                for &to in ids.iter().filter(|to| **to != from) {
                    build.link(from, to, LinkKind::Sys, figures::between_cpus(cpu));
                }
            }
        }
        build.gpu_links();
        build.joined_switches();
        build.finish()
    }
}

/// A PCI switch that may be the upper layer of one that shows itself in two, by its generation.
type Layered = Option<u32>;

#[derive(Default)]
struct Build<'s> {
    nodes: Vec<Node>,
    by_bus: HashMap<(usize, BusId), NodeId>,
    aliases: Vec<(usize, BusId, NodeId)>,
    /// Where a link stands among its node's.
    places: HashMap<(NodeId, NodeId, LinkKind), usize>,
    gpus: Vec<(NodeId, NodeId, &'s Gpu)>,
    joined: Vec<(NodeId, BusId)>,
    switch: Option<NodeId>,
}

impl<'s> Build<'s> {
    fn cpu(&mut self, host: usize, cpu: &'s Cpu) -> NodeId {
        let id = self.node(host, cpu.numa, NodeKind::Cpu);
        for device in &cpu.devices {
            self.device(id, id, None, device);
        }
        for nic in &cpu.nics {
            let adapter = self.node(host, cpu.numa, NodeKind::Nic { bus: None });
            self.hang(adapter, id, figures::LOCAL);
            self.ports(adapter, nic);
        }
        id
    }

    /// A device below `parent`. Calls itself as deep as devices are nested.
    fn device(&mut self, cpu: NodeId, parent: NodeId, upper: Layered, device: &'s Pci) {
        if upper.is_some() && layered(&device.ids, 1) == upper {
            // The lower layer of one switch: what hangs on it hangs on the upper one.
            let host = self.nodes[parent.0].host;
            self.aliases.push((host, device.bus, parent));
            device.devices.iter().for_each(|below| self.device(cpu, parent, None, below));
            return;
        }
        let bus = device.bus;
        let id = self.pci_node(
            parent,
            bus,
            match device.role() {
                Role::Gpu => NodeKind::Gpu { bus, dev: device.gpus.first().and_then(|gpu| gpu.dev) },
                Role::Nic => NodeKind::Nic { bus: Some(bus) },
                Role::Switch | Role::Other => NodeKind::Pci { bus },
            },
        );
        if self.nodes[id.0].links.is_empty() {
            self.hang(id, parent, figures::pci(device));
        }
        device.nics.iter().for_each(|nic| self.ports(id, nic));
        // Parts of a GPU share its links.
        if let Some(gpu) = device.gpus.first() {
            self.gpus.push((id, cpu, gpu));
        }
        self.joined.extend(device.joined.iter().map(|target| (id, *target)));
        device.devices.iter().for_each(|below| self.device(cpu, id, layered(&device.ids, 0), below));
    }

    /// The node of a PCI device: files repeat devices that have several ports.
    fn pci_node(&mut self, parent: NodeId, bus: BusId, kind: NodeKind) -> NodeId {
        let Node { host, numa, .. } = self.nodes[parent.0];
        match self.by_bus.get(&(host, bus)) {
            Some(&id) => id,
            None => {
                let id = self.node(host, numa, kind);
                self.by_bus.insert((host, bus), id);
                id
            }
        }
    }

    fn ports(&mut self, adapter: NodeId, nic: &Nic) {
        let Node { host, numa, .. } = self.nodes[adapter.0];
        for net in nic.nets.iter().filter(|net| net.used != Some(false)) {
            let port = self.node(host, numa, NodeKind::Net { dev: net.dev, name: net.name.clone() });
            self.both(adapter, port, LinkKind::Port, figures::net(net));
        }
    }

    /// Links of GPUs lead to other GPUs, to the switches between them, or to the processor.
    fn gpu_links(&mut self) {
        for (id, cpu, gpu) in std::mem::take(&mut self.gpus) {
            let host = self.nodes[id.0].host;
            for link in &gpu.links {
                let bandwidth = f64::from(link.count.unwrap_or(1)) * figures::gpu_link(gpu, link.kind);
                let target = self.by_bus.get(&(host, link.target)).copied();
                let target = target.filter(|to| matches!(self.nodes[to.0].kind, NodeKind::Gpu { .. }));
                match (target, link.class) {
                    (Some(peer), _) if peer == id => {}
                    // The peer lists its end itself.
                    (Some(peer), _) => self.link(id, peer, LinkKind::Gpu, bandwidth),
                    (None, Some(PciClass::NV_BRIDGE)) => self.both(id, cpu, LinkKind::Gpu, bandwidth),
                    (None, Some(PciClass::NV_SWITCH)) => {
                        let switch = self.switch();
                        self.both(id, switch, LinkKind::Gpu, bandwidth);
                    }
                    // A GPU that is not in the file.
                    (None, _) => {}
                }
            }
            for links in &gpu.c2c {
                self.both(id, cpu, LinkKind::C2c, figures::c2c(links));
            }
        }
    }

    /// NCCL sees all switches between GPUs as one, of all hosts: a fabric may join them.
    fn switch(&mut self) -> NodeId {
        let known = self.switch;
        let switch = known.unwrap_or_else(|| self.node(0, None, NodeKind::NvSwitch));
        self.switch = Some(switch);
        switch
    }

    fn joined_switches(&mut self) {
        for (from, target) in std::mem::take(&mut self.joined) {
            let host = self.nodes[from.0].host;
            let alias = self.aliases.iter().find(|(its, bus, _)| (*its, *bus) == (host, target));
            let to = self.by_bus.get(&(host, target)).copied().or(alias.map(|(.., id)| *id));
            if let Some(to) = to.filter(|to| *to != from) {
                self.link(from, to, LinkKind::Local, figures::LOCAL);
            }
        }
    }

    fn node(&mut self, host: usize, numa: Option<u32>, kind: NodeKind) -> NodeId {
        self.nodes.push(Node { kind, host, numa, links: Vec::new() });
        NodeId(self.nodes.len() - 1)
    }

    /// Joins a device to what it hangs on.
    fn hang(&mut self, device: NodeId, parent: NodeId, bandwidth: f64) {
        self.both(device, parent, LinkKind::Pci, bandwidth);
        if let Some(link) = self.nodes[device.0].links.iter_mut().find(|link| link.to == parent) {
            link.up = true;
        }
    }

    fn both(&mut self, one: NodeId, other: NodeId, kind: LinkKind, bandwidth: f64) {
        self.link(one, other, kind, bandwidth);
        self.link(other, one, kind, bandwidth);
    }

    /// Links of one kind between two nodes are one link, as wide as all of them.
    fn link(&mut self, from: NodeId, to: NodeId, kind: LinkKind, bandwidth: f64) {
        let links = &mut self.nodes[from.0].links;
        let place = *self.places.entry((from, to, kind)).or_insert(links.len());
        match links.get_mut(place) {
            Some(link) => link.bandwidth += bandwidth,
            None => links.push(Link { to, kind, bandwidth, up: false }),
        }
    }

    /// Wide links first, the one up the PCI tree last: of equal paths the first one found is kept.
    fn finish(mut self) -> Network {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.links.retain(|link| self.places.contains_key(&(link.to, NodeId(index), link.kind)));
            node.links.sort_by(|a, b| a.up.cmp(&b.up).then(b.bandwidth.total_cmp(&a.bandwidth)));
        }
        Network { nodes: self.nodes, aliases: self.aliases }
    }
}

/// Whether a switch is of a make (Broadcom's PEX of PCI generations 4 and 5) that shows itself in two layers, though all
/// its ports are equal. Of generation 5 the board's number tells the upper layer, 0, from the lower one, 1.
fn layered(ids: &PciIds, layer: u64) -> Layered {
    let number = |id: Option<system::Hex>| id.map_or(0, |id| id.0 & 0xffff);
    let id = number(ids.vendor) << 48
        | number(ids.device) << 32
        | number(ids.subsystem_vendor) << 16
        | number(ids.subsystem_device);
    match id & !0xfff {
        0x1000_c010_1000_a000 => Some(4),
        upper if upper == 0x1000_c030_1000_0000 | layer << 12 => Some(5),
        _ => None,
    }
}
