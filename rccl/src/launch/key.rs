//! The key where only an address is known.

use crate::config::Config;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fmt;

/// 128 bits that the ranks prove to one another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The bits.
    pub bytes: [u8; 16],
    /// Where they come from.
    pub origin: KeyOrigin,
}

/// How a key came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// `RCCL_KEY`.
    Variable,
    /// `RCCL_KEY_FILE`.
    File,
    /// Made from the job's name and address: separates jobs, keeps nobody out.
    Derived,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.origin)
    }
}

impl Key {
    /// The key of a job that meets at `host:port`. Rank 0 warns when it is a guessable one.
    pub(super) fn find(config: &Config, job: &str, host: &str, port: u16, rank: u32) -> Result<Key> {
        if let Some(secret) = config.key {
            return Ok(Key { bytes: secret.0, origin: KeyOrigin::Variable });
        }
        if let Some(path) = &config.key_file {
            let unusable = |cause: String| Error::InvalidSetting {
                name: "RCCL_KEY_FILE".into(),
                value: path.display().to_string(),
                expected: format!(
                    "a readable file of at least 16 secret bytes, equal on all hosts ({cause})"
                ),
            };
            let secret = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            if secret.len() < 16 {
                return Err(unusable(format!("it has {}", secret.len())));
            }
            return Ok(Key { bytes: digest(&[b"rccl key from a file", &secret]), origin: KeyOrigin::File });
        }
        if rank == 0 {
            tracing::warn!(
                "the key is derived from the job's name and {host}:{port}: this separates jobs but keeps nobody out; \
                 on a network with strangers set RCCL_KEY_FILE"
            );
        }
        let address = format!("{host}:{port}");
        let bytes = digest(&[b"rccl key from a name", job.as_bytes(), address.as_bytes()]);
        Ok(Key { bytes, origin: KeyOrigin::Derived })
    }
}

/// The first half of SHA-256 over the parts, each with its length in front so that they cannot flow into each other.
fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_separate_jobs_and_files_make_them_secret() {
        let config = Config::default();
        let key = |job, port| Key::find(&config, job, "node1", port, 1).unwrap().bytes;
        assert_eq!(key("a", 1), key("a", 1));
        assert_ne!(key("a", 1), key("b", 1));
        assert_ne!(key("a", 1), key("a", 2));

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "0123456789abcdef").unwrap();
        let config = Config { key_file: Some(path.clone()), ..Config::default() };
        let secret = Key::find(&config, "a", "node1", 1, 0).unwrap();
        assert_eq!(secret.origin, KeyOrigin::File);
        assert_eq!(secret, Key::find(&config, "b", "node2", 2, 1).unwrap());
        assert!(!format!("{secret:?}").contains(&secret.bytes[0].to_string()));
        std::fs::write(&path, "short").unwrap();
        assert!(Key::find(&config, "a", "node1", 1, 0).unwrap_err().to_string().contains("it has 5"));
    }
}
