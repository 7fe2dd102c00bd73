//! Notices that the process is a forked child, whose communicators belong to its parent.
//!
//! A child inherits all descriptors. If it kept our sockets and RDMA devices open, the death of its parent would close
//! none of them, and the other ranks would wait as long as the child lives (worker processes that load data live long).
//! So a child lets go of them at once. What it has instead is the null device under the same numbers: the objects that own the
//! descriptors exist in the child too, and must neither read what is meant for the parent nor, when they are dropped,
//! close what has since got their number.

use crate::error::{Error, Result};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

static FORKS: AtomicU32 = AtomicU32::new(0);
/// The null device; set when the handler is installed.
static NOTHING: OnceLock<Option<OwnedFd>> = OnceLock::new();

const CHUNK: usize = 1024;
/// The inode of the last socket or device of ours under each descriptor number, 0 for none.
///
/// Nobody takes an entry out: a number counts only while what is behind it still has that inode.
static SOCKETS: [OnceLock<Box<[AtomicU64; CHUNK]>>; 1024] = [const { OnceLock::new() }; 1024];

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generation {
    forks: u32,
    pid: u32,
}

impl Generation {
    /// This process.
    pub fn now() -> Generation {
        install();
        Generation { forks: FORKS.load(Relaxed), pid: std::process::id() }
    }

    /// Fails in a child of that process. One load.
    #[inline]
    pub fn check(self) -> Result<()> {
        if self.forks == FORKS.load(Relaxed) {
            return Ok(());
        }
        Err(Error::Forked { parent: self.pid, child: std::process::id() })
    }
}

/// Has this socket, or open device, closed in children that are forked from now on.
pub(crate) fn close_in_children(descriptor: impl AsFd) {
    install();
    let number = descriptor.as_fd().as_raw_fd();
    let Some(inode) = inode(number) else { return };
    if let Some(chunk) = SOCKETS.get(number as usize / CHUNK) {
        let chunk = chunk.get_or_init(|| Box::new([const { AtomicU64::new(0) }; CHUNK]));
        chunk[number as usize % CHUNK].store(inode, Relaxed);
    }
}

fn install() {
    NOTHING.get_or_init(|| {
        // SAFETY: the handler does only what is allowed in the child of a process with several threads.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        Some(std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").ok()?.into())
    });
}

/// Loads, fstat and dup3 only: other threads of the parent may have held any lock.
extern "C" fn in_child() {
    FORKS.fetch_add(1, Relaxed);
    let Some(Some(nothing)) = NOTHING.get() else { return };
    for (i, chunk) in SOCKETS.iter().enumerate() {
        let Some(chunk) = chunk.get() else { continue };
        for (j, known) in chunk.iter().enumerate() {
            let number = (i * CHUNK + j) as RawFd;
            let known = known.swap(0, Relaxed);
            if known != 0 && inode(number) == Some(known) {
                // SAFETY: takes integers only. The number is one of ours, as its inode shows, and stays taken.
                unsafe { libc::dup3(nothing.as_raw_fd(), number, libc::O_CLOEXEC) };
            }
        }
    }
}

/// The inode of the socket or device under this number; `None` if there is something else, or nothing.
fn inode(number: RawFd) -> Option<u64> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer is valid for writes of the structure; a wrong number is an error.
    if unsafe { libc::fstat(number, status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: filled in, as the call succeeded.
    let status = unsafe { status.assume_init() };
    let ours = matches!(status.st_mode & libc::S_IFMT, libc::S_IFSOCK | libc::S_IFCHR);
    // An event descriptor of a device has the inode of all anonymous files, so it stays open.
    ours.then_some(status.st_ino)
}
