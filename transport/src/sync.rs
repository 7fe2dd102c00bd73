//! The atomics that two ends share: the standard ones, or loom's when the crate is built for model checking.
//!
//! Only code that is model-checked takes its atomics from here. The check compiles the same files as the library:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p rccl-transport --release --test loom
//! ```

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
