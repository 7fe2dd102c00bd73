//! Data types, operators, and the reduction kernels that combine arrays of them.
//!
//! A crate of its own because its 189 kernels take half a minute to compile, and the rest of rccl changes more often.

pub mod element;
mod kernel;

pub use element::{DataType, Element, F8E4M3, F8E5M2, ReduceOp};
pub use kernel::{InstructionSet, Kernel, Scale};
