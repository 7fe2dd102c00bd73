//! Calls that are under way.

use crate::array::Name;
use crate::call::{Arrays, Time};
use crate::error::argument;
use crate::of::Of;
use crate::waiting;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyBytes;
use std::collections::VecDeque;
use std::fs::File;
use std::future::Future;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// A call that is under way, or all calls of a group. It goes on by itself; its arrays belong to it until it has ended, whether
/// or not this object lives. wait() for it, or await it in asyncio; the answer is what the blocking call returns, and of a group
/// None.
#[pyclass(module = "rccl", frozen, weakref, generic)]
pub struct Work {
    /// Of a group: when that is over, and `None` if nothing of it was made.
    of: OnceLock<Option<Of>>,
    answer: Answer,
    done: AtomicBool,
    state: Mutex<State>,
    /// What it reads and writes, until it has ended.
    arrays: Mutex<Vec<Arrays>>,
}

/// What a call returns when it has ended.
pub enum Answer {
    Object(Py<PyAny>),
    /// An object that was pickled.
    Pickled(Pickled),
}

impl Answer {
    pub fn pickled(parcel: Arc<rccl::Parcel>) -> Answer {
        Answer::Pickled(Pickled { parcel, bytes: Mutex::default(), object: PyOnceLock::new() })
    }

    fn get(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self {
            Answer::Object(object) => Ok(object.clone_ref(py)),
            Answer::Pickled(pickled) => pickled.get(py),
        }
    }
}

pub struct Pickled {
    parcel: Arc<rccl::Parcel>,
    /// The parcel's, until the object was made: that may raise, by Ctrl-C too, and be tried again.
    bytes: Mutex<Option<Py<PyBytes>>>,
    object: PyOnceLock<Py<PyAny>>,
}

impl Pickled {
    fn get(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let bytes = {
            let mut kept = lock(&self.bytes);
            if let Some(object) = self.object.get(py) {
                return Ok(object.clone_ref(py));
            }
            let bytes = || PyBytes::new(py, &self.parcel.take().unwrap_or_default()).unbind();
            kept.get_or_insert_with(bytes).clone_ref(py)
        };
        // Without a lock: this runs what the program likes, which may ask for this object.
        let object = py.import(intern!(py, "pickle"))?.call_method1(intern!(py, "loads"), (bytes,))?;
        let mut kept = lock(&self.bytes);
        let object = self.object.get_or_init(py, || object.unbind()).clone_ref(py);
        *kept = None;
        Ok(object)
    }
}

enum State {
    /// A group none of whose calls were made.
    Open,
    /// What has not ended, the next one to be waited for last, and the first error of what has.
    Under(Vec<rccl::Work<()>>, rccl::Result<()>),
    Ended(rccl::Result<()>),
}

/// Calls whose object is gone, and what they still use.
struct Left {
    works: Vec<rccl::Work<()>>,
    communicators: Vec<rccl::Communicator>,
    _arrays: Vec<Arrays>,
}

static LEFT: Mutex<VecDeque<Left>> = Mutex::new(VecDeque::new());

/// So many that have not ended are looked at by one sweep: a program may leave thousands behind, and every call sweeps.
const LOOKED_AT: usize = 4;

/// Lets go of what calls have used whose objects are gone.
pub fn sweep() {
    let mut ended = Vec::new();
    {
        let mut all = lock(&LEFT);
        let mut under_way = 0;
        while under_way < LOOKED_AT.min(all.len())
            && let Some(left) = all.pop_front()
        {
            if left.works.iter().all(rccl::Work::is_done) {
                ended.push(left);
            } else {
                all.push_back(left);
                under_way += 1;
            }
        }
    }
    drop(ended); // frees objects of Python's, which may come back here
}

/// Leaves the communicators of calls whose objects are gone, because the interpreter ends.
#[pyfunction]
pub fn leave_calls(py: Python<'_>) {
    sweep();
    let left: Vec<_> = lock(&LEFT).iter().flat_map(|left| left.communicators.clone()).collect();
    py.detach(|| left.iter().for_each(rccl::Communicator::leave));
}

impl State {
    /// Has `end` look at what has not ended, one by one, until it says `None`: the result, if all have ended.
    fn look(
        &mut self,
        mut end: impl FnMut(&mut rccl::Work<()>) -> Option<rccl::Result<()>>,
    ) -> Option<rccl::Result<()>> {
        let State::Under(works, first) = self else {
            return if let State::Ended(result) = self { Some(result.clone()) } else { None };
        };
        while let Some(work) = works.last_mut() {
            let result = end(work)?;
            works.pop();
            if first.is_ok() {
                *first = result;
            }
        }
        let result = first.clone();
        *self = State::Ended(result.clone());
        Some(result)
    }
}

impl Work {
    /// A call.
    pub fn new(of: Of, mut work: rccl::Work<()>, arrays: Arrays, answer: Py<PyAny>) -> Work {
        if !work.is_done() {
            let call = Work::answering(State::Open, Answer::Object(answer));
            call.begin(of, vec![work], vec![arrays]);
            return call;
        }
        let result = work.wait_timeout(Duration::ZERO).map(drop);
        let call = Work::answering(State::Ended(result), Answer::Object(answer));
        let _ = call.of.set(Some(of));
        call
    }

    /// Several calls, which keep their memory themselves.
    pub fn of_several(of: Of, works: Vec<rccl::Work<()>>, answer: Answer) -> Work {
        let calls = Work::answering(State::Open, answer);
        calls.begin(of, works, Vec::new());
        calls
    }

    /// A group whose calls are still to come.
    pub fn open(py: Python<'_>) -> Work {
        Work::answering(State::Open, Answer::Object(py.None()))
    }

    fn answering(state: State, answer: Answer) -> Work {
        sweep();
        Work {
            of: OnceLock::new(),
            answer,
            done: AtomicBool::new(false),
            state: Mutex::new(state),
            arrays: Mutex::default(),
        }
    }

    /// Its calls were made.
    pub fn begin(&self, of: Of, mut works: Vec<rccl::Work<()>>, arrays: Vec<Arrays>) {
        works.reverse();
        *lock(&self.arrays) = arrays;
        *lock(&self.state) = State::Under(works, Ok(()));
        let _ = self.of.set(Some(of));
    }

    /// Its calls were not made.
    pub fn drop_calls(&self) {
        let _ = self.of.set(None);
        self.done.store(true, Ordering::Release);
    }

    /// Whose it is, once its calls were made.
    fn of(&self, py: Python<'_>) -> PyResult<&Of> {
        let (what, hint) = match self.of.get() {
            Some(Some(of)) => return Ok(of),
            Some(None) => ("nothing of the group was made", "its block raised, or a call in it was refused"),
            None => ("the group is still open", "its calls are made when its block ends: wait after that"),
        };
        Err(argument(py, "wait", what.into(), hint))
    }

    /// The result, if all has ended. Never blocks, so other threads need not run meanwhile.
    fn over(&self) -> Option<rccl::Result<()>> {
        let state = self.state.try_lock().ok()?;
        if let State::Under(works, _) = &*state
            && !works.iter().all(rccl::Work::is_done)
        {
            return None;
        }
        self.looked(state, Duration::ZERO)
    }

    /// Blocks until all has ended, or so long: the result, if it has.
    fn look(&self, patience: Duration) -> Option<rccl::Result<()>> {
        self.looked(lock(&self.state), patience)
    }

    fn looked(&self, mut state: MutexGuard<'_, State>, patience: Duration) -> Option<rccl::Result<()>> {
        let result = state.look(|work| match work.wait_timeout(patience) {
            Ok(false) => None,
            // A forked child's answer is an error of a call that goes on in its parent.
            ended => Some(ended.map(drop)),
        })?;
        self.done.store(true, Ordering::Release);
        Some(result)
    }

    /// The answer of what has ended.
    fn ended(&self, py: Python<'_>, of: &Of, result: rccl::Result<()>) -> PyResult<Py<PyAny>> {
        let arrays = std::mem::take(&mut *lock(&self.arrays));
        drop(arrays);
        match result {
            Ok(()) => self.answer.get(py),
            Err(error) => Err(of.exception(py, &error)),
        }
    }

    /// Blocks until all has ended, also after a signal: what was aborted ends soon, and only then may the arrays go.
    pub fn settle(&self, py: Python<'_>) -> PyResult<()> {
        let of = self.of(py)?;
        let mut raised = None;
        loop {
            match waiting::until(py, |patience| self.look(patience), |why| of.abort(why)) {
                Ok(result) => {
                    let answer = self.ended(py, of, result);
                    return raised.map_or(answer.map(drop), Err);
                }
                Err(error) => raised = raised.or(Some(error)),
            }
        }
    }
}

#[pymethods]
impl Work {
    /// Blocks until the call has ended, and returns what the blocking call would have: its result, or its error. After
    /// `timeout` seconds it raises TimeoutError, and the call goes on.
    #[pyo3(signature = (timeout=None))]
    pub fn wait(&self, py: Python<'_>, timeout: Option<Time>) -> PyResult<Py<PyAny>> {
        let of = self.of(py)?;
        let name = Name { call: "wait", argument: "timeout" };
        let Some(timeout) = timeout else {
            let result = match self.over() {
                Some(result) => result,
                None => waiting::until(py, |slice| self.look(slice), |why| of.abort(why))?,
            };
            return self.ended(py, of, result);
        };
        let (began, patience) = (Instant::now(), timeout.duration(name, py)?);
        let look = |slice: Duration| {
            let left = patience.saturating_sub(began.elapsed());
            match self.look(left.min(slice)) {
                None if left <= slice => Some(None),
                None => None,
                ended => Some(ended),
            }
        };
        match waiting::until(py, look, |why| of.abort(why))? {
            Some(result) => self.ended(py, of, result),
            None => Err(of.impatient(py, began.elapsed())),
        }
    }

    /// Whether the call has ended, well or not. Never blocks.
    fn done(&self) -> bool {
        if self.done.load(Ordering::Acquire) {
            return true;
        }
        match self.state.try_lock() {
            Ok(state) => match &*state {
                State::Open => false,
                State::Under(works, _) => works.iter().all(rccl::Work::is_done),
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

    /// Has an eventfd written when the call has ended, or one of a group: by the library's thread, which knows nothing of Python.
    fn _ring(&self, py: Python<'_>, descriptor: i32) -> PyResult<()> {
        self.of(py)?;
        // SAFETY: the caller's, who keeps it open until this returns.
        let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?;
        py.detach(|| {
            let bell = Arc::new(Bell(descriptor));
            let waker = Waker::from(bell.clone());
            let ended =
                lock(&self.state).look(|work| match Pin::new(work).poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                });
            if ended.is_some() {
                bell.wake();
            }
        });
        Ok(())
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err("a Work cannot be pickled: the call belongs to this process"))
    }

    fn __repr__(&self) -> String {
        match self.of.get() {
            Some(Some(of)) if self.done() => format!("<rccl.Work: {of}, ended>"),
            Some(Some(of)) => format!("<rccl.Work: {of}, under way>"),
            Some(None) => "<rccl.Work: a group, not made>".into(),
            None => "<rccl.Work: a group, open>".into(),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Ended(Ok(())));
        let arrays = std::mem::take(&mut *lock(&self.arrays));
        if let (State::Under(works, _), Some(of)) = (state, self.of.get().and_then(Option::as_ref))
            && !works.iter().all(rccl::Work::is_done)
        {
            let communicators = of.origins().iter().map(|origin| origin.communicator.clone()).collect();
            lock(&LEFT).push_back(Left { works, communicators, _arrays: arrays });
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
