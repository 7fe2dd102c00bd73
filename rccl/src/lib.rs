//! rccl: collective communication between processes and hosts.
//!
//! A [`Communicator`] joins the processes of a job; its methods are the collectives, and messages between two ranks.
//!
//! ```no_run
//! use rccl::{Communicator, ReduceOp};
//!
//! let comm = Communicator::from_env()?; // mpirun, srun, torchrun, `rccl run`, RANK and WORLD_SIZE
//! let mut gradients = comm.alloc::<f32>(1 << 20)?; // memory that ranks of one host map; any slice will do
//! comm.all_reduce(&mut gradients, ReduceOp::Avg)?;
//! comm.finish()?;
//! # Ok::<(), rccl::Error>(())
//! ```
//!
//! - Blocking calls: the methods of [`Communicator`]. Each has a deadline and fails on all ranks with the first cause.
//! - Calls that do not block: `start_*`, which own their memory until their [`Work`] gives it back; and
//!   [`Communicator::scope`], in which calls borrow it.
//! - Several calls as one: [`group()`]; an order of calls across communicators: [`Stream`].
//! - Into another rank's memory: [`Communicator::put_signal`].
//! - Some of the ranks: [`Communicator::split`], [`Communicator::duplicate`], [`Communicator::shrink`].
//! - Settings: [`Config`], or `RCCL_X` in the environment.

mod at_exit;
mod background;
mod bootstrap;
mod buffer;
mod call;
mod collectives;
mod communicator;
pub mod config;
mod control;
mod engine;
mod error;
mod estimate;
mod flow;
mod fork;
mod group;
mod grow;
pub mod launch;
mod meet;
mod one_sided;
mod op;
mod parcel;
mod raw;
mod rdma;
mod registered;
mod request;
mod scope;
mod split;
mod start;
mod stream;
mod topology;
pub mod tuner;
mod work;

use rccl_kernels::element;

pub use bootstrap::{UniqueId, WIRE_VERSION};
pub use buffer::Buffer;
pub use call::{Call, Collective};
pub use communicator::{Builder, Communicator, alloc};
pub use config::{Config, Reproducible, init_logging};
pub use control::SignalsBlocked;
pub use element::{DataType, Element, F8E4M3, F8E5M2, ReduceOp};
pub use error::{CallOf, Error, Failure, Member, Result};
pub use group::{Group, group};
pub use grow::Growth;
pub use one_sided::{OneSidedCall, Signals, Window};
pub use op::Op;
pub use parcel::Parcel;
pub use raw::{Raw, RawGroup, RawMemory, RawSizes};
pub use registered::Registered;
pub use scope::Scope;
pub use stream::Stream;
pub use work::{OwnedBuf, Work};

/// The number of the C interface (`libroceccl.so.N`), which `rccl --version` tells. Raised when programs that are compiled
/// already would break; then `ffi/roceccl.map` is too.
pub const ABI: u16 = 0;
