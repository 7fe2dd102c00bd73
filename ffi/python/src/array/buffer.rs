//! The buffer protocol.

use super::{Array, Kept, Name};
use crate::dtype::{self, OfArray};
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::CStr;

/// What an object showed of its memory. It stays where it is: some exporters point into it.
pub struct View(Box<ffi::Py_buffer>);

impl Drop for View {
    fn drop(&mut self) {
        // A thread that ends with a group open is not attached. Without an interpreter there is nothing to release.
        // SAFETY: it was filled by PyObject_GetBuffer, and is released once.
        let _ = Python::try_attach(|_| unsafe { ffi::PyBuffer_Release(&raw mut *self.0) });
    }
}

/// The elements of an object that offers the protocol; `None` where it does not for its type of elements.
pub fn read(object: &Bound<'_, PyAny>, name: Name) -> PyResult<Option<Array>> {
    let mut view = Box::new(ffi::Py_buffer::new());
    // All that an exporter can say, so that what does not suit is refused in words of ours.
    let asked = ffi::PyBUF_FULL_RO;
    // SAFETY: an object that is alive, and a place for what it says.
    if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, asked) } != 0 {
        let error = PyErr::fetch(object.py());
        let has_no_letter = object.hasattr("__array_interface__")?;
        return match error {
            _ if has_no_letter => Ok(None),
            error if error.is_instance_of::<PyBufferError>(object.py()) => Err(name.refuse(
                object,
                &format!("does not show its memory ({})", error.value(object.py())),
                "pass a copy",
            )),
            error => Err(error),
        };
    }
    let view = View(view);
    let format = if view.0.format.is_null() {
        c"B"
    } else {
        // SAFETY: a string that lives as long as the view.
        unsafe { CStr::from_ptr(view.0.format) }
    };
    let size = view.0.itemsize;
    let kind = match dtype::by_letter(format.to_bytes(), size as usize) {
        Some(kind) => kind,
        None => {
            let of = OfArray::read(object)?.and_then(|of| of.kind());
            of.ok_or_else(|| name.unknown_type(object, &format.to_string_lossy()))?
        }
    };
    // SAFETY: a view that was filled.
    if unsafe { ffi::PyBuffer_IsContiguous(&raw const *view.0, b'C' as _) } == 0 {
        return Err(name.strided(object));
    }
    Ok(Some(Array {
        pointer: view.0.buf.cast(),
        count: (view.0.len / size.max(1)) as usize,
        kind,
        writing: (view.0.readonly == 0).into(),
        _kept: Kept::View { _view: view },
    }))
}
