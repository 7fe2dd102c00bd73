//! Direct all_reduce: a reduce_scatter and an all_gather of one step each.
//!
//! Rank r reduces slice r of all ranks in a single pass over memory and hands the result to everybody. In a host, with
//! mapped buffers, every element is read once from each rank and written once to each, and nothing is staged.

use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn all_reduce(rank: Rank, n: u32) -> Program {
    let mut program = Program::new(rank, n, n);
    // Everybody starts with another peer, so that no rank is everybody's first.
    let others = || (1..n).map(|i| (rank + i) % n);
    for peer in others() {
        program.push(Op::over(Extent::part(peer, n)).reduce_with(Buffer::INPUT).send(peer));
    }
    program.push(
        Op::over(Extent::part(rank, n))
            .recv_all((0..n).filter(|&peer| peer != rank))
            .reduce_with(Buffer::INPUT)
            .copy_to(Buffer::OUTPUT)
            .send_all(others())
            .finish(),
    );
    for peer in others() {
        program.push(Op::over(Extent::part(peer, n)).recv(peer).copy_to(Buffer::OUTPUT));
    }
    program
}
