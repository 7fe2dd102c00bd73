//! A call that is under way: what its caller holds, and what the engine tells.

use crate::buffer::Buffer;
use crate::communicator::Communicator;
use crate::element::Element;
use crate::error::Result;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Memory that a call can own while it is under way.
///
/// # Safety
/// The elements stay where they are when the value is moved, and nobody but its owner reaches them.
pub unsafe trait OwnedBuf: Send + 'static {
    /// What it holds.
    type Item: Element;
    /// The elements.
    fn elements(&mut self) -> &mut [Self::Item];
}

// SAFETY: the elements are on the heap, and the vector is the only way to them.
unsafe impl<T: Element> OwnedBuf for Vec<T> {
    type Item = T;
    fn elements(&mut self) -> &mut [T] {
        self
    }
}

// SAFETY: as for a vector.
unsafe impl<T: Element> OwnedBuf for Box<[T]> {
    type Item = T;
    fn elements(&mut self) -> &mut [T] {
        self
    }
}

// SAFETY: the elements are in a region of registered memory, which does not move and belongs to the buffer alone.
unsafe impl<T: Element> OwnedBuf for Buffer<T> {
    type Item = T;
    fn elements(&mut self) -> &mut [T] {
        self
    }
}

/// A call under way, and the memory that it works on.
///
/// The call goes on by itself, on the process's progress thread, whether or not anybody waits for it; who waits helps.
/// It is also a [`Future`] for any runtime. Dropping it leaves the call under way: its memory is freed when it has ended.
pub struct Work<B> {
    communicator: Communicator,
    held: Arc<Held<B>>,
}

impl<B: Send + 'static> Work<B> {
    pub(crate) fn new(communicator: Communicator, held: Arc<Held<B>>) -> Work<B> {
        Work { communicator, held }
    }

    /// Blocks until the call has ended, at most [`Config::timeout`](crate::Config::timeout) after it began, and gives
    /// its memory back.
    ///
    /// # Errors
    /// What the blocking call would have answered. The memory is freed then.
    pub fn wait(self) -> Result<B> {
        self.communicator.shared().born.check()?;
        self.communicator.help_until(None, || self.held.is_done());
        self.held.take()
    }

    /// Blocks until the call has ended or `patience` is over; whether it has ended.
    ///
    /// # Errors
    /// What the blocking call would have answered, if it has ended; [`Error::Forked`](crate::Error::Forked) in a forked
    /// child.
    pub fn wait_timeout(&mut self, patience: Duration) -> Result<bool> {
        self.communicator.shared().born.check()?;
        if !self.held.is_done() {
            let deadline = Instant::now().checked_add(patience);
            self.communicator.help_until(deadline, || self.held.is_done());
        }
        if self.held.is_done() { self.held.result().map(|()| true) } else { Ok(false) }
    }

    /// Whether the call has ended, well or not. Never blocks.
    pub fn is_done(&self) -> bool {
        self.held.is_done()
    }
}

impl<B: Send + 'static> Future for Work<B> {
    type Output = Result<B>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<B>> {
        if let Err(error) = self.communicator.shared().born.check() {
            Poll::Ready(Err(error))
        } else if self.held.is_done_or_wakes(context.waker()) {
            Poll::Ready(self.held.take())
        } else {
            Poll::Pending
        }
    }
}

impl<B> Unpin for Work<B> {}

impl<B> std::fmt::Debug for Work<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("done", &self.held.done.load(Ordering::Acquire)).finish_non_exhaustive()
    }
}

/// Told when a task has ended.
pub(crate) trait Finish: Send + Sync {
    /// The task has ended; its memory is nobody's but the caller's now.
    fn finish(&self, result: Result<()>);
}

/// What a task and its caller share.
pub(crate) struct Held<B> {
    done: AtomicBool,
    state: Mutex<State<B>>,
}

struct State<B> {
    /// What the task works on; it must not be touched before `done`.
    buffer: Option<B>,
    result: Result<()>,
    waker: Option<Waker>,
}

impl<B> Held<B> {
    pub fn new(buffer: B) -> Arc<Held<B>> {
        let state = State { buffer: Some(buffer), result: Ok(()), waker: None };
        Arc::new(Held { done: AtomicBool::new(false), state: Mutex::new(state) })
    }

    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The result of a task that has ended.
    pub fn result(&self) -> Result<()> {
        self.state().result.clone()
    }

    /// The result and the memory of a task that has ended.
    fn take(&self) -> Result<B> {
        let mut state = self.state();
        let buffer = state.buffer.take().expect("the memory of a call is given back once");
        state.result.clone().map(|()| buffer)
    }

    fn is_done_or_wakes(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        let done = self.is_done();
        if !done && !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        done
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Send> Finish for Held<B> {
    fn finish(&self, result: Result<()>) {
        let waker = {
            let mut state = self.state();
            state.result = result;
            self.done.store(true, Ordering::Release);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
