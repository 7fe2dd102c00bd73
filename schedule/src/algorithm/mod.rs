//! The algorithms: pure functions from (rank, collective, layout, channels) to that rank's [`Program`].
//!
//! `n` is the number of ranks, `B` the bytes of the call, `L` the smallest number of ranks on a host, `H` the number
//! of hosts. *Steps* counts the messages that follow one another before the last rank is done (each of them cut into
//! chunks that overlap); *sent* is what the busiest rank sends, where a fan-out counts once per target.
//!
//! | algorithm | collective | steps | sent by the busiest rank | scratch | source |
//! |---|---|---|---|---|---|
//! | [ring](Algorithm::Ring) | all_reduce | 2(n-1) | 2B(n-1)/n | 0 | Patarasuk, Yuan 2009 |
//! | [tree](Algorithm::Tree) | all_reduce | 2⌈log₂ n⌉+2 | about 2B | 0 | Sanders, Speck, Träff 2009 |
//! | [doubling](Algorithm::RecursiveDoubling) | all_reduce | ⌈log₂ n⌉+1 | B⌈log₂ n⌉ | 2B | Thakur, Rabenseifner, Gropp 2005 |
//! | [halving](Algorithm::HalvingDoubling) | all_reduce | 2⌈log₂ n⌉+2 | 2B(n-1)/n, folded 3B | 0 | Rabenseifner 2004; Thakur et al. 2005 |
//! | [direct](Algorithm::Direct) | all_reduce | 2 | 2B(n-1)/n | 0 | reduce_scatter and all_gather in one step each |
//! | [exchange](Algorithm::Exchange) | all_reduce | 1 | B(n-1) | 0 | all to all, for latency |
//! | [hierarchical](Algorithm::Hierarchical) | all_reduce | 2H | in a host 2B(L-1)/L, between hosts 2B(H-1)/(HL) | 0 | ring across hosts of direct in the host |
//! | [chain](Algorithm::Chain) | broadcast | n-1 | B | 0 | pipelined chain |
//! | [binomial](Algorithm::Binomial) | broadcast | ⌈log₂ n⌉ | B⌈log₂ n⌉ | 0 | Thakur et al. 2005 |
//! | [pipelined_tree](Algorithm::PipelinedTree) | broadcast | ⌈log₂ n⌉+1 | B | 0 | Sanders, Speck, Träff 2009 |
//! | [scatter_allgather](Algorithm::ScatterAllGather) | broadcast | 2 | B | 0 | van de Geijn's, with one-step phases |
//!
//! Bits are the same on all ranks in every algorithm: all but doubling and exchange compute each element of the
//! result once and pass it on; doubling and exchange compute it in several places, always from the same operands in
//! the same order.
//!
//! No algorithm but exchange needs its sends to be snapshots: each is right in place and out of place, on links that
//! buffer and on mapped memory that the peer reads late and writes early. Where nothing but causality keeps a late
//! read apart from an early write (a ring's result can only come back to a rank after its operand was read), there is
//! no `after`; the validator proves these chains.

mod binomial;
mod chain;
mod direct;
mod doubling;
mod exchange;
mod halving;
mod hierarchical;
mod order;
mod pipelined_tree;
mod ring;
mod scatter_allgather;
mod tree;

use std::fmt;
use std::str::FromStr;

use crate::program::{Buffer, Extent, Layout, Op, Program, Rank};

/// What the ranks compute together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Collective {
    /// Every rank's output is the reduction of all ranks' inputs.
    AllReduce,
    /// Every rank's output is the root's input; the other inputs are not looked at.
    Broadcast {
        /// The rank whose input is shared.
        root: Rank,
    },
}

impl Collective {
    /// The name, as the command line spells it.
    pub fn word(&self) -> &'static str {
        match self {
            Collective::AllReduce => "all_reduce",
            Collective::Broadcast { .. } => "broadcast",
        }
    }
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Collective::AllReduce => f.write_str("all_reduce"),
            Collective::Broadcast { root } => write!(f, "broadcast from rank {root}"),
        }
    }
}

/// How the ranks do it; the [module](self) compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// all_reduce: slices travel once around the ring to be reduced and once to be shared.
    Ring,
    /// all_reduce: up and down two binary trees, each with half of the elements.
    Tree,
    /// all_reduce: the whole array to partners at distance 1, 2, 4, …
    RecursiveDoubling,
    /// all_reduce: halves, quarters, … to partners at distance 1, 2, 4, …, and back.
    HalvingDoubling,
    /// all_reduce: each rank reduces one slice from everybody and hands it to everybody.
    Direct,
    /// all_reduce: everybody sends everything to everybody.
    Exchange,
    /// all_reduce: direct in a host, a ring per slice across hosts.
    Hierarchical,
    /// broadcast: from neighbour to neighbour.
    Chain,
    /// broadcast: the number of ranks that have it doubles in each step.
    Binomial,
    /// broadcast: down two binary trees, each with half of the elements.
    PipelinedTree,
    /// broadcast: the root deals slices, the others share them.
    ScatterAllGather,
}

const ALL_REDUCE: &[Algorithm] = &[
    Algorithm::Ring,
    Algorithm::Tree,
    Algorithm::RecursiveDoubling,
    Algorithm::HalvingDoubling,
    Algorithm::Direct,
    Algorithm::Exchange,
    Algorithm::Hierarchical,
];

const BROADCAST: &[Algorithm] =
    &[Algorithm::Chain, Algorithm::Binomial, Algorithm::PipelinedTree, Algorithm::ScatterAllGather];

impl Algorithm {
    /// The algorithms that compute `collective`.
    pub fn for_collective(collective: &Collective) -> &'static [Algorithm] {
        match collective {
            Collective::AllReduce => ALL_REDUCE,
            Collective::Broadcast { .. } => BROADCAST,
        }
    }

    /// The name, as settings and the command line spell it.
    pub fn word(&self) -> &'static str {
        match self {
            Algorithm::Ring => "ring",
            Algorithm::Tree => "tree",
            Algorithm::RecursiveDoubling => "doubling",
            Algorithm::HalvingDoubling => "halving",
            Algorithm::Direct => "direct",
            Algorithm::Exchange => "exchange",
            Algorithm::Hierarchical => "hierarchical",
            Algorithm::Chain => "chain",
            Algorithm::Binomial => "binomial",
            Algorithm::PipelinedTree => "pipelined_tree",
            Algorithm::ScatterAllGather => "scatter_allgather",
        }
    }

    /// The algorithm of `collective` that `word` names.
    ///
    /// # Errors
    /// [`UnknownAlgorithm`] when no algorithm of that collective has this name; it lists those that there are.
    pub fn parse(word: &str, collective: &Collective) -> Result<Algorithm, UnknownAlgorithm> {
        Algorithm::for_collective(collective)
            .iter()
            .copied()
            .find(|a| a.word() == word)
            .ok_or_else(|| UnknownAlgorithm { word: word.into(), collective: Some(*collective) })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;
    fn from_str(word: &str) -> Result<Algorithm, UnknownAlgorithm> {
        ALL_REDUCE
            .iter()
            .chain(BROADCAST)
            .copied()
            .find(|a| a.word() == word)
            .ok_or_else(|| UnknownAlgorithm { word: word.into(), collective: None })
    }
}

/// A word that names no algorithm, of one collective or of any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAlgorithm {
    /// The word.
    pub word: String,
    /// The collective whose algorithms were looked through; `None`: all.
    pub collective: Option<Collective>,
}

impl fmt::Display for UnknownAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |list: &[Algorithm]| list.iter().map(Algorithm::word).collect::<Vec<_>>().join(", ");
        write!(f, "no algorithm ")?;
        if let Some(collective) = &self.collective {
            write!(f, "of {} ", collective.word())?;
        }
        write!(f, "is called {:?}; there are ", self.word)?;
        match &self.collective {
            Some(collective) => f.write_str(&words(Algorithm::for_collective(collective))),
            None => write!(f, "{} for all_reduce, {} for broadcast", words(ALL_REDUCE), words(BROADCAST)),
        }
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// What `rank` does when the ranks of `layout` run `collective` by `algorithm`.
///
/// `channels` (0 counts as 1) is how many parallel edges two ranks have. The ring deals the elements to all of them;
/// the two double trees put one tree on each of two; the others use channel 0 only.
///
/// # Panics
/// If `rank` or the root is not a rank of `layout`, or if `algorithm` is none of
/// [`Algorithm::for_collective`]`(collective)`.
pub fn program(
    algorithm: Algorithm,
    collective: &Collective,
    rank: Rank,
    layout: &Layout,
    channels: u8,
) -> Program {
    let ranks = layout.ranks();
    assert!(rank < ranks, "rank {rank} is not one of {ranks}");
    assert!(
        Algorithm::for_collective(collective).contains(&algorithm),
        "{algorithm} does not compute {collective}"
    );
    let channels = channels.max(1);
    match *collective {
        Collective::AllReduce if ranks == 1 => alone(true),
        Collective::AllReduce => match algorithm {
            Algorithm::Ring => ring::all_reduce(rank, layout, channels),
            Algorithm::Tree => tree::all_reduce(rank, layout, channels),
            Algorithm::RecursiveDoubling => doubling::all_reduce(rank, ranks),
            Algorithm::HalvingDoubling => halving::all_reduce(rank, ranks),
            Algorithm::Direct => direct::all_reduce(rank, ranks),
            Algorithm::Exchange => exchange::all_reduce(rank, ranks),
            Algorithm::Hierarchical => hierarchical::all_reduce(rank, layout),
            _ => unreachable!("checked above"),
        },
        Collective::Broadcast { root } => {
            assert!(root < ranks, "root {root} is not one of {ranks} ranks");
            match algorithm {
                _ if ranks == 1 => alone(false),
                Algorithm::Chain => chain::broadcast(rank, root, layout),
                Algorithm::Binomial => binomial::broadcast(rank, root, layout),
                Algorithm::PipelinedTree => pipelined_tree::broadcast(rank, root, layout, channels),
                Algorithm::ScatterAllGather => scatter_allgather::broadcast(rank, root, ranks),
                _ => unreachable!("checked above"),
            }
        }
    }
}

/// The programs of all ranks, in order of rank: see [`program`].
pub fn programs(
    algorithm: Algorithm,
    collective: &Collective,
    layout: &Layout,
    channels: u8,
) -> Vec<Program> {
    (0..layout.ranks()).map(|rank| program(algorithm, collective, rank, layout, channels)).collect()
}

/// The only rank keeps its input; a reduction still has an end to apply.
fn alone(reduces: bool) -> Program {
    let mut program = Program::new(0, 1, 1);
    let op = keep_input();
    program.push(if reduces { op.finish() } else { op });
    program
}

/// Input to output, which the engine passes over when the call is in place.
fn keep_input() -> Op {
    Op::over(Extent::ALL).reduce_with(Buffer::INPUT).copy_to(Buffer::OUTPUT)
}
