//! Collectives as schedules: an algorithm is a pure function from (rank, ranks, shape of the call, layout) to that
//! rank's [`Program`], a list of one small operation. No I/O, no clock, no unsafe code.
//!
//! - [`Op`] is that operation, and says what who runs it must keep to.
//! - [`Collective`] says what the ranks compute, and [`vector`] how their buffers show the elements of a call.
//! - [`algorithm`] compares the algorithms: steps, bytes, sources. [`program()`] and [`programs`] make programs.
//! - [`validate`](mod@validate) proves programs right for every interleaving that links and engine allow, and says how.
//! - [`explain`] prints them.
//!
//! ```
//! use rccl_schedule::{Algorithm, Collective, Layout, Model, programs, validate};
//!
//! let programs = programs(Algorithm::Ring, &Collective::AllReduce, &Layout::one_host(3), 1);
//! validate(&programs, &Collective::AllReduce, 1000, 64, Model::Shared, true)?;
//! print!("{}", programs[0]);
//! # Ok::<(), rccl_schedule::Violation>(())
//! ```
#![forbid(unsafe_code)]

pub mod algorithm;
pub mod collective;
pub mod explain;
pub mod layout;
pub mod program;
pub mod simulate;
pub mod validate;
pub mod vector;

pub use algorithm::{Algorithm, Family, UnknownAlgorithm, program, programs};
pub use collective::Collective;
pub use explain::Explained;
pub use layout::Layout;
pub use program::{Buffer, Dep, Extent, Few, Op, Program, Rank, grain};
pub use validate::{Fault, Model, Validator, Violation, Wait, validate};
pub use vector::{Sizes, Window};
