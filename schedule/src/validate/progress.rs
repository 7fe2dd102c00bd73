//! Greedy execution of chunks: do the programs come to their end?

use std::collections::VecDeque;

use super::Model;
use super::violation::{Fault, Violation, Wait};
use super::wiring::{NONE, Wiring};
use crate::program::Op;
use crate::vector::Sizes;

/// How far an operation is.
#[derive(Clone, Copy, Default)]
struct State {
    chunks: u32,
    /// Chunks of which it has all operands.
    taken: u32,
    /// Chunks that it has offered to all its receivers, or put into their slots.
    sent: u32,
    /// Chunks that have ended.
    ended: u32,
    /// Receivers that have yet to take chunk `ended`; only where nothing is buffered.
    behind: u32,
    /// Which of its conditions for the next chunk to take is the first not known to hold.
    take_condition: u32,
    /// Likewise for the next chunk to send.
    send_condition: u32,
    queued: bool,
}

/// How many chunks of a message have been sent and received.
#[derive(Clone, Copy, Default)]
struct Moved {
    sent: u32,
    received: u32,
}

pub(super) struct Progress<'a> {
    wiring: &'a Wiring<'a>,
    /// Slots per edge; `None` where nothing is buffered.
    slots: Option<u32>,
    ops: Vec<State>,
    messages: Vec<Moved>,
    queue: VecDeque<u32>,
}

/// Whether what the operation has taken lies in memory, so that it need not be sent on at once.
fn keeps(op: &Op) -> bool {
    op.copy_to.is_some() || op.recv.is_empty()
}

impl<'a> Progress<'a> {
    pub(super) fn new(
        wiring: &'a Wiring<'a>,
        sizes: &(impl Sizes + ?Sized),
        chunk: u64,
        model: Model,
    ) -> Progress<'a> {
        let state = |op: &&Op| {
            // Every rank's program cuts the vector in the same way.
            let elements = wiring.programs[0].len_of(&op.extent, sizes);
            let chunks = elements.div_ceil(chunk.max(1)).max(1) as u32;
            State { chunks, behind: op.send.len() as u32, queued: true, ..State::default() }
        };
        Progress {
            ops: wiring.ops.iter().map(state).collect(),
            messages: vec![Moved::default(); wiring.messages.len()],
            queue: (0..wiring.ops.len() as u32).collect(),
            slots: model.slots(),
            wiring,
        }
    }

    pub(super) fn run(mut self) -> Result<(), Violation> {
        while let Some(op) = self.queue.pop_front() {
            self.ops[op as usize].queued = false;
            loop {
                if self.take_waits_for(op).is_none() {
                    self.take(op);
                } else if self.send_waits_for(op).is_none() {
                    self.send(op);
                } else {
                    break;
                }
            }
        }
        let stuck = (0..).zip(&self.ops).find(|(_, state)| state.ended < state.chunks);
        let Some((op, state)) = stuck.map(|(op, state)| (op, *state)) else { return Ok(()) };
        let wait = if state.taken == state.ended { self.take_waits_for(op) } else { self.send_waits_for(op) };
        let wait = wait.filter(|wait| *wait != DONE).unwrap_or_else(|| self.held_by(op));
        Err(self.wiring.violation(op, Fault::Stuck { chunk: u64::from(state.ended), wait }))
    }

    /// The first condition that keeps `op` from taking its next chunk.
    fn take_waits_for(&mut self, op: u32) -> Option<Wait> {
        let (wiring, state) = (self.wiring, self.ops[op as usize]);
        let this = wiring.ops[op as usize];
        // Without memory to keep it in, what is taken has to be sent on before more is taken.
        if state.taken == state.chunks || !keeps(this) && state.taken > state.ended {
            return Some(DONE);
        }
        let (after, incoming) = (this.after.as_slice(), wiring.incoming(op));
        let first = wiring.first[wiring.rank[op as usize] as usize];
        // A condition that holds for a chunk goes on holding until that chunk is taken, so none is looked at twice.
        for condition in state.take_condition as usize.. {
            let wait = if let Some(dep) = after.get(condition) {
                let before = &self.ops[(first + dep.op) as usize];
                let needed = if dep.whole { before.chunks } else { state.taken + 1 };
                (before.ended < needed).then_some(Wait::After(dep.op))
            } else if let Some(&message) = incoming.get(condition - after.len()) {
                let from = wiring.messages[message as usize].from;
                let wait = Wait::Receive(wiring.rank[from as usize], wiring.local(from));
                (!self.is_there(message, state.taken)).then_some(wait)
            } else if keeps(this) {
                return None;
            } else {
                return self.send_blocked(op);
            };
            if wait.is_some() {
                self.ops[op as usize].take_condition = condition as u32;
                return wait;
            }
        }
        None
    }

    /// The first condition that keeps `op` from sending its next chunk.
    fn send_waits_for(&mut self, op: u32) -> Option<Wait> {
        let state = self.ops[op as usize];
        if state.sent == state.taken || self.wiring.outgoing(op).is_empty() {
            return Some(DONE);
        }
        self.send_blocked(op)
    }

    /// The first target whose edge is not open for the next chunk.
    fn send_blocked(&mut self, op: u32) -> Option<Wait> {
        let outgoing = self.wiring.outgoing(op);
        for message in outgoing.start + self.ops[op as usize].send_condition..outgoing.end {
            if !self.is_open(message) {
                self.ops[op as usize].send_condition = message - outgoing.start;
                let to = self.wiring.messages[message as usize].to;
                return Some(Wait::Send(self.wiring.rank[to as usize], self.wiring.local(to)));
            }
        }
        self.ops[op as usize].send_condition = outgoing.len() as u32;
        None
    }

    /// Whether chunk `chunk` of a message is at the head of its edge.
    fn is_there(&self, message: u32, chunk: u32) -> bool {
        self.messages[message as usize].sent > chunk && self.previous_received(message)
    }

    fn previous_received(&self, message: u32) -> bool {
        let previous = self.wiring.messages[message as usize].previous;
        previous == NONE || self.messages[previous as usize].received == self.chunks_of(previous)
    }

    /// Whether a message's edge can take its next chunk.
    fn is_open(&self, message: u32) -> bool {
        let Some(slots) = self.slots else { return self.previous_received(message) };
        // Chunks in slots are of this message and of the messages before it, which must all have been sent.
        let Moved { sent, received } = self.messages[message as usize];
        let mut used = sent - received;
        let mut previous = self.wiring.messages[message as usize].previous;
        if previous != NONE && self.messages[previous as usize].sent < self.chunks_of(previous) {
            return false;
        }
        while used < slots && previous != NONE {
            let Moved { sent, received } = self.messages[previous as usize];
            if sent == received {
                break;
            }
            used += sent - received;
            previous = self.wiring.messages[previous as usize].previous;
        }
        used < slots
    }

    fn chunks_of(&self, message: u32) -> u32 {
        self.ops[self.wiring.messages[message as usize].from as usize].chunks
    }

    /// Takes in the operands of a chunk.
    fn take(&mut self, op: u32) {
        let wiring = self.wiring;
        self.ops[op as usize].taken += 1;
        self.ops[op as usize].take_condition = 0;
        for &message in wiring.incoming(op) {
            self.messages[message as usize].received += 1;
            let from = wiring.messages[message as usize].from;
            if self.slots.is_none() {
                self.received_one(from, self.messages[message as usize].received);
            }
            self.wake_senders(message);
            let next = wiring.messages[message as usize].next;
            if next != NONE && self.messages[message as usize].received == self.chunks_of(message) {
                self.wake(wiring.messages[next as usize].to);
            }
        }
        if wiring.outgoing(op).is_empty() {
            self.end_a_chunk(op);
        } else if !keeps(wiring.ops[op as usize]) {
            self.send(op);
        }
    }

    /// Offers a chunk to all receivers, or puts it into their slots.
    fn send(&mut self, op: u32) {
        let wiring = self.wiring;
        self.ops[op as usize].sent += 1;
        self.ops[op as usize].send_condition = 0;
        for message in wiring.outgoing(op) {
            self.messages[message as usize].sent += 1;
            self.wake(wiring.messages[message as usize].to);
            let next = wiring.messages[message as usize].next;
            if next != NONE
                && self.slots.is_some()
                && self.messages[message as usize].sent == self.chunks_of(message)
            {
                self.wake(wiring.messages[next as usize].from);
            }
        }
        if self.slots.is_some() {
            self.end_a_chunk(op);
        }
    }

    /// A receiver of `op` has taken its `received`-th chunk, and holds a chunk up no more.
    fn received_one(&mut self, op: u32, received: u32) {
        let state = &mut self.ops[op as usize];
        if received != state.ended + 1 {
            return;
        }
        state.behind -= 1;
        while self.ops[op as usize].behind == 0 && self.ops[op as usize].ended < self.ops[op as usize].chunks
        {
            self.end_a_chunk(op);
            let ended = self.ops[op as usize].ended;
            let behind =
                self.wiring.outgoing(op).filter(|&m| self.messages[m as usize].received == ended).count();
            self.ops[op as usize].behind = behind as u32;
        }
    }

    fn end_a_chunk(&mut self, op: u32) {
        self.ops[op as usize].ended += 1;
        let wiring = self.wiring;
        for &dependent in wiring.dependents(op) {
            self.wake(dependent);
        }
        self.wake(op);
    }

    /// Who waits for room on the edge of a message: its own sender or, with slots, that of a message after it.
    fn wake_senders(&mut self, message: u32) {
        let mut message = message;
        loop {
            self.wake(self.wiring.messages[message as usize].from);
            let all_sent = self.messages[message as usize].sent == self.chunks_of(message);
            message = self.wiring.messages[message as usize].next;
            if message == NONE || !all_sent {
                return;
            }
        }
    }

    fn wake(&mut self, op: u32) {
        let state = &mut self.ops[op as usize];
        if !state.queued && state.ended < state.chunks {
            state.queued = true;
            self.queue.push_back(op);
        }
    }

    /// Which receiver has not taken the chunk that has to end next.
    fn held_by(&self, op: u32) -> Wait {
        let ended = self.ops[op as usize].ended;
        let message = self.wiring.outgoing(op).find(|&m| self.messages[m as usize].received <= ended);
        let to = message.map_or(op, |message| self.wiring.messages[message as usize].to);
        Wait::Send(self.wiring.rank[to as usize], self.wiring.local(to))
    }
}

/// Stands for having nothing left to do; never reported.
const DONE: Wait = Wait::After(u32::MAX);
