//! Pairwise: one peer after the other, so that a rank has one message in each direction under way and no link carries
//! those of several senders at a time.
//!
//! Only a rank's own row and column of blocks are touched, as in direct: it suits calls whose counts vary.

use super::{direct, keep_own};
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

/// In step i a rank sends to the rank i above it and receives from the rank i below.
pub(super) fn all_to_all(rank: Rank, n: u32) -> Program {
    let block = |from: Rank, to: Rank| Extent::part(from * n + to, n * n);
    let mut program = Program::new(&Collective::AllToAll, rank, n, 1);
    program.push(keep_own(block(rank, rank)));
    let mut before = None;
    for step in 1..n {
        let (above, below) = ((rank + step) % n, (rank + n - step) % n);
        let in_turn = |op: Op| match before {
            Some((sent, received)) => op.after_all_of(sent).after_all_of(received),
            None => op,
        };
        let send = in_turn(Op::over(block(rank, above)).reduce_with(Buffer::INPUT).send(above));
        let receive = in_turn(Op::over(block(below, rank)).recv(below).copy_to(Buffer::OUTPUT));
        before = Some((program.push(send), program.push(receive)));
    }
    program
}

/// The root takes one rank's block after the other.
pub(super) fn gather(rank: Rank, root: Rank, n: u32) -> Program {
    if rank != root {
        return direct::gather(rank, root, n);
    }
    let mut program = Program::new(&Collective::Gather { root }, rank, n, 1);
    let mut before = program.push(keep_own(Extent::part(rank, n)));
    for peer in (0..n).filter(|&peer| peer != root) {
        let op = Op::over(Extent::part(peer, n)).recv(peer).copy_to(Buffer::OUTPUT);
        before = program.push(op.after_all_of(before));
    }
    program
}

/// The root deals one rank's block after the other.
pub(super) fn scatter(rank: Rank, root: Rank, n: u32) -> Program {
    if rank != root {
        return direct::scatter(rank, root, n);
    }
    let mut program = Program::new(&Collective::Scatter { root }, rank, n, 1);
    let mut before = program.push(keep_own(Extent::part(rank, n)));
    for peer in (0..n).filter(|&peer| peer != root) {
        let op = Op::over(Extent::part(peer, n)).reduce_with(Buffer::INPUT).send(peer);
        before = program.push(op.after_all_of(before));
    }
    program
}
