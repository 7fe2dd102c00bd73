//! Registered memory as a typed slice.

use crate::element::Element;
use crate::error::{Error, Result};
use rccl_transport::memory::{Region, RegionTable};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// `n` elements of memory that other ranks of the host can map; see [`Communicator::alloc`](crate::Communicator::alloc).
///
/// Other ranks read and write it only during a collective that was called on it, which borrows it. Outlives its
/// communicator if need be.
pub struct Buffer<T: Element> {
    region: Region,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(crate) fn new(regions: &Arc<RegionTable>, n: usize) -> Result<Buffer<T>> {
        let hint = "free memory or lift the limit (ulimit -v, the container's memory limit)";
        let bytes =
            n.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= isize::MAX as usize).ok_or_else(|| {
                Error::InvalidArgument {
                    call: "alloc",
                    what: format!("{n} elements of {} bytes", size_of::<T>()),
                    hint: "no memory is that large".into(),
                }
            })?;
        let region = regions.alloc(bytes.max(1)).map_err(|error| Error::System {
            during: format!("allocating {bytes} bytes of registered memory"),
            source: Arc::new(std::io::Error::other(error)),
            hint: hint.into(),
        })?;
        let buffer = Buffer { region, len: n, element: PhantomData };
        // SAFETY: the region is ours alone, `bytes` long; memory that was used before is handed out again.
        unsafe { std::ptr::write_bytes(buffer.region.as_ptr(), 0, bytes) };
        Ok(buffer)
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: the region holds `len` elements, page-aligned; every bit pattern is a valid element; peers write it
        // only during calls, which borrow the buffer mutably.
        unsafe { std::slice::from_raw_parts(self.region.as_ptr().cast(), self.len) }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.region.as_ptr().cast(), self.len) }
    }
}
