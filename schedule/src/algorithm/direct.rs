//! Direct: every element goes straight from the rank that has it to the ranks that want it.
//!
//! All_reduce is a reduce_scatter and an all_gather of one step each: rank r reduces slice r of all ranks in a single
//! pass over memory and hands the result to everybody. In a host, with mapped buffers, every element is read once from
//! each rank and written once to each, and nothing is staged. The other collectives are one step; those that have a
//! root are bound by what its link carries.

use super::{keep_input, keep_own};
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn all_reduce(rank: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::AllReduce, rank, n, n);
    let reduce = deal_and_reduce(&mut program);
    program.push(reduce.copy_to(Buffer::OUTPUT).send_all(others(rank, n)));
    for peer in others(rank, n) {
        program.push(Op::over(Extent::part(peer, n)).recv(peer).copy_to(Buffer::OUTPUT));
    }
    program
}

/// Every rank hands its block to all others.
pub(super) fn all_gather(rank: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::AllGather, rank, n, 1);
    program.push(Op::over(Extent::part(rank, n)).reduce_with(Buffer::INPUT).send_all(others(rank, n)));
    program.push(keep_own(Extent::part(rank, n)));
    for peer in others(rank, n) {
        program.push(Op::over(Extent::part(peer, n)).recv(peer).copy_to(Buffer::OUTPUT));
    }
    program
}

/// Rank r reduces block r of all ranks in a single pass over memory.
pub(super) fn reduce_scatter(rank: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::ReduceScatter, rank, n, 1);
    let reduce = deal_and_reduce(&mut program);
    program.push(reduce.copy_to(Buffer::OUTPUT));
    program
}

/// The root reduces everything of all ranks in a single pass.
pub(super) fn reduce(rank: Rank, root: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::Reduce { root }, rank, n, 1);
    let op = Op::over(Extent::ALL).reduce_with(Buffer::INPUT);
    program.push(if rank == root {
        op.recv_all((0..n).filter(|&peer| peer != rank)).copy_to(Buffer::OUTPUT).finish()
    } else {
        op.send(root)
    });
    program
}

/// The root hands everything to everybody.
pub(super) fn broadcast(rank: Rank, root: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::Broadcast { root }, rank, n, 1);
    if rank != root {
        program.push(Op::over(Extent::ALL).recv(root).copy_to(Buffer::OUTPUT));
        return program;
    }
    program.push(Op::over(Extent::ALL).reduce_with(Buffer::INPUT).send_all(others(rank, n)));
    program.push(keep_input());
    program
}

pub(super) fn gather(rank: Rank, root: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::Gather { root }, rank, n, 1);
    if rank != root {
        program.push(Op::over(Extent::part(rank, n)).reduce_with(Buffer::INPUT).send(root));
        return program;
    }
    program.push(keep_own(Extent::part(rank, n)));
    for peer in others(rank, n) {
        program.push(Op::over(Extent::part(peer, n)).recv(peer).copy_to(Buffer::OUTPUT));
    }
    program
}

pub(super) fn scatter(rank: Rank, root: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::Scatter { root }, rank, n, 1);
    if rank != root {
        program.push(Op::over(Extent::part(rank, n)).recv(root).copy_to(Buffer::OUTPUT));
        return program;
    }
    for peer in others(rank, n) {
        program.push(Op::over(Extent::part(peer, n)).reduce_with(Buffer::INPUT).send(peer));
    }
    program.push(keep_own(Extent::part(rank, n)));
    program
}

/// Everything that a rank has for its peers is under way at once.
pub(super) fn all_to_all(rank: Rank, n: u32) -> Program {
    let block = |from: Rank, to: Rank| Extent::part(from * n + to, n * n);
    let mut program = Program::new(&Collective::AllToAll, rank, n, 1);
    for peer in others(rank, n) {
        program.push(Op::over(block(rank, peer)).reduce_with(Buffer::INPUT).send(peer));
    }
    program.push(keep_own(block(rank, rank)));
    for peer in others(rank, n) {
        program.push(Op::over(block(peer, rank)).recv(peer).copy_to(Buffer::OUTPUT));
    }
    program
}

/// Hands every other rank its slice, and gives the operation that reduces this rank's slice of all.
pub(super) fn deal_and_reduce(program: &mut Program) -> Op {
    let (rank, n) = (program.rank, program.ranks);
    for peer in others(rank, n) {
        program.push(Op::over(Extent::part(peer, n)).reduce_with(Buffer::INPUT).send(peer));
    }
    Op::over(Extent::part(rank, n))
        .recv_all((0..n).filter(|&peer| peer != rank))
        .reduce_with(Buffer::INPUT)
        .finish()
}

/// Everybody starts with another peer, so that no rank is everybody's first.
pub(super) fn others(rank: Rank, n: u32) -> impl Iterator<Item = Rank> {
    (1..n).map(move |i| (rank + i) % n)
}
