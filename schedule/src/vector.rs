//! The vector that a call is about: blocks of elements, and the windows that buffers are on it.
//!
//! Every element of a call has one place in the vector, and every buffer of every rank shows some of its blocks. The
//! vector of all_gather, for instance, is what all ranks have in the end, one block from each: a rank's input shows one
//! block of it, the output all. In all_to_all it has a block for each ordered pair of ranks: the input shows a row of
//! that matrix, the output a column. So an element has the same name wherever it is, and an operation covers the same
//! [extent](crate::Extent) of the vector in every buffer that it touches and at both ends of its messages, although it
//! lies elsewhere in each of them.

use std::sync::Arc;

/// Which blocks of the vector a buffer holds, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// Blocks `first`, `first + step`, …, `len` of them.
    Run {
        /// The first block.
        first: u32,
        /// From one block to the next, at least 1.
        step: u32,
        /// How many.
        len: u32,
    },
    /// Any blocks, ascending.
    List(Arc<[u32]>),
}

impl Window {
    /// Shows nothing.
    pub const NONE: Window = Window::Run { first: 0, step: 1, len: 0 };

    /// Shows one block.
    pub const fn block(block: u32) -> Window {
        Window::Run { first: block, step: 1, len: 1 }
    }
    /// Shows neighbouring blocks.
    pub const fn blocks(first: u32, len: u32) -> Window {
        Window::Run { first, step: 1, len }
    }
    /// Shows these blocks, in ascending order.
    pub fn of(blocks: impl IntoIterator<Item = u32>) -> Window {
        let mut blocks: Vec<u32> = blocks.into_iter().collect();
        blocks.sort_unstable();
        blocks.dedup();
        match blocks[..] {
            [] => Window::NONE,
            [first, .., last] if (last - first) as usize == blocks.len() - 1 => {
                Window::blocks(first, blocks.len() as u32)
            }
            [only] => Window::block(only),
            _ => Window::List(blocks.into()),
        }
    }
    /// How many blocks it shows.
    #[inline]
    pub fn len(&self) -> u32 {
        match self {
            Window::Run { len, .. } => *len,
            Window::List(blocks) => blocks.len() as u32,
        }
    }
    /// Whether it shows nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many blocks lie before `block` in the buffer; `None` if it is not shown.
    #[inline]
    pub fn position(&self, block: u32) -> Option<u32> {
        match self {
            Window::Run { first, step, len } => {
                let behind = block.checked_sub(*first)?;
                if *step == 1 {
                    return (behind < *len).then_some(behind); // nearly always, and a division takes longer than all else
                }
                (behind % step == 0 && behind / step < *len).then_some(behind / step)
            }
            Window::List(blocks) => blocks.binary_search(&block).ok().map(|position| position as u32),
        }
    }
    /// The block at a position, which is less than [`Window::len`].
    #[inline]
    pub fn at(&self, position: u32) -> u32 {
        match self {
            Window::Run { first, step, .. } => first + step * position,
            Window::List(blocks) => blocks[position as usize],
        }
    }
    /// Whether blocks `from..to`, at least one, lie in the buffer one behind the other.
    pub fn shows(&self, from: u32, to: u32) -> bool {
        let (Some(first), Some(last)) = (self.position(from), self.position(to - 1)) else { return false };
        last - first == to - 1 - from
    }
    /// Whether its blocks ascend and are all among the first `blocks`.
    pub(crate) fn is_of(&self, blocks: u32) -> bool {
        match self {
            Window::Run { len: 0, step, .. } => *step > 0,
            Window::Run { first, step, len } => {
                *step > 0 && u64::from(*first) + u64::from(*step) * u64::from(len - 1) < u64::from(blocks)
            }
            Window::List(list) => {
                list.windows(2).all(|pair| pair[0] < pair[1]) && list.last().is_none_or(|&last| last < blocks)
            }
        }
    }
}

/// How many elements each block of a call's vector has: one number for all of them, a slice with one for each, or
/// whatever a caller keeps.
///
/// A rank need not know blocks that neither its buffers show nor its program touches: those between other ranks in a
/// call whose counts vary. Nothing asks for them but [`Program::elements`](crate::Program::elements).
pub trait Sizes {
    /// Elements of a block.
    fn of(&self, block: u32) -> u64;
    /// Elements of blocks `from..to`.
    fn sum(&self, from: u32, to: u32) -> u64 {
        (from..to).map(|block| self.of(block)).sum()
    }
    /// Elements before a position in a window.
    fn before(&self, window: &Window, position: u32) -> u64 {
        (0..position).map(|position| self.of(window.at(position))).sum()
    }
}

/// All blocks have this many.
impl Sizes for u64 {
    fn of(&self, _: u32) -> u64 {
        *self
    }
    fn sum(&self, from: u32, to: u32) -> u64 {
        self * u64::from(to - from)
    }
    fn before(&self, _: &Window, position: u32) -> u64 {
        self * u64::from(position)
    }
}

/// Block by block.
impl Sizes for [u64] {
    fn of(&self, block: u32) -> u64 {
        self[block as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_know_their_blocks() {
        let column = Window::Run { first: 2, step: 4, len: 3 };
        assert_eq!((0..3).map(|i| column.at(i)).collect::<Vec<_>>(), [2, 6, 10]);
        assert_eq!((column.position(6), column.position(7), column.position(14)), (Some(1), None, None));
        assert!(column.shows(6, 7) && !column.shows(6, 8));
        let list = Window::of([7, 1, 2]);
        assert_eq!((list.len(), list.position(7), list.position(3)), (3, Some(2), None));
        assert!(list.shows(1, 3) && !list.shows(2, 8));
        assert_eq!(Window::of([5, 4, 3]), Window::blocks(3, 3));
        assert_eq!(Window::of([]), Window::NONE);
        assert!(
            column.is_of(11) && !column.is_of(10) && list.is_of(8) && !list.is_of(7) && Window::NONE.is_of(1)
        );
        assert!(!Window::List([2, 2].into()).is_of(3) && !Window::Run { first: 0, step: 0, len: 2 }.is_of(3));
    }

    #[test]
    fn sizes_add_up() {
        let sizes: &[u64] = &[3, 0, 5, 2];
        let odd = Window::Run { first: 1, step: 2, len: 2 };
        assert_eq!((sizes.sum(1, 4), sizes.before(&odd, 1), sizes.before(&odd, 2)), (7, 0, 2));
        assert_eq!((4_u64.sum(1, 4), 4_u64.before(&odd, 2)), (12, 8));
    }
}
