//! The header's inline functions.
//!
//! Those of the data path are calls through the device's table of operations. `ibv_query_port` tells the library how
//! large our structure is, so that a newer library, whose structure is larger, writes no further.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr;

use super::{
    Functions, ibv_context, ibv_context_ops, ibv_cq, ibv_port_attr, ibv_qp, ibv_recv_wr, ibv_send_wr, ibv_wc,
    verbs_context,
};

/// Posts a list of requests to a send queue. 0, or a number of errno with the first refused request in `bad`.
///
/// # Safety
///
/// `qp` is a queue pair that is not destroyed during the call; `requests` begins a list that ends with null, whose
/// segment lists are valid; memory of inline requests is readable.
pub(crate) unsafe fn post_send(
    qp: *mut ibv_qp,
    requests: *mut ibv_send_wr,
    bad: &mut *mut ibv_send_wr,
) -> c_int {
    // SAFETY: the caller says that the queue pair is there.
    let context = unsafe { (*qp).context };
    // SAFETY: a queue pair's context outlives it.
    match unsafe { operations(context) }.post_send {
        // SAFETY: the provider's own operation on its own queue pair; the caller vouches for the list.
        Some(post) => unsafe { post(qp, requests, bad) },
        None => libc::EOPNOTSUPP,
    }
}

/// Posts a list of requests to a receive queue. 0, or a number of errno with the first refused request in `bad`.
///
/// # Safety
///
/// `qp` is a queue pair that is not destroyed during the call; `requests` begins a list that ends with null, whose
/// segment lists are valid.
pub(crate) unsafe fn post_recv(
    qp: *mut ibv_qp,
    requests: *mut ibv_recv_wr,
    bad: &mut *mut ibv_recv_wr,
) -> c_int {
    // SAFETY: the caller says that the queue pair is there.
    let context = unsafe { (*qp).context };
    // SAFETY: a queue pair's context outlives it.
    match unsafe { operations(context) }.post_recv {
        // SAFETY: the provider's own operation on its own queue pair; the caller vouches for the list.
        Some(post) => unsafe { post(qp, requests, bad) },
        None => libc::EOPNOTSUPP,
    }
}

/// Takes up to `room` completions off a queue. Their number, or a negative one for an error.
///
/// # Safety
///
/// `cq` is a completion queue that is not destroyed during the call; `completions` has place for `room` of them.
pub(crate) unsafe fn poll_cq(cq: *mut ibv_cq, room: c_int, completions: *mut ibv_wc) -> c_int {
    // SAFETY: the caller says that the queue is there.
    let context = unsafe { (*cq).context };
    // SAFETY: a queue's context outlives it.
    match unsafe { operations(context) }.poll_cq {
        // SAFETY: the provider's own operation on its own queue; the caller vouches for the room.
        Some(poll) => unsafe { poll(cq, room, completions) },
        None => -libc::EOPNOTSUPP,
    }
}

/// Asks for an event at the next completion. 0, or a number of errno.
///
/// # Safety
///
/// `cq` is a completion queue that is not destroyed during the call.
pub(crate) unsafe fn req_notify_cq(cq: *mut ibv_cq, solicited_only: bool) -> c_int {
    // SAFETY: the caller says that the queue is there.
    let context = unsafe { (*cq).context };
    // SAFETY: a queue's context outlives it.
    match unsafe { operations(context) }.req_notify_cq {
        // SAFETY: the provider's own operation on its own queue.
        Some(notify) => unsafe { notify(cq, c_int::from(solicited_only)) },
        None => libc::EOPNOTSUPP,
    }
}

/// Reads a port's attributes. 0, or a number of errno.
///
/// # Safety
///
/// `context` is an open device of the library that `functions` belong to.
pub(crate) unsafe fn query_port(
    functions: &Functions,
    context: *mut ibv_context,
    port: u8,
    attributes: &mut ibv_port_attr,
) -> c_int {
    // SAFETY: the caller says that the device is open.
    let extended = unsafe { extended(context, offset_of!(verbs_context, query_port)) };
    if let Some(extended) = extended {
        // SAFETY: `extended` has checked that the library's structure reaches as far as this field.
        if let Some(query) = unsafe { (*extended).query_port } {
            // SAFETY: the library is told how much there is to write to.
            return unsafe { query(context, port, attributes, size_of::<ibv_port_attr>()) };
        }
    }
    // The old function writes only the fields that it knows, all of which ours has.
    *attributes = ibv_port_attr::default();
    // SAFETY: the context is open, and the structure that the function knows is a front part of ours.
    unsafe { functions.ibv_query_port(context, port, ptr::from_mut(attributes).cast()) }
}

/// The structure around a context, if the library's reaches as far as the field at `field`: it grows at the front, so
/// that the distance to the end, where the context lies, says which fields there are.
///
/// # Safety
///
/// `context` is an open device.
unsafe fn extended(context: *mut ibv_context, field: usize) -> Option<*mut verbs_context> {
    /// What the library writes into `abi_compat` of a context that lies in a `verbs_context`.
    const EXTENDED: *mut c_void = ptr::without_provenance_mut(usize::MAX);
    // SAFETY: the caller says that the device is open.
    if unsafe { (*context).abi_compat } != EXTENDED {
        return None;
    }
    let around: *mut verbs_context = context.wrapping_byte_sub(offset_of!(verbs_context, context)).cast();
    // SAFETY: the mark says that there is a structure around, whose size lies right before the context.
    let size = unsafe { (*around).sz };
    (size >= size_of::<verbs_context>() - field).then_some(around)
}

/// # Safety
///
/// `context` is an open device, and stays so for as long as the answer is used.
unsafe fn operations<'a>(context: *mut ibv_context) -> &'a ibv_context_ops {
    // SAFETY: the library writes the table when it opens the device, and not again.
    unsafe { &(*context).ops }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(size: usize) -> Box<verbs_context> {
        let mut structure = Box::<verbs_context>::default();
        structure.sz = size;
        structure.context.abi_compat = ptr::without_provenance_mut(usize::MAX);
        structure
    }

    /// A pointer to the context that may be used for what lies around it too.
    fn inside(structure: &mut verbs_context) -> *mut ibv_context {
        ptr::from_mut(structure).wrapping_byte_add(offset_of!(verbs_context, context)).cast()
    }

    #[test]
    fn an_operation_is_found_where_the_structure_reaches_it() {
        let field = offset_of!(verbs_context, query_port);
        let mut same = around(size_of::<verbs_context>());
        let expected = ptr::from_mut(&mut *same);
        // SAFETY: the context is part of a whole structure.
        assert_eq!(unsafe { extended(inside(&mut same), field) }, Some(expected));
        let mut newer = around(size_of::<verbs_context>() + 64);
        // SAFETY: as above; the fields before it are not touched.
        assert!(unsafe { extended(inside(&mut newer), field) }.is_some());
        let mut older = around(size_of::<verbs_context>() - size_of::<usize>());
        // SAFETY: as above.
        assert!(unsafe { extended(inside(&mut older), field) }.is_none());
        // SAFETY: as above.
        assert!(unsafe { extended(inside(&mut older), offset_of!(verbs_context, priv_)) }.is_some());
    }

    #[test]
    fn a_plain_context_has_nothing_around_it() {
        let mut plain = ibv_context::default();
        // SAFETY: the context is there.
        assert!(unsafe { extended(&mut plain, offset_of!(verbs_context, priv_)) }.is_none());
    }

    #[test]
    fn a_port_query_is_told_our_size() {
        unsafe extern "C" fn answer(
            _: *mut ibv_context,
            port: u8,
            attributes: *mut ibv_port_attr,
            size: usize,
        ) -> c_int {
            // SAFETY: the test passes a whole structure.
            let attributes = unsafe { &mut *attributes };
            attributes.lid = u16::from(port);
            attributes.max_msg_sz = size as u32;
            0
        }
        let mut structure = around(size_of::<verbs_context>());
        structure.query_port = Some(answer);
        let found = {
            // SAFETY: the context is part of a whole structure.
            unsafe { extended(inside(&mut structure), offset_of!(verbs_context, query_port)) }.unwrap()
        };
        let mut attributes = ibv_port_attr::default();
        // SAFETY: `found` is that structure.
        let query = unsafe { (*found).query_port }.unwrap();
        // SAFETY: the function above takes a whole structure.
        let code = unsafe { query(inside(&mut structure), 3, &mut attributes, size_of::<ibv_port_attr>()) };
        assert_eq!((code, attributes.lid, attributes.max_msg_sz), (0, 3, size_of::<ibv_port_attr>() as u32));
    }
}
