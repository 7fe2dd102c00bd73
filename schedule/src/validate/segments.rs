//! The elements of a call that all operations treat alike.

use super::violation::{Fault, Violation};
use super::wiring::Wiring;

/// The segments between neighbouring bounds of extents, and the operations that cover each.
pub(super) struct Segments {
    /// The bounds in ascending order, each as `(i, of)`.
    pub bounds: Vec<(u32, u32)>,
    ops: Vec<u32>,
    ops_of: Vec<u32>,
}

impl Segments {
    pub(super) fn of(wiring: &Wiring<'_>) -> Result<Segments, Violation> {
        // Every bound as an integer: a multiple of 1/unit.
        let mut unit: u64 = 1;
        let mut scales: Vec<(u32, u64)> = Vec::new();
        let blocks = wiring.programs.first().map_or(1, |program| program.blocks);
        for of in wiring.ops.iter().map(|op| op.extent.of).chain([blocks]) {
            if !scales.iter().any(|&(known, _)| known == of) {
                let finer = unit.checked_mul(u64::from(of) / gcd(unit, u64::from(of)));
                unit = finer.filter(|&unit| unit < 1 << 40).ok_or_else(|| {
                    Violation::of_program(
                        0,
                        Fault::Malformed("the extents have no common denominator below 2^40"),
                    )
                })?;
                scales.push((of, 0));
            }
        }
        for (of, scale) in &mut scales {
            *scale = unit / u64::from(*of);
        }
        let scale = |of: u32| scales.iter().find(|&&(known, _)| known == of).map_or(1, |&(_, scale)| scale);

        let block = |i: u32| (u64::from(i) * scale(blocks), (i, blocks));
        let mut bounds: Vec<(u64, (u32, u32))> = (0..blocks + 1).map(block).collect();
        let mut enough = 1 << 20;
        for op in &wiring.ops {
            let (e, scale) = (op.extent, scale(op.extent.of));
            bounds.extend([e.lo, e.hi].map(|i| (u64::from(i) * scale, (i, e.of))));
            // Many operations cover the same parts: keep the list near its final length.
            if bounds.len() > enough {
                sort(&mut bounds);
                enough = enough.max(2 * bounds.len());
            }
        }
        sort(&mut bounds);
        // Cheaper than a search where the unit is not much finer than the bounds.
        let table: Option<Vec<u32>> = (unit < 1 << 22).then(|| {
            let mut table = vec![0; unit as usize + 1];
            (0..).zip(&bounds).for_each(|(index, &(at, _))| table[at as usize] = index);
            table
        });
        let index = |at: u64| match &table {
            Some(table) => table[at as usize],
            None => bounds.partition_point(|&(bound, _)| bound < at) as u32,
        };
        let span = |op: &&crate::Op| {
            let scale = scale(op.extent.of);
            (index(u64::from(op.extent.lo) * scale), index(u64::from(op.extent.hi) * scale))
        };
        let spans: Vec<(u32, u32)> = wiring.ops.iter().map(span).collect();
        let mut ops_of = vec![0; bounds.len()];
        for &(lo, hi) in &spans {
            (lo..hi).for_each(|segment| ops_of[segment as usize + 1] += 1);
        }
        for i in 1..ops_of.len() {
            ops_of[i] += ops_of[i - 1];
        }
        let mut ops = vec![0; ops_of[bounds.len() - 1] as usize];
        let mut fill = ops_of.clone();
        for (number, &(lo, hi)) in (0..).zip(&spans) {
            for segment in lo..hi {
                ops[fill[segment as usize] as usize] = number;
                fill[segment as usize] += 1;
            }
        }
        Ok(Segments { bounds: bounds.into_iter().map(|(_, bound)| bound).collect(), ops, ops_of })
    }

    /// How many there are, at least one.
    pub(super) fn len(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The operations that cover a segment, rank by rank in program order.
    pub(super) fn ops(&self, segment: usize) -> &[u32] {
        &self.ops[self.ops_of[segment] as usize..self.ops_of[segment + 1] as usize]
    }

    /// The block of the vector that a segment lies in.
    pub(super) fn block(&self, segment: usize, blocks: u32) -> u32 {
        let (i, of) = self.bounds[segment];
        (u64::from(i) * u64::from(blocks) / u64::from(of)) as u32
    }

    /// The bounds of a segment.
    pub(super) fn part(&self, segment: usize) -> [(u32, u32); 2] {
        [self.bounds[segment], self.bounds[segment + 1]]
    }
}

fn sort(bounds: &mut Vec<(u64, (u32, u32))>) {
    bounds.sort_unstable();
    bounds.dedup_by_key(|&mut (at, _)| at);
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
