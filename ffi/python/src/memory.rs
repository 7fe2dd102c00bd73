//! Memory that the other ranks of this host map.

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use rccl::Buffer;
use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};

/// Registered memory as bytes, by the buffer protocol; Communicator.empty makes an array of it.
#[pyclass(module = "rccl", frozen)]
pub struct Memory {
    /// The lock is for the pointer; whoever has that keeps this object.
    buffer: Mutex<Buffer<u8>>,
    bytes: usize,
}

impl Memory {
    pub fn new(on: &rccl::Communicator, bytes: usize) -> rccl::Result<Memory> {
        Ok(Memory { buffer: Mutex::new(on.alloc(bytes)?), bytes })
    }
}

#[pymethods]
impl Memory {
    fn __len__(&self) -> usize {
        self.bytes
    }

    /// # Safety
    /// Python's: `view` is a place for what is shown, and is released.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let memory = slf.get();
        let pointer = memory.buffer.lock().unwrap_or_else(PoisonError::into_inner).as_mut_ptr();
        // SAFETY: the memory lives and stays as long as this object, which the view keeps.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                pointer.cast(),
                memory.bytes as ffi::Py_ssize_t,
                0,
                flags,
            )
        };
        if filled == 0 {
            Ok(())
        } else {
            Err(PyErr::take(slf.py()).unwrap_or_else(|| PyBufferError::new_err("no view")))
        }
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {}
}
