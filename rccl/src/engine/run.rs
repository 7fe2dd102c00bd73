//! The state machine of one call: opens messages in order, moves chunks, notices the end.
//!
//! [`super::produce`] makes values, [`super::pump`] sends them on.
//!
//! A step without a receiving end is a *source*: its value lies in the caller's memory, and each of its sends advances
//! by itself. A step with receiving ends *produces* its value chunk by chunk, either straight to where it is wanted
//! (the caller's memory, a peer's mapped memory, a slot) or, when a send cannot take it from there yet, through an
//! *outbox* that holds a few chunks.

use super::Pool;
use super::lengths::Lengths;
use super::plan::{End, Plan};
use crate::config::ChunkSize;
use crate::element::{DataType, ReduceOp};
use rccl_kernels::Kernel;
use rccl_schedule::{Buffer, Dep, Rank};
use rccl_transport::{Link, LinkError, MessageId, Place, Source, Tag};

/// Most bytes that move between two looks at the peers, unless a call has chunks of another size.
pub(crate) const CHUNK: u64 = 32 << 10;
/// Most bytes that are fetched by system calls before they are reduced, unless a call has chunks of another size: all that
/// a bounce buffer holds, so that few calls fetch them (2 ranks, 4 MiB: copies between processes 397 us instead of 480 in
/// chunks of 32 KiB, TCP 1.23 ms instead of 1.54; chunks of 256 and 512 KiB are no faster).
const COPIED_CHUNK: u64 = Pool::BUFFER as u64;

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
    Foreign { peer: Rank, outgoing: bool, ours: Tag, theirs: Tag },
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
    /// First byte of the step's extent in the buffer of its local operand, and in the one that stores its value.
    pub own: u64,
    pub store: u64,
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
    Posted,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct EndState {
    pub opened: bool,
    pub closed: bool,
    pub eager: bool,
    pub message: MessageId,
    /// Bytes sent so that their memory may change, or bytes of the current chunk that were fetched.
    pub at: u64,
    /// Bytes that were handed to a link that reads them until it has released them ([`Way::Posted`]).
    pub posted: u64,
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
    /// The tag of each end's message, where they differ: messages that have a length of their own carry it there, so
    /// that both ends compare it.
    pub tags: Vec<Tag>,
    /// Bytes of the longest step.
    longest: u64,
    /// What `steps` and `ends` are bound to: number of the plan, count, bytes of an element.
    bound: Option<(usize, u64, u64)>,
}

impl State {
    /// The steps here are others than were bound last, or a plan's number stands for something else now.
    pub fn forget(&mut self) {
        self.bound = None;
    }
}

// SAFETY: the pointer lists are empty between calls; they only keep their capacity.
unsafe impl Send for State {}

/// The call that runs, and how far it is.
pub(crate) struct Now {
    pub kernel: Kernel,
    pub areas: Vec<Area>,
    pub tag: Tag,
    /// Bytes of an element.
    pub element: u64,
    /// Bytes of the links' slots: a power of two, which chunks must not straddle.
    slot: u64,
    /// Most bytes of a chunk: what was chosen for the call, else [`CHUNK`], or a slot's if those are less. Both ends of
    /// every message have the same.
    pub chunk: u64,
    /// Most bytes that are fetched before they are reduced.
    pub copied: u64,
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

// SAFETY: the areas are memory of the call, which whoever runs it may use.
unsafe impl Send for Now {}

impl Now {
    /// A call over links with slots of so many bytes.
    pub fn new(slot: u64, shared_copies: bool) -> Now {
        let mut now = Now {
            kernel: Kernel::select(DataType::U8, ReduceOp::Sum),
            areas: Vec::with_capacity(8),
            tag: Tag::default(),
            element: 1,
            slot: 1 << slot.ilog2(),
            chunk: 0,
            copied: 0,
            streaming: false,
            shared_copies,
            first: 0,
            last: 0,
            unopened: 0,
            dear_polls: false,
            rounds: 0,
        };
        now.cut(None);
        now
    }

    /// Has the call cut into chunks of this size.
    #[inline]
    pub fn cut(&mut self, chunk: Option<ChunkSize>) {
        let or = |usual| chunk.map_or(usual, |chunk| chunk.bytes().into());
        self.chunk = self.slot.min(or(CHUNK));
        self.copied = or(COPIED_CHUNK);
    }
}

/// What runs work in, one after the other.
pub(crate) struct Space {
    /// By peer, as far as they are made.
    pub links: Vec<Option<Box<dyn Link>>>,
    pub now: Now,
    pub state: State,
    pub pool: Pool,
}

impl Space {
    /// For links with slots of so many bytes.
    pub fn new(ranks: usize, slot: u64, shared_copies: bool) -> Space {
        Space {
            links: (0..ranks).map(|_| None).collect(),
            now: Now::new(slot, shared_copies),
            state: State::default(),
            pool: Pool::default(),
        }
    }

    /// A run of `plan`.
    #[inline]
    pub fn run<'a>(&'a mut self, plan: &'a Plan) -> Run<'a> {
        let Space { links, now, state, pool } = self;
        Run { plan, state, links, pool, now }
    }
}

pub(crate) struct Run<'a> {
    pub plan: &'a Plan,
    pub state: &'a mut State,
    pub links: &'a mut [Option<Box<dyn Link>>],
    pub pool: &'a mut Pool,
    pub now: &'a mut Now,
}

impl Run<'_> {
    /// Binds plan number `number` to blocks of these sizes. Returns the bytes of the longest operation.
    pub fn bind(&mut self, number: usize, sizes: &Lengths, eager: &[u64]) -> u64 {
        let State { steps, ends, bound, longest, .. } = &mut *self.state;
        let key = sizes.equal().map(|count| (number, count, self.now.element));
        if key.is_some() && *bound == key {
            // The same call again, as in every training loop.
            return *longest;
        }
        *bound = key;
        *longest = 0;
        steps.clear();
        ends.clear();
        let (program, element) = (&self.plan.program, self.now.element);
        for (op, step) in program.ops.iter().zip(&self.plan.steps) {
            let len = program.len_of(&op.extent, sizes) * element;
            let offset = |buffer: Option<Buffer>| {
                buffer.map_or(0, |buffer| program.start_in(buffer, &op.extent, sizes) * element)
            };
            let (own, store) = (offset(step.own), offset(step.store));
            steps.push(StepState { own, store, len, ..StepState::default() });
            for end in &self.plan.ends[step.recvs.start..step.sends.end] {
                let eager = len <= eager[end.peer as usize];
                ends.push(EndState { eager, ..EndState::default() });
            }
            *longest = len.max(*longest);
        }
        *longest
    }

    /// Forgets what has moved in the run before of what is bound now.
    pub fn rewind(&mut self) {
        let State { steps, ends, next, .. } = &mut *self.state;
        self.now.first = 0;
        self.now.last = self.plan.local_until;
        self.now.unopened = self.plan.ends.len();
        next.clear();
        next.resize(self.plan.edges.len(), 0);
        for step in steps {
            *step = StepState { own: step.own, store: step.store, len: step.len, ..StepState::default() };
        }
        for end in ends {
            *end = EndState { eager: end.eager, ..EndState::default() };
        }
    }

    /// Gives every message of the plan that is bound now a tag of its own: `tag` of an end of so many bytes.
    pub fn tag_each(&mut self, mut tag: impl FnMut(&End, u64) -> Tag) {
        let State { steps, tags, .. } = &mut *self.state;
        tags.extend(self.plan.ends.iter().map(|end| tag(end, steps[end.step as usize].len)));
    }

    /// The tag of an end's message.
    #[inline]
    pub(super) fn tag(&self, end: usize) -> Tag {
        if self.state.tags.is_empty() { self.now.tag } else { self.state.tags[end] }
    }

    /// Opens what can be opened. `true`: something was.
    #[inline]
    pub fn open(&mut self) -> Result<bool, Stop> {
        if self.now.unopened == 0 { Ok(false) } else { self.open_more() }
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
                self.now.unopened -= 1;
                self.now.last = self.now.last.max(plan.ends[end as usize].step as usize + 1);
                did = true;
            }
        }
        Ok(did)
    }

    /// Moves what can be moved. `true`: something was.
    pub fn advance(&mut self) -> Result<bool, Stop> {
        let mut did = false;
        for step in self.now.first..self.now.last {
            if !self.state.steps[step].ended {
                did |= self.advance_step(step)?;
            }
        }
        while self.state.steps.get(self.now.first).is_some_and(|step| step.ended) {
            self.now.first += 1;
        }
        Ok(did)
    }

    /// Whether every step has ended.
    pub fn done(&self) -> bool {
        self.now.first == self.plan.steps.len()
    }

    /// Publishes what was announced, and takes in what the peers announced.
    pub fn exchange(&mut self) -> Result<(), Stop> {
        self.now.rounds = self.now.rounds.wrapping_add(1);
        let waits_for = if self.now.dear_polls { self.waits_for() } else { None };
        for (i, &peer) in self.plan.peers.iter().enumerate() {
            let link = link(self.links, peer);
            let polls = waits_for
                .is_none_or(|awaited| awaited == peer || self.now.rounds % self.plan.peers.len() == i);
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
        let first = self.plan.steps.get(self.now.first)?;
        if first.recvs.len() != 1 || ends.iter().zip(&self.state.ends).any(sending) {
            return None;
        }
        Some(ends[first.recvs.start].peer)
    }

    /// The peers that have yet to do something for this task, ascending.
    pub fn awaited(&self) -> Vec<Rank> {
        let open = |peer: &Rank| {
            let mut ends = self.plan.ends.iter().zip(&self.state.ends);
            ends.any(|(end, state)| end.peer == *peer && !state.closed)
        };
        self.plan.peers.iter().copied().filter(open).collect()
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
        let StepState { store: start, len, .. } = self.state.steps[end.step as usize];
        let eager = self.state.ends[index].eager;
        let plain = step.recvs.len() == 1 && step.own.is_none();
        let tag = self.tag(index);
        let target = match step.store {
            Some(store) if plain && whole && !eager => place(&self.now.areas, store, start, len),
            _ => None,
        };
        let message = link(self.links, end.peer).open_recv(tag, len, eager, target)?;
        Ok(message.map_or(Opened::Not, Opened::As))
    }

    fn open_send(&mut self, index: usize, whole: bool) -> Result<Opened, LinkError> {
        let end = &self.plan.ends[index];
        let s = end.step as usize;
        let step = &self.plan.steps[s];
        let StepState { own: start, len, .. } = self.state.steps[s];
        let eager = self.state.ends[index].eager;
        let tag = self.tag(index);
        // What the sender does not offer, it writes itself in the place that the receiver grants.
        let push = self.now.shared_copies && s % 2 == 1;
        let source = match step.own {
            Some(own) if step.recvs.is_empty() && whole && !self.plan.program.snapshot && !push => {
                place(&self.now.areas, own, start, len)
            }
            _ => None,
        };
        // Nothing is won by asking first for a short message that nobody can fetch. Where this rank's memory cannot be
        // found, the peer's hardly can.
        let hidden = step.own.is_none_or(|own| place(&self.now.areas, own, start, len).is_none());
        let unasked = source.is_none()
            && (!push || hidden)
            && len <= link(self.links, end.peer).limits().unasked as u64;
        if (eager || unasked)
            && (whole || !step.recvs.is_empty())
            && let Some(bytes) = self.whole_value(s)
        {
            // SAFETY: the value of `len` bytes exists, in the caller's memory or in the outbox.
            if unsafe { link(self.links, end.peer).send_eager(tag, bytes, len as usize) }? {
                return Ok(Opened::Gone);
            }
        }
        if eager {
            return Ok(Opened::Not);
        }
        let message = link(self.links, end.peer).open_send(tag, len, source)?;
        Ok(message.map_or(Opened::Not, Opened::As))
    }

    /// Whether there is a link to a peer.
    pub fn is_linked(&self, peer: Rank) -> bool {
        self.links[peer as usize].is_some()
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
        let StepState { own: own_at, store: store_at, len, produced, outbox, .. } = self.state.steps[s];
        let step = &self.plan.steps[s];
        if step.recvs.is_empty() {
            return step.own.map(|own| at(&self.now.areas, own, own_at).cast_const());
        }
        if !produced {
            return None;
        }
        match (step.store, outbox) {
            (Some(store), _) => Some(at(&self.now.areas, store, store_at).cast_const()),
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
