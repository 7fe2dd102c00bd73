//! A call, from the arrays of a method to its end.

use crate::array::{Array, Name};
use crate::communicator::Communicator;
use crate::dtype::{self, Kind};
use crate::error::argument;
use crate::of::Of;
use crate::op::Operator;
use crate::stream::Stream;
use crate::work::Work;
use crate::{group, waiting};
use pyo3::exceptions::PyTypeError;
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
pub struct Manner<'a> {
    pub async_op: bool,
    pub timeout: Option<Time>,
    pub stream: Option<&'a Stream>,
}

impl Manner<'_> {
    pub fn new(async_op: bool, timeout: Option<Time>) -> Self {
        Manner { async_op, timeout, stream: None }
    }
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
    kind: Kind,
    input: *const u8,
    output: *mut u8,
    arrays: Arrays,
}

/// What a call keeps until it has ended.
pub type Arrays = [Option<Array>; 2];

impl Memory {
    pub fn in_place(array: Array) -> Memory {
        let (kind, pointer) = (array.kind().clone(), array.pointer());
        Memory { kind, input: pointer, output: pointer, arrays: [Some(array), None] }
    }

    pub fn none() -> Memory {
        Memory::at(DataType::U8, 0, 0)
    }

    pub fn read(array: Array) -> Memory {
        let (kind, input) = (array.kind().clone(), array.pointer());
        Memory { kind, input, output: std::ptr::null_mut(), arrays: [Some(array), None] }
    }

    pub fn written(array: Array) -> Memory {
        let (kind, output) = (array.kind().clone(), array.pointer());
        Memory { kind, input: std::ptr::null(), output, arrays: [Some(array), None] }
    }

    /// Of two arrays, whose elements are of one type.
    pub fn apart(py: Python<'_>, call: &'static str, input: Array, output: Array) -> PyResult<Memory> {
        if input.kind() != output.kind() {
            let what = format!("x has {} and out has {}", input.kind().name(), output.kind().name());
            return Err(argument(py, call, what, "both have elements of one type"));
        }
        Ok(Memory {
            kind: input.kind().clone(),
            input: input.pointer(),
            output: output.pointer(),
            arrays: [Some(input), Some(output)],
        })
    }

    /// Of addresses, which the caller answers for.
    pub fn at(dtype: DataType, input: usize, output: usize) -> Memory {
        let kind = Kind::Number(dtype);
        Memory { kind, input: input as *const u8, output: output as *mut u8, arrays: [None, None] }
    }
}

/// Makes a call: now, in the background, on a stream, or with the end of an open group. `answer` is what the method returns.
pub fn make(
    py: Python<'_>,
    on: &Communicator,
    asked: Asked<'_>,
    memory: Memory,
    manner: Manner<'_>,
    answer: Py<PyAny>,
) -> PyResult<Py<PyAny>> {
    let Asked { collective, op, root, count, sizes } = asked;
    let Memory { kind, input, output, arrays } = memory;
    let Manner { async_op, timeout, stream } = manner;
    if let (Kind::Plain { name, .. }, Some(_)) = (&kind, op) {
        return Err(cannot_reduce(collective, name));
    }
    let (dtype, per) = kind.moved();
    let call = Call { collective, dtype, op: op.map(|op| op.op), root, count: (count * per) as u64 };
    let scalar = match op {
        Some(op) => op.scalar(dtype)?,
        None => None,
    };
    let checked = |sizes: RawSizes<'_>| on.inner().raw(&call, sizes, scalar.as_deref(), input, output);
    let raw = if per == 1 { checked(sizes) } else { times(per, sizes, checked) };
    let name = Name { call: collective.name(), argument: "timeout" };
    let timeout = timeout.map(|timeout| timeout.duration(name, py)).transpose()?;
    if group::is_open() {
        if async_op {
            let hint = "the calls of a group have one Work, which rccl.group(async_op=True) gives";
            return Err(argument(py, name.call, "async_op in a group".into(), hint));
        }
        let refused = raw.as_ref().err().map(|error| on.exception(py, error, Some(&call)));
        group::add(on.origin(), &call, raw, arrays, timeout, stream);
        return refused.map_or(Ok(answer), Err);
    }
    let raw = raw.map_err(|error| on.exception(py, &error, Some(&call)))?;
    let raw = match timeout {
        Some(timeout) => raw.within(timeout),
        None => raw,
    };
    if let Some(stream) = stream {
        // It tells what becomes of the call.
        // SAFETY: the promise of whoever passed addresses.
        drop(unsafe { stream.lead(on.origin()).start_raw(raw) });
        return Ok(answer);
    }
    if async_op {
        // SAFETY: the arrays are kept until the call has ended, by the work or after it.
        let work = py.detach(|| unsafe { on.inner().start_raw(raw) });
        let of = Of::Call(on.origin().clone(), call);
        return Ok(Py::new(py, Work::new(of, work, arrays, answer))?.into_any());
    }
    // SAFETY: the arrays are kept until it has ended; that nobody else uses them meanwhile is the caller's promise, as of all
    // calls that let other threads of Python run.
    let result = unsafe { waiting::run(py, on.inner(), raw) }?;
    drop(arrays);
    result.map(|()| answer).map_err(|error| on.exception(py, &error, Some(&call)))
}

/// Has sizes in elements made into sizes in what an element is moved by.
fn times<T>(per: usize, sizes: RawSizes<'_>, then: impl FnOnce(RawSizes<'_>) -> T) -> T {
    let times = |counts: &[usize]| -> Vec<usize> { counts.iter().map(|count| count * per).collect() };
    match sizes {
        RawSizes::Counts(counts) => then(RawSizes::Counts(&times(counts))),
        RawSizes::Cross { sent, received } => {
            then(RawSizes::Cross { sent: &times(sent), received: &times(received) })
        }
        equal => then(equal),
    }
}

/// The elements are nothing but bytes.
fn cannot_reduce(collective: Collective, name: &str) -> PyErr {
    let hint = match name {
        "bool" => "view them as uint8, where max is or, and min is and".into(),
        "complex64" => "view them as float32, whose sum and avg are the same".into(),
        "complex128" => "view them as float64, whose sum and avg are the same".into(),
        "int16" => "convert them to int32".into(),
        "uint16" => "convert them to uint32".into(),
        _ => format!("convert them, or view them as one of {}", dtype::names()),
    };
    let call = collective.name();
    PyTypeError::new_err(format!("{call}: elements of type {name} can be moved, but not reduced; {hint}"))
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
    helpers.call_method1(intern!(object.py(), "like"), (object, shape, array.kind().name()))
}
