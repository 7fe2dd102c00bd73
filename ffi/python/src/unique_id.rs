//! Where ranks meet.

use crate::communicator::settings;
use crate::error::{argument, exception};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};
use rccl::Config;

/// Where the ranks of a communicator meet, and the key that they prove to each other: 128 bytes, which one process makes
/// and hands to all others. That process takes part, or lives as long. It pickles; whoever reads it can join.
#[pyclass(module = "rccl", frozen, eq, hash)]
#[derive(PartialEq, Eq, Hash)]
pub struct UniqueId(pub rccl::UniqueId);

#[pymethods]
impl UniqueId {
    /// A new id: binds a TCP port in this process. Settings as for Communicator.connect.
    #[staticmethod]
    #[pyo3(signature = (**config))]
    fn create(py: Python<'_>, config: Option<&Bound<'_, PyDict>>) -> PyResult<UniqueId> {
        let failed = |error| exception(py, &error, None, None);
        let mut all = Config::from_env().map_err(failed)?;
        settings(py, config, &mut all)?;
        rccl::UniqueId::create(&all).map(UniqueId).map_err(failed)
    }

    /// An id from the bytes of another process.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<UniqueId> {
        let all = <[u8; 128]>::try_from(bytes).map_err(|_| {
            argument(
                py,
                "UniqueId.from_bytes",
                format!("{} bytes", bytes.len()),
                "an id has 128: hand over all of them",
            )
        })?;
        rccl::UniqueId::from_bytes(all).map(UniqueId).map_err(|error| exception(py, &error, None, None))
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    fn __reduce__<'py>(slf: Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let class: Bound<'py, PyType> = slf.get_type();
        Ok((class.getattr("from_bytes")?, (slf.get().__bytes__(slf.py()),)))
    }

    /// Without the key.
    fn __repr__(&self) -> String {
        "<rccl.UniqueId>".into()
    }
}
