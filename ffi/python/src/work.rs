//! Calls that are under way.

use crate::array::{Array, Name};
use crate::call::Time;
use crate::communicator::{Communicator, Origin};
use crate::waiting;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use rccl::Call;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// A call that is under way. It goes on by itself; its arrays belong to it until it has ended, whether or not this object
/// lives. wait() for it, or await it in asyncio; the answer is what the blocking call returns.
#[pyclass(module = "rccl", frozen, weakref, generic)]
pub struct Work {
    origin: Origin,
    call: Call,
    answer: Py<PyAny>,
    done: AtomicBool,
    state: Mutex<State>,
    /// What it reads and writes, until it has ended.
    arrays: Mutex<Option<[Option<Array>; 2]>>,
}

enum State {
    Under(rccl::Work<()>),
    Ended(rccl::Result<()>),
}

/// A call whose object is gone, and what it still uses.
struct Left {
    work: rccl::Work<()>,
    communicator: rccl::Communicator,
    _arrays: [Option<Array>; 2],
}

static LEFT: Mutex<Vec<Left>> = Mutex::new(Vec::new());

/// Lets go of what calls have used whose objects are gone.
pub fn sweep() {
    let ended: Vec<_> = lock(&LEFT).extract_if(.., |left| left.work.is_done()).collect();
    drop(ended); // frees objects of Python's, which may come back here
}

/// Leaves the communicators of calls whose objects are gone, because the interpreter ends.
#[pyfunction]
pub fn leave_calls(py: Python<'_>) {
    sweep();
    let left: Vec<_> = lock(&LEFT).iter().map(|left| left.communicator.clone()).collect();
    py.detach(|| left.iter().for_each(rccl::Communicator::leave));
}

impl Work {
    pub fn new(
        on: &Communicator,
        work: rccl::Work<()>,
        call: Call,
        arrays: [Option<Array>; 2],
        answer: Py<PyAny>,
    ) -> Work {
        sweep();
        Work {
            origin: on.origin().clone(),
            call,
            answer,
            done: AtomicBool::new(false),
            state: Mutex::new(State::Under(work)),
            arrays: Mutex::new(Some(arrays)),
        }
    }

    /// Blocks until the call has ended, or so long: its result, if it has.
    fn look(&self, patience: Duration) -> Option<rccl::Result<()>> {
        let mut state = lock(&self.state);
        let result = match &mut *state {
            State::Ended(result) => result.clone(),
            State::Under(work) => match work.wait_timeout(patience) {
                Ok(false) => return None,
                Ok(true) => Ok(()),
                // A forked child's answer is an error of a call that goes on in its parent.
                Err(error) => Err(error),
            },
        };
        self.done.store(true, Ordering::Release);
        Some(result)
    }

    /// The answer of a call that has ended.
    fn ended(&self, py: Python<'_>, result: rccl::Result<()>) -> PyResult<Py<PyAny>> {
        let arrays = lock(&self.arrays).take();
        drop(arrays);
        match result {
            Ok(()) => Ok(self.answer.clone_ref(py)),
            Err(error) => Err(self.origin.exception(py, &error, Some(&self.call))),
        }
    }
}

#[pymethods]
impl Work {
    /// Blocks until the call has ended, and returns what the blocking call would have: its result, or its error. After
    /// `timeout` seconds it raises TimeoutError, and the call goes on.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<Time>) -> PyResult<Py<PyAny>> {
        let name = Name { call: "wait", argument: "timeout" };
        let began = Instant::now();
        let patience = timeout.map(|time| time.duration(name, py)).transpose()?;
        let look = |slice: Duration| {
            let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
            match self.look(left.map_or(slice, |left| left.min(slice))) {
                None if left.is_some_and(|left| left <= slice) => Some(None),
                None => None,
                ended => Some(ended),
            }
        };
        match waiting::until(py, look, |why| self.origin.communicator.abort(why))? {
            Some(result) => self.ended(py, result),
            None => Err(self.origin.impatient(py, &self.call, began.elapsed())),
        }
    }

    /// Whether the call has ended, well or not. Never blocks.
    fn done(&self) -> bool {
        if self.done.load(Ordering::Acquire) {
            return true;
        }
        match self.state.try_lock() {
            Ok(state) => match &*state {
                State::Under(work) => work.is_done(),
                State::Ended(_) => true,
            },
            Err(TryLockError::Poisoned(_)) => true,
            // Somebody waits for it, and will say so above when it has ended.
            Err(TryLockError::WouldBlock) => false,
        }
    }

    fn __await__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        let py = slf.py();
        let helpers = py.import(intern!(py, "rccl._await"))?;
        helpers.call_method1(intern!(py, "end_of"), (slf,))?.call_method0(intern!(py, "__await__"))
    }

    /// Has an eventfd written when the call has ended: by the library's thread, which knows nothing of Python.
    fn _ring(&self, py: Python<'_>, descriptor: i32) -> PyResult<()> {
        // SAFETY: the caller's, who keeps it open until this returns.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?;
        py.detach(|| {
            let bell = Arc::new(Bell(descriptor));
            let mut state = lock(&self.state);
            let ended = match &mut *state {
                State::Ended(result) => Some(result.clone()),
                State::Under(work) => {
                    match Pin::new(work).poll(&mut Context::from_waker(&Waker::from(bell.clone()))) {
                        Poll::Ready(result) => Some(result),
                        Poll::Pending => None,
                    }
                }
            };
            if let Some(result) = ended {
                *state = State::Ended(result);
                bell.wake();
            }
        });
        Ok(())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a Work cannot be pickled: the call belongs to this process"))
    }

    fn __repr__(&self) -> String {
        format!("<rccl.Work: {}, {}>", self.call, if self.done() { "ended" } else { "under way" })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Ended(Ok(())));
        let arrays = lock(&self.arrays).take();
        if let (State::Under(work), Some(arrays)) = (state, arrays)
            && !work.is_done()
        {
            let communicator = self.origin.communicator.clone();
            lock(&LEFT).push(Left { work, communicator, _arrays: arrays });
        }
    }
}

struct Bell(OwnedFd);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // It can only fail if the counter is full, and then it has rung.
        if let Ok(descriptor) = self.0.try_clone() {
            let _ = File::from(descriptor).write(&1_u64.to_ne_bytes());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
