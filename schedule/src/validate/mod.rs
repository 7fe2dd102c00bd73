//! Proves programs right by symbolic execution, for every interleaving that links and engine allow.
//!
//! [`validate`] takes the programs of all ranks and shows, or says with rank, operation and element why not:
//!
//! 1. **Wiring** (`wiring`): every message that is sent is received, over the same elements; operations are well
//!    formed, and buffers hold the blocks that these touch.
//! 2. **Values** (`values`): every element of every output holds exactly the contributions that it must, each once,
//!    finished once, by the same expression on every rank, operands in the same order: the bits agree.
//! 3. **Freedom from races** (`races`): any two accesses of one element of one rank's memory, at least one of them a
//!    write, are ordered by what must happen first. In place, input and output are one memory: an element that both show
//!    is there once.
//! 4. **Progress** (`progress`): the programs never get stuck, with the call cut into chunks and as little buffered as
//!    the link model allows.
//!
//! # Why one execution stands for all
//!
//! An element has one index in the call's [vector](crate::vector), and every buffer is a window on that, so an element
//! only ever meets the element of the same index, wherever it lies in memory. Between two neighbouring bounds of any
//! extent or block (a *segment*) all elements are treated alike, and because the rounding of [`Extent`](crate::Extent)
//! is monotone in every block, every element of a call lies in the segment that its fraction of its block says. So steps
//! 2 and 3 look at one element for each segment, and what they prove holds **for blocks of any sizes and every
//! chunking**; only step 4 depends on sizes and `chunk`.
//!
//! For one element, an operation X has five events:
//!
//! ```text
//! G  its dependencies have ended, and it may grant its memory to peers
//! R  it has read all its operands
//! O  its value is stored in `copy_to`
//! V  its value is published to its receivers, or copied into their slots
//! E  it has ended
//!
//! G → R → O → E     V → E     V(X) → R(Y) for each receiver Y     E(A) → G(X) for each A that X is after
//! O → V, or G → V if the value simply lies in `reduce_with` (nothing is received)
//! R(Y) → E(X) for each receiver Y of X, unless sends are snapshots: then V is the copy into a slot
//! ```
//!
//! and accesses memory as follows:
//!
//! | access | not before | over at |
//! |---|---|---|
//! | read of `reduce_with`, if the value is computed | G | R |
//! | read of `reduce_with`, if the value simply lies there | G | R if it is copied; each receiver's R (snapshot: V) |
//! | write of `copy_to` by an operation that only receives: the sender may do it | G and the sender's R (or G if its value lies there) | O |
//! | write of `copy_to` by any other operation | R, or G if nothing is computed | O |
//! | read of `copy_to` for receivers of the value | O | each receiver's R (snapshot: V; E if the value lies in `reduce_with`) |
//!
//! If for any two conflicting accesses one is over before the other may begin, all executions give the values that one
//! of them gives, whatever the order of what is not ordered. Orders that edges and slots add are not counted on, nor is
//! an `after` of an operation that does not cover the element. That can only reject too much.
//!
//! # Why greedy execution decides about progress
//!
//! An operation *takes* a chunk when its dependencies have ended and every operand's chunk is at the head of its edge;
//! it *sends* the chunk when the edges to all its targets are open to it. If the value is kept (`copy_to`) or lies in
//! memory anyway (nothing received), sending may lag behind taking: the engine sends from memory later. If not, a chunk
//! is only taken when it can be sent on at once.
//!
//! Only the operation itself uses up what its conditions wait for: the head of an edge belongs to one message, and a
//! slot freed there can be filled by that message only. So a step never takes away another's, all maximal executions
//! end in the same state, and one greedy execution shows whether it is the end. The conditions are the strictest that
//! an engine may have: all operands and all targets together, and only the first unfinished message of an edge moves.
//! An engine that does more at a time (it opens up to 32 messages of an edge in program order, takes operands as they
//! come, fills slots of several targets one by one) can take every step that this execution takes, so it does not get
//! stuck either. An engine that does less, one that takes a chunk only when it can also send it although the value is
//! kept, does get stuck in rings and in direct all_reduce: there every rank sends before it takes.

mod expressions;
mod holders;
mod progress;
mod races;
mod segments;
mod values;
mod violation;
mod wiring;

use crate::collective::Collective;
use crate::program::Program;
use crate::vector::Sizes;
use progress::Progress;
use segments::Segments;
use wiring::Wiring;

pub use violation::{Fault, Violation, Wait};

/// What a link between two ranks promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Model {
    /// A chunk is copied into one of the edge's slots; the send of it has ended then, and may so run ahead of its
    /// receiver by that many chunks.
    Snapshot {
        /// Slots per edge, at least 1.
        slots: u32,
    },
    /// Nothing is buffered on an edge: a send and its receive move together.
    Rendezvous,
    /// Memory is mapped by the peer, which may read a source any time from the grant to its release of it, and write a
    /// destination any time from the grant to the end. What it asks of programs is what [`Model::Rendezvous`] asks: a
    /// source may be needed until the receiver takes it, a destination may be written as soon as both ends are there.
    Shared,
}

impl Model {
    /// Whether a send has ended before its receiver has taken it.
    fn buffers(self) -> bool {
        matches!(self, Model::Snapshot { .. })
    }
    fn slots(self) -> Option<u32> {
        match self {
            Model::Snapshot { slots } => Some(slots.max(1)),
            _ => None,
        }
    }
}

/// Proves that `programs` (of rank 0, 1, …, of one call) compute `collective`: see the [module](self).
///
/// Every block has `count` elements, and a chunk up to `chunk` (0 counts as 1); both matter for progress only.
/// `in_place` makes input and output one memory, as [`Collective::has_in_place_form`] says.
///
/// # Errors
/// The first [`Violation`] found, with the rank, the operation and the element that it is about. A program may be
/// rejected although it is right: whatever is not proven is rejected.
pub fn validate(
    programs: &[Program],
    collective: &Collective,
    count: u64,
    chunk: u64,
    model: Model,
    in_place: bool,
) -> Result<(), Violation> {
    let proof = Validator::new(programs)?;
    let locate = |violation: Violation| violation.locate(&programs[0], count);
    proof.values(collective, model, in_place).map_err(locate)?;
    proof.progress(&count, chunk, model)
}

/// [`validate`] in its three parts, for who asks about one set of programs often: values and races once for all counts
/// and chunkings, progress for each.
pub struct Validator<'a> {
    wiring: Wiring<'a>,
    segments: Segments,
}

impl<'a> Validator<'a> {
    /// Checks the wiring.
    ///
    /// # Errors
    /// A [`Violation`] if an operation is malformed, or a message has no counterpart or another extent there.
    pub fn new(programs: &'a [Program]) -> Result<Validator<'a>, Violation> {
        let wiring = Wiring::of(programs)?;
        let segments = Segments::of(&wiring)?;
        Ok(Validator { wiring, segments })
    }

    /// Proves values and freedom from races, for every count and chunking.
    ///
    /// # Errors
    /// A [`Violation`] whose element, if it has one, is still a fraction of the vector: [`Violation::locate`] it.
    pub fn values(&self, collective: &Collective, model: Model, in_place: bool) -> Result<(), Violation> {
        values::check(&self.wiring, &self.segments, collective, model, in_place)
    }

    /// Proves progress for a call with blocks of these sizes in chunks of up to `chunk` (0 counts as 1).
    ///
    /// # Errors
    /// A [`Violation`] that names an operation that waits for ever, and for what.
    pub fn progress(&self, sizes: &(impl Sizes + ?Sized), chunk: u64, model: Model) -> Result<(), Violation> {
        Progress::new(&self.wiring, sizes, chunk, model).run()
    }
}
