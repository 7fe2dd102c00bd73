//! An open device.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::completion::{CompletionChannel, CompletionQueue};
use crate::device::{Guid, text};
use crate::domain::ProtectionDomain;
use crate::error::{Error, Result, checked};
use crate::event::{self, AsyncEvent};
use crate::gid::{self, GidEntry};
use crate::library::Library;
use crate::port::Port;
use crate::sys::{self, Functions, ibv_context, ibv_device_attr};

/// An open device. Cheap to clone; it is closed when the last clone and everything made from it are gone. May be used
/// from any thread.
#[derive(Clone)]
pub struct Context(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    library: Library,
    raw: NonNull<ibv_context>,
    name: String,
    sysfs: PathBuf,
}

// SAFETY: the verbs may be called on the same objects by any threads at once; providers leave their locks out only for
// objects of a thread domain (ibv_alloc_td(3)), and none is made here. That holds for all objects of this crate.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// What a device can do, as far as queue pairs and memory go (ibv_query_device(3)). Limits are upper bounds that the
/// device may fail to reach for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceAttributes {
    /// Version of its firmware; empty for software devices.
    pub firmware: String,
    /// The device's identity.
    pub guid: Guid,
    /// PCI vendor, 0xffffff for soft-RoCE.
    pub vendor: u32,
    /// Number that the vendor gave to this kind of device.
    pub part: u32,
    /// Ports, numbered from 1.
    pub ports: u8,
    /// Bytes that one memory region may have.
    pub max_region: u64,
    /// Memory regions.
    pub max_regions: u32,
    /// Queue pairs.
    pub max_queue_pairs: u32,
    /// Requests that one queue of a queue pair may hold.
    pub max_requests: u32,
    /// Segments that one request may gather from or scatter to.
    pub max_segments: u32,
    /// Completion queues.
    pub max_completion_queues: u32,
    /// Completions that one completion queue may hold.
    pub max_completions: u32,
    /// Protection domains.
    pub max_domains: u32,
}

impl Context {
    /// # Safety
    ///
    /// `raw` was opened by `library`, and belongs to nobody else.
    pub(crate) unsafe fn new(
        library: Library,
        raw: NonNull<ibv_context>,
        name: String,
        sysfs: PathBuf,
    ) -> Result<Context> {
        let context = Context(Arc::new(Inner { library, raw, name, sysfs }));
        set_nonblocking(context.events_fd())
            .map_err(|source| Error::call("fcntl", context.name(), source))?;
        Ok(context)
    }

    /// The kernel's name of the device.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The library that opened it.
    pub fn library(&self) -> &Library {
        &self.0.library
    }

    /// Completion vectors: interrupts among which completion queues can be spread.
    pub fn completion_vectors(&self) -> u32 {
        // SAFETY: the context is open as long as `self` lives.
        unsafe { self.0.raw.as_ref() }.num_comp_vectors.try_into().unwrap_or(0)
    }

    /// Asks the device what it can do.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_query_device`, when the device was removed.
    pub fn attributes(&self) -> Result<DeviceAttributes> {
        let mut raw = ibv_device_attr::default();
        // SAFETY: the context is open, and the structure is the one of this version of the function.
        let code = unsafe { self.functions().ibv_query_device(self.raw(), &mut raw) };
        checked("ibv_query_device", || self.name().into(), code)?;
        let count = |value: i32| u32::try_from(value).unwrap_or(0);
        Ok(DeviceAttributes {
            firmware: text(&raw.fw_ver).into(),
            guid: Guid::from_network(raw.node_guid),
            vendor: raw.vendor_id,
            part: raw.vendor_part_id,
            ports: raw.phys_port_cnt,
            max_region: raw.max_mr_size,
            max_regions: count(raw.max_mr),
            max_queue_pairs: count(raw.max_qp),
            max_requests: count(raw.max_qp_wr),
            max_segments: count(raw.max_sge),
            max_completion_queues: count(raw.max_cq),
            max_completions: count(raw.max_cqe),
            max_domains: count(raw.max_pd),
        })
    }

    /// Asks a port, numbered from 1, for its state and limits. A snapshot: [`next_event`](Context::next_event) tells of
    /// changes.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_query_port`: no such port, or the device was removed.
    pub fn port(&self, number: u8) -> Result<Port> {
        let mut raw = sys::ibv_port_attr::default();
        // SAFETY: the context is open and of this library.
        let code = unsafe { sys::inline::query_port(self.functions(), self.raw(), number, &mut raw) };
        checked("ibv_query_port", || format!("{} port {number}", self.name()), code)?;
        Ok(Port::new(number, &raw))
    }

    /// The filled entries of a port's GID table, in order. Indices have gaps, and change when addresses come and go.
    ///
    /// # Errors
    ///
    /// [`Error::Call`]: no such port, the device was removed, or sysfs cannot be read.
    pub fn gids(&self, port: u8) -> Result<Vec<GidEntry>> {
        gid::table(self, port)
    }

    /// The partition key at an index of a port's table; 0xffff is the default partition.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_query_pkey`: no such port or index.
    pub fn partition_key(&self, port: u8, index: u16) -> Result<u16> {
        let mut key = 0;
        // SAFETY: the context is open; the function writes one number.
        let code = unsafe { self.functions().ibv_query_pkey(self.raw(), port, index.into(), &mut key) };
        checked("ibv_query_pkey", || format!("{} port {port} index {index}", self.name()), code)?;
        Ok(u16::from_be(key))
    }

    /// A new protection domain: what is made from it may be used together.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_alloc_pd`: none left, or the device was removed.
    pub fn protection_domain(&self) -> Result<ProtectionDomain> {
        ProtectionDomain::new(self)
    }

    /// A new completion queue for at least `entries` completions, which is polled.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_create_cq`: more entries than the device offers, no memory, too many queues.
    pub fn completion_queue(&self, entries: u32) -> Result<CompletionQueue> {
        CompletionQueue::new(self, entries, None, 0, 0)
    }

    /// A new channel on which completion queues announce completions.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_create_comp_channel`: too many open files, or the device was removed.
    pub fn completion_channel(&self) -> Result<CompletionChannel> {
        CompletionChannel::new(self)
    }

    /// All descriptors of the open device: whoever holds a copy of them, a forked child for instance, keeps its queue
    /// pairs alive after this process.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        // SAFETY: the context is open as long as `self` lives.
        let commands = unsafe { self.0.raw.as_ref() }.cmd_fd;
        // SAFETY: the descriptor is open as long as the context.
        [unsafe { BorrowedFd::borrow_raw(commands) }, self.events_fd()]
    }

    /// The descriptor that is readable while [`next_event`](Context::next_event) has something, for poll and epoll.
    pub fn events_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the context is open as long as `self` lives.
        let descriptor = unsafe { self.0.raw.as_ref() }.async_fd;
        // SAFETY: the descriptor is open as long as the context.
        unsafe { BorrowedFd::borrow_raw(descriptor) }
    }

    /// The next event of the device, its ports, or of what was made from it, if there is one. Does not block.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_get_async_event`, when the device was removed.
    pub fn next_event(&self) -> Result<Option<AsyncEvent>> {
        event::next(self)
    }

    pub(crate) fn raw(&self) -> *mut ibv_context {
        self.0.raw.as_ptr()
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.0.library.functions
    }

    pub(crate) fn sysfs(&self) -> &std::path::Path {
        &self.0.sysfs
    }

    pub(crate) fn is(&self, other: &Context) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Reads of events then answer at once: who wants to wait does so on several descriptors together, with a deadline.
pub(crate) fn set_nonblocking(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(descriptor)?;
    Ok(rustix::fs::fcntl_setfl(descriptor, flags | rustix::fs::OFlags::NONBLOCK)?)
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Context").field(&self.name()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // What was made from the context holds it, so nothing of it is left. The answer is 0 in all providers.
        // SAFETY: the context came from ibv_open_device and is closed once.
        unsafe { self.library.functions.ibv_close_device(self.raw.as_ptr()) };
    }
}
