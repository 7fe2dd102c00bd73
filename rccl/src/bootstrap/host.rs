//! Who this process is: its host's identity and name.
//!
//! Two processes are taken for neighbours when their hosts have the same [`Identity::key`]: the kernel's boot id, or
//! the override. A guess only: it is proven by opening shared memory when they link, and containers that share a
//! kernel but no file system fall back to TCP with the reason kept.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A host as its processes describe it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Equal on all processes of one host: from the boot id, or from the override.
    pub key: u64,
    /// The host's name, for messages.
    pub name: String,
    /// Equal within one network namespace of one kernel, whatever `key` says: only there 127.0.0.1 is the same place.
    /// 0 when it cannot be told.
    pub network: u64,
}

impl Identity {
    /// The identity of this process's host; `chosen` overrides the boot id (`RCCL_HOSTID`).
    pub(crate) fn here(chosen: Option<&str>) -> Identity {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let key = match (chosen, &boot) {
            (Some(id), _) => digest("chosen", id),
            (None, Ok(boot)) => digest("boot", boot.trim()),
            // Without /proc the name is what is left; shared memory proves or refutes it.
            (None, Err(_)) => digest("name", &name),
        };
        // Every kernel gives its first namespace the same inode, so that alone says nothing.
        let network = match (&boot, namespace("net")) {
            (Ok(boot), inode) if inode != 0 => digest("network", &format!("{} {inode}", boot.trim())),
            _ => 0,
        };
        Identity { key, name, network }
    }
}

/// Inode of one of this process's namespaces, 0 when it cannot be told.
pub(crate) fn namespace(kind: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |entry| entry.ino())
}

fn digest(kind: &str, text: &str) -> u64 {
    let hash = Sha256::new().chain_update(kind).chain_update([0]).chain_update(text).finalize();
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_makes_another_host() {
        let real = Identity::here(None);
        assert_eq!(real, Identity::here(None));
        assert_ne!(real.key, Identity::here(Some("a")).key);
        assert_ne!(Identity::here(Some("b")).key, Identity::here(Some("a")).key);
        assert_eq!(Identity::here(Some("b")).network, real.network);
    }
}
