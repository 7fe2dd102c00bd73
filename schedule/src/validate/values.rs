//! Symbolic execution of one element for each segment.

use super::Model;
use super::expressions::{Expressions, UNWRITTEN};
use super::holders::Holders;
use super::races::Races;
use super::segments::Segments;
use super::violation::{Fault, Violation};
use super::wiring::Wiring;
use crate::collective::Collective;
use crate::program::{Buffer, Op, Program, Rank};

/// Proves values and freedom from races for all segments.
pub(super) fn check(
    wiring: &Wiring<'_>,
    segments: &Segments,
    collective: &Collective,
    model: Model,
    in_place: bool,
) -> Result<(), Violation> {
    for program in wiring.programs {
        belongs_to_call(program, collective, model, in_place)
            .map_err(|fault| Violation::of_program(program.rank, fault))?;
    }
    let mut element = Element::new(wiring, model, in_place);
    for segment in 0..segments.len() {
        let block = segments.block(segment, wiring.programs[0].blocks);
        element.check(segments.ops(segment), collective, block).map_err(|mut violation| {
            violation.part = Some(segments.part(segment));
            violation
        })?;
    }
    Ok(())
}

/// Whether a program is one for this collective, link and placement at all.
fn belongs_to_call(
    program: &Program,
    collective: &Collective,
    model: Model,
    in_place: bool,
) -> Result<(), Fault> {
    let (rank, ranks) = (program.rank, program.ranks);
    if program.snapshot && !model.buffers() {
        Err(Fault::NeedsSnapshot)
    } else if in_place && !collective.has_in_place_form() {
        Err(Fault::NoInPlaceForm)
    } else if program.blocks != collective.blocks(ranks) {
        Err(Fault::Malformed("its vector has another number of blocks than the collective's"))
    } else if *program.window(Buffer::INPUT) != collective.input(rank, ranks)
        || *program.window(Buffer::OUTPUT) != collective.output(rank, ranks)
    {
        Err(Fault::Malformed("its input or output shows other blocks than the collective's"))
    } else {
        Ok(())
    }
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

/// One element on all ranks; its tables are kept from segment to segment.
pub(super) struct Element<'a> {
    pub wiring: &'a Wiring<'a>,
    pub buffers: bool,
    in_place: bool,
    /// Where each rank's buffers begin in the memory of all ranks; one entry more than ranks.
    memory_of: Vec<u32>,
    inputs: Holders,
    outputs: Holders,
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
            memory_of.push(memory_of[memory_of.len() - 1] + program.windows.len() as u32);
        }
        Element {
            wiring,
            buffers: model.buffers(),
            in_place,
            memory_of,
            inputs: Holders::of(wiring.programs, Buffer::INPUT),
            outputs: Holders::of(wiring.programs, Buffer::OUTPUT),
            ops: Vec::new(),
            number: vec![NOT_HERE; wiring.ops.len()],
            next: Vec::new(),
            next_of: Vec::new(),
            order: Vec::new(),
            place: Vec::new(),
            races: Races::default(),
        }
    }

    fn check(&mut self, ops: &[u32], collective: &Collective, block: u32) -> Result<(), Violation> {
        self.ops.clear();
        self.ops.extend_from_slice(ops);
        for (number, &op) in (0..).zip(ops) {
            self.number[op as usize] = number;
        }
        let result = self.sort().and_then(|()| {
            self.execute(collective, block)?;
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
        self.memory_of_rank(self.rank(number), buffer)
    }

    fn memory_of_rank(&self, rank: Rank, buffer: Buffer) -> u32 {
        let buffer = if self.in_place && buffer == Buffer::INPUT { Buffer::OUTPUT } else { buffer };
        self.memory_of[rank as usize] + u32::from(buffer.0)
    }

    /// The buffer at a place in the memory of an operation's rank.
    pub(super) fn buffer(&self, number: u32, memory: u32) -> Buffer {
        Buffer((memory - self.memory_of[self.rank(number) as usize]) as u16)
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
    fn execute(&self, collective: &Collective, block: u32) -> Result<(), Violation> {
        let wiring = self.wiring;
        let ranks = wiring.programs.len() as u32;
        let mut expressions = Expressions::new(ranks);
        let mut memory = vec![UNWRITTEN; self.memory_of[ranks as usize] as usize];
        for &rank in self.inputs.of_block(block) {
            memory[self.memory_of_rank(rank, Buffer::INPUT) as usize] = rank;
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
            }
        }
        let outputs = self.outputs.of_block(block);
        let outputs =
            outputs.iter().map(|&rank| (rank, memory[self.memory_of_rank(rank, Buffer::OUTPUT) as usize]));
        expressions.judge(outputs, collective.source(block, ranks)).map_err(|(rank, fault)| {
            match self.last_write(rank) {
                Some(op) => wiring.violation(op, fault),
                None => Violation::of_program(rank, fault),
            }
        })
    }

    /// The operation that wrote a rank's output last, to be named if the output is wrong.
    fn last_write(&self, rank: Rank) -> Option<u32> {
        let writes = |&&of: &&u32| {
            let number = of / 5;
            of == event(number, Event::Stored)
                && self.rank(number) == rank
                && self.op(number).copy_to == Some(Buffer::OUTPUT)
        };
        self.order.iter().rev().find(writes).map(|of| self.ops[*of as usize / 5])
    }
}

/// Whether the operation's value need not be computed but simply lies in `reduce_with`: also if it is finished, which
/// changes nothing for most operators.
pub(super) fn lies_there(op: &Op) -> bool {
    op.recv.is_empty()
}
