//! Memory that peers reach without a copy.

use crate::comm;
use crate::error::{Answer, Refusal, answer};
use crate::handle::Table;
use crate::out;
use rccl::{Buffer, RawMemory, Registered};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What rcclMemAlloc gave and rcclMemFree has not taken back, by address.
static ALLOCATED: Mutex<Option<HashMap<usize, Buffer<u8>>>> = Mutex::new(None);
static REGISTERED: Table<Registration> = Table::new(3);

/// What rcclCommRegister made.
struct Registration {
    /// The handle of the communicator that it was made with.
    of: usize,
    _memory: Registered<RawMemory>,
}

/// Memory for calls of any communicator of this process, zeroed and on a page of its own. Ranks of one host map it, and over
/// RDMA it is registered once.
///
/// # Safety
/// `ptr` is NULL or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclMemAlloc(ptr: *mut *mut c_void, size: usize) -> Answer {
    answer(|| {
        let place = out(ptr, "ptr")?;
        let mut buffer = rccl::alloc::<u8>(size)?;
        let memory = buffer.as_mut_ptr();
        allocated().get_or_insert_default().insert(memory.addr(), buffer);
        // SAFETY: the caller's promise.
        unsafe { place.write(memory.cast()) };
        Ok(())
    })
}

/// # Safety
/// No call is under way on the memory, and nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclMemFree(ptr: *mut c_void) -> Answer {
    answer(|| {
        if ptr.is_null() {
            return Ok(());
        }
        let buffer = allocated().as_mut().and_then(|all| all.remove(&ptr.addr()));
        match buffer {
            Some(_) => Ok(()),
            None => Err(Refusal::argument("the memory does not come from rcclMemAlloc, or was freed before")),
        }
    })
}

fn allocated() -> MutexGuard<'static, Option<HashMap<usize, Buffer<u8>>>> {
    ALLOCATED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers memory of the program's with the RDMA devices of this process.
///
/// # Safety
/// `buff` has `size` bytes, which stay where they are until they are deregistered; `handle` is NULL or has room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommRegister(
    comm: comm::Handle,
    buff: *mut c_void,
    size: usize,
    handle: *mut *mut c_void,
) -> Answer {
    answer(|| {
        let (of, place) = (comm::get(comm)?, out(handle, "handle")?);
        if buff.is_null() || isize::try_from(size).is_err() {
            return Err(Refusal::argument(format!("{size} bytes at {buff:?} are no memory")));
        }
        // SAFETY: the caller's promise.
        let memory = unsafe { RawMemory::new(buff.cast(), size) };
        let memory = of.communicator()?.register(memory)?;
        let made = REGISTERED.insert(Registration { of: comm.addr(), _memory: memory });
        let made = made.ok_or_else(|| Refusal::usage("there are 16 million registrations already"))?;
        // SAFETY: the caller's promise.
        unsafe { place.write(made) };
        Ok(())
    })
}

/// Deregisters what a communicator that goes has left.
pub(crate) fn deregister_all(comm: comm::Handle) {
    drop(REGISTERED.remove_all(|registration| registration.of == comm.addr()));
}

/// # Safety
/// No call is under way on the memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommDeregister(comm: comm::Handle, handle: *mut c_void) -> Answer {
    answer(|| {
        comm::get(comm)?;
        let nobody =
            || Refusal::argument("no registration has this handle: it was deregistered, or never made");
        if REGISTERED.get(handle).ok_or_else(nobody)?.of != comm.addr() {
            return Err(Refusal::argument(
                "the registration was made with another communicator: deregister it with that one",
            ));
        }
        REGISTERED.remove(handle).map(drop).ok_or_else(nobody)
    })
}
