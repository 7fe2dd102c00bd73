//! Requests, gathered and posted together.
//!
//! A batch is filled, posted, and empty again with its memory kept, so that a batch that is reused allocates nothing. The
//! device is told of all its requests at once: they are chained, and one ring of its doorbell follows the last.

use std::ptr;

use crate::region::{RemoteMemory, Segment};
use crate::sys::{
    ibv_recv_wr, ibv_send_flags as Flag, ibv_send_wr, ibv_send_wr__bindgen_ty_1 as Extra,
    ibv_send_wr__bindgen_ty_2 as Target, ibv_send_wr__bindgen_ty_2__bindgen_ty_1 as Rdma, ibv_sge,
    ibv_wr_opcode as Opcode,
};

/// What a send request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sends a message into the peer's oldest receive request.
    Send,
    /// As `Send`, with a number that its completion carries.
    SendWithImmediate(u32),
    /// Writes into the peer's memory; the peer notices nothing.
    Write(RemoteMemory),
    /// Writes into the peer's memory, then completes the peer's oldest receive request, whose completion carries the
    /// number. With no data at all the place is not looked at.
    WriteWithImmediate(RemoteMemory, u32),
}

/// Where a send request's bytes are.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// In registered memory, in this order. They must stay as they are until the request has completed.
    Gather(&'a [Segment]),
    /// Here: they are copied into the batch and from there into the request, and may change at once.
    Inline(&'a [u8]),
}

/// One request for the send queue.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest<'a> {
    /// A number that its completion carries.
    pub id: u64,
    /// What it does.
    pub operation: Operation,
    /// Which bytes.
    pub data: Data<'a>,
    /// Whether its success is reported as a completion. Failures are reported always. A request leaves the queue only
    /// when it, or a later one, has been reported; so one in every queue full at least must be signalled.
    pub signalled: bool,
    /// Whether the peer is to be woken if it waits for solicited completions only.
    pub solicited: bool,
}

/// Requests for a send queue, in order.
#[derive(Default)]
pub struct SendBatch {
    requests: Vec<ibv_send_wr>,
    segments: Vec<ibv_sge>,
    inline: Vec<u8>,
    most_segments: u32,
    most_inline: u32,
}

// SAFETY: the pointers in the requests are written right before they are posted, and are of no meaning otherwise.
unsafe impl Send for SendBatch {}
// SAFETY: as above; nothing changes through a shared reference.
unsafe impl Sync for SendBatch {}

impl SendBatch {
    /// An empty batch with room for `requests` of one segment each, beyond which it grows.
    pub fn with_capacity(requests: usize) -> SendBatch {
        SendBatch {
            requests: Vec::with_capacity(requests),
            segments: Vec::with_capacity(requests),
            ..SendBatch::default()
        }
    }

    /// Adds a request.
    ///
    /// # Panics
    ///
    /// If it has 2^31 segments or inline bytes, or more.
    pub fn push(&mut self, request: &SendRequest<'_>) {
        let mut flags = 0;
        if request.signalled {
            flags |= Flag::IBV_SEND_SIGNALED.0;
        }
        if request.solicited {
            flags |= Flag::IBV_SEND_SOLICITED.0;
        }
        let count = match request.data {
            Data::Gather(segments) => {
                self.segments.extend(segments.iter().map(|segment| segment.raw()));
                segments.len()
            }
            Data::Inline(bytes) => {
                flags |= Flag::IBV_SEND_INLINE.0;
                let length = i32::try_from(bytes.len()).expect("fewer than 2^31 inline bytes") as u32;
                self.inline.extend_from_slice(bytes);
                // The address follows when it is posted: the bytes move while the batch grows.
                self.segments.push(ibv_sge { addr: 0, length, lkey: 0 });
                self.most_inline = self.most_inline.max(length);
                1
            }
        };
        let num_sge = i32::try_from(count).expect("fewer than 2^31 segments");
        self.most_segments = self.most_segments.max(num_sge as u32);
        let (opcode, immediate, remote) = match request.operation {
            Operation::Send => (Opcode::IBV_WR_SEND, 0, None),
            Operation::SendWithImmediate(number) => (Opcode::IBV_WR_SEND_WITH_IMM, number, None),
            Operation::Write(place) => (Opcode::IBV_WR_RDMA_WRITE, 0, Some(place)),
            Operation::WriteWithImmediate(place, number) => {
                (Opcode::IBV_WR_RDMA_WRITE_WITH_IMM, number, Some(place))
            }
        };
        let rdma =
            remote.map_or(Rdma::default(), |place| Rdma { remote_addr: place.address, rkey: place.key.0 });
        self.requests.push(ibv_send_wr {
            wr_id: request.id,
            num_sge,
            opcode,
            send_flags: flags,
            __bindgen_anon_1: Extra { imm_data: immediate.to_be() },
            wr: Target { rdma },
            ..Default::default()
        });
    }

    /// Requests in it.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.segments.clear();
        self.inline.clear();
        (self.most_segments, self.most_inline) = (0, 0);
    }

    pub(super) fn most_segments(&self) -> u32 {
        self.most_segments
    }

    pub(super) fn most_inline(&self) -> u32 {
        self.most_inline
    }

    /// The first request, chained with the others and with their segments; valid until the batch changes.
    pub(super) fn chain(&mut self) -> *mut ibv_send_wr {
        let (first, segments) = (self.requests.as_mut_ptr(), self.segments.as_mut_ptr());
        let inline = self.inline.as_ptr().expose_provenance();
        let (mut segment, mut byte) = (0, 0);
        for at in 0..self.requests.len() {
            // SAFETY: there are so many requests, and nobody else has a reference to one.
            let request = unsafe { &mut *first.wrapping_add(at) };
            request.sg_list = segments.wrapping_add(segment);
            if request.send_flags & Flag::IBV_SEND_INLINE.0 != 0 {
                // SAFETY: an inline request has one segment.
                let piece = unsafe { &mut *request.sg_list };
                piece.addr = (inline + byte) as u64;
                byte += piece.length as usize;
            }
            segment += request.num_sge as usize;
            request.next = follower(first, at, self.requests.len());
        }
        first
    }
}

/// Requests for a receive queue, in order.
#[derive(Default)]
pub struct ReceiveBatch {
    requests: Vec<ibv_recv_wr>,
    segments: Vec<ibv_sge>,
    most_segments: u32,
}

// SAFETY: the pointers in the requests are written right before they are posted, and are of no meaning otherwise.
unsafe impl Send for ReceiveBatch {}
// SAFETY: as above; nothing changes through a shared reference.
unsafe impl Sync for ReceiveBatch {}

impl ReceiveBatch {
    /// An empty batch with room for `requests` of one segment each, beyond which it grows.
    pub fn with_capacity(requests: usize) -> ReceiveBatch {
        ReceiveBatch {
            requests: Vec::with_capacity(requests),
            segments: Vec::with_capacity(requests),
            most_segments: 0,
        }
    }

    /// Adds a request that stores one message, piece by piece, and whose completion carries `id`. For the immediate of a
    /// write no segment is needed.
    ///
    /// # Panics
    ///
    /// If it has 2^31 segments or more.
    pub fn push(&mut self, id: u64, segments: &[Segment]) {
        let num_sge = i32::try_from(segments.len()).expect("fewer than 2^31 segments");
        self.segments.extend(segments.iter().map(|segment| segment.raw()));
        self.most_segments = self.most_segments.max(num_sge as u32);
        self.requests.push(ibv_recv_wr { wr_id: id, num_sge, ..Default::default() });
    }

    /// Requests in it.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.requests.clear();
        self.segments.clear();
        self.most_segments = 0;
    }

    pub(super) fn most_segments(&self) -> u32 {
        self.most_segments
    }

    /// The first request, chained with the others and with their segments; valid until the batch changes.
    pub(super) fn chain(&mut self) -> *mut ibv_recv_wr {
        let (first, segments) = (self.requests.as_mut_ptr(), self.segments.as_mut_ptr());
        let mut segment = 0;
        for at in 0..self.requests.len() {
            // SAFETY: there are so many requests, and nobody else has a reference to one.
            let request = unsafe { &mut *first.wrapping_add(at) };
            request.sg_list = segments.wrapping_add(segment);
            segment += request.num_sge as usize;
            request.next = follower(first, at, self.requests.len());
        }
        first
    }
}

/// The request after the one at `at` of `count`; null after the last.
fn follower<R>(first: *mut R, at: usize, count: usize) -> *mut R {
    if at + 1 < count { first.wrapping_add(at + 1) } else { ptr::null_mut() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::RemoteKey;

    fn request(id: u64, operation: Operation, data: Data<'_>) -> SendRequest<'_> {
        SendRequest { id, operation, data, signalled: id % 2 == 1, solicited: false }
    }

    /// What a provider sees when it follows the chain.
    fn walk(first: *mut ibv_send_wr) -> Vec<(u64, Vec<(u64, u32)>)> {
        let mut seen = Vec::new();
        let mut at = first;
        while !at.is_null() {
            // SAFETY: the chain of a batch that has not changed.
            let request = unsafe { at.read() };
            let segments = (0..request.num_sge as usize).map(|index| {
                // SAFETY: as many segments as the request says.
                let segment = unsafe { request.sg_list.wrapping_add(index).read() };
                (segment.addr, segment.length)
            });
            seen.push((request.wr_id, segments.collect()));
            at = request.next;
        }
        seen
    }

    #[test]
    fn a_chain_has_every_request_with_its_own_segments() {
        let place = RemoteMemory { address: 4096, key: RemoteKey(9) };
        let mut batch = SendBatch::with_capacity(1);
        for round in 0..3 {
            let pieces = [piece(100), piece(200)];
            batch.push(&request(1, Operation::Write(place), Data::Gather(&pieces)));
            batch.push(&request(2, Operation::Send, Data::Inline(b"four")));
            batch.push(&request(3, Operation::WriteWithImmediate(place, 5), Data::Gather(&[])));
            batch.push(&request(4, Operation::SendWithImmediate(6), Data::Inline(b"seven b")));
            assert_eq!((batch.len(), batch.most_segments(), batch.most_inline()), (4, 2, 7));
            let seen = walk(batch.chain());
            let inline = batch.inline.as_ptr().addr() as u64;
            let expected = [
                (1, vec![(100, 8), (200, 8)]),
                (2, vec![(inline, 4)]),
                (3, vec![]),
                (4, vec![(inline + 4, 7)]),
            ];
            assert_eq!(seen, expected, "round {round}");
            batch.clear();
            assert!(batch.is_empty() && batch.most_inline() == 0);
        }
    }

    #[test]
    fn requests_are_written_as_the_header_says() {
        let place = RemoteMemory { address: 4096, key: RemoteKey(9) };
        let mut batch = SendBatch::default();
        batch.push(&request(1, Operation::WriteWithImmediate(place, 0x0102_0304), Data::Inline(b"x")));
        let raw = batch.requests[0];
        assert_eq!(raw.opcode, Opcode::IBV_WR_RDMA_WRITE_WITH_IMM);
        assert_eq!(raw.send_flags, Flag::IBV_SEND_SIGNALED.0 | Flag::IBV_SEND_INLINE.0);
        // SAFETY: both members of the union are the same plain number.
        assert_eq!(unsafe { raw.__bindgen_anon_1.imm_data }.to_ne_bytes(), [1, 2, 3, 4]);
        // SAFETY: a write has a remote place.
        let rdma = unsafe { raw.wr.rdma };
        assert_eq!((rdma.remote_addr, rdma.rkey), (4096, 9));
    }

    #[test]
    fn receives_are_chained_too() {
        let mut batch = ReceiveBatch::with_capacity(2);
        batch.push(7, &[piece(100)]);
        batch.push(8, &[]);
        // SAFETY: the chain of a batch that has not changed.
        let one = unsafe { batch.chain().read() };
        assert_eq!((one.wr_id, one.num_sge), (7, 1));
        // SAFETY: as above.
        let two = unsafe { one.next.read() };
        assert_eq!((two.wr_id, two.num_sge, two.next.is_null()), (8, 0, true));
    }

    fn piece(address: u64) -> Segment {
        Segment::for_test(address, 8)
    }
}
