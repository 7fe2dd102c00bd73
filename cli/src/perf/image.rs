//! What an array holds before and after a call, as pieces of patterns that repeat, so that checking needs no second
//! array.

use super::check::{Data, PERIOD, Sample};
use super::plan::{Piece, Plan, Source};
use rccl::Element;
use std::ops::Range;

/// An array's contents: pieces without gaps between them.
#[derive(Clone, Debug)]
pub struct Image {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    piece: Piece,
    /// Every bit is the other way round.
    spoiled: bool,
}

/// An array before and after a call.
#[derive(Clone, Debug)]
pub struct Change {
    pub before: Image,
    pub after: Image,
}

impl Change {
    /// Of the output, or of the one array of a call in place. Before the call, what it is to write is wrong everywhere;
    /// after it, what it is not to write is as it was.
    pub fn of_output(plan: &Plan) -> Change {
        let whole = Piece { at: 0..plan.output, source: Source::Given(plan.rank), from: 0 };
        let mut before = Image { parts: vec![Part { piece: whole, spoiled: true }] };
        let results = plan.results();
        for piece in &results {
            before.put(piece, true);
        }
        if plan.in_place {
            for piece in &plan.given() {
                before.put(piece, false);
            }
        }
        let mut after = before.clone();
        for piece in &results {
            after.put(piece, false);
        }
        Change { before, after }
    }

    /// Of the input, which a call only reads.
    pub fn of_input(plan: &Plan) -> Change {
        let whole = Piece { at: 0..plan.input, source: Source::Given(plan.rank), from: 0 };
        let mut before = Image { parts: vec![Part { piece: whole, spoiled: true }] };
        if !plan.in_place {
            for piece in &plan.given() {
                before.put(piece, false);
            }
        }
        Change { after: before.clone(), before }
    }
}

impl Image {
    /// Puts a piece over what is there.
    fn put(&mut self, piece: &Piece, spoiled: bool) {
        let over = &piece.at;
        let mut parts = Vec::with_capacity(self.parts.len() + 2);
        for part in &self.parts {
            let Range { start, end } = part.piece.at;
            for left in [start..end.min(over.start), start.max(over.end)..end] {
                if left.start < left.end {
                    let from = part.piece.from + (left.start - start);
                    parts.push(Part { piece: Piece { at: left, from, ..part.piece.clone() }, ..*part });
                }
            }
        }
        parts.push(Part { piece: piece.clone(), spoiled });
        self.parts = parts;
    }

    /// Writes it.
    pub fn fill<T: Element>(&self, memory: &mut [T], patterns: &Patterns<T>) {
        for part in &self.parts {
            let memory = &mut memory[part.piece.at.clone()];
            let pattern = patterns.find(part.piece.source);
            for (place, from) in stretches(memory.len(), part.piece.from, pattern.len()) {
                let memory = &mut memory[place];
                memory.copy_from_slice(&pattern[from]);
                if part.spoiled {
                    bytemuck::cast_slice_mut::<T, u8>(memory).iter_mut().for_each(|byte| *byte = !*byte);
                }
            }
        }
    }

    /// How many elements differ from it, in any bit.
    pub fn count_wrong<T: Element>(&self, memory: &[T], patterns: &Patterns<T>) -> u64 {
        let wrong = self.parts.iter().map(|part| {
            let memory = &memory[part.piece.at.clone()];
            let pattern = patterns.find(part.piece.source);
            let stretches = stretches(memory.len(), part.piece.from, pattern.len());
            let wrong =
                stretches.map(|(place, from)| differing(&memory[place], &pattern[from], part.spoiled));
            wrong.sum::<u64>()
        });
        wrong.sum()
    }
}

fn differing<T: Element>(memory: &[T], pattern: &[T], spoiled: bool) -> u64 {
    let (memory, pattern) = (bytemuck::cast_slice::<T, u8>(memory), bytemuck::cast_slice::<T, u8>(pattern));
    if !spoiled && memory == pattern {
        return 0;
    }
    let flip = if spoiled { !0 } else { 0 };
    let elements = memory.chunks(size_of::<T>()).zip(pattern.chunks(size_of::<T>()));
    elements.filter(|(a, b)| a.iter().zip(*b).any(|(a, b)| *a != *b ^ flip)).count() as u64
}

/// Cuts `length` elements that begin at `from` of something that repeats after `period` where it begins again: where
/// each stretch lies among the elements, and in the period.
fn stretches(
    length: usize,
    from: usize,
    period: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= length {
            return None;
        }
        let first = (from + at) % period;
        let many = (period - first).min(length - at);
        at += many;
        Some((at - many..at, first..first + many))
    })
}

/// The elements of every source that some images need, up to where they repeat.
pub struct Patterns<T> {
    known: Vec<(Source, Vec<T>)>,
}

impl<T: Sample> Patterns<T> {
    /// Those of the images, computed from `data`; `elements` is the length of what a rank gives.
    pub fn new(data: &Data, elements: usize, images: &[&Image]) -> Patterns<T> {
        let mut known: Vec<(Source, Vec<T>)> = Vec::new();
        for part in images.iter().flat_map(|image| &image.parts) {
            let source = part.piece.source;
            if !known.iter().any(|(of, _)| *of == source) {
                let pattern = match source {
                    Source::Given(rank) => data.input(rank, elements.min(PERIOD)),
                    Source::Reduced => data.reduced(elements.min(PERIOD)),
                };
                known.push((source, pattern));
            }
        }
        Patterns { known }
    }
}

impl<T> Patterns<T> {
    fn find(&self, source: Source) -> &[T] {
        self.known.iter().find(|(of, _)| *of == source).map_or(&[], |(_, pattern)| pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::line::{KNOWN, Line, has_in_place, has_root, reduces};
    use rccl::{DataType, ReduceOp};

    /// Copies pieces as a correct collective would.
    fn perform(plan: &Plan, memory: &mut [u32], patterns: &Patterns<u32>) {
        for piece in plan.results() {
            let pattern = patterns.find(piece.source);
            for (place, from) in stretches(piece.at.len(), piece.from, pattern.len()) {
                memory[piece.at.clone()][place].copy_from_slice(&pattern[from]);
            }
        }
    }

    #[test]
    fn a_right_result_is_right_and_each_wrong_element_counts() {
        for collective in KNOWN.into_iter().filter(|&known| known != rccl::Collective::Barrier) {
            for in_place in [false, true] {
                if in_place && !has_in_place(collective) {
                    continue;
                }
                // With and without repetition.
                for bytes in [6 * 4 * 5, 4 * 3 * PERIOD as u64] {
                    for rank in 0..3 {
                        let op = reduces(collective).then_some(ReduceOp::Sum);
                        let root = has_root(collective).then_some(1);
                        let line = Line::new(collective, DataType::U32, op, root, 3, bytes);
                        let plan = Plan::new(line, in_place, rank);
                        let data = Data { seed: 1, ranks: 3, op };
                        let change = Change::of_output(&plan);
                        let input = Change::of_input(&plan).before;
                        let images = [&input, &change.before, &change.after];
                        let patterns = Patterns::new(&data, line.elements as usize, &images);
                        let mut given = vec![0u32; plan.input];
                        input.fill(&mut given, &patterns);
                        assert_eq!(input.count_wrong(&given, &patterns), 0);
                        let mut memory = vec![0u32; plan.output];
                        change.before.fill(&mut memory, &patterns);
                        assert_eq!(change.before.count_wrong(&memory, &patterns), 0);
                        let left_out = change.after.count_wrong(&memory, &patterns);
                        let changes = plan.results().iter().map(|piece| piece.at.len() as u64).sum::<u64>();
                        if !in_place {
                            assert_eq!(left_out, changes, "{collective:?}, rank {rank}");
                        }
                        perform(&plan, &mut memory, &patterns);
                        assert_eq!(change.after.count_wrong(&memory, &patterns), 0, "{collective:?}");
                        if let Some(last) = memory.last_mut() {
                            *last ^= 1;
                            assert_eq!(change.after.count_wrong(&memory, &patterns), 1);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_shifted_result_is_wrong() {
        let line = Line::new(rccl::Collective::Broadcast, DataType::U32, None, Some(0), 2, 400_000);
        let plan = Plan::new(line, false, 1);
        let change = Change::of_output(&plan);
        let data = Data { seed: 3, ranks: 2, op: None };
        let patterns = Patterns::<u32>::new(&data, plan.output, &[&change.before, &change.after]);
        let mut memory = vec![0; plan.output];
        change.before.fill(&mut memory, &patterns);
        perform(&plan, &mut memory, &patterns);
        memory.rotate_left(1);
        assert!(change.after.count_wrong(&memory, &patterns) > 99_000);
    }
}
