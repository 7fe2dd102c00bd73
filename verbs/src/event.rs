//! What a device reports unasked: a port that goes down, a queue pair that fails.

use std::io;

use crate::completion::Token;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::queue_pair::QpNumber;
use crate::sys::{ibv_async_event, ibv_event_type as EventType};

/// An asynchronous event (ibv_get_async_event(3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsyncEvent {
    /// Something happened to a queue pair.
    QueuePair {
        /// Which.
        number: QpNumber,
        /// What.
        event: QueuePairEvent,
    },
    /// A completion queue overflowed or failed; its completions are lost, and its queue pairs fail.
    CompletionQueueFailed {
        /// The token that it was made with.
        token: Token,
    },
    /// Something happened to a port.
    Port {
        /// Which, from 1.
        port: u8,
        /// What.
        event: PortEvent,
    },
    /// The device has failed as a whole and must be closed.
    DeviceFailed,
    /// Another; the number of `enum ibv_event_type`.
    Other(u32),
}

/// What happens to queue pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueuePairEvent {
    /// It failed and is in the error state.
    Failed,
    /// The peer sent a request that is not valid; it is in the error state.
    InvalidRequest,
    /// The peer tried to reach memory that it may not; it is in the error state.
    AccessViolation,
    /// The first packet of the peer arrived while it was ready to receive only.
    Established,
    /// Its send queue was drained on request.
    Drained,
    /// The last receive request of a shared queue was taken by it.
    LastRequestReached,
    /// It moved to its alternative path, or failed to.
    Migrated,
}

/// What happens to ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortEvent {
    /// It can carry traffic now.
    Up,
    /// It cannot any more.
    Down,
    /// Its table of GIDs changed: an address came or went.
    GidsChanged,
    /// Its table of partition keys changed.
    PartitionKeysChanged,
    /// Its local identifier changed, or the subnet manager did, or that wants everybody to register anew.
    SubnetChanged,
}

pub(crate) fn next(context: &Context) -> Result<Option<AsyncEvent>> {
    let mut raw = ibv_async_event::default();
    // SAFETY: the context is open; the function writes one event.
    if unsafe { context.functions().ibv_get_async_event(context.raw(), &mut raw) } != 0 {
        let source = io::Error::last_os_error();
        return match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(Error::call("ibv_get_async_event", context.name(), source)),
        };
    }
    // SAFETY: libibverbs has just filled the event in, and what it points to cannot be destroyed before it is
    // acknowledged.
    let event = unsafe { read(&raw) };
    // Acknowledged at once, because destroying what an event is about waits for that.
    // SAFETY: each event is acknowledged once.
    unsafe { context.functions().ibv_ack_async_event(&mut raw) };
    Ok(Some(event))
}

/// # Safety
///
/// The pointer of the event is valid, if its kind has one.
unsafe fn read(raw: &ibv_async_event) -> AsyncEvent {
    let queue_pair = |event| {
        // SAFETY: events of these kinds have a queue pair.
        let at = unsafe { raw.element.qp };
        // SAFETY: the caller says that it is valid.
        AsyncEvent::QueuePair { number: QpNumber(unsafe { (*at).qp_num }), event }
    };
    let port = |event| {
        // SAFETY: events of these kinds have a port's number.
        let number = unsafe { raw.element.port_num };
        AsyncEvent::Port { port: number as u8, event }
    };
    match raw.event_type {
        EventType::IBV_EVENT_QP_FATAL => queue_pair(QueuePairEvent::Failed),
        EventType::IBV_EVENT_QP_REQ_ERR => queue_pair(QueuePairEvent::InvalidRequest),
        EventType::IBV_EVENT_QP_ACCESS_ERR => queue_pair(QueuePairEvent::AccessViolation),
        EventType::IBV_EVENT_COMM_EST => queue_pair(QueuePairEvent::Established),
        EventType::IBV_EVENT_SQ_DRAINED => queue_pair(QueuePairEvent::Drained),
        EventType::IBV_EVENT_QP_LAST_WQE_REACHED => queue_pair(QueuePairEvent::LastRequestReached),
        EventType::IBV_EVENT_PATH_MIG | EventType::IBV_EVENT_PATH_MIG_ERR => {
            queue_pair(QueuePairEvent::Migrated)
        }
        EventType::IBV_EVENT_CQ_ERR => {
            // SAFETY: events of this kind have a completion queue.
            let at = unsafe { raw.element.cq };
            // SAFETY: the caller says that it is valid.
            AsyncEvent::CompletionQueueFailed { token: unsafe { (*at).cq_context }.addr() as Token }
        }
        EventType::IBV_EVENT_PORT_ACTIVE => port(PortEvent::Up),
        EventType::IBV_EVENT_PORT_ERR => port(PortEvent::Down),
        EventType::IBV_EVENT_GID_CHANGE => port(PortEvent::GidsChanged),
        EventType::IBV_EVENT_PKEY_CHANGE => port(PortEvent::PartitionKeysChanged),
        EventType::IBV_EVENT_LID_CHANGE
        | EventType::IBV_EVENT_SM_CHANGE
        | EventType::IBV_EVENT_CLIENT_REREGISTER => port(PortEvent::SubnetChanged),
        EventType::IBV_EVENT_DEVICE_FATAL => AsyncEvent::DeviceFailed,
        other => AsyncEvent::Other(other.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ibv_async_event__bindgen_ty_1 as Element, ibv_cq, ibv_qp};

    fn event(event_type: EventType, element: Element) -> AsyncEvent {
        // SAFETY: the tests pass what belongs to the kind.
        unsafe { read(&ibv_async_event { element, event_type }) }
    }

    #[test]
    fn events_name_what_they_are_about() {
        let mut qp = ibv_qp { qp_num: 17, ..Default::default() };
        let mut cq = ibv_cq { cq_context: std::ptr::without_provenance_mut(5), ..Default::default() };
        assert_eq!(
            event(EventType::IBV_EVENT_QP_ACCESS_ERR, Element { qp: &mut qp }),
            AsyncEvent::QueuePair { number: QpNumber(17), event: QueuePairEvent::AccessViolation }
        );
        assert_eq!(
            event(EventType::IBV_EVENT_CQ_ERR, Element { cq: &mut cq }),
            AsyncEvent::CompletionQueueFailed { token: 5 }
        );
        assert_eq!(
            event(EventType::IBV_EVENT_PORT_ERR, Element { port_num: 2 }),
            AsyncEvent::Port { port: 2, event: PortEvent::Down }
        );
        assert_eq!(
            event(EventType::IBV_EVENT_DEVICE_FATAL, Element { port_num: 0 }),
            AsyncEvent::DeviceFailed
        );
        assert_eq!(event(EventType(99), Element { port_num: 0 }), AsyncEvent::Other(99));
    }
}
