//! Recursive halving and doubling all_reduce (Rabenseifner, "Optimization of collective reduction operations", 2004;
//! Thakur, Rabenseifner, Gropp 2005).
//!
//! In step k partners at distance 2^k halve what they still share: each sends the half that the other keeps, and
//! reduces the half that it keeps itself. Then each place holds its slice of the result, and the steps run backwards
//! with slices doubling. A rank count that is no power of two is folded first, as in recursive doubling.
//!
//! [`Halving`] is the same for a part of the call and any ranks, who may first reduce the operands of others and hand them
//! the result, for algorithms of two levels.
//!
//! The half that is sent and the half that is kept never overlap, and what was sent is only overwritten with a result
//! that its receiver made from it, so all of it happens in the output buffer, without scratch.

use super::doubling::Fold;
use crate::collective::Collective;
use crate::program::{Buffer, Extent, Op, Program, Rank};

pub(super) fn all_reduce(rank: Rank, n: u32) -> Program {
    let halving = Halving { fold: Fold::of(n), rank: &|member| member, part: 0, parts: 1, others: &[] };
    let mut program = Program::new(&Collective::AllReduce, rank, n, halving.slices());
    halving.push(&mut program, rank);
    program
}

/// Members, numbered from 0, that sum up a part of the call among themselves.
pub(super) struct Halving<'a> {
    pub(super) fold: Fold,
    /// Which rank a member is.
    pub(super) rank: &'a dyn Fn(u32) -> Rank,
    /// Which part of the call, of how many.
    pub(super) part: u32,
    pub(super) parts: u32,
    /// Ranks, ascending, whose operands this member takes in beside its own, and to which it hands the result.
    pub(super) others: &'a [Rank],
}

impl Halving<'_> {
    /// Into how many slices it cuts the call.
    pub(super) fn slices(&self) -> u32 {
        self.parts << self.fold.steps
    }

    /// The parts of the result in the order in which `member` has them, and hands them on: all of it at once if there is
    /// nobody else, else what its place kept in the first step, and the other half.
    pub(super) fn results(&self, member: u32) -> impl Iterator<Item = Extent> {
        // Who has joined another has them from that one.
        let place = self.fold.place(member).or_else(|| self.fold.place(member + 1)).unwrap_or(0);
        let parts = if self.fold.steps == 0 { 0..1 } else { 0..2 };
        parts.map(move |half| self.range(place ^ half, 0))
    }

    /// What `member` does.
    pub(super) fn push(&self, program: &mut Program, member: u32) {
        match self.fold.place(member) {
            None => self.push_folded(program, member),
            Some(place) => self.push_with_place(program, member, place),
        }
    }

    /// Hands its operand to the next member, and gets the slices of the result in the order in which that has them.
    fn push_folded(&self, program: &mut Program, member: u32) {
        let host = (self.rank)(member + 1);
        program.push(self.operands(None).send(host));
        for part in self.results(member) {
            let get = Op::over(part).recv(host).copy_to(Buffer::OUTPUT);
            program.push(get.send_all(self.others.iter().copied()));
        }
    }

    fn push_with_place(&self, program: &mut Program, member: u32, place: u32) {
        let steps = self.fold.steps;
        let partner = |step: u32| (self.rank)(self.fold.rank(place ^ (1 << step)));
        let kept = |step: u32| self.range(place, step);
        let handed = |step: u32| self.range(place ^ (1 << step), step);
        let joined = self.fold.partner(member).map(self.rank);
        let takers = || self.others.iter().copied().chain(joined);

        let mut sum = Buffer::INPUT;
        let mut made_by = None;
        if takers().next().is_some() {
            sum = Buffer::OUTPUT;
            let mut op = self.operands(joined).copy_to(sum);
            if steps == 0 {
                op = op.finish().send_all(takers());
            }
            made_by = Some(program.push(op));
        }
        for step in 0..steps {
            let mut send = Op::over(handed(step)).reduce_with(sum).send(partner(step));
            let mut reduce =
                Op::over(kept(step)).recv(partner(step)).reduce_with(sum).copy_to(Buffer::OUTPUT);
            if let Some(op) = made_by {
                send = send.after_all_of(op);
                reduce = reduce.after_all_of(op);
            }
            if step == steps - 1 {
                reduce = reduce.finish();
            }
            if steps == 1 {
                reduce = reduce.send_all(takers());
            }
            program.push(send);
            (sum, made_by) = (Buffer::OUTPUT, Some(program.push(reduce)));
        }

        // What this place has of the result is its slice and what it has gathered; step k passes on what it kept in step k.
        let mut have: Vec<u32> = made_by.into_iter().collect();
        for step in (0..steps).rev() {
            let last = step == 0;
            // Others get the first half in one message, at once if this place has it from one step.
            let to_others = takers().filter(|_| last && steps > 1);
            let send = Op::over(kept(step)).reduce_with(Buffer::OUTPUT);
            let send = send.send_all(std::iter::once(partner(step)).chain(to_others));
            program.push(have.iter().fold(send, |send, &op| send.after_all_of(op)));
            let gather = Op::over(handed(step)).recv(partner(step)).copy_to(Buffer::OUTPUT);
            have.push(program.push(gather.send_all(takers().filter(|_| last))));
        }
    }

    /// Reduces the operands of this member, the others, and the one that has joined it.
    fn operands(&self, joined: Option<Rank>) -> Op {
        let mut from: Vec<Rank> = self.others.iter().copied().chain(joined).collect();
        from.sort_unstable();
        Op::over(self.whole()).recv_all(from).reduce_with(Buffer::INPUT)
    }

    fn whole(&self) -> Extent {
        Extent::part(self.part, self.parts)
    }

    /// What `place` keeps in `step`; everything if there are no steps. The first step decides by the lowest bit of the place
    /// between the two halves of the part, the second by the next bit between quarters.
    fn range(&self, place: u32, step: u32) -> Extent {
        let steps = self.fold.steps;
        if steps == 0 {
            return self.whole();
        }
        let slices = (0..=step).fold(0, |slices, bit| slices | ((place >> bit & 1) << (steps - 1 - bit)));
        let first = (self.part << steps) + slices;
        Extent::parts(first, first + (1 << (steps - 1 - step)), self.slices())
    }
}
