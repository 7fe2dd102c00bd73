//! Graphs as rows: a line of text for each graph, and below it its channels.

use super::MARGIN;
use super::svg::{Area, Canvas, LINE, text_width};
use crate::graph::{Channel, Graph, Graphs, Hop, Pattern};
use crate::system::{Nic, Pci, System};

/// Height of a hop's box.
const BOX: f64 = 24.0;

/// Between two hops, for the arrow.
const STEP: f64 = 28.0;

/// Draws graphs from `top` on, and answers where they end. The system gives ports their names.
pub fn draw(canvas: &mut Canvas, graphs: &Graphs, system: Option<&System>, top: f64) -> f64 {
    let names = system.map(port_names).unwrap_or_default();
    let mut y = top;
    for graph in &graphs.graphs {
        canvas.text(MARGIN, y, &title(graph), true);
        y += LINE + 6.0;
        for (index, channel) in graph.channels.iter().enumerate() {
            canvas.text(MARGIN, y + 4.0, &format!("channel {index}"), false);
            y = row(canvas, channel, graph.pattern, &names, y);
        }
        y += MARGIN;
    }
    y
}

/// What a graph is, in a line.
fn title(graph: &Graph) -> String {
    let mut words = match graph.channels.len() {
        0 => format!("{}: no channels", graph.pattern),
        1 => format!("{}: 1 channel", graph.pattern),
        more => format!("{}: {more} channels", graph.pattern),
    };
    for (place, bandwidth, path) in [
        ("inside of a host", graph.bandwidth_intra, graph.type_intra),
        ("between hosts", graph.bandwidth_inter, graph.type_inter),
    ] {
        if let (Some(bandwidth), false) = (bandwidth, graph.channels.is_empty()) {
            let path = path.map_or_else(String::new, |path| format!(" ({path})"));
            words.push_str(&format!(", {} GB/s {place}{path}", super::rounded(bandwidth)));
        }
    }
    words
}

/// One channel: its hops from left to right. Rings have arrows, and those that stay in the host one back.
fn row(canvas: &mut Canvas, channel: &Channel, pattern: Pattern, names: &[(u64, String)], y: f64) -> f64 {
    let first = MARGIN + 84.0;
    let middle = y + BOX / 2.0;
    let (mut x, mut last) = (first, None);
    for hop in &channel.hops {
        let words = match hop {
            Hop::Net { dev } => names.iter().find(|(known, _)| known == dev).map(|(_, name)| name.clone()),
            Hop::Gpu { .. } | Hop::Cpu { .. } => None,
        };
        let words = words.unwrap_or_else(|| hop.to_string());
        let width = text_width(&words, false) + 16.0;
        if let Some(end) = last {
            canvas.line(format!("M{end} {middle}H{x}"), "#444444", pattern == Pattern::Ring);
        }
        let fill = match hop {
            Hop::Gpu { .. } => "#d8ecd0",
            Hop::Cpu { .. } => "#dde6f2",
            Hop::Net { .. } => "#f6dfc6",
        };
        canvas.rectangle(Area { x, y, width, height: BOX }, fill);
        canvas.text(x + 8.0, y + 4.0, &words, false);
        last = Some(x + width);
        x += width + STEP;
    }
    let (Some(end), true) = (last, channel.closes(pattern) && channel.hops.len() > 1) else {
        return y + BOX + 8.0;
    };
    let (right, below, start) = (end + 10.0, y + BOX + 8.0, first - 10.0);
    let back = format!("M{end} {middle}H{right}V{below}H{start}V{middle}H{first}");
    canvas.line(back, "#444444", true);
    below + 10.0
}

/// Ports by number, for systems of one host: in others the number alone says nothing.
fn port_names(system: &System) -> Vec<(u64, String)> {
    fn add(nics: &[Nic], names: &mut Vec<(u64, String)>) {
        for net in nics.iter().flat_map(|nic| &nic.nets) {
            if let (Some(dev), Some(name)) = (net.dev, &net.name) {
                names.push((u64::from(dev), name.clone()));
            }
        }
    }
    fn below(devices: &[Pci], names: &mut Vec<(u64, String)>) {
        for device in devices {
            add(&device.nics, names);
            below(&device.devices, names);
        }
    }
    let mut names = Vec::new();
    if system.hosts().len() == 1 {
        for cpu in &system.cpus {
            add(&cpu.nics, &mut names);
            below(&cpu.devices, &mut names);
        }
    }
    names
}
