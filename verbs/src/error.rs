//! What can go wrong, with what was seen and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::memlock::LockedMemory;
use crate::queue_pair::State;
use crate::unusable::UnusableDevice;

/// Result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why libibverbs cannot be used. None of these needs a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// There is no such file.
    #[error(
        "{}: not found ({detail}); install libibverbs (Debian: libibverbs1 and ibverbs-providers, Red Hat: libibverbs) \
         or name its path",
        path.display()
    )]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// The system's words.
        detail: String,
    },
    /// The file cannot be a shared library of this machine, or ends too early.
    #[error("{}: not a usable shared library: {what}; reinstall libibverbs or name another path", path.display())]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The loader refused it: a library that it needs is missing or too old, or a permission.
    #[error("{}: the loader refused it: {detail}; reinstall libibverbs and what it needs", path.display())]
    Refused {
        /// The file, or the name that was searched for.
        path: PathBuf,
        /// The loader's words.
        detail: String,
    },
    /// A shared library without a single function of libibverbs.
    #[error("{}: this library is not libibverbs: it has none of its functions", path.display())]
    Foreign {
        /// The file, or the name that was searched for.
        path: PathBuf,
    },
    /// A function is missing.
    #[error(
        "{}: libibverbs without {symbol}@{version}: {}",
        path.display(),
        since.map_or("it is older than 2008 or damaged, install rdma-core".into(),
            |since| format!("rdma-core {since} or newer has it"))
    )]
    MissingSymbol {
        /// The file, or the name that was searched for.
        path: PathBuf,
        /// The function.
        symbol: String,
        /// The version of it that is needed.
        version: &'static str,
        /// The release of rdma-core that brought it, for functions that only some methods need.
        since: Option<&'static str>,
    },
}

/// Every way in which a function of this crate can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library cannot be used, or lacks a function that was asked for.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// There is no device of that name.
    #[error("no RDMA device {name}; {}", alternatives(present, unusable))]
    NoDevice {
        /// The name that was asked for.
        name: String,
        /// Those that there are.
        present: Vec<String>,
        /// Those that there would be, if nothing were missing.
        unusable: Vec<UnusableDevice>,
    },
    /// The library, its provider or the kernel refused a call.
    #[error("{call} on {object}: {source}{advice}")]
    Call {
        /// The function of libibverbs.
        call: &'static str,
        /// The device, and what of it: a port, a queue pair.
        object: String,
        /// The system's answer.
        source: io::Error,
        /// What it commonly means and what to do, beginning with "; ". May be empty.
        advice: String,
    },
    /// Memory cannot be registered because this process may not lock so much.
    #[error("registering {bytes} bytes on {device}: {state}")]
    LockedMemory {
        /// The device.
        device: String,
        /// Bytes that were to be registered.
        bytes: usize,
        /// Limit and use.
        state: LockedMemory,
    },
    /// A queue pair is not in a state that allows the operation.
    #[error("{operation} on {object}: it is in state {state}, needed is {needed}")]
    State {
        /// What was tried.
        operation: &'static str,
        /// Which queue pair.
        object: String,
        /// Its state.
        state: State,
        /// The states that allow it.
        needed: &'static str,
    },
    /// An argument that no device would take.
    #[error("{what}")]
    Argument {
        /// What, and what would be right.
        what: String,
    },
    /// Some requests of a batch were not taken; those before were.
    #[error("{call} on {object}: request {} of {of} refused: {source}{advice}", accepted + 1)]
    Post {
        /// The function of libibverbs.
        call: &'static str,
        /// Which queue pair.
        object: String,
        /// Requests that were taken and will complete.
        accepted: usize,
        /// Requests of the batch.
        of: usize,
        /// The system's answer.
        source: io::Error,
        /// What it commonly means, beginning with "; ". May be empty.
        advice: String,
    },
}

impl Error {
    pub(crate) fn call(call: &'static str, object: impl Into<String>, source: io::Error) -> Error {
        let advice = advice(call, &source);
        Error::Call { call, object: object.into(), source, advice }
    }

    pub(crate) fn argument(what: impl Into<String>) -> Error {
        Error::Argument { what: what.into() }
    }

    /// The system's error number, where the system refused.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Call { source, .. } | Error::Post { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// The answer of a function that returns 0, a number of errno, or -1 with the number in errno.
pub(crate) fn checked(call: &'static str, object: impl Fn() -> String, code: i32) -> Result<()> {
    let source = match code {
        0 => return Ok(()),
        1.. => io::Error::from_raw_os_error(code),
        _ => io::Error::last_os_error(),
    };
    Err(Error::call(call, object(), source))
}

/// Which devices there are, or would be.
fn alternatives(present: &[String], unusable: &[UnusableDevice]) -> String {
    let mut words = match present {
        [] => "there is none".into(),
        present => format!("there are {}", present.join(", ")),
    };
    for device in unusable {
        words.push_str(&format!("; {device}"));
    }
    words
}

/// What an answer commonly means, beginning with "; ".
pub(crate) fn advice(call: &str, source: &io::Error) -> String {
    let Some(code) = source.raw_os_error() else { return String::new() };
    let words = match (call, code) {
        ("ibv_get_device_list", libc::ENOSYS) => {
            "the kernel has no RDMA (modules ib_core, ib_uverbs), or /sys is not mounted"
        }
        ("ibv_open_device", libc::EACCES | libc::EPERM) => {
            "give the user access to that file (it should have mode 0666; udev rules come with rdma-core); in a \
             container pass --device=/dev/infiniband"
        }
        ("ibv_open_device", libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "the device file is missing: load ib_uverbs; in a container pass --device=/dev/infiniband"
        }
        ("ibv_modify_qp", libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH) => {
            "the peer's address could not be resolved: is the destination GID on a network that this port's reaches, \
             and does a ping to it answer?"
        }
        ("ibv_modify_qp", libc::ENODATA) => {
            "the GID index is empty: its address has gone; look at the port's table again"
        }
        ("ibv_modify_qp", libc::EINVAL) => {
            "commonly a GID index that is empty by now or of another type than the peer's, a path MTU above the \
             port's, or a state that the device has left by itself"
        }
        ("ibv_modify_qp", libc::ENODEV | libc::ENETDOWN) => "the GID's network interface is gone or down",
        ("ibv_reg_mr" | "ibv_reg_mr_iova2", libc::EFAULT | libc::ENOMEM) => {
            "commonly the memory is not all mapped, is read-only where the device is to write, no memory is left to pin, \
             or a limit (ulimit -l) holds that this process seemed exempt from"
        }
        ("ibv_reg_dmabuf_mr", libc::EOPNOTSUPP) => "this device or kernel cannot register dma-bufs",
        ("ibv_create_cq" | "ibv_create_qp", libc::ENOMEM) => {
            "more entries than the device has left, or than this process may lock (ulimit -l)"
        }
        ("ibv_create_cq" | "ibv_create_qp", libc::EINVAL) => {
            "commonly more entries or segments than the device offers"
        }
        ("ibv_post_send" | "ibv_post_recv", libc::ENOMEM) => {
            "the queue is full: completions must be taken before more is posted"
        }
        ("ibv_post_send" | "ibv_post_recv", libc::EINVAL) => {
            "a request exceeds what the queue pair was made for, or its state does not allow it"
        }
        (_, libc::EIO | libc::ENODEV) => "the device was removed or has failed; look at the kernel's log",
        (_, libc::EMFILE) => "this process has too many open files (ulimit -n)",
        _ => return String::new(),
    };
    format!("; {words}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_names_call_object_answer_and_remedy() {
        let source = io::Error::from_raw_os_error(libc::EACCES);
        let error = Error::call("ibv_open_device", "rxe0 (/dev/infiniband/uverbs0)", source);
        let message = error.to_string();
        for part in ["ibv_open_device", "rxe0", "uverbs0", "Permission denied", "--device=/dev/infiniband"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn a_device_that_is_not_there_is_told_with_those_that_are() {
        let error = |present: &[&str]| {
            let present = present.iter().map(|&name| name.to_owned()).collect();
            Error::NoDevice { name: "rxe7".into(), present, unusable: vec![] }.to_string()
        };
        assert_eq!(error(&[]), "no RDMA device rxe7; there is none");
        assert_eq!(error(&["rxe0", "rxe1"]), "no RDMA device rxe7; there are rxe0, rxe1");
    }

    #[test]
    fn a_number_that_says_nothing_special_gets_no_advice() {
        let error = checked("ibv_query_port", || "rxe0 port 9".into(), libc::EINVAL).unwrap_err();
        assert_eq!(error.to_string(), "ibv_query_port on rxe0 port 9: Invalid argument (os error 22)");
        checked("ibv_query_port", String::new, 0).unwrap();
    }
}
