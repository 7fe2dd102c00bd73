//! The state machine of one call: opens messages in order, moves chunks, notices the end.
//!
//! A step without a receiving end is a *source*: its value lies in the caller's memory, and each of its sends advances
//! by itself. A step with receiving ends *produces* its value chunk by chunk, either straight to where it is wanted
//! (the caller's memory, a peer's mapped memory, a slot) or, when a send cannot take it from there yet, through an
//! *outbox* of a few chunks.

use super::Pool;
use super::plan::Plan;
use rccl_kernels::Kernel;
use rccl_schedule::{Buffer, Rank};
use rccl_transport::{Link, LinkError, MessageId, Place, Sink, Source, Tag};

/// Most bytes that move between two looks at the peers.
pub(crate) const CHUNK: u64 = 32 << 10;

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
    start: u64,
    len: u64,
    /// Bytes of the value that exist.
    moved: u64,
    produced: bool,
    ended: bool,
    outbox: Option<u32>,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct EndState {
    opened: bool,
    closed: bool,
    eager: bool,
    message: MessageId,
    /// Bytes sent, or bytes of the current chunk that were fetched.
    at: u64,
    sink: Option<Sink>,
    source: Option<Source>,
    bounce: Option<u32>,
}

/// State that outlives a call so that a warm call allocates nothing.
#[derive(Default)]
pub(crate) struct State {
    steps: Vec<StepState>,
    ends: Vec<EndState>,
    next: Vec<u32>,
    inputs: Vec<*const u8>,
    outputs: Vec<*mut u8>,
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
    pub first: usize,
    pub last: usize,
}

impl Run<'_> {
    /// Binds plan number `number` to `count` elements.
    pub fn bind(&mut self, number: usize, count: u64, eager: &[u64]) {
        let State { steps, ends, next, bound, .. } = &mut *self.state;
        self.first = 0;
        self.last = self.plan.local_until;
        next.clear();
        next.resize(self.plan.edges.len(), 0);
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
    pub fn open(&mut self) -> Result<bool, Stop> {
        let plan = self.plan;
        let mut did = false;
        for (edge, ends) in plan.edges.iter().enumerate() {
            while let Some(&end) = ends.get(self.state.next[edge] as usize) {
                if !self.open_end(end as usize)? {
                    break;
                }
                self.state.next[edge] += 1;
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
        for &peer in &self.plan.peers {
            let link = link(self.links, peer);
            if let Err(error) = link.flush().and_then(|()| link.poll()) {
                self.tolerate(peer, error)?;
            }
        }
        Ok(())
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
        let plan = self.plan;
        let end = &plan.ends[index];
        let (s, peer) = (end.step as usize, end.peer);
        let step = &plan.steps[s];
        let StepState { start, len, .. } = self.state.steps[s];
        let allowed = self.allowed(s);
        if allowed == 0 && len > 0 || allowed < len && self.state.ends[index].eager && step.recvs.is_empty() {
            return Ok(false);
        }
        // A place is granted for good, so only memory whose last user before is done with all of it.
        let whole = allowed == len && !plan.program.snapshot;
        let opened = if !end.outgoing {
            let eager = self.state.ends[index].eager;
            let plain = step.recvs.len() == 1 && step.own.is_none();
            let target = match step.store {
                Some(store) if plain && whole && !eager => place(self.areas, store, start),
                _ => None,
            };
            link(self.links, peer).open_recv(self.tag, len, eager, target)
        } else if self.state.ends[index].eager {
            let Some(bytes) = self.whole_value(s) else { return Ok(false) };
            // SAFETY: the value of `len` bytes exists, in the caller's memory or in the outbox.
            let sent = unsafe { link(self.links, peer).send_eager(self.tag, bytes, len as usize) };
            match sent {
                Ok(true) => {
                    self.state.ends[index] =
                        EndState { opened: true, closed: true, eager: true, at: len, ..EndState::default() };
                    return Ok(true);
                }
                Ok(false) => Ok(None),
                Err(error) => Err(error),
            }
        } else {
            let source = match step.own {
                Some(own) if step.recvs.is_empty() && whole => place(self.areas, own, start),
                _ => None,
            };
            link(self.links, peer).open_send(self.tag, len, source)
        };
        match opened.map_err(|error| Stop::Link { peer, error })? {
            Some(message) => {
                self.state.ends[index].message = message;
                self.state.ends[index].opened = true;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// How many bytes of step `s` its dependencies allow.
    #[inline]
    fn allowed(&self, s: usize) -> u64 {
        let mut allowed = self.state.steps[s].len;
        for dep in &self.plan.steps[s].after {
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

    fn produce_local(&mut self, s: usize) -> bool {
        let step = &self.plan.steps[s];
        let allowed = self.allowed(s);
        let StepState { start, len, moved, .. } = self.state.steps[s];
        if let (Some(own), Some(store)) = (step.own, step.store) {
            let from = at(self.areas, own, start + moved).cast_const();
            let to = at(self.areas, store, start + moved);
            if from != to.cast_const() && allowed > moved {
                // SAFETY: both areas hold the whole call; the dependencies allow this part of the extent.
                unsafe { std::ptr::copy_nonoverlapping(from, to, (allowed - moved) as usize) };
            }
        }
        self.state.steps[s].moved = allowed;
        self.state.steps[s].produced = allowed == len;
        allowed > moved || allowed == len
    }

    /// Moves the next chunk of a step that receives. `true`: some bytes came.
    fn produce(&mut self, s: usize) -> Result<bool, Stop> {
        let plan = self.plan;
        let step = &plan.steps[s];
        let StepState { start, len, moved, .. } = self.state.steps[s];
        let size = self.chunk.min(len - moved);
        if !step.after.is_empty() && self.allowed(s) < moved + size {
            return Ok(false);
        }
        for end in step.recvs.clone() {
            if !self.find_source(end, len)? {
                return Ok(false);
            }
        }
        if step.recvs.len() == 1 && step.own.is_none() {
            let end = step.recvs.start;
            match self.state.ends[end].source {
                Some(Source::Landing) => return self.land(s, end),
                Some(Source::Copy) if step.store.is_some() => return self.read_in_place(s, end),
                _ => {}
            }
        }
        if !self.find_inputs(s, size)? || !self.find_outputs(s, size)? {
            return Ok(false);
        }
        if let Some(own) = step.own {
            let own = at(self.areas, own, start + moved).cast_const();
            self.state.inputs.insert(step.own_at, own);
        }
        if size > 0 && !self.state.outputs.is_empty() {
            let finish = step.finish.then_some(plan.program.ranks);
            // SAFETY: every input holds `size` readable and every output `size` writable bytes: the links granted
            // them, and the areas hold the whole call. Ranges coincide or are disjoint, as the validator requires.
            unsafe {
                self.kernel.run(
                    &self.state.inputs,
                    &self.state.outputs,
                    (size / self.element) as usize,
                    finish,
                )
            };
        }
        self.settle(s, size)?;
        Ok(true)
    }

    /// Learns how the message of receiving end `end` comes. `false`: its sender has not opened it yet.
    fn find_source(&mut self, end: usize, len: u64) -> Result<bool, Stop> {
        let state = &mut self.state.ends[end];
        if state.source.is_some() {
            return Ok(true);
        }
        if !state.opened {
            return Ok(false);
        }
        let peer = self.plan.ends[end].peer;
        let incoming =
            link(self.links, peer).incoming(state.message).map_err(|error| Stop::Link { peer, error })?;
        let Some(incoming) = incoming else { return Ok(false) };
        if incoming.tag != self.tag {
            return Err(Stop::Foreign { peer, theirs: incoming.tag });
        }
        if let Some(given) = incoming.len.filter(|&given| given != len) {
            return Err(Stop::Length { peer, expected: len, given });
        }
        state.source = Some(incoming.source);
        Ok(true)
    }

    /// The sender writes in place: look how far it is.
    fn land(&mut self, s: usize, end: usize) -> Result<bool, Stop> {
        let peer = self.plan.ends[end].peer;
        let landed = link(self.links, peer).landed(self.state.ends[end].message);
        let did = landed > self.state.steps[s].moved;
        self.state.steps[s].moved = landed;
        self.close_received(s, end)?;
        Ok(did)
    }

    /// A byte stream or a copy between processes, straight into the caller's memory.
    fn read_in_place(&mut self, s: usize, end: usize) -> Result<bool, Stop> {
        let peer = self.plan.ends[end].peer;
        let StepState { start, moved, .. } = self.state.steps[s];
        let Some(store) = self.plan.steps[s].store else { return Ok(false) };
        let room = self.allowed(s) - moved;
        let to = at(self.areas, store, start + moved);
        // SAFETY: the area holds the whole call.
        let came = unsafe {
            link(self.links, peer).read(self.state.ends[end].message, moved, to, room.min(1 << 20) as usize)
        };
        let came = came.map_err(|error| Stop::Link { peer, error })? as u64;
        let moved = moved + came;
        self.state.steps[s].moved = moved;
        let message = self.state.ends[end].message;
        link(self.links, peer).release(message, moved).map_err(|error| Stop::Link { peer, error })?;
        self.close_received(s, end)?;
        Ok(came > 0)
    }

    fn close_received(&mut self, s: usize, end: usize) -> Result<(), Stop> {
        if self.state.steps[s].moved == self.state.steps[s].len {
            link(self.links, self.plan.ends[end].peer).close_recv(self.state.ends[end].message);
            self.state.ends[end].closed = true;
            self.state.steps[s].produced = true;
        }
        Ok(())
    }

    /// Collects where the next `size` bytes of every received operand are. `false`: one is not here yet.
    fn find_inputs(&mut self, s: usize, size: u64) -> Result<bool, Stop> {
        self.state.inputs.clear();
        let moved = self.state.steps[s].moved;
        for end in self.plan.steps[s].recvs.clone() {
            let peer = self.plan.ends[end].peer;
            let link = link(self.links, peer);
            let state = &mut self.state.ends[end];
            let input = match state.source {
                // SAFETY: the link keeps all bytes of the message readable until they are released.
                Some(Source::Eager(bytes) | Source::Mapped(bytes)) => unsafe { bytes.add(moved as usize) },
                Some(Source::Staged) => {
                    match link.peek(state.message).map_err(|error| Stop::Link { peer, error })? {
                        Some((bytes, _)) => bytes,
                        None => return Ok(false),
                    }
                }
                Some(Source::Copy) => {
                    let bounce = *state.bounce.get_or_insert_with(|| self.pool.take());
                    let buffer = self.pool.buffer(bounce);
                    while state.at < size {
                        // SAFETY: a pool buffer is larger than a chunk.
                        let to = unsafe { buffer.add(state.at as usize) };
                        let wanted = (size - state.at) as usize;
                        // SAFETY: `wanted` bytes fit behind `to`.
                        let came = unsafe { link.read(state.message, moved + state.at, to, wanted) };
                        match came.map_err(|error| Stop::Link { peer, error })? {
                            0 => return Ok(false),
                            came => state.at += came as u64,
                        }
                    }
                    buffer.cast_const()
                }
                Some(Source::Landing) | None => return Ok(false),
            };
            self.state.inputs.push(input);
        }
        Ok(true)
    }

    /// Collects where the next `size` bytes of the value go. `false`: there is no room yet.
    fn find_outputs(&mut self, s: usize, size: u64) -> Result<bool, Stop> {
        let step = &self.plan.steps[s];
        let StepState { start, moved, outbox, .. } = self.state.steps[s];
        self.state.outputs.clear();
        if let Some(store) = step.store {
            self.state.outputs.push(at(self.areas, store, start + moved));
            // Peers whose memory is mapped get the bytes in the same pass; the others are pumped from `store`.
            for end in step.sends.clone() {
                if self.state.ends[end].opened
                    && self.state.ends[end].at == moved
                    && let Some(Sink::Mapped(base)) = self.sink(end)?
                {
                    // SAFETY: the peer granted the whole message at `base`.
                    self.state.outputs.push(unsafe { base.add(moved as usize) });
                    self.state.ends[end].at += size;
                }
            }
            return Ok(true);
        }
        if step.sends.is_empty() || size == 0 {
            return Ok(true);
        }
        if outbox.is_none() && step.sends.len() == 1 && !self.state.ends[step.sends.start].eager {
            let end = step.sends.start;
            let peer = self.plan.ends[end].peer;
            match self.sink(end)? {
                Some(Sink::Mapped(base)) => {
                    // SAFETY: as above.
                    self.state.outputs.push(unsafe { base.add(moved as usize) });
                    self.state.ends[end].at += size;
                    return Ok(true);
                }
                Some(Sink::Staged) => {
                    let slot = link(self.links, peer)
                        .reserve(self.state.ends[end].message, size as usize)
                        .map_err(|error| Stop::Link { peer, error })?;
                    let Some(slot) = slot else { return Ok(false) };
                    self.state.outputs.push(slot);
                    self.state.ends[end].at += size;
                    return Ok(true);
                }
                Some(Sink::Copy) => {}
                _ => return Ok(false),
            }
        }
        let outbox = *self.state.steps[s].outbox.get_or_insert_with(|| self.pool.take());
        let sent = step.sends.clone().map(|end| self.state.ends[end].at).min().unwrap_or(moved);
        if moved + size > sent + Pool::BUFFER as u64 {
            return Ok(false);
        }
        // SAFETY: chunks divide the buffer's length, so `size` bytes fit here.
        let room = unsafe { self.pool.buffer(outbox).add((moved % Pool::BUFFER as u64) as usize) };
        self.state.outputs.push(room);
        Ok(true)
    }

    /// Tells every peer of step `s` that `size` more bytes have moved.
    fn settle(&mut self, s: usize, size: u64) -> Result<(), Stop> {
        let step = &self.plan.steps[s];
        let moved = self.state.steps[s].moved + size;
        let len = self.state.steps[s].len;
        self.state.steps[s].moved = moved;
        for end in step.sends.clone() {
            let EndState { at, sink, message, opened, .. } = self.state.ends[end];
            // Bytes that were produced straight into a peer's memory or a slot.
            if opened && at == moved && size > 0 {
                let peer = self.plan.ends[end].peer;
                let link = link(self.links, peer);
                match sink {
                    Some(Sink::Mapped(_)) => link.wrote(message, moved),
                    Some(Sink::Staged) if step.store.is_none() => link.commit(message, size as usize),
                    _ => Ok(()),
                }
                .map_err(|error| Stop::Link { peer, error })?;
            }
        }
        for end in step.recvs.clone() {
            let peer = self.plan.ends[end].peer;
            let link = link(self.links, peer);
            let state = &mut self.state.ends[end];
            state.at = 0;
            link.release(state.message, moved).map_err(|error| Stop::Link { peer, error })?;
            if moved == len {
                link.close_recv(state.message);
                state.closed = true;
                self.pool.give_back(state.bounce.take());
            }
        }
        self.state.steps[s].produced = moved == len;
        Ok(())
    }

    /// How the message of sending end `end` leaves, `None` while that is not known.
    fn sink(&mut self, end: usize) -> Result<Option<Sink>, Stop> {
        let state = &mut self.state.ends[end];
        if state.sink.is_some() || !state.opened {
            return Ok(state.sink);
        }
        let peer = self.plan.ends[end].peer;
        match link(self.links, peer).sink(state.message).map_err(|error| Stop::Link { peer, error })? {
            Sink::Waiting => Ok(None),
            Sink::Foreign(theirs) => Err(Stop::Foreign { peer, theirs }),
            sink => {
                state.sink = Some(sink);
                Ok(Some(sink))
            }
        }
    }

    /// Sends what exists of step `s`'s value and has not gone to `end` yet.
    fn pump(&mut self, s: usize, end: usize) -> Result<bool, Stop> {
        let Some(sink) = self.sink(end)? else { return Ok(false) };
        let peer = self.plan.ends[end].peer;
        let StepState { moved, len, .. } = self.state.steps[s];
        let EndState { at: before, message, .. } = self.state.ends[end];
        let mut sent = before;
        if sink == Sink::Pulled {
            sent = link(self.links, peer).released(message);
        }
        while sent < moved && sink != Sink::Pulled {
            let Some((bytes, available)) = self.value(s, sent, moved) else { break };
            let link = link(self.links, peer);
            let went = match sink {
                Sink::Mapped(base) => {
                    let size = available.min(self.chunk);
                    // SAFETY: the peer granted the whole message at `base`.
                    let to = unsafe { base.add(sent as usize) };
                    // SAFETY: `bytes` is this rank's memory, `to` the peer's; the links keep both valid.
                    unsafe { std::ptr::copy_nonoverlapping(bytes, to, size as usize) };
                    link.wrote(message, sent + size).map(|()| size)
                }
                Sink::Staged => {
                    let size = self.chunk.min(len - sent);
                    if available < size {
                        break;
                    }
                    stage(link, message, bytes, size as usize)
                }
                // SAFETY: `available` bytes exist behind `bytes`.
                _ => unsafe { link.write(message, sent, bytes, available.min(1 << 20) as usize) }
                    .map(|went| went as u64),
            };
            let went = went.map_err(|error| Stop::Link { peer, error })?;
            sent += went;
            if went == 0 || matches!(sink, Sink::Mapped(_)) {
                break;
            }
        }
        self.state.ends[end].at = sent;
        if sent == len && self.state.steps[s].produced {
            link(self.links, peer).close_send(message);
            self.state.ends[end].closed = true;
        }
        Ok(sent > before || self.state.ends[end].closed)
    }

    /// Bytes `from..` of step `s`'s value and how many of them lie there in one piece.
    fn value(&self, s: usize, from: u64, moved: u64) -> Option<(*const u8, u64)> {
        let step = &self.plan.steps[s];
        let StepState { start, outbox, .. } = self.state.steps[s];
        let stored = if step.recvs.is_empty() { step.own } else { step.store };
        if let Some(buffer) = stored {
            return Some((at(self.areas, buffer, start + from).cast_const(), moved - from));
        }
        let within = from % Pool::BUFFER as u64;
        // SAFETY: `within` is less than the buffer's length.
        let bytes = unsafe { self.pool.buffer(outbox?).add(within as usize) };
        Some((bytes.cast_const(), (moved - from).min(Pool::BUFFER as u64 - within)))
    }
}

/// Copies a chunk into a slot; 0 when there is none.
fn stage(link: &mut dyn Link, message: MessageId, bytes: *const u8, size: usize) -> Result<u64, LinkError> {
    let Some(slot) = link.reserve(message, size)? else { return Ok(0) };
    // SAFETY: the slot is ours until it is committed, and `size` bytes exist behind `bytes`.
    unsafe { std::ptr::copy_nonoverlapping(bytes, slot, size) };
    link.commit(message, size)?;
    Ok(size as u64)
}

fn link(links: &mut [Option<Box<dyn Link>>], peer: Rank) -> &mut dyn Link {
    links[peer as usize].as_deref_mut().expect("the links of a plan are made before it runs")
}

fn at(areas: &[Area], buffer: Buffer, offset: u64) -> *mut u8 {
    areas[buffer.0 as usize].base.wrapping_add(offset as usize)
}

fn place(areas: &[Area], buffer: Buffer, offset: u64) -> Option<Place> {
    areas[buffer.0 as usize].place.and_then(|place| Place::from_bits(place.to_bits() + offset))
}
