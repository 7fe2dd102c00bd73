//! The state machine of one call: opens messages in order, moves chunks, notices the end.
//!
//! [`super::produce`] makes values, [`super::pump`] sends them on.
//!
//! A step without a receiving end is a *source*: its value lies in the caller's memory, and each of its sends advances
//! by itself. A step with receiving ends *produces* its value chunk by chunk, either straight to where it is wanted
//! (the caller's memory, a peer's mapped memory, a slot) or, when a send cannot take it from there yet, through an
//! *outbox* of a few chunks.

use super::Pool;
use super::plan::{End, Plan};
use rccl_kernels::Kernel;
use rccl_schedule::{Buffer, Dep, Rank};
use rccl_transport::{Link, LinkError, MessageId, Place, Source, Tag};

/// Most bytes that move between two looks at the peers.
pub(crate) const CHUNK: u64 = 32 << 10;

/// Shortest message in bytes that is copied straight between address spaces.
const COPIED_FROM: u64 = 16 << 10;

/// What became of opening a message.
enum Opened {
    /// Not now.
    Not,
    As(MessageId),
    /// It has been sent as a whole.
    Gone,
}

/// Why a call cannot go on.
pub(crate) enum Stop {
    /// The peer is in another call.
    Foreign { peer: Rank, theirs: Tag },
    /// The peer's message has another length although it belongs to the same call.
    Length { peer: Rank, expected: u64, given: u64 },
    /// The link broke.
    Link { peer: Rank, error: LinkError },
}

/// A buffer of the call's table.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub base: *mut u8,
    /// Where the peers find it, if they can.
    pub place: Option<Place>,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct StepState {
    /// First byte of the step's extent in every buffer.
    pub start: u64,
    pub len: u64,
    /// Bytes of the value that exist.
    pub moved: u64,
    pub produced: bool,
    pub ended: bool,
    pub outbox: Option<u32>,
}

/// How a message leaves: a [`rccl_transport::Sink`] that will not change any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Pulled,
    Mapped(*mut u8),
    Staged,
    Copy,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct EndState {
    pub opened: bool,
    pub closed: bool,
    pub eager: bool,
    pub message: MessageId,
    /// Bytes sent, or bytes of the current chunk that were fetched.
    pub at: u64,
    pub way: Option<Way>,
    pub source: Option<Source>,
    pub bounce: Option<u32>,
}

/// State that outlives a call so that a warm call allocates nothing.
#[derive(Default)]
pub(crate) struct State {
    pub steps: Vec<StepState>,
    pub ends: Vec<EndState>,
    pub next: Vec<u32>,
    pub inputs: Vec<*const u8>,
    pub outputs: Vec<*mut u8>,
    pub messages: Vec<MessageId>,
    /// What `steps` and `ends` are bound to: number of the plan, count, bytes of an element.
    bound: Option<(usize, u64, u64)>,
}

// SAFETY: the pointer lists are empty between calls; they only keep their capacity.
unsafe impl Send for State {}

pub(crate) struct Run<'a> {
    pub plan: &'a Plan,
    pub state: &'a mut State,
    pub links: &'a mut [Option<Box<dyn Link>>],
    pub pool: &'a mut Pool,
    pub kernel: Kernel,
    pub areas: &'a [Area],
    pub tag: Tag,
    pub element: u64,
    /// Most bytes of a chunk: [`CHUNK`], or what a slot of the links holds if that is less.
    pub chunk: u64,
    /// Large results are written past the caches.
    pub streaming: bool,
    /// Both ends of a copy in mapped memory work: the receiver pulls some messages, the sender pushes the others.
    pub shared_copies: bool,
    /// Steps that are of interest: from the first that has not ended to the last that may run.
    pub first: usize,
    pub last: usize,
    /// Ends of messages that are not open yet.
    pub unopened: usize,
    /// Polling a link costs a system call.
    pub dear_polls: bool,
    /// How often the links were polled.
    pub rounds: usize,
}

impl Run<'_> {
    /// Binds plan number `number` to `count` elements.
    pub fn bind(&mut self, number: usize, count: u64, eager: &[u64]) {
        let State { steps, ends, next, bound, .. } = &mut *self.state;
        self.first = 0;
        self.last = self.plan.local_until;
        next.clear();
        next.resize(self.plan.edges.len(), 0);
        self.unopened = self.plan.ends.len();
        let key = Some((number, count, self.element));
        if *bound == key {
            // The same call again, as in every training loop: only what moved is forgotten.
            for step in steps {
                *step = StepState { start: step.start, len: step.len, ..StepState::default() };
            }
            for end in ends {
                *end = EndState { eager: end.eager, ..EndState::default() };
            }
            return;
        }
        *bound = key;
        steps.clear();
        ends.clear();
        let program = &self.plan.program;
        let grain = program.grain(count);
        for (op, step) in program.ops.iter().zip(&self.plan.steps) {
            let range = op.extent.bind(count, grain);
            let start = range.start * self.element;
            let len = range.end * self.element - start;
            steps.push(StepState { start, len, ..StepState::default() });
            for end in &self.plan.ends[step.recvs.start..step.sends.end] {
                let eager = len <= eager[end.peer as usize];
                ends.push(EndState { eager, ..EndState::default() });
            }
        }
    }

    /// Opens what can be opened. `true`: something was.
    #[inline]
    pub fn open(&mut self) -> Result<bool, Stop> {
        if self.unopened == 0 { Ok(false) } else { self.open_more() }
    }

    fn open_more(&mut self) -> Result<bool, Stop> {
        let plan = self.plan;
        let mut did = false;
        for (edge, ends) in plan.edges.iter().enumerate() {
            while let Some(&end) = ends.get(self.state.next[edge] as usize) {
                if !self.open_end(end as usize)? {
                    break;
                }
                self.state.next[edge] += 1;
                self.unopened -= 1;
                self.last = self.last.max(plan.ends[end as usize].step as usize + 1);
                did = true;
            }
        }
        Ok(did)
    }

    /// Moves what can be moved. `true`: something was.
    pub fn advance(&mut self) -> Result<bool, Stop> {
        let mut did = false;
        for step in self.first..self.last {
            if !self.state.steps[step].ended {
                did |= self.advance_step(step)?;
            }
        }
        while self.state.steps.get(self.first).is_some_and(|step| step.ended) {
            self.first += 1;
        }
        Ok(did)
    }

    /// Whether every step has ended.
    pub fn done(&self) -> bool {
        self.first == self.plan.steps.len()
    }

    /// Publishes what was announced, and takes in what the peers announced.
    pub fn exchange(&mut self) -> Result<(), Stop> {
        self.rounds = self.rounds.wrapping_add(1);
        let waits_for = if self.dear_polls { self.waits_for() } else { None };
        for (i, &peer) in self.plan.peers.iter().enumerate() {
            let link = link(self.links, peer);
            let polls =
                waits_for.is_none_or(|awaited| awaited == peer || self.rounds % self.plan.peers.len() == i);
            let done = link.flush().and_then(|()| if polls { link.poll() } else { Ok(()) });
            if let Err(error) = done {
                self.tolerate(peer, error)?;
            }
        }
        Ok(())
    }

    /// The one peer without which nothing moves, if nothing is being sent: what the others send is early. They are
    /// polled in turn (4 KiB on 8 ranks over TCP: 109 us instead of 118, 512 B: 94 instead of 111).
    fn waits_for(&self) -> Option<Rank> {
        let ends = &self.plan.ends;
        let sending = |(end, state): (&End, &EndState)| end.outgoing && state.opened && !state.closed;
        let first = self.plan.steps.get(self.first)?;
        if first.recvs.len() != 1 || ends.iter().zip(&self.state.ends).any(sending) {
            return None;
        }
        Some(ends[first.recvs.start].peer)
    }

    /// Whether nothing is left in the links that a peer waits for.
    pub fn drained(&self) -> bool {
        self.plan
            .peers
            .iter()
            .all(|&peer| self.links[peer as usize].as_ref().is_none_or(|link| link.drained()))
    }

    /// Publishes what was announced.
    pub fn flush(&mut self) -> Result<(), Stop> {
        for &peer in &self.plan.peers {
            if let Err(error) = link(self.links, peer).flush() {
                self.tolerate(peer, error)?;
            }
        }
        Ok(())
    }

    /// A peer that has done its part of the call may leave before this rank is done with the others.
    fn tolerate(&self, peer: Rank, error: LinkError) -> Result<(), Stop> {
        let mut ends = self.plan.ends.iter().zip(&self.state.ends);
        if ends.any(|(end, state)| end.peer == peer && !state.closed) {
            return Err(Stop::Link { peer, error });
        }
        Ok(())
    }

    fn open_end(&mut self, index: usize) -> Result<bool, Stop> {
        let end = &self.plan.ends[index];
        let (s, peer) = (end.step as usize, end.peer);
        let StepState { len, .. } = self.state.steps[s];
        let allowed = self.allowed(s);
        if allowed == 0 && len > 0 {
            return Ok(false);
        }
        let opened = if end.outgoing {
            self.open_send(index, allowed == len)
        } else {
            self.open_recv(index, allowed == len)
        };
        match opened.map_err(|error| Stop::Link { peer, error })? {
            Opened::Not => return Ok(false),
            Opened::Gone => {
                self.state.ends[index] =
                    EndState { opened: true, closed: true, at: len, ..self.state.ends[index] }
            }
            Opened::As(message) => {
                self.state.ends[index].message = message;
                self.state.ends[index].opened = true;
            }
        }
        Ok(true)
    }

    /// `whole`: all of the step may run. A place is granted for good, so only when its last user before is done with all
    /// of it.
    fn open_recv(&mut self, index: usize, whole: bool) -> Result<Opened, LinkError> {
        let end = &self.plan.ends[index];
        let step = &self.plan.steps[end.step as usize];
        let StepState { start, len, .. } = self.state.steps[end.step as usize];
        let eager = self.state.ends[index].eager;
        let plain = step.recvs.len() == 1 && step.own.is_none();
        let target = match step.store {
            Some(store) if plain && whole && !eager => place(self.areas, store, start, len),
            _ => None,
        };
        let message = link(self.links, end.peer).open_recv(self.tag, len, eager, target)?;
        Ok(message.map_or(Opened::Not, Opened::As))
    }

    fn open_send(&mut self, index: usize, whole: bool) -> Result<Opened, LinkError> {
        let end = &self.plan.ends[index];
        let s = end.step as usize;
        let step = &self.plan.steps[s];
        let StepState { start, len, .. } = self.state.steps[s];
        let eager = self.state.ends[index].eager;
        // What the sender does not offer, it writes itself in the place that the receiver grants.
        let push = self.shared_copies && s % 2 == 1;
        let source = match step.own {
            Some(own) if step.recvs.is_empty() && whole && !self.plan.program.snapshot && !push => {
                place(self.areas, own, start, len)
            }
            _ => None,
        };
        // Nothing is won by asking first for a short message that nobody can fetch.
        let unasked = source.is_none() && !push && len <= link(self.links, end.peer).limits().unasked as u64;
        if (eager || unasked)
            && (whole || !step.recvs.is_empty())
            && let Some(bytes) = self.whole_value(s)
        {
            // SAFETY: the value of `len` bytes exists, in the caller's memory or in the outbox.
            if unsafe { link(self.links, end.peer).send_eager(self.tag, bytes, len as usize) }? {
                return Ok(Opened::Gone);
            }
        }
        if eager {
            return Ok(Opened::Not);
        }
        let message = link(self.links, end.peer).open_send(self.tag, len, source)?;
        Ok(message.map_or(Opened::Not, Opened::As))
    }

    /// How many bytes of step `s` its dependencies allow.
    #[inline]
    pub(super) fn allowed(&self, s: usize) -> u64 {
        let len = self.state.steps[s].len;
        let after = &self.plan.steps[s].after;
        if after.is_empty() { len } else { self.allowed_after(after, len) }
    }

    fn allowed_after(&self, after: &[Dep], len: u64) -> u64 {
        let mut allowed = len;
        for dep in after {
            let earlier = &self.state.steps[dep.op as usize];
            if earlier.ended {
                continue;
            }
            let sends = &self.state.ends[self.plan.steps[dep.op as usize].sends.clone()];
            let through =
                sends.iter().map(|end| end.at).min().map_or(earlier.moved, |at| at.min(earlier.moved));
            allowed = if dep.whole { 0 } else { allowed.min(through) };
        }
        allowed
    }

    /// The value of step `s` if all of it lies in one piece of memory now.
    fn whole_value(&mut self, s: usize) -> Option<*const u8> {
        let StepState { start, len, produced, outbox, .. } = self.state.steps[s];
        let step = &self.plan.steps[s];
        if step.recvs.is_empty() {
            return step.own.map(|own| at(self.areas, own, start).cast_const());
        }
        if !produced {
            return None;
        }
        match (step.store, outbox) {
            (Some(store), _) => Some(at(self.areas, store, start).cast_const()),
            (None, Some(outbox)) => {
                debug_assert!(len <= Pool::BUFFER as u64);
                Some(self.pool.buffer(outbox).cast_const())
            }
            // An empty value is nowhere.
            (None, None) => Some(std::ptr::NonNull::dangling().as_ptr()),
        }
    }

    fn advance_step(&mut self, s: usize) -> Result<bool, Stop> {
        let plan = self.plan;
        let step = &plan.steps[s];
        let mut did = false;
        if !self.state.steps[s].produced {
            did |= if step.recvs.is_empty() { self.produce_local(s) } else { self.produce(s)? };
        }
        let mut over = self.state.steps[s].produced;
        for end in step.sends.clone() {
            if !self.state.ends[end].closed {
                did |= self.pump(s, end)?;
                over &= self.state.ends[end].closed;
            }
        }
        if over {
            let outbox = self.state.steps[s].outbox.take();
            self.pool.give_back(outbox);
            self.state.steps[s].ended = true;
            did = true;
        }
        Ok(did)
    }
}

pub(super) fn link(links: &mut [Option<Box<dyn Link>>], peer: Rank) -> &mut dyn Link {
    links[peer as usize].as_deref_mut().expect("the links of a plan are made before it runs")
}

pub(super) fn at(areas: &[Area], buffer: Buffer, offset: u64) -> *mut u8 {
    areas[buffer.0 as usize].base.wrapping_add(offset as usize)
}

/// Where peers find `len` bytes of a buffer, if it pays to go there: copies out of an address space cost a system call
/// and the pinning of pages, so a short message is staged instead.
pub(super) fn place(areas: &[Area], buffer: Buffer, offset: u64, len: u64) -> Option<Place> {
    let base = areas[buffer.0 as usize].place?;
    if base.region().is_none() && len < COPIED_FROM {
        return None;
    }
    Place::from_bits(base.to_bits() + offset)
}
