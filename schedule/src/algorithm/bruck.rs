//! Bruck's algorithms (Bruck, Ho, Kipnis, Upfal, Weathersby, "Efficient algorithms for all-to-all communications in
//! multiport message-passing systems", 1997), for few elements and many ranks: ⌈log₂ n⌉ steps for any `n`.
//!
//! The paper rotates blocks so that each step sends one piece of memory. Here blocks stay at their place in the vector:
//! an all_gather's step is one message, or two where the blocks go round the end; all_to_all sends block by block, and
//! the link puts what is sent at a time into one packet.

use super::{keep_own, runs};
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};
use crate::vector::Window;

/// Before step k a rank has the blocks of the 2^k ranks from itself upwards; it sends them to the rank 2^k below, and
/// gets those of the 2^k ranks from the rank 2^k above upwards.
pub(super) fn all_gather(rank: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::AllGather, rank, n, 1);
    let mut have = vec![program.push(keep_own(Extent::part(rank, n)))];
    for (distance, count) in steps(n) {
        let (below, above) = ((rank + n - distance) % n, (rank + distance) % n);
        for run in runs(rank, count, n) {
            let send = Op::over(run).reduce_with(Buffer::OUTPUT).send(below);
            program.push(have.iter().fold(send, |send, &op| send.after_all_of(op)));
        }
        let gathered: Vec<u32> = runs(above, count, n)
            .map(|run| program.push(Op::over(run).recv(above).copy_to(Buffer::OUTPUT)))
            .collect();
        have.extend(gathered);
    }
    program
}

/// All_gather run backwards: what was passed on there is added up here, until block r is complete at rank r.
pub(super) fn reduce_scatter(rank: Rank, n: u32) -> Program {
    let mut program = Program::new(&Collective::ReduceScatter, rank, n, 1);
    let sums = program.scratch(Window::blocks(0, n));
    let all = Extent::parts(0, n, n);
    let mut made = vec![program.push(Op::over(all).reduce_with(Buffer::INPUT).copy_to(sums))];
    let steps: Vec<(u32, u32)> = steps(n).collect();
    for &(distance, count) in steps.iter().rev() {
        let (below, above) = ((rank + n - distance) % n, (rank + distance) % n);
        let after = |op: Op| made.iter().fold(op, |op, &made| op.after_all_of(made));
        for run in runs(above, count, n) {
            program.push(after(Op::over(run).reduce_with(sums).send(above)));
        }
        let mut added = Vec::new();
        for run in runs(rank, count, n) {
            let add = after(Op::over(run).recv(below).reduce_with(sums));
            let last = distance == 1;
            added.push(program.push(if last {
                add.copy_to(Buffer::OUTPUT).finish()
            } else {
                add.copy_to(sums)
            }));
        }
        made.extend(added);
    }
    program
}

/// A block that has to go `j` places up goes 2^k of them in step k if bit k of `j` is set.
///
/// A step's messages on an edge have one order at both ends: by how far they have gone, then by how far they go.
pub(super) fn all_to_all(rank: Rank, n: u32) -> Program {
    // The block that has gone `gone` places to be here, of `j` places in all.
    let block = |gone: u32, j: u32| {
        let from = (rank + n - gone) % n;
        from * n + (from + j) % n
    };
    let next = |gone: u32, j: u32| {
        let left = j - gone;
        (rank + (left & left.wrapping_neg())) % n
    };
    // What comes in step k: how far it has gone then, and how far it goes.
    let coming = |distance: u32| {
        let mut coming: Vec<(u32, u32)> =
            (1..n).filter(|j| j & distance != 0).map(|j| (j & (2 * distance - 1), j)).collect();
        coming.sort_unstable();
        coming
    };

    let mut program = Program::new(&Collective::AllToAll, rank, n, 1);
    let all_coming = || steps(n).flat_map(|(distance, _)| coming(distance));
    let passing = all_coming().filter(|(gone, j)| gone < j).map(|(gone, j)| block(gone, j));
    let passing = program.scratch(Window::of(passing));
    program.push(keep_own(Extent::part(block(0, 0), n * n)));
    for j in 1..n {
        program.push(Op::over(Extent::part(block(0, j), n * n)).reduce_with(Buffer::INPUT).send(next(0, j)));
    }
    for (distance, _) in steps(n) {
        for (gone, j) in coming(distance) {
            let op = Op::over(Extent::part(block(gone, j), n * n)).recv((rank + n - distance) % n);
            program.push(if gone == j {
                op.copy_to(Buffer::OUTPUT)
            } else {
                op.copy_to(passing).send(next(gone, j))
            });
        }
    }
    program
}

/// For each step, from the first: how far messages go, and how many blocks they carry.
fn steps(n: u32) -> impl DoubleEndedIterator<Item = (u32, u32)> {
    (0..n.next_power_of_two().ilog2()).map(move |step| (1 << step, (1 << step).min(n - (1 << step))))
}
