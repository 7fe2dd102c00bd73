//! Links over memory that two processes share.
//!
//! # Memory of a pair
//!
//! One memfd, made by one end and mapped by both ([`create_segment`]). Everything an end writes lies apart from
//! everything its peer writes; `c` is the creator's part, `j` the joiner's.
//!
//! ```text
//!  0        preamble (24 bytes, read once at set-up): "rcclshm2", lines, staging bytes, slot, eager
//!  0x1000   control c | lines c                 0x300 bytes, then 256 bytes a line; up to a whole page
//!           control j | lines j
//!           staging c                           128 KiB
//!           staging j                           128 KiB
//!
//!  control:  0x000  credit     one word: lines taken, messages closed, slots freed        (see `credit`)
//!            0x080  sleep      flag, asymmetric                                             (see `wake`)
//!            0x100  moved      32 x (released, landed): lap 16 bits | bytes 48 bits of messages this end pulls, lands
//! ```
//!
//! # What moves
//!
//! * Announcements are *lines* in a ring (`line`, `ring`): one store sequence each, the head last. Records
//!   with one tag that are announced between two flushes share a line, so the four grants with which two ranks begin a
//!   direct all_reduce are one line. An eager message of up to 232 bytes is a line by itself and published at once.
//! * Other bytes that the sender cannot leave where they are go through *slots* in its staging area (`staging`).
//! * Progress of direct messages is a counter per message. It carries the lap of the window, so it needs no reset, and
//!   it is read where it lies, so [`Link::released`](crate::Link::released) and [`Link::landed`](crate::Link::landed)
//!   answer what is true now, which may be newer than the last poll.
//! * What an end gives back is one word (`credit`), reported late.
//!
//! A poll that finds nothing is two loads that stay in the first-level cache. Lines are taken in at once into tables of
//! fixed size, whatever the caller does with the messages: unread staged bytes never hold up a grant.
//!
//! # Ordering
//!
//! Heads of lines, credit and counters are stored with release and loaded with acquire order; everything else is
//! covered by them: words of a line and bytes of a slot or of user memory are written before the head that announces
//! them, and given back (credit, `released`) after they were read.
//!
//! # Trust
//!
//! Both ends run the same program for the same user. What the peer writes is still never trusted with memory safety:
//! offsets and counts are checked before use, and whatever cannot come from an honest peer is
//! [`LinkError::Protocol`](crate::LinkError::Protocol). (The bytes of a granted place are the peer's to write.)

//!
//! # Checked by
//!
//! * the conformance suite, both ends in one thread and in two;
//! * `RUSTFLAGS="--cfg loom" cargo test -p rccl-transport --release --test loom`: ring, wake-up, grants, slots;
//! * the thread sanitizer, one test at a time, because a mapping that one test undid and the next made at the same
//!   address looks like a race to it: `make tsan`

mod announce;
#[cfg(all(test, not(loom)))]
mod conformance_test;
mod copy;
mod credit;
pub(crate) mod end;
mod layout;
mod line;
#[cfg(not(loom))]
mod link;
pub(crate) mod reach;
mod receiving;
mod ring;
#[cfg(not(loom))]
pub(crate) mod segment;
mod sending;
mod staging;
mod wake;
mod wire;

#[cfg(loom)]
pub mod model;

pub use copy::{Reach, allow_copies, prove_copy};
pub use layout::Options;
#[cfg(not(loom))]
pub use link::ShmLink;
#[cfg(not(loom))]
pub use segment::{End, create_segment};
pub use wake::Doorbell;
