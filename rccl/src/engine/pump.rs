//! How a value that exists goes to each of its receivers, at that receiver's pace.

use super::Pool;
use super::run::{EndState, Run, StepState, Stop, Way, at, link};
use rccl_transport::{Link, LinkError, MessageId, Sink};

impl Run<'_> {
    /// How the message of sending end `end` leaves, `None` while that is not known.
    #[inline]
    pub(super) fn way(&mut self, end: usize) -> Result<Option<Way>, Stop> {
        let EndState { way, opened, .. } = self.state.ends[end];
        if way.is_some() || !opened { Ok(way) } else { self.find_way(end) }
    }

    fn find_way(&mut self, end: usize) -> Result<Option<Way>, Stop> {
        let ours = self.tag(end);
        let state = &mut self.state.ends[end];
        let peer = self.plan.ends[end].peer;
        match link(self.links, peer).sink(state.message).map_err(|error| Stop::Link { peer, error })? {
            Sink::Waiting => return Ok(None),
            Sink::Foreign(theirs) => return Err(Stop::Foreign { peer, outgoing: true, ours, theirs }),
            Sink::Pulled => state.way = Some(Way::Pulled),
            Sink::Mapped(base) => state.way = Some(Way::Mapped(base)),
            Sink::Staged => state.way = Some(Way::Staged),
            Sink::Copy => state.way = Some(Way::Copy),
            Sink::Posted => state.way = Some(Way::Posted),
        }
        Ok(state.way)
    }

    /// Sends what exists of step `s`'s value and has not gone to `end` yet.
    pub(super) fn pump(&mut self, s: usize, end: usize) -> Result<bool, Stop> {
        let Some(way) = self.way(end)? else { return Ok(false) };
        let peer = self.plan.ends[end].peer;
        let StepState { moved, len, .. } = self.state.steps[s];
        if way == Way::Posted {
            return self.post(s, end);
        }
        let EndState { at: before, message, .. } = self.state.ends[end];
        let mut sent = before;
        if way == Way::Pulled {
            sent = link(self.links, peer).released(message);
        }
        while sent < moved && way != Way::Pulled {
            let Some((bytes, available)) = self.value(s, sent, moved) else { break };
            let went = match way {
                Way::Mapped(base) => {
                    let size = available.min(self.now.chunk);
                    // SAFETY: the peer granted the whole message at `base`.
                    let to = unsafe { base.add(sent as usize) };
                    // SAFETY: `bytes` is this rank's memory, `to` the peer's; the links keep both valid.
                    unsafe { self.copy(bytes, to, size) };
                    link(self.links, peer).wrote(message, sent + size).map(|()| size)
                }
                Way::Staged => {
                    let size = self.now.chunk.min(len - sent);
                    if available < size {
                        break;
                    }
                    stage(link(self.links, peer), message, bytes, size as usize)
                }
                // SAFETY: `available` bytes exist behind `bytes`.
                _ => unsafe {
                    link(self.links, peer).write(message, sent, bytes, available.min(1 << 20) as usize)
                }
                .map(|went| went as u64),
            };
            let went = went.map_err(|error| Stop::Link { peer, error })?;
            sent += went;
            if went == 0 || matches!(way, Way::Mapped(_)) {
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

    /// Hands what exists of step `s`'s value to a link that reads it for as long as it has not released it.
    fn post(&mut self, s: usize, end: usize) -> Result<bool, Stop> {
        let peer = self.plan.ends[end].peer;
        let StepState { moved, len, .. } = self.state.steps[s];
        let EndState { at: before, posted: before_posted, message, .. } = self.state.ends[end];
        let mut posted = before_posted;
        while posted < moved {
            let Some((bytes, available)) = self.value(s, posted, moved) else { break };
            let len = available.min(1 << 20) as usize;
            // SAFETY: `available` bytes exist behind `bytes`. They stay as they are until they are released: what the
            // program overwrites waits for this send, an outbox keeps what is not sent, and the step does not end before.
            let went = unsafe { link(self.links, peer).post(message, posted, bytes, len) };
            match went.map_err(|error| Stop::Link { peer, error })? {
                0 => break,
                went => posted += went as u64,
            }
        }
        let sent = link(self.links, peer).released(message);
        (self.state.ends[end].posted, self.state.ends[end].at) = (posted, sent);
        if sent == len && self.state.steps[s].produced {
            link(self.links, peer).close_send(message);
            self.state.ends[end].closed = true;
        }
        Ok(posted > before_posted || sent > before || self.state.ends[end].closed)
    }

    /// # Safety
    /// As for copying `size` bytes that do not overlap.
    unsafe fn copy(&self, from: *const u8, to: *mut u8, size: u64) {
        // A byte stream may have brought half an element, which the kernel would leave out.
        if self.now.streaming && size.is_multiple_of(self.now.element) {
            // SAFETY: the caller's promise.
            unsafe {
                self.now.kernel.run_streaming(&[from], &[to], (size / self.now.element) as usize, None)
            };
        } else {
            // SAFETY: the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(from, to, size as usize) };
        }
    }

    /// Bytes `from..` of step `s`'s value and how many of them lie there in one piece.
    fn value(&self, s: usize, from: u64, moved: u64) -> Option<(*const u8, u64)> {
        let step = &self.plan.steps[s];
        let StepState { own, store, outbox, .. } = self.state.steps[s];
        let (stored, start) = if step.recvs.is_empty() { (step.own, own) } else { (step.store, store) };
        if let Some(buffer) = stored {
            return Some((at(&self.now.areas, buffer, start + from).cast_const(), moved - from));
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
