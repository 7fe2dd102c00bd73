//! How an end uses the places that its peer names.

use crate::link::{Kind, Place, Result};

/// What a place turned out to be.
pub enum Found {
    /// Memory that is mapped here.
    Mapped(*mut u8),
    /// An address in the peer, reached by copying.
    Copy(u64),
    /// Memory that is about to be mapped.
    Pending,
}

/// The difference between links that share the ring: what a [`Place`] means to the two ends.
pub trait Reach: Send {
    /// Which transport this makes.
    const KIND: Kind;

    /// The form in which a place of this end is told to the peer; `None` if the peer cannot use it. Fixed for a kind
    /// of place: what this end offers the peer really uses.
    fn offer(&self, place: Place) -> Option<Place>;

    /// Finds `len` bytes at a place of the peer.
    fn find(&self, place: Place, len: u64) -> Result<Found>;

    /// Copies from an address of the peer; returns how many bytes came, at least one.
    ///
    /// # Safety
    /// `to` is valid for writes of `len` bytes.
    unsafe fn copy_out(&self, address: u64, to: *mut u8, len: usize) -> Result<usize>;

    /// Copies to an address of the peer, which has granted it; returns how many bytes went, at least one.
    ///
    /// # Safety
    /// `from` is valid for reads of `len` bytes.
    unsafe fn copy_in(&self, address: u64, from: *const u8, len: usize) -> Result<usize>;
}
