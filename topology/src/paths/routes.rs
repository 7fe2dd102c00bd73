//! Which links the paths to a node lead over.

use super::{Network, NodeId, Path};

/// The paths from every node to one, with their links. Paths over the network are not among them.
pub(crate) struct Routes {
    paths: Vec<Path>,
    next: Vec<Option<Step>>,
}

/// Where the path from a node goes on.
#[derive(Clone, Copy)]
struct Step {
    to: NodeId,
    link: usize,
    /// Towards the root of the PCI tree.
    up: bool,
}

impl Network {
    /// What each link carries in its direction, GB/s. A link's number is where it stands here; the two directions
    /// between two nodes are two links.
    pub(crate) fn link_bandwidths(&self) -> Vec<f64> {
        self.nodes.iter().flat_map(|node| &node.links).map(|link| link.bandwidth).collect()
    }

    /// The paths from every node to `target`.
    pub(crate) fn routes_to(&self, target: NodeId) -> Routes {
        let mut firsts = Vec::with_capacity(self.nodes.len());
        let mut links = 0;
        for node in &self.nodes {
            firsts.push(links);
            links += node.links.len();
        }
        let mut next = vec![None; self.nodes.len()];
        let paths = self.search(target, |from, to, link| {
            // Paths are searched from their ends: the data goes the other way, by the link's twin.
            let links = &self.nodes[from.0].links;
            let twin = links.iter().position(|it| it.to == to && it.kind == link.kind);
            next[from.0] = twin.map(|place| Step { to, link: firsts[from.0] + place, up: links[place].up });
        });
        Routes { paths, next }
    }
}

impl Routes {
    /// The path from a node.
    pub(crate) fn path(&self, from: NodeId) -> Path {
        self.paths[from.index()]
    }

    /// The numbers of its links, from the node on.
    pub(crate) fn links(&self, from: NodeId) -> impl Iterator<Item = usize> {
        self.steps(from).map(|step| step.link)
    }

    /// How many links it goes up the PCI tree before it goes down again: the more, the larger the part of the tree that
    /// holds both ends.
    pub(crate) fn climb(&self, from: NodeId) -> u32 {
        self.steps(from).take_while(|step| step.up).count() as u32
    }

    fn steps(&self, from: NodeId) -> impl Iterator<Item = Step> {
        std::iter::successors(self.next[from.index()], |step| self.next[step.to.index()])
    }
}
