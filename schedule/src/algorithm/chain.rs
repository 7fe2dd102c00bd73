//! Pipelined chains. In a broadcast the root sends to its neighbour, and each rank passes every chunk on as it keeps it.
//!
//! The last of `n` ranks has the first chunk after n-1 hops and the last one as many chunks later: the most bandwidth
//! that a sender with one link can give, once there are many more chunks than ranks.

use super::keep_input;
use super::order::Order;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn broadcast(rank: Rank, root: Rank, order: &Order) -> Program {
    let place = order.place(rank) as usize;
    let next = order.ranks.get(place + 1).copied();

    let mut program = Program::new(&Collective::Broadcast { root }, rank, order.ranks.len() as u32, 1);
    if place == 0 {
        program.push(Op::over(Extent::ALL).reduce_with(Buffer::INPUT).send_all(next));
        program.push(keep_input());
    } else {
        let previous = order.ranks[place - 1];
        program.push(Op::over(Extent::ALL).recv(previous).copy_to(Buffer::OUTPUT).send_all(next));
    }
    program
}

/// The other way round: each rank adds its operand to what its neighbour farther from the root sends, and sends it on.
pub(super) fn reduce(rank: Rank, root: Rank, order: &Order) -> Program {
    let place = order.place(rank) as usize;

    let mut program = Program::new(&Collective::Reduce { root }, rank, order.ranks.len() as u32, 1);
    let op = Op::over(Extent::ALL).recv_all(order.ranks.get(place + 1).copied()).reduce_with(Buffer::INPUT);
    program.push(match place {
        0 => op.copy_to(Buffer::OUTPUT).finish(),
        _ => op.send(order.ranks[place - 1]),
    });
    program
}
