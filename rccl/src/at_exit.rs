//! What must be said before this process ends.
//!
//! The other ranks are told why this one has given up, though the program may end at once then. And the launcher: a process
//! that has greeted it and ends without a goodbye counts as crashed, and the whole job is killed (seen with mpirun and with
//! mpiexec.hydra, whose other ranks then die by signal 9). But after the goodbye no second meeting is possible. So it is said
//! when the process exits, and not when the first meeting is over.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

type Farewell = Box<dyn FnOnce() + Send>;

struct Pending {
    /// A forked child must not say its parent's goodbye.
    process: u32,
    farewell: Farewell,
}

static PENDING: Mutex<Vec<Pending>> = Mutex::new(Vec::new());

/// Runs `farewell` when this process exits by returning from `main` or by `exit`. It must end by itself, soon, and not
/// log: the subscriber may be gone.
pub(crate) fn at_exit(farewell: Farewell) {
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    if pending.is_empty() {
        // SAFETY: the function has the C calling convention, catches panics, and lives as long as the process does,
        // because a program or library with Rust statics is never unloaded before its exit handlers have run.
        let refused = unsafe { libc::atexit(say_goodbye) };
        // The handler's table is full: the others will call our exit a crash, and there is nothing to do about it.
        if refused != 0 {
            return;
        }
    }
    pending.push(Pending { process: std::process::id(), farewell });
}

extern "C" fn say_goodbye() {
    let pending = std::mem::take(&mut *PENDING.lock().unwrap_or_else(PoisonError::into_inner));
    for Pending { process, farewell } in pending {
        if process == std::process::id() {
            // A panic must not cross the C library's frames.
            let _ = catch_unwind(AssertUnwindSafe(farewell));
        }
    }
}
