//! Collectives as schedules: an algorithm is a pure function from (rank, ranks, shape of the call, layout) to that
//! rank's [`Program`], a list of one small operation. No I/O, no clock, no unsafe code.
#![forbid(unsafe_code)]

pub mod algorithm;
pub mod explain;
mod program;
pub mod validate;

pub use algorithm::{Algorithm, Collective, UnknownAlgorithm, program, programs};
pub use explain::Explained;
pub use program::{Buffer, Dep, Extent, Few, Layout, Op, Program, Rank, grain};
pub use validate::{Fault, Model, Validator, Violation, Wait, validate};
