//! One-sided calls, and the windows that they write to: `rcclWindow_t`.

use crate::comm;
use crate::error::{Answer, Refusal, answer};
use crate::handle::Table;
use crate::{call, group, list, out, stream};
use rccl::{Communicator, OneSidedCall, Signals, Window};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

/// `rcclWindow_t`.
type Handle = *mut c_void;

/// A window and the communicator whose it is.
struct OfComm {
    comm: usize,
    window: Window,
}

static WINDOWS: Table<OfComm> = Table::new(4);

fn get(comm: comm::Handle, window: Handle) -> Result<Arc<OfComm>, Refusal> {
    comm::get(comm)?;
    WINDOWS.get(window).filter(|of| of.comm == comm.addr()).ok_or_else(|| {
        Refusal::argument(
            "the communicator has no such window: it was deregistered, or never registered with rcclCommWindowRegister",
        )
    })
}

/// Deregisters what a communicator that goes has left.
pub(crate) fn deregister_all(comm: comm::Handle) {
    drop(WINDOWS.remove_all(|of| of.comm == comm.addr()));
}

/// Registers memory that the ranks of the communicator may put into.
///
/// # Safety
/// `buff` has `size` bytes, which stay where they are until the window is deregistered, and belong to the other ranks while this
/// one waits for signals; `win` is NULL or has room for a handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommWindowRegister(
    comm: comm::Handle,
    buff: *mut c_void,
    size: usize,
    win: *mut Handle,
    flags: c_int,
) -> Answer {
    answer(|| {
        let (of, place) = (comm::get(comm)?, out(win, "win")?);
        if (size > 0 && buff.is_null()) || isize::try_from(size).is_err() {
            return Err(Refusal::argument(format!("{size} bytes at {buff:?} are no memory")));
        }
        // NCCL's flags, which make calls of NCCL's faster.
        if !(0..=3).contains(&flags) {
            return Err(Refusal::argument(format!("flags {flags}: RCCL_WIN_DEFAULT")));
        }
        // SAFETY: the caller's promise.
        let window = unsafe { of.communicator()?.register_window(buff.cast(), size) }?;
        let made = WINDOWS.insert(OfComm { comm: comm.addr(), window });
        let made = made.ok_or_else(|| Refusal::usage("there are 16 million windows already"))?;
        // SAFETY: the caller's promise.
        unsafe { place.write(made) };
        Ok(())
    })
}

/// # Safety
/// No call is under way on the memory, and no signal is waited for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommWindowDeregister(comm: comm::Handle, win: Handle) -> Answer {
    answer(|| {
        if !win.is_null() {
            get(comm, win)?;
            WINDOWS.remove(win);
        }
        Ok(())
    })
}

/// # Safety
/// `ptr` is NULL or has room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclWinGetUserPtr(comm: comm::Handle, win: Handle, ptr: *mut *mut c_void) -> Answer {
    answer(|| {
        let (of, place) = (get(comm, win)?, out(ptr, "ptr")?);
        // SAFETY: the caller's promise.
        unsafe { place.write(of.window.memory().cast()) };
        Ok(())
    })
}

/// Writes to a rank's window, and signals that.
///
/// # Safety
/// `localbuff` is valid for the call until that has ended, and windows are as rcclCommWindowRegister wants them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclPutSignal(
    localbuff: *const c_void,
    count: usize,
    datatype: c_int,
    peer: c_int,
    peer_win: Handle,
    offset: usize,
    signal: c_int,
    context: c_int,
    flags: c_uint,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |communicator| {
        only(signal, context, flags)?;
        let of = get(comm, peer_win)?;
        let bytes = count.checked_mul(call::data_type(datatype)?.size());
        let bytes = bytes.filter(|&bytes| isize::try_from(bytes).is_ok());
        let bytes =
            bytes.ok_or_else(|| Refusal::argument(format!("{count} elements: no memory is that large")))?;
        Ok(communicator.put_signal(localbuff.cast(), bytes, rank(peer)?, &of.window, offset as u64)?)
    })
}

/// # Safety
/// Any values are safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclSignal(
    peer: c_int,
    signal: c_int,
    context: c_int,
    flags: c_uint,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |communicator| {
        only(signal, context, flags)?;
        Ok(communicator.signal(rank(peer)?)?)
    })
}

/// `rcclWaitSignalDesc_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct WaitSignal {
    /// How many signals.
    pub count: c_int,
    /// Whose.
    pub peer: c_int,
    /// 0.
    pub signal: c_int,
    /// 0.
    pub context: c_int,
}

/// # Safety
/// `descs` has `count` entries; windows are as rcclCommWindowRegister wants them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclWaitSignal(
    count: c_int,
    descs: *const WaitSignal,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |communicator| {
        // SAFETY: the caller's promise.
        let descs = unsafe { list(descs, count, "signalDescs") }?;
        let awaited = descs.iter().map(|desc| {
            only(desc.signal, desc.context, 0)?;
            let count = u64::try_from(desc.count);
            let count = count.map_err(|_| Refusal::argument(format!("{} signals", desc.count)))?;
            Ok(Signals { from: rank(desc.peer)?, count })
        });
        Ok(communicator.wait_signals(&awaited.collect::<Result<Vec<_>, Refusal>>()?)?)
    })
}

/// Makes a call, now or with the end of an open group.
fn make(
    comm: comm::Handle,
    on: stream::Handle,
    check: impl FnOnce(&Communicator) -> Result<OneSidedCall, Refusal>,
) -> Answer {
    answer(|| group::part(prepare(comm, on, check)))
}

fn prepare(
    comm: comm::Handle,
    on: stream::Handle,
    check: impl FnOnce(&Communicator) -> Result<OneSidedCall, Refusal>,
) -> Result<(), Refusal> {
    let comm = comm::get(comm)?;
    let communicator = comm.communicator()?;
    let call = if on.is_null() { check(communicator) } else { check(&communicator.on(&*stream::get(on)?)) }?;
    if group::is_open() {
        group::add_one_sided(call);
        return Ok(());
    }
    // SAFETY: the promise of whoever made the call.
    Ok(unsafe { call.run() }?)
}

fn rank(peer: c_int) -> Result<u32, Refusal> {
    u32::try_from(peer).map_err(|_| Refusal::argument("the peer is below 0"))
}

fn only(signal: c_int, context: c_int, flags: c_uint) -> Result<(), Refusal> {
    if (signal, context, flags) == (0, 0, 0) {
        return Ok(());
    }
    Err(Refusal::argument(format!(
        "signal {signal}, context {context}, flags {flags}: a pair of ranks has one signal, and each of these is 0"
    )))
}
