//! Two-tree broadcast (Sanders, Speck, Träff 2009).
//!
//! The ranks other than the root form the two trees of the tree all_reduce. The root sends one half of the elements
//! into each, and chunks stream down. An inner node of one tree is a leaf of the other, so every rank but the root
//! sends at most about as much as it receives, and the depth is logarithmic.

use super::keep_input;
use super::order::Order;
use super::tree::Node;
use crate::program::{Buffer, Extent, Layout, Op, Program, Rank};

pub(super) fn broadcast(rank: Rank, root: Rank, layout: &Layout, channels: u8) -> Program {
    let n = layout.ranks();
    let order = Order::from_root(layout, root);
    let vertex_rank = |vertex: u32| order.ranks[vertex as usize + 1];

    let mut program = Program::new(rank, n, 2);
    for tree in 0..2 {
        let op = Op::over(Extent::part(tree, 2)).on(tree as u8 % channels);
        if rank == root {
            let top = (0..n - 1).find(|&v| Node::of(tree, v, n - 1).parent.is_none());
            program.push(op.reduce_with(Buffer::INPUT).send_all(top.map(vertex_rank)));
        } else {
            let node = Node::of(tree, order.place(rank) - 1, n - 1);
            let parent = node.parent.map_or(root, vertex_rank);
            let children = node.children.iter().map(|&v| vertex_rank(v));
            program.push(op.recv(parent).copy_to(Buffer::OUTPUT).send_all(children));
        }
    }
    if rank == root {
        program.push(keep_input());
    }
    program
}
