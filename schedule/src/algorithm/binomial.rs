//! Binomial tree broadcast (Thakur, Rabenseifner, Gropp 2005), for few elements.
//!
//! Places count from the root. A place receives from the place without its lowest set bit, and sends to the places that
//! have one more set bit below that, the farthest first, because most ranks still hang on it.

use super::keep_input;
use super::order::Order;
use crate::program::{Buffer, Extent, Layout, Op, Program, Rank};

pub(super) fn broadcast(rank: Rank, root: Rank, layout: &Layout) -> Program {
    let n = layout.ranks();
    let order = Order::from_root(layout, root);
    let place = order.place(rank);
    let lowest = if place == 0 { n.next_power_of_two() } else { place & place.wrapping_neg() };
    let bits = std::iter::successors(Some(lowest >> 1), |bit| Some(bit >> 1)).take_while(|&bit| bit > 0);
    let children = bits.map(|bit| place + bit).filter(|&child| child < n);
    let children = children.map(|child| order.ranks[child as usize]);

    let mut program = Program::new(rank, n, 1);
    if place == 0 {
        program.push(Op::over(Extent::ALL).reduce_with(Buffer::INPUT).send_all(children));
        program.push(keep_input());
    } else {
        let parent = order.ranks[(place ^ lowest) as usize];
        program.push(Op::over(Extent::ALL).recv(parent).copy_to(Buffer::OUTPUT).send_all(children));
    }
    program
}
