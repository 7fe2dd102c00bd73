//! How many elements the blocks of a call have.

use rccl_schedule::{Sizes, Window};

/// The sizes of the blocks that this rank knows.
#[derive(Clone, Debug)]
pub(crate) enum Lengths {
    /// All the same.
    Equal(u64),
    /// Block by block; 0 for those that this rank does not touch.
    Blocks(Vec<u64>),
    /// Of an all_to_all. In a box, which keeps tasks short: they are passed by value.
    Cross(Box<Cross>),
}

/// What a rank sends to each in an all_to_all, and what it gets from each.
#[derive(Clone, Debug)]
pub(crate) struct Cross {
    /// This rank.
    pub rank: u32,
    /// By receiver.
    pub row: Vec<u64>,
    /// By sender.
    pub column: Vec<u64>,
}

impl Lengths {
    /// The one size that all have.
    pub fn equal(&self) -> Option<u64> {
        match self {
            Lengths::Equal(count) => Some(*count),
            _ => None,
        }
    }
}

impl Sizes for Lengths {
    #[inline]
    fn of(&self, block: u32) -> u64 {
        match self {
            Lengths::Equal(count) => *count,
            Lengths::Blocks(sizes) => sizes[block as usize],
            Lengths::Cross(cross) => {
                let Cross { rank, row, column } = &**cross;
                let (from, to) = (block / row.len() as u32, block % row.len() as u32);
                if from == *rank { row[to as usize] } else { column[from as usize] }
            }
        }
    }
    #[inline]
    fn sum(&self, from: u32, to: u32) -> u64 {
        match self {
            Lengths::Equal(count) => count.sum(from, to),
            _ => (from..to).map(|block| self.of(block)).sum(),
        }
    }
    #[inline]
    fn before(&self, window: &Window, position: u32) -> u64 {
        match self {
            Lengths::Equal(count) => count.before(window, position),
            _ => (0..position).map(|position| self.of(window.at(position))).sum(),
        }
    }
}
