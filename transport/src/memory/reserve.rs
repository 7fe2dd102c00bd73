//! Reserving the pages of shared memory before anyone uses them.
//!
//! Shared memory whose pages cannot be had kills the process at the first access (SIGBUS), or lets the kernel kill some
//! process of the container. So pages are reserved when the memory is made, and a request that cannot be met is an
//! error that says what was needed and what stood against it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::process::{Resource, getrlimit};

/// Requests below this are not compared with the free memory of the machine first.
const SMALL: usize = 16 << 20;

/// Why memory could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system refused, or would have had to kill a process to comply.
    #[error("{doing} {need} bytes of shared memory: {source}; limits: {limits}")]
    Refused {
        /// What was done: reserving, mapping.
        doing: &'static str,
        /// Bytes asked for.
        need: usize,
        /// The limits of this process that such a request runs into, and what is left.
        limits: String,
        /// The system's answer.
        source: io::Error,
    },
    /// All 65,534 region numbers are in use by other size classes.
    #[error(
        "registering {need} bytes: all 65534 registered regions of this process are in use or kept for other sizes; \
         allocate fewer, larger buffers"
    )]
    Exhausted {
        /// Bytes asked for.
        need: usize,
    },
    /// Regions are numbered by their owner; this one was announced with a size that cannot be.
    #[error("region {region} of a peer: {what}")]
    BadRegion {
        /// The number.
        region: u16,
        /// What is wrong with it.
        what: String,
    },
}

impl MemoryError {
    pub(super) fn refused(doing: &'static str, need: usize, source: io::Error) -> MemoryError {
        MemoryError::Refused { doing, need, limits: limits(), source }
    }
}

/// A memfd of `len` bytes, all of them reserved. It can still be sealed.
pub(crate) fn reserved_memfd(name: &str, len: usize) -> Result<OwnedFd, MemoryError> {
    let refused = |source: io::Error| MemoryError::refused("reserving", len, source);
    if len >= SMALL
        && let Some(free) = free_memory()
        && len as u64 > free
    {
        return Err(refused(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("only {free} bytes are free, and taking more would have the kernel end a process"),
        )));
    }
    let descriptor = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(|error| refused(error.into()))?;
    // Checked first because growing a file beyond RLIMIT_FSIZE is answered by a signal that ends the process.
    if let Some(limit) = getrlimit(Resource::Fsize).current
        && len as u64 > limit
    {
        return Err(refused(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "the limit on file sizes is {limit} bytes (ulimit -f), which holds for shared memory too"
            ),
        )));
    }
    ftruncate(&descriptor, len as u64).map_err(|error| refused(error.into()))?;
    loop {
        match fallocate(&descriptor, FallocateFlags::empty(), 0, len as u64) {
            Ok(()) => return Ok(descriptor),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(refused(error.into())),
        }
    }
}

/// Bytes that can be had without anyone being killed: the least of what the machine and this control group have.
fn free_memory() -> Option<u64> {
    [machine_free(), group_free().map(|(_, free)| free)].into_iter().flatten().min()
}

fn machine_free() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10)
}

/// Limit of this process's control group, and what is left of it (version 2; version 1 as containers show it). Only
/// the group's own directory is asked: containers see it as the root. `None` without a limit.
fn group_free() -> Option<(u64, u64)> {
    // Version 1 says "no limit" by the largest number of whole pages.
    const NO_LIMIT: u64 = i64::MAX as u64 & !0xffff;
    let read = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = match read("/sys/fs/cgroup/memory.max") {
        Some(limit) => (limit, read("/sys/fs/cgroup/memory.current")?),
        None => (
            read("/sys/fs/cgroup/memory/memory.limit_in_bytes")?,
            read("/sys/fs/cgroup/memory/memory.usage_in_bytes")?,
        ),
    };
    (limit < NO_LIMIT).then(|| (limit, limit.saturating_sub(used)))
}

fn limits() -> String {
    let mut words = Vec::new();
    if let Some(free) = machine_free() {
        words.push(format!("{free} bytes of memory are available on this host"));
    }
    if let Some((limit, free)) = group_free() {
        words.push(format!("the control group (docker: --memory) allows {limit}, {free} are left"));
    }
    for (resource, word) in [
        (Resource::As, "address space (ulimit -v)"),
        (Resource::Fsize, "file size (ulimit -f)"),
        (Resource::Nofile, "open files (ulimit -n)"),
    ] {
        if let Some(limit) = getrlimit(resource).current {
            words.push(format!("{word} {limit}"));
        }
    }
    words.join(", ")
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_request_beyond_the_machine_names_need_and_what_is_free() {
        let error = reserved_memfd("test", 1 << 46).unwrap_err().to_string();
        assert!(error.contains(&(1u64 << 46).to_string()) && error.contains("bytes are free"), "{error}");
    }

    #[test]
    fn pages_are_really_reserved() {
        let descriptor = reserved_memfd("test", 1 << 20).unwrap();
        assert_eq!(rustix::fs::fstat(&descriptor).unwrap().st_blocks * 512, 1 << 20);
    }
}
