//! One line of the table: what is called with how much, in nccl-tests' meaning of size and count.
//!
//! | | size | count | bus over algorithm bandwidth |
//! |---|---|---|---|
//! | all_reduce | a rank's data | its elements | 2(n-1)/n |
//! | reduce, broadcast, sendrecv | a rank's data | its elements | 1 |
//! | reduce_scatter, all_gather, all_to_all, gather, scatter | all blocks | elements of one block | (n-1)/n |
//! | the same with `_v` | all blocks | elements of all blocks | (n-1)/n |
//! | barrier | 0 | 0 | 1 |
//!
//! Where a rank has a block for each rank, a size is rounded down to blocks of whole elements; 0 is left of a size below
//! an element for each.
//!
//! The blocks of the forms with `_v` are as uneven as [`deal`] makes them; nccl-tests has none of them.

use rccl::{Call, Collective, DataType, ReduceOp};

/// Stands for sendrecv: each rank sends to the next one and receives from the one before, in one group. The library
/// names its two halves only.
pub const SENDRECV: Collective = Collective::Send;

/// Every collective that can be measured, in the order of the help.
pub const KNOWN: [Collective; 15] = [
    Collective::AllReduce,
    Collective::Reduce,
    Collective::ReduceScatter,
    Collective::ReduceScatterV,
    Collective::Broadcast,
    Collective::Scatter,
    Collective::ScatterV,
    Collective::Gather,
    Collective::GatherV,
    Collective::AllGather,
    Collective::AllGatherV,
    Collective::AllToAll,
    Collective::AllToAllV,
    SENDRECV,
    Collective::Barrier,
];

/// As the command line, the table and the JSON spell it.
pub fn name(collective: Collective) -> &'static str {
    if collective == SENDRECV { "sendrecv" } else { collective.name() }
}

/// Whether it combines elements, by an operator.
pub fn reduces(collective: Collective) -> bool {
    matches!(
        collective,
        Collective::AllReduce | Collective::Reduce | Collective::ReduceScatter | Collective::ReduceScatterV
    )
}

/// Whether one rank is another than all others.
pub fn has_root(collective: Collective) -> bool {
    matches!(
        collective,
        Collective::Reduce
            | Collective::Broadcast
            | Collective::Scatter
            | Collective::ScatterV
            | Collective::Gather
            | Collective::GatherV
    )
}

/// Whether input and output can be one array.
pub fn has_in_place(collective: Collective) -> bool {
    matches!(
        collective,
        Collective::AllReduce
            | Collective::Reduce
            | Collective::ReduceScatter
            | Collective::Broadcast
            | Collective::Scatter
            | Collective::Gather
            | Collective::AllGather
    )
}

/// Whether its blocks have lengths of their own.
pub fn is_uneven(collective: Collective) -> bool {
    even(collective) != collective
}

/// The collective whose blocks have one length, and whose algorithms run.
pub fn even(collective: Collective) -> Collective {
    match collective {
        Collective::ReduceScatterV => Collective::ReduceScatter,
        Collective::AllGatherV => Collective::AllGather,
        Collective::GatherV => Collective::Gather,
        Collective::ScatterV => Collective::Scatter,
        Collective::AllToAllV => Collective::AllToAll,
        other => other,
    }
}

fn has_blocks(collective: Collective) -> bool {
    matches!(
        even(collective),
        Collective::ReduceScatter
            | Collective::AllGather
            | Collective::Gather
            | Collective::Scatter
            | Collective::AllToAll
    )
}

/// What is called: one line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Which; [`SENDRECV`] stands for both halves.
    pub collective: Collective,
    /// Type of the elements.
    pub dtype: DataType,
    /// The operator, where there is one.
    pub op: Option<ReduceOp>,
    /// The root, where there is one.
    pub root: Option<u32>,
    /// Ranks of the job.
    pub ranks: u32,
    /// Elements of a rank's data, or of all blocks together.
    pub elements: u64,
}

impl Line {
    /// The line for a size of `bytes`.
    pub fn new(
        collective: Collective,
        dtype: DataType,
        op: Option<ReduceOp>,
        root: Option<u32>,
        ranks: u32,
        bytes: u64,
    ) -> Line {
        let mut elements = bytes / dtype.size() as u64;
        if has_blocks(collective) && !is_uneven(collective) {
            elements -= elements % u64::from(ranks);
        }
        Line { collective, dtype, op, root, ranks, elements }
    }

    /// Elements in nccl-tests' sense.
    pub fn count(&self) -> u64 {
        match has_blocks(self.collective) && !is_uneven(self.collective) {
            true => self.elements / u64::from(self.ranks),
            false => self.elements,
        }
    }

    /// The size, in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements * self.dtype.size() as u64
    }

    /// Elements of each rank's block; the whole is one block to each where there are none.
    pub fn blocks(&self) -> Vec<usize> {
        match is_uneven(self.collective) {
            true => deal(self.elements as usize, self.ranks),
            false => vec![self.count() as usize; self.ranks as usize],
        }
    }

    /// The call as the library names it, or one that runs the same algorithm.
    pub fn call(&self) -> Call {
        let Line { collective, dtype, op, root, .. } = *self;
        let count = match collective {
            Collective::GatherV | Collective::ScatterV | Collective::AllToAllV => Call::VARYING,
            _ => self.count(),
        };
        Call { collective, dtype, op, root, count }
    }

    /// How many times its size a rank must move through its link, whatever the algorithm: bus over algorithm bandwidth.
    /// nccl-tests' factors.
    pub fn bus_factor(&self) -> f64 {
        let others = f64::from(self.ranks - 1) / f64::from(self.ranks);
        match self.collective {
            Collective::AllReduce => 2.0 * others,
            collective if has_blocks(collective) => others,
            _ => 1.0,
        }
    }
}

/// Deals elements to ranks unevenly: of n ranks, rank r gets r in n(n-1)/2 parts of them, so rank 0 gets none and the
/// last rank about twice the average. One rank gets all.
///
/// In all_to_all_v, rank s sends to rank d what (s + d) mod n is dealt: then every rank sends and receives all elements.
pub fn deal(elements: usize, ranks: u32) -> Vec<usize> {
    if ranks == 1 {
        return vec![elements];
    }
    let (elements, ranks) = (elements as u128, u128::from(ranks));
    let before = |rank: u128| elements * (rank * rank.saturating_sub(1) / 2) / (ranks * (ranks - 1) / 2);
    (0..ranks).map(|rank| (before(rank + 1) - before(rank)) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(collective: Collective, ranks: u32, bytes: u64) -> Line {
        Line::new(collective, DataType::F32, None, None, ranks, bytes)
    }

    #[test]
    fn bus_bandwidth_factors_are_nccl_tests() {
        for (collective, of_four) in [
            (Collective::AllReduce, 1.5),
            (Collective::Reduce, 1.0),
            (Collective::Broadcast, 1.0),
            (SENDRECV, 1.0),
            (Collective::Barrier, 1.0),
            (Collective::ReduceScatter, 0.75),
            (Collective::AllGather, 0.75),
            (Collective::AllToAll, 0.75),
            (Collective::Gather, 0.75),
            (Collective::Scatter, 0.75),
            (Collective::ReduceScatterV, 0.75),
            (Collective::AllGatherV, 0.75),
            (Collective::AllToAllV, 0.75),
            (Collective::GatherV, 0.75),
            (Collective::ScatterV, 0.75),
        ] {
            assert_eq!(line(collective, 4, 1024).bus_factor(), of_four, "{}", name(collective));
        }
        assert_eq!(line(Collective::AllGather, 1, 1024).bus_factor(), 0.0);
    }

    #[test]
    fn size_and_count_are_nccl_tests() {
        let counts = |collective, ranks, bytes| {
            let line = line(collective, ranks, bytes);
            (line.bytes(), line.count(), line.blocks().iter().sum::<usize>())
        };
        assert_eq!(counts(Collective::AllReduce, 4, 1026), (1024, 256, 1024));
        assert_eq!(counts(SENDRECV, 3, 8), (8, 2, 6));
        assert_eq!(counts(Collective::AllGather, 4, 1024), (1024, 64, 256));
        assert_eq!(counts(Collective::ReduceScatter, 3, 1024), (1020, 85, 255));
        assert_eq!(counts(Collective::AllToAll, 4, 8), (0, 0, 0));
        assert_eq!(counts(Collective::AllGatherV, 3, 1024), (1024, 256, 256));
    }

    #[test]
    fn every_element_is_dealt() {
        for ranks in 1..20 {
            for elements in [0, 1, 2, 100, 12_345_678] {
                let dealt = deal(elements, ranks);
                assert_eq!((dealt.len(), dealt.iter().sum::<usize>()), (ranks as usize, elements));
            }
        }
        assert_eq!(deal(600, 4), [0, 100, 200, 300]);
        assert_eq!(deal(7, 2), [0, 7]);
        assert_eq!(deal(usize::MAX, 3).len(), 3);
    }

    #[test]
    fn the_call_of_a_line_is_one_that_the_library_knows() {
        for collective in KNOWN.into_iter().filter(|&known| known != SENDRECV) {
            let call = line(collective, 4, 1024).call();
            assert_eq!(call.collective, collective);
            assert!(
                even(collective).name().len() + 2 * usize::from(is_uneven(collective))
                    == call.collective.name().len()
            );
        }
    }
}
