//! What a rank passes to a call of a line, and what the call must leave in its arrays.

use super::line::{Line, SENDRECV};
use rccl::Collective;
use std::ops::Range;

/// Where an array's elements come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// What this rank gives.
    Given(u32),
    /// The reduction of what all ranks give.
    Reduced,
}

/// Elements that follow one another both in an array and in their source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where in the array.
    pub at: Range<usize>,
    /// Of what.
    pub source: Source,
    /// Index in the source of the first.
    pub from: usize,
}

/// A call of a line by one rank.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The line.
    pub line: Line,
    /// One array for input and output.
    pub in_place: bool,
    /// This rank.
    pub rank: u32,
    /// Elements of the input; none in place.
    pub input: usize,
    /// Elements of the output, or of the one array.
    pub output: usize,
    /// Elements of each block, where blocks differ; those that are sent in all_to_all_v.
    pub counts: Vec<usize>,
    /// Elements of each block that is received in all_to_all_v.
    pub received: Vec<usize>,
}

impl Plan {
    /// The plan of `rank`.
    pub fn new(line: Line, in_place: bool, rank: u32) -> Plan {
        let whole = line.elements as usize;
        let blocks = line.blocks();
        let own = blocks[rank as usize];
        let (input, output) = match line.collective {
            Collective::ReduceScatter | Collective::ReduceScatterV => (whole, own),
            Collective::Scatter | Collective::ScatterV => (whole, own),
            Collective::AllGather | Collective::AllGatherV => (own, whole),
            Collective::Gather | Collective::GatherV => (own, whole),
            _ => (whole, whole),
        };
        // What a rank is dealt is turned by its number, which looks the same from both ends.
        let counts = match line.collective {
            Collective::AllToAllV => {
                (0..line.ranks).map(|d| blocks[((rank + d) % line.ranks) as usize]).collect()
            }
            _ => blocks,
        };
        let (input, output) = if in_place { (0, whole) } else { (input, output) };
        Plan { line, in_place, rank, input, output, received: counts.clone(), counts }
    }

    /// The rank that sendrecv sends to.
    pub fn next(&self) -> u32 {
        (self.rank + 1) % self.line.ranks
    }

    /// The rank that sendrecv receives from.
    pub fn previous(&self) -> u32 {
        (self.rank + self.line.ranks - 1) % self.line.ranks
    }

    /// What this rank gives: in the input, or in the one array of a call in place.
    pub fn given(&self) -> Vec<Piece> {
        let own = Source::Given(self.rank);
        match self.line.collective {
            Collective::Barrier => Vec::new(),
            Collective::Broadcast | Collective::Scatter | Collective::ScatterV if !self.is_root() => {
                Vec::new()
            }
            Collective::AllGather | Collective::AllGatherV | Collective::Gather | Collective::GatherV => {
                let at = if self.in_place { self.block(self.rank) } else { 0..self.input };
                vec![Piece { at, source: own, from: 0 }]
            }
            _ => vec![Piece { at: 0..self.line.elements as usize, source: own, from: 0 }],
        }
    }

    /// What the call writes: in the output, or in the one array of a call in place.
    pub fn results(&self) -> Vec<Piece> {
        let whole = 0..self.line.elements as usize;
        let own = self.block(self.rank);
        let own_block = if self.in_place { own.clone() } else { 0..own.len() };
        let root = self.line.root.unwrap_or(0);
        match self.line.collective {
            Collective::Barrier => Vec::new(),
            Collective::Reduce | Collective::Gather | Collective::GatherV if !self.is_root() => Vec::new(),
            Collective::AllReduce | Collective::Reduce => {
                vec![Piece { at: whole, source: Source::Reduced, from: 0 }]
            }
            Collective::ReduceScatter | Collective::ReduceScatterV => {
                vec![Piece { at: own_block, source: Source::Reduced, from: own.start }]
            }
            Collective::Broadcast => vec![Piece { at: whole, source: Source::Given(root), from: 0 }],
            Collective::Scatter | Collective::ScatterV => {
                vec![Piece { at: own_block, source: Source::Given(root), from: own.start }]
            }
            SENDRECV => vec![Piece { at: whole, source: Source::Given(self.previous()), from: 0 }],
            collective => {
                let across = matches!(collective, Collective::AllToAll | Collective::AllToAllV);
                let piece = |from: u32| Piece {
                    at: self.block(from),
                    source: Source::Given(from),
                    from: if across { Plan::new(self.line, false, from).block(self.rank).start } else { 0 },
                };
                (0..self.line.ranks).map(piece).collect()
            }
        }
    }

    fn is_root(&self) -> bool {
        self.line.root == Some(self.rank)
    }

    /// Where a rank's block lies among all blocks.
    fn block(&self, rank: u32) -> Range<usize> {
        let start = self.counts[..rank as usize].iter().sum();
        start..start + self.counts[rank as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rccl::DataType;

    fn plan(collective: Collective, in_place: bool, rank: u32) -> Plan {
        let line = Line::new(collective, DataType::U8, None, Some(1), 4, 600);
        Plan::new(line, in_place, rank)
    }

    fn piece(at: Range<usize>, source: Source, from: usize) -> Piece {
        Piece { at, source, from }
    }

    #[test]
    fn blocks_lie_where_nccl_defines_them() {
        let gathered = plan(Collective::AllGather, true, 2);
        assert_eq!(gathered.given(), [piece(300..450, Source::Given(2), 0)]);
        assert_eq!(gathered.results()[3], piece(450..600, Source::Given(3), 0));
        let apart = plan(Collective::ReduceScatterV, false, 2);
        assert_eq!((apart.input, apart.output), (600, 200));
        assert_eq!(apart.results(), [piece(0..200, Source::Reduced, 100)]);
        assert_eq!(plan(Collective::Scatter, true, 3).results(), [piece(450..600, Source::Given(1), 450)]);
        assert_eq!(plan(Collective::Scatter, true, 3).given(), []);
        assert_eq!(plan(Collective::Gather, false, 0).results(), []);
        assert_eq!(plan(Collective::Gather, false, 1).results().len(), 4);
    }

    #[test]
    fn both_ends_of_an_uneven_exchange_agree() {
        for from in 0..4 {
            let sends = plan(Collective::AllToAllV, false, from);
            assert_eq!(sends.counts.iter().sum::<usize>(), 600);
            for to in 0..4 {
                let receives = plan(Collective::AllToAllV, false, to);
                assert_eq!(sends.counts[to as usize], receives.received[from as usize]);
                let block = sends.block(to);
                assert_eq!(receives.results()[from as usize].from, block.start);
                assert_eq!(receives.results()[from as usize].at.len(), block.len());
            }
        }
    }
}
