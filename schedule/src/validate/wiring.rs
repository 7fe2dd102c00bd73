//! Which send meets which receive.

use super::violation::{Fault, Violation};
use crate::program::{Buffer, Extent, Op, Program, Rank};

/// No message.
pub(super) const NONE: u32 = u32::MAX;

/// A message: the k-th that one rank sends to another on a channel.
pub(super) struct Message {
    /// The operation that sends it, numbered over all ranks.
    pub from: u32,
    /// The operation that receives it, numbered over all ranks.
    pub to: u32,
    /// The message before it on its edge, or [`NONE`].
    pub previous: u32,
    /// The message after it on its edge, or [`NONE`].
    pub next: u32,
}

/// The operations of all ranks as one list, and the messages that join them.
pub(super) struct Wiring<'a> {
    pub programs: &'a [Program],
    /// Every operation.
    pub ops: Vec<&'a Op>,
    /// The number of each rank's first operation; one entry more than ranks.
    pub first: Vec<u32>,
    /// The rank of each operation.
    pub rank: Vec<Rank>,
    /// Ordered by sender, so that an operation's messages are neighbours.
    pub messages: Vec<Message>,
    /// Where each operation's outgoing messages begin in `messages`; one entry more than operations.
    pub outgoing: Vec<u32>,
    /// Numbers of the messages that operations receive, in the order of their `recv`.
    pub incoming: Vec<u32>,
    /// Where each operation's begin in `incoming`; one entry more than operations.
    pub incoming_of: Vec<u32>,
    /// Operations that are after another one.
    pub dependents: Vec<u32>,
    /// Where each operation's begin in `dependents`; one entry more than operations.
    pub dependents_of: Vec<u32>,
}

impl<'a> Wiring<'a> {
    pub(super) fn of(programs: &'a [Program]) -> Result<Wiring<'a>, Violation> {
        for (rank, program) in (0..).zip(programs) {
            well_formed(program, rank, programs)?;
        }
        let ops: Vec<&Op> = programs.iter().flat_map(|program| &program.ops).collect();
        let first = offsets(programs.iter().map(|program| program.ops.len()));
        let rank: Vec<Rank> =
            (0..).zip(programs).flat_map(|(rank, p)| p.ops.iter().map(move |_| rank)).collect();
        let outgoing = offsets(ops.iter().map(|op| op.send.len()));
        let incoming_of = offsets(ops.iter().map(|op| op.recv.len()));
        let (dependents, dependents_of) = dependents(&ops, &rank, &first);

        let mut wiring = Wiring {
            programs,
            messages: Vec::with_capacity(outgoing[ops.len()] as usize),
            incoming: vec![NONE; incoming_of[ops.len()] as usize],
            ops,
            first,
            rank,
            outgoing,
            incoming_of,
            dependents,
            dependents_of,
        };
        wiring.join()?;
        Ok(wiring)
    }

    /// The number of `op` in its own rank's program.
    pub(super) fn local(&self, op: u32) -> u32 {
        op - self.first[self.rank[op as usize] as usize]
    }

    pub(super) fn outgoing(&self, op: u32) -> std::ops::Range<u32> {
        self.outgoing[op as usize]..self.outgoing[op as usize + 1]
    }

    pub(super) fn incoming(&self, op: u32) -> &[u32] {
        &self.incoming[self.incoming_of[op as usize] as usize..self.incoming_of[op as usize + 1] as usize]
    }

    pub(super) fn dependents(&self, op: u32) -> &[u32] {
        &self.dependents
            [self.dependents_of[op as usize] as usize..self.dependents_of[op as usize + 1] as usize]
    }

    pub(super) fn violation(&self, op: u32, fault: Fault) -> Violation {
        Violation::at(self.rank[op as usize], self.local(op), fault)
    }

    /// Sorts both ends of all messages by edge, in program order, and pairs them.
    fn join(&mut self) -> Result<(), Violation> {
        let edge = |from: Rank, to: Rank, channel: u8| {
            (u64::from(to) << 36) | (u64::from(from) << 8) | u64::from(channel)
        };
        let mut sends = Vec::with_capacity(self.messages.capacity());
        let mut receives = Vec::with_capacity(self.incoming.len());
        for (number, (op, &rank)) in (0..).zip(self.ops.iter().zip(&self.rank)) {
            for &to in op.send.iter() {
                sends.push((edge(rank, to, op.channel), self.messages.len() as u32));
                self.messages.push(Message { from: number, to: NONE, previous: NONE, next: NONE });
            }
            for (slot, &from) in (self.incoming_of[number as usize]..).zip(op.recv.iter()) {
                receives.push((edge(from, rank, op.channel), slot, number));
            }
        }
        sends.sort_unstable();
        receives.sort_unstable();

        let (mut before, mut count_on_edge) = ((u64::MAX, NONE), 0);
        let (mut i, mut j) = (0, 0);
        while i < sends.len() || j < receives.len() {
            let send = sends.get(i).map_or(u64::MAX, |send| send.0);
            let receive = receives.get(j).map_or(u64::MAX, |receive| receive.0);
            if before.0 != send.min(receive) {
                (before, count_on_edge) = ((send.min(receive), NONE), 0);
            }
            if send < receive {
                let from = self.messages[sends[i].1 as usize].from;
                let fault = Fault::Unmatched {
                    peer: (send >> 36) as Rank,
                    peer_sends: false,
                    message: count_on_edge,
                };
                return Err(self.violation(from, fault));
            }
            if receive < send {
                let peer = (receive >> 8) as Rank & 0xfff_ffff;
                let fault = Fault::Unmatched { peer, peer_sends: true, message: count_on_edge };
                return Err(self.violation(receives[j].2, fault));
            }
            let (message, (_, slot, to)) = (sends[i].1, receives[j]);
            let from = self.messages[message as usize].from;
            if !same(&self.ops[from as usize].extent, &self.ops[to as usize].extent) {
                let fault = Fault::Extents { peer: self.rank[to as usize], peer_op: self.local(to) };
                return Err(self.violation(from, fault));
            }
            self.incoming[slot as usize] = message;
            self.messages[message as usize] = Message { from, to, previous: before.1, next: NONE };
            if before.1 != NONE {
                self.messages[before.1 as usize].next = message;
            }
            before.1 = message;
            count_on_edge += 1;
            (i, j) = (i + 1, j + 1);
        }
        Ok(())
    }
}

/// Whether two extents are the same fractions of the call, and so the same elements for every count.
fn same(a: &Extent, b: &Extent) -> bool {
    let equal = |i: u32, j: u32| u64::from(i) * u64::from(b.of) == u64::from(j) * u64::from(a.of);
    equal(a.lo, b.lo) && equal(a.hi, b.hi)
}

fn offsets(lengths: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut total = 0;
    let mut offsets = vec![0];
    offsets.extend(lengths.map(|length| {
        total += length as u32;
        total
    }));
    offsets
}

fn dependents(ops: &[&Op], rank: &[Rank], first: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let mut pairs: Vec<(u32, u32)> = Vec::new();
    for (number, (op, &rank)) in (0..).zip(ops.iter().zip(rank)) {
        pairs.extend(op.after.iter().map(|dep| (first[rank as usize] + dep.op, number)));
    }
    pairs.sort_unstable();
    let mut counts = vec![0; ops.len()];
    for &(op, _) in &pairs {
        counts[op as usize] += 1;
    }
    (pairs.into_iter().map(|(_, dependent)| dependent).collect(), offsets(counts.into_iter()))
}

/// Everything about a program that can be seen without the others.
fn well_formed(program: &Program, rank: Rank, all: &[Program]) -> Result<(), Violation> {
    let whole = |what| Err(Violation::of_program(rank, Fault::Malformed(what)));
    if program.rank != rank || program.ranks as usize != all.len() {
        return whole("the program is not that of this rank among so many");
    }
    if (program.blocks, program.parts, program.snapshot) != (all[0].blocks, all[0].parts, all[0].snapshot) {
        return whole(
            "blocks, parts or snapshot differ from rank 0's program, so ranks would cut the call differently",
        );
    }
    if program.blocks == 0 || program.parts == 0 || program.windows.len() > 65_535 || all.len() >= 1 << 28 {
        return whole("no blocks or parts, too many buffers, or too many ranks");
    }
    if program.windows.len() < 2 || !program.windows.iter().all(|window| window.is_of(program.blocks)) {
        return whole("input or output is missing, or a window's blocks do not ascend or do not exist");
    }
    for (number, op) in (0..).zip(&program.ops) {
        if let Some(what) = malformed(program, number, op) {
            return Err(Violation::at(rank, number, Fault::Malformed(what)));
        }
    }
    Ok(())
}

fn malformed(program: &Program, number: u32, op: &Op) -> Option<&'static str> {
    let Extent { lo, hi, of } = op.extent;
    let mut peers = op.recv.iter().chain(op.send.iter());
    let repeated = |peers: &[Rank]| (1..peers.len()).any(|i| peers[i..].contains(&peers[i - 1]));
    // An all-to-all list of many ranks is compared by sorting.
    let sends_repeat = || {
        let mut send = op.send.as_slice().to_vec();
        send.sort_unstable();
        repeated_neighbours(&send)
    };
    if lo >= hi || hi > of {
        Some("the extent is empty or reaches beyond the call")
    } else if of != 1 && !of.is_multiple_of(program.blocks) {
        Some("the extent does not cut every block into the same number of parts")
    } else if of / program.blocks > program.parts {
        Some("the extent is finer than the program's parts")
    } else if peers.any(|&peer| peer == program.rank || peer >= program.ranks) {
        Some("a peer is this rank itself or does not exist")
    } else if !op.recv.as_slice().is_sorted() || repeated_neighbours(op.recv.as_slice()) {
        Some("the ranks to receive from do not ascend")
    } else if if op.send.len() < 8 { repeated(op.send.as_slice()) } else { sends_repeat() } {
        Some("it sends to one rank twice")
    } else if op.recv.is_empty() && op.reduce_with.is_none() {
        Some("it has no operand")
    } else if op.send.is_empty() && op.copy_to.is_none() {
        Some("its value goes nowhere")
    } else if op.copy_to == Some(Buffer::INPUT) {
        Some("it writes the input, which belongs to the user")
    } else if op.reduce_with.iter().chain(&op.copy_to).any(|b| b.0 as usize >= program.windows.len()) {
        Some("it uses a buffer beyond those of the program")
    } else if op.reduce_with.iter().chain(&op.copy_to).any(|&buffer| !shows(program, buffer, &op.extent)) {
        Some("a buffer does not hold the blocks that it covers, one behind the other")
    } else if op.after.iter().any(|dep| dep.op >= number) {
        Some("it is after an operation that is not an earlier one")
    } else if op.after.iter().any(|dep| !dep.whole && !same(&program.ops[dep.op as usize].extent, &op.extent))
    {
        Some("it is chunk by chunk after an operation over other elements")
    } else {
        None
    }
}

/// Whether a buffer holds all blocks that `extent` touches one behind the other.
fn shows(program: &Program, buffer: Buffer, extent: &Extent) -> bool {
    let (blocks, of) = (u64::from(program.blocks), u64::from(extent.of));
    let (from, to) = (u64::from(extent.lo) * blocks / of, (u64::from(extent.hi) * blocks).div_ceil(of));
    program.window(buffer).shows(from as u32, to as u32)
}

fn repeated_neighbours(peers: &[Rank]) -> bool {
    peers.windows(2).any(|pair| pair[0] == pair[1])
}
