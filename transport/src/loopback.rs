//! Links between two threads of one process: the ring of [`shm`](crate::shm) over private memory.
//!
//! Both ends see the same addresses, so every place is used where it lies: whatever an end grants, the other reads or
//! writes it directly ([`Source::Mapped`](crate::Source::Mapped), [`Sink::Mapped`](crate::Sink::Mapped)).

use std::sync::Arc;

use crate::link::{Kind, LinkError, Place, Result};
use crate::memory::{Mapping, RegionTable};
use crate::shm::reach::{Found, Reach};
use crate::shm::{Doorbell, Options, end, segment};

/// One end of a link inside a process.
pub type Loopback = end::End<Within>;

/// Makes both ends. Places in registered regions are not understood; see [`pair_with`].
///
/// # Errors
/// [`LinkError::Io`] if options are out of range, or memory or descriptors run out.
pub fn pair(options: &Options) -> Result<(Loopback, Loopback)> {
    let bell = || Doorbell::new().map(Arc::new).map_err(failed);
    pair_with(options, [None, None], [bell()?, bell()?])
}

/// As [`pair`], with the registered memory of each end and the doorbell of each end's thread. Without a table an end's
/// grants in regions are passed over, as if no place had been given.
///
/// # Errors
/// [`LinkError::Io`] if options are out of range, or memory or descriptors run out.
pub fn pair_with(
    options: &Options,
    regions: [Option<Arc<RegionTable>>; 2],
    bells: [Arc<Doorbell>; 2],
) -> Result<(Loopback, Loopback)> {
    options.check().map_err(|what| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, what)))?;
    let memory =
        Mapping::private(options.segment_bytes()).map_err(|error| failed(std::io::Error::other(error)))?;
    // SAFETY: the mapping is new, hence zeroed, a whole segment long, and lives in both ends.
    let [first, second] = unsafe { segment::lay(memory.pointer(), options) };
    let memory = Arc::new(memory);
    let [first_bell, second_bell] = bells;
    let [first_regions, second_regions] = regions;
    let peer_bell = |bell: &Doorbell| bell.share().map(Doorbell::from_descriptor).map_err(failed);
    let (to_first, to_second) = (peer_bell(&first_bell)?, peer_bell(&second_bell)?);
    let one = Within { _memory: Arc::clone(&memory), regions: first_regions };
    let other = Within { _memory: memory, regions: second_regions };
    // SAFETY: the first end alone writes the first wire; `one` keeps the memory.
    let one = unsafe { end::End::new([first, second], options, first_bell, to_second, one) };
    // SAFETY: the second end alone writes the second wire; `other` keeps the memory.
    let other = unsafe { end::End::new([second, first], options, second_bell, to_first, other) };
    Ok((one, other))
}

fn failed(source: std::io::Error) -> LinkError {
    LinkError::Io { during: "making a loopback link", source }
}

/// Places inside one process: a region is told as the address at which it lies.
pub struct Within {
    _memory: Arc<Mapping>,
    regions: Option<Arc<RegionTable>>,
}

impl Reach for Within {
    const KIND: Kind = Kind::Loopback;

    #[inline]
    fn offer(&self, place: Place) -> Option<Place> {
        let Some(region) = place.region() else { return Some(place) };
        let base = self.regions.as_ref()?.address(region)?;
        Some(Place::at_address(base.wrapping_add(place.offset() as usize)))
    }

    #[inline]
    fn find(&self, place: Place, _len: u64) -> Result<Found> {
        Ok(Found::Mapped(std::ptr::with_exposed_provenance_mut(place.offset() as usize)))
    }

    unsafe fn copy_out(&self, _address: u64, _to: *mut u8, _len: usize) -> Result<usize> {
        Err(LinkError::Protocol { what: "copied on a loopback link, where all memory is mapped".into() })
    }

    unsafe fn copy_in(&self, _address: u64, _from: *const u8, _len: usize) -> Result<usize> {
        Err(LinkError::Protocol { what: "copied on a loopback link, where all memory is mapped".into() })
    }
}
