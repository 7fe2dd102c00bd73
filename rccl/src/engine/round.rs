//! A program of one round, run straight: every peer gets the input, then the peers' inputs are reduced.
//!
//! That is what [exchange](rccl_schedule::Algorithm::Exchange) is, and what most small calls are. The general machinery
//! of [`super::run`] costs 2,800 instructions here, more time than the message is under way; this costs half of it.

use super::run::{Run, Stop, at, link};
use rccl_schedule::{Buffer, Extent, Program, Rank};
use rccl_transport::LinkError;

/// How far the round is.
#[derive(Default)]
pub(crate) struct Round {
    /// Sends that are out, receives that are open, messages that are here.
    sent: usize,
    opened: usize,
    arrived: usize,
    reduced: bool,
}

/// Whether `program` is one round: a whole buffer to some peers, then a reduction of theirs with one of this rank's.
pub(crate) fn is_round(program: &Program) -> bool {
    let [send, reduce] = &program.ops[..] else { return false };
    let all = send.extent == Extent::ALL && reduce.extent == Extent::ALL;
    let sends = send.recv.is_empty() && send.reduce_with.is_some() && send.copy_to.is_none() && !send.finish;
    let reduces = reduce.send.is_empty() && reduce.reduce_with.is_some() && reduce.copy_to.is_some();
    program.snapshot && all && sends && reduces
}

impl Run<'_> {
    /// Goes on with a call of `bytes` bytes, all of whose messages are eager: (something moved, all done).
    pub fn step_round(&mut self, round: &mut Round, bytes: usize) -> Result<(bool, bool), Stop> {
        let plan = self.plan;
        let [send, reduce] = &plan.steps[..] else { return Ok((false, true)) };
        let (sends, recvs) = (&plan.ends[send.sends.clone()], &plan.ends[reduce.recvs.clone()]);
        let (Some(input), Some(own), Some(store)) = (send.own, reduce.own, reduce.store) else {
            return Ok((false, true));
        };
        let (input, own) = (self.input(input), self.input(own));
        let mut moved = false;
        while let Some(end) = sends.get(round.sent) {
            // SAFETY: the area holds the whole call.
            let sent = unsafe { link(self.links, end.peer).send_eager(self.now.tag, input, bytes) };
            if !sent.map_err(|error| Stop::Link { peer: end.peer, error })? {
                break;
            }
            round.sent += 1;
            moved = true;
        }
        while let Some(end) = recvs.get(round.opened) {
            let message = link(self.links, end.peer).open_recv(self.now.tag, bytes as u64, true, None);
            let Some(message) = message.map_err(|error| Stop::Link { peer: end.peer, error })? else { break };
            if round.opened == 0 {
                self.state.messages.clear();
                self.state.inputs.clear();
            }
            self.state.messages.push(message);
            self.state.inputs.push(std::ptr::null());
            round.opened += 1;
        }
        for &peer in &plan.peers {
            let link = link(self.links, peer);
            if let Err(error) = link.flush().and_then(|()| link.poll()) {
                self.tolerate_in_round(round, peer, error)?;
            }
        }
        if !round.reduced {
            for i in 0..round.opened {
                if self.state.inputs[i].is_null()
                    && let Some(bytes) =
                        self.arrived(reduce.recvs.start + i, self.state.messages[i], bytes)?
                {
                    self.state.inputs[i] = bytes;
                    round.arrived += 1;
                    moved = true;
                }
            }
            if round.sent < sends.len() || round.arrived < recvs.len() {
                return Ok((moved, false));
            }
            self.state.inputs.insert(reduce.own_at, own);
            let count = bytes / self.now.element as usize;
            let output = at(&self.now.areas, store, 0);
            let finish = reduce.finish.then_some(plan.program.ranks);
            // SAFETY: the links keep every message readable until it is released, and the areas hold the whole call;
            // the output is one of the inputs or apart from all.
            unsafe { self.now.kernel.run(&self.state.inputs, &[output], count, finish) };
            round.reduced = true;
            for (end, &message) in recvs.iter().zip(&self.state.messages) {
                let link = link(self.links, end.peer);
                let released = link.release(message, bytes as u64);
                released.map_err(|error| Stop::Link { peer: end.peer, error })?;
                link.close_recv(message);
                // What is given back wakes a peer that sleeps for it; one that is gone has what it needs.
                let _ = link.flush();
            }
        }
        Ok((moved, self.drained()))
    }

    #[inline]
    fn input(&self, buffer: Buffer) -> *const u8 {
        at(&self.now.areas, buffer, 0).cast_const()
    }

    /// A peer that has what it needs, and whose message is here, may leave.
    fn tolerate_in_round(&self, round: &Round, peer: Rank, error: LinkError) -> Result<(), Stop> {
        let [send, reduce] = &self.plan.steps[..] else { return Ok(()) };
        let mut waits =
            self.plan.ends[send.sends.clone()].iter().skip(round.sent).any(|end| end.peer == peer);
        if !round.reduced {
            let recvs = &self.plan.ends[reduce.recvs.clone()];
            let here = |i: usize| i < round.opened && !self.state.inputs[i].is_null();
            waits |= recvs.iter().enumerate().any(|(i, end)| end.peer == peer && !here(i));
        }
        if waits { Err(Stop::Link { peer, error }) } else { Ok(()) }
    }
}
