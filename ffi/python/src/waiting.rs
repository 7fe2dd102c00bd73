//! Waiting without the interpreter, but for signals: Ctrl-C is a function of Python's, which only runs when it is asked for.

use pyo3::prelude::*;
use rccl::{Communicator, Raw};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How long a signal may wait at most.
pub const SLICE: Duration = Duration::from_millis(50);

/// What an exception says of itself to other processes: `KeyboardInterrupt`, `ValueError: no such file`.
pub fn words(py: Python<'_>, error: &PyErr) -> String {
    error.to_string().trim_end_matches(": ").to_owned()
        + if error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py) { " (Ctrl-C)" } else { "" }
}

/// Makes a call and blocks until it has ended. What a signal's handler raises aborts the communicator and is the answer.
///
/// # Safety
/// As for [`Communicator::run_raw`].
pub unsafe fn run(py: Python<'_>, communicator: &Communicator, raw: Raw) -> PyResult<rccl::Result<()>> {
    let mut raised = None;
    let result = py.detach(|| {
        let gives_up = || raised_by_signals(&mut raised);
        // SAFETY: the caller's promise.
        unsafe { communicator.run_raw_watched(raw, SLICE, gives_up) }
    });
    raised.map_or(Ok(result), Err)
}

/// Runs the handlers of signals that have come; what one raises is kept, and said in words.
fn raised_by_signals(raised: &mut Option<PyErr>) -> Option<String> {
    if raised.is_some() {
        return None;
    }
    Python::attach(|py| {
        let error = py.check_signals().err()?;
        let why = words(py, &error);
        *raised = Some(error);
        Some(why)
    })
}

/// Blocks until `look` has an answer; it waits as long as it is told. What a signal's handler raises is told to `give_up` and
/// is the answer.
pub fn until<T: Send>(
    py: Python<'_>,
    mut look: impl FnMut(Duration) -> Option<T> + Send,
    give_up: impl FnOnce(&str),
) -> PyResult<T> {
    loop {
        if let Some(answer) = py.detach(|| look(SLICE)) {
            return Ok(answer);
        }
        if let Err(error) = py.check_signals() {
            give_up(&words(py, &error));
            return Err(error);
        }
    }
}

/// Does something that blocks on a thread of its own, and waits for it as [`until`] does.
pub fn aside<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> rccl::Result<T> + Send + 'static,
    give_up: impl FnOnce(&str),
) -> PyResult<rccl::Result<T>> {
    let (answer, heard) = sync_channel(1);
    let blocked = rccl::SignalsBlocked::new();
    let thread = std::thread::Builder::new().name("rccl-aside".into()).spawn(move || {
        // Nobody listens any more if a signal came first: what was made is dropped.
        let _ = answer.send(work());
    });
    drop(blocked);
    thread?;
    let look = move |patience| match heard.recv_timeout(patience) {
        Ok(answer) => Some(Some(answer)),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => Some(None),
    };
    let answer = until(py, look, give_up)?;
    answer.ok_or_else(|| pyo3::exceptions::PySystemError::new_err("a fault of rccl: its thread panicked"))
}
