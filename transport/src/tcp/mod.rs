//! A link over TCP sockets.
//!
//! The first socket carries *control*: small frames ([`frame`]), among them whole eager messages. The receiver always
//! takes them into memory of its own ([`inbox`]) when it polls, so that nothing on this socket ever waits for
//! a caller. The other sockets carry *bulk*: the bytes of granted messages, bare, straight out of the sender's memory
//! and into the receiver's ([`bulk`]). Two sockets are the least: on a shared one, frames would wait behind bytes that
//! the receiver's caller is not ready to take, and two ends in that state would wait for one another for ever.
//!
//! ```text
//!   sender                                            receiver
//!     |  eager(m, tag, bytes) ----- control ------------> |  kept until released; counts against 32 credits
//!     |                                                   |
//!     |  open(m+1, tag, length) --- control ------------> |  grant(m+1, tag, length), once the caller opens it
//!     | <-------------------------- control --- grant --- |
//!     |  bytes ==================== bulk ===============> |  read straight into the caller's memory
//! ```
//!
//! Nothing enters a socket that its receiver has not made room for: eager messages by credits, counted in messages and
//! given back in every frame's header, bulk bytes by grants. Open and grant cross on the way, so a granted message
//! costs one one-way trip of a frame before its first byte.
//!
//! A peer that closes its sockets in good order is only reported once everything that it had announced is consumed, or
//! when something is still to be sent to it. Good order needs care above the link: a system that receives anything on a
//! socket that is closed already answers with a reset and may discard what it has not sent yet. Whoever drops a link
//! whose last messages the peer may not have received yet first needs a sign from the peer (any later message, or the
//! control plane's farewell).
//!
//! An eager message or a frame that finds the control socket full is kept and leaves with a later [`Link::poll`],
//! [`Link::flush`] or send. The control socket's send buffer is made long enough for all that credits allow, so this
//! happens only where the system clamps it (`net.core.wmem_max`).
//!
//! # Waiting
//!
//! [`Link::watch`] names the control socket always, a bulk socket only in the direction in which the last
//! [`Link::read`] or [`Link::write`] made no full progress. Call it before each sleep: the answer changes.

//!
//! # What was measured
//!
//! On loopback, two processes on two cores with other work beside, 10th percentile of an exchange (`tcp_probe`):
//!
//! * 8 bytes 3.5-4.0 us, a bare exchange of 8 bytes by `send` and `recv` 3.3-3.9 us in the same minutes.
//! * Socket buffers left to the system, 256 KiB and 4 MiB: 256 KiB in two halves takes 66.6, 66.6 and 67.8 us. So the
//!   system decides.
//! * Eager limit 32 KiB against 128 KiB: 64 KiB takes a median of 31-34 us granted and 27-29 us eager, but costs four
//!   times the memory and a copy wherever bytes are only received. Two eager messages of 32 KiB take 27-29 us as well.
//! * `SO_BUSY_POLL` and `TCP_QUICKACK` are not set: loopback has no queue to poll and answers carry the
//!   acknowledgement. (Not measured.)

mod bulk;
mod failure;
mod frame;
mod inbox;
mod outbox;
mod receiving;
mod sending;

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, recv, sockopt};

use crate::link::{
    Incoming, Kind, Limits, Link, LinkError, MessageId, Place, Result, Sink, Source, Tag, WINDOW,
};
use bulk::Bulk;
use failure::{Failure, not_now};
use frame::Frame;
use inbox::{Inbox, Payload};
use outbox::Outbox;
use receiving::{Body, Receiving};
use sending::{Sending, Standing};

/// How far apart the numbers of two messages in use may be: the sender's window, the receiver's, and the eager
/// messages that are sent and not yet opened, 32 each, rounded up to a power of two.
const SPAN: usize = 128;

const _: () = assert!(SPAN >= 3 * WINDOW && SPAN.is_power_of_two());

/// Settings of a [`TcpLink`]; `eager` and `stripe` must be the same at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Longest eager message in bytes.
    pub eager: usize,
    /// What [`Limits::slot`] reports, in bytes. TCP has no slots, every long message is copied by the sockets; this
    /// only tells the engine how long its chunks may be.
    pub slot: usize,
    /// Send and receive buffer asked for each socket, in bytes; the system clamps it to `net.core.wmem_max` and
    /// `rmem_max`. `None` leaves the size to the system, which then adapts it; only the
    /// control socket's send buffer is then asked to hold the 32 eager messages that credits allow.
    pub socket_buffer: Option<usize>,
    /// With more than one bulk socket: bytes that go to one of them before it is the next one's turn.
    pub stripe: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { eager: 32 << 10, slot: 1 << 20, socket_buffer: None, stripe: 128 << 10 }
    }
}

/// One end of a link over TCP; see the module's notes for the protocol.
pub struct TcpLink {
    control: OwnedFd,
    bulk: Bulk,
    inbox: Inbox,
    outbox: Outbox,
    sending: Sending,
    receiving: Receiving,
    /// The released count that the peer was last told.
    credited: u64,
    options: Options,
    /// The control socket has ended; what had arrived is still good.
    ended: Option<Failure>,
    /// Nothing works any more.
    failed: Option<Failure>,
}

impl TcpLink {
    /// A link over connected sockets, the first for control and at least one more for bulk. The k-th socket here must
    /// be connected to the k-th of the peer, and nothing may be unread in any of them. IPv4 or IPv6 makes no
    /// difference. Whether the sockets block does not either: every call asks not to.
    ///
    /// # Errors
    /// [`LinkError::Io`] if there are fewer than two sockets, if an option makes no sense, if a socket refuses an
    /// option (it is not a TCP socket), or if there is no memory for the receive buffers (34 times twice the eager
    /// limit of address space, resident only as used).
    pub fn new(sockets: Vec<impl Into<OwnedFd>>, options: &Options) -> Result<TcpLink> {
        let mut sockets: Vec<OwnedFd> = sockets.into_iter().map(Into::into).collect();
        if sockets.len() < 2 {
            return Err(
                Failure::Misuse { what: "a link needs at least two sockets: control and bulk" }.into()
            );
        }
        if options.eager > 1 << 24 || options.stripe == 0 {
            return Err(Failure::Misuse { what: "eager limit above 16 MiB or stripe of zero bytes" }.into());
        }
        for (i, socket) in sockets.iter().enumerate() {
            prepare(socket.as_fd(), i == 0, options)?;
        }
        let control = sockets.remove(0);
        let inbox = Inbox::new(options.eager)
            .map_err(|errno| system("reserving memory for eager messages", errno))?;
        Ok(TcpLink {
            control,
            bulk: Bulk::new(sockets.into_boxed_slice(), options.stripe),
            inbox,
            outbox: Outbox::new(options.eager),
            sending: Sending::new(),
            receiving: Receiving::new(),
            credited: 0,
            options: *options,
            ended: None,
            failed: None,
        })
    }

    /// One look at the control socket; all frames that came are taken in.
    fn receive(&mut self) -> std::result::Result<(), Failure> {
        let during = "receiving on the control socket";
        while self.ended.is_none() {
            let (space, len) = self.inbox.space();
            if len == 0 {
                return Err(Failure::Protocol { what: "more eager messages than credits".into() });
            }
            // SAFETY: the inbox names `len` bytes of its own mapping that nobody else reads or writes.
            let space = unsafe { std::slice::from_raw_parts_mut(space.cast::<MaybeUninit<u8>>(), len) };
            let n = match recv(&self.control, space, RecvFlags::DONTWAIT) {
                Ok((_, n)) => n,
                Err(errno) if not_now(errno) => return Ok(()),
                Err(errno) => {
                    self.end(Failure::of_socket(during, errno));
                    return Ok(());
                }
            };
            if n == 0 {
                self.end(Failure::Closed { during });
            }
            self.inbox.filled(n);
            self.take_frames()?;
            if n < len {
                break;
            }
        }
        Ok(())
    }

    fn take_frames(&mut self) -> std::result::Result<(), Failure> {
        while let Some((frame, released, payload)) =
            self.inbox.next().map_err(|what| Failure::Protocol { what })?
        {
            self.sending.credited(released)?;
            match frame {
                Frame::Eager { message, tag, length } => {
                    self.receiving.announce(message, tag, length, Some(payload))?;
                }
                Frame::Open { message, tag, length } => {
                    self.receiving.announce(message, tag, length, None)?
                }
                Frame::Grant { message, tag, length } => self.sending.granted(message, tag, length)?,
                Frame::Credit => {}
            }
        }
        Ok(())
    }

    /// Sends what waits for the control socket.
    fn push_out(&mut self) {
        if let Err(failure) = self.outbox.flush(self.control.as_fd()) {
            self.end(failure);
        }
    }

    /// The control socket has ended: nothing can be sent or will come any more.
    fn end(&mut self, failure: Failure) {
        self.ended.get_or_insert(failure);
        self.outbox.clear();
    }

    /// An error if the link is broken, or if it has ended and nothing that is complete is left to be consumed.
    fn check(&self) -> Result<()> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        match &self.ended {
            Some(failure) if self.owes_bytes() || !self.receiving.is_busy() => Err(failure.into()),
            _ => Ok(()),
        }
    }

    fn check_can_send(&self) -> Result<()> {
        match self.failed.as_ref().or(self.ended.as_ref()) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Messages were opened and not all of their bytes are in the sockets.
    fn owes_bytes(&self) -> bool {
        self.sending.is_busy() && self.sending.stream() != self.bulk.written()
    }

    fn fail<T>(&mut self, failure: Failure) -> Result<T> {
        let error = LinkError::from(&failure);
        // A caller's mistake harms nothing, the link stays as it is.
        if !matches!(failure, Failure::Misuse { .. }) {
            self.failed = Some(failure);
        }
        Err(error)
    }

    /// Encodes a frame that tells the peer of all credits.
    fn stamp(&mut self, frame: Frame) -> [u8; frame::HEADER] {
        self.credited = self.receiving.eager_over();
        frame::encode(frame, self.credited)
    }

    /// An eager message is over: its memory is free, and the sender learns so at the latest when half of its credits
    /// are used up.
    fn give_back(&mut self, payload: Option<Payload>) {
        let Some(payload) = payload else { return };
        self.inbox.unpin(payload);
        let owed = self.receiving.eager_over() - self.credited;
        if owed >= WINDOW as u64 / 2 && self.ended.is_none() {
            let before = self.credited;
            let frame = self.stamp(Frame::Credit);
            if !self.outbox.push(frame) {
                // What fills the outbox carries older counts; the next message that is released tries again.
                self.credited = before;
            }
            self.push_out();
        }
    }
}

impl Link for TcpLink {
    fn kind(&self) -> Kind {
        Kind::Tcp
    }

    fn limits(&self) -> Limits {
        Limits { eager: self.options.eager, unasked: self.options.eager, slot: self.options.slot }
    }

    fn poll(&mut self) -> Result<()> {
        if self.outbox.is_blocked() {
            self.push_out();
        }
        if self.failed.is_none()
            && let Err(failure) = self.receive()
        {
            return self.fail(failure);
        }
        self.check()
    }

    fn flush(&mut self) -> Result<()> {
        if !self.outbox.is_empty() {
            self.push_out();
        }
        self.check()
    }

    fn drained(&self) -> bool {
        self.outbox.is_empty()
    }

    unsafe fn send_eager(&mut self, tag: Tag, bytes: *const u8, len: usize) -> Result<bool> {
        self.check_can_send()?;
        if len > self.options.eager {
            return self.fail(Failure::Misuse { what: "an eager message above the eager limit" });
        }
        if self.outbox.is_blocked() {
            self.push_out();
        }
        let Some(message) = self.sending.eager_room().filter(|_| !self.outbox.is_blocked()) else {
            return self.check_can_send().map(|()| false);
        };
        // A null pointer is fine for no bytes, but not for a slice.
        let payload = if len == 0 {
            &[]
        } else {
            // SAFETY: the caller vouches for `len` readable bytes during this call.
            unsafe { std::slice::from_raw_parts(bytes, len) }
        };
        let header = self.stamp(Frame::Eager { message, tag, length: len as u64 });
        if let Err(failure) = self.outbox.send(self.control.as_fd(), header, payload) {
            self.end(failure);
        }
        self.sending.sent_eager();
        self.check_can_send().map(|()| true)
    }

    fn open_send(&mut self, tag: Tag, len: u64, _source: Option<Place>) -> Result<Option<MessageId>> {
        self.check_can_send()?;
        let Some(message) = self.sending.open_room() else { return Ok(None) };
        let header = self.stamp(Frame::Open { message, tag, length: len });
        if !self.outbox.push(header) {
            return Ok(None);
        }
        self.sending.opened(tag, len);
        Ok(Some(message))
    }

    fn sink(&mut self, m: MessageId) -> Result<Sink> {
        self.check()?;
        Ok(match self.sending.standing(m) {
            Standing::Waiting => Sink::Waiting,
            Standing::Granted => Sink::Copy,
            Standing::Foreign(tag) => Sink::Foreign(tag),
        })
    }

    fn reserve(&mut self, _m: MessageId, _len: usize) -> Result<Option<*mut u8>> {
        self.fail(Failure::Misuse { what: "no message of a TCP link is staged" })
    }

    fn commit(&mut self, _m: MessageId, _len: usize) -> Result<()> {
        self.fail(Failure::Misuse { what: "no message of a TCP link is staged" })
    }

    unsafe fn write(&mut self, m: MessageId, at: u64, bytes: *const u8, len: usize) -> Result<usize> {
        if len == 0 {
            // All went before; the peer may have left with it.
            return Ok(0);
        }
        self.check_can_send()?;
        if !self.outbox.is_empty() {
            // The announcement goes before the bytes.
            self.push_out();
            self.check_can_send()?;
        }
        let (position, most) = match self.sending.span(m, at) {
            Ok(Some(span)) if self.outbox.is_empty() => span,
            Ok(_) => return Ok(0),
            Err(failure) => return self.fail(failure),
        };
        let len = (len as u64).min(most) as usize;
        if position > self.bulk.written() || len == 0 {
            return Ok(0); // an earlier message is not through yet
        }
        if position < self.bulk.written() {
            return self.fail(Failure::Misuse { what: "writing bytes that went before" });
        }
        // SAFETY: the caller vouches for at least `len` readable bytes during this call.
        let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
        self.bulk.write(bytes).or_else(|failure| self.fail(failure))
    }

    fn wrote(&mut self, _m: MessageId, _total: u64) -> Result<()> {
        self.fail(Failure::Misuse { what: "no message of a TCP link is written in place" })
    }

    fn released(&mut self, _m: MessageId) -> u64 {
        0
    }

    fn close_send(&mut self, m: MessageId) {
        self.sending.close(m);
    }

    fn open_recv(
        &mut self,
        tag: Tag,
        len: u64,
        eager: bool,
        _target: Option<Place>,
    ) -> Result<Option<MessageId>> {
        self.check()?;
        let Some(message) = self.receiving.room() else { return Ok(None) };
        let granted = !eager && len > self.options.eager as u64;
        if granted && self.ended.is_none() {
            let header = self.stamp(Frame::Grant { message, tag, length: len });
            if !self.outbox.push(header) {
                return Ok(None);
            }
        }
        self.receiving.opened();
        Ok(Some(message))
    }

    fn incoming(&mut self, m: MessageId) -> Result<Option<Incoming>> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        Ok(self.receiving.head(m).map(|head| {
            let source = match head.body {
                Body::Eager(payload) => Source::Eager(self.inbox.pointer(payload)),
                Body::Bulk(_) => Source::Copy,
            };
            Incoming { tag: head.tag, len: Some(head.length), source }
        }))
    }

    fn peek(&mut self, _m: MessageId) -> Result<Option<(*const u8, usize)>> {
        self.fail(Failure::Misuse { what: "no message of a TCP link is staged" })
    }

    unsafe fn read(&mut self, m: MessageId, at: u64, bytes: *mut u8, len: usize) -> Result<usize> {
        if let Some(failure) = &self.failed {
            return Err(failure.into());
        }
        let Some(head) = self.receiving.head(m) else { return Ok(0) };
        let Body::Bulk(base) = head.body else {
            return self.fail(Failure::Misuse { what: "reading an eager message from the bulk sockets" });
        };
        let len = (len as u64).min(head.length.saturating_sub(at)) as usize;
        let position = base.wrapping_add(at);
        if position > self.bulk.read_so_far() || len == 0 {
            return Ok(0); // an earlier message is not through yet
        }
        if position < self.bulk.read_so_far() {
            return self.fail(Failure::Misuse { what: "reading bytes that came before" });
        }
        // SAFETY: the caller vouches for at least `len` writable bytes during this call, and grants them to this
        // message alone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(bytes.cast::<MaybeUninit<u8>>(), len) };
        match self.bulk.read(bytes) {
            Ok(n) => {
                let payload = self.receiving.read(m, n);
                self.give_back(payload);
                Ok(n)
            }
            Err(failure) => self.fail(failure),
        }
    }

    fn landed(&mut self, _m: MessageId) -> u64 {
        0
    }

    fn release(&mut self, m: MessageId, total: u64) -> Result<()> {
        let payload = self.receiving.release(m, total);
        self.give_back(payload);
        Ok(())
    }

    fn close_recv(&mut self, m: MessageId) {
        let payload = self.receiving.close(m);
        self.give_back(payload);
    }

    fn arm(&mut self) -> bool {
        // What has arrived meanwhile makes the descriptors ready.
        self.check().is_ok()
    }

    fn disarm(&mut self) {}

    fn watch(&self, add: &mut dyn FnMut(BorrowedFd<'_>, bool)) {
        if self.ended.is_none() {
            add(self.control.as_fd(), !self.outbox.is_empty());
        }
        self.bulk.watch(add);
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        // Closing a socket with unread bytes, credits say, resets the connection and may take bytes along that are
        // still on their way out. One look never blocks; frames that come later are the caller's concern.
        let _ = self.receive();
    }
}

fn prepare(socket: BorrowedFd<'_>, control: bool, options: &Options) -> Result<()> {
    sockopt::set_tcp_nodelay(socket, true)
        .map_err(|errno| system("setting TCP_NODELAY on a socket", errno))?;
    if control && options.socket_buffer.is_none() {
        // Room for all that credits allow, so that an eager message whole leaves this process when it is sent.
        sockopt::set_socket_send_buffer_size(socket, WINDOW * (frame::HEADER + options.eager))
            .map_err(|errno| system("setting the send buffer of a socket", errno))?;
    }
    if let Some(bytes) = options.socket_buffer {
        sockopt::set_socket_send_buffer_size(socket, bytes)
            .map_err(|errno| system("setting the send buffer of a socket", errno))?;
        sockopt::set_socket_recv_buffer_size(socket, bytes)
            .map_err(|errno| system("setting the receive buffer of a socket", errno))?;
    }
    Ok(())
}

fn system(during: &'static str, errno: rustix::io::Errno) -> LinkError {
    Failure::System { during, errno }.into()
}
