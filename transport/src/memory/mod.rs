//! Memory that other processes may map: registered regions of this process, and those of its peers.
//!
//! A region is a memfd of its own with all its pages reserved. Its owner names bytes in it by
//! [`Place::in_region`](crate::Place::in_region); a peer that meets such a place for the first time asks for the
//! descriptor over the control plane and maps it ([`PeerRegions`]). Regions are therefore never unmapped while the
//! owner's [`RegionTable`] lives: freed memory waits in the table for the next allocation of its size class, and
//! whatever peers have mapped stays true.

mod mapping;
mod peers;
mod reserve;
mod table;

pub(crate) use mapping::Mapping;
pub use peers::{PeerRegions, Resolved};
pub use reserve::MemoryError;
#[cfg_attr(loom, allow(unused_imports))]
pub(crate) use reserve::reserved_memfd;
pub use table::{Region, RegionTable};
