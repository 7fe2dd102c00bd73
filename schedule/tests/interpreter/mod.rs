//! Runs programs one element and one event at a time, as badly as links and engine may: sources are read late,
//! destinations are filled with garbage early, some operations are held up until nothing else can move.
//!
//! It shares nothing with the validator but the contract that the validator's documentation states.

use std::collections::{HashMap, HashSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rccl_schedule::{Buffer, Collective, Op, Program, Rank, Window};

/// What an element holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Value {
    /// The sum of the operands in it, which are random.
    sum: u64,
    /// A fingerprint of the order in which they were combined.
    bits: u64,
    finished: u32,
}

/// How a call is run.
#[derive(Clone, Debug)]
pub struct Call {
    /// What the programs should compute.
    pub collective: Collective,
    /// Elements of each block.
    pub sizes: Vec<u64>,
    /// Elements of a chunk, at most.
    pub chunk: u64,
    /// Slots per edge; `None`: nothing is buffered, and memory is mapped.
    pub slots: Option<u32>,
    /// Whether input and output are one memory.
    pub in_place: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Event {
    Granted,
    /// Garbage is written where the value will be.
    Garbage,
    Read,
    Stored,
    Published,
    Ended,
}
use Event::*;

/// A rank and the number of one of its operations.
type Step = (Rank, u32);

/// An event of element `.1` of operation `.0` (rank and number).
type Moment = (Step, u64, Event);

/// Whether one random execution of the call gives the right result, and if not, what is wrong.
pub fn run(programs: &[Program], call: &Call, seed: u64) -> Result<(), String> {
    let mut run = Run::new(programs, call, seed);
    let mut pending = run.moments();
    let lazy: HashSet<(Step, Event)> =
        pending.iter().map(|m| (m.0, m.2)).filter(|_| run.rng.random_ratio(1, 4)).collect();
    while !pending.is_empty() {
        let before = pending.len();
        pending.retain(|&moment| lazy.contains(&(moment.0, moment.2)) || !run.happens(moment));
        if pending.len() == before {
            let Some(i) = (0..before).find(|&i| run.happens(pending[i])) else {
                return Err(format!("stuck before {:?} and {} more", pending[0], before - 1));
            };
            pending.remove(i);
        }
    }
    run.judge()
}

struct Run<'a> {
    programs: &'a [Program],
    call: &'a Call,
    rng: StdRng,
    /// By rank, buffer and element, counted from the start of the vector: those that the buffer shows.
    memory: HashMap<(Rank, Buffer, u64), Value>,
    /// Both ends of messages, in both directions: (sender, receiver) to the operation at the other end.
    receiver: HashMap<(Step, Rank), Step>,
    sender: HashMap<(Step, Rank), Step>,
    /// The messages of each edge: sender and receiver.
    edges: HashMap<(Rank, Rank, u8), Vec<(Step, Step)>>,
    happened: HashSet<Moment>,
    /// What an operation saw in `reduce_with` when it began, and its value.
    seen: HashMap<(Step, u64), Value>,
    value: HashMap<(Step, u64), Value>,
    /// What each element should be: of reductions, the sum of all operands.
    total: Vec<Value>,
}

impl<'a> Run<'a> {
    fn new(programs: &'a [Program], call: &'a Call, seed: u64) -> Run<'a> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut memory = HashMap::new();
        let mut total = Vec::new();
        for block in blocks(&call.sizes) {
            let element = total.len() as u64;
            let mut sum = Value::default();
            for program in programs {
                let shows = |&(_, window): &(u16, &Window)| window.position(block).is_some();
                for (buffer, _) in (0..).zip(&program.windows).filter(shows) {
                    let buffer = in_memory(Buffer(buffer), call.in_place);
                    memory.insert((program.rank, buffer, element), garbage(&mut rng));
                }
                if has_input(&call.collective, program.rank, block, program.ranks) {
                    let input = Value { finished: 0, ..garbage(&mut rng) };
                    memory.insert((program.rank, in_memory(Buffer::INPUT, call.in_place), element), input);
                    sum = if call.collective.reduces() { combine(sum, input) } else { input };
                }
            }
            total.push(sum);
        }
        let mut sends: HashMap<(Rank, Rank, u8), Vec<Step>> = HashMap::new();
        let mut receives: HashMap<(Rank, Rank, u8), Vec<Step>> = HashMap::new();
        for program in programs {
            for (number, op) in (0..).zip(&program.ops) {
                for &to in op.send.iter() {
                    sends.entry((program.rank, to, op.channel)).or_default().push((program.rank, number));
                }
                for &from in op.recv.iter() {
                    receives
                        .entry((from, program.rank, op.channel))
                        .or_default()
                        .push((program.rank, number));
                }
            }
        }
        let (mut receiver, mut sender, mut edges) = (HashMap::new(), HashMap::new(), HashMap::new());
        for (edge, sends) in sends {
            let pairs: Vec<_> = sends.into_iter().zip(receives.remove(&edge).unwrap_or_default()).collect();
            for &(from, to) in &pairs {
                receiver.insert((from, edge.1), to);
                sender.insert((to, edge.0), from);
            }
            edges.insert(edge, pairs);
        }
        Run {
            programs,
            call,
            rng,
            memory,
            receiver,
            sender,
            edges,
            happened: HashSet::new(),
            seen: HashMap::new(),
            value: HashMap::new(),
            total,
        }
    }

    /// Everything that has to happen, in random order.
    fn moments(&mut self) -> Vec<Moment> {
        let mut moments = Vec::new();
        for program in self.programs {
            for (number, op) in (0..).zip(&program.ops) {
                for element in self.elements(op) {
                    for event in [Granted, Garbage, Read, Stored, Published, Ended] {
                        moments.push(((program.rank, number), element, event));
                    }
                }
            }
        }
        for i in (1..moments.len()).rev() {
            moments.swap(i, self.rng.random_range(0..=i));
        }
        moments
    }

    fn op(&self, op: Step) -> &'a Op {
        &self.programs[op.0 as usize].ops[op.1 as usize]
    }

    fn elements(&self, op: &Op) -> std::ops::Range<u64> {
        self.programs[0].elements(&op.extent, &self.call.sizes[..])
    }

    fn place(&self, rank: Rank, buffer: Buffer, element: u64) -> (Rank, Buffer, u64) {
        (rank, in_memory(buffer, self.call.in_place), element)
    }

    fn same_memory(&self, a: Buffer, b: Buffer) -> bool {
        in_memory(a, self.call.in_place) == in_memory(b, self.call.in_place)
    }

    fn load(&self, rank: Rank, buffer: Buffer, element: u64) -> Value {
        self.memory[&self.place(rank, buffer, element)]
    }

    fn did(&self, op: Step, element: u64, event: Event) -> bool {
        self.happened.contains(&(op, element, event))
    }

    /// Whether an event has happened to all elements of an operation, or of the chunk that `element` is in.
    fn did_all(&self, op: Step, chunk_of: Option<u64>, event: Event) -> bool {
        let elements = self.elements(self.op(op));
        let range = match chunk_of {
            None => elements,
            Some(element) => {
                let first = element - (element - elements.start) % self.call.chunk;
                first..(first.saturating_add(self.call.chunk)).min(elements.end)
            }
        };
        range.into_iter().all(|element| self.did(op, element, event))
    }

    /// Copies a memory onto itself.
    fn is_no_copy(&self, op: Step) -> bool {
        let Op { recv, reduce_with: Some(from), copy_to: Some(to), finish: false, .. } = self.op(op) else {
            return false;
        };
        recv.is_empty() && self.same_memory(*from, *to)
    }

    /// Lets an event happen if it can.
    fn happens(&mut self, moment: Moment) -> bool {
        let (op, element, event) = moment;
        let possible = match event {
            Granted => self
                .op(op)
                .after
                .iter()
                .all(|dep| self.did_all((op.0, dep.op), (!dep.whole).then_some(element), Ended)),
            Garbage => self.may_write(op, element),
            Read => {
                self.did(op, element, Granted)
                    && self
                        .op(op)
                        .recv
                        .iter()
                        .all(|&from| self.did(self.sender[&(op, from)], element, Published))
            }
            // A value that is copied from memory may be stored before or after it is published.
            Stored => self.did(op, element, Read) && self.did(op, element, Garbage),
            Published if self.op(op).recv.is_empty() => {
                self.did(op, element, Granted) && self.is_open(op, element)
            }
            Published => self.did(op, element, Stored) && self.is_open(op, element),
            Ended => {
                [Stored, Published].into_iter().all(|event| self.did(op, element, event))
                    && (self.call.slots.is_some()
                        || self
                            .op(op)
                            .send
                            .iter()
                            .all(|&to| self.did(self.receiver[&(op, to)], element, Read)))
            }
        };
        if possible {
            self.act(op, element, event);
            self.happened.insert(moment);
        }
        possible
    }

    /// Whether `copy_to` may be written.
    fn may_write(&self, op: Step, element: u64) -> bool {
        let this = self.op(op);
        if let ([from], None) = (this.recv.as_slice(), this.reduce_with) {
            let sender = self.sender[&(op, *from)];
            let has_it = if self.op(sender).recv.is_empty() { Granted } else { Read };
            self.did(op, element, Granted) && self.did(sender, element, has_it)
        } else {
            self.did(op, element, if this.recv.is_empty() && !this.finish { Granted } else { Read })
        }
    }

    /// Whether the edges to all targets have room, and earlier messages are out of the way.
    fn is_open(&self, op: Step, element: u64) -> bool {
        let this = self.op(op);
        this.send.iter().all(|&to| {
            let messages = &self.edges[&(op.0, to, this.channel)];
            let before = messages.iter().take_while(|&&(from, _)| from != op);
            match self.call.slots {
                None => before.into_iter().all(|&(_, receiver)| self.did_all(receiver, None, Read)),
                Some(slots) => {
                    let mut used = 0;
                    for &(from, receiver) in messages.iter().take_while(|&&(from, _)| from <= op) {
                        if from != op && !self.did_all(from, None, Published) {
                            return false;
                        }
                        let elements = self.elements(self.op(from));
                        let firsts =
                            elements.clone().step_by(usize::try_from(self.call.chunk).unwrap_or(usize::MAX));
                        for first in firsts {
                            let chunk = first..first.saturating_add(self.call.chunk).min(elements.end);
                            let here = from == op && chunk.contains(&element);
                            let sent = chunk.clone().any(|e| self.did(from, e, Published));
                            let taken = chunk.clone().all(|e| self.did(receiver, e, Read));
                            // A chunk takes a slot with its first element; earlier chunks of a message come first.
                            if here && sent {
                                return true;
                            }
                            if here {
                                return used < slots;
                            }
                            if from == op && !chunk.clone().all(|e| self.did(from, e, Published)) {
                                return false;
                            }
                            used += u32::from(sent && !taken);
                        }
                    }
                    true
                }
            }
        })
    }

    fn act(&mut self, op: Step, element: u64, event: Event) {
        let this = self.op(op);
        let rank = op.0;
        match event {
            Granted => {
                if let Some(buffer) = this.reduce_with {
                    let seen = self.load(rank, buffer, element);
                    self.seen.insert((op, element), seen);
                    if this.recv.is_empty() {
                        let value = if this.finish { self.finish(seen, element) } else { seen };
                        self.value.insert((op, element), value);
                    }
                }
            }
            Garbage => {
                if let Some(buffer) = this.copy_to.filter(|_| !self.is_no_copy(op)) {
                    // An operation whose target is its source reads before it writes.
                    if this.reduce_with.is_none_or(|source| !self.same_memory(source, buffer)) {
                        let garbage = garbage(&mut self.rng);
                        self.memory.insert(self.place(rank, buffer, element), garbage);
                    }
                }
            }
            Read if this.recv.is_empty() => {
                if this.copy_to.is_some() {
                    let value = self.unless_changed(op, element);
                    self.value.insert((op, element), value);
                }
            }
            Read => {
                let mut operands: Vec<(Rank, Value)> = this
                    .recv
                    .iter()
                    .map(|&from| (from, self.received(self.sender[&(op, from)], element)))
                    .collect();
                if this.reduce_with.is_some() {
                    operands.push((rank, self.unless_changed(op, element)));
                }
                operands.sort_by_key(|&(rank, _)| rank);
                let values = operands.into_iter().map(|(_, value)| value);
                let mut value = values.reduce(combine).unwrap_or_default();
                if this.finish {
                    value = self.finish(value, element);
                }
                self.value.insert((op, element), value);
            }
            Stored => {
                if let Some(buffer) = this.copy_to.filter(|_| !self.is_no_copy(op)) {
                    self.memory.insert(self.place(rank, buffer, element), self.value[&(op, element)]);
                }
            }
            // The copy into a slot reads memory now.
            Published if self.call.slots.is_some() && !this.send.is_empty() => {
                let value = self.lies_in_memory(op, element);
                self.value.insert((op, element), value);
            }
            Published | Ended => {}
        }
    }

    /// What a receiver gets of an operation's value: the slot, or what lies in the sender's memory now.
    fn received(&mut self, sender: Step, element: u64) -> Value {
        if self.call.slots.is_some() {
            return self.value[&(sender, element)];
        }
        self.lies_in_memory(sender, element)
    }

    /// An operation's value if all memories that it may be taken from hold it; else garbage.
    fn lies_in_memory(&mut self, op: Step, element: u64) -> Value {
        let this = self.op(op);
        let value =
            if this.recv.is_empty() { self.unless_changed(op, element) } else { self.value[&(op, element)] };
        match this.copy_to {
            Some(buffer) if self.did(op, element, Stored) && self.load(op.0, buffer, element) != value => {
                garbage(&mut self.rng)
            }
            _ => value,
        }
    }

    /// What `reduce_with` held when the operation began, or garbage if it has changed since.
    fn unless_changed(&mut self, op: Step, element: u64) -> Value {
        let (this, seen) = (self.op(op), self.seen[&(op, element)]);
        let Some(buffer) = this.reduce_with else { return seen };
        let overwritten_by_itself = this.copy_to.is_some_and(|to| self.same_memory(to, buffer));
        if !overwritten_by_itself && self.load(op.0, buffer, element) != seen {
            return garbage(&mut self.rng);
        }
        if this.recv.is_empty() && this.finish { self.finish(seen, element) } else { seen }
    }

    fn finish(&mut self, value: Value, element: u64) -> Value {
        let complete = value.sum == self.total[element as usize].sum && value.finished == 0;
        let finished =
            Value { finished: value.finished + 1, bits: value.bits.rotate_left(5) ^ 0x5bd1, ..value };
        if complete { finished } else { garbage(&mut self.rng) }
    }

    fn judge(&self) -> Result<(), String> {
        for ((element, block), total) in (0..).zip(blocks(&self.call.sizes)).zip(&self.total) {
            let mut bits = None;
            for Program { rank, ranks, .. } in self.programs {
                if !has_output(&self.call.collective, *rank, block, *ranks) {
                    continue;
                }
                let output = self.load(*rank, Buffer::OUTPUT, element);
                let right = match self.call.collective.reduces() {
                    true => output.sum == total.sum && output.finished == 1,
                    false => output == *total,
                };
                if !right || *bits.get_or_insert(output.bits) != output.bits {
                    return Err(format!("rank {rank} element {element} is wrong"));
                }
            }
        }
        Ok(())
    }
}

/// The block of each element.
fn blocks(sizes: &[u64]) -> impl Iterator<Item = u32> {
    (0..).zip(sizes).flat_map(|(block, &size)| (0..size).map(move |_| block))
}

/// In place, input and output are one memory.
fn in_memory(buffer: Buffer, in_place: bool) -> Buffer {
    if in_place && buffer == Buffer::INPUT { Buffer::OUTPUT } else { buffer }
}

/// Whether a rank starts with a block.
fn has_input(collective: &Collective, rank: Rank, block: u32, ranks: u32) -> bool {
    match *collective {
        Collective::Broadcast { root } | Collective::Scatter { root } => rank == root,
        Collective::Gather { .. } | Collective::AllGather => block == rank,
        Collective::AllToAll => block / ranks == rank,
        _ => true,
    }
}

/// Whether a rank must end with a block.
fn has_output(collective: &Collective, rank: Rank, block: u32, ranks: u32) -> bool {
    match *collective {
        Collective::Reduce { root } | Collective::Gather { root } => rank == root,
        Collective::Scatter { .. } | Collective::ReduceScatter => block == rank,
        Collective::AllToAll => block % ranks == rank,
        _ => true,
    }
}

fn combine(a: Value, b: Value) -> Value {
    Value {
        sum: a.sum.wrapping_add(b.sum),
        bits: a.bits.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b.bits.rotate_left(17)),
        finished: a.finished + b.finished,
    }
}

fn garbage(rng: &mut StdRng) -> Value {
    Value { sum: rng.random(), bits: rng.random(), finished: rng.random_range(0..2) }
}
