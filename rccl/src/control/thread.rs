//! The process's one control thread.

use crate::error::{Error, Result};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;

static RUNNING: Mutex<Option<(u32, Handle)>> = Mutex::new(None);

/// The runtime of the control thread "rccl-control", which is started at the first use and lives as long as the
/// process. It serves all communicators, so nothing on it may block. After a `fork` the child gets its own.
///
/// # Errors
/// [`Error::System`] when the thread cannot be started.
pub(crate) fn control_thread() -> Result<Handle> {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if let Some((owner, handle)) = &*running
        && *owner == process
    {
        return Ok(handle.clone());
    }
    let refused = |source: std::io::Error| Error::System {
        during: "starting the control thread".into(),
        source: Arc::new(source),
        hint: "look at the limits of threads and open files (`ulimit -u`, `ulimit -n`)".into(),
    };
    descriptors_left().map_err(refused)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Only name look-ups use these.
        .max_blocking_threads(2)
        .thread_name("rccl-names")
        .build()
        .map_err(refused)?;
    let handle = runtime.handle().clone();
    let blocked = SignalsBlocked::new();
    let spawned =
        std::thread::Builder::new().name("rccl-control".into()).stack_size(512 << 10).spawn(move || {
            runtime.block_on(std::future::pending::<()>());
        });
    drop(blocked);
    spawned.map_err(refused)?;
    *running = Some((process, handle.clone()));
    Ok(handle)
}

/// Whether the runtime's descriptors can be had. Where another crate of the program uses tokio's signals, the runtime
/// makes a pair of sockets for them and panics if it cannot.
fn descriptors_left() -> std::io::Result<()> {
    const NEEDED: usize = 8;
    let taken: std::io::Result<Vec<std::fs::File>> =
        (0..NEEDED).map(|_| std::fs::File::open("/dev/null")).collect();
    taken.map(drop)
}

/// Blocks all signals but those of faults in this thread, and so in those that it starts, until dropped: for threads of the
/// library and of bindings to it. The program's handlers must not run on them, and a peer's death must not raise SIGPIPE.
#[derive(Debug)]
pub struct SignalsBlocked {
    before: libc::sigset_t,
    /// It is of this thread.
    _stays: PhantomData<*const ()>,
}

impl Default for SignalsBlocked {
    fn default() -> SignalsBlocked {
        SignalsBlocked::new()
    }
}

impl SignalsBlocked {
    /// Blocks them from now on.
    #[must_use]
    pub fn new() -> SignalsBlocked {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the function initialises the whole set.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: initialised just now.
        let mut all = unsafe { all.assume_init() };
        // A fault of this thread must still end the process in the usual way.
        for fault in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT, libc::SIGTRAP] {
            // SAFETY: the set is initialised and the number is a signal.
            unsafe { libc::sigdelset(&raw mut all, fault) };
        }
        let mut before = all;
        // SAFETY: both sets are initialised and live across the call.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before) };
        SignalsBlocked { before, _stays: PhantomData }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: the set is the mask that this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}
