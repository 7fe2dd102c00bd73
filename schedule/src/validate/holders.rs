//! Where each block of the vector starts, and where it has to end.

use crate::program::{Buffer, Program, Rank};

/// Which ranks have each block of the vector in a buffer.
pub(super) struct Holders {
    ranks: Vec<Rank>,
    /// Where each block's begin in `ranks`; one entry more than blocks.
    ranks_of: Vec<u32>,
}

impl Holders {
    pub(super) fn of(programs: &[Program], buffer: Buffer) -> Holders {
        let blocks = programs.first().map_or(0, |program| program.blocks);
        let shown = || {
            programs.iter().flat_map(|program| {
                let window = program.window(buffer);
                (0..window.len()).map(|position| (program.rank, window.at(position)))
            })
        };
        let mut ranks_of = vec![0; blocks as usize + 1];
        shown().for_each(|(_, block)| ranks_of[block as usize + 1] += 1);
        for block in 1..ranks_of.len() {
            ranks_of[block] += ranks_of[block - 1];
        }
        let mut ranks = vec![0; ranks_of[blocks as usize] as usize];
        let mut fill = ranks_of.clone();
        for (rank, block) in shown() {
            ranks[fill[block as usize] as usize] = rank;
            fill[block as usize] += 1;
        }
        Holders { ranks, ranks_of }
    }

    /// Those that have `block`, ascending.
    pub(super) fn of_block(&self, block: u32) -> &[Rank] {
        &self.ranks[self.ranks_of[block as usize] as usize..self.ranks_of[block as usize + 1] as usize]
    }
}
