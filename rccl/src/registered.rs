//! Memory of the caller's that RDMA devices know.

use crate::error::{Error, Result};
use crate::rdma::Rdma;
use crate::work::OwnedBuf;
use rccl_transport::rc::Registration;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Memory that was made elsewhere and is registered with the RDMA devices of this process, so that collectives on it
/// move data over them without a copy; see [`Communicator::register`](crate::Communicator::register).
///
/// Other ranks reach it only during a call that was made on it, which borrows or owns it. Outlives its communicator if
/// need be; as long as it lives, the devices stay open. Leaking it leaks the memory too.
pub struct Registered<B: OwnedBuf> {
    /// Goes before the memory; `None` where there is no RDMA.
    registration: Option<(Registration, Arc<Rdma>)>,
    memory: B,
}

impl<B: OwnedBuf> Registered<B> {
    pub(crate) fn new(rdma: Option<&Arc<Rdma>>, mut memory: B) -> Result<Registered<B>> {
        let bytes = size_of_val(memory.elements());
        let Some(rdma) = rdma.filter(|_| bytes > 0) else {
            return Ok(Registered { registration: None, memory });
        };
        let first = memory.elements().as_mut_ptr().cast();
        // SAFETY: the elements stay where they are, by the trait's promise, until this value is dropped, and the
        // registration goes first. Calls borrow or own the value, and end what they posted before they give it back.
        // The other ranks of the job are trusted with the rest of the pages, as with everything that they are told.
        let registration =
            unsafe { rdma.rails.register(first, bytes) }.map_err(|error| Error::System {
                during: format!("registering {bytes} bytes with RDMA devices"),
                source: Arc::new(std::io::Error::other(error)),
                hint: "raise the limit of locked memory (`ulimit -l`), or pass the memory as it is: it is copied then"
                    .into(),
            })?;
        Ok(Registered { registration: Some((registration, rdma.clone())), memory })
    }

    /// Whether a device knows the memory; `false` where this process has no RDMA.
    pub fn is_registered(&self) -> bool {
        self.registration.is_some()
    }

    /// The memory, which the devices forget.
    pub fn into_inner(self) -> B {
        drop(self.registration);
        self.memory
    }
}

impl<B: OwnedBuf + AsRef<[B::Item]>> Deref for Registered<B> {
    type Target = [B::Item];
    fn deref(&self) -> &[B::Item] {
        self.memory.as_ref()
    }
}

impl<B: OwnedBuf + AsRef<[B::Item]>> DerefMut for Registered<B> {
    fn deref_mut(&mut self) -> &mut [B::Item] {
        self.memory.elements()
    }
}

// SAFETY: the elements are those of the memory inside, which keeps the promise.
unsafe impl<B: OwnedBuf> OwnedBuf for Registered<B> {
    type Item = B::Item;
    fn elements(&mut self) -> &mut [B::Item] {
        self.memory.elements()
    }
}
