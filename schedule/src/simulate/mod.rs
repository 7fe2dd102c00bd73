//! What a collective takes on a cluster that need not exist: the programs of all ranks, run in simulated time.
//!
//! ```text
//! cluster   what is simulated on, and what everything costs        links   its links, and the way between two ranks
//! graph     the programs of all ranks, and which message meets which
//! run       the run, chunk by chunk                                 queue   what happens next
//! closed    formulas for what no machine could simulate
//! ```
//!
//! The programs are those that the engine executes, and it is the engine's rules that are simulated: an operation takes
//! chunk by chunk what has arrived, in the order of each edge; a long message waits until its receiver has granted it, which
//! that does as early as dependencies allow; a sender is at most a window ahead; a value that is stored nowhere waits in
//! an outbox of four chunks.
//!
//! # Cost model
//!
//! A chunk of `b` bytes occupies, one after the other,
//!
//! 1. the sender's processor, for [`Overhead::send`] `+ b /` [`Overhead::copy`];
//! 2. every link of its route, for `b /` [`Link::rate`], in order of arrival. A link passes its first bit on after
//!    [`Link::latency`] (cut-through), so a chunk that nobody is in the way of takes the sum of the latencies, and its
//!    bytes once, at the slowest link;
//! 3. the receiver's processor, for [`Overhead::receive`] `+ b /` [`Overhead::copy`] for each operand received, and
//!    `b /` [`Cluster::reduce`] for each operand but the first, or `b /` [`Cluster::copy`] if a single one of the same
//!    host is stored. What is sent on at once is paid in the same piece, as in the engine: 1. is for what lies in memory.
//!
//! This is LogGP (Alexandrov, Ionescu, Schauser, Scheiman, "LogGP: incorporating long messages into the LogP model", 1995)
//! with overheads at either end, links that are shared, and chunks in the place of messages. Grants and releases travel
//! at the latency of the route and occupy nothing. All times are whole picoseconds and of two events at one time the
//! one that was caused first comes first, so a run repeats exactly on every machine.
//!
//! ```
//! use rccl_schedule::simulate::{Call, Cluster, simulate};
//! use rccl_schedule::{Algorithm, Collective};
//!
//! let call = Call { algorithm: Algorithm::Ring, collective: Collective::AllReduce, ranks: 16, bytes: 1 << 20, element: 4 };
//! let outcome = simulate(&call, &Cluster::default())?;
//! assert!(outcome.bus_bandwidth() < 12.5, "no faster than a rail");
//! # Ok::<(), rccl_schedule::simulate::Unfit>(())
//! ```

mod closed;
mod cluster;
mod graph;
mod links;
mod outcome;
mod queue;
mod run;

pub use closed::formula;
pub use cluster::{Cluster, Link, MICROSECOND, Overhead, Placement, Rate, Slow, Time};
pub use links::Class;
pub use outcome::{How, Outcome, Use, bus_factor};

use std::fmt;

use crate::algorithm::Algorithm;
use crate::collective::Collective;
use graph::Graph;
use links::Links;
use run::Run;

/// Most chunks that are simulated one by one; longer calls are extrapolated.
const MOST_CHUNKS: u64 = 72_000_000;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// One of [`Algorithm::for_collective`].
    pub algorithm: Algorithm,
    /// What the ranks compute, out of place.
    pub collective: Collective,
    /// How many.
    pub ranks: u32,
    /// As nccl-tests count them: a rank's data, or all of its blocks where it has one for each rank. Rounded down to whole
    /// elements of each block.
    pub bytes: u64,
    /// Bytes of an element.
    pub element: u32,
}

/// Simulates a call.
///
/// A call of more than 72 million chunks is extrapolated: time and use are linear in the bytes once pipelines are full, so
/// two shorter calls, of half and of a quarter of the most that is simulated, say how both go on ([`How::Extrapolated`]).
///
/// # Errors
/// [`Unfit`] if the cluster has numbers that make no sense, or the call has more messages than memory holds.
///
/// # Panics
/// If `algorithm` is none of the collective's.
pub fn simulate(call: &Call, cluster: &Cluster) -> Result<Outcome, Unfit> {
    if let Some(flaw) = cluster.flaw() {
        return Err(Unfit::Cluster(flaw));
    }
    if call.ranks == 0 || call.element == 0 {
        return Err(Unfit::Cluster("there must be a rank, and elements of a byte at least".into()));
    }
    let most = if call.collective == Collective::AllToAll { 65_535 } else { MOST_RANKS };
    if call.ranks > most {
        return Err(Unfit::TooManyRanks { most });
    }
    let links = Links::of(cluster, call.ranks).map_err(Unfit::Cluster)?;
    let graph = graph(call, cluster)?;
    if graph.chunks(cluster.chunk) <= MOST_CHUNKS {
        return run(call, cluster, &links, &graph);
    }
    drop(graph);
    extrapolate(call, cluster, &links)
}

/// Most ranks of a simulated job.
const MOST_RANKS: u32 = 1 << 20;

fn graph(call: &Call, cluster: &Cluster) -> Result<Graph, Unfit> {
    let Call { algorithm, collective, ranks, bytes, element } = *call;
    let count = graph::block(&collective, ranks, bytes, u64::from(element));
    Graph::of(algorithm, &collective, &cluster.layout(ranks), count, u64::from(element))
}

fn run(call: &Call, cluster: &Cluster, links: &Links<'_>, graph: &Graph) -> Result<Outcome, Unfit> {
    let mut run = Run::new(cluster, graph, links, call.ranks);
    if graph.snapshot && !run.is_all_eager() {
        return Err(Unfit::Granted(call.algorithm));
    }
    let time = run.run().map_err(|op| Unfit::Stuck { rank: graph.op(op).rank })?;
    Ok(Outcome::of(call, links, time, &run))
}

/// From the two longest calls, one twice the other, that are simulated chunk by chunk.
fn extrapolate(call: &Call, cluster: &Cluster, links: &Links<'_>) -> Result<Outcome, Unfit> {
    let mut long = Call { bytes: call.bytes / 2, ..*call };
    let longer = loop {
        let graph = graph(&long, cluster)?;
        if graph.chunks(cluster.chunk) <= MOST_CHUNKS {
            break run(&long, cluster, links, &graph)?;
        }
        long.bytes /= 2;
    };
    let half = Call { bytes: long.bytes / 2, ..long };
    let shorter = run(&half, cluster, links, &graph(&half, cluster)?)?;
    Ok(Outcome::extrapolated(call, links, &shorter, &longer))
}

/// Why a call is not simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// A number of the cluster makes no sense, or something slow does not exist.
    Cluster(String),
    /// The ranks send about so many messages, more than memory holds.
    TooManyMessages(u64),
    /// A collective of so many ranks is not simulated.
    TooManyRanks {
        /// The most that are.
        most: u32,
    },
    /// The algorithm is right only where every message leaves without a grant, and some are longer than
    /// [`Overhead::eager`].
    Granted(Algorithm),
    /// The programs wait for one another: an algorithm is wrong, which the [validator](mod@crate::validate) tells more about.
    Stuck {
        /// A rank that waits.
        rank: u32,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Cluster(flaw) => f.write_str(flaw),
            Unfit::TooManyMessages(messages) => {
                write!(
                    f,
                    "about {messages:.1e} messages are more than memory holds; fewer ranks can be simulated"
                )
            }
            Unfit::TooManyRanks { most } => write!(f, "at most {most} ranks can be simulated"),
            Unfit::Granted(algorithm) => {
                write!(
                    f,
                    "{algorithm} needs messages that leave without a grant, and these are too long for it"
                )
            }
            Unfit::Stuck { rank } => write!(f, "rank {rank} waits for ever: the algorithm is wrong"),
        }
    }
}

impl std::error::Error for Unfit {}
