//! Communicators: what is theirs besides calls.

mod methods;

use crate::array::Name;
use crate::call::Time;
use crate::dtype::{self, Kind};
use crate::memory::Memory;
use crate::unique_id::UniqueId;
use crate::{error, waiting};
use pyo3::exceptions::{PySystemExit, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyTuple};
use rccl::{Builder, Call, Config, Error};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A group of ranks that call collectives together. Every rank makes the same calls in the same order.
///
/// Arrays are whatever has C-contiguous memory of the host: NumPy arrays, tensors of PyTorch, array.array, bytearray,
/// memoryview, DLPack; nothing is copied. A method works in place unless out= is given, and returns the result; where the
/// result has another shape than x, and of all_to_all, it is a new array of x's kind. With async_op=True a method returns a Work at once.
/// timeout= is the seconds after which the call fails on all ranks.
///
/// As a context manager it is closed at the end, or aborted with the exception that ends the block, which is then what all
/// other ranks are told as the first cause.
#[pyclass(module = "rccl", frozen, weakref)]
pub struct Communicator {
    origin: Origin,
    closed: AtomicBool,
}

/// What calls keep of their communicator.
#[derive(Clone)]
pub struct Origin {
    pub communicator: rccl::Communicator,
    /// Whether an exception has told what broke it.
    told: Arc<AtomicBool>,
}

impl Origin {
    /// Whether both are of one communicator.
    pub fn is(&self, other: &Origin) -> bool {
        Arc::ptr_eq(&self.told, &other.told)
    }

    /// An exception tells what broke it.
    pub fn tell(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    pub fn exception(&self, py: Python<'_>, error: &Error, call: Option<&Call>) -> PyErr {
        if error.failure().is_some() {
            self.tell();
        }
        let op = call.map(Call::to_string);
        error::exception(py, error, op.as_deref(), Some(self.communicator.rank()))
    }
}

/// Takes settings by the names of RCCL_X in lower case, without the prefix: `nsocks=4`, `reproducible="fixed"`.
pub fn settings(py: Python<'_>, given: Option<&Bound<'_, PyDict>>, config: &mut Config) -> PyResult<()> {
    for (name, value) in given.into_iter().flatten() {
        let name = format!("RCCL_{}", name.extract::<String>()?.to_uppercase());
        let text = if let Ok(flag) = value.cast::<PyBool>() {
            u8::from(flag.is_true()).to_string()
        } else if let (Ok(seconds), true) = (value.extract::<f64>(), value.is_instance_of::<PyFloat>()) {
            // Times have no fractions of seconds.
            format!("{}ms", seconds * 1e3)
        } else {
            value.str()?.to_string()
        };
        config.set(&name, &text).map_err(|error| error::exception(py, &error, None, None))?;
    }
    Ok(())
}

impl Communicator {
    #[inline]
    pub fn inner(&self) -> &rccl::Communicator {
        &self.origin.communicator
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    pub fn exception(&self, py: Python<'_>, error: &Error, call: Option<&Call>) -> PyErr {
        self.origin.exception(py, error, call)
    }

    /// The object, which the end of the interpreter knows of.
    fn publish(py: Python<'_>, communicator: rccl::Communicator) -> PyResult<Py<Communicator>> {
        let origin = Origin { communicator, told: Arc::default() };
        let object = Py::new(py, Communicator { origin, closed: AtomicBool::new(false) })?;
        py.import("rccl._exit")?.getattr("LIVE")?.call_method1("add", (&object,))?;
        Ok(object)
    }

    fn join(
        py: Python<'_>,
        timeout: Option<Time>,
        label: &str,
        config: Option<&Bound<'_, PyDict>>,
        join: impl FnOnce(Builder) -> rccl::Result<rccl::Communicator> + Send + 'static,
    ) -> PyResult<Py<Communicator>> {
        let failed = |error: Error| error::exception(py, &error, None, None);
        let mut all = Config::from_env().map_err(failed)?;
        settings(py, config, &mut all)?;
        if let Some(timeout) = timeout {
            all.timeout = timeout.duration(Name { call: "Communicator", argument: "timeout" }, py)?;
        }
        let mut builder = rccl::Communicator::builder().map_err(failed)?.config(all);
        if !label.is_empty() {
            builder = builder.label(label);
        }
        // Ranks that come together after this one has given up are told so.
        let gave_up = Arc::new(std::sync::OnceLock::<String>::new());
        let seen = gave_up.clone();
        let joined = waiting::aside(
            py,
            move || {
                let joined = join(builder);
                if let (Ok(communicator), Some(why)) = (&joined, seen.get()) {
                    communicator.abort(why);
                }
                joined
            },
            |why| drop(gave_up.set(why.to_owned())),
        )?;
        Communicator::publish(py, joined.map_err(failed)?)
    }

    /// Makes another communicator from this one.
    fn derive(
        &self,
        py: Python<'_>,
        make: impl FnOnce(&rccl::Communicator) -> rccl::Result<Option<rccl::Communicator>> + Send + 'static,
    ) -> PyResult<Option<Py<Communicator>>> {
        let on = self.inner().clone();
        let made = waiting::aside(py, move || make(&on), |why| self.inner().abort(why))?;
        let made = made.map_err(|error| self.exception(py, &error, None))?;
        made.map(|made| Communicator::publish(py, made)).transpose()
    }
}

#[pymethods]
impl Communicator {
    /// Joins the job that a launcher started this process in: `rccl run`, mpirun, mpiexec, srun, torchrun, or plain RANK
    /// and WORLD_SIZE variables; without any, a communicator of one rank. Blocks until all ranks have joined. timeout: the
    /// seconds that a call may take; label: the name in errors and logs; config: settings, which are RCCL_X in the
    /// environment, as init_timeout=30 or reproducible="fixed".
    #[staticmethod]
    #[pyo3(signature = (*, timeout=None, label="", **config))]
    fn from_env(
        py: Python<'_>,
        timeout: Option<Time>,
        label: &str,
        config: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Communicator>> {
        Communicator::join(py, timeout, label, config, Builder::from_env)
    }

    /// Joins rank `rank` of `size` to the communicator that `id` names, a UniqueId that all ranks have from one of them.
    /// Blocks until all have joined; the rest is as for from_env.
    #[staticmethod]
    #[pyo3(signature = (id, rank, size, *, timeout=None, label="", **config))]
    fn connect(
        py: Python<'_>,
        id: &Bound<'_, UniqueId>,
        rank: u32,
        size: u32,
        timeout: Option<Time>,
        label: &str,
        config: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Communicator>> {
        let id = id.get().0;
        Communicator::join(py, timeout, label, config, move |builder| builder.connect(&id, rank, size))
    }

    /// This process's number, from 0.
    #[getter]
    fn rank(&self) -> u32 {
        self.inner().rank()
    }

    /// How many ranks there are.
    #[getter]
    fn size(&self) -> u32 {
        self.inner().size()
    }

    /// How many lower ranks share this one's host.
    #[getter]
    fn local_rank(&self) -> usize {
        let (hosts, _) = self.inner().layout();
        let rank = self.inner().rank() as usize;
        hosts.iter().take(rank).filter(|&&host| Some(&host) == hosts.get(rank)).count()
    }

    /// The name in errors and logs.
    #[getter]
    fn label(&self) -> &str {
        self.inner().label()
    }

    /// Parts the ranks into new communicators, one for each color, in which ranks are in ascending order of key. With None as
    /// color this rank takes part and gets None. Every rank calls it.
    #[pyo3(signature = (color, key=0))]
    fn split(&self, py: Python<'_>, color: Option<u32>, key: i32) -> PyResult<Option<Py<Communicator>>> {
        self.derive(py, move |on| on.split(color, key))
    }

    /// A communicator of the same ranks whose calls are apart from those of this one. Every rank calls it.
    fn duplicate(&self, py: Python<'_>) -> PyResult<Option<Py<Communicator>>> {
        self.derive(py, |on| on.duplicate().map(Some))
    }

    /// A communicator of all ranks but those in `excluded`. The ranks that stay call it, with the same list; it works on a
    /// communicator that a failure has broken too.
    fn shrink(&self, py: Python<'_>, excluded: Vec<u32>) -> PyResult<Option<Py<Communicator>>> {
        self.derive(py, move |on| on.shrink(&excluded).map(Some))
    }

    /// An id for grow, made with this communicator's settings. This process serves the ranks that meet there, so it lives as
    /// long as the new communicator.
    fn unique_id(&self, py: Python<'_>) -> PyResult<UniqueId> {
        self.inner().unique_id().map(UniqueId).map_err(|error| self.exception(py, &error, None))
    }

    /// A communicator of `size` ranks: those of this one, which keep their numbers, and new ones, which join by connect with
    /// the same id and size and the numbers from this one's size on. Every rank of this one calls it; one of them passes the
    /// id, which it has made by unique_id and handed to the new ranks. Blocks until all have joined. Where a rank was lost,
    /// shrink first.
    #[pyo3(signature = (size, id=None))]
    fn grow(
        &self,
        py: Python<'_>,
        size: u32,
        id: Option<&Bound<'_, UniqueId>>,
    ) -> PyResult<Option<Py<Communicator>>> {
        let id = id.map(|id| id.get().0);
        self.derive(py, move |on| on.grow(size, id.as_ref()).map(Some))
    }

    /// An array of zeros that the other ranks of this host map and RDMA devices know: calls on it copy nothing between. A
    /// NumPy array, or a memoryview where there is no NumPy.
    #[pyo3(signature = (shape, dtype=None))]
    fn empty<'py>(
        &self,
        py: Python<'py>,
        shape: &Bound<'py, PyAny>,
        dtype: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let shape: Vec<usize> = shape.extract().or_else(|_| shape.extract().map(|length| vec![length]))?;
        let kind = dtype.map_or(Ok(Kind::Number(rccl::DataType::F32)), dtype::parse)?;
        let bytes = shape.iter().try_fold(kind.size(), |bytes, &extent| bytes.checked_mul(extent));
        let memory = Memory::new(self.inner(), bytes.unwrap_or(usize::MAX))
            .map_err(|error| self.exception(py, &error, None))?;
        let helpers = py.import(intern!(py, "rccl._arrays"))?;
        helpers.call_method1("over", (Py::new(py, memory)?, PyTuple::new(py, shape)?, kind.name()))
    }

    /// Raises the failure that broke the communicator, if one did. Never blocks.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.inner().check().map_err(|error| self.exception(py, &error, None))
    }

    /// Gives up: current and later calls of every rank fail with `why`. Returns at once, from any thread.
    #[pyo3(signature = (why=""))]
    fn abort(&self, why: &str) {
        self.inner().abort(if why.is_empty() { "abort was called" } else { why });
    }

    /// Leaves the communicator after this rank's last call; waits for calls that are under way. What broke it is raised if
    /// nothing has raised it before. Closing it again does nothing.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        crate::work::sweep();
        let on = self.inner().clone();
        let left = waiting::aside(py, move || on.finish(), |why| self.inner().abort(why))?;
        match left {
            Err(error) if error.failure().is_none() || !self.origin.told.load(Ordering::Relaxed) => {
                Err(self.exception(py, &error, None))
            }
            _ => Ok(()),
        }
    }

    /// Leaves without waiting for calls; `why`: the exception because of which, which the other ranks are told.
    #[pyo3(signature = (why=None))]
    fn _leave(&self, py: Python<'_>, why: Option<&str>) {
        py.detach(|| {
            if let Some(why) = why {
                self.inner().abort(why);
            }
            self.inner().leave();
        });
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (kind, raised, _trace))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        raised: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        if kind.is_none() {
            self.close(py)?;
            return Ok(false);
        }
        let raised = PyErr::from_value(raised.clone());
        let exits =
            raised.is_instance_of::<PySystemExit>(py) && !raised.value(py).getattr("code")?.is_truthy()?;
        let why = (!exits).then(|| waiting::words(py, &raised));
        self.closed.store(true, Ordering::Release);
        self._leave(py, why.as_deref());
        Ok(false)
    }

    fn __reduce__(&self) -> PyResult<()> {
        Err(PyTypeError::new_err(
            "a Communicator cannot be pickled: it belongs to this process. Pass the UniqueId, and connect in the other one",
        ))
    }

    fn __repr__(&self) -> String {
        format!("<rccl.Communicator {:?}: rank {} of {}>", self.label(), self.rank(), self.size())
    }
}
