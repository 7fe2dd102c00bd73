//! Notices that the process is a forked child, whose communicators belong to its parent.

use crate::error::{Error, Result};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

static FORKS: AtomicU32 = AtomicU32::new(0);
static HANDLER: Once = Once::new();

/// The process in which something was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generation {
    forks: u32,
    pid: u32,
}

impl Generation {
    /// This process.
    pub fn now() -> Generation {
        HANDLER.call_once(|| {
            // SAFETY: the handler only adds to an atomic, which is allowed in a forked child.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
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

extern "C" fn in_child() {
    FORKS.fetch_add(1, Relaxed);
}
