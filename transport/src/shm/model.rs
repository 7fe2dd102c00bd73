//! What a model check drives: the shipped ring, credit and wake protocol, with loom's atomics underneath. Built under
//! `cfg(loom)` only; the checks are in `tests/loom.rs`.

use super::announce::Announcer;
use super::credit::Credit;
use super::end;
use super::layout::Options;
use super::line;
use super::reach::{Found, Reach};
use super::ring::{LineReader, LineWriter};
use super::wake::{self, Doorbell, Fences};
use super::wire::Wire;
use crate::link::{Kind, Place, Result, Tag};
use crate::sync::Ordering;
use std::sync::Arc;

/// The writing side of a ring, with the reader's credit.
pub struct Writer {
    wire: Wire,
    back: Wire,
    lines: LineWriter,
}

/// The reading side.
pub struct Reader {
    wire: Wire,
    back: Wire,
    lines: LineReader,
}

/// A ring of `lines` lines.
pub fn ring(lines: u32) -> (Writer, Reader) {
    let (wire, back) = (Wire::leaked(lines, 64), Wire::leaked(1, 64));
    (Writer { wire, back, lines: LineWriter::new() }, Reader { wire, back, lines: LineReader::new() })
}

impl Writer {
    /// Publishes one line if there is room.
    pub fn publish(&mut self, call: [u64; 2], word: u64) -> bool {
        let credit = Credit::from_bits(self.back.control().credit.0.load(Ordering::Acquire));
        assert!(self.lines.credit(credit.taken), "more lines were taken than written");
        if self.lines.free(&self.wire) == 0 {
            return false;
        }
        let head = line::inline_head(Tag { sequence: word as u32, call }, 8);
        self.lines.publish(&self.wire, head, call, &[word]);
        true
    }
}

impl Reader {
    /// Takes the next line and gives it back.
    pub fn take(&mut self) -> Option<(u32, [u64; 2], u64)> {
        let (head, line) = self.lines.look(&self.wire)?;
        let word = |index: usize| line.words[index].load(Ordering::Relaxed);
        let taken = (line::sequence(head), [word(1), word(2)], word(3));
        self.lines.advance();
        let credit = Credit { taken: self.lines.taken, ..Credit::default() };
        self.back.control().credit.0.store(credit.to_bits(), Ordering::Release);
        Some(taken)
    }
}

/// One end of the sleeping protocol over a pair of wires.
pub struct Sleeper {
    own: Wire,
    reader: LineReader,
    news: Wire,
}

/// The other end of it.
pub struct Waker {
    own: Announcer,
    peer: Wire,
}

/// A sleeper and the waker that sends it lines.
pub fn sleeping() -> (Sleeper, Waker) {
    let (own, news) = (Wire::leaked(1, 64), Wire::leaked(4, 64));
    (Sleeper { own, reader: LineReader::new(), news }, Waker { own: Announcer::new(news), peer: own })
}

impl Sleeper {
    /// As `Link::arm`: `false` if a line is there.
    pub fn arm(&mut self) -> bool {
        wake::fall_asleep(&self.own.control().sleep.0, Fences::of_process());
        let news = self.reader.look(&self.news).is_some();
        if news {
            wake::wake_up(&self.own.control().sleep.0);
        }
        !news
    }
    /// As `Link::disarm`, less the doorbell.
    pub fn disarm(&mut self) {
        wake::wake_up(&self.own.control().sleep.0);
    }
    /// Takes a line.
    pub fn take(&mut self) -> bool {
        let there = self.reader.look(&self.news).is_some();
        if there {
            self.reader.advance();
        }
        there
    }
}

impl Waker {
    /// Publishes a line; `true` if the bell must be rung.
    pub fn send(&mut self) -> bool {
        self.own.inline(Tag::default(), 0, &[]);
        wake::claim_sleeper(&self.peer.control().sleep.0, Fences::of_process())
    }
}

/// Both ends of a whole link. Places are addresses in this process.
pub fn link() -> (end::End<Within>, end::End<Within>) {
    let options = Options { lines: 4, staging_bytes: 512, slot: 256, eager: 128 };
    let wires = [Wire::leaked(4, 512), Wire::leaked(4, 512)];
    let bell = || Arc::new(Doorbell::new().expect("an eventfd"));
    let make = |wires| {
        let peer = Doorbell::from_descriptor(bell().share().expect("a descriptor"));
        // SAFETY: each wire has one writing end, and is never given back.
        unsafe { end::End::new(wires, &options, bell(), peer, Within) }
    };
    (make(wires), make([wires[1], wires[0]]))
}

/// Every address is mapped.
pub struct Within;

impl Reach for Within {
    const KIND: Kind = Kind::Loopback;
    fn offer(&self, place: Place) -> Option<Place> {
        Some(place)
    }
    fn find(&self, place: Place, _len: u64) -> Result<Found> {
        Ok(Found::Mapped(std::ptr::with_exposed_provenance_mut(place.offset() as usize)))
    }
    unsafe fn copy_out(&self, _: u64, _: *mut u8, _: usize) -> Result<usize> {
        Ok(0)
    }
    unsafe fn copy_in(&self, _: u64, _: *const u8, _: usize) -> Result<usize> {
        Ok(0)
    }
}
