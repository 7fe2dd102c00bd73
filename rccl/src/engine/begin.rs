//! How a task begins: its plan, its memory, its links.

use super::drive::{Outcome, Stage, Watch};
use super::lengths::Lengths;
use super::plan::Plan;
use super::round::Round;
use super::run::Area;
use super::straight::Straight;
use super::task::{Message, Piece, Task, program_of};
use super::wait::{Next, Patience};
use super::{Active, Engine, Reached, Ready, Shape};
use crate::call::{Call, Collective};
use crate::control::{Awaited, Control};
use crate::element::{DataType, ReduceOp};
use crate::error::{Error, Result};
use rccl_kernels::{Kernel, Scale};
use rccl_schedule::{Buffer, Few, Rank};
use rccl_transport::memory::{Region, RegionTable};
use rccl_transport::{Kind, Place, Tag};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Calls that touch this many bytes write their results past the caches, which they would only sweep clean (the
/// measured machine has 2 MiB of second-level cache a core).
const STREAMED: u64 = 3 << 20;
/// A scratch buffer of the engine's, kept from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    small: Vec<u64>,
    large: Option<Region>,
}

/// How many plans of messages are kept.
const MESSAGE_PLANS: usize = 64;

impl Engine {
    /// Begins a task, which may take as long as the communicator's calls, or `timeout`; [`Engine::poll`] goes on with it. It is
    /// made now, unless the communicator is broken: by what keeps it from being made too.
    ///
    /// # Safety
    /// As for [`Engine::execute`], until the task has ended.
    pub unsafe fn begin(
        &mut self,
        make: impl FnOnce() -> Result<Task>,
        timeout: Option<Duration>,
    ) -> Result<()> {
        self.check()?;
        let task = make().map_err(|error| self.broken_by(error))?;
        self.allowed = timeout.unwrap_or(self.timeout);
        // SAFETY: the caller's promise.
        self.active = Some(unsafe { self.prepare(task) }?);
        Ok(())
    }

    /// # Safety
    /// As for [`Engine::execute`], until the task has ended.
    pub(super) unsafe fn prepare(&mut self, task: Task) -> Result<Active> {
        self.check()?;
        let begun = match task {
            Task::Collective { call, sizes, input, output, scale: None } => {
                self.begin_collective(call, sizes, input.cast_mut(), output)
            }
            Task::Collective { call, sizes, input, output, scale: Some(scale) } => {
                self.begin_scaled(call, sizes, input, output, scale)
            }
            Task::Messages(messages) => self.begin_messages(messages),
            Task::Fused(pieces) => self.begin_fused(pieces),
        };
        begun.map_err(|error| {
            self.control.progress().leave(self.sequence);
            self.broken_by(error)
        })
    }

    #[inline]
    fn begin_collective(
        &mut self,
        call: Call,
        sizes: Lengths,
        input: *mut u8,
        output: *mut u8,
    ) -> Result<Active> {
        let words = call.pack();
        self.enter(words);
        let number = self.plan(&call, words);
        self.space.now.tag = Tag { sequence: self.sequence, call: words };
        self.set_up(number, &call, &sizes, input, output)?;
        let task = Task::Collective { call, sizes, input, output, scale: None };
        Ok(self.start(Active { call, task, number, stage: Stage::Linking, watch: Watch::new(false) }))
    }

    /// With a copy of the input in which every element is multiplied: the input is the user's.
    fn begin_scaled(
        &mut self,
        call: Call,
        sizes: Lengths,
        input: *const u8,
        output: *mut u8,
        scale: Scale,
    ) -> Result<Active> {
        let number = self.find_plan(&call);
        let count = self.plans[number].plan.program.len_in(Buffer::INPUT, &sizes);
        let scaled =
            grow(&mut self.packed[0], &self.regions, count * call.dtype.size() as u64, &self.control)?;
        // SAFETY: the input holds `count` elements and the region as many; they are apart.
        unsafe { scale.run(input, scaled, count as usize) };
        self.begin_collective(call, sizes, scaled, output)
    }

    /// Counts a collective call and lets the control plane see it.
    #[inline]
    pub(super) fn enter(&mut self, words: [u64; 2]) {
        self.sequence += 1;
        self.control.progress().enter(self.sequence, words);
    }

    /// Small calls one behind the other in each block, as one call.
    fn begin_fused(&mut self, pieces: Vec<Piece>) -> Result<Active> {
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        for piece in &pieces {
            let words = piece.call.pack();
            self.enter(words);
            for word in words {
                digest = (digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
            }
        }
        let first = pieces[0].call;
        let call = Call { count: pieces.iter().map(|piece| piece.call.count).sum(), ..first };
        let number = self.plan(&call, call.pack());
        let sizes = Lengths::Equal(call.count);
        let bytes = |engine: &Engine, buffer| {
            engine.plans[number].plan.program.len_in(buffer, &sizes) * call.dtype.size() as u64
        };
        let (input, output) = (bytes(self, Buffer::INPUT), bytes(self, Buffer::OUTPUT));
        let input = grow(&mut self.packed[0], &self.regions, input, &self.control)?;
        let output = grow(&mut self.packed[1], &self.regions, output, &self.control)?;
        self.pack(number, &pieces, Buffer::INPUT);
        let all =
            Call { collective: Collective::Fused, root: Some(pieces.len() as u32), count: digest, ..first };
        self.space.now.tag = Tag { sequence: self.sequence, call: all.pack() };
        self.set_up(number, &call, &sizes, input, output)?;
        let active = Active {
            call: all,
            task: Task::Fused(pieces),
            number,
            stage: Stage::Linking,
            watch: Watch::new(false),
        };
        Ok(self.start(active))
    }

    fn begin_messages(&mut self, list: Few<Message>) -> Result<Active> {
        let messages = list.as_slice();
        let number = self.plan_messages(messages);
        let Ready { messages: [of_buffer, of_op], .. } = &self.plans[number];
        let bytes = |message: u32| {
            let Message { dtype, count, .. } = messages[message as usize];
            count * dtype.size() as u64
        };
        let nothing = Area { base: std::ptr::null_mut(), place: None };
        let mut areas = std::mem::take(&mut self.space.now.areas);
        areas.clear();
        areas.extend([nothing; 2]);
        areas.extend(
            of_buffer.iter().map(|&message| self.area(messages[message as usize].memory, bytes(message))),
        );
        // What errors name: the first message.
        let call = messages
            .first()
            .map_or(NO_MESSAGE, |message| call_of(message).seen(message.outgoing, message.peer));
        let touched: u64 = of_op.iter().map(|&message| bytes(message)).sum();
        self.space.now.areas = areas;
        self.space.now.cut(None);
        self.space.now.element = 1;
        self.space.now.kernel = Kernel::select(DataType::U8, ReduceOp::Sum);
        self.space.now.streaming = touched >= STREAMED;
        self.space.now.dear_polls = self.sockets > 1;
        self.space.now.rounds = 0;
        Ok(self.start(Active {
            call,
            task: Task::Messages(list),
            number,
            stage: Stage::Linking,
            watch: Watch::new(true),
        }))
    }

    fn plan_messages(&mut self, messages: &[Message]) -> usize {
        let same = |ready: &Ready| match &ready.shape {
            Shape::Messages(shape) => {
                let mut shape = shape.iter().copied();
                messages.len() == shape.len()
                    && messages.iter().all(|m| shape.next() == Some((m.peer, m.outgoing)))
            }
            Shape::Collective(..) => false,
        };
        if let Some(number) = self.plans.iter().position(same) {
            return number;
        }
        let (program, of_buffer, of_op) = program_of(messages, self.rank, self.layout.ranks());
        let ready = Ready {
            shape: Shape::Messages(messages.iter().map(|m| (m.peer, m.outgoing)).collect()),
            plan: Plan::new(program),
            messages: [of_buffer, of_op],
            linked: false,
        };
        let mut kept = (0..self.plans.len()).filter(|&i| matches!(self.plans[i].shape, Shape::Messages(_)));
        match (kept.next(), kept.count() + 1) {
            (Some(oldest), MESSAGE_PLANS..) => {
                // Its number gets another meaning.
                self.plans[oldest] = ready;
                self.space.state.forget();
                oldest
            }
            _ => {
                self.plans.push(ready);
                self.plans.len() - 1
            }
        }
    }

    /// What a run needs to know of a collective call's memory.
    #[inline]
    fn set_up(
        &mut self,
        number: usize,
        call: &Call,
        sizes: &Lengths,
        input: *mut u8,
        output: *mut u8,
    ) -> Result<()> {
        let element = call.dtype.size() as u64;
        let Ready { shape, plan: Plan { program, .. }, .. } = &self.plans[number];
        self.space.now.cut(match shape {
            Shape::Collective(choice, _) => choice.chunk,
            Shape::Messages(_) => None,
        });
        let (read, written) =
            (program.len_in(Buffer::INPUT, sizes) * element, program.len_in(Buffer::OUTPUT, sizes) * element);
        let scratch = program.windows.len() - 2;
        let first = self.area(input, read);
        let second = if input == output && written <= read { first } else { self.area(output, written) };
        self.space.now.areas.clear();
        self.space.now.areas.extend([first, second]);
        for i in 0..scratch {
            let window = Buffer::scratch(i as u16);
            let bytes = self.plans[number].plan.program.len_in(window, sizes) * element;
            if self.scratch.len() <= i {
                self.scratch.push(Scratch::default());
            }
            let Scratch { small, large } = &mut self.scratch[i];
            if bytes <= self.tuner.situation().eager {
                // Nobody needs to find it, and a region costs a descriptor.
                let words = bytes.div_ceil(8) as usize;
                if small.len() < words {
                    small.resize(words, 0);
                    self.repertoire.forget();
                }
                self.space.now.areas.push(Area { base: small.as_mut_ptr().cast(), place: None });
                continue;
            }
            grow(large, &self.regions, bytes, &self.control)?;
            let area = |region: &Region| Area { base: region.as_ptr(), place: Some(region.place(0)) };
            self.space.now.areas.extend(large.as_ref().map(area));
        }
        self.space.now.kernel = self.kernel(call);
        self.space.now.element = element;
        // A reduction in place has read what it overwrites. Ranks of a call work for each other, so the larger buffer
        // counts also where a rank has no other (the root's of reduce).
        let larger = read.max(written);
        self.space.now.streaming =
            if input != output { 2 * larger >= STREAMED } else { larger >= STREAMED && call.op.is_none() };
        self.space.now.dear_polls = self.sockets > 1;
        self.space.now.rounds = 0;
        Ok(())
    }

    #[inline]
    fn area(&self, base: *mut u8, bytes: u64) -> Area {
        if bytes <= self.always_eager {
            // Every message is eager: nobody needs to find this memory.
            return Area { base, place: None };
        }
        let place = self.regions.lookup(base, bytes as usize).unwrap_or_else(|| Place::at_address(base));
        Area { base, place: Some(place) }
    }

    /// Lets a task run if the links to its peers are there, else asks for them.
    fn start(&mut self, mut active: Active) -> Active {
        if self.plans[active.number].linked {
            self.run(&mut active);
        } else {
            self.control.request_links(&self.missing(active.number));
            self.sleeper.reserve(self.plans[active.number].plan.peers.len());
        }
        active
    }

    fn missing(&self, number: usize) -> Vec<Rank> {
        let peers = self.plans[number].plan.peers.iter().copied();
        peers.filter(|&peer| self.space.links[peer as usize].is_none()).collect()
    }

    /// Waits until a task that was begun has its links. `Some`: it has ended.
    pub(super) fn link(&mut self, active: &mut Active) -> Option<Outcome> {
        let mut patience = Patience::new(self.yields);
        active.watch.set_unlinked(true);
        while matches!(active.stage, Stage::Linking) && !self.take_links(active) {
            let (Next::Sleep(waited) | Next::Look(waited)) = patience.idle() else { continue };
            let missing = || Awaited { ranks: self.missing(active.number), arrived: true };
            let ended = active.watch.look(&self.control, self.sequence, waited, self.timeout, missing);
            if ended.is_some() {
                return ended;
            }
            self.sleeper.sleep(&mut self.space.links, &[], self.control.doorbell().as_fd());
            self.control.doorbell().silence();
        }
        active.watch.set_unlinked(false);
        None
    }

    /// Takes in links that were made; if none is missing now, the task may run.
    pub(super) fn take_links(&mut self, active: &mut Active) -> bool {
        for made in self.control.take_links() {
            let peer = made.peer as usize;
            self.eager[peer] = made.link.limits().eager as u64;
            self.unasked[peer] = made.link.limits().unasked as u64;
            self.sockets += usize::from(made.kind == Kind::Tcp);
            self.yields |= made.link.in_software();
            self.reached.push(Reached { peer: made.peer, kind: made.kind, reason: made.reason });
            self.space.links[peer] = Some(made.link);
        }
        if !self.missing(active.number).is_empty() {
            return false;
        }
        self.plans[active.number].linked = true;
        self.space.now.dear_polls = self.sockets > 1;
        self.run(active);
        true
    }

    #[inline]
    fn run(&mut self, active: &mut Active) {
        self.space.state.tags.clear();
        // Both ends of a message must decide alike that it is eager: by its length where ranks know their own messages
        // only, else by what all ranks know of the call.
        let eagerly = match &active.task {
            Task::Collective { call, .. } => {
                call.collective.varies()
                    || self.tuner.situation().is_eager(call.bytes(), self.bytes_of_vector(call))
            }
            Task::Fused(pieces) => {
                pieces.iter().map(|piece| self.bytes_of_vector(&piece.call)).sum::<u64>()
                    <= self.tuner.situation().eager
            }
            Task::Messages(_) => true,
        };
        let Ready { plan, messages: [_, of_op], .. } = &self.plans[active.number];
        let mut run = self.space.run(plan);
        let limits = if eagerly || plan.program.snapshot { &self.unasked } else { &self.eager };
        let longest = match &active.task {
            Task::Collective { call, .. }
                if plan.one_round && call.bytes() <= self.tuner.situation().eager =>
            {
                active.stage = Stage::Round(Round::default(), call.bytes() as usize);
                return;
            }
            Task::Collective { call, sizes, .. } => {
                let longest = run.bind(active.number, sizes, limits);
                if call.collective.varies() {
                    let (tag, element) = (run.now.tag, run.now.element);
                    run.tag_each(|_, len| Tag { call: [tag.call[0], len / element], ..tag });
                }
                longest
            }
            Task::Fused(pieces) => {
                let count = pieces.iter().map(|piece| piece.call.count).sum();
                run.bind(active.number, &Lengths::Equal(count), limits)
            }
            Task::Messages(messages) => {
                let messages = messages.as_slice();
                let longest = run.bind(active.number, &sizes_of(messages, of_op), limits);
                run.tag_each(|end, _| {
                    let message = &messages[of_op[end.step as usize] as usize];
                    Tag { sequence: 0, call: Call { root: None, ..call_of(message) }.pack() }
                });
                longest
            }
        };
        active.stage = if eagerly && plan.fits_links && longest <= self.tuner.situation().eager {
            Stage::Straight(Straight::default())
        } else {
            run.rewind();
            Stage::Steps
        };
    }

    /// Bytes of all blocks of a call whose length all ranks know.
    #[inline]
    fn bytes_of_vector(&self, call: &Call) -> u64 {
        let blocks = match call.collective {
            Collective::AllGatherV | Collective::ReduceScatterV => 1,
            collective => {
                let schedule = collective.schedule(0);
                schedule.map_or(1, |schedule| u64::from(schedule.blocks(self.layout.ranks())))
            }
        };
        call.bytes().saturating_mul(blocks)
    }

    /// Copies the inputs of small calls into the packed memory.
    fn pack(&mut self, number: usize, pieces: &[Piece], buffer: Buffer) {
        let Some(packed) = &self.packed[buffer.0 as usize] else { return };
        let blocks = self.plans[number].plan.program.window(buffer).len() as usize;
        for (piece, at, stride, bytes) in places(pieces) {
            for block in 0..blocks {
                let (own, packed) = (block * bytes, packed.as_ptr().wrapping_add(block * stride + at));
                let (from, to) = if buffer == Buffer::INPUT {
                    (piece.input.wrapping_add(own), packed)
                } else {
                    (packed.cast_const(), piece.output.wrapping_add(own))
                };
                // SAFETY: the user's memory holds all blocks of its call, the packed one those of all calls, and they
                // are apart.
                unsafe { std::ptr::copy_nonoverlapping(from, to, bytes) };
            }
        }
    }

    /// Copies the outputs of small calls to where they are wanted.
    pub(super) fn unpack(&mut self, active: &Active) {
        if let Task::Fused(pieces) = &active.task {
            self.pack(active.number, pieces, Buffer::OUTPUT);
        }
    }
}

/// Each piece with the offset of its part of the first block, the bytes of a packed block, and its own bytes a block.
fn places(pieces: &[Piece]) -> impl Iterator<Item = (&Piece, usize, usize, usize)> {
    let stride = pieces.iter().map(|piece| piece.call.bytes()).sum::<u64>() as usize;
    let mut at = 0;
    pieces.iter().map(move |piece| {
        let (here, bytes) = (at, piece.call.bytes() as usize);
        at += bytes;
        (piece, here, stride, bytes)
    })
}

fn sizes_of(messages: &[Message], of_op: &[u32]) -> Lengths {
    let bytes = |&message: &u32| {
        let Message { dtype, count, .. } = messages[message as usize];
        count * dtype.size() as u64
    };
    let first = of_op.first().map_or(0, bytes);
    if of_op.iter().all(|message| bytes(message) == first) {
        Lengths::Equal(first)
    } else {
        Lengths::Blocks(of_op.iter().map(bytes).collect())
    }
}

const NO_MESSAGE: Call =
    Call { collective: Collective::Send, dtype: DataType::U8, op: None, root: None, count: 0 };

/// A message as the call of its sender.
fn call_of(message: &Message) -> Call {
    Call { collective: Collective::Send, dtype: message.dtype, op: None, root: None, count: message.count }
}

/// Makes memory of the engine's own long enough, and says where it is.
fn grow(
    region: &mut Option<Region>,
    regions: &Arc<RegionTable>,
    bytes: u64,
    control: &Control,
) -> Result<*mut u8> {
    let bytes = bytes.max(1);
    if region.as_ref().is_none_or(|region| (region.len() as u64) < bytes) {
        let larger = regions.alloc((bytes as usize).next_power_of_two()).map_err(|error| Error::System {
            during: format!("allocating {bytes} bytes of scratch memory for {}", control.me()),
            source: Arc::new(std::io::Error::other(error)),
            hint: "free memory, or choose another algorithm with RCCL_ALGO".into(),
        })?;
        *region = Some(larger);
    }
    Ok(region.as_ref().map_or(std::ptr::null_mut(), Region::as_ptr))
}
