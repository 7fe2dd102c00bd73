//! The memory that one end writes and the other reads, as types over shared memory.
//!
//! Everything that both processes touch is an atomic, so shared references to it are sound whatever the peer does;
//! the bytes of the staging area are only ever touched through raw pointers.

use std::ptr::NonNull;

use crate::link::WINDOW;
use crate::sync::{AtomicU32, AtomicU64};

/// Keeps its content two cache lines away from the rest: adjacent lines are fetched in pairs.
#[repr(C, align(128))]
pub(super) struct Apart<T>(pub(super) T);

/// What one end tells the other by overwriting, other than lines; see the drawing in [`super`].
#[repr(C)]
pub(super) struct Control {
    /// Packed [`super::credit::Credit`].
    pub(super) credit: Apart<AtomicU64>,
    /// Whether the writer sleeps.
    pub(super) sleep: Apart<Sleep>,
    /// How far messages have come, by message number modulo the window.
    pub(super) moved: Apart<[Moved; WINDOW]>,
}

/// Lap and bytes of two messages with the same number, one in each direction. A rank of a symmetric program counts both
/// at the same moment, and its peer waits for both: they share a cache line.
#[repr(C)]
pub(super) struct Moved {
    /// Of the message that the writer pulls.
    pub(super) released: AtomicU64,
    /// Of the message that the writer lands in the reader's memory.
    pub(super) landed: AtomicU64,
}

/// The flag of the sleeping protocol; see [`super::wake`].
#[repr(C)]
pub(super) struct Sleep {
    /// 1 while the owner of this word sleeps or is about to.
    pub(super) flag: AtomicU32,
    /// 1 when the owner makes all other CPUs pass a barrier before it sleeps, so that its waker needs none.
    pub(super) asymmetric: AtomicU32,
}

/// Words of a line: four cache lines, of which a message uses those that it fills, one after the other, which processors
/// fetch in pairs and ahead (2 ranks, all_reduce of 64 B and 128 B: 0.37 and 0.40 us in such a line, 0.56 and 0.55 in
/// one of 8 words and a slot; lines of 16 words 0.38 and 0.51; 8 B takes 0.37 in all three).
pub(super) const LINE_WORDS: usize = 32;

/// One announcement; see [`super::line`].
#[repr(C, align(256))]
pub(super) struct Line {
    pub(super) words: [AtomicU64; LINE_WORDS],
}

#[cfg(not(loom))]
const _: () = {
    use std::mem::{offset_of, size_of};
    assert!(size_of::<Line>() == 256);
    assert!(offset_of!(Control, sleep) == 0x80);
    assert!(offset_of!(Control, moved) == 0x100);
    assert!(size_of::<Moved>() == 16);
    assert!(size_of::<Control>() == 0x300);
};

/// Everything that one end writes: control block, ring of lines, staging area.
#[derive(Clone, Copy)]
pub(crate) struct Wire {
    control: NonNull<Control>,
    lines: NonNull<Line>,
    mask: u32,
    staging: NonNull<u8>,
}

// SAFETY: a `Wire` is a set of pointers to memory that outlives the end that holds it and that is only accessed
// through atomics, or through raw pointers in the order that those atomics fix.
unsafe impl Send for Wire {}

impl Wire {
    /// # Safety
    /// `control`, the `lines` (a power of two) that begin at `first`, and `staging` are zeroed or in use as such,
    /// correctly aligned, and outlive every use of the `Wire`.
    pub(super) unsafe fn new(
        control: NonNull<Control>,
        first: NonNull<Line>,
        lines: u32,
        staging: NonNull<u8>,
    ) -> Wire {
        Wire { control, lines: first, mask: lines - 1, staging }
    }

    #[inline]
    pub(super) fn control(&self) -> &Control {
        // SAFETY: valid for as long as `self` is used (`Wire::new`), and made of atomics only.
        unsafe { self.control.as_ref() }
    }

    /// The line that number `number` goes to.
    #[inline]
    pub(super) fn line(&self, number: u32) -> &Line {
        // SAFETY: the index is below the number of lines, all of which are part of one allocation.
        let line = unsafe { self.lines.add((number & self.mask) as usize) };
        // SAFETY: valid for as long as `self` is used (`Wire::new`), and made of atomics only.
        unsafe { line.as_ref() }
    }

    /// Number of lines.
    pub(super) fn lines(&self) -> u32 {
        self.mask + 1
    }

    /// First byte of the staging area.
    pub(super) fn staging(&self) -> *mut u8 {
        self.staging.as_ptr()
    }

    /// Zeroed memory of a wire that is never given back: what a model check runs on.
    #[cfg(loom)]
    pub(super) fn leaked(lines: u32, staging_bytes: usize) -> Wire {
        let moved = |_| Moved { released: AtomicU64::new(0), landed: AtomicU64::new(0) };
        let control = Control {
            credit: Apart(AtomicU64::new(0)),
            sleep: Apart(Sleep { flag: AtomicU32::new(0), asymmetric: AtomicU32::new(0) }),
            moved: Apart(std::array::from_fn(moved)),
        };
        let ring: Vec<Line> =
            (0..lines).map(|_| Line { words: std::array::from_fn(|_| AtomicU64::new(0)) }).collect();
        let ring = NonNull::from(Box::leak(ring.into_boxed_slice())).cast();
        let staging = NonNull::from(Box::leak(vec![0u8; staging_bytes].into_boxed_slice())).cast();
        // SAFETY: all three were made for this and are never given back.
        unsafe { Wire::new(NonNull::from(Box::leak(Box::new(control))), ring, lines, staging) }
    }
}
