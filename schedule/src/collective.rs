//! What the ranks compute together: who starts with what, and who must end with what.

use std::fmt;

use crate::program::Rank;
use crate::vector::Window;

/// A collective operation.
///
/// | collective | blocks of the vector | input of rank r | output of rank r | value of a block |
/// |---|---|---|---|---|
/// | all_reduce | 1 | all | all | reduction of all inputs |
/// | reduce | 1 | all | root: all | reduction of all inputs |
/// | reduce_scatter | n | all | block r | reduction of all inputs |
/// | broadcast | 1 | root: all | all | the root's |
/// | scatter | n | root: all | block r | the root's |
/// | gather | n | block r | root: all | block b: rank b's |
/// | all_gather | n | block r | all | block b: rank b's |
/// | all_to_all | n² | row r: blocks rn to rn+n-1 | column r: blocks r, n+r, 2n+r, … | block sn+d: rank s's |
///
/// Blocks have the same number of elements, or each its own where [`Sizes`](crate::Sizes) say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Collective {
    /// Every rank's output is the reduction of all ranks' inputs.
    AllReduce,
    /// The root's output is the reduction of all ranks' inputs.
    Reduce {
        /// The rank that gets it.
        root: Rank,
    },
    /// Rank r's output is block r of the reduction of all ranks' inputs.
    ReduceScatter,
    /// Every rank's output is the root's input.
    Broadcast {
        /// The rank whose input is shared.
        root: Rank,
    },
    /// Rank r's output is block r of the root's input.
    Scatter {
        /// The rank whose input is dealt.
        root: Rank,
    },
    /// The root's output is all ranks' inputs, in order of rank.
    Gather {
        /// The rank that gets them.
        root: Rank,
    },
    /// Every rank's output is all ranks' inputs, in order of rank.
    AllGather,
    /// Block s of rank d's output is block d of rank s's input.
    AllToAll,
}

impl Collective {
    /// The collectives, those with a root with rank 0.
    pub const ALL: [Collective; 8] = [
        Collective::AllReduce,
        Collective::Reduce { root: 0 },
        Collective::ReduceScatter,
        Collective::Broadcast { root: 0 },
        Collective::Scatter { root: 0 },
        Collective::Gather { root: 0 },
        Collective::AllGather,
        Collective::AllToAll,
    ];

    /// The name, as the command line spells it.
    pub fn word(&self) -> &'static str {
        match self {
            Collective::AllReduce => "all_reduce",
            Collective::Reduce { .. } => "reduce",
            Collective::ReduceScatter => "reduce_scatter",
            Collective::Broadcast { .. } => "broadcast",
            Collective::Scatter { .. } => "scatter",
            Collective::Gather { .. } => "gather",
            Collective::AllGather => "all_gather",
            Collective::AllToAll => "all_to_all",
        }
    }

    /// The root, where there is one.
    #[inline]
    pub fn root(&self) -> Option<Rank> {
        match *self {
            Collective::Reduce { root }
            | Collective::Broadcast { root }
            | Collective::Scatter { root }
            | Collective::Gather { root } => Some(root),
            _ => None,
        }
    }

    /// The same collective with this root, where it has one.
    pub fn with_root(self, root: Rank) -> Collective {
        match self {
            Collective::Reduce { .. } => Collective::Reduce { root },
            Collective::Broadcast { .. } => Collective::Broadcast { root },
            Collective::Scatter { .. } => Collective::Scatter { root },
            Collective::Gather { .. } => Collective::Gather { root },
            other => other,
        }
    }

    /// Whether operands are reduced.
    #[inline]
    pub fn reduces(&self) -> bool {
        matches!(self, Collective::AllReduce | Collective::Reduce { .. } | Collective::ReduceScatter)
    }

    /// Whether there is a form in place, where input and output are one memory: each element that a rank's input and
    /// output both show lies at one address. Whichever of the two shows less then lies inside the other: in all_gather
    /// the input is block r of the output, in reduce_scatter the output block r of the input.
    ///
    /// All_to_all has none: the two share block r of row r only, and what would have to be at the addresses of the
    /// others differs.
    pub fn has_in_place_form(&self) -> bool {
        !matches!(self, Collective::AllToAll)
    }

    /// Into how many blocks the call's vector falls.
    ///
    /// # Panics
    /// For all_to_all of more than 65,535 ranks, whose blocks 32 bits do not count.
    pub fn blocks(&self, ranks: u32) -> u32 {
        match self {
            Collective::AllReduce | Collective::Reduce { .. } | Collective::Broadcast { .. } => 1,
            Collective::ReduceScatter
            | Collective::Scatter { .. }
            | Collective::Gather { .. }
            | Collective::AllGather => ranks,
            Collective::AllToAll => ranks.checked_mul(ranks).expect("at most 65,535 ranks"),
        }
    }

    /// What a rank's input shows of the vector.
    #[inline]
    pub fn input(&self, rank: Rank, ranks: u32) -> Window {
        match *self {
            Collective::AllReduce | Collective::Reduce { .. } => Window::block(0),
            Collective::ReduceScatter => Window::blocks(0, ranks),
            Collective::Broadcast { root } | Collective::Scatter { root } if rank == root => {
                Window::blocks(0, self.blocks(ranks))
            }
            Collective::Broadcast { .. } | Collective::Scatter { .. } => Window::NONE,
            Collective::Gather { .. } | Collective::AllGather => Window::block(rank),
            Collective::AllToAll => Window::blocks(rank * ranks, ranks),
        }
    }

    /// What a rank's output shows of the vector.
    #[inline]
    pub fn output(&self, rank: Rank, ranks: u32) -> Window {
        match *self {
            Collective::AllReduce | Collective::Broadcast { .. } => Window::block(0),
            Collective::Reduce { root } | Collective::Gather { root } if rank == root => {
                Window::blocks(0, self.blocks(ranks))
            }
            Collective::Reduce { .. } | Collective::Gather { .. } => Window::NONE,
            Collective::ReduceScatter | Collective::Scatter { .. } => Window::block(rank),
            Collective::AllGather => Window::blocks(0, ranks),
            Collective::AllToAll => Window::Run { first: rank, step: ranks, len: ranks },
        }
    }

    /// The one rank whose input a block is; `None` if it is the reduction of all ranks' inputs.
    pub fn source(&self, block: u32, ranks: u32) -> Option<Rank> {
        match *self {
            Collective::AllReduce | Collective::Reduce { .. } | Collective::ReduceScatter => None,
            Collective::Broadcast { root } | Collective::Scatter { root } => Some(root),
            Collective::Gather { .. } | Collective::AllGather => Some(block),
            Collective::AllToAll => Some(block / ranks),
        }
    }
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Collective::Reduce { root } | Collective::Gather { root } => write!(f, " to rank {root}"),
            Collective::Broadcast { root } | Collective::Scatter { root } => {
                write!(f, " from rank {root}")
            }
            _ => Ok(()),
        }
    }
}
