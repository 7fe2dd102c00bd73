//! The collectives of a communicator, each on its caller's thread.
//!
//! All of them block until this rank's part is done: its result is there, and its memory is no longer read by anybody.
//! The methods that end in `_into` read one array and write another; those that do not work in place. [`Work`](crate::Work) has
//! those that do not block, [`group`](crate::group()) those that are submitted together.
//!
//! Where the ranks' arrays have blocks of different lengths, the forms with `_v` say how long each is. Counts are in
//! elements, blocks follow one another without gaps.

use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::Result;
use crate::op::Op;
use crate::request;

/// Collective calls.
///
/// # Errors
/// Every one fails with [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a root or peer that does not
/// exist, lengths that do not fit each other or the number of ranks, and an operator that does not fit the type; nothing
/// was sent then, and the communicator is as good as before. With [`Error::Failed`](crate::Error::Failed) and the first
/// cause when a rank called something else, died, aborted or timed out; what is written is then unspecified. With
/// [`Error::Forked`](crate::Error::Forked) in a forked child.
#[allow(clippy::missing_errors_doc, reason = "said once for all methods above")]
impl Communicator {
    /// Reduces `x` elementwise over all ranks; every rank's `x` becomes the result, the same bits on each.
    #[inline]
    pub fn all_reduce<T: Element>(&self, x: &mut [T], op: impl Into<Op<T>>) -> Result<()> {
        // SAFETY: `x` is borrowed for the whole call, and all types of elements accept any bits.
        unsafe { self.execute(request::all_reduce(self.caller(), x, op)) }
    }

    /// Reduces `x` elementwise over all ranks into every rank's `out`, which is as long.
    #[inline]
    pub fn all_reduce_into<T: Element>(&self, x: &[T], out: &mut [T], op: impl Into<Op<T>>) -> Result<()> {
        // SAFETY: both slices are borrowed for the whole call and cannot overlap.
        unsafe { self.execute(request::all_reduce_into(self.caller(), x, out, op)) }
    }

    /// Reduces `x` elementwise over all ranks; the root's `x` becomes the result, the others' stay as they are.
    #[inline]
    pub fn reduce<T: Element>(&self, x: &mut [T], op: impl Into<Op<T>>, root: u32) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(request::reduce(self.caller(), x, op, root)) }
    }

    /// Reduces `x` elementwise over all ranks into the root's `out`, which is as long; the others' `out` is not looked
    /// at and may be empty.
    #[inline]
    pub fn reduce_into<T: Element>(
        &self,
        x: &[T],
        out: &mut [T],
        op: impl Into<Op<T>>,
        root: u32,
    ) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::reduce_into(self.caller(), x, out, op, root)) }
    }

    /// Reduces `x`, a block for each rank, elementwise over all ranks; block r of the result replaces block r of rank
    /// r's `x`, the rest of which stays as it is.
    #[inline]
    pub fn reduce_scatter<T: Element>(&self, x: &mut [T], op: impl Into<Op<T>>) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(request::reduce_scatter(self.caller(), x, op)) }
    }

    /// Reduces `x`, a block for each rank, elementwise over all ranks; rank r's `out` becomes block r of the result.
    #[inline]
    pub fn reduce_scatter_into<T: Element>(
        &self,
        x: &[T],
        out: &mut [T],
        op: impl Into<Op<T>>,
    ) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::reduce_scatter_into(self.caller(), x, out, op)) }
    }

    /// As [`Communicator::reduce_scatter_into`], with `counts[r]` elements in block r; every rank passes the same.
    #[inline]
    pub fn reduce_scatter_v_into<T: Element>(
        &self,
        x: &[T],
        out: &mut [T],
        counts: &[usize],
        op: impl Into<Op<T>>,
    ) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::reduce_scatter_v_into(self.caller(), x, out, counts, op)) }
    }

    /// Gives the root's `x` to every rank.
    #[inline]
    pub fn broadcast<T: Element>(&self, x: &mut [T], root: u32) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(request::broadcast(self.caller(), x, root)) }
    }

    /// Gives the root's `x` to every rank's `out`; the other ranks' `x` is not looked at, but has the same length.
    #[inline]
    pub fn broadcast_into<T: Element>(&self, x: &[T], out: &mut [T], root: u32) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::broadcast_into(self.caller(), x, out, root)) }
    }

    /// Deals the root's `x`, a block for each rank: block r goes to block r of rank r's `x`, the rest of which stays as
    /// it is.
    #[inline]
    pub fn scatter<T: Element>(&self, x: &mut [T], root: u32) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(request::scatter(self.caller(), x, root)) }
    }

    /// Deals the root's `x`, a block for each rank: rank r's `out` becomes block r. The other ranks' `x` is not looked
    /// at and may be empty.
    #[inline]
    pub fn scatter_into<T: Element>(&self, x: &[T], out: &mut [T], root: u32) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::scatter_into(self.caller(), x, out, root)) }
    }

    /// As [`Communicator::scatter_into`], with `counts[r]` elements in block r. Only the root's `counts` are looked at;
    /// every rank's `out` has the length of its block.
    #[inline]
    pub fn scatter_v_into<T: Element>(
        &self,
        x: &[T],
        counts: &[usize],
        out: &mut [T],
        root: u32,
    ) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::scatter_v_into(self.caller(), x, counts, out, root)) }
    }

    /// Collects block r of rank r's `x`, which has a block for each rank, in the root's `x`; the others' stay as they
    /// are.
    #[inline]
    pub fn gather<T: Element>(&self, x: &mut [T], root: u32) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(request::gather(self.caller(), x, root)) }
    }

    /// Collects every rank's `x` in the root's `out`, in order of rank. The other ranks' `out` is not looked at and may
    /// be empty.
    #[inline]
    pub fn gather_into<T: Element>(&self, x: &[T], out: &mut [T], root: u32) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::gather_into(self.caller(), x, out, root)) }
    }

    /// As [`Communicator::gather_into`], with `counts[r]` elements from rank r. Only the root's `counts` are looked at.
    #[inline]
    pub fn gather_v_into<T: Element>(
        &self,
        x: &[T],
        out: &mut [T],
        counts: &[usize],
        root: u32,
    ) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::gather_v_into(self.caller(), x, out, counts, root)) }
    }

    /// Collects block r of rank r's `x`, which has a block for each rank, in every rank's `x`.
    #[inline]
    pub fn all_gather<T: Element>(&self, x: &mut [T]) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(request::all_gather(self.caller(), x)) }
    }

    /// Collects every rank's `x` in every rank's `out`, in order of rank.
    #[inline]
    pub fn all_gather_into<T: Element>(&self, x: &[T], out: &mut [T]) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::all_gather_into(self.caller(), x, out)) }
    }

    /// As [`Communicator::all_gather_into`], with `counts[r]` elements from rank r; every rank passes the same.
    #[inline]
    pub fn all_gather_v_into<T: Element>(&self, x: &[T], out: &mut [T], counts: &[usize]) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::all_gather_v_into(self.caller(), x, out, counts)) }
    }

    /// Gives block d of rank s's `x` to block s of rank d's `out`, for all ranks s and d.
    #[inline]
    pub fn all_to_all_into<T: Element>(&self, x: &[T], out: &mut [T]) -> Result<()> {
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(request::all_to_all_into(self.caller(), x, out)) }
    }

    /// As [`Communicator::all_to_all_into`], with `send_counts[d]` elements for rank d and `recv_counts[s]` from rank s.
    #[inline]
    pub fn all_to_all_v_into<T: Element>(
        &self,
        x: &[T],
        send_counts: &[usize],
        out: &mut [T],
        recv_counts: &[usize],
    ) -> Result<()> {
        let task = request::all_to_all_v_into(self.caller(), x, send_counts, out, recv_counts);
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(task) }
    }

    /// Sends `x` to another rank, which receives as many elements of the same type. Ranks that are no part of it do
    /// nothing. Messages between two ranks arrive in the order in which they are sent.
    ///
    /// Two ranks that send to each other before they receive may wait for each other: use [`group`](crate::group()).
    #[inline]
    pub fn send<T: Element>(&self, x: &[T], to: u32) -> Result<()> {
        // SAFETY: as in `all_reduce`, and it is only read.
        unsafe { self.execute(request::send_alone(self.caller(), x, to)) }
    }

    /// Receives `x` from another rank, which sends as many elements of the same type.
    #[inline]
    pub fn recv<T: Element>(&self, x: &mut [T], from: u32) -> Result<()> {
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(request::recv_alone(self.caller(), x, from)) }
    }

    /// Returns when every rank has called it.
    #[inline]
    pub fn barrier(&self) -> Result<()> {
        // SAFETY: the call moves no elements.
        unsafe { self.execute(request::barrier(self.caller())) }
    }
}
