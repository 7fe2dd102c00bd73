//! The collectives, and messages.

use crate::comm::{self, Comm};
use crate::error::{Answer, Refusal, answer};
use crate::op::{self, Operator};
use crate::{group, list, stream};
use rccl::{Call, Collective, Communicator, DataType, RawSizes};
use std::ffi::{c_int, c_void};

/// A call whose numbers are those of the crate.
struct Known<'a> {
    call: Call,
    sizes: RawSizes<'a>,
    operator: Option<Operator>,
    send: *const c_void,
    recv: *mut c_void,
}

/// Makes a call: now if it is on no stream, else behind what is on it, or with the end of an open group.
#[inline]
fn make<'a>(
    comm: comm::Handle,
    on: stream::Handle,
    know: impl FnOnce(&Comm, &Communicator) -> Result<Known<'a>, Refusal>,
) -> Answer {
    answer(|| group::part(prepare(comm, on, know)))
}

#[inline]
fn prepare<'a>(
    comm: comm::Handle,
    on: stream::Handle,
    know: impl FnOnce(&Comm, &Communicator) -> Result<Known<'a>, Refusal>,
) -> Result<(), Refusal> {
    let comm = comm::get(comm)?;
    let communicator = comm.communicator()?;
    let on = if on.is_null() { None } else { Some(stream::get(on)?) };
    let Known { mut call, sizes, operator, send, recv } = know(&comm, communicator)?;
    call.op = operator.as_ref().map(|operator| operator.op);
    let scalar = operator.as_ref().and_then(|operator| operator.scalar.as_ref());
    let (scalar, send, recv) = (scalar.map(|scalar| &scalar[..call.dtype.size()]), send.cast(), recv.cast());
    if on.is_none() && !group::is_open() {
        // SAFETY: the promise of whoever made the call.
        return Ok(unsafe { communicator.run_raw_call(&call, sizes, scalar, send, recv) }?);
    }
    let call = communicator.raw(&call, sizes, scalar, send, recv)?;
    match on {
        None => group::add(communicator, call, true),
        Some(stream) if group::is_open() => group::add(&communicator.on(&stream), call, false),
        // Its stream tells what becomes of it.
        // SAFETY: as above.
        Some(stream) => drop(unsafe { communicator.on(&stream).start_raw(call) }),
    }
    Ok(())
}

/// What a call is, as C says it.
struct Asked {
    collective: Collective,
    dtype: c_int,
    root: Option<c_int>,
    count: usize,
}

impl Asked {
    #[inline]
    fn call(&self) -> Result<Call, Refusal> {
        let dtype = data_type(self.dtype)?;
        let root = self.root.map(u32::try_from).transpose();
        let root = root.map_err(|_| Refusal::argument("the root, or the peer, is below 0"))?;
        Ok(Call { collective: self.collective, dtype, op: None, root, count: self.count as u64 })
    }
}

#[inline]
pub(crate) fn data_type(number: c_int) -> Result<DataType, Refusal> {
    let known = u8::try_from(number).ok().and_then(|number| DataType::try_from(number).ok());
    known.ok_or_else(|| {
        Refusal::argument(format!("data type {number}: rcclDataType_t has 0 to {}", DataType::ALL.len() - 1))
    })
}

/// A call that moves data.
fn moves(
    on: (comm::Handle, stream::Handle),
    asked: Asked,
    sizes: RawSizes<'_>,
    send: *const c_void,
    recv: *mut c_void,
) -> Answer {
    make(on.0, on.1, |_, _| Ok(Known { call: asked.call()?, sizes, operator: None, send, recv }))
}

/// A call that reduces.
#[inline]
fn reduces(
    on: (comm::Handle, stream::Handle),
    asked: Asked,
    op: c_int,
    sizes: RawSizes<'_>,
    send: *const c_void,
    recv: *mut c_void,
) -> Answer {
    make(on.0, on.1, |comm, _| {
        let call = asked.call()?;
        Ok(Known { operator: Some(op::find(comm, op, call.dtype)?), call, sizes, send, recv })
    })
}

/// Counts by rank of a communicator.
///
/// # Safety
/// `counts` is NULL or has a number for each rank of it.
unsafe fn counts<'a>(
    communicator: &Communicator,
    counts: *const usize,
    name: &str,
) -> Result<&'a [usize], Refusal> {
    // SAFETY: the caller's promise.
    unsafe { list(counts, communicator.size() as c_int, name) }
}

macro_rules! equal_moves {
    ($($(#[$doc:meta])* $name:ident: $collective:ident $(($root:ident))?;)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// The memory is valid for the call until that has ended.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            sendbuff: *const c_void,
            recvbuff: *mut c_void,
            count: usize,
            datatype: c_int,
            $($root: c_int,)?
            comm: comm::Handle,
            stream: stream::Handle,
        ) -> Answer {
            let root = None $(.or(Some($root)))?;
            let asked = Asked { collective: Collective::$collective, dtype: datatype, root, count };
            moves((comm, stream), asked, RawSizes::Equal, sendbuff, recvbuff)
        }
    )+};
}

equal_moves! {
    /// All ranks get the root's `count` elements; only the root's `sendbuff` is read.
    rcclBroadcast: Broadcast (root);
    /// All ranks get the `count` elements of each, in order of rank.
    rcclAllGather: AllGather;
    /// The root gets the `count` elements of each, in order of rank.
    rcclGather: Gather (root);
    /// Each rank gets its block of `count` elements of the root's.
    rcclScatter: Scatter (root);
    /// Each rank gets its block of `count` elements of every rank's.
    rcclAlltoAll: AllToAll;
}

macro_rules! equal_reductions {
    ($($(#[$doc:meta])* $name:ident: $collective:ident $(($root:ident))?;)+) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        /// The memory is valid for the call until that has ended.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            sendbuff: *const c_void,
            recvbuff: *mut c_void,
            count: usize,
            datatype: c_int,
            op: c_int,
            $($root: c_int,)?
            comm: comm::Handle,
            stream: stream::Handle,
        ) -> Answer {
            let root = None $(.or(Some($root)))?;
            let asked = Asked { collective: Collective::$collective, dtype: datatype, root, count };
            reduces((comm, stream), asked, op, RawSizes::Equal, sendbuff, recvbuff)
        }
    )+};
}

equal_reductions! {
    /// All ranks get the reduction of all ranks' `count` elements.
    rcclAllReduce: AllReduce;
    /// The root gets it.
    rcclReduce: Reduce (root);
    /// Each rank gets its block of `count` elements of it.
    rcclReduceScatter: ReduceScatter;
}

/// As rcclBroadcast, in place.
///
/// # Safety
/// The memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclBcast(
    buff: *mut c_void,
    count: usize,
    datatype: c_int,
    root: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { rcclBroadcast(buff, buff, count, datatype, root, comm, stream) }
}

/// # Safety
/// The memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclSend(
    sendbuff: *const c_void,
    count: usize,
    datatype: c_int,
    peer: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    let asked = Asked { collective: Collective::Send, dtype: datatype, root: Some(peer), count };
    moves((comm, stream), asked, RawSizes::Equal, sendbuff, std::ptr::null_mut())
}

/// # Safety
/// The memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclRecv(
    recvbuff: *mut c_void,
    count: usize,
    datatype: c_int,
    peer: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    let asked = Asked { collective: Collective::Recv, dtype: datatype, root: Some(peer), count };
    moves((comm, stream), asked, RawSizes::Equal, std::ptr::null(), recvbuff)
}

/// # Safety
/// Any values are safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclBarrier(comm: comm::Handle, stream: stream::Handle) -> Answer {
    let asked = Asked { collective: Collective::Barrier, dtype: DataType::U8 as c_int, root: None, count: 0 };
    moves((comm, stream), asked, RawSizes::Equal, std::ptr::null(), std::ptr::null_mut())
}

/// # Safety
/// `counts` has a number for each rank; the memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclAllGatherV(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    recvcounts: *const usize,
    datatype: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |_, communicator| {
        // SAFETY: the caller's promise.
        let counts = unsafe { counts(communicator, recvcounts, "recvcounts") }?;
        let call =
            Asked { collective: Collective::AllGatherV, dtype: datatype, root: None, count: 0 }.call()?;
        let sizes = RawSizes::Counts(counts);
        Ok(Known { call, sizes, operator: None, send: sendbuff, recv: recvbuff })
    })
}

/// # Safety
/// `counts` has a number for each rank; the memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclReduceScatterV(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    recvcounts: *const usize,
    datatype: c_int,
    op: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |of, communicator| {
        // SAFETY: the caller's promise.
        let counts = unsafe { counts(communicator, recvcounts, "recvcounts") }?;
        let call =
            Asked { collective: Collective::ReduceScatterV, dtype: datatype, root: None, count: 0 }.call()?;
        let operator = Some(op::find(of, op, call.dtype)?);
        Ok(Known { call, sizes: RawSizes::Counts(counts), operator, send: sendbuff, recv: recvbuff })
    })
}

/// # Safety
/// At the root `recvcounts` has a number for each rank; the memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGatherV(
    sendbuff: *const c_void,
    sendcount: usize,
    recvbuff: *mut c_void,
    recvcounts: *const usize,
    datatype: c_int,
    root: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |_, communicator| {
        let asked =
            Asked { collective: Collective::GatherV, dtype: datatype, root: Some(root), count: sendcount };
        let call = asked.call()?;
        // SAFETY: the caller's promise.
        let sizes = unsafe { of_root(communicator, &call, recvcounts, "recvcounts") }?;
        Ok(Known { call, sizes, operator: None, send: sendbuff, recv: recvbuff })
    })
}

/// # Safety
/// At the root `sendcounts` has a number for each rank; the memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclScatterV(
    sendbuff: *const c_void,
    sendcounts: *const usize,
    recvbuff: *mut c_void,
    recvcount: usize,
    datatype: c_int,
    root: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |_, communicator| {
        let asked =
            Asked { collective: Collective::ScatterV, dtype: datatype, root: Some(root), count: recvcount };
        let call = asked.call()?;
        // SAFETY: the caller's promise.
        let sizes = unsafe { of_root(communicator, &call, sendcounts, "sendcounts") }?;
        Ok(Known { call, sizes, operator: None, send: sendbuff, recv: recvbuff })
    })
}

/// The root's counts, which say how long its own block is too; the other ranks' are not read.
///
/// # Safety
/// As for [`counts`], at the root.
unsafe fn of_root<'a>(
    communicator: &Communicator,
    call: &Call,
    counts: *const usize,
    name: &str,
) -> Result<RawSizes<'a>, Refusal> {
    if call.root != Some(communicator.rank()) {
        return Ok(RawSizes::Equal);
    }
    // SAFETY: the caller's promise.
    let counts = unsafe { self::counts(communicator, counts, name) }?;
    let (own, given) = (counts[communicator.rank() as usize] as u64, call.count);
    if own != given {
        let words = format!(
            "the root's own block has {own} elements by its entry in {name} and {given} by its count"
        );
        return Err(Refusal::argument(words));
    }
    Ok(RawSizes::Counts(counts))
}

/// # Safety
/// Both lists have a number for each rank; the memory is valid for the call until that has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclAlltoAllV(
    sendbuff: *const c_void,
    sendcounts: *const usize,
    recvbuff: *mut c_void,
    recvcounts: *const usize,
    datatype: c_int,
    comm: comm::Handle,
    stream: stream::Handle,
) -> Answer {
    make(comm, stream, |_, communicator| {
        // SAFETY: the caller's promise.
        let sent = unsafe { counts(communicator, sendcounts, "sendcounts") }?;
        // SAFETY: the caller's promise.
        let received = unsafe { counts(communicator, recvcounts, "recvcounts") }?;
        let call =
            Asked { collective: Collective::AllToAllV, dtype: datatype, root: None, count: 0 }.call()?;
        let sizes = RawSizes::Cross { sent, received };
        Ok(Known { call, sizes, operator: None, send: sendbuff, recv: recvbuff })
    })
}
