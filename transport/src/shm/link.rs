//! The link between two processes of one host.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::copy;
use super::end;
use super::layout::Options;
use super::reach::{self, Found};
use super::segment::{self, End};
use super::wake::Doorbell;
use crate::link::{Kind, LinkError, Place, Result};
use crate::memory::{Mapping, PeerRegions, Resolved};

/// One end of a link between two processes over shared memory; see the [module](super) for layout and protocol.
pub type ShmLink = end::End<Between>;

impl ShmLink {
    /// Maps the segment that [`create_segment`](super::create_segment) made and takes the given end of it.
    ///
    /// `own_bell` wakes the thread that polls this end; `peer_bell` is the other end's, as passed by it. `peer` holds
    /// the peer's registered memory; one per peer process, shared by all links to it. `reach` must say the same at
    /// both ends.
    ///
    /// # Errors
    /// [`LinkError::Io`] if the segment was made with other options or cannot be mapped.
    pub fn map(
        segment: BorrowedFd<'_>,
        end: End,
        options: &Options,
        own_bell: Arc<Doorbell>,
        peer_bell: OwnedFd,
        peer: Arc<PeerRegions>,
        reach: copy::Reach,
    ) -> Result<ShmLink> {
        let (mapping, wires) = segment::map(segment, end, options)?;
        let between = Between { _segment: mapping, peer, reach };
        // SAFETY: each end of a segment is taken once, by the process that it was made for or passed to; the mapping
        // lives in `between`.
        Ok(unsafe { end::End::new(wires, options, own_bell, Doorbell::from_descriptor(peer_bell), between) })
    }
}

/// Places between two processes: regions are mapped on demand, addresses are reached by copying.
pub struct Between {
    _segment: Mapping,
    peer: Arc<PeerRegions>,
    reach: copy::Reach,
}

impl reach::Reach for Between {
    const KIND: Kind = Kind::Shm;

    #[inline]
    fn offer(&self, place: Place) -> Option<Place> {
        (place.region().is_some() || self.reach.copy).then_some(place)
    }

    #[inline]
    fn find(&self, place: Place, len: u64) -> Result<Found> {
        let Some(region) = place.region() else {
            return if self.reach.copy {
                Ok(Found::Copy(place.offset()))
            } else {
                Err(LinkError::Protocol {
                    what: "it granted an address, but copies were not agreed on".into(),
                })
            };
        };
        match self.peer.resolve(region) {
            Resolved::Ready { pointer, len: whole } => {
                let end = place.offset().checked_add(len);
                if end.is_none_or(|end| end > whole as u64) {
                    return Err(LinkError::Protocol {
                        what: format!(
                            "it granted {len} bytes at offset {} of its region {region}, which has {whole}",
                            place.offset()
                        ),
                    });
                }
                // SAFETY: the offset is inside the mapping.
                Ok(Found::Mapped(unsafe { pointer.add(place.offset() as usize) }))
            }
            Resolved::Pending => Ok(Found::Pending),
            Resolved::Failed(reason) => Err(LinkError::Io {
                during: "mapping the peer's registered memory",
                source: std::io::Error::other(reason),
            }),
        }
    }

    unsafe fn copy_out(&self, address: u64, to: *mut u8, len: usize) -> Result<usize> {
        // SAFETY: as the caller promises.
        unsafe { copy::read(self.reach.pid, address, to, len) }
    }

    unsafe fn copy_in(&self, address: u64, from: *const u8, len: usize) -> Result<usize> {
        // SAFETY: as the caller promises.
        unsafe { copy::write(self.reach.pid, address, from, len) }
    }
}
