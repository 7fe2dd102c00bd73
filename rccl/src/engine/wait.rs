//! How a call waits: it spins, then yields, then sleeps, and it notices failures, stalls and deadlines meanwhile.

use rccl_transport::Link;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Polls without progress between two looks at the clock and at the control plane.
const LOOK: u32 = 64;
/// Without progress for this long a call sleeps instead of polling. A wake-up costs tens of microseconds, so a sleep
/// must not begin before the wait is already far longer than that.
const SLEEP_AFTER: Duration = Duration::from_millis(1);
/// Longest sleep, so that the clock and the control plane are seen even if nothing rings.
const NAP: Duration = Duration::from_millis(20);
/// Without progress for this long the other ranks are asked what they are doing.
pub(crate) const STALL: Duration = Duration::from_millis(50);

/// What a waiting call should do next.
pub(crate) enum Next {
    /// Poll again.
    Poll,
    /// Look at the control plane and the clock, then poll again; the time since the last progress is given.
    Look(Duration),
    /// As [`Next::Look`], then sleep.
    Sleep(Duration),
}

/// The patience of one call.
pub(crate) struct Patience {
    idle: u32,
    since: Option<Instant>,
    yields: bool,
}

impl Patience {
    /// `yields`: more ranks than processors share this host, so a spinning rank would hold up the one it waits for
    /// (4 ranks on 2 cores at 8 B: yield at once 2.5 us, 100 pauses first 5.8 us).
    pub fn new(yields: bool) -> Patience {
        Patience { idle: 0, since: None, yields }
    }

    /// There was progress.
    #[inline]
    pub fn reset(&mut self) {
        self.idle = 0;
        self.since = None;
    }

    /// There was none.
    #[inline]
    pub fn idle(&mut self) -> Next {
        self.idle += 1;
        if self.yields {
            rustix::thread::sched_yield();
        } else {
            std::hint::spin_loop();
        }
        if !self.idle.is_multiple_of(LOOK) {
            return Next::Poll;
        }
        let now = Instant::now();
        let waited = now.duration_since(*self.since.get_or_insert(now));
        if waited < SLEEP_AFTER {
            // Even where every rank has a processor of its own, something else may want this one.
            if waited > SLEEP_AFTER / 4 {
                rustix::thread::sched_yield();
            }
            return Next::Look(waited);
        }
        // Every look from now on sleeps first.
        self.idle = LOOK - 1;
        Next::Sleep(waited)
    }
}

/// The descriptors of a sleep; kept so that sleeping does not allocate.
#[derive(Default)]
pub(crate) struct Sleeper {
    fds: Vec<libc::pollfd>,
}

impl Sleeper {
    /// Makes room for the descriptors of `links` links, so that the first sleep does not allocate either.
    pub fn reserve(&mut self, links: usize) {
        const DESCRIPTORS: usize = 8;
        self.fds.reserve(links * DESCRIPTORS + 1);
    }

    /// Sleeps until a link of `peers` or `bell` is ready, or a nap has passed.
    pub fn sleep(&mut self, links: &mut [Option<Box<dyn Link>>], peers: &[u32], bell: BorrowedFd<'_>) {
        self.begin();
        if self.arm(links, peers, bell) {
            self.nap(None);
        }
        Sleeper::disarm(links, peers);
    }

    /// Forgets the descriptors of the sleep before.
    pub fn begin(&mut self) {
        self.fds.clear();
    }

    /// Adds what some links wait for. `false`: something has arrived, so there is no time to sleep.
    pub fn arm(&mut self, links: &mut [Option<Box<dyn Link>>], peers: &[u32], bell: BorrowedFd<'_>) -> bool {
        for &peer in peers {
            if links[peer as usize].as_mut().is_some_and(|link| !link.arm()) {
                return false;
            }
        }
        self.add(bell, false);
        for link in peers.iter().filter_map(|&peer| links[peer as usize].as_ref()) {
            link.watch(&mut |fd, writable| self.add(fd, writable));
        }
        true
    }

    /// The links' sleep is over.
    pub fn disarm(links: &mut [Option<Box<dyn Link>>], peers: &[u32]) {
        for &peer in peers {
            if let Some(link) = &mut links[peer as usize] {
                link.disarm();
            }
        }
    }

    /// Adds another descriptor.
    pub fn add(&mut self, fd: BorrowedFd<'_>, writable: bool) {
        let events = if writable { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
        let fd = fd.as_raw_fd();
        // All links in shared memory watch the one bell.
        if !self.fds.iter().any(|known| known.fd == fd) {
            self.fds.push(libc::pollfd { fd, events, revents: 0 });
        }
    }

    /// Sleeps until something is ready, a nap has passed, or the deadline has come.
    pub fn nap(&mut self, deadline: Option<Instant>) {
        let left =
            deadline.map_or(NAP, |deadline| deadline.saturating_duration_since(Instant::now()).min(NAP));
        let count = self.fds.len() as libc::nfds_t;
        // SAFETY: the list holds `count` initialised entries. An error (a signal) is a wake-up like any other.
        unsafe { libc::poll(self.fds.as_mut_ptr(), count, left.as_millis() as libc::c_int) };
    }
}
