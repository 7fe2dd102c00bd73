//! Recursive halving and doubling all_reduce (Rabenseifner, "Optimization of collective reduction operations", 2004;
//! Thakur, Rabenseifner, Gropp 2005).
//!
//! In step k partners at distance 2^k halve what they still share: each sends the half that the other keeps, and
//! reduces the half that it keeps itself. Then each place holds its slice of the result, and the steps run backwards
//! with slices doubling. A rank count that is no power of two is folded first, as in recursive doubling.
//!
//! The half that is sent and the half that is kept never overlap, and what was sent is only overwritten with a result
//! that its receiver made from it, so all of it happens in the output buffer, without scratch.

use super::doubling::Fold;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn all_reduce(rank: Rank, n: u32) -> Program {
    let fold = Fold::of(n);
    let mut program = Program::new(&Collective::AllReduce, rank, n, 1 << fold.steps);
    match fold.place(rank) {
        None => folded(&mut program, &fold, rank + 1),
        Some(place) => with_place(&mut program, &fold, place),
    }
    program
}

/// Hands its operand to `host`, and gets the slices of the result in the order in which `host` has them.
fn folded(program: &mut Program, fold: &Fold, host: Rank) {
    program.push(Op::over(Extent::ALL).reduce_with(Buffer::INPUT).send(host));
    let place = fold.place(host).unwrap_or(0);
    let last = fold.steps - 1;
    program.push(Op::over(range(place, last, fold.steps)).recv(host).copy_to(Buffer::OUTPUT));
    for step in (0..fold.steps).rev() {
        let gathered = range(place ^ (1 << step), step, fold.steps);
        program.push(Op::over(gathered).recv(host).copy_to(Buffer::OUTPUT));
    }
}

fn with_place(program: &mut Program, fold: &Fold, place: u32) {
    let steps = fold.steps;
    let partner = |step: u32| fold.rank(place ^ (1 << step));
    let kept = |step: u32| range(place, step, steps);
    let handed = |step: u32| range(place ^ (1 << step), step, steps);
    let joined = fold.partner(fold.rank(place));

    let mut sum = Buffer::INPUT;
    let mut made_by = None;
    if let Some(joined) = joined {
        sum = Buffer::OUTPUT;
        let op = Op::over(Extent::ALL).recv(joined).reduce_with(Buffer::INPUT).copy_to(sum);
        made_by = Some(program.push(op));
    }
    for step in 0..steps {
        let mut send = Op::over(handed(step)).reduce_with(sum).send(partner(step));
        let mut reduce = Op::over(kept(step)).recv(partner(step)).reduce_with(sum).copy_to(Buffer::OUTPUT);
        if let Some(op) = made_by {
            send = send.after_all_of(op);
            reduce = reduce.after_all_of(op);
        }
        if step == steps - 1 {
            reduce = reduce.finish().send_all(joined);
        }
        program.push(send);
        (sum, made_by) = (Buffer::OUTPUT, Some(program.push(reduce)));
    }

    // What this place has of the result is its slice and what it has gathered; step k passes on what it kept in step k.
    let mut have: Vec<u32> = made_by.into_iter().collect();
    for step in (0..steps).rev() {
        let send = Op::over(kept(step)).reduce_with(Buffer::OUTPUT).send(partner(step));
        program.push(have.iter().fold(send, |send, &op| send.after_all_of(op)));
        let gather = Op::over(handed(step)).recv(partner(step)).copy_to(Buffer::OUTPUT);
        have.push(program.push(gather.send_all(joined)));
    }
}

/// What `place` keeps in `step`: the first step decides by the lowest bit of the place between the two halves of the
/// call, the second by the next bit between quarters.
fn range(place: u32, step: u32, steps: u32) -> Extent {
    let slices = (0..=step).fold(0, |slices, bit| slices | ((place >> bit & 1) << (steps - 1 - bit)));
    Extent::parts(slices, slices + (1 << (steps - 1 - step)), 1 << steps)
}
