//! Copies between two processes by `process_vm_readv` and `process_vm_writev`: for plain memory that no mapping joins.
//!
//! The kernel allows them to whoever may trace the other process: the same user, no other user or pid namespace in
//! between, no seccomp filter that forbids them, and under Yama's restricted mode only a declared tracer. None of this
//! can be told from outside, so a pair proves it at set-up: each end reads a nonce out of the other.

use std::io;

use crate::link::{LinkError, Result};

/// Copies by address that were proven to work, in both directions, for one pair of processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The peer's process id, as seen from here.
    pub pid: i32,
    /// Whether [`prove_copy`] succeeded at both ends. Both ends of a link must pass the same value.
    pub copy: bool,
}

/// Lets every process of the same user copy into and out of this one where Yama would restrict that to ancestors
/// (`kernel.yama.ptrace_scope = 1`). It is the same permission that a debugger needs: a host that restricts it on
/// purpose may prefer the staged path, which needs no permission. Without Yama it changes nothing.
///
/// # Errors
/// `EINVAL` where the kernel has no Yama; nothing needs to be done then.
pub fn allow_copies() -> io::Result<()> {
    // SAFETY: takes integers only.
    let answer = unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads the peer's nonce at `nonce_address` and compares it: proof that copies reach the process that is meant, and
/// not another one with the same number in another pid namespace.
///
/// # Errors
/// `PermissionDenied` (`EPERM`: another user or namespace, Yama, seccomp), `Unsupported` (`ENOSYS`), `ESRCH` (no such
/// process here), `EFAULT`, or `InvalidData` if the bytes are not the nonce, which means that `pid` is another process.
pub fn prove_copy(pid: i32, nonce_address: u64, expected: u64) -> io::Result<()> {
    let mut nonce = [0u8; 8];
    // SAFETY: `nonce` is valid for writes of its length.
    let read = unsafe { copy(libc::process_vm_readv, pid, nonce_address, nonce.as_mut_ptr(), nonce.len()) }?;
    if read == nonce.len() && u64::from_ne_bytes(nonce) == expected {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("process {pid} does not hold the nonce of this peer: it is another process of that number"),
    ))
}

/// # Safety
/// `to` is valid for writes of `len` bytes.
pub(super) unsafe fn read(pid: i32, address: u64, to: *mut u8, len: usize) -> Result<usize> {
    const DURING: &str = "copying out of the peer's memory (process_vm_readv)";
    // SAFETY: as the caller promises.
    let answer = unsafe { copy(libc::process_vm_readv, pid, address, to, len) };
    answer.map_err(|error| explain(error, DURING))
}

/// # Safety
/// `from` is valid for reads of `len` bytes.
pub(super) unsafe fn write(pid: i32, address: u64, from: *const u8, len: usize) -> Result<usize> {
    const DURING: &str = "copying into the peer's memory (process_vm_writev)";
    // SAFETY: as the caller promises; this call only reads from the local side.
    let answer = unsafe { copy(libc::process_vm_writev, pid, address, from.cast_mut(), len) };
    answer.map_err(|error| explain(error, DURING))
}

fn explain(error: io::Error, during: &'static str) -> LinkError {
    match error.raw_os_error() {
        // The process is gone, or so far gone that its memory is.
        Some(libc::ESRCH) => LinkError::Closed { during },
        Some(libc::EFAULT) => LinkError::Io {
            during,
            source: io::Error::new(
                error.kind(),
                "bad address (EFAULT): the memory that the peer granted is not mapped there any more, or the buffer \
                 here is not",
            ),
        },
        _ => LinkError::Io { during, source: error },
    }
}

type ProcessVm = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> isize;

/// # Safety
/// `local` is valid for `len` bytes, for writes if `call` reads from the peer.
unsafe fn copy(call: ProcessVm, pid: i32, address: u64, local: *mut u8, len: usize) -> io::Result<usize> {
    if len == 0 {
        return Ok(0);
    }
    let here = libc::iovec { iov_base: local.cast(), iov_len: len };
    let there = libc::iovec { iov_base: address as usize as *mut libc::c_void, iov_len: len };
    // SAFETY: both vectors hold one entry; the local one is valid as the caller promises, the kernel checks the other.
    let moved = unsafe { call(pid, &here, 1, &there, 1, 0) };
    match usize::try_from(moved) {
        Ok(0) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Ok(moved) => Ok(moved),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
