//! Recursive doubling all_reduce (Thakur, Rabenseifner, Gropp, "Optimization of collective communication operations in
//! MPICH", 2005), for few elements and many ranks.
//!
//! In step k partners at distance 2^k exchange all they have and both reduce, lower rank first, so that after step k
//! groups of 2^(k+1) ranks hold the same bits. When `n` is no power of two, the first `2(n - 2^⌊log₂ n⌋)` ranks pair up
//! first: the even one hands its operand to the odd one, and gets the result from it in the end.
//!
//! The partner may read what it was sent late, straight from this rank's memory, so a step never writes where the step
//! before it reads: two scratch buffers alternate, and a step waits for the release of the send that it overwrites.

use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};
use crate::vector::Window;

pub(super) fn all_reduce(rank: Rank, n: u32) -> Program {
    let fold = Fold::of(n);
    let mut program = Program::new(&Collective::AllReduce, rank, n, 1);
    let Some(place) = fold.place(rank) else {
        program.push(Op::over(Extent::ALL).reduce_with(Buffer::INPUT).send(rank + 1));
        program.push(Op::over(Extent::ALL).recv(rank + 1).copy_to(Buffer::OUTPUT));
        return program;
    };
    let partner = |step: u32| fold.rank(place ^ (1 << step));

    // Where the sum so far is, the operation that put it there, and which scratch buffer comes next.
    let mut sum = Buffer::INPUT;
    let mut made_by = None;
    let mut turn = 0;
    let mut next_scratch = || {
        turn += 1;
        Buffer::scratch((turn - 1) % 2)
    };
    if let Some(folded) = fold.partner(rank) {
        sum = next_scratch();
        let op = Op::over(Extent::ALL).recv(folded).reduce_with(Buffer::INPUT).copy_to(sum);
        made_by = Some(program.push(op));
    }

    // The last send that reads a buffer, by buffer: who overwrites the buffer waits for its release.
    let mut last_send: Vec<(Buffer, u32)> = Vec::new();
    for step in 0..fold.steps {
        let mut send = Op::over(Extent::ALL).reduce_with(sum).send(partner(step));
        if let Some(op) = made_by {
            send = send.after(op);
        }
        let send = program.push(send);

        let last = step + 1 == fold.steps;
        // In place the output is the input, which the partner is still reading in the first step.
        let target = if last && sum != Buffer::INPUT { Buffer::OUTPUT } else { next_scratch() };
        let memory = if target == Buffer::OUTPUT { Buffer::INPUT } else { target };
        let mut reduce = Op::over(Extent::ALL).recv(partner(step)).reduce_with(sum).copy_to(target);
        reduce.finish = last;
        if let Some(op) = made_by {
            reduce = reduce.after(op);
        }
        if let Some(&(_, reader)) = last_send.iter().rfind(|(buffer, _)| *buffer == memory) {
            reduce = reduce.after(reader);
        }
        if last && target == Buffer::OUTPUT {
            reduce = reduce.send_all(fold.partner(rank));
        }
        last_send.push((sum, send));
        let reduce = program.push(reduce);
        if last && target != Buffer::OUTPUT {
            let copy = Op::over(Extent::ALL).reduce_with(target).copy_to(Buffer::OUTPUT);
            program.push(copy.after(reduce).after(send));
        }
        (sum, made_by) = (target, Some(reduce));
    }
    for _ in 0..turn.min(2) {
        program.scratch(Window::block(0));
    }
    program
}

/// How `n` ranks become a power of two of places: an even rank below `2·extra` joins the odd rank above it.
pub(super) struct Fold {
    extra: u32,
    /// log₂ of the number of places.
    pub steps: u32,
}

impl Fold {
    pub(super) fn of(n: u32) -> Fold {
        let steps = n.ilog2();
        Fold { extra: n - (1 << steps), steps }
    }
    /// The place of `rank`; `None` if it has joined another.
    pub(super) fn place(&self, rank: Rank) -> Option<u32> {
        match rank {
            _ if rank >= 2 * self.extra => Some(rank - self.extra),
            _ if rank % 2 == 1 => Some(rank / 2),
            _ => None,
        }
    }
    /// The rank at `place`; ascending.
    pub(super) fn rank(&self, place: u32) -> Rank {
        if place < self.extra { 2 * place + 1 } else { place + self.extra }
    }
    /// Who has joined `rank`, which has a place.
    pub(super) fn partner(&self, rank: Rank) -> Option<Rank> {
        (rank < 2 * self.extra).then(|| rank - 1)
    }
}
