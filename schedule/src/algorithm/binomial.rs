//! Binomial trees (Thakur, Rabenseifner, Gropp 2005), for few elements.
//!
//! Places count from the root. A place receives from the place without its lowest set bit, and sends to the places that
//! have one more set bit below that, the farthest first, because most ranks still hang on it.

use super::order::Order;
use super::{keep_input, keep_own, runs};
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};
use crate::vector::Window;

pub(super) fn broadcast(rank: Rank, root: Rank, order: &Order) -> Program {
    let n = order.ranks.len() as u32;
    let vertex = Vertex { place: order.place(rank), n };
    let children = vertex.children().map(|child| order.ranks[child.place as usize]);

    let mut program = Program::new(&Collective::Broadcast { root }, rank, n, 1);
    let Some(parent) = vertex.parent() else {
        program.push(Op::over(Extent::ALL).reduce_with(Buffer::INPUT).send_all(children));
        program.push(keep_input());
        return program;
    };
    let parent = order.ranks[parent as usize];
    program.push(Op::over(Extent::ALL).recv(parent).copy_to(Buffer::OUTPUT).send_all(children));
    program
}

/// The other way round: a place reduces what those below it send, in one pass, and sends the sum up.
pub(super) fn reduce(rank: Rank, root: Rank, order: &Order) -> Program {
    let n = order.ranks.len() as u32;
    let vertex = Vertex { place: order.place(rank), n };
    let mut children: Vec<Rank> = vertex.children().map(|child| order.ranks[child.place as usize]).collect();
    children.sort_unstable();

    let mut program = Program::new(&Collective::Reduce { root }, rank, n, 1);
    let op = Op::over(Extent::ALL).recv_all(children).reduce_with(Buffer::INPUT);
    program.push(match vertex.parent() {
        None => op.copy_to(Buffer::OUTPUT).finish(),
        Some(parent) => op.send(order.ranks[parent as usize]),
    });
    program
}

/// Places count from the root in order of rank here, so that what hangs on a place is neighbouring blocks: one message,
/// or two where they go round the end of the vector.
pub(super) fn gather(rank: Rank, root: Rank, n: u32) -> Program {
    let vertex = Vertex { place: (rank + n - root) % n, n };
    let at = |place: u32| (root + place) % n;

    let mut program = Program::new(&Collective::Gather { root }, rank, n, 1);
    let own = Op::over(Extent::part(rank, n)).reduce_with(Buffer::INPUT);
    let Some(parent) = vertex.parent().map(at) else {
        program.push(keep_own(Extent::part(rank, n)));
        for child in vertex.children() {
            for run in runs(at(child.place), child.size(), n) {
                program.push(Op::over(run).recv(at(child.place)).copy_to(Buffer::OUTPUT));
            }
        }
        return program;
    };
    if vertex.size() == 1 {
        program.push(own.send(parent));
        return program;
    }
    let below = program.scratch(Window::of((vertex.place..vertex.place + vertex.size()).map(at)));
    let mut gathered = vec![program.push(own.copy_to(below))];
    for child in vertex.children() {
        for run in runs(at(child.place), child.size(), n) {
            gathered.push(program.push(Op::over(run).recv(at(child.place)).copy_to(below)));
        }
    }
    for run in runs(rank, vertex.size(), n) {
        let send = Op::over(run).reduce_with(below).send(parent);
        program.push(gathered.iter().fold(send, |send, &op| send.after_all_of(op)));
    }
    program
}

/// A gather run backwards.
pub(super) fn scatter(rank: Rank, root: Rank, n: u32) -> Program {
    let vertex = Vertex { place: (rank + n - root) % n, n };
    let at = |place: u32| (root + place) % n;

    let mut program = Program::new(&Collective::Scatter { root }, rank, n, 1);
    let own = Op::over(Extent::part(rank, n));
    let mut from = Buffer::INPUT;
    let mut dealt = Vec::new();
    if let Some(parent) = vertex.parent().map(at) {
        if vertex.size() == 1 {
            program.push(own.recv(parent).copy_to(Buffer::OUTPUT));
            return program;
        }
        from = program.scratch(Window::of((vertex.place..vertex.place + vertex.size()).map(at)));
        for run in runs(rank, vertex.size(), n) {
            dealt.push(program.push(Op::over(run).recv(parent).copy_to(from)));
        }
    }
    let after = |op: Op| dealt.iter().fold(op, |op, &dealt| op.after_all_of(dealt));
    for child in vertex.children() {
        for run in runs(at(child.place), child.size(), n) {
            program.push(after(Op::over(run).reduce_with(from).send(at(child.place))));
        }
    }
    program.push(after(own.reduce_with(from).copy_to(Buffer::OUTPUT)));
    program
}

/// A place of the tree over places `0..n`.
#[derive(Clone, Copy)]
struct Vertex {
    place: u32,
    n: u32,
}

impl Vertex {
    fn parent(self) -> Option<u32> {
        (self.place > 0).then_some(self.place ^ self.lowest_bit())
    }
    /// The farthest first, because most places still hang on it.
    fn children(self) -> impl Iterator<Item = Vertex> {
        let Vertex { place, n } = self;
        let bits = std::iter::successors(Some(self.lowest_bit() >> 1), |bit| Some(bit >> 1));
        let bits = bits.take_while(|&bit| bit > 0);
        bits.map(move |bit| Vertex { place: place + bit, n }).filter(move |child| child.place < n)
    }
    /// How many places hang on this one, itself among them; they are its neighbours upwards.
    fn size(self) -> u32 {
        self.lowest_bit().min(self.n - self.place)
    }
    fn lowest_bit(self) -> u32 {
        if self.place == 0 { self.n.next_power_of_two() } else { self.place & self.place.wrapping_neg() }
    }
}
