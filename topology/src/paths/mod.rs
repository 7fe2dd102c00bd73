//! How near two devices are, and how much can go between them: NCCL's path types and bandwidths.
//!
//! Devices are nodes, and links join them: PCI links of the tree, GPU links, links between the NUMA nodes of a host,
//! and that from an adapter to its port. The path between two nodes is the one of the fewest links, of those the one of
//! the most bandwidth; its bandwidth is that of its narrowest link, its type that of its farthest step. These are the
//! rules of NCCL 2.30 (its `src/graph/topo.cc` and `paths.cc`), and so are the figures (`figures.rs`):
//!
//! * Paths do not lead through GPUs, but for a single GPU between two others, on GPU links alone (NVB).
//! * A PCI switch that shows itself in two layers, as some of Broadcom's do, is one switch: both layers are one node.
//! * Links count where both ends list them.
//!
//! Which links a path leads over is for the search for rings and trees (`routes.rs`), which must know what several
//! paths share.
//!
//! What NCCL decides while it runs is not here: whether adapters may reach a GPU's memory, and detours over another
//! GPU's adapter (PXN).
//!
//! ```
//! use rccl_topology::{paths::{Network, PathType}, xml};
//!
//! let text = br#"<system version="1"><cpu numaid="0" arch="x86_64" vendor="AuthenticAMD" familyid="25">
//!   <pci busid="0000:01:00.0" class="0x060400" link_speed="32.0 GT/s PCIe" link_width="16">
//!     <pci busid="0000:02:00.0" class="0x030200" link_speed="32.0 GT/s PCIe" link_width="16"/>
//!     <pci busid="0000:03:00.0" class="0x020000" link_speed="16.0 GT/s PCIe" link_width="16"/>
//!   </pci></cpu></system>"#;
//! let network = Network::new(&xml::parse_system(text)?.value);
//! let (gpu, nic) = (network.find("0000:02:00.0").unwrap(), network.find("0000:03:00.0").unwrap());
//! let path = network.path(gpu, nic);
//! assert_eq!((path.kind, path.bandwidth), (PathType::Pix, 24.0));
//! # Ok::<(), xml::Error>(())
//! ```

mod build;
mod figures;
mod routes;

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::system::BusId;

pub use figures::{net as net_bandwidth, pci as pci_bandwidth};

/// How near two devices are, from near to far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathType {
    /// The same device, or parts of one.
    Loc,
    /// GPU links (NVLink, xGMI).
    Nvl,
    /// GPU links over one GPU between.
    Nvb,
    /// A coherent link between GPU and processor.
    C2c,
    /// One PCI switch at the most.
    Pix,
    /// Several PCI switches, and no processor.
    Pxb,
    /// From a GPU by a coherent link to its processor, and on by PCI.
    P2c,
    /// Over another GPU that is near to the adapter. NCCL's choice at run time; in graph files only.
    Pxn,
    /// A processor's PCI host bridge.
    Phb,
    /// The link between the NUMA nodes of a host.
    Sys,
    /// The network.
    Net,
    /// None.
    Dis,
}

/// All types with NCCL's words.
const WORDS: [(PathType, &str); 12] = [
    (PathType::Loc, "LOC"),
    (PathType::Nvl, "NVL"),
    (PathType::Nvb, "NVB"),
    (PathType::C2c, "C2C"),
    (PathType::Pix, "PIX"),
    (PathType::Pxb, "PXB"),
    (PathType::P2c, "P2C"),
    (PathType::Pxn, "PXN"),
    (PathType::Phb, "PHB"),
    (PathType::Sys, "SYS"),
    (PathType::Net, "NET"),
    (PathType::Dis, "DIS"),
];

impl fmt::Display for PathType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In the order of the enum.
        f.pad(WORDS[*self as usize].1)
    }
}

/// A word that is no path type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTypeError;

impl fmt::Display for PathTypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = WORDS.iter().map(|(_, word)| *word).collect();
        write!(f, "a path type is one of {}", words.join(", "))
    }
}

impl std::error::Error for PathTypeError {}

impl FromStr for PathType {
    type Err = PathTypeError;

    fn from_str(text: &str) -> Result<PathType, PathTypeError> {
        let found = WORDS.iter().find(|(_, word)| word.eq_ignore_ascii_case(text.trim()));
        found.map(|(kind, _)| *kind).ok_or(PathTypeError)
    }
}

impl Serialize for PathType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The way between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Path {
    /// How near they are.
    #[serde(rename = "type")]
    pub kind: PathType,
    /// GB/s (1e9 bytes) of its narrowest link; 0 where there is no path. From a node to itself it is NCCL's 5000.
    pub bandwidth: f64,
    /// Links.
    pub hops: u32,
}

impl Path {
    /// There is none.
    pub const NONE: Path = Path { kind: PathType::Dis, bandwidth: 0.0, hops: 0 };
}

/// A device, as a node of the network of links.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// What it is.
    #[serde(flatten)]
    pub kind: NodeKind,
    /// The host that it is in, counted from 0 in the order of [`crate::system::System::hosts`].
    pub host: usize,
    /// The NUMA node that it hangs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numa: Option<u32>,
    #[serde(skip)]
    links: Vec<Link>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum NodeKind {
    /// A NUMA node.
    Cpu,
    /// A PCI switch, bridge, or a device of no known kind.
    Pci {
        /// Its address.
        bus: BusId,
    },
    /// A GPU.
    Gpu {
        /// Its address.
        bus: BusId,
        /// The driver's number of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        dev: Option<u32>,
    },
    /// A network adapter.
    Nic {
        /// Its address, if it is a PCI device.
        #[serde(skip_serializing_if = "Option::is_none")]
        bus: Option<BusId>,
    },
    /// A port of an adapter.
    Net {
        /// Its number.
        #[serde(skip_serializing_if = "Option::is_none")]
        dev: Option<u32>,
        /// Its name.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// The switches between GPUs, all of them.
    NvSwitch,
}

/// Of several hosts the second and later ones show theirs: "host 1 gpu 3".
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = if self.host == 0 { String::new() } else { format!("host {} ", self.host) };
        let words = match (&self.kind, self.numa) {
            (NodeKind::Cpu, Some(numa)) => format!("cpu {numa}"),
            (NodeKind::Cpu, None) => "cpu".to_owned(),
            (NodeKind::Pci { bus }, _) => format!("pci {bus}"),
            (NodeKind::Gpu { dev: Some(dev), .. }, _) => format!("gpu {dev}"),
            (NodeKind::Gpu { bus, .. }, _) => format!("gpu {bus}"),
            (NodeKind::Nic { bus: Some(bus) }, _) => format!("nic {bus}"),
            (NodeKind::Nic { bus: None }, _) => "nic".to_owned(),
            (NodeKind::Net { name: Some(name), .. }, _) => format!("net {name}"),
            (NodeKind::Net { dev: Some(dev), .. }, _) => format!("net {dev}"),
            (NodeKind::Net { .. }, _) => "net".to_owned(),
            (NodeKind::NvSwitch, _) => "nvswitch".to_owned(),
        };
        f.pad(&format!("{host}{words}"))
    }
}

/// A node's link to another, in the order in which paths are tried.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Link {
    to: NodeId,
    kind: LinkKind,
    /// GB/s.
    bandwidth: f64,
    /// Towards the root of the PCI tree.
    up: bool,
}

/// What a link is. PCI links become PIX, PXB or PHB only by what they join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LinkKind {
    Local,
    Gpu,
    C2c,
    Pci,
    Sys,
    Port,
}

/// A node of a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// Where it stands in the order of [`Network::nodes`], and in the answer of [`Network::paths_to`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// The devices of a system, and the links between them.
#[derive(Clone, Debug)]
pub struct Network {
    nodes: Vec<Node>,
    /// Further addresses of nodes: layers of one switch.
    aliases: Vec<(usize, BusId, NodeId)>,
}

impl Network {
    /// Every node, in the order of the file.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(index, node)| (NodeId(index), node))
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node with this address ("0000:3b:00.0"), or with these words ("gpu 3", "net mlx5_0", "cpu 1").
    pub fn find(&self, words: &str) -> Option<NodeId> {
        if let Ok(bus) = words.parse() {
            return self.by_bus(None, bus);
        }
        self.nodes().find(|(_, node)| node.to_string() == words).map(|(id, _)| id)
    }

    fn by_bus(&self, host: Option<usize>, bus: BusId) -> Option<NodeId> {
        let here = |its: usize| host.is_none_or(|host| host == its);
        let node = self.nodes().find(|(_, node)| node.bus() == Some(bus) && here(node.host));
        let alias = || self.aliases.iter().find(|(its, alias, _)| *alias == bus && here(*its));
        node.map(|(id, _)| id).or_else(|| alias().map(|(.., id)| *id))
    }

    /// The path between two nodes. Whoever wants many from one node asks [`Network::paths_to`].
    pub fn path(&self, from: NodeId, to: NodeId) -> Path {
        self.paths_to(to)[from.0]
    }

    /// The paths from every node to one, by node. Takes time in proportion to the links.
    pub fn paths_to(&self, target: NodeId) -> Vec<Path> {
        let mut paths = self.linked(target);
        self.over_the_network(target, &mut paths);
        paths
    }

    /// The paths over links.
    fn linked(&self, target: NodeId) -> Vec<Path> {
        self.search(target, |_, _, _| ())
    }

    /// The paths over links to one node. Breadth first, so the shortest come first. Calls `step(from, to, link)` where
    /// the path from one node goes on by another's link, in the place of what it said before of the same node.
    fn search(&self, target: NodeId, mut step: impl FnMut(NodeId, NodeId, &Link)) -> Vec<Path> {
        let mut paths = vec![Path::NONE; self.nodes.len()];
        paths[target.0] = Path { kind: PathType::Loc, bandwidth: figures::LOCAL, hops: 0 };
        let mut layer = vec![target];
        while !layer.is_empty() {
            let mut next = Vec::new();
            for &at in &layer {
                for link in &self.nodes[at.0].links {
                    let Some(longer) = self.longer(paths[at.0], target, at, link) else { continue };
                    let known = &mut paths[link.to.0];
                    let first = known.kind == PathType::Dis;
                    // Of paths of one length the wider.
                    if first || (known.hops == longer.hops && longer.bandwidth > known.bandwidth) {
                        *known = longer;
                        step(link.to, at, link);
                    }
                    if first {
                        next.push(link.to);
                    }
                }
            }
            layer = next;
        }
        paths
    }

    /// The path one link longer; `None` if it may not lead on there.
    fn longer(&self, path: Path, target: NodeId, at: NodeId, link: &Link) -> Option<Path> {
        let (here, there) = (&self.nodes[at.0].kind, &self.nodes[link.to.0].kind);
        let is_gpu = |kind: &NodeKind| matches!(kind, NodeKind::Gpu { .. });
        let relayed = at != target && is_gpu(here);
        if relayed && (link.kind != LinkKind::Gpu || !is_gpu(there) || path.hops > 1) {
            return None;
        }
        let is_cpu = |kind: &NodeKind| matches!(kind, NodeKind::Cpu);
        let is_pci = |kind: &NodeKind| matches!(kind, NodeKind::Pci { .. });
        let step = match link.kind {
            _ if is_pci(here) && is_pci(there) => PathType::Pxb,
            LinkKind::Pci if is_cpu(here) || is_cpu(there) => PathType::Phb,
            LinkKind::Gpu if relayed && path.kind == PathType::Nvl => PathType::Nvb,
            LinkKind::Pci => PathType::Pix,
            LinkKind::Gpu => PathType::Nvl,
            LinkKind::C2c => PathType::C2c,
            LinkKind::Sys => PathType::Sys,
            LinkKind::Local | LinkKind::Port => PathType::Loc,
        };
        let kind = match (path.kind.min(step), path.kind.max(step)) {
            (PathType::C2c, PathType::Phb) => PathType::P2c,
            (_, farther) => farther,
        };
        let bandwidth = path.bandwidth.min(link.bandwidth);
        (bandwidth > 0.0).then_some(Path { kind, bandwidth, hops: path.hops + 1 })
    }

    /// Between hosts that no link joins lie the ports of both: each end takes the nearest of its ports that is widest.
    fn over_the_network(&self, target: NodeId, paths: &mut [Path]) {
        let host = self.nodes[target.0].host;
        let is_port = |node: &Node| matches!(node.kind, NodeKind::Net { .. });
        let unreached = |(index, node): (usize, &Node)| {
            (node.host != host && paths[index].kind == PathType::Dis).then_some(index)
        };
        let far: Vec<usize> = self.nodes.iter().enumerate().filter_map(unreached).collect();
        let ports =
            self.nodes.iter().zip(paths.iter()).filter(|(node, _)| node.host == host && is_port(node));
        let Some(near_end) = ports.map(|(_, path)| *path).reduce(better) else { return };
        if far.is_empty() || near_end.kind == PathType::Dis {
            return;
        }
        let mut far_ends = vec![Path::NONE; self.nodes.len()];
        for (port, node) in self.nodes().filter(|(_, node)| node.host != host && is_port(node)) {
            let to_port = self.linked(port);
            for &index in far.iter().filter(|index| self.nodes[**index].host == node.host) {
                far_ends[index] = better(far_ends[index], to_port[index]);
            }
        }
        for index in far {
            if far_ends[index].kind != PathType::Dis {
                let far_end = far_ends[index];
                paths[index] = Path {
                    kind: PathType::Net,
                    bandwidth: near_end.bandwidth.min(far_end.bandwidth),
                    hops: near_end.hops + far_end.hops + 1,
                };
            }
        }
    }
}

/// The nearer path, of equally near ones the wider.
fn better(one: Path, other: Path) -> Path {
    let other_wins = other.kind < one.kind || (other.kind == one.kind && other.bandwidth > one.bandwidth);
    if other_wins { other } else { one }
}

impl Node {
    /// The PCI address, of those that have one.
    pub fn bus(&self) -> Option<BusId> {
        match self.kind {
            NodeKind::Pci { bus } | NodeKind::Gpu { bus, .. } => Some(bus),
            NodeKind::Nic { bus } => bus,
            NodeKind::Cpu | NodeKind::Net { .. } | NodeKind::NvSwitch => None,
        }
    }
}
