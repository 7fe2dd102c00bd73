//! Protection domains.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::completion::CompletionQueue;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::queue_pair::{Capacity, QueuePair};
use crate::region::{Access, MemoryRegion};
use crate::sys::ibv_pd;

/// What belongs together: a queue pair uses memory regions of its own protection domain only. Cheap to clone; it ends
/// when the last clone and everything made from it are gone. May be used from any thread.
#[derive(Clone)]
pub struct ProtectionDomain(Arc<Inner>);

struct Inner {
    context: Context,
    raw: NonNull<ibv_pd>,
}

// SAFETY: the verbs lock by themselves (see context.rs).
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl ProtectionDomain {
    pub(crate) fn new(context: &Context) -> Result<ProtectionDomain> {
        // SAFETY: the context is open.
        let raw = unsafe { context.functions().ibv_alloc_pd(context.raw()) };
        match NonNull::new(raw) {
            Some(raw) => Ok(ProtectionDomain(Arc::new(Inner { context: context.clone(), raw }))),
            None => Err(Error::call("ibv_alloc_pd", context.name(), std::io::Error::last_os_error())),
        }
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    /// Allocates whole pages of zeroed memory and registers them. `length` is in bytes, and is rounded up to pages.
    ///
    /// Takes time in proportion to the length: every page is looked up and locked.
    ///
    /// # Errors
    ///
    /// [`Error::LockedMemory`] if the process may not lock so much, found out before the device is asked;
    /// [`Error::Call`] of `ibv_reg_mr`; [`Error::Argument`] for a length of 0 or one that no memory has.
    pub fn allocate(&self, length: usize, access: Access) -> Result<MemoryRegion> {
        MemoryRegion::allocate(self, length, access)
    }

    /// Registers memory of the caller's. It need not begin at a page, but whole pages are locked.
    ///
    /// # Errors
    ///
    /// As for [`allocate`](ProtectionDomain::allocate); EFAULT or ENOMEM if the memory is not all there, or is read-only
    /// and the device is to write to it.
    ///
    /// # Safety
    ///
    /// From now until the region is dropped,
    /// * the `length` bytes at `address` stay allocated;
    /// * the device may read them at any time, and write them if `access` allows it: at the request of any holder of a
    ///   segment of the region, and of any peer that was told its remote key. So no reference to them may live meanwhile
    ///   that such a write would contradict: `&` to what may be written, `&mut` to what may be read or written.
    pub unsafe fn register(&self, address: *mut u8, length: usize, access: Access) -> Result<MemoryRegion> {
        // SAFETY: passed on.
        unsafe { MemoryRegion::register(self, address, length, access) }
    }

    /// Registers memory that another device exports as a dma-buf: `length` bytes from `offset` on. Segments and remote
    /// addresses count from `address`, which needs not be mapped, but must have the same place in its page as `offset`.
    ///
    /// # Errors
    ///
    /// [`Error::Library`] if the library is older than rdma-core 34; [`Error::Call`] of `ibv_reg_dmabuf_mr`: EOPNOTSUPP
    /// where device or kernel cannot (soft-RoCE of Linux 6.1, for one).
    ///
    /// # Safety
    ///
    /// As for [`register`](ProtectionDomain::register), for the exported memory wherever it is mapped.
    pub unsafe fn register_dmabuf(
        &self,
        descriptor: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        address: u64,
        access: Access,
    ) -> Result<MemoryRegion> {
        // SAFETY: passed on.
        unsafe { MemoryRegion::register_dmabuf(self, descriptor, offset, length, address, access) }
    }

    /// Makes a reliable-connected queue pair, in state [`Reset`](crate::State::Reset). Its sends complete on one queue,
    /// its receives on another, which may be the same. What it can hold at least is in `wanted`, save inline data,
    /// which is a wish: [`QueuePair::capacity`] tells what there is.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_create_qp`: more than the device offers, no memory; [`Error::Argument`] if a completion
    /// queue is of another device.
    pub fn queue_pair(
        &self,
        sends: &CompletionQueue,
        receives: &CompletionQueue,
        wanted: Capacity,
    ) -> Result<QueuePair> {
        QueuePair::new(self, sends, receives, wanted)
    }

    pub(crate) fn raw(&self) -> *mut ibv_pd {
        self.0.raw.as_ptr()
    }
}

impl fmt::Debug for ProtectionDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProtectionDomain").field(&self.context().name()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Fails only if something made from it could not be destroyed; then the kernel keeps both until the device is
        // closed.
        // SAFETY: the domain came from ibv_alloc_pd, and nothing made from it is left.
        unsafe { self.context.functions().ibv_dealloc_pd(self.raw.as_ptr()) };
    }
}
