//! The memory of a pair: making it, checking it, mapping it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::SealFlags;

use super::layout::{Options, PREAMBLE};
use super::wire::Wire;
use crate::link::{LinkError, Result};
use crate::memory::{Mapping, reserved_memfd};

/// Which end made the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The end that called [`create_segment`].
    Creator,
    /// The end that the descriptor was passed to.
    Joiner,
}

/// Makes the memory of a pair: a memfd with every page reserved, so that no later access can fail, and sealed against
/// changes of its size, so that neither end can pull the pages away from under the other.
///
/// # Errors
/// [`LinkError::Io`] if the options are out of range or the pages cannot be had; the text says how many bytes were
/// needed and which limit stood against them.
pub fn create_segment(options: &Options) -> Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        options.check().map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let descriptor = reserved_memfd("rccl-link", options.segment_bytes()).map_err(io::Error::other)?;
        rustix::io::pwrite(&descriptor, &options.preamble(), 0)?;
        rustix::fs::fcntl_add_seals(&descriptor, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(descriptor)
    };
    make().map_err(|source| LinkError::Io { during: "making the shared memory of a pair", source })
}

/// Maps a segment and lays the two wires over it: ours, theirs.
pub(super) fn map(descriptor: BorrowedFd<'_>, end: End, options: &Options) -> Result<(Mapping, [Wire; 2])> {
    let failed = |source| LinkError::Io { during: "mapping the shared memory of a pair", source };
    check(descriptor, options).map_err(failed)?;
    let mapping =
        Mapping::shared(descriptor, options.segment_bytes()).map_err(io::Error::other).map_err(failed)?;
    // SAFETY: the mapping holds a whole segment, as its size was compared with the options, and a new mapping of a
    // segment is zeroed but for the preamble or already in use by the peer.
    let wires = unsafe { lay(mapping.pointer(), options) };
    Ok((mapping, if end == End::Creator { wires } else { [wires[1], wires[0]] }))
}

/// Lays the wires of both ends over the memory of a segment: the creator's, the joiner's.
///
/// # Safety
/// `base` is page-aligned memory of `options.segment_bytes()` bytes, zeroed or in use as a segment made with the same
/// options, and it outlives the wires.
pub(crate) unsafe fn lay(base: NonNull<u8>, options: &Options) -> [Wire; 2] {
    [0, 1].map(|end| {
        // SAFETY: all offsets of the layout lie inside the segment.
        let control = unsafe { base.add(options.control_at(end)) }.cast::<super::wire::Control>();
        // SAFETY: the lines follow the control block inside the segment.
        let lines = unsafe { control.add(1) }.cast();
        // SAFETY: as for `control`.
        let staging = unsafe { base.add(options.staging_at(end)) };
        // SAFETY: control blocks begin on pages and are a multiple of a line long, so all is aligned; the caller
        // answers for the rest.
        unsafe { Wire::new(control, lines, options.lines, staging) }
    })
}

fn check(descriptor: BorrowedFd<'_>, options: &Options) -> io::Result<()> {
    let invalid = |what: String| Err(io::Error::new(io::ErrorKind::InvalidData, what));
    if let Err(what) = options.check() {
        return invalid(what);
    }
    let size = rustix::fs::fstat(descriptor.as_fd())?.st_size;
    if size != options.segment_bytes() as i64 {
        return invalid(format!(
            "the segment has {size} bytes, these options make {}: the two ends were configured differently",
            options.segment_bytes()
        ));
    }
    if !rustix::fs::fcntl_get_seals(descriptor)?.contains(SealFlags::SHRINK) {
        return invalid("the segment is not sealed against shrinking".into());
    }
    let mut preamble = [0; PREAMBLE];
    let read = rustix::io::pread(descriptor, &mut preamble, 0)?;
    if read != PREAMBLE || preamble != options.preamble() {
        return invalid(format!(
            "the segment was made with other options or by another version: its head is {preamble:02x?}, expected {:02x?}",
            options.preamble()
        ));
    }
    Ok(())
}
