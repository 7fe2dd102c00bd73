//! Calls that are submitted together: those that a thread makes between the start and the end of a group.

use crate::array::Name;
use crate::call::{Arrays, Time};
use crate::communicator::Origin;
use crate::error::argument;
use crate::of::Of;
use crate::stream::Stream;
use crate::work::Work;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rccl::{Call, Raw, RawGroup};
use std::cell::RefCell;
use std::time::Duration;

struct Open {
    depth: usize,
    /// It ends without waiting for its calls.
    async_op: bool,
    /// A call is on no stream of the program's, so the end of the group is the end of the calls.
    blocks: bool,
    /// Why nothing of it can be made.
    spoiled: Option<String>,
    calls: RawGroup,
    of: (Vec<Origin>, Vec<Call>),
    arrays: Vec<Arrays>,
    /// Where there is a deadline: a stream of the group's own, which has it.
    within: Option<(rccl::Stream, Duration)>,
    work: Py<Work>,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// Whether this thread has a group open.
#[inline]
pub fn is_open() -> bool {
    OPEN.with_borrow(Option::is_some)
}

impl Open {
    /// No call of the group takes longer.
    fn within(&mut self, timeout: Duration) {
        let (stream, least) = self.within.get_or_insert_with(|| (rccl::Stream::new(), timeout));
        *least = timeout.min(*least);
        stream.set_timeout(Some(*least));
    }
}

/// Adds a call to this thread's group.
pub fn add(
    on: &Origin,
    call: &Call,
    raw: rccl::Result<Raw>,
    arrays: Arrays,
    timeout: Option<Duration>,
    stream: Option<&Stream>,
) {
    OPEN.with_borrow_mut(|open| {
        let Some(open) = open else { return };
        if let Some(timeout) = timeout {
            open.within(timeout);
        }
        let led = match (stream, &open.within) {
            (Some(stream), _) => stream.lead(on),
            (None, Some((stream, _))) => on.communicator.on(stream),
            (None, None) => on.communicator.clone(),
        };
        open.blocks |= stream.is_none();
        open.calls.add(&led, raw);
        if !open.of.0.iter().any(|known| known.is(on)) {
            open.of.0.push(on.clone());
        }
        open.of.1.push(*call);
        open.arrays.push(arrays);
    });
}

/// Begins a group of this thread, or a group in it, and gives the Work of the outermost.
#[pyfunction]
#[pyo3(signature = (async_op=false, timeout=None))]
pub fn group_start(py: Python<'_>, async_op: bool, timeout: Option<Time>) -> PyResult<Py<Work>> {
    let name = Name { call: "group", argument: "timeout" };
    let timeout = timeout.map(|timeout| timeout.duration(name, py)).transpose()?;
    let fresh = Py::new(py, Work::open(py))?;
    if OPEN.with_borrow(|open| open.as_ref().is_some_and(|open| async_op && !open.async_op)) {
        let hint = "the outermost group makes the calls of all: pass async_op to that";
        return Err(argument(py, name.call, "async_op of a group in a group".into(), hint));
    }
    OPEN.with_borrow_mut(|open| {
        let open = open.get_or_insert_with(|| Open {
            depth: 0,
            async_op,
            blocks: false,
            spoiled: None,
            calls: RawGroup::new(),
            of: Default::default(),
            arrays: Vec::new(),
            within: None,
            work: fresh,
        });
        open.depth += 1;
        if let Some(timeout) = timeout {
            open.within(timeout);
        }
        Ok(open.work.clone_ref(py))
    })
}

/// The outermost group, if that is what ends.
fn close() -> PyResult<Option<Open>> {
    OPEN.with_borrow_mut(|open| {
        let group = open
            .as_mut()
            .ok_or_else(|| PyRuntimeError::new_err("group_end: this thread has no group open"))?;
        group.depth -= 1;
        Ok(if group.depth == 0 { open.take() } else { None })
    })
}

/// Ends a group; the outermost makes its calls and returns when all have ended, or at once if it is asynchronous or all are on
/// streams. If a call was refused, none is made.
#[pyfunction]
pub fn group_end(py: Python<'_>) -> PyResult<()> {
    let Some(Open { async_op, blocks, spoiled, calls, of, arrays, work, .. }) = close()? else {
        return Ok(());
    };
    let work = work.get();
    if let Some(why) = spoiled {
        work.drop_calls();
        let hint = "let what is raised in a group end it";
        return Err(argument(py, "group", format!("nothing of it was made: {why}"), hint));
    }
    let of = Of::Group(of.0, of.1);
    // SAFETY: the arrays are kept until all have ended, by the work or after it.
    match unsafe { calls.start() } {
        Ok(works) => work.begin(of, works, arrays),
        Err(error) => {
            work.drop_calls();
            return Err(of.refused(py, &error));
        }
    }
    if async_op || !blocks { Ok(()) } else { work.settle(py) }
}

/// Gives a group up: nothing is made of it, nor of those around it.
#[pyfunction]
pub fn group_drop() {
    match close() {
        Ok(Some(open)) => open.work.get().drop_calls(),
        Ok(None) => group_spoil("a group in it was given up".into()),
        Err(_) => {} // it was ended by other means
    }
}

/// Keeps this thread's group, if one is open, from being made: a call in it was refused.
#[pyfunction]
pub fn group_spoil(why: String) {
    OPEN.with_borrow_mut(|open| {
        if let Some(open) = open {
            open.spoiled.get_or_insert(why);
        }
    });
}
