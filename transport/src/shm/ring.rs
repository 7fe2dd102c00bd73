//! The ring of lines: one writer, one reader, no lock.
//!
//! The writer fills the words of a line and stores the head last, with release order; the head's low 16 bits are the
//! line's number plus one, so a reader knows a new line from what lay there a lap before (and from the zeroes of the
//! first lap). The writer takes a line again only after the reader's credit says that it was taken.

use super::wire::{Line, Wire};
use crate::sync::Ordering;

/// The writing side.
pub(super) struct LineWriter {
    written: u32,
    taken: u32,
}

impl LineWriter {
    pub(super) fn new() -> LineWriter {
        LineWriter { written: 0, taken: 0 }
    }

    /// Lines that may be published now.
    #[inline]
    pub(super) fn free(&self, wire: &Wire) -> u32 {
        wire.lines() - self.written.wrapping_sub(self.taken)
    }

    /// Takes in the reader's count of lines taken; `false` if that count is impossible.
    #[inline]
    pub(super) fn credit(&mut self, taken: u32) -> bool {
        let possible = taken.wrapping_sub(self.taken) <= self.written.wrapping_sub(self.taken);
        if possible {
            self.taken = taken;
        }
        possible
    }

    /// Publishes one line: `head` (its low 16 bits zero) and the words that follow it. There must be a free line.
    #[inline]
    pub(super) fn publish(&mut self, wire: &Wire, head: u64, call: [u64; 2], words: &[u64]) {
        let line = wire.line(self.written);
        self.written = self.written.wrapping_add(1);
        line.words[1].store(call[0], Ordering::Relaxed);
        line.words[2].store(call[1], Ordering::Relaxed);
        for (to, &word) in line.words[3..].iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        line.words[0].store(head | u64::from(self.written as u16), Ordering::Release);
    }
}

/// The reading side.
pub(super) struct LineReader {
    /// Lines taken so far.
    pub(super) taken: u32,
}

impl LineReader {
    pub(super) fn new() -> LineReader {
        LineReader { taken: 0 }
    }

    /// The next line and its head, if it is there.
    #[inline]
    pub(super) fn look<'a>(&self, wire: &'a Wire) -> Option<(u64, &'a Line)> {
        let line = wire.line(self.taken);
        let head = line.words[0].load(Ordering::Acquire);
        (head as u16 == self.taken.wrapping_add(1) as u16).then_some((head, line))
    }

    /// The line was read. The writer may have it back once a credit with this count is published.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }
}
