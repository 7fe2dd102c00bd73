//! The calls that do not block and own their memory while they are under way.

use crate::communicator::Communicator;
use crate::element::Element;
use crate::engine::Task;
use crate::error::Result;
use crate::op::Op;
use crate::request;
use crate::work::{Held, OwnedBuf, Work};

/// Calls that do not block: each takes the memory that it works on, and gives it back by [`Work`].
///
/// They run one after the other in the order in which they were made, together with the blocking ones. Whatever is wrong
/// with a call is told by its [`Work`]. The arguments are those of the blocking methods.
impl Communicator {
    /// As [`Communicator::all_reduce`].
    #[must_use]
    pub fn start_all_reduce<B: OwnedBuf>(&self, x: B, op: impl Into<Op<B::Item>>) -> Work<B> {
        self.start(x, |x| request::all_reduce(self.caller(), x, op))
    }
    /// As [`Communicator::all_reduce_into`].
    #[must_use]
    pub fn start_all_reduce_into<A, B>(&self, x: A, out: B, op: impl Into<Op<A::Item>>) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::all_reduce_into(self.caller(), x, out, op))
    }
    /// As [`Communicator::reduce`].
    #[must_use]
    pub fn start_reduce<B: OwnedBuf>(&self, x: B, op: impl Into<Op<B::Item>>, root: u32) -> Work<B> {
        self.start(x, |x| request::reduce(self.caller(), x, op, root))
    }
    /// As [`Communicator::reduce_into`].
    #[must_use]
    pub fn start_reduce_into<A, B>(&self, x: A, out: B, op: impl Into<Op<A::Item>>, root: u32) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::reduce_into(self.caller(), x, out, op, root))
    }
    /// As [`Communicator::reduce_scatter`].
    #[must_use]
    pub fn start_reduce_scatter<B: OwnedBuf>(&self, x: B, op: impl Into<Op<B::Item>>) -> Work<B> {
        self.start(x, |x| request::reduce_scatter(self.caller(), x, op))
    }
    /// As [`Communicator::reduce_scatter_into`].
    #[must_use]
    pub fn start_reduce_scatter_into<A, B>(&self, x: A, out: B, op: impl Into<Op<A::Item>>) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::reduce_scatter_into(self.caller(), x, out, op))
    }
    /// As [`Communicator::reduce_scatter_v_into`].
    #[must_use]
    pub fn start_reduce_scatter_v_into<A, B>(
        &self,
        x: A,
        out: B,
        counts: &[usize],
        op: impl Into<Op<A::Item>>,
    ) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::reduce_scatter_v_into(self.caller(), x, out, counts, op))
    }
    /// As [`Communicator::broadcast`].
    #[must_use]
    pub fn start_broadcast<B: OwnedBuf>(&self, x: B, root: u32) -> Work<B> {
        self.start(x, |x| request::broadcast(self.caller(), x, root))
    }
    /// As [`Communicator::broadcast_into`].
    #[must_use]
    pub fn start_broadcast_into<A, B>(&self, x: A, out: B, root: u32) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::broadcast_into(self.caller(), x, out, root))
    }
    /// As [`Communicator::scatter`].
    #[must_use]
    pub fn start_scatter<B: OwnedBuf>(&self, x: B, root: u32) -> Work<B> {
        self.start(x, |x| request::scatter(self.caller(), x, root))
    }
    /// As [`Communicator::scatter_into`].
    #[must_use]
    pub fn start_scatter_into<A, B>(&self, x: A, out: B, root: u32) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::scatter_into(self.caller(), x, out, root))
    }
    /// As [`Communicator::scatter_v_into`].
    #[must_use]
    pub fn start_scatter_v_into<A, B>(&self, x: A, counts: &[usize], out: B, root: u32) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::scatter_v_into(self.caller(), x, counts, out, root))
    }
    /// As [`Communicator::gather`].
    #[must_use]
    pub fn start_gather<B: OwnedBuf>(&self, x: B, root: u32) -> Work<B> {
        self.start(x, |x| request::gather(self.caller(), x, root))
    }
    /// As [`Communicator::gather_into`].
    #[must_use]
    pub fn start_gather_into<A, B>(&self, x: A, out: B, root: u32) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::gather_into(self.caller(), x, out, root))
    }
    /// As [`Communicator::gather_v_into`].
    #[must_use]
    pub fn start_gather_v_into<A, B>(&self, x: A, out: B, counts: &[usize], root: u32) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::gather_v_into(self.caller(), x, out, counts, root))
    }
    /// As [`Communicator::all_gather`].
    #[must_use]
    pub fn start_all_gather<B: OwnedBuf>(&self, x: B) -> Work<B> {
        self.start(x, |x| request::all_gather(self.caller(), x))
    }
    /// As [`Communicator::all_gather_into`].
    #[must_use]
    pub fn start_all_gather_into<A, B>(&self, x: A, out: B) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::all_gather_into(self.caller(), x, out))
    }
    /// As [`Communicator::all_gather_v_into`].
    #[must_use]
    pub fn start_all_gather_v_into<A, B>(&self, x: A, out: B, counts: &[usize]) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::all_gather_v_into(self.caller(), x, out, counts))
    }
    /// As [`Communicator::all_to_all_into`].
    #[must_use]
    pub fn start_all_to_all_into<A, B>(&self, x: A, out: B) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| request::all_to_all_into(self.caller(), x, out))
    }
    /// As [`Communicator::all_to_all_v_into`].
    #[must_use]
    pub fn start_all_to_all_v_into<A, B>(
        &self,
        x: A,
        send_counts: &[usize],
        out: B,
        recv_counts: &[usize],
    ) -> Work<(A, B)>
    where
        A: OwnedBuf,
        B: OwnedBuf<Item = A::Item>,
    {
        self.start_into(x, out, |x, out| {
            request::all_to_all_v_into(self.caller(), x, send_counts, out, recv_counts)
        })
    }
    /// As [`Communicator::send`].
    #[must_use]
    pub fn start_send<B: OwnedBuf>(&self, x: B, to: u32) -> Work<B> {
        self.start(x, |x| request::send_alone(self.caller(), x, to))
    }
    /// As [`Communicator::recv`].
    #[must_use]
    pub fn start_recv<B: OwnedBuf>(&self, x: B, from: u32) -> Work<B> {
        self.start(x, |x| request::recv_alone(self.caller(), x, from))
    }
    /// As [`Communicator::barrier`].
    #[must_use]
    pub fn start_barrier(&self) -> Work<()> {
        let held = Held::new(());
        // SAFETY: the call moves no elements.
        unsafe { self.submit(request::barrier(self.caller()), held.clone()) };
        Work::new(self.clone(), held)
    }

    fn start<B: OwnedBuf>(&self, mut x: B, task: impl FnOnce(&mut [B::Item]) -> Result<Task>) -> Work<B> {
        let task = task(x.elements());
        let held = Held::new(x);
        // SAFETY: the task's memory is held until it has ended, and does not move.
        unsafe { self.submit(task, held.clone()) };
        Work::new(self.clone(), held)
    }

    fn start_into<T: Element, A: OwnedBuf<Item = T>, B: OwnedBuf<Item = T>>(
        &self,
        mut x: A,
        mut out: B,
        task: impl FnOnce(&[T], &mut [T]) -> Result<Task>,
    ) -> Work<(A, B)> {
        let task = task(x.elements(), out.elements());
        let held = Held::new((x, out));
        // SAFETY: the task's memory is held until it has ended, and does not move.
        unsafe { self.submit(task, held.clone()) };
        Work::new(self.clone(), held)
    }
}
