//! What lies in a rank's memory before a call, and what must lie there afterwards.
//!
//! An array is a list of parts of the ranks' patterns. A pattern repeats after a prime number of elements, so that no
//! displacement by a block, chunk or page goes unnoticed, and long arrays cost no more to make than to copy.

use super::call::Call;
use super::sample::Sample;
use super::stream::Stream;
use rccl::Collective;
use std::rc::Rc;

const PERIOD: usize = 4099;

/// Elements that repeat.
#[derive(Clone)]
pub struct Pattern<T>(Rc<[T]>);

/// `len` elements of a pattern, from its element `from` on.
#[derive(Clone)]
pub struct Part<T> {
    pattern: Pattern<T>,
    from: usize,
    len: usize,
}

/// An array, part by part.
#[derive(Clone)]
pub struct Array<T>(pub Vec<Part<T>>);

/// A call's two arrays on one rank; where it works in place, or has one array only, the second is empty.
pub struct Arrays<T> {
    pub x: Array<T>,
    pub out: Array<T>,
    pub x_after: Array<T>,
    pub out_after: Array<T>,
}

impl<T: Sample> Pattern<T> {
    /// What `rank` passes to `call`.
    fn of(call: &Call, rank: usize) -> Pattern<T> {
        let mut stream = Stream(call.seed ^ (rank as u64) << 48);
        Pattern((0..PERIOD.min(call.longest())).map(|_| T::input(call.op, stream.bits())).collect())
    }

    /// All ranks' elements combined.
    fn combined(call: &Call, patterns: &[Pattern<T>]) -> Pattern<T> {
        let Some(op) = call.op else { unreachable!("{call} does not reduce") };
        let scalars: Vec<T> = (0..call.ranks).map(|rank| T::scalar(call.scalar_bits(rank))).collect();
        let mut operands = Vec::with_capacity(call.ranks);
        let combine = |i: usize| {
            operands.clear();
            operands.extend(patterns.iter().map(|pattern| pattern.0[i]));
            T::combine(op, &operands, &scalars)
        };
        Pattern((0..patterns[0].0.len()).map(combine).collect())
    }

    fn all(&self, len: usize) -> Array<T> {
        self.part(0, len)
    }

    fn part(&self, from: usize, len: usize) -> Array<T> {
        Array(vec![Part { pattern: self.clone(), from, len }])
    }
}

impl<T: Sample> Array<T> {
    pub fn none() -> Array<T> {
        Array(Vec::new())
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|part| part.len).sum()
    }

    fn concat(arrays: impl IntoIterator<Item = Array<T>>) -> Array<T> {
        Array(arrays.into_iter().flat_map(|array| array.0).collect())
    }

    /// Calls `each` with ranges of the array and what belongs there.
    fn pieces(&self, mut each: impl FnMut(std::ops::Range<usize>, &[T])) {
        let mut at = 0;
        for part in &self.0 {
            let (mut from, mut left) = (part.from % part.pattern.0.len().max(1), part.len);
            while left > 0 {
                let piece = &part.pattern.0[from..][..left.min(part.pattern.0.len() - from)];
                each(at..at + piece.len(), piece);
                (at, left, from) = (at + piece.len(), left - piece.len(), 0);
            }
        }
    }

    /// Writes it.
    pub fn write(&self, to: &mut [T]) {
        assert_eq!(self.len(), to.len());
        self.pieces(|range, piece| to[range].copy_from_slice(piece));
    }

    /// Compares it bit by bit; says what differs.
    pub fn compare(&self, with: &[T]) -> Result<(), String> {
        let bytes = bytemuck::cast_slice::<T, u8>;
        let mut wrong: Option<(usize, usize, usize, String)> = None;
        self.pieces(|range, piece| {
            if bytes(&with[range.clone()]) == bytes(piece) {
                return;
            }
            for (i, right) in range.zip(piece) {
                if bytes(&with[i..=i]) != bytemuck::bytes_of(right) {
                    let first =
                        format!("{:02x?} is not {:02x?}", bytes(&with[i..=i]), bytemuck::bytes_of(right));
                    let (.., last, count, _) = wrong.get_or_insert((i, i, 0, first));
                    (*last, *count) = (i, *count + 1);
                }
            }
        });
        let Some((first, last, count, how)) = wrong else { return Ok(()) };
        Err(format!(
            "{count} of {} elements are wrong, from {first} to {last}; at {first} {how}; the array begins {} bytes after a line",
            with.len(),
            with.as_ptr().addr() % 64
        ))
    }
}

impl Call {
    /// Elements of the longest array.
    fn longest(&self) -> usize {
        let of_rank = |rank| {
            let row: usize = self.row(rank).iter().sum();
            row.max(self.column(rank).iter().sum())
        };
        (0..self.ranks).map(of_rank).max().unwrap_or(0).max(self.count)
    }

    /// A rank's arrays. Memory that is not looked at, and what outputs hold before, is made of `own` bits.
    pub fn arrays<T: Sample>(&self, rank: usize, in_place: bool, own: &mut Stream) -> Arrays<T> {
        let (n, count, is_root) = (self.ranks, self.count, rank == self.root);
        let patterns: Vec<Pattern<T>> = (0..n).map(|rank| Pattern::of(self, rank)).collect();
        let combined = || Pattern::combined(self, &patterns);
        let (row, before) = (self.row(rank), |blocks: &[usize], rank: usize| -> usize {
            blocks[..rank].iter().sum::<usize>()
        });
        let sum: usize = row.iter().sum();
        let (mine, of_root) = (&patterns[rank], &patterns[self.root]);
        let first = before(&row, rank);
        // A block of one's own pattern replaced.
        let with_block = |block: Array<T>| {
            let after = first + block.len();
            Array::concat([mine.all(first), block, mine.part(after, sum - after)])
        };
        let gathered = || Array::concat((0..n).map(|from| patterns[from].all(row[from])));
        // Its block of an array that is gathered in place is what it passes otherwise.
        let amid = || {
            let after = first + row[rank];
            Array::concat([mine.part(1, first), mine.all(row[rank]), mine.part(3, sum - after)])
        };

        let (x, x_after, out_after) = match (self.collective, in_place) {
            (Collective::AllReduce, true) => (mine.all(count), combined().all(count), None),
            (Collective::AllReduce, false) => (mine.all(count), mine.all(count), Some(combined().all(count))),
            (Collective::Reduce, true) if is_root => (mine.all(count), combined().all(count), None),
            (Collective::Reduce, true) => (mine.all(count), mine.all(count), None),
            (Collective::Reduce, false) => {
                (mine.all(count), mine.all(count), is_root.then(|| combined().all(count)))
            }
            (Collective::Broadcast, true) => (mine.all(count), of_root.all(count), None),
            (Collective::Broadcast, false) => (mine.all(count), mine.all(count), Some(of_root.all(count))),
            (Collective::ReduceScatter, true) => {
                (mine.all(sum), with_block(combined().part(first, count)), None)
            }
            (Collective::ReduceScatter | Collective::ReduceScatterV, false) => {
                (mine.all(sum), mine.all(sum), Some(combined().part(first, row[rank])))
            }
            (Collective::Scatter, true) if is_root => (mine.all(sum), mine.all(sum), None),
            (Collective::Scatter, true) => (mine.all(sum), with_block(of_root.part(first, count)), None),
            (Collective::Scatter | Collective::ScatterV, false) => {
                let x = if is_root { mine.all(sum) } else { mine.all(own.below(3).min(sum)) };
                (x.clone(), x, Some(of_root.part(first, row[rank])))
            }
            (Collective::Gather, true) if !is_root => (amid(), amid(), None),
            (Collective::Gather | Collective::AllGather, true) => (amid(), gathered(), None),
            (Collective::Gather | Collective::GatherV, false) => {
                (mine.all(row[rank]), mine.all(row[rank]), is_root.then(gathered))
            }
            (Collective::AllGather | Collective::AllGatherV, false) => {
                (mine.all(row[rank]), mine.all(row[rank]), Some(gathered()))
            }
            (Collective::AllToAll | Collective::AllToAllV, _) => {
                let from = |from: usize| {
                    let row = self.row(from);
                    patterns[from].part(before(&row, rank), row[rank])
                };
                (mine.all(sum), mine.all(sum), Some(Array::concat((0..n).map(from))))
            }
            (Collective::Send, _) => {
                let x = if rank == self.from { mine.all(count) } else { Array::none() };
                (x.clone(), x, is_root.then(|| patterns[self.from].all(count)))
            }
            _ => (Array::none(), Array::none(), None),
        };
        let len = out_after.as_ref().map_or_else(|| if in_place { 0 } else { own.below(3) }, Array::len);
        let filling = Pattern((0..PERIOD.min(len)).map(|_| T::of_bits(own.bits())).collect());
        let out = filling.all(len);
        Arrays { x, x_after, out_after: out_after.unwrap_or_else(|| out.clone()), out }
    }
}
