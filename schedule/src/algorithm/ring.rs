//! Ring all_reduce (Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009).
//!
//! The array is cut into one slice per rank. The slice that ends at place `p` starts at place `p+1`, and each rank on
//! the way adds its operand; `p` completes it, and it goes round once more so that all have it. Every hop is one
//! operation without scratch: receive, reduce, keep in the output, and send on, chunk by chunk.
//!
//! Partial sums are kept too, although they are overwritten later. All ranks do the same at the same time, so if a hop
//! could only take in what it can send on at once, every rank would wait for room on the edge to the next one: a ring
//! of full slots (the validator shows it as soon as a slice has more chunks than an edge has slots).

use super::order::Order;
use crate::program::{Buffer, Extent, Layout, Op, Program, Rank};

/// Channel `c` carries part `c` of `channels` of the elements, so that a step of all channels runs at once.
pub(super) fn all_reduce(rank: Rank, layout: &Layout, channels: u8) -> Program {
    let (n, lanes) = (layout.ranks(), u32::from(channels));
    let order = Order::by_host(layout);
    let place = order.place(rank);
    let at = |place: u32| order.ranks[(place % n) as usize];
    let (next, previous) = (at(place + 1), at(place + n - 1));

    let mut program = Program::new(rank, n, n * lanes);
    for step in 0..2 * n - 1 {
        // Step n-1 completes the slice of this place; what is sent in a step is received one place on in the next.
        let slice = (place + 2 * n - 1 - step) % n;
        for channel in 0..channels {
            let mut op = Op::over(Extent::part(u32::from(channel) * n + slice, n * lanes)).on(channel);
            if step > 0 {
                op = op.recv(previous);
            }
            if step < n {
                op = op.reduce_with(Buffer::INPUT);
            }
            if step > 0 {
                op = op.copy_to(Buffer::OUTPUT);
            }
            if step < 2 * n - 2 {
                op = op.send(next);
            }
            program.push(if step == n - 1 { op.finish() } else { op });
        }
    }
    program
}
