//! Links between two ranks under one contract ([`Link`]): shared memory, TCP, RDMA verbs, and in-process loopback.
//!
//! A transport moves bytes and announces where bytes are; it knows nothing of collectives, types or operators.
//! Connections are made and authenticated elsewhere: a link is built from connected sockets or from memory that both
//! ends have mapped.

#[cfg(all(not(loom), any(test, feature = "conformance")))]
pub mod conformance;
pub mod link;
#[cfg(not(loom))]
pub mod loopback;
#[cfg_attr(loom, allow(dead_code, unused_imports))]
pub mod memory;
#[cfg(not(loom))]
pub mod rc;
#[cfg_attr(loom, allow(dead_code))]
pub mod shm;
mod sync;
mod tcp;

pub use link::{
    Incoming, Kind, Limits, Link, LinkError, MessageId, Place, Result, Sink, Source, Tag, WINDOW,
};
pub use tcp::{Options as TcpOptions, TcpLink};
