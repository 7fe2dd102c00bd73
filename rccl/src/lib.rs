//! rccl: collective communication between processes and hosts.

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
mod flow;
mod fork;
mod group;
pub mod launch;
mod meet;
mod op;
mod raw;
mod request;
mod scope;
mod split;
mod start;
mod work;

use rccl_kernels::element;

pub use bootstrap::{UniqueId, WIRE_VERSION};
pub use buffer::Buffer;
pub use call::{Call, Collective};
pub use communicator::{Builder, Communicator};
pub use config::{Config, Reproducible, init_logging};
pub use element::{DataType, Element, F8E4M3, F8E5M2, ReduceOp};
pub use error::{CallOf, Error, Failure, Member, Result};
pub use group::{Group, group};
pub use op::Op;
pub use scope::Scope;
pub use work::{OwnedBuf, Work};
