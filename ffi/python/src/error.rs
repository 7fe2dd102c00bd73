//! rccl's errors as Python's exceptions, with all that they say.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use rccl::{CallOf, Error, Failure};

/// The exception for an error. `op`: the call that it came out of; `rank`: this process's, where it is known.
pub fn exception(py: Python<'_>, error: &Error, op: Option<&str>, rank: Option<u32>) -> PyErr {
    match build(py, error, op, rank) {
        Ok(exception) | Err(exception) => exception,
    }
}

/// An argument that is wrong by itself.
pub fn argument(py: Python<'_>, call: &'static str, what: String, hint: impl Into<String>) -> PyErr {
    exception(py, &Error::InvalidArgument { call, what, hint: hint.into() }, Some(call), None)
}

fn build(py: Python<'_>, error: &Error, op: Option<&str>, rank: Option<u32>) -> PyResult<PyErr> {
    let fields = PyDict::new(py);
    fields.set_item("code", error.code())?;
    fields.set_item("rank", rank)?;
    fields.set_item("op", op)?;
    fields.set_item("hint", error.hint())?;
    match error {
        Error::InvalidArgument { call, what, .. } => {
            fields.set_item("op", op.unwrap_or(call))?;
            fields.set_item("cause", what)?;
        }
        Error::InvalidSetting { name, value, .. } => {
            fields.set_item("cause", format!("{name}={value}"))?;
        }
        Error::Join { rank, cause, .. } => {
            fields.set_item("rank", rank)?;
            fields.set_item("cause", cause)?;
        }
        Error::System { source, .. } => fields.set_item("cause", source.to_string())?,
        Error::Failed { reporter, failure, .. } => {
            fields.set_item("rank", reporter.rank)?;
            fields.set_item("host", &reporter.host)?;
            fields.set_item("pid", reporter.pid)?;
            fields.set_item("cause", failure.to_string())?;
            let (sequence, peer) = about(failure, reporter.rank);
            fields.set_item("sequence", sequence)?;
            fields.set_item("peer", peer)?;
        }
        _ => {}
    }
    let class = class(py, error)?;
    Ok(PyErr::from_value(class.call((error.to_string(),), Some(&fields))?))
}

/// The number of the call, and the rank that is to blame, or was missed first.
fn about(failure: &Failure, own: u32) -> (Option<u32>, Option<u32>) {
    let another = |calls: &[CallOf]| {
        let mine = calls.iter().find(|of| of.rank == own).map(|of| of.call);
        calls.iter().find(|of| of.rank != own && Some(of.call) != mine).map(|of| of.rank)
    };
    match failure {
        Failure::Mismatch { sequence, calls } => (Some(*sequence), another(calls)),
        Failure::PeerLost { member, sequence, .. } => {
            (Some(*sequence).filter(|&number| number > 0), Some(member.rank).filter(|&rank| rank != u32::MAX))
        }
        Failure::Timeout { sequence, waiting_for, .. } => {
            (Some(*sequence), waiting_for.first().map(|of| of.rank))
        }
        Failure::Aborted { member, .. } => (None, Some(member.rank)),
        Failure::LinkLost { rank, peer, sequence, .. } => {
            let other = if *rank == own { peer } else { rank };
            (Some(*sequence).filter(|&number| number > 0), Some(*other))
        }
        _ => (None, None),
    }
}

/// The classes are Python's, since they have bases of Python's.
fn class<'py>(py: Python<'py>, error: &Error) -> PyResult<&'py Bound<'py, PyType>> {
    static CLASSES: [PyOnceLock<Py<PyType>>; 5] = [const { PyOnceLock::new() }; 5];
    let (place, name) = match error {
        Error::InvalidArgument { .. } | Error::InvalidSetting { .. } => (1, "ArgumentError"),
        Error::Failed { failure, .. } => match **failure {
            Failure::Mismatch { .. } => (2, "MismatchError"),
            Failure::Timeout { .. } => (3, "TimeoutError"),
            Failure::PeerLost { .. } | Failure::LinkLost { .. } => (4, "PeerLostError"),
            _ => (0, "Error"),
        },
        _ => (0, "Error"),
    };
    CLASSES[place].import(py, "rccl.errors", name)
}
