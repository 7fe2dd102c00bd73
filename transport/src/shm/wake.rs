//! Sleeping and waking without losing a wake-up.
//!
//! ```text
//! sleeper (arm)                          waker (flush)
//!   flag = 1                               publish lines, credit, counters
//!   HEAVY fence                            LIGHT fence
//!   look for news; news: flag = 0, stay    flag == 1 and swap(flag, 0) == 1: ring the doorbell
//!   sleep on the doorbell
//! ```
//!
//! One of the two must see the other's store. With a full fence on both sides that follows from the total order of
//! sequentially consistent fences. A waker passes here after every flush and a sleeper only after about a millisecond
//! without work, so where the kernel offers `membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)` the sleeper pays for both:
//! its HEAVY fence makes every CPU that runs a registered process pass a full barrier, and the waker's LIGHT fence only
//! has to keep the compiler from reordering. Both processes must take part: the waker has registered, and the sleeper
//! has said in `asymmetric` that it uses the call. Otherwise both fences are full ones.
//!
//! The swap makes sure that one sleep is ended by one ring, however often the peer flushes meanwhile. A waker that takes
//! the flag of a *later* sleep than the one it saw rings all the same; the sleeper then wakes early, which is harmless.
//! Every change of the flag is a swap, so that each side's change is ordered behind the one that it replaces: with plain
//! stores at the sleeper the model finds a waker that reads its own old zero.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::wire::Sleep;
use crate::sync::{Ordering, fence};

/// What a sleeping thread waits on: an eventfd that peers write to.
///
/// One thread that sleeps has one doorbell for all the links that it polls: [`Link::disarm`](crate::Link::disarm)
/// empties it, so two threads that sleep independently of each other need one each.
#[derive(Debug)]
pub struct Doorbell {
    descriptor: OwnedFd,
}

impl Doorbell {
    /// A new doorbell.
    ///
    /// # Errors
    /// Whatever `eventfd` answers: no descriptors left (`ulimit -n`), or no memory.
    pub fn new() -> io::Result<Doorbell> {
        Ok(Doorbell { descriptor: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
    }

    /// The other side of a descriptor that was passed by its owner.
    pub fn from_descriptor(descriptor: OwnedFd) -> Doorbell {
        Doorbell { descriptor }
    }

    /// A descriptor to be passed to a peer.
    ///
    /// # Errors
    /// No descriptors left (`ulimit -n`).
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Wakes the owner, or keeps it from falling asleep. Never blocks. Also what a control plane calls after it has
    /// changed something that a sleeping thread waits for, a mapped region for example.
    ///
    /// # Errors
    /// Only if the descriptor is no eventfd.
    pub fn ring(&self) -> io::Result<()> {
        match rustix::io::write(&self.descriptor, &1u64.to_ne_bytes()) {
            // A full counter is a rung bell.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Empties the bell; `true` if it had been rung.
    pub fn silence(&self) -> bool {
        rustix::io::read(&self.descriptor, &mut [0u8; 8]).is_ok()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Which fences this process uses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fences {
    /// Full ones.
    Symmetric,
    /// The kernel's barrier before sleeping, none after publishing.
    Asymmetric,
}

impl Fences {
    /// Registers the process for the kernel's barrier if there is one.
    #[cfg(not(loom))]
    pub(super) fn of_process() -> Fences {
        use std::sync::OnceLock;
        static FENCES: OnceLock<Fences> = OnceLock::new();
        *FENCES.get_or_init(|| match membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) {
            true => Fences::Asymmetric,
            false => Fences::Symmetric,
        })
    }
    /// The model knows no kernel.
    #[cfg(loom)]
    pub(super) fn of_process() -> Fences {
        Fences::Symmetric
    }
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes integers only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Says once, before the peer can see this end, which fence this end uses before it sleeps.
pub(super) fn introduce(own: &Sleep, fences: Fences) {
    own.asymmetric.store(u32::from(fences == Fences::Asymmetric), Ordering::Release);
}

/// Sets the flag; after this the sleeper looks for news once more.
pub(super) fn fall_asleep(own: &Sleep, fences: Fences) {
    own.flag.swap(1, Ordering::AcqRel);
    if fences == Fences::Asymmetric {
        membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED);
    }
    fence(Ordering::SeqCst);
}

/// Clears the flag.
pub(super) fn wake_up(own: &Sleep) {
    own.flag.swap(0, Ordering::AcqRel);
}

/// After something was published: whether the peer must be woken, which is then up to the caller alone.
#[inline]
pub(super) fn claim_sleeper(peer: &Sleep, fences: Fences) -> bool {
    // The capability is written once and before anything else of the peer, so a late read only means a full fence.
    if fences == Fences::Asymmetric && peer.asymmetric.load(Ordering::Relaxed) == 1 {
        std::sync::atomic::compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
    peer.flag.load(Ordering::Relaxed) == 1 && peer.flag.swap(0, Ordering::AcqRel) == 1
}
