//! DLPack: `__dlpack_device__` says where an array lies, `__dlpack__` gives a capsule with a pointer to the structs below,
//! which are those of its specification. The capsule is kept as it is: its destructor frees what nobody has taken over.

use super::{Array, Kept, Name, Writing};
use crate::dtype::{self, Kind};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyCapsuleMethods, PyDict};
use rccl::DataType;
use std::ffi::c_void;

/// `DLTensor`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tensor {
    data: *mut u8,
    /// The kind, one of [`HOST`], and the number.
    pub device: [i32; 2],
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// The beginning of `DLManagedTensorVersioned`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Versioned {
    version: [u32; 2],
    context: *mut c_void,
    deleter: *const c_void,
    flags: u64,
    tensor: Tensor,
}

/// `kDLCPU`, and memory of the host that CUDA or ROCm has pinned.
pub const HOST: [i32; 3] = [1, 3, 11];
/// `DLPACK_FLAG_BITMASK_READ_ONLY`.
const READ_ONLY: u64 = 1;

pub fn read(object: &Bound<'_, PyAny>, name: Name) -> PyResult<Array> {
    let py = object.py();
    let (device, number): (i32, i32) = object.call_method0(intern!(py, "__dlpack_device__"))?.extract()?;
    if !HOST.contains(&device) {
        return Err(name.elsewhere(object, &format!("device {number} of DLPack's kind {device}")));
    }
    let newer = PyDict::new(py);
    newer.set_item("max_version", (1, 0))?;
    let capsule = match object.call_method("__dlpack__", (), Some(&newer)) {
        // Exporters of before that version know no such argument.
        Err(error) if error.is_instance_of::<PyTypeError>(py) => object.call_method0("__dlpack__")?,
        answered => answered?,
    };
    let capsule = capsule.cast_into::<PyCapsule>()?;
    let (tensor, writing) = if let Ok(place) = capsule.pointer_checked(Some(c"dltensor_versioned")) {
        // SAFETY: the capsule's name says what it points to.
        let managed = unsafe { place.cast::<Versioned>().read() };
        (managed.tensor, (managed.flags & READ_ONLY == 0).into())
    } else {
        let place = capsule.pointer_checked(Some(c"dltensor"))?;
        // SAFETY: as above; the tensor comes first.
        (unsafe { place.cast::<Tensor>().read() }, Writing::Unsaid)
    };
    let Some(kind) = tensor.kind() else {
        return Err(
            name.unknown_type(object, &format!("DLPack's kind {} with {} bits", tensor.code, tensor.bits))
        );
    };
    // SAFETY: the capsule has just shown it.
    let Some(count) = (unsafe { tensor.contiguous() }) else { return Err(name.strided(object)) };
    let pointer = tensor.pointer();
    Ok(Array { pointer, count, kind, writing, _kept: Kept::Object { _object: capsule.into_any().unbind() } })
}

impl Tensor {
    pub fn pointer(self) -> *mut u8 {
        self.data.wrapping_add(self.byte_offset as usize)
    }

    /// How many elements it has, if they lie one after the other.
    ///
    /// # Safety
    /// Its lists are as its specification says.
    pub unsafe fn contiguous(self) -> Option<usize> {
        // SAFETY: as many as there are dimensions, by the specification.
        let shape = unsafe { list(self.shape, self.ndim) };
        // SAFETY: as above.
        let strides = unsafe { list(self.strides, self.ndim) };
        let count: i64 = shape.iter().product();
        let mut expected = 1;
        for (&extent, &stride) in shape.iter().zip(strides).rev() {
            if count > 0 && extent > 1 && stride != expected {
                return None;
            }
            expected *= extent;
        }
        Some(count as usize)
    }

    /// The type of its elements, by `DLDataTypeCode`.
    pub fn kind(self) -> Option<Kind> {
        Some(Kind::Number(match (self.code, self.bits, self.lanes) {
            (0, 8, 1) => DataType::I8,
            (0, 32, 1) => DataType::I32,
            (0, 64, 1) => DataType::I64,
            (1, 8, 1) => DataType::U8,
            (1, 32, 1) => DataType::U32,
            (1, 64, 1) => DataType::U64,
            (2, 16, 1) => DataType::F16,
            (2, 32, 1) => DataType::F32,
            (2, 64, 1) => DataType::F64,
            (4, 16, 1) => DataType::BF16,
            (10, 8, 1) => DataType::F8E4M3,
            (12, 8, 1) => DataType::F8E5M2,
            (0, 16, 1) => return dtype::by_name("int16"),
            (1, 16, 1) => return dtype::by_name("uint16"),
            (5, 64, 1) => return dtype::by_name("complex64"),
            (5, 128, 1) => return dtype::by_name("complex128"),
            (6, 8, 1) => return dtype::by_name("bool"),
            _ => return None,
        }))
    }
}

/// # Safety
/// `first` is NULL or has so many values, which live as long as the tensor.
unsafe fn list<'a>(first: *const i64, count: i32) -> &'a [i64] {
    if first.is_null() || count <= 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(first, count as usize) }
}
