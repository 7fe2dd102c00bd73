//! Scatter and all_gather broadcast (after van de Geijn; Thakur, Rabenseifner, Gropp 2005), with both phases in one
//! step, as in direct all_reduce: the root deals one slice to each of the others, and each passes its slice on to all
//! of them as it keeps it.
//!
//! The root sends every element once, and all ranks' links carry the rest.

use super::keep_input;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn broadcast(rank: Rank, root: Rank, n: u32) -> Program {
    if n == 2 {
        return halves(rank, root);
    }
    let slices = n - 1;
    // The rank that owns slice i is the i-th after the root.
    let owner = |slice: u32| (root + 1 + slice % slices) % n;

    let mut program = Program::new(&Collective::Broadcast { root }, rank, n, slices);
    if rank == root {
        for slice in 0..slices {
            program.push(Op::over(Extent::part(slice, slices)).reduce_with(Buffer::INPUT).send(owner(slice)));
        }
        program.push(keep_input());
        return program;
    }
    let mine = (rank + n - root - 1) % n;
    let others = || (1..slices).map(move |i| (mine + i) % slices);
    program.push(
        Op::over(Extent::part(mine, slices)).recv(root).copy_to(Buffer::OUTPUT).send_all(others().map(owner)),
    );
    for slice in others() {
        program.push(Op::over(Extent::part(slice, slices)).recv(owner(slice)).copy_to(Buffer::OUTPUT));
    }
    program
}

/// With one receiver there is nothing to share, but two messages: where memory is mapped, one side copies the first half
/// while the other copies the second.
fn halves(rank: Rank, root: Rank) -> Program {
    let mut program = Program::new(&Collective::Broadcast { root }, rank, 2, 2);
    for half in 0..2 {
        let op = Op::over(Extent::part(half, 2));
        program.push(if rank == root {
            op.reduce_with(Buffer::INPUT).send(1 - root)
        } else {
            op.recv(root).copy_to(Buffer::OUTPUT)
        });
    }
    if rank == root {
        program.push(keep_input());
    }
    program
}
