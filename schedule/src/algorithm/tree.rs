//! Double binary tree all_reduce (Sanders, Speck, Träff, "Two-tree algorithms for full bandwidth broadcast, reduction
//! and scan", 2009).
//!
//! Two binary trees over the same ranks, each with half of the elements, such that (but for the roots) an inner node
//! of one is a leaf of the other: together every rank sends and receives about as much as in a ring, in logarithmically
//! many steps. In each tree operands are reduced on the way up and the result is kept on the way down, both chunk by
//! chunk, so that chunks stream through the tree; a node reduces both children and its own operand in one pass.

use super::order::Order;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Few, Op, Program, Rank};

pub(super) fn all_reduce(rank: Rank, order: &Order, channels: u8) -> Program {
    let n = order.ranks.len() as u32;
    let place = order.place(rank);

    let mut program = Program::new(&Collective::AllReduce, rank, n, 2);
    // All of one tree before the other: an edge that both trees use then has the same order of messages at both ends.
    for tree in 0..2 {
        let node = Node::of(tree, place, n);
        let mut children: Vec<Rank> = node.children.iter().map(|&p| order.ranks[p as usize]).collect();
        children.sort_unstable();
        let op = || Op::over(Extent::part(tree, 2)).on(tree as u8 % channels);
        let up = op().recv_all(children.iter().copied()).reduce_with(Buffer::INPUT);
        match node.parent {
            None => {
                program.push(up.copy_to(Buffer::OUTPUT).finish().send_all(children));
            }
            Some(parent) => {
                let parent = order.ranks[parent as usize];
                program.push(up.send(parent));
                program.push(op().recv(parent).copy_to(Buffer::OUTPUT).send_all(children));
            }
        }
    }
    program
}

/// The parent of `vertex` in tree 0 or 1 of the double binary tree over vertices `0..vertices`; `None` for the root. Both
/// trees are at most ⌊log₂ n⌋+1 edges deep, and a vertex with two children in one has at most one in the other.
pub fn double_tree_parent(tree: u32, vertex: u32, vertices: u32) -> Option<u32> {
    Node::of(tree, vertex, vertices).parent
}

/// A vertex's neighbours in one of the two trees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// `None` for the root.
    pub parent: Option<u32>,
    /// At most two.
    pub children: Few<u32>,
}

impl Node {
    /// The neighbours of `vertex` in tree 0 or 1 over vertices `0..n`.
    ///
    /// Tree 1 is tree 0 mirrored when `n` is even and shifted by one when it is odd, which turns odd vertices (the
    /// leaves of tree 0) into even ones.
    pub(super) fn of(tree: u32, vertex: u32, n: u32) -> Node {
        let Node { parent, children } = match tree {
            0 => return Node::in_first(vertex, n),
            _ if n.is_multiple_of(2) => Node::in_first(n - 1 - vertex, n),
            _ => Node::in_first((vertex + n - 1) % n, n),
        };
        let back = |v: u32| if n.is_multiple_of(2) { n - 1 - v } else { (v + 1) % n };
        Node { parent: parent.map(back), children: children.iter().map(|&v| back(v)).collect() }
    }

    /// A vertex's level is its lowest set bit; 0 is the root, with the highest power of two below `n` as only child.
    fn in_first(vertex: u32, n: u32) -> Node {
        if vertex == 0 {
            let children = (n > 1).then(|| n.next_power_of_two() / 2);
            return Node { parent: None, children: children.into_iter().collect() };
        }
        let bit = vertex & vertex.wrapping_neg();
        let above = (vertex ^ bit) | (bit << 1);
        let parent = if above < n { above } else { vertex ^ bit };
        // The subtree to the right may be cut off by n; then its highest vertex that exists takes its place.
        let steps =
            std::iter::successors(Some(bit >> 1), |step| Some(step >> 1)).take_while(|&step| step > 0);
        let left = (bit > 1).then(|| vertex - bit / 2);
        let right = steps.map(|step| vertex + step).find(|&v| v < n);
        Node { parent: Some(parent), children: left.into_iter().chain(right).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_and_children_agree_and_every_vertex_hangs_on_the_root() {
        for n in 1..=200 {
            for tree in 0..2 {
                let nodes: Vec<Node> = (0..n).map(|v| Node::of(tree, v, n)).collect();
                assert_eq!(nodes.iter().filter(|node| node.parent.is_none()).count(), 1, "n {n} tree {tree}");
                for (v, node) in nodes.iter().enumerate() {
                    for &child in node.children.iter() {
                        assert_eq!(
                            nodes[child as usize].parent,
                            Some(v as u32),
                            "n {n} tree {tree} vertex {v}"
                        );
                    }
                    let up = std::iter::successors(Some(v as u32), |&v| nodes[v as usize].parent);
                    assert!(
                        up.take(n as usize + 1).count() as u32 <= n.ilog2() + 2,
                        "n {n} tree {tree} vertex {v}"
                    );
                }
                assert_eq!(nodes.iter().map(|node| node.children.len() as u32).sum::<u32>(), n - 1);
            }
        }
    }

    #[test]
    fn an_inner_vertex_of_one_tree_is_a_leaf_of_the_other() {
        for n in 2..=200 {
            let children =
                |tree, v| (0..n).filter(|child| double_tree_parent(tree, *child, n) == Some(v)).count();
            let inner = |tree, v| {
                let two = Node::of(tree, v, n).children.len() == 2;
                assert_eq!(two, children(tree, v) == 2);
                two
            };
            assert!((0..n).all(|v| !(inner(0, v) && inner(1, v))), "n {n}");
        }
    }
}
