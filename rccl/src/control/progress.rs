//! Where a rank is in its program, written by its engine and read by the control thread at any time.

use crate::bootstrap::message::State;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// How many calls are remembered: a rank that has returned can still be compared with one that is this far behind.
const REMEMBERED: usize = 16;

/// The engine's place in the sequence of calls. Writing it costs a few plain stores.
///
/// Each slot is a seqlock of its own: its number is 0 while its words are being replaced, so a reader that sees the
/// same number before and after has seen the words that belong to it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Progress {
    entered: AtomicU32,
    completed: AtomicU32,
    slots: [Slot; REMEMBERED],
}

#[derive(Debug, Default)]
struct Slot {
    sequence: AtomicU32,
    words: [AtomicU64; 2],
}

impl Progress {
    /// The engine enters call number `sequence` (from 1) with this packed signature. One thread at a time.
    #[inline]
    pub(crate) fn enter(&self, sequence: u32, call: [u64; 2]) {
        let slot = &self.slots[sequence as usize % REMEMBERED];
        slot.sequence.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        slot.words[0].store(call[0], Ordering::Relaxed);
        slot.words[1].store(call[1], Ordering::Relaxed);
        slot.sequence.store(sequence, Ordering::Release);
        self.entered.store(sequence, Ordering::Release);
    }

    /// The engine has completed call number `sequence`.
    #[inline]
    pub(crate) fn leave(&self, sequence: u32) {
        self.completed.store(sequence, Ordering::Release);
    }

    /// The number of the call that the engine is in, 0 outside of calls.
    pub(crate) fn inside(&self) -> u32 {
        let completed = self.completed.load(Ordering::Acquire);
        let entered = self.entered.load(Ordering::Acquire);
        if entered == completed { 0 } else { entered }
    }

    /// What is known now. Numbers only grow, so a snapshot taken during a call may be old but is never invented.
    pub(crate) fn state(&self) -> State {
        let completed = self.completed.load(Ordering::Acquire);
        let entered = self.entered.load(Ordering::Acquire);
        let mut calls: Vec<(u32, [u64; 2])> = self.slots.iter().filter_map(Slot::read).collect();
        calls.sort_unstable_by_key(|&(sequence, _)| std::cmp::Reverse(entered.wrapping_sub(sequence)));
        State { entered, completed, calls }
    }
}

impl Slot {
    fn read(&self) -> Option<(u32, [u64; 2])> {
        let sequence = self.sequence.load(Ordering::Acquire);
        let words = [self.words[0].load(Ordering::Relaxed), self.words[1].load(Ordering::Relaxed)];
        fence(Ordering::Acquire);
        (sequence != 0 && self.sequence.load(Ordering::Relaxed) == sequence).then_some((sequence, words))
    }
}

/// Whether call number `a` comes before `b`; the numbers wrap around.
pub(crate) fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_calls_are_remembered() {
        let progress = Progress::default();
        assert_eq!(progress.state(), State::default());
        for sequence in 1..=40 {
            progress.enter(sequence, [u64::from(sequence), 7]);
            assert_eq!(progress.inside(), sequence);
            progress.leave(sequence);
        }
        let state = progress.state();
        assert_eq!((state.entered, state.completed, progress.inside()), (40, 40, 0));
        assert_eq!(
            state.calls,
            (25..=40).map(|sequence| (sequence, [u64::from(sequence), 7])).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_reader_never_sees_the_words_of_another_call() {
        let progress = Progress::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for sequence in 1..200_000_u32 {
                    progress.enter(sequence, [u64::from(sequence), !u64::from(sequence)]);
                    progress.leave(sequence);
                }
            });
            for _ in 0..2_000 {
                for (sequence, words) in progress.state().calls {
                    assert_eq!(words, [u64::from(sequence), !u64::from(sequence)]);
                }
            }
        });
    }

    #[test]
    fn numbers_wrap() {
        assert!(before(1, 2) && !before(2, 2) && before(u32::MAX, 1) && !before(1, u32::MAX));
    }
}
