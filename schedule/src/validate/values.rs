//! Symbolic execution of one element for each segment.

use std::collections::HashMap;

use super::Model;
use super::races::Races;
use super::segments::Segments;
use super::violation::{Fault, Violation};
use super::wiring::Wiring;
use crate::algorithm::Collective;
use crate::program::{Buffer, Op, Rank};

/// Proves values and freedom from races for all segments.
pub(super) fn check(
    wiring: &Wiring<'_>,
    segments: &Segments,
    collective: &Collective,
    model: Model,
    in_place: bool,
) -> Result<(), Violation> {
    if let Some(program) = wiring.programs.iter().find(|program| program.snapshot && !model.buffers()) {
        return Err(Violation::of_program(program.rank, Fault::NeedsSnapshot));
    }
    let mut element = Element::new(wiring, model, in_place);
    for segment in 0..segments.len() {
        element.check(segments.ops(segment), collective).map_err(|mut violation| {
            violation.part = Some(segments.part(segment));
            violation
        })?;
    }
    Ok(())
}

/// The moments of an operation at one element; the [module above](super) defines them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Granted,
    Read,
    Value,
    Stored,
    Ended,
}

/// An event of an operation, which is numbered within the element's operations: five consecutive numbers each.
pub(super) fn event(op: u32, event: Event) -> u32 {
    op * 5 + event as u32
}

/// What a memory holds, or an operation's value is: a number in the table of expressions.
pub(super) type Expr = u32;

/// Nothing was written here.
const UNWRITTEN: Expr = u32::MAX;

/// One element on all ranks; its tables are kept from segment to segment.
pub(super) struct Element<'a> {
    pub wiring: &'a Wiring<'a>,
    pub buffers: bool,
    in_place: bool,
    /// Where each rank's buffers begin in `memory`.
    memory_of: Vec<u32>,
    /// The operations, by their number over all ranks.
    pub ops: Vec<u32>,
    /// The number of each operation within `ops`, or `NOT_HERE`.
    number: Vec<u32>,
    next: Vec<u32>,
    next_of: Vec<u32>,
    /// Events in an order that respects what must happen first, and each event's place in it.
    pub order: Vec<u32>,
    pub place: Vec<u32>,
    races: Races,
}

const NOT_HERE: u32 = u32::MAX;

impl<'a> Element<'a> {
    fn new(wiring: &'a Wiring<'a>, model: Model, in_place: bool) -> Element<'a> {
        let mut memory_of = vec![0];
        for program in wiring.programs {
            memory_of.push(memory_of[memory_of.len() - 1] + 2 + u32::from(program.scratch));
        }
        Element {
            wiring,
            buffers: model.buffers(),
            in_place,
            memory_of,
            ops: Vec::new(),
            number: vec![NOT_HERE; wiring.ops.len()],
            next: Vec::new(),
            next_of: Vec::new(),
            order: Vec::new(),
            place: Vec::new(),
            races: Races::default(),
        }
    }

    fn check(&mut self, ops: &[u32], collective: &Collective) -> Result<(), Violation> {
        self.ops.clear();
        self.ops.extend_from_slice(ops);
        for (number, &op) in (0..).zip(ops) {
            self.number[op as usize] = number;
        }
        let result = self.sort().and_then(|()| {
            self.execute(collective)?;
            let mut races = std::mem::take(&mut self.races);
            let result = races.check(self);
            self.races = races;
            result
        });
        for &op in ops {
            self.number[op as usize] = NOT_HERE;
        }
        result
    }

    /// The operation with this number here.
    pub(super) fn op(&self, number: u32) -> &'a Op {
        self.wiring.ops[self.ops[number as usize] as usize]
    }

    pub(super) fn rank(&self, number: u32) -> Rank {
        self.wiring.rank[self.ops[number as usize] as usize]
    }

    /// Where `buffer` of an operation's rank lies in the memory of all ranks.
    pub(super) fn memory(&self, number: u32, buffer: Buffer) -> u32 {
        let buffer = if self.in_place && buffer == Buffer::INPUT { Buffer::OUTPUT } else { buffer };
        self.memory_of[self.rank(number) as usize] + u32::from(buffer.0)
    }

    /// The buffer at a place in the memory of an operation's rank.
    pub(super) fn buffer(&self, number: u32, memory: u32) -> Buffer {
        Buffer((memory - self.memory_of[self.rank(number) as usize]) as u8)
    }

    /// Copies a memory onto itself, which the engine passes over.
    pub(super) fn is_no_copy(&self, number: u32) -> bool {
        let op = self.op(number);
        let (Some(from), Some(to)) = (op.reduce_with, op.copy_to) else { return false };
        lies_there(op) && !op.finish && self.memory(number, from) == self.memory(number, to)
    }

    pub(super) fn receivers(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        let messages = self.wiring.outgoing(self.ops[number as usize]);
        messages.map(|message| self.number[self.wiring.messages[message as usize].to as usize])
    }

    pub(super) fn senders(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        let messages = self.wiring.incoming(self.ops[number as usize]);
        messages.iter().map(|&message| self.number[self.wiring.messages[message as usize].from as usize])
    }

    /// The operations that are after this one and cover the element.
    fn dependents(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        let dependents = self.wiring.dependents(self.ops[number as usize]);
        dependents.iter().map(|&op| self.number[op as usize]).filter(|&number| number != NOT_HERE)
    }

    fn for_each_next(&self, of: u32, mut next: impl FnMut(u32)) {
        let op = of / 5;
        match of % 5 {
            0 => {
                next(event(op, Event::Read));
                if lies_there(self.op(op)) {
                    next(event(op, Event::Value));
                }
            }
            1 => {
                next(event(op, Event::Stored));
                if !self.buffers {
                    self.senders(op).for_each(|sender| next(event(sender, Event::Ended)));
                }
            }
            2 => {
                next(event(op, Event::Ended));
                self.receivers(op).for_each(|receiver| next(event(receiver, Event::Read)));
            }
            3 => {
                next(event(op, Event::Ended));
                if !lies_there(self.op(op)) {
                    next(event(op, Event::Value));
                }
            }
            _ => self.dependents(op).for_each(|dependent| next(event(dependent, Event::Granted))),
        }
    }

    /// Lists what comes after each event, and puts the events in order.
    fn sort(&mut self) -> Result<(), Violation> {
        let events = self.ops.len() as u32 * 5;
        let (mut next, mut next_of) = (std::mem::take(&mut self.next), std::mem::take(&mut self.next_of));
        next.clear();
        next_of.clear();
        for of in 0..events {
            next_of.push(next.len() as u32);
            self.for_each_next(of, |event| next.push(event));
        }
        next_of.push(next.len() as u32);
        (self.next, self.next_of) = (next, next_of);

        let mut waits = vec![0u32; events as usize];
        self.next.iter().for_each(|&event| waits[event as usize] += 1);
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        order.extend((0..events).filter(|&event| waits[event as usize] == 0));
        let mut done = 0;
        while done < order.len() {
            for &next in self.next(order[done]) {
                waits[next as usize] -= 1;
                if waits[next as usize] == 0 {
                    order.push(next);
                }
            }
            done += 1;
        }
        self.place.resize(events as usize, 0);
        for (place, &event) in (0..).zip(&order) {
            self.place[event as usize] = place;
        }
        self.order = order;
        match (0..events).find(|&event| waits[event as usize] > 0) {
            Some(event) => Err(self.wiring.violation(self.ops[event as usize / 5], Fault::Circular)),
            None => Ok(()),
        }
    }

    /// The events that can only happen after `event`, directly.
    pub(super) fn next(&self, event: u32) -> &[u32] {
        &self.next[self.next_of[event as usize] as usize..self.next_of[event as usize + 1] as usize]
    }

    /// Runs the operations in that order, and looks at the outputs.
    fn execute(&self, collective: &Collective) -> Result<(), Violation> {
        let wiring = self.wiring;
        let ranks = wiring.programs.len() as u32;
        let mut expressions = Expressions::new(ranks);
        let mut memory = vec![UNWRITTEN; self.memory_of[ranks as usize] as usize];
        // The operation that wrote each output last, to be named if the output is wrong.
        let mut written_by: Vec<Option<u32>> = vec![None; ranks as usize];
        for rank in 0..ranks {
            memory[self.memory_of[rank as usize] as usize + usize::from(self.in_place)] = rank;
        }
        let mut values = vec![UNWRITTEN; self.ops.len()];
        let mut operands = Vec::new();
        for &of in &self.order {
            let (number, op) = (of / 5, self.op(of / 5));
            if of == event(number, Event::Granted) && lies_there(op)
                || of == event(number, Event::Read) && !lies_there(op)
            {
                operands.clear();
                operands.extend(
                    op.recv.iter().copied().zip(self.senders(number).map(|sender| values[sender as usize])),
                );
                if let Some(buffer) = op.reduce_with {
                    let here = memory[self.memory(number, buffer) as usize];
                    if here == UNWRITTEN {
                        return Err(wiring.violation(self.ops[number as usize], Fault::Unwritten(buffer)));
                    }
                    let rank = self.rank(number);
                    operands.insert(operands.partition_point(|&(from, _)| from < rank), (rank, here));
                }
                let value = expressions.reduce(operands.iter().map(|&(_, operand)| operand));
                values[number as usize] = if op.finish { expressions.finish(value) } else { value };
            }
            if let (true, Some(buffer)) = (of == event(number, Event::Stored), op.copy_to) {
                memory[self.memory(number, buffer) as usize] = values[number as usize];
                if buffer == Buffer::OUTPUT {
                    written_by[self.rank(number) as usize] = Some(self.ops[number as usize]);
                }
            }
        }
        let outputs: Vec<Expr> =
            (0..ranks).map(|r| memory[self.memory_of[r as usize] as usize + 1]).collect();
        expressions.judge(&outputs, collective).map_err(|(rank, fault)| match written_by[rank as usize] {
            Some(op) => wiring.violation(op, fault),
            None => Violation::of_program(rank, fault),
        })
    }
}

/// Whether the operation's value need not be computed but simply lies in `reduce_with`: also if it is finished, which
/// changes nothing for most operators.
pub(super) fn lies_there(op: &Op) -> bool {
    op.recv.is_empty()
}

/// Expression trees, equal ones with equal numbers; the operand of rank r has number r.
struct Expressions {
    ranks: u32,
    nodes: Vec<Node>,
    known: HashMap<Node, Expr>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Node {
    Reduced(Box<[Expr]>),
    Finished(Expr),
}

impl Expressions {
    fn new(ranks: u32) -> Expressions {
        Expressions { ranks, nodes: Vec::new(), known: HashMap::new() }
    }

    fn add(&mut self, node: Node) -> Expr {
        let next = self.ranks + self.nodes.len() as u32;
        *self.known.entry(node).or_insert_with_key(|node| {
            self.nodes.push(node.clone());
            next
        })
    }

    fn reduce(&mut self, mut operands: impl ExactSizeIterator<Item = Expr>) -> Expr {
        match operands.len() {
            1 => operands.next().unwrap_or(UNWRITTEN),
            _ => self.add(Node::Reduced(operands.collect())),
        }
    }

    fn finish(&mut self, expr: Expr) -> Expr {
        self.add(Node::Finished(expr))
    }

    /// The first output that is wrong, and how.
    fn judge(&self, outputs: &[Expr], collective: &Collective) -> Result<(), (Rank, Fault)> {
        let mut right: Option<(Rank, Expr)> = None;
        for (rank, &output) in (0..).zip(outputs) {
            match right {
                Some((_, expr)) if expr == output => continue,
                _ => self.judge_one(output, collective).map_err(|fault| (rank, fault))?,
            }
            if let Some((other, _)) = right {
                return Err((rank, Fault::Bits { other }));
            }
            right = Some((rank, output));
        }
        Ok(())
    }

    fn judge_one(&self, output: Expr, collective: &Collective) -> Result<(), Fault> {
        if output == UNWRITTEN {
            return Err(Fault::Unwritten(Buffer::OUTPUT));
        }
        let wanted = |rank: Rank| match collective {
            Collective::Broadcast { root } => rank == *root,
            _ => true,
        };
        let reduces = !matches!(collective, Collective::Broadcast { .. });
        let mut times = vec![0u32; self.ranks as usize];
        let mut finishes = 0;
        let mut rest = vec![output];
        while let Some(expr) = rest.pop() {
            match expr.checked_sub(self.ranks).map(|node| &self.nodes[node as usize]) {
                // A mutant may double its operands in each step: what is wrong is known long before the end.
                None => {
                    times[expr as usize] += 1;
                    if times[expr as usize] > 1 && !rest.is_empty() {
                        break;
                    }
                }
                Some(Node::Reduced(operands)) => rest.extend_from_slice(operands),
                Some(Node::Finished(expr)) => {
                    finishes += 1;
                    rest.push(*expr);
                }
            }
        }
        let ranks = |wrong: &dyn Fn(Rank, u32) -> bool| {
            (0..)
                .zip(&times)
                .filter(|&(rank, &times)| wrong(rank, times))
                .map(|(rank, _)| rank)
                .collect::<Vec<Rank>>()
        };
        let surplus = ranks(&|rank, times| times > u32::from(wanted(rank)));
        let missing =
            if rest.is_empty() { ranks(&|rank, times| wanted(rank) && times == 0) } else { Vec::new() };
        let finished_at_the_end = output
            .checked_sub(self.ranks)
            .is_some_and(|node| matches!(self.nodes[node as usize], Node::Finished(_)));
        if !missing.is_empty() || !surplus.is_empty() {
            Err(Fault::Contributions { missing, surplus })
        } else if !reduces && finishes > 0 {
            Err(Fault::Finish("the output was finished, though a broadcast has no operator"))
        } else if reduces && finishes == 0 {
            Err(Fault::Finish("the output was never finished"))
        } else if reduces && finishes > 1 {
            Err(Fault::Finish("the output was finished more than once"))
        } else if reduces && !finished_at_the_end {
            Err(Fault::Finish("the output was finished before it was complete"))
        } else {
            Ok(())
        }
    }
}
