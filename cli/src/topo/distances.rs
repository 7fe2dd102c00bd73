//! Path types and bandwidths between devices.

use super::lines::short;
use rccl_topology::paths::{Network, Node, NodeId, NodeKind, PathType};
use serde::Serialize;

/// From every device to every GPU; to every device, where there is no GPU.
pub fn table(network: &Network) -> String {
    let ends = ends(network);
    let is_gpu = |id: &NodeId| matches!(network.node(*id).kind, NodeKind::Gpu { .. });
    let gpus: Vec<NodeId> = ends.iter().copied().filter(is_gpu).collect();
    let columns = if gpus.is_empty() { &ends } else { &gpus };
    if columns.is_empty() {
        return "no device between which there could be a path\n".to_owned();
    }
    let mut rows: Vec<Vec<String>> = vec![vec![String::new()]];
    rows.extend(ends.iter().map(|end| vec![network.node(*end).to_string()]));
    for column in columns {
        rows[0].push(network.node(*column).to_string());
        let paths = network.paths_to(*column);
        for (row, end) in rows[1..].iter_mut().zip(&ends) {
            let path = paths[end.index()];
            row.push(match path.kind {
                _ if end == column => "-".to_owned(),
                PathType::Dis => PathType::Dis.to_string(),
                kind => format!("{kind} {}", short(path.bandwidth)),
            });
        }
    }
    format!("path types, and GB/s of the narrowest link\n{}", aligned(&rows))
}

/// GPUs, ports, adapters without ports, NUMA nodes: what data comes from and goes to.
fn ends(network: &Network) -> Vec<NodeId> {
    let mut ends: Vec<(u8, NodeId)> =
        network.nodes().filter_map(|(id, node)| Some((order(node)?, id))).collect();
    if ends.iter().any(|(order, _)| *order == PORT) {
        ends.retain(|(order, _)| *order != ADAPTER);
    }
    ends.sort();
    ends.into_iter().map(|(_, id)| id).collect()
}

const PORT: u8 = 1;
const ADAPTER: u8 = 2;

fn order(node: &Node) -> Option<u8> {
    match node.kind {
        NodeKind::Gpu { .. } => Some(0),
        NodeKind::Net { .. } => Some(PORT),
        NodeKind::Nic { .. } => Some(ADAPTER),
        NodeKind::Cpu => Some(3),
        NodeKind::Pci { .. } | NodeKind::NvSwitch => None,
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        cells.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A path, for programs.
#[derive(Serialize)]
pub struct Distance {
    from: String,
    to: String,
    #[serde(rename = "type")]
    kind: PathType,
    bandwidth: f64,
    hops: u32,
}

/// Every path between two of the devices of the table.
pub fn all(network: &Network) -> Vec<Distance> {
    let ends = ends(network);
    let mut distances = Vec::new();
    for to in &ends {
        let paths = network.paths_to(*to);
        for from in ends.iter().filter(|from| *from != to) {
            let path = paths[from.index()];
            distances.push(Distance {
                from: network.node(*from).to_string(),
                to: network.node(*to).to_string(),
                kind: path.kind,
                bandwidth: short(path.bandwidth),
                hops: path.hops,
            });
        }
    }
    distances
}
