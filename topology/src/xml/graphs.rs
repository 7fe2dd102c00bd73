//! `<graphs>`: the channels that NCCL found, or shall use.

use roxmltree::Node;

use super::Error;
use super::attributes::Attributes;
use super::reader::Reader;
use super::writer::Writer;
use crate::graph::{Channel, Graph, Graphs, Hop, Pattern};

/// Reads the root.
pub fn read(reader: &mut Reader<'_>, root: Node<'_, '_>) -> Result<Graphs, Error> {
    reader.expect(root, "graphs", "a topology file goes where topologies are read: `rccl topo FILE`")?;
    let mut attributes = Attributes::of(root);
    let mut graphs = Graphs { version: attributes.number("version")?, graphs: Vec::new() };
    attributes.finish(reader);
    for node in root.children().filter(Node::is_element) {
        match node.tag_name().name() {
            "graph" => graphs.graphs.push(graph(reader, node)?),
            _ => reader.unknown(node),
        }
    }
    Ok(graphs)
}

fn graph(reader: &mut Reader<'_>, node: Node<'_, '_>) -> Result<Graph, Error> {
    let mut attributes = Attributes::of(node);
    let pattern = attributes.number("pattern")?;
    let mut graph = Graph {
        id: attributes.number("id")?,
        pattern: Pattern::from_number(attributes.required("pattern", pattern)?),
        cross_nic: attributes.number("crossnic")?,
        declared_channels: attributes.number("nchannels")?,
        bandwidth_intra: attributes.real("speedintra")?,
        bandwidth_inter: attributes.real("speedinter")?,
        latency_inter: attributes.real("latencyinter")?,
        type_intra: attributes.parsed("typeintra")?,
        type_inter: attributes.parsed("typeinter")?,
        same_channels: attributes.flag("samechannels")?,
        channels: Vec::new(),
    };
    attributes.finish(reader);
    for child in node.children().filter(Node::is_element) {
        match child.tag_name().name() {
            "channel" => graph.channels.push(channel(reader, child)?),
            _ => reader.unknown(child),
        }
    }
    if graph.declared_channels.is_some_and(|declared| declared as usize != graph.channels.len()) {
        let words = format!("nchannels says otherwise, but there are {} channels", graph.channels.len());
        reader.note(node.range().start, words);
    }
    Ok(graph)
}

fn channel(reader: &mut Reader<'_>, node: Node<'_, '_>) -> Result<Channel, Error> {
    Attributes::of(node).finish(reader);
    let mut channel = Channel::default();
    for child in node.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        if !matches!(name, "net" | "gpu" | "cpu") {
            reader.unknown(child);
            continue;
        }
        let mut attributes = Attributes::of(child);
        channel.hops.push(match name {
            "cpu" => {
                let numa = attributes.number("numaid")?;
                Hop::Cpu { numa: attributes.required("numaid", numa)?, rank: attributes.number("rank")? }
            }
            _ => {
                let dev = attributes.long_number("dev")?;
                let dev = attributes.required("dev", dev)?;
                match name {
                    "net" => Hop::Net { dev },
                    _ => Hop::Gpu { dev, rank: attributes.number("rank")? },
                }
            }
        });
        attributes.finish(reader);
    }
    Ok(channel)
}

/// The text of the file.
pub fn write(graphs: &Graphs) -> String {
    let mut writer = Writer::default();
    writer.element(
        "graphs",
        |attributes| attributes.write("version", graphs.version),
        |writer| graphs.graphs.iter().for_each(|graph| write_graph(writer, graph)),
    );
    writer.finish()
}

fn write_graph(writer: &mut Writer, graph: &Graph) {
    writer.element(
        "graph",
        |attributes| {
            attributes.write("id", graph.id);
            attributes.write("pattern", Some(graph.pattern.number()));
            attributes.write("crossnic", graph.cross_nic);
            attributes.write("nchannels", graph.declared_channels);
            attributes.write("speedintra", graph.bandwidth_intra);
            attributes.write("speedinter", graph.bandwidth_inter);
            attributes.write("latencyinter", graph.latency_inter);
            attributes.write("typeintra", graph.type_intra);
            attributes.write("typeinter", graph.type_inter);
            attributes.flag("samechannels", graph.same_channels);
        },
        |writer| graph.channels.iter().for_each(|channel| write_channel(writer, channel)),
    );
}

/// A channel without hops stays one: an element is read back whether it holds something or not.
fn write_channel(writer: &mut Writer, channel: &Channel) {
    writer.element(
        "channel",
        |_| {},
        |writer| {
            for hop in &channel.hops {
                match hop {
                    Hop::Net { dev } => writer.element("net", |it| it.write("dev", Some(dev)), |_| {}),
                    Hop::Gpu { dev, rank } => writer.element(
                        "gpu",
                        |it| {
                            it.write("dev", Some(dev));
                            it.write("rank", *rank);
                        },
                        |_| {},
                    ),
                    Hop::Cpu { numa, rank } => writer.element(
                        "cpu",
                        |it| {
                            it.write("numaid", Some(numa));
                            it.write("rank", *rank);
                        },
                        |_| {},
                    ),
                }
            }
        },
    );
}
