//! How much memory this process may lock.
//!
//! Registered memory is locked, and counts against RLIMIT_MEMLOCK unless the process has CAP_IPC_LOCK
//! (setrlimit(2); `ib_umem_get` in the kernel compares the limit with the pages that are already pinned, `VmPin` in
//! proc(5)). What the kernel answers when it is exceeded is "cannot allocate memory".

use std::fmt;
use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::error::Error;

const CAP_IPC_LOCK: u32 = 14;

/// The limit on locked memory and what is used of it, when it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockedMemory {
    /// Bytes that may be locked; `None` without a limit.
    pub limit: Option<u64>,
    /// Bytes that are pinned for devices already.
    pub pinned: u64,
    /// Whether the calling thread may exceed the limit (CAP_IPC_LOCK). In a container the kernel may not honour it.
    pub exempt: bool,
}

impl LockedMemory {
    /// Asks the system. Takes some microseconds where there is a limit.
    pub fn now() -> LockedMemory {
        match getrlimit(Resource::Memlock).current {
            None => LockedMemory { limit: None, pinned: 0, exempt: false },
            Some(limit) => {
                let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
                let (pinned, exempt) = read(&status);
                LockedMemory { limit: Some(limit), pinned, exempt }
            }
        }
    }

    /// Whether nothing stands against locking any amount.
    pub fn is_unlimited(&self) -> bool {
        self.limit.is_none() || self.exempt
    }

    /// Whether so many more bytes, in whole pages, may be locked.
    pub fn allows(&self, bytes: u64) -> bool {
        self.is_unlimited() || self.limit.is_some_and(|limit| self.pinned.saturating_add(bytes) <= limit)
    }

    pub(crate) fn check(self, device: &str, address: usize, bytes: usize) -> Result<(), Error> {
        let page = rustix::param::page_size();
        let first = address / page * page;
        let pages = address.saturating_add(bytes).div_ceil(page).saturating_mul(page) - first;
        if self.allows(pages as u64) {
            return Ok(());
        }
        Err(Error::LockedMemory { device: device.into(), bytes, state: self })
    }
}

/// `this process may lock 64 KiB and has locked 0 bytes: raise …`
impl fmt::Display for LockedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            None => f.write_str("this process may lock any amount of memory"),
            Some(_) if self.exempt => f.write_str("this process is exempt from the limit on locked memory"),
            Some(limit) => write!(
                f,
                "this process may lock {} of memory and has pinned {} already: `ulimit -l unlimited`, \
                 a line with memlock in /etc/security/limits.conf, LimitMEMLOCK=infinity for a service, \
                 --ulimit memlock=-1 for docker",
                Size(limit),
                Size(self.pinned)
            ),
        }
    }
}

/// `64 KiB`; exact, in the largest unit that divides it.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0 bytes"),
            bytes if bytes % (1 << 30) == 0 => write!(f, "{} GiB", bytes >> 30),
            bytes if bytes % (1 << 20) == 0 => write!(f, "{} MiB", bytes >> 20),
            bytes if bytes % (1 << 10) == 0 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// Pinned bytes of the process, and whether the thread has CAP_IPC_LOCK, of /proc/thread-self/status (proc(5)).
fn read(status: &str) -> (u64, bool) {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let pinned = field("VmPin:")
        .and_then(|text| text.strip_suffix("kB")?.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024));
    let capabilities = field("CapEff:").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
    (pinned, capabilities >> CAP_IPC_LOCK & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_pinned_memory_and_capability() {
        let status = "Name:\trccl\nVmLck:\t       8 kB\nVmPin:\t     132 kB\nCapEff:\t0000000000004000\n";
        assert_eq!(read(status), (132 << 10, true));
        assert_eq!(read("VmPin:\t   0 kB\nCapEff:\t000001ffffffbfff\n"), (0, false));
        assert_eq!(read(""), (0, false));
    }

    #[test]
    fn memory_beyond_the_limit_is_refused_with_the_remedy() {
        let tight = LockedMemory { limit: Some(64 << 10), pinned: 32 << 10, exempt: false };
        assert!(tight.allows(32 << 10) && !tight.allows((32 << 10) + 1));
        let message = tight.clone().check("rxe0", 0, 148 << 20).unwrap_err().to_string();
        for part in ["155189248 bytes", "rxe0", "64 KiB", "32 KiB", "ulimit -l unlimited", "memlock=-1"] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
        LockedMemory { exempt: true, ..tight.clone() }.check("rxe0", 0, 148 << 20).unwrap();
        LockedMemory { limit: None, ..tight }.check("rxe0", 0, usize::MAX).unwrap();
    }

    #[test]
    fn a_piece_of_a_page_counts_as_a_page() {
        let page = rustix::param::page_size();
        let two = LockedMemory { limit: Some(2 * page as u64), pinned: 0, exempt: false };
        two.clone().check("rxe0", page - 1, 2).unwrap();
        two.clone().check("rxe0", page, 2 * page).unwrap();
        assert!(two.check("rxe0", page - 1, page + 2).is_err());
    }
}
