//! Where requests are reported done.
//!
//! A [`CompletionQueue`] is polled, which is a read of memory. Who wants to sleep makes it on a [`CompletionChannel`]:
//! [`arm`](CompletionQueue::arm), poll once more (what came before it was armed raises no event), then wait for the
//! channel's descriptor, take its events, and poll again.

mod entry;
mod status;

use std::ffi::c_int;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::context::{Context, set_nonblocking};
use crate::error::{Error, Result, checked};
use crate::sys::{self, ibv_comp_channel, ibv_cq};

pub use entry::{Completion, Kind};
pub use status::Status;

/// What its maker calls a completion queue, for events; 0 for one that has no channel.
pub type Token = u64;

/// A queue of completions. Cheap to clone; it ends when the last clone and all queue pairs on it are gone. May be used
/// from any thread.
#[derive(Clone)]
pub struct CompletionQueue(Arc<Queue>);

struct Queue {
    context: Context,
    raw: NonNull<ibv_cq>,
    /// Must outlive the queue, whose events it holds.
    channel: Option<CompletionChannel>,
}

// SAFETY: the verbs lock by themselves (see context.rs).
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl CompletionQueue {
    pub(crate) fn new(
        context: &Context,
        entries: u32,
        channel: Option<&CompletionChannel>,
        token: Token,
        vector: u32,
    ) -> Result<CompletionQueue> {
        let vectors = context.completion_vectors();
        if vector >= vectors.max(1) {
            return Err(Error::argument(format!(
                "{} has {vectors} completion vectors, not {vector}",
                context.name()
            )));
        }
        let entries_raw = c_int::try_from(entries)
            .map_err(|_| Error::argument(format!("a completion queue of {entries} entries")))?;
        let channel_raw = channel.map_or(ptr::null_mut(), |channel| channel.0.raw.as_ptr());
        // The token travels as the pointer that verbs keep for the caller; nobody follows it.
        let token = ptr::without_provenance_mut(token as usize);
        let functions = context.functions();
        // SAFETY: the context is open; a channel is of the same context.
        let raw = unsafe {
            functions.ibv_create_cq(context.raw(), entries_raw, token, channel_raw, vector as c_int)
        };
        match NonNull::new(raw) {
            Some(raw) => Ok(CompletionQueue(Arc::new(Queue {
                context: context.clone(),
                raw,
                channel: channel.cloned(),
            }))),
            None => {
                let object = format!("{}, {entries} entries", context.name());
                Err(Error::call("ibv_create_cq", object, io::Error::last_os_error()))
            }
        }
    }

    /// Takes completions off the queue, in order, into the front of `completions`, and answers how many. Does not block;
    /// where there are none it costs little more than a read of memory.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_poll_cq`, when the queue has overflowed or the device was removed.
    pub fn poll(&self, completions: &mut [Completion]) -> Result<usize> {
        let room = c_int::try_from(completions.len()).unwrap_or(c_int::MAX);
        // A completion is the library's structure and nothing else.
        let place = completions.as_mut_ptr().cast();
        // SAFETY: the queue lives as long as `self`, and there is place for `room` of them.
        let count = unsafe { sys::inline::poll_cq(self.raw(), room, place) };
        usize::try_from(count).map_err(|_| {
            Error::call("ibv_poll_cq", self.0.context.name(), io::Error::from_raw_os_error(-count))
        })
    }

    /// Asks for one event on its channel at the next completion. Those that are in the queue already raise none, so poll
    /// once more before waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if it has no channel; [`Error::Call`] of `ibv_req_notify_cq`.
    pub fn arm(&self) -> Result<()> {
        self.notify(false)
    }

    /// As [`arm`](CompletionQueue::arm), at the next completion that the peer marked as solicited, or that failed.
    ///
    /// # Errors
    ///
    /// As for [`arm`](CompletionQueue::arm).
    pub fn arm_solicited(&self) -> Result<()> {
        self.notify(true)
    }

    fn notify(&self, solicited_only: bool) -> Result<()> {
        if self.0.channel.is_none() {
            return Err(Error::argument("a completion queue without a channel raises no events"));
        }
        // SAFETY: the queue lives as long as `self`.
        let code = unsafe { sys::inline::req_notify_cq(self.raw(), solicited_only) };
        checked("ibv_req_notify_cq", || self.0.context.name().into(), code)
    }

    /// How many completions it can hold; more than that lose the queue.
    pub fn entries(&self) -> u32 {
        // SAFETY: the queue lives as long as `self`.
        unsafe { self.0.raw.as_ref() }.cqe.try_into().unwrap_or(0)
    }

    /// The device.
    pub fn context(&self) -> &Context {
        &self.0.context
    }

    pub(crate) fn raw(&self) -> *mut ibv_cq {
        self.0.raw.as_ptr()
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletionQueue")
            .field("device", &self.0.context.name())
            .field("entries", &self.entries())
            .finish()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Waits for the acknowledgement of its events, which follows each within the same function.
        // SAFETY: the queue came from ibv_create_cq, and the queue pairs on it hold it, so none is left.
        unsafe { self.context.functions().ibv_destroy_cq(self.raw.as_ptr()) };
    }
}

/// Where completion queues announce completions: a descriptor for poll and epoll. Cheap to clone. May be used from any
/// thread.
#[derive(Clone)]
pub struct CompletionChannel(Arc<Channel>);

struct Channel {
    context: Context,
    raw: NonNull<ibv_comp_channel>,
}

// SAFETY: the verbs lock by themselves (see context.rs).
unsafe impl Send for Channel {}
// SAFETY: as above.
unsafe impl Sync for Channel {}

impl CompletionChannel {
    pub(crate) fn new(context: &Context) -> Result<CompletionChannel> {
        // SAFETY: the context is open.
        let raw = unsafe { context.functions().ibv_create_comp_channel(context.raw()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(Error::call("ibv_create_comp_channel", context.name(), io::Error::last_os_error()));
        };
        let channel = CompletionChannel(Arc::new(Channel { context: context.clone(), raw }));
        set_nonblocking(channel.fd()).map_err(|source| Error::call("fcntl", context.name(), source))?;
        Ok(channel)
    }

    /// A new completion queue for at least `entries` completions that announces them here under `token`, by the
    /// interrupt `vector`, of which there are [`Context::completion_vectors`].
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_create_cq`: more entries than the device offers, no memory, too many queues;
    /// [`Error::Argument`] if there is no such vector.
    pub fn completion_queue(&self, entries: u32, token: Token, vector: u32) -> Result<CompletionQueue> {
        CompletionQueue::new(&self.0.context, entries, Some(self), token, vector)
    }

    /// The descriptor that is readable while there are events.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel lives as long as `self`.
        let descriptor = unsafe { self.0.raw.as_ref() }.fd;
        // SAFETY: the descriptor is open as long as the channel.
        unsafe { BorrowedFd::borrow_raw(descriptor) }
    }

    /// Takes one event, if there is one: the token of a queue that was armed and is so no longer. Does not block.
    ///
    /// The event is acknowledged at once. To do so for many at a time would save a lock each beside the system call
    /// that fetches it; but destroying a queue waits for what is not acknowledged yet.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] of `ibv_get_cq_event`, when the device was removed.
    pub fn next_event(&self) -> Result<Option<Token>> {
        let functions = self.0.context.functions();
        let (mut queue, mut token) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the channel lives as long as `self`; the function writes two pointers.
        if unsafe { functions.ibv_get_cq_event(self.0.raw.as_ptr(), &mut queue, &mut token) } != 0 {
            let source = io::Error::last_os_error();
            return match source.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(Error::call("ibv_get_cq_event", self.0.context.name(), source)),
            };
        }
        // SAFETY: a queue is not destroyed before its events are acknowledged, each once.
        unsafe { functions.ibv_ack_cq_events(queue, 1) };
        Ok(Some(token.addr() as Token))
    }
}

impl fmt::Debug for CompletionChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CompletionChannel").field(&self.0.context.name()).finish()
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: the channel came from ibv_create_comp_channel, and the queues on it hold it, so none is left.
        unsafe { self.context.functions().ibv_destroy_comp_channel(self.raw.as_ptr()) };
    }
}
