//! What is on its way to the control socket: frames that wait for the flush, and the rest of what did not fit into the
//! socket.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};

use super::failure::{Failure, not_now};
use super::frame::HEADER;
use crate::link::WINDOW;

/// Payloads up to this many bytes are copied behind their header and leave by `send`; longer ones by `sendmsg` from
/// where they lie. The vectored call costs about 0.1 us more, a copy of this size less.
const COPIED: usize = 2048;
const DURING: &str = "sending on the control socket";

pub(super) struct Outbox {
    /// Fixed at set-up.
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    eager: usize,
    /// The socket took less than it was given.
    blocked: bool,
}

impl Outbox {
    /// Room for one eager message and all the control frames that the two windows allow.
    pub(super) fn new(eager: usize) -> Outbox {
        let bytes = vec![0; 2 * (HEADER + eager) + (2 * WINDOW + 8) * HEADER].into_boxed_slice();
        Outbox { bytes, start: 0, end: 0, eager, blocked: false }
    }

    /// Forgets what waits: there is nobody to read it.
    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        self.blocked = false;
    }

    /// Nothing is waiting.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The socket was full when it was last tried.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Adds a frame without payload; `false` if there is no room for it now.
    pub(super) fn push(&mut self, header: [u8; HEADER]) -> bool {
        // The last part is kept for the one eager message that may find the socket full while frames wait.
        if self.end - self.start + HEADER > self.bytes.len() - (HEADER + self.eager) {
            return false;
        }
        self.append(&header);
        true
    }

    /// Sends all that waits, as far as the socket takes it.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Failure> {
        while !self.is_empty() {
            match send(socket, &self.bytes[self.start..self.end], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => self.start += n,
                Err(errno) if not_now(errno) => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(errno) => return Err(Failure::of_socket(DURING, errno)),
            }
        }
        self.blocked = false;
        (self.start, self.end) = (0, 0);
        Ok(())
    }

    /// Sends all that waits, then `header` and `payload`, in one system call; what the socket does not take is kept.
    /// Not to be called while the socket is known to be full.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        header: [u8; HEADER],
        payload: &[u8],
    ) -> Result<(), Failure> {
        debug_assert!(!self.blocked && payload.len() <= self.eager);
        self.append(&header);
        if payload.len() <= COPIED {
            self.append(payload);
            return self.flush(socket);
        }
        let parts = [IoSlice::new(&self.bytes[self.start..self.end]), IoSlice::new(payload)];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = match sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(n) => n,
            Err(errno) if not_now(errno) => 0,
            Err(errno) => return Err(Failure::of_socket(DURING, errno)),
        };
        let waiting = self.end - self.start;
        self.start += sent.min(waiting);
        self.append(&payload[sent.saturating_sub(waiting)..]);
        self.blocked = !self.is_empty();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.end + bytes.len() > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}
