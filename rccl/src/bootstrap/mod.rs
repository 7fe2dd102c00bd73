//! How the ranks of a job find and recognise each other.
//!
//! One process, the root, listens ([`rendezvous`]); every rank connects to it ([`connect`]), both prove that they
//! know the job's key ([`handshake`]), and the rank introduces itself ([`message::Joining`]). When all have arrived
//! each gets the layout, run-length coded ([`layout`]), and keeps its connection for the control plane
//! ([`crate::control`]). Nothing else is exchanged up front: what a rank needs to know of a peer it asks for when it
//! links to it, so the root's work grows with the ranks and not with their pairs.

pub(crate) mod connect;
pub(crate) mod frame;
pub(crate) mod group;
pub(crate) mod handshake;
pub(crate) mod host;
pub(crate) mod interface;
pub(crate) mod layout;
pub(crate) mod message;
pub(crate) mod processors;
pub(crate) mod rendezvous;
pub(crate) mod serving;
mod unique_id;

pub(crate) use connect::Meeting;
pub(crate) use handshake::Secret;
pub use handshake::WIRE_VERSION;
pub(crate) use unique_id::Listening;
pub use unique_id::UniqueId;
