//! Arrays of the caller's, without a copy: whatever offers the buffer protocol, tensors of PyTorch, arrays whose type the
//! buffer protocol has no letter for, and DLPack.

mod buffer;
mod dlpack;
mod interface;
mod tensor;

use crate::dtype::{self, Kind, OfArray};
use crate::error::argument;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

/// What an argument is called in errors: the function's name and its own.
#[derive(Clone, Copy)]
pub struct Name {
    pub call: &'static str,
    pub argument: &'static str,
}

/// Elements of an object, which is kept from freeing and moving them as long as this lives.
pub struct Array {
    pointer: *mut u8,
    count: usize,
    kind: Kind,
    writing: Writing,
    /// Dropped with the interpreter attached.
    _kept: Kept,
}

// SAFETY: the memory belongs to whoever made the call; the rest is a reference to an object, which is dropped, and a view,
// which is released, by threads that are attached to the interpreter.
unsafe impl Send for Array {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Array {}

/// Whether a result may go to memory.
enum Writing {
    Allowed,
    Refused,
    /// Its object cannot say. There are arrays that never change (JAX's) among such, and NumPy takes all of them to be.
    Unsaid,
}

impl From<bool> for Writing {
    fn from(writable: bool) -> Writing {
        if writable { Writing::Allowed } else { Writing::Refused }
    }
}

enum Kept {
    View { _view: buffer::View },
    Object { _object: Py<PyAny> },
}

impl Array {
    /// The elements of `object`, to be read.
    pub fn input(object: &Bound<'_, PyAny>, name: Name) -> PyResult<Array> {
        // What can be had from the type alone comes first: it is what every call pays.
        // SAFETY: an object that is alive.
        if unsafe { ffi::PyObject_CheckBuffer(object.as_ptr()) } == 1 {
            if let Some(array) = buffer::read(object, name)? {
                return Ok(array);
            }
            // Types that the protocol has no letter for: bfloat16 and fp8 of ml_dtypes.
            return interface::read(object, name);
        }
        if let Some(array) = tensor::read_plain(object)? {
            return Ok(array);
        }
        if let Some(pointer) = object.getattr_opt(intern!(object.py(), "data_ptr"))? {
            return tensor::read(object, &pointer, name);
        }
        if object.hasattr(intern!(object.py(), "__dlpack_device__"))? {
            return dlpack::read(object, name);
        }
        if object.hasattr(intern!(object.py(), "__cuda_array_interface__"))? {
            return Err(name.elsewhere(object, "a GPU"));
        }
        if object.hasattr(intern!(object.py(), "__array_interface__"))? {
            return interface::read(object, name);
        }
        Err(name.refuse(
            object,
            "has no memory that could be used",
            "pass a NumPy array, a tensor, an array.array, a bytearray or a memoryview",
        ))
    }

    /// The elements of `object`, to be written.
    pub fn output(object: &Bound<'_, PyAny>, name: Name) -> PyResult<Array> {
        let array = Array::input(object, name)?;
        let (what, hint) = match array.writing {
            Writing::Allowed => return Ok(array),
            Writing::Refused => (
                "is read-only, and the result is written to it",
                "pass a copy, or the array that the result is to go to as out=",
            ),
            Writing::Unsaid => (
                "may be read-only, and the result is written to it: DLPack before version 1.0 does not say",
                "pass a NumPy array, a tensor or a memoryview of the same memory, or another array as out=",
            ),
        };
        Err(argument(object.py(), name.call, format!("{} {what}", name.argument), hint))
    }

    pub fn count(&self) -> usize {
        self.count
    }
    pub fn kind(&self) -> &Kind {
        &self.kind
    }
    pub fn pointer(&self) -> *mut u8 {
        self.pointer
    }
}

impl Name {
    /// The object is of the wrong kind.
    fn refuse(self, object: &Bound<'_, PyAny>, what: &str, hint: &str) -> PyErr {
        let kind =
            object.get_type().fully_qualified_name().map_or_else(|_| "?".into(), |kind| kind.to_string());
        PyTypeError::new_err(format!("{}: {}, a {kind}, {what}; {hint}", self.call, self.argument))
    }

    fn elsewhere(self, object: &Bound<'_, PyAny>, place: &str) -> PyErr {
        let hint = "rccl moves the memory of hosts: pass a copy on the CPU";
        self.refuse(object, &format!("lies in the memory of {place}"), hint)
    }

    /// The elements are of a type that cannot be used. `word`: what it is called, if the object does not say.
    fn unknown_type(self, object: &Bound<'_, PyAny>, word: &str) -> PyErr {
        let of = match OfArray::read(object) {
            Ok(of) => of,
            Err(error) => return error,
        };
        let swapped = of.as_ref().is_some_and(|of| !of.is_native);
        let word = of.as_ref().map_or(word, |of| &of.name);
        let (order, hint) = if swapped {
            let hint = "convert it, as x.astype(x.dtype.newbyteorder(\"=\")) does";
            (" in the other order of bytes", hint.to_owned())
        } else if of.as_ref().is_some_and(|of| of.has_objects) {
            ("", "objects are more than their memory: broadcast_object sends one by pickle".to_owned())
        } else {
            ("", format!("elements are {}, or what NumPy has in plain memory: convert it", dtype::names()))
        };
        self.refuse(object, &format!("has elements of type {word}{order}"), &hint)
    }

    fn strided(self, object: &Bound<'_, PyAny>) -> PyErr {
        argument(
            object.py(),
            self.call,
            format!("the elements of {} are not one after the other in memory (C-contiguous)", self.argument),
            "pass a contiguous copy, as numpy.ascontiguousarray or Tensor.contiguous make it",
        )
    }
}
