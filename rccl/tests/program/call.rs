//! What is called: a collective or a message, with everything that all ranks know of it.

use super::stream::Stream;
use rccl::{Collective, DataType, ReduceOp};

/// The collectives, and a message.
const COLLECTIVES: &[Collective] = Collective::ALL.split_at(15).0;

/// A call on `ranks` ranks.
#[derive(Clone, Debug)]
pub struct Call {
    /// Makes the elements.
    pub seed: u64,
    pub ranks: usize,
    pub collective: Collective,
    pub dtype: DataType,
    pub op: Option<ReduceOp>,
    /// The root, or the receiver of a message.
    pub root: usize,
    /// The sender of a message.
    pub from: usize,
    /// Elements of a block.
    pub count: usize,
    /// Where blocks differ: their lengths; of all_to_all_v a row for each rank that sends.
    pub counts: Vec<Vec<usize>>,
}

impl Call {
    /// Any call but a message of a rank to itself. An array of it has at most `most` elements.
    pub fn random(stream: &mut Stream, ranks: usize, most: usize) -> Call {
        let all = if ranks > 1 { COLLECTIVES } else { &COLLECTIVES[..14] };
        let collective = *stream.one_of(all);
        let mut call = Call::of(collective, stream, ranks, most);
        if collective == Collective::Send {
            call.from = (call.root + 1 + stream.below(ranks - 1)) % ranks;
        }
        call
    }

    /// A message between any two ranks, or of one to itself.
    pub fn message(stream: &mut Stream, ranks: usize, most: usize) -> Call {
        let mut call = Call::of(Collective::Send, stream, ranks, most);
        call.from = stream.below(ranks);
        call
    }

    fn of(collective: Collective, stream: &mut Stream, ranks: usize, most: usize) -> Call {
        let dtype = *stream.one_of(&DataType::ALL);
        let ops: Vec<ReduceOp> = ReduceOp::ALL.into_iter().filter(|op| op.suits(dtype)).collect();
        let op = *stream.one_of(&ops);
        let (root, seed) = (stream.below(ranks), stream.bits());
        let total = stream.magnitude(most);
        let count = match collective {
            Collective::Barrier => 0,
            Collective::AllReduce | Collective::Broadcast | Collective::Reduce | Collective::Send => total,
            _ => total / ranks,
        };
        let counts = match collective {
            Collective::AllToAllV => (0..ranks).map(|_| stream.parts(total / ranks, ranks)).collect(),
            Collective::ReduceScatterV
            | Collective::AllGatherV
            | Collective::GatherV
            | Collective::ScatterV => {
                vec![stream.parts(total, ranks)]
            }
            _ => Vec::new(),
        };
        let reduces = matches!(
            collective,
            Collective::AllReduce
                | Collective::Reduce
                | Collective::ReduceScatter
                | Collective::ReduceScatterV
        );
        Call { seed, ranks, collective, dtype, op: reduces.then_some(op), root, from: 0, count, counts }
    }

    /// Whether the lengths of blocks are given.
    pub fn varies(&self) -> bool {
        !self.counts.is_empty()
    }

    /// Whether `rank` has to do with it.
    pub fn concerns(&self, rank: usize) -> bool {
        self.collective != Collective::Send || rank == self.root || rank == self.from
    }

    /// Whether it has a form that works in place.
    pub fn has_place(&self) -> bool {
        !self.varies()
            && !matches!(self.collective, Collective::AllToAll | Collective::Send | Collective::Barrier)
    }

    /// What a rank's operands are multiplied by comes from these bits.
    pub fn scalar_bits(&self, rank: usize) -> u64 {
        Stream(self.seed ^ (rank as u64) << 40 ^ 5).bits()
    }

    /// The lengths of the blocks that all ranks know, or of those that this rank sends.
    pub fn row(&self, rank: usize) -> Vec<usize> {
        match &self.counts[..] {
            [] => vec![self.count; self.ranks],
            [row] if self.collective != Collective::AllToAllV => row.clone(),
            rows => rows[rank].clone(),
        }
    }

    /// The lengths of the blocks that this rank receives in an all_to_all.
    pub fn column(&self, rank: usize) -> Vec<usize> {
        (0..self.ranks).map(|from| self.row(from)[rank]).collect()
    }
}

/// `AllToAllV F8E4M3 of [[2, 3], [0, 1]]`
impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.collective.name(), self.dtype)?;
        if self.varies() {
            write!(f, " of {:?}", self.counts)?
        } else {
            write!(f, " x{}", self.count)?
        }
        if let Some(op) = self.op {
            write!(f, " {op}")?;
        }
        match self.collective {
            Collective::Send => write!(f, " from {} to {}", self.from, self.root),
            _ => write!(f, " root {} on {} ranks, seed {:#x}", self.root, self.ranks, self.seed),
        }
    }
}
