//! The algorithms: pure functions from (rank, collective, layout, channels) to that rank's [`Program`].
//!
//! `n` is the number of ranks, `B` the bytes of the larger of a rank's two buffers (the root's, where there is one), `L`
//! the smallest number of ranks on a host, `H` the number of hosts. *Steps* counts the messages that follow one another
//! before the last rank is done (each of them cut into chunks that overlap); *traffic* is what the busiest rank sends, or
//! receives where that is more, and a fan-out counts once per target; *scratch* is memory of the engine.
//!
//! | collective | algorithm | steps | traffic | scratch | source |
//! |---|---|---|---|---|---|
//! | all_reduce | [ring](Algorithm::Ring) | 2(n-1) | 2B(n-1)/n | 0 | Patarasuk, Yuan 2009 |
//! | | [tree](Algorithm::Tree) | 2⌈log₂ n⌉+2 | about 2B | 0 | Sanders, Speck, Träff 2009 |
//! | | [doubling](Algorithm::RecursiveDoubling) | ⌈log₂ n⌉+1 | B⌈log₂ n⌉ | 2B | Thakur, Rabenseifner, Gropp 2005 |
//! | | [halving](Algorithm::HalvingDoubling) | 2⌈log₂ n⌉+2 | 2B(n-1)/n, folded 3B | 0 | Rabenseifner 2004; Thakur et al. 2005 |
//! | | [direct](Algorithm::Direct) | 2 | 2B(n-1)/n | 0 | reduce_scatter and all_gather in one step each |
//! | | [exchange](Algorithm::Exchange) | 1 | B(n-1) | 0 | all to all, for latency |
//! | | [hierarchical](Algorithm::Hierarchical) | 2H | in a host 2B(L-1)/L, between hosts 2B(H-1)/(HL) | 0 | ring across hosts of direct in the host |
//! | | [hierarchical_halving](Algorithm::HierarchicalHalving) | 2⌈log₂ H⌉+2 | in a host 2B(L-1)/L, between hosts 2B(H-1)/(HL), folded 3B/L | 0 | halving across hosts of direct in the host |
//! | reduce | [direct](Algorithm::Direct) | 1 | B(n-1) | 0 | the root reduces everything in one pass |
//! | | [binomial](Algorithm::Binomial) | ⌈log₂ n⌉ | B⌈log₂ n⌉ | 0 | Thakur et al. 2005 |
//! | | [chain](Algorithm::Chain) | n-1 | B | 0 | pipelined chain |
//! | | [pipelined_tree](Algorithm::PipelinedTree) | ⌈log₂ n⌉+1 | about B | 0 | Sanders, Speck, Träff 2009 |
//! | | [reduce_gather](Algorithm::ReduceGather) | 2 | 2B(n-1)/n | 0 | Rabenseifner 2004, with one-step phases |
//! | broadcast | [direct](Algorithm::Direct) | 1 | B(n-1) | 0 | the root sends everything to everybody |
//! | | [chain](Algorithm::Chain) | n-1 | B | 0 | pipelined chain |
//! | | [binomial](Algorithm::Binomial) | ⌈log₂ n⌉ | B⌈log₂ n⌉ | 0 | Thakur et al. 2005 |
//! | | [pipelined_tree](Algorithm::PipelinedTree) | ⌈log₂ n⌉+1 | B | 0 | Sanders, Speck, Träff 2009 |
//! | | [scatter_allgather](Algorithm::ScatterAllGather) | 2 | B | 0 | van de Geijn's, with one-step phases |
//! | reduce_scatter | [ring](Algorithm::Ring) | n-1 | B(n-1)/n | B | Patarasuk, Yuan 2009 |
//! | | [bruck](Algorithm::Bruck) | ⌈log₂ n⌉ | B(n-1)/n | B | Bruck's all_gather run backwards |
//! | | [direct](Algorithm::Direct) | 1 | B(n-1)/n | 0 | every rank reduces its block in one pass |
//! | | [hierarchical](Algorithm::Hierarchical) | 2 | in a host B(L-1)/L, between hosts B(H-1)/(HL) | B(H-1)/(HL) | direct between hosts of direct in the host |
//! | all_gather | [ring](Algorithm::Ring) | n-1 | B(n-1)/n | 0 | Patarasuk, Yuan 2009 |
//! | | [bruck](Algorithm::Bruck) | ⌈log₂ n⌉ | B(n-1)/n | 0 | Bruck et al. 1997 |
//! | | [direct](Algorithm::Direct) | 1 | B(n-1)/n | 0 | every block straight to everybody |
//! | | [hierarchical](Algorithm::Hierarchical) | 2 | in a host B(L-1)/L, between hosts B(H-1)/(HL) | 0 | direct between hosts of direct in the host |
//! | scatter, gather | [direct](Algorithm::Direct) | 1 | B(n-1)/n | 0 | all blocks at once |
//! | | [binomial](Algorithm::Binomial) | ⌈log₂ n⌉ | B(n-1)/n | up to B/2, root 0 | Thakur et al. 2005 |
//! | | [pairwise](Algorithm::Pairwise) | n-1 | B(n-1)/n | 0 | one block after the other |
//! | all_to_all | [direct](Algorithm::Direct) | 1 | B(n-1)/n | 0 | all blocks at once |
//! | | [bruck](Algorithm::Bruck) | ⌈log₂ n⌉ | about B⌈log₂ n⌉/2 | about B⌈log₂ n⌉/2 | Bruck et al. 1997 |
//! | | [pairwise](Algorithm::Pairwise) | n-1 | B(n-1)/n | 0 | Thakur et al. 2005 |
//! | | [hierarchical](Algorithm::Hierarchical) | 2 | in a host B(L-1)/L, between hosts B(H-1)/H, in H-1 messages | B(H-1)/H | direct between hosts, dealt out in the host |
//!
//! The figures of hierarchical algorithms are for hosts of `L` ranks each.
//!
//! Where several ranks get an element, it has the same bits on all of them: all algorithms but doubling and exchange
//! compute each element of the result once and pass it on; doubling and exchange compute it in several places, always
//! from the same operands in the same order.
//!
//! No algorithm but exchange needs its sends to be snapshots: each is right in place and out of place, on links that
//! buffer and on mapped memory that the peer reads late and writes early. Where nothing but causality keeps a late
//! read apart from an early write (a ring's result can only come back to a rank after its operand was read), there is
//! no `after`; the validator proves these chains.

mod binomial;
mod bruck;
mod chain;
mod direct;
mod doubling;
mod exchange;
mod halving;
mod hierarchical;
mod order;
mod pairwise;
mod pipelined_tree;
mod reduce_gather;
mod ring;
mod scatter_allgather;
mod tree;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use order::Order;
pub use tree::double_tree_parent;

use crate::collective::Collective;
use crate::layout::Layout;
use crate::program::{Buffer, Extent, Op, Program, Rank};

/// How the ranks do it; the [module](self) compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// Slices travel once around the ring to be reduced, once to be shared, or both.
    Ring,
    /// all_reduce: up and down two binary trees, each with half of the elements.
    Tree,
    /// all_reduce: the whole array to partners at distance 1, 2, 4, …
    RecursiveDoubling,
    /// all_reduce: halves, quarters, … to partners at distance 1, 2, 4, …, and back.
    HalvingDoubling,
    /// Every element goes straight from who has it to who wants it.
    Direct,
    /// all_reduce: everybody sends everything to everybody.
    Exchange,
    /// Direct in a host, and what crosses between hosts does so once for each host: a ring per slice in all_reduce, else
    /// straight to one rank there.
    Hierarchical,
    /// broadcast, reduce: from neighbour to neighbour.
    Chain,
    /// What has it, or is reduced, doubles in each step.
    Binomial,
    /// broadcast, reduce: down or up two binary trees, each with half of the elements.
    PipelinedTree,
    /// broadcast: the root deals slices, the others share them.
    ScatterAllGather,
    /// reduce: each rank reduces one slice from everybody and hands it to the root.
    ReduceGather,
    /// Blocks to and from ranks at distance 1, 2, 4, …, for any number of ranks.
    Bruck,
    /// Direct, one peer after the other.
    Pairwise,
    /// all_reduce: direct in a host, and halving and doubling per slice across hosts, for many hosts.
    HierarchicalHalving,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Algorithm; 15] = [
        Algorithm::Ring,
        Algorithm::Tree,
        Algorithm::RecursiveDoubling,
        Algorithm::HalvingDoubling,
        Algorithm::Direct,
        Algorithm::Exchange,
        Algorithm::Hierarchical,
        Algorithm::Chain,
        Algorithm::Binomial,
        Algorithm::PipelinedTree,
        Algorithm::ScatterAllGather,
        Algorithm::ReduceGather,
        Algorithm::Bruck,
        Algorithm::Pairwise,
        Algorithm::HierarchicalHalving,
    ];

    /// The algorithms that compute `collective`.
    pub fn for_collective(collective: &Collective) -> &'static [Algorithm] {
        use Algorithm::*;
        match collective {
            Collective::AllReduce => &[
                Ring,
                Tree,
                RecursiveDoubling,
                HalvingDoubling,
                Direct,
                Exchange,
                Hierarchical,
                HierarchicalHalving,
            ],
            Collective::Reduce { .. } => &[Direct, Binomial, Chain, PipelinedTree, ReduceGather],
            Collective::ReduceScatter | Collective::AllGather => &[Ring, Bruck, Direct, Hierarchical],
            Collective::Broadcast { .. } => &[Direct, Binomial, Chain, PipelinedTree, ScatterAllGather],
            Collective::Scatter { .. } | Collective::Gather { .. } => &[Direct, Binomial, Pairwise],
            Collective::AllToAll => &[Direct, Bruck, Pairwise, Hierarchical],
        }
    }

    /// Whether a rank's program of `collective` touches no blocks but those that its own input or output shows.
    ///
    /// A rank that does not know how many elements the other blocks have can run no other: one of a gather whose counts
    /// vary, say, where all but the root know their own count only. It is true of every algorithm of a collective whose
    /// input or output shows all blocks on every rank.
    pub fn touches_own_blocks_only(&self, collective: &Collective) -> bool {
        match collective {
            Collective::Scatter { .. } | Collective::Gather { .. } | Collective::AllToAll => {
                matches!(self, Algorithm::Direct | Algorithm::Pairwise)
            }
            _ => true,
        }
    }

    /// Whether a reduction combines the operands of all ranks for an element in one operation, and so in ascending order
    /// of rank: the result then depends on the operands alone, not on how the ranks are placed or the call is cut.
    pub fn reduces_in_one_pass(&self) -> bool {
        matches!(self, Algorithm::Direct | Algorithm::Exchange | Algorithm::ReduceGather)
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
            Algorithm::ReduceGather => "reduce_gather",
            Algorithm::Bruck => "bruck",
            Algorithm::Pairwise => "pairwise",
            Algorithm::HierarchicalHalving => "hierarchical_halving",
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
        Algorithm::ALL
            .into_iter()
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
            None => f.write_str(&words(&Algorithm::ALL)),
        }
    }
}

impl std::error::Error for UnknownAlgorithm {}

/// What `rank` does when the ranks of `layout` run `collective` by `algorithm`; [`Family`] makes the programs of many
/// ranks with less work.
///
/// # Panics
/// As [`Family::new`] and [`Family::program`] do.
pub fn program(
    algorithm: Algorithm,
    collective: &Collective,
    rank: Rank,
    layout: &Layout,
    channels: u8,
) -> Program {
    Family::new(algorithm, collective, layout, channels).program(rank)
}

/// The programs of all ranks, in order of rank: see [`Family`].
pub fn programs(
    algorithm: Algorithm,
    collective: &Collective,
    layout: &Layout,
    channels: u8,
) -> Vec<Program> {
    let family = Family::new(algorithm, collective, layout, channels);
    (0..layout.ranks()).map(|rank| family.program(rank)).collect()
}

/// The programs that the ranks of a layout run together, each made when it is asked for. What all of them go by, the
/// order of the ranks or who shares a host, is found once.
pub struct Family {
    algorithm: Algorithm,
    collective: Collective,
    channels: u8,
    ranks: u32,
    way: Way,
}

/// What an algorithm goes by besides rank and number of ranks.
enum Way {
    Alone,
    Ranks,
    Order(Order),
    Hosts { members: Vec<Vec<Rank>>, host: Arc<[u32]> },
}

impl Family {
    /// `channels` (0 counts as 1) is how many parallel edges two ranks have. The ring all_reduce deals the elements to
    /// all of them; pairs of trees are put on two, one on each; the others use channel 0 only.
    ///
    /// # Panics
    /// If the root is not a rank of `layout`, or if `algorithm` is none of
    /// [`Algorithm::for_collective`]`(collective)`.
    pub fn new(algorithm: Algorithm, collective: &Collective, layout: &Layout, channels: u8) -> Family {
        let ranks = layout.ranks();
        assert!(
            Algorithm::for_collective(collective).contains(&algorithm),
            "{algorithm} does not compute {collective}"
        );
        assert!(collective.root().is_none_or(|root| root < ranks), "{collective} of {ranks} ranks");
        let way = match (algorithm, collective) {
            _ if ranks == 1 => Way::Alone,
            (Algorithm::Hierarchical | Algorithm::HierarchicalHalving, _) => {
                Way::Hosts { members: hierarchical::members(layout), host: layout.host.clone() }
            }
            (Algorithm::Ring | Algorithm::Tree, _) => Way::Order(Order::by_host(layout)),
            (
                Algorithm::Binomial | Algorithm::Chain | Algorithm::PipelinedTree,
                Collective::Broadcast { root } | Collective::Reduce { root },
            ) => Way::Order(Order::from_root(layout, *root)),
            _ => Way::Ranks,
        };
        Family { algorithm, collective: *collective, channels: channels.max(1), ranks, way }
    }

    /// What `rank` does.
    ///
    /// # Panics
    /// If `rank` is not one of the layout.
    pub fn program(&self, rank: Rank) -> Program {
        let ranks = self.ranks;
        assert!(rank < ranks, "rank {rank} is not one of {ranks}");
        match &self.way {
            Way::Alone => alone(&self.collective),
            Way::Ranks => self.by_rank(rank),
            Way::Order(order) => self.by_order(rank, order),
            Way::Hosts { members, host } => {
                let hosts = hierarchical::Hosts::of(members, host[rank as usize], rank);
                self.by_host(rank, hosts)
            }
        }
    }

    fn by_rank(&self, rank: Rank) -> Program {
        use Algorithm::*;
        let n = self.ranks;
        match (self.collective, self.algorithm) {
            (Collective::AllReduce, RecursiveDoubling) => doubling::all_reduce(rank, n),
            (Collective::AllReduce, HalvingDoubling) => halving::all_reduce(rank, n),
            (Collective::AllReduce, Direct) => direct::all_reduce(rank, n),
            (Collective::AllReduce, Exchange) => exchange::all_reduce(rank, n),
            (Collective::Reduce { root }, Direct) => direct::reduce(rank, root, n),
            (Collective::Reduce { root }, ReduceGather) => reduce_gather::reduce(rank, root, n),
            (Collective::ReduceScatter, Bruck) => bruck::reduce_scatter(rank, n),
            (Collective::ReduceScatter, Direct) => direct::reduce_scatter(rank, n),
            (Collective::Broadcast { root }, Direct) => direct::broadcast(rank, root, n),
            (Collective::Broadcast { root }, ScatterAllGather) => scatter_allgather::broadcast(rank, root, n),
            (Collective::Scatter { root }, Direct) => direct::scatter(rank, root, n),
            (Collective::Scatter { root }, Binomial) => binomial::scatter(rank, root, n),
            (Collective::Scatter { root }, Pairwise) => pairwise::scatter(rank, root, n),
            (Collective::Gather { root }, Direct) => direct::gather(rank, root, n),
            (Collective::Gather { root }, Binomial) => binomial::gather(rank, root, n),
            (Collective::Gather { root }, Pairwise) => pairwise::gather(rank, root, n),
            (Collective::AllGather, Bruck) => bruck::all_gather(rank, n),
            (Collective::AllGather, Direct) => direct::all_gather(rank, n),
            (Collective::AllToAll, Direct) => direct::all_to_all(rank, n),
            (Collective::AllToAll, Bruck) => bruck::all_to_all(rank, n),
            (Collective::AllToAll, Pairwise) => pairwise::all_to_all(rank, n),
            _ => unreachable!("checked when the family was made"),
        }
    }

    fn by_order(&self, rank: Rank, order: &Order) -> Program {
        use Algorithm::*;
        match (self.collective, self.algorithm) {
            (Collective::AllReduce, Ring) => ring::all_reduce(rank, order, self.channels),
            (Collective::AllReduce, Tree) => tree::all_reduce(rank, order, self.channels),
            (Collective::ReduceScatter, Ring) => ring::reduce_scatter(rank, order),
            (Collective::AllGather, Ring) => ring::all_gather(rank, order),
            (Collective::Reduce { root }, Binomial) => binomial::reduce(rank, root, order),
            (Collective::Reduce { root }, Chain) => chain::reduce(rank, root, order),
            (Collective::Reduce { root }, PipelinedTree) => {
                pipelined_tree::reduce(rank, root, order, self.channels)
            }
            (Collective::Broadcast { root }, Binomial) => binomial::broadcast(rank, root, order),
            (Collective::Broadcast { root }, Chain) => chain::broadcast(rank, root, order),
            (Collective::Broadcast { root }, PipelinedTree) => {
                pipelined_tree::broadcast(rank, root, order, self.channels)
            }
            _ => unreachable!("checked when the family was made"),
        }
    }

    fn by_host(&self, rank: Rank, hosts: hierarchical::Hosts<'_>) -> Program {
        match self.collective {
            Collective::AllReduce if self.algorithm == Algorithm::HierarchicalHalving => {
                hierarchical::halving_all_reduce(hosts, rank, self.ranks)
            }
            Collective::AllReduce => hierarchical::all_reduce(hosts, rank, self.ranks),
            Collective::ReduceScatter => hierarchical::reduce_scatter(hosts, rank, self.ranks),
            Collective::AllGather => hierarchical::all_gather(hosts, rank, self.ranks),
            Collective::AllToAll => hierarchical::all_to_all(hosts, rank, self.ranks),
            _ => unreachable!("checked when the family was made"),
        }
    }
}

/// Of a single rank: it keeps its input; a reduction still has an end to apply.
fn alone(collective: &Collective) -> Program {
    let mut program = Program::new(collective, 0, 1, 1);
    let op = keep_input();
    program.push(if collective.reduces() { op.finish() } else { op });
    program
}

/// Input to output, which the engine passes over when the call is in place.
fn keep_input() -> Op {
    keep_own(Extent::ALL)
}

/// Likewise, of some blocks only.
fn keep_own(extent: Extent) -> Op {
    Op::over(extent).reduce_with(Buffer::INPUT).copy_to(Buffer::OUTPUT)
}

/// `len` blocks from `first` upwards of `n`, going on with block 0 behind the last one, as one or two runs of neighbours.
fn runs(first: u32, len: u32, n: u32) -> impl Iterator<Item = Extent> {
    let end = (first + len).min(n);
    let behind = first + len - end;
    let run = move |from, to| (from < to).then(|| Extent::parts(from, to, n));
    run(first, end).into_iter().chain(run(0, behind))
}
