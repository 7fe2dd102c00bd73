//! rccl: collective communication between processes and hosts.

mod call;
mod element;
mod error;
#[doc(hidden)]
pub mod kernels;

pub use call::{Call, Collective};
pub use element::{DataType, Element, F8E4M3, F8E5M2, ReduceOp};
pub use error::{CallOf, Error, Failure, Member, Result};
