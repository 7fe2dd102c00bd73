//! `<system>`: a topology.

use roxmltree::Node;

use super::Error;
use super::attributes::Attributes;
use super::reader::Reader;
use super::writer::{self, Writer};
use crate::system::{C2c, Cpu, Gpu, Link, LinkKind, LinkSpeed, Net, Nic, Pci, PciIds, System};

/// How many NUMA nodes are read. Each is joined to all others of its host.
const MAX_CPUS: usize = 1024;

/// Reads the root.
pub fn read(reader: &mut Reader<'_>, root: Node<'_, '_>) -> Result<System, Error> {
    reader.expect(root, "system", "a graph file goes where graphs are read: `rccl topo --graph FILE`")?;
    let mut attributes = Attributes::of(root);
    let mut system = System {
        version: attributes.number("version")?,
        name: attributes.text("name").map(str::to_owned),
        cpus: Vec::new(),
    };
    attributes.finish(reader);
    for node in root.children().filter(Node::is_element) {
        match node.tag_name().name() {
            "cpu" if system.cpus.len() == MAX_CPUS => {
                let what = format!("there are more than {MAX_CPUS} NUMA nodes");
                return Err(reader.error(node, what, "split the file by hosts"));
            }
            "cpu" => system.cpus.push(cpu(reader, node)?),
            _ => reader.unknown(node),
        }
    }
    Ok(system)
}

fn cpu(reader: &mut Reader<'_>, node: Node<'_, '_>) -> Result<Cpu, Error> {
    let mut attributes = Attributes::of(node);
    let mut cpu = Cpu {
        host: attributes.hex("host_hash")?,
        numa: attributes.number("numaid")?,
        affinity: attributes.parsed("affinity")?,
        arch: attributes.text("arch").map(str::to_owned),
        vendor: attributes.text("vendor").map(str::to_owned),
        family: attributes.number("familyid")?,
        model: attributes.number("modelid")?,
        devices: Vec::new(),
        nics: Vec::new(),
    };
    if attributes.number("affinity_offset")?.is_some_and(|offset| offset != 0) {
        // A mask too long for NCCL's attributes; how it is shifted its files do not say.
        cpu.affinity = None;
        reader.note(attributes.place("affinity_offset"), "a mask with an offset is left out".to_owned());
    }
    attributes.finish(reader);
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "pci" => cpu.devices.push(pci(reader, child)?),
            "nic" => cpu.nics.push(nic(reader, child)?),
            _ => reader.unknown(child),
        }
    }
    Ok(cpu)
}

/// Calls itself as deep as elements may be, which the outline has checked.
fn pci(reader: &mut Reader<'_>, node: Node<'_, '_>) -> Result<Pci, Error> {
    let mut attributes = Attributes::of(node);
    let bus = attributes.parsed("busid")?;
    let mut device = Pci::new(attributes.required("busid", bus)?);
    device.class = attributes.parsed("class")?;
    device.ids = PciIds {
        vendor: attributes.hex("vendor")?,
        device: attributes.hex("device")?,
        subsystem_vendor: attributes.hex("subsystem_vendor")?,
        subsystem_device: attributes.hex("subsystem_device")?,
    };
    if let Some(words) = attributes.text("link_speed") {
        device.speed = LinkSpeed::from_words(words);
        if device.speed.is_none() {
            reader.note(attributes.place("link_speed"), format!("link_speed={words:?} is no speed"));
        }
    }
    // 0 is how virtual machines say that they do not know.
    device.width = attributes.number("link_width")?.filter(|width| *width != 0);
    attributes.finish(reader);
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "pci" => device.devices.push(pci(reader, child)?),
            "gpu" => device.gpus.push(gpu(reader, child)?),
            "nic" => device.nics.push(nic(reader, child)?),
            "pcilink" => {
                let mut attributes = Attributes::of(child);
                let target = attributes.parsed("target")?;
                device.joined.push(attributes.required("target", target)?);
                attributes.finish(reader);
            }
            _ => reader.unknown(child),
        }
    }
    Ok(device)
}

fn gpu(reader: &mut Reader<'_>, node: Node<'_, '_>) -> Result<Gpu, Error> {
    let mut attributes = Attributes::of(node);
    let mut gpu = Gpu {
        dev: attributes.number("dev")?,
        sm: attributes.number("sm")?,
        gcn: attributes.text("gcn").map(str::to_owned),
        arch: attributes.number("arch")?,
        part: attributes.number("mlopart")?,
        rank: attributes.number("rank")?,
        gdr: attributes.flag("gdr")?,
        links: Vec::new(),
        c2c: Vec::new(),
    };
    attributes.finish(reader);
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "nvlink" => gpu.links.push(link(reader, child, LinkKind::NvLink)?),
            "xgmi" => gpu.links.push(link(reader, child, LinkKind::Xgmi)?),
            "c2c" => {
                let mut attributes = Attributes::of(child);
                let c2c = C2c { bandwidth: attributes.number("bw")?, count: attributes.number("count")? };
                gpu.c2c.push(c2c);
                attributes.finish(reader);
            }
            _ => reader.unknown(child),
        }
    }
    Ok(gpu)
}

fn link(reader: &mut Reader<'_>, node: Node<'_, '_>, kind: LinkKind) -> Result<Link, Error> {
    let mut attributes = Attributes::of(node);
    let target = attributes.parsed("target")?;
    let link = Link {
        kind,
        target: attributes.required("target", target)?,
        count: attributes.number("count")?,
        class: attributes.parsed("tclass")?,
    };
    attributes.finish(reader);
    Ok(link)
}

fn nic(reader: &mut Reader<'_>, node: Node<'_, '_>) -> Result<Nic, Error> {
    Attributes::of(node).finish(reader);
    let mut nic = Nic::default();
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "net" => nic.nets.push(net(reader, child)?),
            _ => reader.unknown(child),
        }
    }
    Ok(nic)
}

fn net(reader: &mut Reader<'_>, node: Node<'_, '_>) -> Result<Net, Error> {
    let mut attributes = Attributes::of(node);
    let net = Net {
        name: attributes.text("name").map(str::to_owned),
        dev: attributes.number("dev")?,
        latency: attributes.real("latency")?,
        speed: attributes.number("speed")?,
        port: attributes.number("port")?,
        guid: attributes.hex("guid")?,
        max_connections: attributes.number("maxconn")?,
        gdr: attributes.flag("gdr")?,
        reduces: attributes.flag("coll")?,
        used: attributes.flag("net")?,
    };
    attributes.finish(reader);
    Ok(net)
}

/// The text of the file.
pub fn write(system: &System) -> String {
    let mut writer = Writer::default();
    writer.element(
        "system",
        |attributes| {
            attributes.write("version", system.version);
            attributes.write("name", system.name.as_ref());
        },
        |writer| system.cpus.iter().for_each(|cpu| write_cpu(writer, cpu)),
    );
    writer.finish()
}

fn write_cpu(writer: &mut Writer, cpu: &Cpu) {
    writer.element(
        "cpu",
        |attributes| {
            attributes.write("host_hash", cpu.host);
            // NCCL does not read a file without it.
            attributes.write("numaid", Some(cpu.numa.map_or(-1, i64::from)));
            attributes.write("affinity", cpu.affinity.as_ref().map(|set| set.mask()));
            attributes.write("arch", cpu.arch.as_ref());
            attributes.write("vendor", cpu.vendor.as_ref());
            attributes.write("familyid", cpu.family);
            attributes.write("modelid", cpu.model);
        },
        |writer| {
            cpu.devices.iter().for_each(|device| write_pci(writer, device));
            cpu.nics.iter().for_each(|nic| write_nic(writer, nic));
        },
    );
}

fn write_pci(writer: &mut Writer, device: &Pci) {
    let four_digits = |number: Option<crate::system::Hex>| number.map(|number| format!("{:#06x}", number.0));
    writer.element(
        "pci",
        |attributes| {
            attributes.write("busid", Some(device.bus));
            attributes.write("class", device.class);
            attributes.write("vendor", four_digits(device.ids.vendor));
            attributes.write("device", four_digits(device.ids.device));
            attributes.write("subsystem_vendor", four_digits(device.ids.subsystem_vendor));
            attributes.write("subsystem_device", four_digits(device.ids.subsystem_device));
            // NCCL does not read a file without these two, and takes these for not known.
            attributes.write("link_speed", Some(device.speed.map_or_else(String::new, |it| it.to_string())));
            attributes.write("link_width", Some(device.width.unwrap_or(0)));
        },
        |writer| {
            device.gpus.iter().for_each(|gpu| write_gpu(writer, gpu));
            device.nics.iter().for_each(|nic| write_nic(writer, nic));
            device.devices.iter().for_each(|below| write_pci(writer, below));
            for target in &device.joined {
                writer.element("pcilink", |attributes| attributes.write("target", Some(target)), |_| {});
            }
        },
    );
}

fn write_gpu(writer: &mut Writer, gpu: &Gpu) {
    writer.element(
        "gpu",
        |attributes| {
            attributes.write("dev", gpu.dev);
            attributes.write("sm", gpu.sm);
            attributes.write("gcn", gpu.gcn.as_ref());
            attributes.write("arch", gpu.arch);
            attributes.write("mlopart", gpu.part);
            attributes.write("rank", gpu.rank);
            attributes.flag("gdr", gpu.gdr);
        },
        |writer| {
            for link in &gpu.links {
                let name = match link.kind {
                    LinkKind::NvLink => "nvlink",
                    LinkKind::Xgmi => "xgmi",
                };
                writer.element(name, |attributes| write_link(attributes, link), |_| {});
            }
            for c2c in &gpu.c2c {
                let write = |attributes: &mut writer::Attributes<'_>| {
                    attributes.write("bw", c2c.bandwidth);
                    attributes.write("count", c2c.count);
                };
                writer.element("c2c", write, |_| {});
            }
        },
    );
}

fn write_link(attributes: &mut writer::Attributes<'_>, link: &Link) {
    attributes.write("target", Some(link.target));
    attributes.write("count", link.count);
    attributes.write("tclass", link.class);
}

fn write_nic(writer: &mut Writer, nic: &Nic) {
    writer.element(
        "nic",
        |_| {},
        |writer| {
            for net in &nic.nets {
                writer.element("net", |attributes| write_net(attributes, net), |_| {});
            }
        },
    );
}

fn write_net(attributes: &mut writer::Attributes<'_>, net: &Net) {
    attributes.write("name", net.name.as_ref());
    attributes.write("dev", net.dev);
    attributes.write("latency", net.latency);
    attributes.write("speed", net.speed);
    attributes.write("port", net.port);
    attributes.write("guid", net.guid);
    attributes.write("maxconn", net.max_connections);
    attributes.flag("gdr", net.gdr);
    attributes.flag("coll", net.reduces);
    attributes.flag("net", net.used);
}
