//! Short calls that come again: what is the same each time is kept, so that only the memory differs.
//!
//! A training loop makes the same few calls over and over, and finding the program of a short one, binding it to lengths
//! and choosing its kernel took a third of its instructions: a broadcast of 8 B costs its root 1,250 instead of 1,890, an
//! all_reduce 1,870 instead of 2,350 (callgrind, a benchmark's loop around the call included).

use super::drive::{Outcome, Stage, Watch};
use super::round::Round;
use super::run::{Area, StepState};
use super::straight::Straight;
use super::{Active, Engine, Lengths, Task};
use crate::call::Call;
use crate::error::Result;
use rccl_kernels::Kernel;
use rccl_transport::Tag;
use std::time::Duration;

/// How many calls are kept: more than a step of training makes, few enough to look through.
const KEPT: usize = 16;

/// A short call that was run before.
struct Known {
    /// Its signature; `None`: its steps are with a run that waits, and this place is free.
    words: Option<[u64; 2]>,
    /// Of its plan.
    number: usize,
    /// Bytes, if it is one round.
    round: Option<usize>,
    kernel: Kernel,
    element: u64,
    /// Its bound steps, and its buffers, the first two of which are the user's.
    steps: Vec<StepState>,
    areas: Vec<Area>,
}

// SAFETY: the areas are memory of the engine's own, and the user's only while a call runs.
unsafe impl Send for Known {}

/// The calls that are kept, the oldest replaced first.
#[derive(Default)]
pub(super) struct Repertoire {
    known: Vec<Known>,
    oldest: usize,
}

impl Repertoire {
    /// Memory of the engine's own has moved.
    pub fn forget(&mut self) {
        self.known.clear();
        self.oldest = 0;
    }

    #[inline]
    fn find(&self, words: [u64; 2]) -> Option<usize> {
        self.known.iter().position(|known| known.words == Some(words))
    }

    /// A place for one more: one that is free, else the oldest's.
    fn place(&mut self, kernel: Kernel) -> &mut Known {
        let at = if let Some(free) = self.known.iter().position(|known| known.words.is_none()) {
            free
        } else if self.known.len() < KEPT {
            let (steps, areas) = (Vec::new(), Vec::new());
            self.known.push(Known { words: None, number: 0, round: None, kernel, element: 1, steps, areas });
            self.known.len() - 1
        } else {
            let at = self.oldest;
            self.oldest = (at + 1) % KEPT;
            at
        };
        &mut self.known[at]
    }
}

/// What came of a short call.
pub(crate) enum Again {
    Ended(Result<()>),
    /// It has waited for as long as it was to, and is under way.
    Waits,
}

impl Engine {
    /// Runs a short call that was run before, for as long as its waits are no longer than `slice` in all. `None`: it is none
    /// of those that are kept.
    ///
    /// # Safety
    /// As for [`Engine::execute`].
    #[inline]
    pub(super) unsafe fn again(
        &mut self,
        call: &Call,
        input: *mut u8,
        output: *mut u8,
        slice: Duration,
    ) -> Option<Again> {
        let words = call.pack();
        let at = self.repertoire.find(words)?;
        if let Err(error) = self.check() {
            return Some(Again::Ended(Err(error)));
        }
        self.enter(words);
        self.space.now.tag = Tag { sequence: self.sequence, call: words };
        let Known { number, round, kernel, element, .. } = self.repertoire.known[at];
        self.space.now.kernel = kernel;
        self.space.now.element = element;
        self.space.now.streaming = false;
        self.space.now.rounds = 0;
        self.space.state.tags.clear();
        self.swap(at);
        // Every message is eager: nobody needs to find this memory.
        self.space.now.areas[0] = Area { base: input, place: None };
        self.space.now.areas[1] = Area { base: output, place: None };
        let mut stage = match round {
            Some(bytes) => Stage::Round(Round::default(), bytes),
            None => Stage::Straight(Straight::default()),
        };
        let mut watch = Watch::new(false);
        let Some(outcome) = self.drive(number, &mut stage, &mut watch, slice) else {
            // Its steps stay where a run finds them, and are not those of what was bound before.
            self.repertoire.known[at].words = None;
            self.space.state.forget();
            self.allowed = self.timeout;
            let sizes = Lengths::Equal(call.count);
            let task =
                Task::Collective { call: *call, sizes, input: input.cast_const(), output, scale: None };
            self.active = Some(Active { call: *call, task, number, stage, watch });
            return Some(Again::Waits);
        };
        self.swap(at);
        Some(Again::Ended(self.end(call, outcome)))
    }

    /// Puts a kept call's steps and buffers where a run finds them, or back.
    #[inline]
    fn swap(&mut self, at: usize) {
        let known = &mut self.repertoire.known[at];
        std::mem::swap(&mut known.steps, &mut self.space.state.steps);
        std::mem::swap(&mut known.areas, &mut self.space.now.areas);
    }

    /// Keeps a collective call that has just ended, if it was a short one.
    pub(super) fn remember(&mut self, active: &Active, outcome: &Outcome) {
        let round = match active.stage {
            Stage::Round(_, bytes) => Some(bytes),
            Stage::Straight(_) => None,
            Stage::Linking | Stage::Steps => return,
        };
        let words = active.call.pack();
        // A region of the engine's own may be replaced by a larger one; what short calls need is on the heap.
        let in_regions = self.space.now.areas.iter().skip(2).any(|area| area.place.is_some());
        let needless = in_regions || !active.repeats() || self.repertoire.find(words).is_some();
        if needless || !matches!(outcome, Outcome::Done) {
            return;
        }
        let known = self.repertoire.place(self.space.now.kernel);
        (known.words, known.number, known.round) = (Some(words), active.number, round);
        (known.kernel, known.element) = (self.space.now.kernel, self.space.now.element);
        known.areas.clone_from(&self.space.now.areas);
        known.steps.clear();
        if round.is_none() {
            known.steps.extend_from_slice(&self.space.state.steps);
        }
    }
}
