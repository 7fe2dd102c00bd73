//! Rings (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009).
//!
//! In all_reduce the array is cut into one slice per rank. The slice that ends at place `p` starts at place `p+1`, and
//! each rank on the way adds its operand; `p` completes it, and it goes round once more so that all have it. Every hop is
//! one operation without scratch: receive, reduce, keep in the output, and send on, chunk by chunk. Reduce_scatter is the
//! first round of this, all_gather the second, with blocks instead of slices.
//!
//! Partial sums are kept too, although they are overwritten later. All ranks do the same at the same time, so if a hop
//! could only take in what it can send on at once, every rank would wait for room on the edge to the next one: a ring
//! of full slots (the validator shows it as soon as a slice has more chunks than an edge has slots).

use super::keep_own;
use super::order::Order;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};
use crate::vector::Window;

/// Channel `c` carries part `c` of `channels` of the elements, so that a step of all channels runs at once.
pub(super) fn all_reduce(rank: Rank, order: &Order, channels: u8) -> Program {
    let (n, lanes) = (order.ranks.len() as u32, u32::from(channels));
    let ring = Ring::of(rank, order);

    let mut program = Program::new(&Collective::AllReduce, rank, n, n * lanes);
    for step in 0..2 * n - 1 {
        // Step n-1 completes the slice of this place; what is sent in a step is received one place on in the next.
        let slice = (ring.place + 2 * n - 1 - step) % n;
        for channel in 0..channels {
            let mut op = Op::over(Extent::part(u32::from(channel) * n + slice, n * lanes)).on(channel);
            if step > 0 {
                op = op.recv(ring.previous());
            }
            if step < n {
                op = op.reduce_with(Buffer::INPUT);
            }
            if step > 0 {
                op = op.copy_to(Buffer::OUTPUT);
            }
            if step < 2 * n - 2 {
                op = op.send(ring.next());
            }
            program.push(if step == n - 1 { op.finish() } else { op });
        }
    }
    program
}

/// Every block goes once around, from the rank that has it.
pub(super) fn all_gather(rank: Rank, order: &Order) -> Program {
    let n = order.ranks.len() as u32;
    let ring = Ring::of(rank, order);

    let mut program = Program::new(&Collective::AllGather, rank, n, 1);
    program.push(Op::over(Extent::part(rank, n)).reduce_with(Buffer::INPUT).send(ring.next()));
    program.push(keep_own(Extent::part(rank, n)));
    for step in 1..n {
        let op = Op::over(Extent::part(ring.back(step), n)).recv(ring.previous()).copy_to(Buffer::OUTPUT);
        program.push(if step < n - 1 { op.send(ring.next()) } else { op });
    }
    program
}

/// The first half of all_reduce: the block of place `p` starts at place `p+1`, and `p` completes it.
pub(super) fn reduce_scatter(rank: Rank, order: &Order) -> Program {
    let n = order.ranks.len() as u32;
    let ring = Ring::of(rank, order);

    let mut program = Program::new(&Collective::ReduceScatter, rank, n, 1);
    // Partial sums are kept for the reason above, and not in the input, which is the user's.
    let sums = if n > 2 { program.scratch(Window::blocks(0, n)) } else { Buffer::OUTPUT };
    for step in 0..n {
        let mut op = Op::over(Extent::part(ring.back(step + 1), n)).reduce_with(Buffer::INPUT);
        if step > 0 {
            op = op.recv(ring.previous());
        }
        program.push(if step == n - 1 {
            op.copy_to(Buffer::OUTPUT).finish()
        } else if step > 0 {
            op.copy_to(sums).send(ring.next())
        } else {
            op.send(ring.next())
        });
    }
    program
}

/// The ranks in a ring, as one of them sees it.
struct Ring<'a> {
    /// The rank at each place.
    ranks: &'a [Rank],
    place: u32,
}

impl Ring<'_> {
    fn of(rank: Rank, order: &Order) -> Ring<'_> {
        Ring { ranks: &order.ranks, place: order.place(rank) }
    }
    /// The rank so many places before this one, once around at most.
    fn back(&self, places: u32) -> Rank {
        let n = self.ranks.len();
        self.ranks[(self.place as usize + n - places as usize) % n]
    }
    fn previous(&self) -> Rank {
        self.back(1)
    }
    fn next(&self) -> Rank {
        self.back(self.ranks.len() as u32 - 1)
    }
}
