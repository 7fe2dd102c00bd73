//! Streams, for rccl.nccl.

use crate::array::Name;
use crate::call::Time;
use crate::communicator::Origin;
use crate::of::Of;
use crate::waiting;
use pyo3::prelude::*;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An order of calls, across communicators.
#[pyclass(module = "rccl._rccl", frozen)]
pub struct Stream {
    stream: rccl::Stream,
    /// Whose calls were made on it since it was idle last.
    users: Mutex<Vec<Origin>>,
}

impl Stream {
    /// The communicator, whose next calls are made on this stream.
    pub fn lead(&self, origin: &Origin) -> rccl::Communicator {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if !users.iter().any(|user| user.is(origin)) {
            users.push(origin.clone());
        }
        origin.communicator.on(&self.stream)
    }

    fn users(&self) -> Of {
        let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        Of::Stream(users.clone())
    }
}

#[pymethods]
impl Stream {
    #[new]
    fn new() -> Stream {
        Stream { stream: rccl::Stream::new(), users: Mutex::default() }
    }

    /// Blocks until all calls on it have ended, or so long; whether they have. Raises the first failure since it was asked
    /// last.
    #[pyo3(signature = (timeout=None))]
    fn synchronize(&self, py: Python<'_>, timeout: Option<Time>) -> PyResult<bool> {
        let name = Name { call: "synchronize", argument: "timeout" };
        let patience = timeout.map(|time| time.duration(name, py)).transpose()?;
        let began = Instant::now();
        let look = |slice: Duration| {
            let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
            match self.stream.synchronize_timeout(left.map_or(slice, |left| left.min(slice))) {
                Ok(false) if left.is_none_or(|left| left > slice) => None,
                ended => Some(ended),
            }
        };
        let users = self.users();
        let ended = waiting::until(py, look, |why| users.abort(why))?;
        if self.stream.is_idle() {
            self.users.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        ended.map_err(|error| users.exception(py, &error))
    }

    /// Whether all calls on it have ended, well or not. Never blocks.
    fn is_idle(&self) -> bool {
        self.stream.is_idle()
    }

    /// What is made on this stream from now on begins after what was made on `other` so far.
    fn wait_for(&self, other: &Bound<'_, Stream>) {
        self.stream.wait_for(&other.get().stream);
    }
}
