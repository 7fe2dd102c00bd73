//! Why a link over verbs cannot be made.

use crate::memory::MemoryError;

/// Why rails cannot be opened, memory not be registered, or queue pairs not be made or connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RcError {
    /// The library, a device or the kernel refused; says which, what it answered, and what to do.
    #[error(transparent)]
    Verbs(#[from] rccl_verbs::Error),
    /// A rail cannot be used as it is.
    #[error("{device} port {port}: {what}")]
    Rail {
        /// The device.
        device: String,
        /// Its port.
        port: u8,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A setting that cannot be.
    #[error("a link over verbs: {what}")]
    Options {
        /// Which, and what it may be.
        what: String,
    },
    /// The peer's greeting cannot be used.
    #[error("the peer's greeting for a link over verbs: {what}")]
    Greeting {
        /// What was seen, and what belongs there.
        what: String,
    },
    /// No memory.
    #[error("memory for a link over verbs: {0}")]
    Memory(#[from] MemoryError),
    /// The system refused something on the side socket.
    #[error("{during}: {source}")]
    Io {
        /// What this end was doing.
        during: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}
