//! RDMA verbs: devices, registered memory and reliable-connected queue pairs, through libibverbs.
//!
//! The library is opened at run time ([`Library::open`]). So this crate builds where there is neither header nor
//! library, one program runs with and without RDMA, and a missing library or device is an error with a reason and a
//! remedy, not a failure to start. No environment variable is read: who has settings passes them.
//!
//! # Map
//!
//! | | |
//! |---|---|
//! | [`Library`] | the open library; [`fork`](Library::prepare_for_fork) support; which [`Device`]s there are, and which [`UnusableDevice`]s |
//! | [`Context`] | an open device: [`DeviceAttributes`], [`Port`]s, [`GidEntry`]s, and [`AsyncEvent`]s by a descriptor |
//! | [`ProtectionDomain`] | what belongs together |
//! | [`MemoryRegion`] | memory that the device may reach: [`Segment`]s for requests, [`RemoteMemory`] for peers |
//! | [`LockedMemory`] | the limit that registration runs into first |
//! | [`CompletionQueue`] | polled for [`Completion`]s; a [`CompletionChannel`] wakes who sleeps |
//! | [`QueuePair`] | one end of a connection: its [`State`], a [`Connection`] to bring it up, batches to post |
//!
//! ```text
//! Library ◀─ Device
//!    ▲
//! Context ◀───────────────── CompletionChannel ◀─ CompletionQueue
//!    ▲                                                  ▲ ▲
//! ProtectionDomain ◀─ MemoryRegion                      │ │
//!    ▲                                                  │ │
//!    └───────────────────────────────────── QueuePair ──┴─┘
//! ```
//!
//! An arrow says "holds": an object keeps alive what it was made from, so they can be dropped in any order. All are
//! `Send` and `Sync`: verbs lock by themselves.
//!
//! # What the types promise, and what they do not
//!
//! No call reaches an object that was destroyed, and no transfer memory that was freed: a region is taken from the
//! device before its memory goes. That is why posting is safe while registering memory of the caller's is not
//! ([`ProtectionDomain::register`]): who registers promises that device and peers may change the bytes at any time.
//! When they do is a matter of protocol: a receive, or a write with an immediate, is in memory once its completion was
//! taken.
//!
//! # A connection within one process
//!
//! ```no_run
//! use rccl_verbs::{Access, Capacity, Completion, Connection, Data, Library, Operation, Psn, ReceiveBatch, SendBatch,
//!     SendRequest};
//!
//! # fn main() -> Result<(), rccl_verbs::Error> {
//! let context = Library::open(None)?.device("rxe0")?.open()?;
//! let (port, gid) = (context.port(1)?, &context.gids(1)?[0]);
//! let domain = context.protection_domain()?;
//! let queue = context.completion_queue(16)?;
//! let capacity = Capacity { sends: 8, receives: 8, send_segments: 1, receive_segments: 1, inline_bytes: 64 };
//! let pair = [domain.queue_pair(&queue, &queue, capacity)?, domain.queue_pair(&queue, &queue, capacity)?];
//! for (own, peer) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
//!     own.initialize(1, 0, Access::REMOTE_WRITE)?;
//!     let psn = Psn::new(0);
//!     let connection = Connection::new(gid.index as u8, gid.gid, port.active_mtu, peer.number(), psn, psn);
//!     own.ready_to_receive(&connection)?;
//!     own.ready_to_send(&connection)?;
//! }
//! let memory = domain.allocate(4096, Access::REMOTE_WRITE)?;
//! let mut receives = ReceiveBatch::default();
//! receives.push(1, &[]);
//! pair[1].post_receives(&mut receives)?;
//! let mut sends = SendBatch::default();
//! sends.push(&SendRequest {
//!     id: 2,
//!     operation: Operation::WriteWithImmediate(memory.remote(0), 7),
//!     data: Data::Inline(b"hello"),
//!     signalled: true,
//!     solicited: false,
//! });
//! pair[0].post_sends(&mut sends)?;
//! let mut completions = [Completion::default(); 2];
//! while queue.poll(&mut completions)? == 0 {}
//! # Ok(())
//! # }
//! ```

mod completion;
mod context;
mod device;
mod domain;
mod error;
mod event;
mod gid;
mod library;
mod memlock;
mod port;
mod queue_pair;
mod region;
mod sys;
mod unusable;

pub use completion::{Completion, CompletionChannel, CompletionQueue, Kind, Status, Token};
pub use context::{Context, DeviceAttributes};
pub use device::{Device, Guid, NodeType, Transport};
pub use domain::ProtectionDomain;
pub use error::{Error, LibraryError, Result};
pub use event::{AsyncEvent, PortEvent, QueuePairEvent};
pub use gid::{Gid, GidEntry, GidType};
pub use library::{ForkSupport, Library};
pub use memlock::LockedMemory;
pub use port::{LinkLayer, Mtu, Port, PortState};
pub use queue_pair::{
    AckTimeout, Capacity, Connection, Data, Ece, Operation, Psn, QpNumber, QueuePair, ReceiveBatch,
    SendBatch, SendRequest, State,
};
pub use region::{Access, LocalKey, MemoryRegion, RemoteKey, RemoteMemory, Segment};
pub use unusable::{Missing, UnusableDevice};
