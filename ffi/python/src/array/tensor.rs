//! Tensors of PyTorch, known by their methods: torch is not imported.
//!
//! Asking one after the other takes more than a microsecond. Since 2.10 a plain tensor describes itself in one call of C, by
//! DLPack's exchange API; whatever that does not describe is asked as before, so that what is refused has the same words.

use super::dlpack::{HOST, Tensor};
use super::{Array, Kept, Name, Writing};
use crate::dtype::Kind;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCapsule, PyCapsuleMethods};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

/// `DLPackDLTensorFromPyObjectNoSync`: describes an object of the type that it was found at. What it points to is good until
/// the interpreter runs again.
type Describe = unsafe extern "C" fn(object: *mut c_void, tensor: *mut Tensor) -> c_int;

/// `DLPackExchangeAPI` of major version 1.
#[repr(C)]
struct Exchange {
    version: [u32; 2],
    _older: *const Exchange,
    _others: [*const c_void; 3],
    describe: Option<Describe>,
}

/// What torch has one object of each, so that looking is enough.
struct Known {
    strided: Py<PyAny>,
    dtypes: Vec<(Py<PyAny>, Kind)>,
    /// Types whose objects are nothing but tensors: others may answer for themselves.
    plain: [Py<PyAny>; 2],
    describe: Option<Describe>,
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
            let plain = torch.getattr("Tensor")?;
            let parameter = torch.getattr("nn")?.getattr("Parameter")?;
            Ok(Known {
                strided: torch.getattr("strided")?.unbind(),
                dtypes,
                describe: exchange(&plain)?,
                plain: [plain.unbind(), parameter.unbind()],
            })
        })
    }
}

/// How objects of a type describe themselves, if they do in a way that is known here.
fn exchange(of: &Bound<'_, PyAny>) -> PyResult<Option<Describe>> {
    let Some(capsule) = of.getattr_opt("__dlpack_c_exchange_api__")? else { return Ok(None) };
    let Ok(capsule) = capsule.cast_into::<PyCapsule>() else { return Ok(None) };
    let Ok(place) = capsule.pointer_checked(Some(c"dlpack_exchange_api")) else { return Ok(None) };
    let exchange = place.cast::<Exchange>();
    // SAFETY: the capsule's name says what it points to, and every major version begins with its number.
    let [major, _] = unsafe { exchange.cast::<[u32; 2]>().read() };
    // SAFETY: as above, and that is the version of the struct.
    Ok(if major == 1 { unsafe { exchange.as_ref() }.describe } else { None })
}

/// What a plain tensor says of itself, if it is one, is dense, and is nothing but its memory.
pub fn read_plain(object: &Bound<'_, PyAny>) -> PyResult<Option<Array>> {
    let py = object.py();
    let Some(Known { describe: Some(describe), plain, .. }) = KNOWN.get(py) else { return Ok(None) };
    let kind = object.get_type();
    if !plain.iter().any(|plain| kind.is(plain)) {
        return Ok(None);
    }
    let mut tensor = MaybeUninit::uninit();
    // SAFETY: an object of a type that says that this describes it, and room for that.
    if unsafe { describe(object.as_ptr().cast(), tensor.as_mut_ptr()) } != 0 {
        drop(PyErr::take(py));
        return Ok(None);
    }
    // SAFETY: filled, as it says.
    let tensor = unsafe { tensor.assume_init() };
    // SAFETY: just described, and the interpreter has not run since.
    let (Some(kind @ Kind::Number(_)), Some(count)) = (tensor.kind(), unsafe { tensor.contiguous() }) else {
        return Ok(None);
    };
    // Numbers that are not complex have no conjugate.
    if !HOST.contains(&tensor.device[0]) || object.call_method0(intern!(py, "is_neg"))?.is_truthy()? {
        return Ok(None);
    }
    let _kept = Kept::Object { _object: object.clone().unbind() };
    Ok(Some(Array { pointer: tensor.pointer(), count, kind, writing: Writing::Allowed, _kept }))
}

/// `pointer`: the tensor's method of that name.
pub fn read(object: &Bound<'_, PyAny>, pointer: &Bound<'_, PyAny>, name: Name) -> PyResult<Array> {
    let py = object.py();
    // The device's own word for it takes seven times as long.
    if object.getattr_opt(intern!(py, "is_cpu"))?.is_none_or(|is| !is.is_truthy().unwrap_or(false)) {
        let device = object.getattr(intern!(py, "device"))?;
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
