//! Two-tree broadcast and reduce (Sanders, Speck, Träff 2009).
//!
//! The ranks other than the root form the two trees of the tree all_reduce. The root sends one half of the elements
//! into each, and chunks stream down. An inner node of one tree is a leaf of the other, so every rank but the root
//! sends at most about as much as it receives, and the depth is logarithmic. A reduce streams up the same trees, as the
//! first half of the all_reduce does.

use super::keep_input;
use super::order::Order;
use super::tree::Node;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn broadcast(rank: Rank, root: Rank, order: &Order, channels: u8) -> Program {
    let mut program = Program::new(&Collective::Broadcast { root }, rank, order.ranks.len() as u32, 2);
    for tree in 0..2 {
        let Neighbours { parent, children } = neighbours(tree, rank, root, order);
        let op = Op::over(Extent::part(tree, 2)).on(tree as u8 % channels).send_all(children);
        program.push(match parent {
            None => op.reduce_with(Buffer::INPUT),
            Some(parent) => op.recv(parent).copy_to(Buffer::OUTPUT),
        });
    }
    if rank == root {
        program.push(keep_input());
    }
    program
}

pub(super) fn reduce(rank: Rank, root: Rank, order: &Order, channels: u8) -> Program {
    let mut program = Program::new(&Collective::Reduce { root }, rank, order.ranks.len() as u32, 2);
    for tree in 0..2 {
        let Neighbours { parent, mut children } = neighbours(tree, rank, root, order);
        children.sort_unstable();
        let op = Op::over(Extent::part(tree, 2)).on(tree as u8 % channels);
        let op = op.recv_all(children).reduce_with(Buffer::INPUT);
        program.push(match parent {
            None => op.copy_to(Buffer::OUTPUT).finish(),
            Some(parent) => op.send(parent),
        });
    }
    program
}

/// The ranks next to a rank in a tree that hangs on the root.
struct Neighbours {
    /// `None` for the root.
    parent: Option<Rank>,
    children: Vec<Rank>,
}

fn neighbours(tree: u32, rank: Rank, root: Rank, order: &Order) -> Neighbours {
    let vertices = order.ranks.len() as u32 - 1;
    let vertex_rank = |vertex: u32| order.ranks[vertex as usize + 1];
    if rank == root {
        let top = (0..vertices).find(|&vertex| Node::of(tree, vertex, vertices).parent.is_none());
        return Neighbours { parent: None, children: top.into_iter().map(vertex_rank).collect() };
    }
    let node = Node::of(tree, order.place(rank) - 1, vertices);
    Neighbours {
        parent: Some(node.parent.map_or(root, vertex_rank)),
        children: node.children.iter().map(|&vertex| vertex_rank(vertex)).collect(),
    }
}
