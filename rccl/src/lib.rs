//! rccl: collective communication between processes and hosts.

mod call;
pub mod config;
mod element;
mod error;
#[doc(hidden)]
pub mod kernels;

pub use call::{Call, Collective};
pub use config::{Config, init_logging};
pub use element::{DataType, Element, F8E4M3, F8E5M2, ReduceOp};
pub use error::{CallOf, Error, Failure, Member, Result};
