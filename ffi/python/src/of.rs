//! What is under way: whose it is, what it is called, and the exceptions that come out of it.

use crate::communicator::Origin;
use crate::error;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rccl::{Call, Error};
use std::fmt;
use std::time::Duration;

/// A group names so many of its calls.
const NAMED: usize = 4;

/// What is under way.
pub enum Of {
    Call(Origin, Call),
    /// With all communicators of its calls, each once.
    Group(Vec<Origin>, Vec<Call>),
    /// What was made on a stream, with all communicators.
    Stream(Vec<Origin>),
}

impl Of {
    pub fn origins(&self) -> &[Origin] {
        match self {
            Of::Call(origin, _) => std::slice::from_ref(origin),
            Of::Group(origins, _) | Of::Stream(origins) => origins,
        }
    }

    pub fn abort(&self, why: &str) {
        self.origins().iter().for_each(|origin| origin.communicator.abort(why));
    }

    /// The exception for an error of it.
    pub fn exception(&self, py: Python<'_>, error: &Error) -> PyErr {
        if let Of::Call(origin, call) = self {
            return origin.exception(py, error, Some(call));
        }
        // An error does not say of which communicator it is.
        let broken = self.origins().iter().filter(|origin| origin.communicator.check().is_err());
        broken.for_each(Origin::tell);
        error::exception(py, error, Some(&self.to_string()), self.rank())
    }

    /// The exception for what was refused before anything was sent.
    pub fn refused(&self, py: Python<'_>, error: &Error) -> PyErr {
        error::exception(py, error, None, self.rank())
    }

    /// The end of the patience of whoever waits for it, which goes on.
    pub fn impatient(&self, py: Python<'_>, waited: Duration) -> PyErr {
        let label = self.origins().first().map_or("", |origin| origin.communicator.label());
        let seconds = waited.as_secs_f64();
        let hint = "it goes on: wait again, or abort the communicator";
        let text = format!("{label}: {self} has not ended after {seconds:.1} s; {hint}");
        let build = || {
            let fields = PyDict::new(py);
            fields.set_item("rank", self.rank())?;
            fields.set_item("op", self.to_string())?;
            fields.set_item("hint", hint)?;
            let class = py.import("rccl.errors")?.getattr("TimeoutError")?;
            PyResult::Ok(PyErr::from_value(class.call((text,), Some(&fields))?))
        };
        build().unwrap_or_else(|error| error)
    }

    fn rank(&self) -> Option<u32> {
        self.origins().first().map(|origin| origin.communicator.rank())
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Of::Call(_, call) => write!(f, "{call}"),
            Of::Group(_, calls) => {
                let named: Vec<String> = calls.iter().take(NAMED).map(Call::to_string).collect();
                let more = if calls.len() > NAMED { ", ..." } else { "" };
                write!(f, "group of {} calls: {}{more}", calls.len(), named.join(", "))
            }
            Of::Stream(_) => f.write_str("stream"),
        }
    }
}
