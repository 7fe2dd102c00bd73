//! Why programs were rejected.

use std::fmt;

use crate::program::{Buffer, Extent, Program, Rank};

/// What is wrong with the programs, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rank whose program or output is wrong.
    pub rank: Rank,
    /// The operation of that program; `None` if it is about the program as a whole.
    pub op: Option<u32>,
    /// The first element that it is about, counted from the start of the call's vector; `None` if it is not about
    /// elements, or none of a call of this count.
    pub element: Option<u64>,
    /// The elements that it is about, as bounds `(i, of)` that round as an extent's do.
    pub part: Option<[(u32, u32); 2]>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong; see [`Violation`] for where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The operation or the program makes no sense by itself.
    Malformed(&'static str),
    /// The message has no counterpart: the peer has fewer operations on this edge.
    Unmatched {
        /// The rank at the other end.
        peer: Rank,
        /// Whether the peer should have sent it; else it should have received it.
        peer_sends: bool,
        /// The message's number on its edge.
        message: u32,
    },
    /// The two ends of a message cover different elements.
    Extents {
        /// The rank that receives it.
        peer: Rank,
        /// The operation there.
        peer_op: u32,
    },
    /// The programs rely on snapshots, and the link takes none.
    NeedsSnapshot,
    /// The collective has no form in place.
    NoInPlaceForm,
    /// A buffer is read where nothing was written.
    Unwritten(Buffer),
    /// Nothing orders this access and that of another operation of this rank, one of which is a write.
    Race {
        /// The other operation.
        other: u32,
        /// The buffer; in place the input is called output.
        buffer: Buffer,
    },
    /// The operation can only happen after itself.
    Circular,
    /// The operation waits for ever.
    Stuck {
        /// The chunk that it is at.
        chunk: u64,
        /// What it waits for.
        wait: Wait,
    },
    /// The output lacks contributions, or has some more than once.
    Contributions {
        /// Ranks whose operands are missing.
        missing: Vec<Rank>,
        /// Ranks whose operands it should not have, or not again.
        surplus: Vec<Rank>,
    },
    /// The value was never finished, more than once, before it was complete, or in a collective that has no operator.
    Finish(&'static str),
    /// The output has the right contributions, combined in another order than on the other rank.
    Bits {
        /// The rank that it was compared with.
        other: Rank,
    },
}

/// What an operation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// An earlier operation of its program.
    After(u32),
    /// The message of an operation of another rank.
    Receive(Rank, u32),
    /// That an operation of another rank takes its message, or the messages before it.
    Send(Rank, u32),
}

impl Violation {
    pub(super) fn at(rank: Rank, op: u32, fault: Fault) -> Violation {
        Violation { rank, op: Some(op), element: None, part: None, fault }
    }

    pub(super) fn of_program(rank: Rank, fault: Fault) -> Violation {
        Violation { rank, op: None, element: None, part: None, fault }
    }

    /// Says which element this is about in a call with `count` elements a block that runs programs like this one.
    pub fn locate(mut self, program: &Program, count: u64) -> Violation {
        if let Some(part) = self.part {
            let [lo, hi] = part.map(|(i, of)| program.elements(&Extent::parts(i, of, of), &count).start);
            self.element = (lo < hi).then_some(lo);
        }
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        if let Some(op) = self.op {
            write!(f, " op #{op}")?;
        }
        match (self.element, self.part) {
            (Some(element), _) => write!(f, " element {element}")?,
            (None, Some([(i, of), (j, of_j)])) => write!(f, " elements {i}/{of}..{j}/{of_j}")?,
            _ => {}
        }
        write!(f, ": {}", self.fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(what) => f.write_str(what),
            Fault::Unmatched { peer, peer_sends: true, message } => {
                write!(f, "receives message {message} from rank {peer}, which never sends it")
            }
            Fault::Unmatched { peer, peer_sends: false, message } => {
                write!(f, "sends message {message} to rank {peer}, which never receives it")
            }
            Fault::Extents { peer, peer_op } => {
                write!(f, "sends other elements than rank {peer} receives in its op #{peer_op}")
            }
            Fault::NeedsSnapshot => {
                f.write_str("the programs need sends that are snapshots, and the link takes none")
            }
            Fault::NoInPlaceForm => f.write_str("the collective has no form in place"),
            Fault::Unwritten(buffer) => write!(f, "{buffer} is read, but nothing was written there"),
            Fault::Race { other, buffer } => {
                write!(
                    f,
                    "nothing orders its access of {buffer} and that of op #{other}, and one of them writes"
                )
            }
            Fault::Circular => f.write_str("waits, over other operations, for itself"),
            Fault::Stuck { chunk, wait } => write!(f, "is stuck at chunk {chunk}, waiting {wait}"),
            Fault::Contributions { missing, surplus } => {
                f.write_str("the output ")?;
                let ranks = |ranks: &[Rank]| {
                    let first = ranks.iter().take(8).map(Rank::to_string).collect::<Vec<_>>().join(", ");
                    let rest = ranks.len().saturating_sub(8);
                    if rest > 0 { format!("{first} and {rest} more") } else { first }
                };
                if !missing.is_empty() {
                    write!(f, "lacks the operand of rank {}", ranks(missing))?;
                }
                if !surplus.is_empty() {
                    let and = if missing.is_empty() { "" } else { " and " };
                    write!(f, "{and}has too often that of rank {}", ranks(surplus))?;
                }
                Ok(())
            }
            Fault::Finish(what) => f.write_str(what),
            Fault::Bits { other } => {
                write!(f, "the output combines its operands in another order than on rank {other}")
            }
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::After(op) => write!(f, "for op #{op} to end"),
            Wait::Receive(rank, op) => write!(f, "for the message of rank {rank} op #{op}"),
            Wait::Send(rank, op) => write!(f, "for rank {rank} to take what comes up to its op #{op}"),
        }
    }
}

impl std::error::Error for Violation {}
