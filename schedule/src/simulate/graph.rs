//! The programs of all ranks as a few flat arrays, and which message meets which.
//!
//! A ring of 4,096 ranks is 33 million operations, so an operation takes 36 bytes here and a message 20, and a program is
//! forgotten as soon as it is copied. Messages are numbered edge by edge, in the order in which each edge
//! carries them: what has left an edge, or arrived, is then one number.
//!
//! Operations are numbered step by step: the first of every rank, then the second of every rank, and so on. Ranks are
//! about as far as each other, so what a run looks at next lies near to what it has looked at. Rank by rank it lay on a
//! page for each rank, more than a processor's translation buffers hold: the ring of 4,096 took 94 s on a virtual machine
//! where it now takes 24 s of processor time.

use std::collections::HashMap;
use std::ops::Range;

use super::Unfit;
use crate::algorithm::{Algorithm, Family};
use crate::collective::Collective;
use crate::layout::Layout;
use crate::program::{Op, Program, Rank};

/// Most messages that are simulated: beyond, memory would not do.
const MOST_MESSAGES: u64 = 160_000_000;

/// One after the other, or several parallel ones where a collective has channels, all messages from a rank to another.
pub(super) struct Edge {
    pub from: Rank,
    pub to: Rank,
    /// Its first message; the next edge's first is one past its last.
    pub first: u32,
}

/// An operation before another.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub op: u32,
    pub whole: bool,
}

/// An operation of a rank. What is looked at together lies together: a run goes through all of this once, and waits for
/// memory most of the time.
#[derive(Clone, Copy, Default)]
pub(super) struct Operation {
    pub bytes: u64,
    pub rank: Rank,
    /// Where the messages that it receives begin in `ends`; those that it sends follow.
    first: u32,
    receives: u32,
    /// It has an operand of its own rank.
    pub has_own: bool,
    pub stores: bool,
}

/// A message: the operation that sends it, the one that receives it, and its edge.
#[derive(Clone, Copy, Default)]
pub(super) struct Message {
    pub from: u32,
    pub to: u32,
    pub edge: u32,
}

#[derive(Default)]
pub(super) struct Graph {
    /// Every operation, and one that does nothing at the end.
    operations: Vec<Operation>,
    /// How many operations each rank has.
    lengths: Vec<u32>,
    ends: Vec<u32>,
    pub messages: Vec<Message>,
    pub edges: Vec<Edge>,
    /// What is before each operation, and where each operation's begin; empty if no operation is after another.
    before: Vec<Before>,
    before_of: Vec<u32>,
    /// Likewise what is after each operation.
    after: Vec<u32>,
    after_of: Vec<u32>,
    /// Every message must leave before its receiver is waited for: see [`Program::snapshot`].
    pub snapshot: bool,
}

impl Graph {
    /// The programs of all ranks, for blocks of `count` elements of `element` bytes.
    pub(super) fn of(
        algorithm: Algorithm,
        collective: &Collective,
        layout: &Layout,
        count: u64,
        element: u64,
    ) -> Result<Graph, Unfit> {
        let family = Family::new(algorithm, collective, layout, 1);
        within_reach(&family, layout.ranks())?;
        let mut graph = Graph { before_of: vec![0], ..Graph::default() };
        let mut edges = EdgeNumbers::default();
        for rank in 0..layout.ranks() {
            let program = family.program(rank);
            graph.lengths.push(program.ops.len() as u32);
            let first = graph.operations.len() as u32;
            graph.snapshot |= program.snapshot;
            for op in &program.ops {
                let bytes = program.len_of(&op.extent, &count) * element;
                graph.push(op, rank, bytes, first, &mut edges);
            }
            if graph.ends.len() as u64 > 2 * MOST_MESSAGES {
                return Err(Unfit::TooManyMessages(graph.ends.len() as u64 / 2));
            }
        }
        graph.operations.push(Operation { first: graph.ends.len() as u32, ..Operation::default() });
        graph.order_by_step();
        graph.join(edges);
        graph.turn_dependencies();
        Ok(graph)
    }

    fn push(&mut self, op: &Op, rank: Rank, bytes: u64, first: u32, edges: &mut EdgeNumbers) {
        self.operations.push(Operation {
            bytes,
            rank,
            first: self.ends.len() as u32,
            receives: op.recv.len() as u32,
            has_own: op.reduce_with.is_some(),
            stores: op.copy_to.is_some(),
        });
        // Numbers of edges for now, of messages once all are known.
        self.ends.extend(op.recv.iter().map(|&from| edges.number(from, rank, op.channel)));
        self.ends.extend(op.send.iter().map(|&to| edges.number(rank, to, op.channel)));
        self.before.extend(op.after.iter().map(|dep| Before { op: first + dep.op, whole: dep.whole }));
        self.before_of.push(self.before.len() as u32);
    }

    /// From rank by rank to step by step.
    fn order_by_step(&mut self) {
        let numbers: Vec<u32> = self.in_program_order().collect();
        let mut former = vec![0; numbers.len()];
        for (rank_by_rank, &number) in (0..).zip(&numbers) {
            former[number as usize] = rank_by_rank;
        }
        let lengths = std::mem::take(&mut self.lengths);
        let Graph { operations, ends, before, before_of, snapshot, .. } = std::mem::take(self);
        *self = Graph {
            operations: Vec::with_capacity(operations.len()),
            ends: Vec::with_capacity(ends.len()),
            before: Vec::with_capacity(before.len()),
            before_of: Vec::with_capacity(before_of.len()),
            lengths,
            snapshot,
            ..Graph::default()
        };
        self.before_of.push(0);
        for op in former {
            let operation = operations[op as usize];
            let first = self.ends.len() as u32;
            self.operations.push(Operation { first, ..operation });
            self.ends.extend(&ends[operation.first as usize..operations[op as usize + 1].first as usize]);
            let before = &before[range(&before_of, op)];
            self.before.extend(before.iter().map(|it| Before { op: numbers[it.op as usize], ..*it }));
            self.before_of.push(self.before.len() as u32);
        }
        self.operations.push(Operation { first: self.ends.len() as u32, ..Operation::default() });
    }

    /// The numbers of all operations: those of rank 0 in the order of its program, then those of rank 1, and so on.
    pub(super) fn in_program_order(&self) -> impl Iterator<Item = u32> {
        let steps = self.lengths.iter().copied().max().unwrap_or(0) as usize;
        // The number that the next rank's operation of each step has.
        let mut next = vec![0_u32; steps + 1];
        for &length in &self.lengths {
            next[length as usize] += 1;
        }
        let mut ranks = self.lengths.len() as u32;
        let mut first = 0;
        for number in &mut next {
            // So far it is how many ranks have no operation of this step or a later one.
            ranks -= *number;
            *number = first;
            first += ranks;
        }
        self.lengths.iter().flat_map(|&length| 0..length as usize).map(move |step| {
            next[step] += 1;
            next[step] - 1
        })
    }

    /// The k-th message that is sent on an edge is the k-th that is received on it.
    fn join(&mut self, edges: EdgeNumbers) {
        let mut sent = vec![0_u32; edges.ends.len()];
        for op in 0..self.ops() as u32 {
            for &edge in self.sends(op) {
                sent[edge as usize] += 1;
            }
        }
        let mut total = 0;
        for first in &mut sent {
            total += std::mem::replace(first, total);
        }
        let ends = edges.ends.into_iter().zip(&sent);
        self.edges = ends.map(|((from, to), &first)| Edge { from, to, first }).collect();
        self.messages = vec![Message::default(); total as usize];
        let (mut next_sent, mut next_received) = (sent.clone(), sent);
        for op in 0..self.ops() {
            let Operation { first, receives, .. } = self.operations[op];
            let sends = first + receives;
            for end in first..self.operations[op + 1].first {
                let edge = self.ends[end as usize];
                let next = if end < sends { &mut next_received } else { &mut next_sent };
                let message = &mut self.messages[next[edge as usize] as usize];
                message.edge = edge;
                *(if end < sends { &mut message.to } else { &mut message.from }) = op as u32;
                self.ends[end as usize] = next[edge as usize];
                next[edge as usize] += 1;
            }
        }
    }

    fn turn_dependencies(&mut self) {
        if self.before.is_empty() {
            (self.before_of, self.after_of) = (Vec::new(), Vec::new());
            return;
        }
        let mut first = vec![0_u32; self.ops() + 1];
        for before in &self.before {
            first[before.op as usize + 1] += 1;
        }
        for op in 0..self.ops() {
            first[op + 1] += first[op];
        }
        self.after_of = first.clone();
        self.after = vec![0; self.before.len()];
        for op in 0..self.ops() {
            for before in self.before_of[op]..self.before_of[op + 1] {
                let next = &mut first[self.before[before as usize].op as usize];
                self.after[*next as usize] = op as u32;
                *next += 1;
            }
        }
    }

    pub(super) fn ops(&self) -> usize {
        self.operations.len() - 1
    }
    #[inline]
    pub(super) fn op(&self, op: u32) -> &Operation {
        &self.operations[op as usize]
    }
    #[inline]
    pub(super) fn message(&self, message: u32) -> Message {
        self.messages[message as usize]
    }
    /// The messages of an edge.
    pub(super) fn messages_of(&self, edge: u32) -> Range<u32> {
        let next = self.edges.get(edge as usize + 1).map_or(self.messages.len() as u32, |next| next.first);
        self.edges[edge as usize].first..next
    }
    #[inline]
    pub(super) fn receives(&self, op: u32) -> &[u32] {
        let Operation { first, receives, .. } = *self.op(op);
        &self.ends[first as usize..(first + receives) as usize]
    }
    #[inline]
    pub(super) fn sends(&self, op: u32) -> &[u32] {
        let Operation { first, receives, .. } = *self.op(op);
        &self.ends[(first + receives) as usize..self.op(op + 1).first as usize]
    }
    /// What must come before an operation.
    #[inline]
    pub(super) fn before(&self, op: u32) -> &[Before] {
        if self.before.is_empty() { &[] } else { &self.before[range(&self.before_of, op)] }
    }
    /// The operations that come after one.
    #[inline]
    pub(super) fn after(&self, op: u32) -> &[u32] {
        if self.after.is_empty() { &[] } else { &self.after[range(&self.after_of, op)] }
    }
    pub(super) fn any_dependencies(&self) -> bool {
        !self.before.is_empty()
    }
    /// Into how many chunks all messages are cut.
    pub(super) fn chunks(&self, chunk: u32) -> u64 {
        self.messages.iter().map(|message| u64::from(chunks(self.op(message.from).bytes, chunk))).sum()
    }
}

/// Into how many chunks a message is cut; an empty one is sent too.
pub(super) fn chunks(bytes: u64, chunk: u32) -> u32 {
    // Most messages are a single chunk, and divisions are slow.
    if bytes <= u64::from(chunk) { 1 } else { bytes.div_ceil(u64::from(chunk)) as u32 }
}

fn range(starts: &[u32], op: u32) -> Range<usize> {
    starts[op as usize] as usize..starts[op as usize + 1] as usize
}

/// Numbers edges in the order in which they are met.
#[derive(Default)]
struct EdgeNumbers {
    known: HashMap<(Rank, Rank, u8), u32>,
    ends: Vec<(Rank, Rank)>,
    /// The last two that were asked for: a ring asks for no others.
    last: [((Rank, Rank, u8), u32); 2],
}

impl EdgeNumbers {
    fn number(&mut self, from: Rank, to: Rank, channel: u8) -> u32 {
        let edge = (from, to, channel);
        if let Some((_, number)) = self.last.iter().find(|(known, _)| *known == edge && from != to) {
            return *number;
        }
        let next = self.ends.len() as u32;
        let number = *self.known.entry(edge).or_insert(next);
        if number == next {
            self.ends.push((from, to));
        }
        self.last = [(edge, number), self.last[0]];
        number
    }
}

/// Looks at three ranks' programs before all are made: programs of many ranks may take more memory than there is.
fn within_reach(family: &Family, ranks: u32) -> Result<(), Unfit> {
    let sends = |rank: Rank| {
        let Program { ops, .. } = family.program(rank);
        ops.iter().map(|op| op.send.len() as u64).sum::<u64>()
    };
    let mut sample = [sends(0), sends(ranks / 2), sends(ranks - 1)];
    sample.sort_unstable();
    // The least but one: the root of a tree may send more than all the others.
    let estimate = sample[1].max(sample[0]) * u64::from(ranks);
    if estimate > MOST_MESSAGES { Err(Unfit::TooManyMessages(estimate)) } else { Ok(()) }
}

/// The elements of a block for a call of `bytes` bytes as nccl-tests count them: a rank's data, or all of its blocks where it
/// has one for each rank.
pub(super) fn block(collective: &Collective, ranks: u32, bytes: u64, element: u64) -> u64 {
    match collective {
        Collective::AllReduce | Collective::Reduce { .. } | Collective::Broadcast { .. } => bytes / element,
        _ => bytes / element / u64::from(ranks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::programs;

    #[test]
    fn every_message_joins_the_operations_that_the_programs_name() {
        let layout = Layout::of_hosts([0, 0, 0, 1, 1, 2]);
        for collective in Collective::ALL {
            for &algorithm in Algorithm::for_collective(&collective) {
                let graph = Graph::of(algorithm, &collective, &layout, 100, 4).unwrap();
                let programs = programs(algorithm, &collective, &layout, 1);
                let mut ops: Vec<(u32, Rank, &Op)> = programs
                    .iter()
                    .flat_map(|p| p.ops.iter().map(|op| (p.rank, op)))
                    .zip(graph.in_program_order())
                    .map(|((rank, op), number)| (number, rank, op))
                    .collect();
                ops.sort_unstable_by_key(|&(number, ..)| number);
                assert!(ops.iter().map(|&(number, ..)| number).eq(0..graph.ops() as u32));
                for &(number, rank, op) in &ops {
                    assert_eq!(graph.op(number).rank, rank);
                    let targets: Vec<Rank> = graph
                        .sends(number)
                        .iter()
                        .map(|&m| graph.edges[graph.message(m).edge as usize].to)
                        .collect();
                    assert_eq!(targets, op.send.as_slice(), "{algorithm} {collective}");
                    let sources: Vec<Rank> = graph
                        .receives(number)
                        .iter()
                        .map(|&m| ops[graph.message(m).from as usize].1)
                        .collect();
                    assert_eq!(sources, op.recv.as_slice(), "{algorithm} {collective}");
                    assert_eq!(graph.before(number).len(), op.after.len());
                    for &later in graph.after(number) {
                        assert!(graph.before(later).iter().any(|before| before.op == number));
                    }
                }
                for Message { from, to, .. } in &graph.messages {
                    assert_eq!(graph.op(*from).bytes, graph.op(*to).bytes, "{algorithm} {collective}");
                }
            }
        }
    }

    #[test]
    fn what_no_memory_holds_is_refused_before_it_is_made() {
        let refused =
            Graph::of(Algorithm::Exchange, &Collective::AllReduce, &Layout::one_host(100_000), 1, 4);
        assert!(matches!(refused, Err(Unfit::TooManyMessages(9_999_900_000))));
    }

    #[test]
    fn sizes_are_those_of_nccl_tests() {
        assert_eq!(block(&Collective::AllReduce, 8, 1024, 4), 256);
        assert_eq!(block(&Collective::AllGather, 8, 1024, 4), 32);
    }
}
