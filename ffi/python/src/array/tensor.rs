//! Tensors of PyTorch, known by their methods: torch is not imported.

use super::{Array, Kept, Name, Writing};
use crate::dtype::Kind;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

/// What torch has one object of each, so that looking is enough.
struct Known {
    strided: Py<PyAny>,
    dtypes: Vec<(Py<PyAny>, Kind)>,
}

static KNOWN: PyOnceLock<Known> = PyOnceLock::new();

impl Known {
    fn get(py: Python<'_>) -> PyResult<&'static Known> {
        KNOWN.get_or_try_init(py, || {
            let torch = py.import("torch")?; // there is a tensor, so this finds it
            let mut dtypes = Vec::new();
            for kind in Kind::all() {
                // Older ones lack some.
                if let Some(object) = torch.getattr_opt(kind.name())? {
                    dtypes.push((object.unbind(), kind));
                }
            }
            Ok(Known { strided: torch.getattr("strided")?.unbind(), dtypes })
        })
    }
}

/// `pointer`: the tensor's method of that name.
pub fn read(object: &Bound<'_, PyAny>, pointer: &Bound<'_, PyAny>, name: Name) -> PyResult<Array> {
    let py = object.py();
    let device = object.getattr(intern!(py, "device"))?;
    let place = device.getattr(intern!(py, "type"))?.cast_into::<PyString>()?;
    if place != "cpu" {
        return Err(name.elsewhere(object, &format!("device {}", device.str()?)));
    }
    let known = Known::get(py)?;
    let layout = object.getattr(intern!(py, "layout"))?;
    if !layout.is(&known.strided) {
        return Err(name.refuse(
            object,
            &format!("is sparse or in blocks ({})", layout.str()?),
            "pass a dense tensor, or its indices and values one by one",
        ));
    }
    let word = object.getattr(intern!(py, "dtype"))?;
    let Some((_, kind)) = known.dtypes.iter().find(|(object, _)| word.is(object)) else {
        return Err(name.unknown_type(object, word.str()?.to_str()?));
    };
    if !object.call_method0(intern!(py, "is_contiguous"))?.is_truthy()? {
        return Err(name.strided(object));
    }
    if object.call_method0(intern!(py, "is_neg"))?.is_truthy()? {
        return Err(name.refuse(object, "is a negated view of its memory", "pass what resolve_neg() gives"));
    }
    if matches!(kind, Kind::Plain { .. }) && object.call_method0(intern!(py, "is_conj"))?.is_truthy()? {
        return Err(name.refuse(
            object,
            "is a conjugated view of its memory",
            "pass what resolve_conj() gives",
        ));
    }
    Ok(Array {
        pointer: pointer.call0()?.extract::<usize>()? as *mut u8,
        count: object.call_method0(intern!(py, "numel"))?.extract()?,
        kind: kind.clone(),
        writing: Writing::Allowed,
        _kept: Kept::Object { _object: object.clone().unbind() },
    })
}
