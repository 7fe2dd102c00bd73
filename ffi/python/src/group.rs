//! Calls that are submitted together: those that a thread makes between the start and the end of a group.

use crate::array::Array;
use crate::waiting;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rccl::{Communicator, Raw, RawGroup};
use std::cell::RefCell;
use std::time::Duration;

#[derive(Default)]
struct Open {
    depth: usize,
    calls: RawGroup,
    communicators: Vec<Communicator>,
    arrays: Vec<[Option<Array>; 2]>,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// Whether this thread has a group open.
#[inline]
pub fn is_open() -> bool {
    OPEN.with_borrow(Option::is_some)
}

/// Adds a call to this thread's group.
pub fn add(on: &Communicator, call: rccl::Result<Raw>, arrays: [Option<Array>; 2]) {
    OPEN.with_borrow_mut(|open| {
        if let Some(open) = open {
            open.calls.add(on, call);
            open.communicators.push(on.clone());
            open.arrays.push(arrays);
        }
    });
}

/// Begins a group of this thread, or a group in it.
#[pyfunction]
pub fn group_start() {
    OPEN.with_borrow_mut(|open| open.get_or_insert_default().depth += 1);
}

/// Ends a group; the outermost makes its calls and returns when all have ended. If a call was refused, none is made.
#[pyfunction]
pub fn group_end(py: Python<'_>) -> PyResult<()> {
    let ended = OPEN.with_borrow_mut(|open| {
        let group = open
            .as_mut()
            .ok_or_else(|| PyRuntimeError::new_err("group_end: this thread has no group open"))?;
        group.depth -= 1;
        PyResult::Ok(if group.depth == 0 { open.take() } else { None })
    })?;
    let Some(Open { calls, communicators, arrays, .. }) = ended else { return Ok(()) };
    let failed = |error| {
        crate::error::exception(py, &error, Some("group"), communicators.first().map(Communicator::rank))
    };
    // SAFETY: the arrays are kept until all have ended.
    let mut works = unsafe { calls.start() }.map_err(failed)?;
    let mut next = 0;
    let mut first = Ok(());
    let mut raised = None;
    while next < works.len() {
        let look = |patience: Duration| {
            works[next].wait_timeout(patience).map(|ended| ended.then_some(())).transpose()
        };
        let give_up = |why: &str| communicators.iter().for_each(|communicator| communicator.abort(why));
        match waiting::until(py, look, give_up) {
            Ok(result) => {
                first = first.and(result);
                next += 1;
            }
            // What was aborted ends soon, and only then may the arrays go.
            Err(error) => raised = raised.or(Some(error)),
        }
    }
    drop(arrays);
    raised.map_or_else(|| first.map_err(failed), Err)
}

/// Forgets this thread's group.
#[pyfunction]
pub fn group_drop() {
    drop(OPEN.take());
}
