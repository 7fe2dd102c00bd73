//! The writing half of an end's lines: collects records, publishes lines, keeps account of the room.

use super::line::{Pending, Record, inline_head};
use super::ring::LineWriter;
use super::wire::Wire;
use crate::link::Tag;

/// Writes the lines of one end.
pub(super) struct Announcer {
    wire: Wire,
    pub(super) lines: LineWriter,
    pending: Pending,
    /// Lines promised to a reserved slot, whose commit must not fail.
    pub(super) promised: u32,
    /// Something was published since the last look at the peer's sleeping flag.
    pub(super) dirty: bool,
}

impl Announcer {
    pub(super) fn new(wire: Wire) -> Announcer {
        Announcer { wire, lines: LineWriter::new(), pending: Pending::new(), promised: 0, dirty: false }
    }

    /// Whether one more line can be begun.
    #[inline]
    pub(super) fn has_line(&self) -> bool {
        self.lines.free(&self.wire) > self.promised + u32::from(!self.pending.is_empty())
    }

    /// Whether a record with this tag finds room.
    #[inline]
    pub(super) fn has_room(&self, tag: Tag) -> bool {
        (!self.pending.is_empty() && self.pending.takes(tag)) || self.has_line()
    }

    /// Adds a record; there must be room.
    #[inline]
    pub(super) fn add(&mut self, tag: Tag, record: Record, number: u64, argument: u64) {
        if !self.pending.takes(tag) {
            self.publish();
        }
        self.pending.push(tag, record, number, argument);
    }

    /// Publishes an eager message in a line of its own; there must be a line.
    #[inline]
    pub(super) fn inline(&mut self, tag: Tag, len: usize, words: &[u64]) {
        self.publish();
        self.lines.publish(&self.wire, inline_head(tag, len), tag.call, words);
        self.dirty = true;
    }

    /// Publishes what was collected.
    #[inline]
    pub(super) fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let (head, call, words) = self.pending.line();
        self.lines.publish(&self.wire, head, call, words);
        self.pending.clear();
        self.dirty = true;
    }
}
