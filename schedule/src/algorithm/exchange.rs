//! Exchange all_reduce, for latency: everybody sends all of its input to everybody and reduces what it gets.
//!
//! One step, and the whole small-message algorithm of two ranks. Every rank reduces the operands of all ranks in
//! ascending order, so the bits agree. In place a rank overwrites its input while a slow peer has yet to look at it:
//! this is only right if a send is a snapshot ([`Program::snapshot`]), and each chunk is overwritten after its own send.

use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn all_reduce(rank: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::AllReduce, rank, n, 1);
    program.snapshot = true;
    let others = |first: Rank| (first..first + n).map(move |peer| peer % n).filter(move |&peer| peer != rank);
    let send = program.push(Op::over(Extent::ALL).reduce_with(Buffer::INPUT).send_all(others(rank)));
    program.push(
        Op::over(Extent::ALL)
            .recv_all(others(0))
            .reduce_with(Buffer::INPUT)
            .copy_to(Buffer::OUTPUT)
            .finish()
            .after(send),
    );
    program
}
