//! The Python package's compiled part, `rccl._rccl`.
//!
//! ```text
//! communicator  its class, and `methods`: the calls      array     the memory of Python's objects, without a copy
//! call          one call, from its arrays to its end     waiting   without the interpreter, but for signals
//! work          calls under way                          group     calls that go together
//! stream        an order of calls, for rccl.nccl         error     exceptions
//! ```
//!
//! The C interface is in the same shared object, so that all of a process (these classes, and PyTorch's backend, which is C++)
//! has one engine.

mod array;
mod call;
mod communicator;
mod dtype;
mod error;
mod group;
mod memory;
mod of;
mod op;
mod stream;
mod unique_id;
mod waiting;
mod work;

// The functions of the C interface, which nothing here calls.
use roceccl as _;

use pyo3::prelude::*;
use std::ffi::OsString;
use std::process::ExitCode;

#[pymodule(gil_used = false)]
mod _rccl {
    #[pymodule_export]
    use super::command;
    #[pymodule_export]
    use super::communicator::Communicator;
    #[pymodule_export]
    use super::group::{group_drop, group_end, group_spoil, group_start};
    #[pymodule_export]
    use super::memory::Memory;
    #[pymodule_export]
    use super::op::PreMulSum;
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::unique_id::UniqueId;
    #[pymodule_export]
    use super::work::{Work, leave_calls};

    /// The package's version.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// Runs the `rccl` command and returns its status. `again`: what starts it once more.
#[pyfunction]
fn command(py: Python<'_>, again: Vec<OsString>, arguments: Vec<OsString>) -> u8 {
    let status = py.detach(|| rccl_cli::main(Ok(again), arguments));
    // It tells its number to nobody, but can be compared.
    (0..=u8::MAX).find(|&number| ExitCode::from(number) == status).unwrap_or(1)
}
