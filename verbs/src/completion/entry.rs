//! One completion.

use std::fmt;

use super::Status;
use crate::queue_pair::QpNumber;
use crate::sys::{ibv_wc, ibv_wc_flags, ibv_wc_opcode};

/// The report on one request (ibv_poll_cq(3)). Whatever it says, the request is over and its memory is free again; and
/// a completed send says so of all sends posted before it on the same queue pair, signalled or not.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub struct Completion(ibv_wc);

/// What completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A message was sent, and has arrived.
    Send,
    /// Memory of the peer's was written.
    Write,
    /// A message was received into the memory of the oldest receive request.
    Receive,
    /// The peer has written to memory of this side; the immediate used up the oldest receive request, whose memory was
    /// not touched.
    ReceiveWrite,
    /// Another; the number of `enum ibv_wc_opcode`.
    Other(u32),
}

impl Completion {
    /// The number that the request was posted with.
    pub fn id(&self) -> u64 {
        self.0.wr_id
    }

    /// How it went.
    pub fn status(&self) -> Status {
        Status::from_raw(self.0.status)
    }

    /// Whether it went well. What follows below is only valid then.
    pub fn is_success(&self) -> bool {
        self.status() == Status::Success
    }

    /// The queue pair that the request was posted to; valid whatever the status.
    pub fn queue_pair(&self) -> QpNumber {
        QpNumber(self.0.qp_num)
    }

    /// The provider's own number for an error, for its maker; 0 if there is none.
    pub fn vendor_error(&self) -> u32 {
        self.0.vendor_err
    }

    /// What completed, if it succeeded.
    pub fn kind(&self) -> Option<Kind> {
        self.is_success().then_some(match self.0.opcode {
            ibv_wc_opcode::IBV_WC_SEND => Kind::Send,
            ibv_wc_opcode::IBV_WC_RDMA_WRITE => Kind::Write,
            ibv_wc_opcode::IBV_WC_RECV => Kind::Receive,
            ibv_wc_opcode::IBV_WC_RECV_RDMA_WITH_IMM => Kind::ReceiveWrite,
            ibv_wc_opcode(other) => Kind::Other(other),
        })
    }

    /// Bytes that arrived, for the two kinds of receive; of no meaning for sends.
    pub fn bytes(&self) -> u32 {
        self.0.byte_len
    }

    /// The number that the peer sent along, if it did.
    pub fn immediate(&self) -> Option<u32> {
        if !self.is_success() || self.0.wc_flags & ibv_wc_flags::IBV_WC_WITH_IMM.0 == 0 {
            return None;
        }
        // SAFETY: both members of the union are the same plain number.
        Some(u32::from_be(unsafe { self.0.__bindgen_anon_1.imm_data }))
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion")
            .field("id", &self.id())
            .field("status", &self.status())
            .field("queue_pair", &self.queue_pair())
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ibv_wc__bindgen_ty_1, ibv_wc_status};

    #[test]
    fn a_write_with_immediate_is_read_as_the_header_says() {
        let raw = ibv_wc {
            wr_id: 7,
            opcode: ibv_wc_opcode::IBV_WC_RECV_RDMA_WITH_IMM,
            byte_len: 1 << 20,
            qp_num: 17,
            wc_flags: ibv_wc_flags::IBV_WC_WITH_IMM.0,
            __bindgen_anon_1: ibv_wc__bindgen_ty_1 { imm_data: 0xabcd_1234_u32.to_be() },
            ..Default::default()
        };
        let completion = Completion(raw);
        assert_eq!(
            (completion.id(), completion.queue_pair(), completion.bytes()),
            (7, QpNumber(17), 1 << 20)
        );
        assert_eq!(
            (completion.kind(), completion.immediate()),
            (Some(Kind::ReceiveWrite), Some(0xabcd_1234))
        );

        let failed = Completion(ibv_wc { status: ibv_wc_status::IBV_WC_WR_FLUSH_ERR, ..raw });
        assert_eq!((failed.status(), failed.kind(), failed.immediate()), (Status::Flushed, None, None));
    }
}
