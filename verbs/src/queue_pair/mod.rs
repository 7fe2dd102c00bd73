//! Reliable-connected queue pairs.

mod batch;
mod connection;
mod state;

use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::completion::CompletionQueue;
use crate::domain::ProtectionDomain;
use crate::error::{Error, LibraryError, Result, advice, checked};
use crate::region::Access;
use crate::sys::{
    self, ibv_ece, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask as Mask, ibv_qp_cap, ibv_qp_init_attr, ibv_qp_type,
};

pub use batch::{Data, Operation, ReceiveBatch, SendBatch, SendRequest};
pub use connection::{AckTimeout, Connection, Psn, QpNumber};
pub use state::State;

/// What a queue pair can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Send requests that have been posted and not been completed.
    pub sends: u32,
    /// Receive requests that have been posted and not been completed.
    pub receives: u32,
    /// Segments of a send request.
    pub send_segments: u32,
    /// Segments of a receive request.
    pub receive_segments: u32,
    /// Bytes of an inline send request.
    pub inline_bytes: u32,
}

/// Enhanced connection establishment: what the providers of both ends can do beyond the standard. One end tells what it
/// has, the other accepts a part of it, and both set that before they are ready to receive (ibv_set_ece(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ece {
    /// Whose options they are; 0 for none.
    pub vendor: u32,
    /// The options, which only their vendor understands.
    pub options: u32,
}

/// One end of a reliable connection: what it sends arrives once, in order, or fails with the queue pair.
///
/// May be used from any thread. Dropping it destroys it: what was posted and has not completed is dropped, and nothing
/// more of it will complete.
pub struct QueuePair {
    raw: NonNull<ibv_qp>,
    /// The state that it was last moved to or seen in; the device may have moved it to the error state since.
    state: AtomicU8,
    port: AtomicU8,
    capacity: Capacity,
    domain: ProtectionDomain,
    /// Must outlive it, as must the domain.
    sends: CompletionQueue,
    receives: CompletionQueue,
}

// SAFETY: the verbs lock by themselves (see context.rs).
unsafe impl Send for QueuePair {}
// SAFETY: as above.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    pub(crate) fn new(
        domain: &ProtectionDomain,
        sends: &CompletionQueue,
        receives: &CompletionQueue,
        wanted: Capacity,
    ) -> Result<QueuePair> {
        let context = domain.context();
        for queue in [sends, receives] {
            if !queue.context().is(context) {
                return Err(Error::argument(format!(
                    "a queue pair of {} cannot complete on a queue that was opened on {} separately",
                    context.name(),
                    queue.context().name()
                )));
            }
        }
        let mut inline_bytes = wanted.inline_bytes;
        let (raw, got) = loop {
            let mut attributes = ibv_qp_init_attr {
                send_cq: sends.raw(),
                recv_cq: receives.raw(),
                cap: ibv_qp_cap {
                    max_send_wr: wanted.sends,
                    max_recv_wr: wanted.receives,
                    max_send_sge: wanted.send_segments,
                    max_recv_sge: wanted.receive_segments,
                    max_inline_data: inline_bytes,
                },
                qp_type: ibv_qp_type::IBV_QPT_RC,
                sq_sig_all: 0,
                ..Default::default()
            };
            // SAFETY: the domain and both queues are there; the function writes what it gives into the attributes.
            let raw = unsafe { context.functions().ibv_create_qp(domain.raw(), &mut attributes) };
            if let Some(raw) = NonNull::new(raw) {
                break (raw, attributes.cap);
            }
            let source = io::Error::last_os_error();
            if inline_bytes == 0 || !matches!(source.raw_os_error(), Some(libc::EINVAL | libc::ENOMEM)) {
                return Err(Error::call("ibv_create_qp", format!("{}, {wanted:?}", context.name()), source));
            }
            // No verb tells how much inline data a device takes, and too much is refused like anything else.
            inline_bytes /= 2;
        };
        Ok(QueuePair {
            raw,
            state: AtomicU8::new(State::Reset as u8),
            port: AtomicU8::new(0),
            capacity: Capacity {
                sends: got.max_send_wr,
                receives: got.max_recv_wr,
                send_segments: got.max_send_sge,
                receive_segments: got.max_recv_sge,
                inline_bytes: got.max_inline_data,
            },
            domain: domain.clone(),
            sends: sends.clone(),
            receives: receives.clone(),
        })
    }

    /// Its number, which the peer needs.
    pub fn number(&self) -> QpNumber {
        // SAFETY: the queue pair lives as long as `self`, and its number does not change.
        QpNumber(unsafe { (*self.raw.as_ptr()).qp_num })
    }

    /// What it can hold: at least what was wanted, save inline data.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// The state that it was last moved to or seen in.
    pub fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Relaxed))
    }

    /// Asks the device for the state: a system call. A queue pair fails by itself, when a request of it does.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_query_qp`, when the device was removed.
    pub fn query_state(&self) -> Result<State> {
        let (mut attributes, mut made_with) = (ibv_qp_attr::default(), ibv_qp_init_attr::default());
        let which = Mask::IBV_QP_STATE.0 as i32;
        let functions = self.domain.context().functions();
        // SAFETY: the queue pair lives as long as `self`; the function writes two structures.
        let code =
            unsafe { functions.ibv_query_qp(self.raw.as_ptr(), &mut attributes, which, &mut made_with) };
        checked("ibv_query_qp", || self.to_string(), code)?;
        let state = State::from_raw(attributes.qp_state);
        self.state.store(state as u8, Ordering::Relaxed);
        Ok(state)
    }

    /// The protection domain that it belongs to.
    pub fn domain(&self) -> &ProtectionDomain {
        &self.domain
    }

    /// The queue on which its sends complete.
    pub fn send_queue(&self) -> &CompletionQueue {
        &self.sends
    }

    /// The queue on which its receives complete.
    pub fn receive_queue(&self) -> &CompletionQueue {
        &self.receives
    }

    /// Reset to Init: binds it to a port and a partition, and says whether the peer may write to memory of this side that
    /// was registered for it ([`Access::remote_write`]). From now on receives can be posted.
    ///
    /// # Errors
    ///
    /// [`Error::State`]; [`Error::Call`] of `ibv_modify_qp`: no such port or partition.
    pub fn initialize(&self, port: u8, partition_key_index: u16, access: Access) -> Result<()> {
        let attributes = ibv_qp_attr {
            qp_state: State::Init.raw(),
            port_num: port,
            pkey_index: partition_key_index,
            qp_access_flags: Access { relaxed_ordering: false, ..access }.flags(),
            ..Default::default()
        };
        let which =
            Mask::IBV_QP_STATE | Mask::IBV_QP_PKEY_INDEX | Mask::IBV_QP_PORT | Mask::IBV_QP_ACCESS_FLAGS;
        self.modify("initialize", State::Init, attributes, which)?;
        self.port.store(port, Ordering::Relaxed);
        Ok(())
    }

    /// Init to ReadyToReceive: tells it its peer. The kernel looks up how to reach that, which can take a second where
    /// the neighbour is not known yet.
    ///
    /// # Errors
    ///
    /// [`Error::State`]; [`Error::Argument`] for a number beyond its bits; [`Error::Call`] of `ibv_modify_qp`: the GID
    /// index is empty, the MTU too large, the destination cannot be resolved or reached.
    pub fn ready_to_receive(&self, connection: &Connection) -> Result<()> {
        connection.check()?;
        let (attributes, which) = connection.receiving(self.port.load(Ordering::Relaxed));
        self.modify("ready_to_receive", State::ReadyToReceive, attributes, which)
    }

    /// ReadyToReceive to ReadyToSend. The peer should be ready to receive by then: what comes earlier is lost and sent
    /// again.
    ///
    /// # Errors
    ///
    /// [`Error::State`]; [`Error::Argument`] for a number beyond its bits; [`Error::Call`] of `ibv_modify_qp`.
    pub fn ready_to_send(&self, connection: &Connection) -> Result<()> {
        connection.check()?;
        let (attributes, which) = connection.sending();
        self.modify("ready_to_send", State::ReadyToSend, attributes, which)
    }

    /// Any state but Reset to Error: everything posted completes as flushed, and nothing more is taken from the peer. What
    /// of the peer's was being written meanwhile is over once the receive requests have come back; so post one before,
    /// if memory is to be used for something else after.
    ///
    /// # Errors
    ///
    /// [`Error::State`]; [`Error::Call`] of `ibv_modify_qp`, when the device was removed.
    pub fn fail(&self) -> Result<()> {
        let attributes = ibv_qp_attr { qp_state: State::Error.raw(), ..Default::default() };
        self.modify("fail", State::Error, attributes, Mask::IBV_QP_STATE)
    }

    /// Any state to Reset: as newly made. What was posted and has not completed is dropped; completions that were not
    /// taken yet may be lost, so take them before.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_modify_qp`, when the device was removed.
    pub fn reset(&self) -> Result<()> {
        let attributes = ibv_qp_attr { qp_state: State::Reset.raw(), ..Default::default() };
        self.modify("reset", State::Reset, attributes, Mask::IBV_QP_STATE)
    }

    fn modify(
        &self,
        operation: &'static str,
        to: State,
        mut attributes: ibv_qp_attr,
        which: Mask,
    ) -> Result<()> {
        let state = self.state();
        if let Some(needed) = to.refuses_from(state) {
            return Err(Error::State { operation, object: self.to_string(), state, needed });
        }
        let functions = self.domain.context().functions();
        // SAFETY: the queue pair lives as long as `self`; the attributes that `which` names are filled in.
        let code = unsafe { functions.ibv_modify_qp(self.raw.as_ptr(), &mut attributes, which.0 as i32) };
        checked("ibv_modify_qp", || format!("{self} to {to}"), code)?;
        self.state.store(to as u8, Ordering::Relaxed);
        Ok(())
    }

    /// Posts all requests of a batch to the send queue, in order, and empties the batch. Returns at once; completions
    /// tell how requests went. Segments that are in no registered memory any more are found out by the device.
    ///
    /// # Errors
    ///
    /// [`Error::State`] before it is ready to send; [`Error::Argument`] for more segments or inline bytes than its
    /// capacity, nothing being posted; [`Error::Post`] with the number that were taken, when the queue is full or the
    /// device was removed.
    pub fn post_sends(&self, batch: &mut SendBatch) -> Result<()> {
        let outcome = self.try_post_sends(batch);
        batch.clear();
        outcome
    }

    fn try_post_sends(&self, batch: &mut SendBatch) -> Result<()> {
        self.check_post("post_sends", "ReadyToSend", State::takes_sends)?;
        self.check_fits("segments", batch.most_segments(), self.capacity.send_segments)?;
        self.check_fits("inline bytes", batch.most_inline(), self.capacity.inline_bytes)?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut bad = ptr::null_mut();
        let first = batch.chain();
        // SAFETY: the queue pair lives as long as `self`, and the chain as long as the batch, which is not touched;
        // inline bytes lie in the batch.
        let code = unsafe { sys::inline::post_send(self.raw.as_ptr(), first, &mut bad) };
        self.posted("ibv_post_send", code, position(first, bad), batch.len())
    }

    /// Posts all requests of a batch to the receive queue, in order, and empties the batch. Returns at once. Requests that
    /// are posted in state Error are flushed, save on soft-RoCE, which never reports them.
    ///
    /// # Errors
    ///
    /// As for [`post_sends`](QueuePair::post_sends); [`Error::State`] before it is initialized.
    pub fn post_receives(&self, batch: &mut ReceiveBatch) -> Result<()> {
        let outcome = self.try_post_receives(batch);
        batch.clear();
        outcome
    }

    fn try_post_receives(&self, batch: &mut ReceiveBatch) -> Result<()> {
        self.check_post("post_receives", "any but Reset", State::takes_receives)?;
        self.check_fits("segments", batch.most_segments(), self.capacity.receive_segments)?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut bad = ptr::null_mut();
        let first = batch.chain();
        // SAFETY: the queue pair lives as long as `self`, and the chain as long as the batch, which is not touched.
        let code = unsafe { sys::inline::post_recv(self.raw.as_ptr(), first, &mut bad) };
        self.posted("ibv_post_recv", code, position(first, bad), batch.len())
    }

    fn check_post(
        &self,
        operation: &'static str,
        needed: &'static str,
        allows: fn(State) -> bool,
    ) -> Result<()> {
        let state = self.state();
        if allows(state) {
            return Ok(());
        }
        Err(Error::State { operation, object: self.to_string(), state, needed })
    }

    fn check_fits(&self, what: &str, asked: u32, most: u32) -> Result<()> {
        if asked <= most {
            return Ok(());
        }
        Err(Error::argument(format!("a request of {asked} {what} on {self}, which was made for {most}")))
    }

    fn posted(&self, call: &'static str, code: i32, accepted: usize, of: usize) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let source = io::Error::from_raw_os_error(code.abs());
        let advice = advice(call, &source);
        Err(Error::Post { call, object: self.to_string(), accepted, of, source, advice })
    }

    /// What its provider can do beyond the standard.
    ///
    /// # Errors
    ///
    /// [`Error::Library`] if the library is older than rdma-core 31; [`Error::Call`] of `ibv_query_ece`: EOPNOTSUPP if
    /// the provider has nothing of the kind.
    pub fn ece(&self) -> Result<Ece> {
        let query = optional(&self.domain.context().functions().ibv_query_ece)?;
        let mut raw = ibv_ece::default();
        // SAFETY: the queue pair lives as long as `self`; the function writes one structure.
        let code = unsafe { query(self.raw.as_ptr(), &mut raw) };
        checked("ibv_query_ece", || self.to_string(), code)?;
        Ok(Ece { vendor: raw.vendor_id, options: raw.options })
    }

    /// Says what is to be used of it; before [`ready_to_receive`](QueuePair::ready_to_receive).
    ///
    /// # Errors
    ///
    /// [`Error::Library`] if the library is older than rdma-core 31; [`Error::Call`] of `ibv_set_ece`: EOPNOTSUPP if the
    /// provider has nothing of the kind, EINVAL for options that are not its own.
    pub fn set_ece(&self, ece: Ece) -> Result<()> {
        let set = optional(&self.domain.context().functions().ibv_set_ece)?;
        let mut raw = ibv_ece { vendor_id: ece.vendor, options: ece.options, comp_mask: 0 };
        // SAFETY: the queue pair lives as long as `self`; the function reads one structure.
        let code = unsafe { set(self.raw.as_ptr(), &mut raw) };
        checked("ibv_set_ece", || self.to_string(), code)
    }
}

/// A function that older libraries do not have.
fn optional<F: Copy>(function: &Result<F, LibraryError>) -> Result<F, LibraryError> {
    function.as_ref().copied().map_err(Clone::clone)
}

/// How many requests come before the one that was refused.
fn position<R>(first: *mut R, refused: *mut R) -> usize {
    refused.addr().saturating_sub(first.addr()) / size_of::<R>()
}

/// `mlx5_0, queue pair 17`
impl fmt::Display for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, queue pair {}", self.domain.context().name(), self.number())
    }
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePair")
            .field("number", &self.number())
            .field("state", &self.state())
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // Waits for the acknowledgement of its events, which follows each within the same function. Refused only when
        // the device was removed, and then the kernel has already let go of it.
        // SAFETY: the queue pair came from ibv_create_qp, and is destroyed once.
        unsafe { self.domain.context().functions().ibv_destroy_qp(self.raw.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_request_is_counted_from_the_first() {
        let requests = [0_u64; 5];
        let first = requests.as_ptr().cast_mut();
        assert_eq!(position(first, first.wrapping_add(3)), 3);
        assert_eq!(position(first, first), 0);
        assert_eq!(position(first, ptr::null_mut()), 0);
    }
}
