//! Short tasks, run straight: where every message is eager, one operation after the other.
//!
//! An eager message waits for nobody, so there is nothing to open early and nothing to do meanwhile: the operations run
//! in program order, each to its end. As long as no edge has more messages than a link keeps room for, no rank waits for
//! ever for one that waits for it, whatever the algorithm; the test below shows it. Messages that the user asked for
//! are sent before any is waited for.
//!
//! [`super::round`] does the same for programs of one round, in fewer instructions yet.

use super::plan::Step;
use super::run::{Run, StepState, Stop, at as address, link};
use rccl_schedule::Rank;
use rccl_transport::{LinkError, MessageId, Source};

/// How far a call is.
#[derive(Default)]
pub(crate) struct Straight {
    begun: bool,
    /// The operation that runs.
    step: usize,
    /// Its receives that are open, those whose message is here, and its sends that are out.
    opened: usize,
    arrived: usize,
    sent: usize,
    /// Its value, once that exists, the buffer that it lies in if it has no other place, and where it is still to go.
    value: Option<*const u8>,
    outbox: Option<u32>,
    store: Option<*mut u8>,
}

// SAFETY: the value lies in memory that whoever runs the call may use.
unsafe impl Send for Straight {}

impl Run<'_> {
    /// Goes on with a call all of whose messages are eager: (something moved, all done).
    pub fn step_straight(&mut self, at: &mut Straight) -> Result<(bool, bool), Stop> {
        // What has come before the call began needs no second look.
        let looks = at.begun || self.plan.steps.first().is_some_and(|step| !step.recvs.is_empty());
        if looks {
            self.now.rounds = self.now.rounds.wrapping_add(1);
            for (i, &peer) in self.plan.peers.iter().enumerate() {
                // Where polls are system calls, peers that are not waited for have theirs in turn.
                let polls = !self.now.dear_polls
                    || self.now.rounds % self.plan.peers.len() == i
                    || self.plan.steps.get(at.step).is_some_and(|step| self.waits(at, step, peer));
                let link = link(self.links, peer);
                let done = link.flush().and_then(|()| if polls { link.poll() } else { Ok(()) });
                if let Err(error) = done
                    && self.still_meets(at, peer)
                {
                    return Err(Stop::Link { peer, error });
                }
            }
        }
        at.begun = true;
        let mut moved = false;
        while let Some(step) = self.plan.steps.get(at.step) {
            let before = (at.opened, at.arrived, at.sent);
            if !self.finish_step(at, step)? {
                return Ok((moved || before != (at.opened, at.arrived, at.sent), false));
            }
            self.pool.give_back(at.outbox.take());
            *at = Straight { begun: true, step: at.step + 1, ..Straight::default() };
            moved = true;
        }
        for &peer in &self.plan.peers {
            // Whoever is gone has all that it needs: nothing is left to be sent.
            let _ = link(self.links, peer).flush();
        }
        Ok((moved, self.drained()))
    }

    /// `false`: a message is not here yet, or there is no room for one.
    fn finish_step(&mut self, at: &mut Straight, step: &Step) -> Result<bool, Stop> {
        let len = self.state.steps[at.step].len as usize;
        let value = match at.value {
            Some(value) => value,
            None => {
                if !self.gather(at, step, len)? {
                    return Ok(false);
                }
                let value = self.produce_at_once(at, step, len)?;
                at.value = Some(value);
                value
            }
        };
        for index in step.sends.clone().skip(at.sent) {
            let (end, tag) = (&self.plan.ends[index], self.tag(index));
            // SAFETY: the value has `len` bytes, in the caller's memory or in a buffer of ours.
            let sent = unsafe { link(self.links, end.peer).send_eager(tag, value, len) };
            if !sent.map_err(|error| Stop::Link { peer: end.peer, error })? {
                return Ok(false);
            }
            at.sent += 1;
        }
        if let Some(store) = at.store
            && len > 0
        {
            // The messages are out: a copy for this rank alone keeps nobody waiting.
            // SAFETY: the areas hold the whole call; the two are not the same, so they are apart.
            unsafe { std::ptr::copy_nonoverlapping(value, store, len) };
        }
        Ok(true)
    }

    /// Whether all messages that the operation receives are here.
    fn gather(&mut self, at: &mut Straight, step: &Step, len: usize) -> Result<bool, Stop> {
        let ends = &self.plan.ends[step.recvs.clone()];
        if at.opened == 0 {
            self.state.messages.clear();
            self.state.inputs.clear();
        }
        while let Some(end) = ends.get(at.opened) {
            let tag = self.tag(step.recvs.start + at.opened);
            let message = link(self.links, end.peer).open_recv(tag, len as u64, true, None);
            let Some(message) = message.map_err(|error| Stop::Link { peer: end.peer, error })? else { break };
            self.state.messages.push(message);
            self.state.inputs.push(std::ptr::null());
            at.opened += 1;
        }
        for i in 0..at.opened {
            if self.state.inputs[i].is_null()
                && let Some(bytes) = self.arrived(step.recvs.start + i, self.state.messages[i], len)?
            {
                self.state.inputs[i] = bytes;
                at.arrived += 1;
            }
        }
        Ok(at.arrived == ends.len())
    }

    /// Makes the operation's value out of its operands, which are all here, and says where it is.
    fn produce_at_once(&mut self, at: &mut Straight, step: &Step, len: usize) -> Result<*const u8, Stop> {
        let StepState { own: own_at, store: store_at, .. } = self.state.steps[at.step];
        let own = step.own.map(|own| address(&self.now.areas, own, own_at).cast_const());
        let store = step.store.map(|store| address(&self.now.areas, store, store_at));
        if step.recvs.is_empty() && (!step.finish || store.is_none()) {
            let value = own.unwrap_or(std::ptr::dangling());
            at.store = store.filter(|store| own.is_some() && store.cast_const() != value);
            // An operation without any operand has no value.
            return Ok(value);
        }
        if let Some(own) = own {
            self.state.inputs.insert(step.own_at, own);
        }
        let output = match store {
            Some(store) => store,
            None => {
                let outbox = self.pool.take();
                at.outbox = Some(outbox);
                self.pool.buffer(outbox)
            }
        };
        if len > 0 {
            let finish = step.finish.then_some(self.plan.program.ranks);
            let count = len / self.now.element as usize;
            // SAFETY: the links keep every message readable until it is released, the areas hold the whole call, and a
            // buffer of the pool any eager message; the output is one of the inputs or apart from all.
            unsafe { self.now.kernel.run(&self.state.inputs, &[output], count, finish) };
        }
        for (end, &message) in self.plan.ends[step.recvs.clone()].iter().zip(&self.state.messages) {
            let link = link(self.links, end.peer);
            link.release(message, len as u64).map_err(|error| Stop::Link { peer: end.peer, error })?;
            link.close_recv(message);
        }
        Ok(output.cast_const())
    }

    /// The eager message of a receiving end, once it is here.
    #[inline]
    pub(super) fn arrived(
        &mut self,
        end: usize,
        message: MessageId,
        len: usize,
    ) -> Result<Option<*const u8>, Stop> {
        let (peer, tag) = (self.plan.ends[end].peer, self.tag(end));
        let incoming =
            link(self.links, peer).incoming(message).map_err(|error| Stop::Link { peer, error })?;
        let Some(incoming) = incoming else { return Ok(None) };
        if incoming.tag != tag {
            return Err(Stop::Foreign { peer, outgoing: false, ours: tag, theirs: incoming.tag });
        }
        match (incoming.source, incoming.len) {
            (Source::Eager(at), Some(given)) if given == len as u64 => Ok(Some(at)),
            (Source::Eager(_), Some(given)) => Err(Stop::Length { peer, expected: len as u64, given }),
            _ => {
                let what = "a message of a short task is not eager".into();
                Err(Stop::Link { peer, error: LinkError::Protocol { what } })
            }
        }
    }

    /// Whether anything is left to do with a peer. One that has all it needs, and whose messages are here, may leave.
    pub(super) fn still_meets(&self, at: &Straight, peer: Rank) -> bool {
        let Some(step) = self.plan.steps.get(at.step) else { return false };
        self.waits(at, step, peer) || self.plan.ends[step.sends.end..].iter().any(|end| end.peer == peer)
    }

    /// The peers that the operation that runs waits for, ascending. What those of later ones sent may be here, unread: it is not
    /// known of them that they are missing.
    pub(super) fn waited_for(&self, at: &Straight) -> Vec<Rank> {
        let Some(step) = self.plan.steps.get(at.step) else { return Vec::new() };
        self.plan.peers.iter().copied().filter(|&peer| self.waits(at, step, peer)).collect()
    }

    /// Whether the operation that runs still has something to do with a peer.
    fn waits(&self, at: &Straight, step: &Step, peer: Rank) -> bool {
        let ends = &self.plan.ends;
        let here = |i: usize| at.value.is_some() || i < at.opened && !self.state.inputs[i].is_null();
        let mut recvs = ends[step.recvs.clone()].iter().enumerate();
        recvs.any(|(i, end)| end.peer == peer && !here(i))
            || ends[step.sends.clone()][at.sent..].iter().any(|end| end.peer == peer)
    }
}

#[cfg(test)]
mod tests {
    use rccl_schedule::{Algorithm, Collective, Layout, Program, programs};
    use std::collections::HashMap;

    /// Runs the operations of each rank in order, with eager messages that always find room; the ranks that get stuck.
    fn stuck(programs: &[Program]) -> Vec<usize> {
        let mut next = vec![0; programs.len()];
        let mut messages: HashMap<(u32, u32), u32> = HashMap::new();
        loop {
            let mut moved = false;
            for (rank, program) in programs.iter().enumerate() {
                while let Some(op) = program.ops.get(next[rank]) {
                    let rank = rank as u32;
                    let here = |peer: &u32| messages.get(&(*peer, rank)).is_some_and(|&n| n > 0);
                    if !op.recv.iter().all(here) {
                        break;
                    }
                    op.recv.iter().for_each(|&peer| *messages.entry((peer, rank)).or_default() -= 1);
                    op.send.iter().for_each(|&peer| *messages.entry((rank, peer)).or_default() += 1);
                    next[rank as usize] += 1;
                    moved = true;
                }
            }
            if !moved {
                let over = |&rank: &usize| next[rank] < programs[rank].ops.len();
                return (0..programs.len()).filter(over).collect();
            }
        }
    }

    #[test]
    fn no_algorithm_gets_stuck() {
        for n in 1..=40_u32 {
            let layouts = [
                Layout::one_host(n),
                Layout::of_hosts((0..n).map(|rank| rank % 3)),
                Layout::of_hosts((0..n).map(|rank| rank / 2)),
            ];
            for (layout, root) in layouts.iter().zip([0, n / 2, n - 1]) {
                for collective in Collective::ALL.map(|collective| collective.with_root(root)) {
                    for &algorithm in Algorithm::for_collective(&collective) {
                        let stuck = stuck(&programs(algorithm, &collective, layout, 1));
                        assert!(stuck.is_empty(), "{algorithm:?} {collective} on {n}: {stuck:?}");
                    }
                }
            }
        }
    }
}
