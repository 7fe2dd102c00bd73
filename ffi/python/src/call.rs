//! A call, from the arrays of a method to its end.

use crate::array::{Array, Name};
use crate::communicator::Communicator;
use crate::error::argument;
use crate::op::Operator;
use crate::work::Work;
use crate::{dtype, group, waiting};
use pyo3::intern;
use pyo3::prelude::*;
use rccl::{Call, Collective, DataType, RawSizes};
use std::time::Duration;

/// A time: seconds, or a `timedelta`.
#[derive(FromPyObject)]
pub enum Time {
    Seconds(f64),
    Delta(Duration),
}

impl Time {
    pub fn duration(self, name: Name, py: Python<'_>) -> PyResult<Duration> {
        let seconds = match self {
            Time::Delta(time) => return Ok(time),
            Time::Seconds(seconds) => seconds,
        };
        // As good as for ever, and what no clock overflows by.
        Duration::try_from_secs_f64(if seconds > 1e9 { 1e9 } else { seconds }).map_err(|_| {
            let what = format!("{} is {seconds}", name.argument);
            argument(py, name.call, what, "it is a time in seconds, or a timedelta")
        })
    }
}

/// How a call is to be made.
#[derive(Default)]
pub struct Manner {
    pub async_op: bool,
    pub timeout: Option<Time>,
}

/// What a call does, but for its memory.
pub struct Asked<'a> {
    pub collective: Collective,
    pub op: Option<Operator>,
    pub root: Option<u32>,
    pub count: usize,
    pub sizes: RawSizes<'a>,
}

impl<'a> Asked<'a> {
    pub fn new(collective: Collective, count: usize) -> Asked<'a> {
        Asked { collective, op: None, root: None, count, sizes: RawSizes::Equal }
    }
    pub fn reducing(self, op: Operator) -> Self {
        Asked { op: Some(op), ..self }
    }
    pub fn rooted(self, root: u32) -> Self {
        Asked { root: Some(root), ..self }
    }
    pub fn sized(self, sizes: RawSizes<'a>) -> Self {
        Asked { sizes, ..self }
    }
}

/// The memory of a call: what it reads and what it writes, the same array in place, and none where a rank has no part.
pub struct Memory {
    dtype: DataType,
    input: *const u8,
    output: *mut u8,
    arrays: [Option<Array>; 2],
}

impl Memory {
    pub fn in_place(array: Array) -> Memory {
        let (dtype, pointer) = (array.dtype(), array.pointer());
        Memory { dtype, input: pointer, output: pointer, arrays: [Some(array), None] }
    }

    pub fn none(dtype: DataType) -> Memory {
        Memory { dtype, input: std::ptr::null(), output: std::ptr::null_mut(), arrays: [None, None] }
    }

    pub fn read(array: Array) -> Memory {
        Memory {
            input: array.pointer(),
            dtype: array.dtype(),
            arrays: [Some(array), None],
            ..Memory::none(DataType::U8)
        }
    }

    pub fn written(array: Array) -> Memory {
        Memory {
            output: array.pointer(),
            dtype: array.dtype(),
            arrays: [Some(array), None],
            ..Memory::none(DataType::U8)
        }
    }

    /// Of two arrays, whose elements are of one type.
    pub fn apart(py: Python<'_>, call: &'static str, input: Array, output: Array) -> PyResult<Memory> {
        if input.dtype() != output.dtype() {
            let (x, out) = (dtype::name(input.dtype()), dtype::name(output.dtype()));
            return Err(argument(
                py,
                call,
                format!("x has {x} and out has {out}"),
                "both have elements of one type",
            ));
        }
        Ok(Memory {
            dtype: input.dtype(),
            input: input.pointer(),
            output: output.pointer(),
            arrays: [Some(input), Some(output)],
        })
    }

    /// Of addresses, which the caller answers for.
    pub fn at(dtype: DataType, input: usize, output: usize) -> Memory {
        Memory { dtype, input: input as *const u8, output: output as *mut u8, arrays: [None, None] }
    }
}

/// Makes a call: now, in the background, or with the end of an open group. `answer` is what the method returns.
pub fn make(
    py: Python<'_>,
    on: &Communicator,
    asked: Asked<'_>,
    memory: Memory,
    manner: Manner,
    answer: Py<PyAny>,
) -> PyResult<Py<PyAny>> {
    let Asked { collective, op, root, count, sizes } = asked;
    let Memory { dtype, input, output, arrays } = memory;
    let call = Call { collective, dtype, op: op.map(|op| op.op), root, count: count as u64 };
    let scalar = match op {
        Some(op) => op.scalar(dtype)?,
        None => None,
    };
    let mut raw = on.inner().raw(&call, sizes, scalar.as_deref(), input, output);
    let name = Name { call: collective.name(), argument: "timeout" };
    if group::is_open() {
        if manner.async_op || manner.timeout.is_some() {
            let hint = "all calls of a group are over when it ends, and have the communicator's timeout";
            return Err(argument(py, name.call, "async_op or timeout in a group".into(), hint));
        }
        let refused = raw.as_ref().err().map(|error| on.exception(py, error, Some(&call)));
        group::add(on.inner(), raw, arrays);
        return refused.map_or(Ok(answer), Err);
    }
    if let Some(timeout) = manner.timeout {
        let timeout = timeout.duration(name, py)?;
        raw = raw.map(|raw| raw.within(timeout));
    }
    let raw = raw.map_err(|error| on.exception(py, &error, Some(&call)))?;
    if manner.async_op {
        // SAFETY: the arrays are kept until the call has ended, by the work or after it.
        let work = unsafe { on.inner().start_raw(raw) };
        return Ok(Py::new(py, Work::new(on, work, call, arrays, answer))?.into_any());
    }
    // SAFETY: the arrays are kept until it has ended; that nobody else uses them meanwhile is the caller's promise, as of all
    // calls that let other threads of Python run.
    let result = unsafe { waiting::run(py, on.inner(), raw) }?;
    drop(arrays);
    result.map(|()| answer).map_err(|error| on.exception(py, &error, Some(&call)))
}

/// The lengths of an array's axes.
pub fn shape(object: &Bound<'_, PyAny>, array: &Array) -> PyResult<Vec<usize>> {
    match object.getattr_opt(intern!(object.py(), "shape"))? {
        Some(shape) => shape.extract(),
        None => Ok(vec![array.count()]),
    }
}

/// A new array of this shape, of the same kind as `object`.
pub fn like<'py>(
    object: &Bound<'py, PyAny>,
    array: &Array,
    shape: Vec<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let helpers = object.py().import(intern!(object.py(), "rccl._arrays"))?;
    let shape = pyo3::types::PyTuple::new(object.py(), shape)?;
    helpers.call_method1(intern!(object.py(), "like"), (object, shape, dtype::name(array.dtype())))
}
