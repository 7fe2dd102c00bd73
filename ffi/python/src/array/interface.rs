//! NumPy's `__array_interface__`, for types that the buffer protocol has no letter for.

use super::{Array, Kept, Name};
use crate::dtype::{self, OfArray};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub fn read(object: &Bound<'_, PyAny>, name: Name) -> PyResult<Array> {
    let py = object.py();
    let interface = object.getattr(intern!(py, "__array_interface__"))?.cast_into::<PyDict>()?;
    let field = |key: &str| interface.get_item(key).map(|value| value.filter(|value| !value.is_none()));
    let missing = || name.refuse(object, "does not say where its elements lie", "pass a NumPy array");
    // Only arrays of NumPy's kind have names for types.
    let kind = match OfArray::read(object)? {
        Some(of) => of.kind().ok_or_else(|| name.unknown_type(object, &of.name))?,
        None => {
            let word: String = field("typestr")?.ok_or_else(missing)?.extract()?;
            dtype::by_typestr(&word).ok_or_else(|| name.unknown_type(object, &word))?
        }
    };
    if field("strides")?.is_some() {
        return Err(name.strided(object));
    }
    let (address, read_only): (usize, bool) = field("data")?.ok_or_else(missing)?.extract()?;
    let shape: Vec<usize> = field("shape")?.ok_or_else(missing)?.extract()?;
    let count = shape.iter().product();
    Ok(Array {
        pointer: address as *mut u8,
        count,
        kind,
        writing: (!read_only).into(),
        _kept: Kept::Object { _object: object.clone().unbind() },
    })
}
