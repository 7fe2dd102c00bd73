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

use std::ops::Range;
use std::sync::Arc;

use crate::collective::Collective;
use crate::vector::{Sizes, Window};

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

/// A buffer of the call's table: a [`Window`] on the call's vector. Scratch buffers belong to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer(pub u16);

impl Buffer {
    /// What the user passed to be read. Aliases [`Buffer::OUTPUT`] when the call is in place.
    pub const INPUT: Buffer = Buffer(0);
    /// Where the user wants the result.
    pub const OUTPUT: Buffer = Buffer(1);
    /// The `i`-th scratch buffer of the engine.
    pub const fn scratch(i: u16) -> Buffer {
        Buffer(2 + i)
    }
}

/// A range of a call's vector: parts `lo..hi` of `of` equal parts.
///
/// Where the vector has several blocks, `of` is a multiple of their number (or the extent is [`Extent::ALL`]), so that
/// every block is cut into `of / blocks` parts of its own. Inside a block of `size` elements part `i` of `m` begins at
/// `⌊size · i / m⌋`, rounded down to the block's [`grain`].
///
/// Fractions nest: part `j` of `m` of part `i` of `n` is part `i·m + j` of `n·m`, with the very same bounds, which is
/// why the rounding depends on the program and never on `of`.
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
    /// The whole vector.
    pub const ALL: Extent = Extent { lo: 0, hi: 1, of: 1 };

    /// Part `i` of `of` equal parts.
    pub const fn part(i: u32, of: u32) -> Extent {
        Extent { lo: i, hi: i + 1, of }
    }
    /// Parts `lo..hi` of `of` equal parts.
    pub const fn parts(lo: u32, hi: u32, of: u32) -> Extent {
        Extent { lo, hi, of }
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
    /// Set exactly once on every path from the inputs to an output of a reduction; never where nothing
    /// is reduced.
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
    /// How many blocks the call's vector has; the same on every rank.
    pub blocks: u32,
    /// The finest number of parts that any rank's program of this algorithm cuts a block into; the same on every rank.
    pub parts: u32,
    /// What the buffers show of the vector: input, output, then scratch.
    pub windows: Vec<Window>,
    /// The program is right only if a send takes its snapshot of the source before its receiver is waited for, so the
    /// engine must stage every message (true of in-place exchanges, which fail on memory that the peer reads late).
    pub snapshot: bool,
    /// The operations, in program order.
    pub ops: Vec<Op>,
}

impl Program {
    /// An empty program of `rank` for `collective`, with blocks that are cut into up to `parts` parts.
    pub fn new(collective: &Collective, rank: Rank, ranks: u32, parts: u32) -> Program {
        Program {
            rank,
            ranks,
            blocks: collective.blocks(ranks),
            parts,
            windows: vec![collective.input(rank, ranks), collective.output(rank, ranks)],
            snapshot: false,
            ops: Vec::new(),
        }
    }
    /// Appends an operation and returns its index.
    pub fn push(&mut self, op: Op) -> u32 {
        self.ops.push(op);
        (self.ops.len() - 1) as u32
    }
    /// Adds a scratch buffer that holds what `window` shows.
    pub fn scratch(&mut self, window: Window) -> Buffer {
        self.windows.push(window);
        Buffer((self.windows.len() - 1) as u16)
    }
    /// What a buffer shows of the vector.
    pub fn window(&self, buffer: Buffer) -> &Window {
        &self.windows[buffer.0 as usize]
    }
    /// How many elements `extent` covers.
    #[inline]
    pub fn len_of(&self, extent: &Extent, sizes: &(impl Sizes + ?Sized)) -> u64 {
        let (from, to) = (self.cut(extent.lo, extent.of, sizes), self.cut(extent.hi, extent.of, sizes));
        if from.0 == to.0 { to.1 - from.1 } else { sizes.sum(from.0, to.0) + to.1 - from.1 }
    }
    /// Index of the first element of `extent` in a buffer whose window shows it.
    #[inline]
    pub fn start_in(&self, buffer: Buffer, extent: &Extent, sizes: &(impl Sizes + ?Sized)) -> u64 {
        let (block, within) = self.cut(extent.lo, extent.of, sizes);
        let window = self.window(buffer);
        window.position(block).map_or(0, |position| sizes.before(window, position)) + within
    }
    /// How many elements a buffer holds.
    pub fn len_in(&self, buffer: Buffer, sizes: &(impl Sizes + ?Sized)) -> u64 {
        let window = self.window(buffer);
        sizes.before(window, window.len())
    }
    /// The elements of `extent`, counted from the start of the vector.
    pub fn elements(&self, extent: &Extent, sizes: &(impl Sizes + ?Sized)) -> Range<u64> {
        let at = |i: u32| {
            let (block, within) = self.cut(i, extent.of, sizes);
            sizes.sum(0, block) + within
        };
        at(extent.lo)..at(extent.hi)
    }

    /// Where bound `i` of `of` lies: the block, and the element in it.
    #[inline]
    fn cut(&self, i: u32, of: u32, sizes: &(impl Sizes + ?Sized)) -> (u32, u64) {
        if i == 0 {
            return (0, 0);
        } else if i == of {
            return (self.blocks, 0);
        }
        let parts = of / self.blocks;
        let (block, part) = (i / parts, i % parts);
        if part == 0 {
            return (block, 0);
        }
        let size = sizes.of(block);
        let exact = (u128::from(size) * u128::from(part) / u128::from(parts)) as u64;
        (block, exact & !(grain(size, self.parts) - 1))
    }
}

/// What bounds inside a block of `size` elements are rounded down to a multiple of, when it is cut into up to `parts`
/// parts: a power of two, so that no two ranks write one cache line when parts are large enough for that to matter.
#[inline]
pub fn grain(size: u64, parts: u32) -> u64 {
    if size >= u64::from(parts) * 256 { 64 } else { 1 }
}
