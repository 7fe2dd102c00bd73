//! Reduce as a reduce_scatter and a gather (Rabenseifner 2004; Thakur, Rabenseifner, Gropp 2005), each in one step, as in
//! direct all_reduce: rank r reduces slice r of all ranks in a single pass over memory and hands it to the root.
//!
//! All ranks share the work, and each element is sent about twice instead of a root reading everything by itself.

use super::direct::{deal_and_reduce, others};
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn reduce(rank: Rank, root: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::Reduce { root }, rank, n, n);
    let mine = deal_and_reduce(&mut program);
    if rank != root {
        program.push(mine.send(root));
        return program;
    }
    program.push(mine.copy_to(Buffer::OUTPUT));
    for peer in others(rank, n) {
        program.push(Op::over(Extent::part(peer, n)).recv(peer).copy_to(Buffer::OUTPUT));
    }
    program
}
