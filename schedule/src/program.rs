//! The one operation that the engine knows, and programs of it.
//!
//! Every primitive of a collective is an instance of [`Op`]:
//!
//! | primitive            | `recv` | `reduce_with` | `copy_to` | `send` |
//! |----------------------|--------|---------------|-----------|--------|
//! | send                 |        | x             |           | x      |
//! | receive              | x      |               | x         |        |
//! | copy                 |        | x             | x         |        |
//! | forward              | x      |               |           | x      |
//! | receive, copy, send  | x      |               | x         | x      |
//! | reduce               | x      | x             | x         |        |
//! | reduce, send         | x      | x             |           | x      |
//! | reduce, copy, send   | x      | x             | x         | x      |
//!
//! The value of an operation is the reduction of what it receives and of `reduce_with`, **in ascending order of
//! rank**, this rank's own operand standing in the place of its rank. Several sources make an n-way reduction one
//! pass over memory, several targets make a fan-out.

use std::sync::Arc;

/// A process's number in its communicator, `0..ranks`.
pub type Rank = u32;

/// None, one, or several of something, without an allocation for the common cases.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Few<T> {
    /// Nothing.
    #[default]
    None,
    /// Exactly one.
    One(T),
    /// Several; shared, so that cloning an operation never copies the list.
    Many(Arc<[T]>),
}

impl<T> Few<T> {
    /// The items as a slice.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Few::None => &[],
            Few::One(item) => std::slice::from_ref(item),
            Few::Many(items) => items,
        }
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
    /// Iterates over the items.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.as_slice().iter()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut items: Vec<T> = items.into_iter().collect();
        match items.len() {
            0 => Few::None,
            1 => items.pop().map_or(Few::None, Few::One),
            _ => Few::Many(items.into()),
        }
    }
}

/// A buffer of the call's table.
///
/// Every buffer of a program spans the whole call, `count` elements, so an element has the same index in each of
/// them. Scratch buffers belong to the engine; there are [`Program::scratch`] of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer(pub u8);

impl Buffer {
    /// What the user passed to be read. Aliases [`Buffer::OUTPUT`] when the call is in place.
    pub const INPUT: Buffer = Buffer(0);
    /// Where the user wants the result.
    pub const OUTPUT: Buffer = Buffer(1);
    /// The `i`-th scratch buffer of the engine.
    pub const fn scratch(i: u8) -> Buffer {
        Buffer(2 + i)
    }
}

/// A range of a call's elements as a fraction of its count: elements `[at(lo), at(hi))` with
/// `at(i) = ⌊count · i / of⌋` rounded down to the program's grain, and `at(of) = count`.
///
/// Fractions nest: part `j` of `m` of part `i` of `n` is part `i·m + j` of `n·m`, with the very same bounds, which is
/// why the rounding depends on the program ([`Program::grain`]) and never on `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First part.
    pub lo: u32,
    /// One past the last part.
    pub hi: u32,
    /// Number of parts in the whole.
    pub of: u32,
}

impl Extent {
    /// The whole call.
    pub const ALL: Extent = Extent { lo: 0, hi: 1, of: 1 };

    /// Part `i` of `of` equal parts.
    pub const fn part(i: u32, of: u32) -> Extent {
        Extent { lo: i, hi: i + 1, of }
    }
    /// Parts `lo..hi` of `of` equal parts.
    pub const fn parts(lo: u32, hi: u32, of: u32) -> Extent {
        Extent { lo, hi, of }
    }
    /// The element range for a call of `count` elements.
    #[inline]
    pub fn bind(&self, count: u64, grain: u64) -> std::ops::Range<u64> {
        bound(count, self.lo, self.of, grain)..bound(count, self.hi, self.of, grain)
    }
}

#[inline]
fn bound(count: u64, i: u32, of: u32, grain: u64) -> u64 {
    if i == 0 {
        0
    } else if i == of {
        count
    } else {
        let exact = (u128::from(count) * u128::from(i) / u128::from(of)) as u64;
        exact & !(grain - 1)
    }
}

/// An earlier operation of the same program that must come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dep {
    /// Index of the earlier operation.
    pub op: u32,
    /// `false`: chunk `k` waits for chunk `k` (both operations must cover the same extent);
    /// `true`: every chunk waits for all of the earlier operation.
    pub whole: bool,
}

/// The one operation; see the [module](self) for the primitives that it spells.
///
/// The k-th operation that sends from a to b on a channel meets the k-th that receives at b from a on that channel,
/// both in program order; an edge is never reordered. An operation ends when it has moved its bytes **and its sends
/// have been released by their receivers**; that is what `after` waits for.
///
/// What runs an operation keeps to this, and the [validator](mod@crate::validate) counts on it:
///
/// - A chunk whose value is kept (`copy_to`), or lies in memory anyway (nothing is received), is taken in as soon as its
///   operands are there, **never waiting for room on the edges to its targets**; what cannot be sent on at once is sent
///   from memory later. Rings and direct all_reduce get stuck otherwise: every rank would wait for its neighbour.
/// - A computed value is published to receivers only when it is stored in `copy_to` too. A peer's memory may be written
///   in the same pass.
/// - At each element, operands are read before anything is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Op {
    /// The elements that the operation covers, the same in every buffer that it touches.
    pub extent: Extent,
    /// The ranks whose messages are operands, ascending.
    pub recv: Few<Rank>,
    /// A local operand.
    pub reduce_with: Option<Buffer>,
    /// Where the value is stored here.
    pub copy_to: Option<Buffer>,
    /// The ranks to which the value is sent.
    pub send: Few<Rank>,
    /// Which of several parallel edges between two ranks the messages use.
    pub channel: u8,
    /// The value holds every contribution now, and what an operator does last (the division of avg) is applied.
    /// Set exactly once on every path from the inputs to an output of a reduction; never in a broadcast, which has no
    /// operator.
    pub finish: bool,
    /// What must come first.
    pub after: Few<Dep>,
}

impl Op {
    /// An operation that covers `extent` and does nothing yet; the methods below complete it.
    pub fn over(extent: Extent) -> Op {
        Op {
            extent,
            recv: Few::None,
            reduce_with: None,
            copy_to: None,
            send: Few::None,
            channel: 0,
            finish: false,
            after: Few::None,
        }
    }
    /// Receives from one rank.
    pub fn recv(mut self, from: Rank) -> Op {
        self.recv = Few::One(from);
        self
    }
    /// Receives from several ranks, which must ascend.
    pub fn recv_all(mut self, from: impl IntoIterator<Item = Rank>) -> Op {
        self.recv = from.into_iter().collect();
        self
    }
    /// Takes `buffer` as an operand.
    pub fn reduce_with(mut self, buffer: Buffer) -> Op {
        self.reduce_with = Some(buffer);
        self
    }
    /// Stores the value in `buffer`.
    pub fn copy_to(mut self, buffer: Buffer) -> Op {
        self.copy_to = Some(buffer);
        self
    }
    /// Sends the value to one rank.
    pub fn send(mut self, to: Rank) -> Op {
        self.send = Few::One(to);
        self
    }
    /// Sends the value to several ranks.
    pub fn send_all(mut self, to: impl IntoIterator<Item = Rank>) -> Op {
        self.send = to.into_iter().collect();
        self
    }
    /// Uses another channel than 0.
    pub fn on(mut self, channel: u8) -> Op {
        self.channel = channel;
        self
    }
    /// Marks the value as complete; see [`Op::finish`].
    pub fn finish(mut self) -> Op {
        self.finish = true;
        self
    }
    /// Waits chunk by chunk for `op`, which covers the same extent.
    pub fn after(self, op: u32) -> Op {
        self.with_dep(Dep { op, whole: false })
    }
    /// Waits for all of `op`.
    pub fn after_all_of(self, op: u32) -> Op {
        self.with_dep(Dep { op, whole: true })
    }
    fn with_dep(mut self, dep: Dep) -> Op {
        self.after = self.after.iter().copied().chain([dep]).collect();
        self
    }
}

/// What one rank does in one collective call. Pure data: the same for every count, type and operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The rank that runs it.
    pub rank: Rank,
    /// Ranks in the communicator.
    pub ranks: u32,
    /// The finest number of parts that any rank's program of this algorithm cuts the call into; the same on every rank.
    pub parts: u32,
    /// How many scratch buffers of `count` elements the operations use.
    pub scratch: u8,
    /// The program is right only if a send takes its snapshot of the source before its receiver is waited for, so the
    /// engine must stage every message (true of in-place exchanges, which fail on memory that the peer reads late).
    pub snapshot: bool,
    /// The operations, in program order.
    pub ops: Vec<Op>,
}

impl Program {
    /// An empty program.
    pub fn new(rank: Rank, ranks: u32, parts: u32) -> Program {
        Program { rank, ranks, parts, scratch: 0, snapshot: false, ops: Vec::new() }
    }
    /// Appends an operation and returns its index.
    pub fn push(&mut self, op: Op) -> u32 {
        self.ops.push(op);
        (self.ops.len() - 1) as u32
    }
    /// Bounds of [`Extent`] are rounded down to a multiple of this power of two, so that no two ranks write one cache
    /// line when parts are large enough for that to matter.
    #[inline]
    pub fn grain(&self, count: u64) -> u64 {
        grain(count, self.parts)
    }
}

/// See [`Program::grain`].
#[inline]
pub fn grain(count: u64, parts: u32) -> u64 {
    if count >= u64::from(parts) * 256 { 64 } else { 1 }
}

/// Where the ranks live: `host[r]` is the index of rank `r`'s host, hosts numbered by their lowest rank.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Host index by rank.
    pub host: Arc<[u32]>,
}

impl Layout {
    /// All ranks on one host.
    pub fn one_host(ranks: u32) -> Layout {
        Layout { host: vec![0; ranks as usize].into() }
    }
    /// Number of ranks.
    pub fn ranks(&self) -> u32 {
        self.host.len() as u32
    }
    /// Number of hosts.
    pub fn hosts(&self) -> u32 {
        self.host.iter().max().map_or(0, |h| h + 1)
    }
    /// The ranks on `host`, ascending.
    pub fn on_host(&self, host: u32) -> impl Iterator<Item = Rank> + '_ {
        self.host.iter().enumerate().filter(move |&(_, &h)| h == host).map(|(r, _)| r as Rank)
    }
}
