//! rccl: collective communication between processes and hosts.

mod bootstrap;
mod buffer;
mod call;
mod communicator;
pub mod config;
mod control;
mod engine;
mod error;
mod fork;
pub mod launch;
mod meet;

use rccl_kernels::element;

pub use bootstrap::{UniqueId, WIRE_VERSION};
pub use buffer::Buffer;
pub use call::{Call, Collective};
pub use communicator::{Builder, Communicator};
pub use config::{Config, init_logging};
pub use element::{DataType, Element, F8E4M3, F8E5M2, ReduceOp};
pub use error::{CallOf, Error, Failure, Member, Result};
