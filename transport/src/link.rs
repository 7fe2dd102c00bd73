//! The contract of a link: what joins two ranks, and how a chunk of a message moves over it.
//!
//! # Messages
//!
//! A link carries two independent streams of numbered messages, one in each direction. The k-th message that one end
//! opens with [`Link::open_send`] or [`Link::send_eager`] is the k-th that the other end opens with
//! [`Link::open_recv`]; nothing is ever reordered. A message has a length that both ends know and a [`Tag`] that says
//! to which call it belongs; the receiver compares tags **before** it touches its own memory.
//!
//! * An *eager* message (at most [`Limits::eager`] bytes; both ends decide it from the length alone) is copied out of
//!   the sender's memory at once; it needs no grant because every link keeps room for it. A sender may choose the same
//!   for a message of at most [`Limits::unasked`] bytes, whatever its receiver granted.
//! * Any other message opens with two grants. The sender's may name the [`Place`] of its bytes; the receiver's may
//!   name the place where it wants them. No byte of user memory is touched by the other side before.
//!
//! # Modes
//!
//! How a granted message moves is decided by the sender's end and told to the receiver's:
//!
//! | sender's grant | receiver's grant | [`Sink`] at the sender | [`Source`] at the receiver | who moves the bytes |
//! |---|---|---|---|---|
//! | place the peer can read | any | [`Sink::Pulled`] | [`Source::Mapped`] or [`Source::Copy`] | receiver |
//! | none | place mapped here | [`Sink::Mapped`] | [`Source::Landing`] | sender, writing in place |
//! | none | place reachable by copying | [`Sink::Copy`] | [`Source::Landing`] | sender, [`Link::write`] |
//! | none | none | [`Sink::Staged`] | [`Source::Staged`] | sender into a slot, receiver out of it |
//! | (byte streams) any | any | [`Sink::Copy`] | [`Source::Copy`] | both: [`Link::write`], [`Link::read`] |
//! | (network cards) any | place that the card can write | [`Sink::Posted`] | [`Source::Landing`] | the card: [`Link::post`] |
//! | (network cards) place that the card can read | none | [`Sink::Posted`] | [`Source::Staged`] | the card into a slot, receiver out of it |
//!
//! # Bytes that are posted
//!
//! A network card reads what it sends after the call that told it so has returned, and reads it once more if the way on
//! which it went breaks. So bytes that were handed over with [`Link::post`] belong to the link until
//! [`Link::released`] covers them: they stay mapped and unchanged for so long, and the call of the user that they belong
//! to does not end before. `released` counts what the receiver has *counted* as its own, not what has left this end.
//!
//! # Order and progress
//!
//! * Messages of one direction are opened in order, at most [`WINDOW`] unfinished ones at a time. Staged and copied
//!   bytes of one direction move in message order; direct (pulled, landing) messages may finish in any order.
//! * No method blocks, allocates (after set-up) or panics. What a method announces to the peer may be held back until
//!   [`Link::flush`]; a caller flushes before it waits.
//! * [`Link::poll`] takes in what the peer announced. Only `poll` changes what the query methods answer.
//! * After an error every method may return the same error again; the link is then only good to be dropped.
//! * Dropping a link is local and immediate.
//!
//! # Waiting
//!
//! A caller that wants to sleep calls [`Link::arm`] on each link it waits for; if any answers `false`, something has
//! arrived already and it must poll again instead. Otherwise it may sleep on the descriptors of [`Link::watch`]
//! (shared memory: the process's own doorbell, which the peer rings when it sees the armed flag) and calls
//! [`Link::disarm`] afterwards.

use std::os::fd::BorrowedFd;

/// How many unfinished messages one direction of a link holds.
pub const WINDOW: usize = 32;

/// Which call a message belongs to. Opaque to the link; the receiver's engine compares it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Number of the call in its communicator.
    pub sequence: u32,
    /// The call's signature (collective, type, operator, root, count), packed by the engine.
    pub call: [u64; 2],
}

/// Where bytes lie, in terms that the other process can use: a registered region and an offset, or an address in the
/// owner's address space for memory that is reached by copying.
///
/// ```text
///  63        48 47                                              0
/// +------------+------------------------------------------------+
/// | region     | offset in bytes, or address when region = MAX  |
/// +------------+------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    const ADDRESS: u16 = u16::MAX;

    /// `offset` bytes into registered region `region` (1..=65534).
    pub fn in_region(region: u16, offset: u64) -> Place {
        debug_assert!(region != 0 && region != Self::ADDRESS && offset < 1 << 48);
        Place(u64::from(region) << 48 | offset)
    }
    /// Plain memory of the process that names the place.
    pub fn at_address(pointer: *const u8) -> Place {
        Place(u64::from(Self::ADDRESS) << 48 | (pointer as u64 & 0xffff_ffff_ffff))
    }
    /// The region, or `None` for plain memory.
    pub fn region(self) -> Option<u16> {
        Some((self.0 >> 48) as u16).filter(|&region| region != Self::ADDRESS)
    }
    /// Offset in the region, or the address.
    pub fn offset(self) -> u64 {
        self.0 & 0xffff_ffff_ffff
    }
    /// The wire form; never zero.
    pub fn to_bits(self) -> u64 {
        self.0
    }
    /// From the wire form; zero stands for no place.
    pub fn from_bits(bits: u64) -> Option<Place> {
        (bits != 0).then_some(Place(bits))
    }
}

/// Number of a message in its direction, from 0.
pub type MessageId = u64;

/// How the sender's bytes of a granted message leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// The receiver's grant is not here yet.
    Waiting,
    /// The receiver's grant carries another [`Tag`] than this message: it is in another call. Nothing may move.
    Foreign(Tag),
    /// The receiver reads from the place that was offered: wait for [`Link::released`].
    Pulled,
    /// Write the message at this address (byte `i` of the message at `pointer + i`), then say so with
    /// [`Link::wrote`].
    Mapped(*mut u8),
    /// Fill slots: [`Link::reserve`], [`Link::commit`].
    Staged,
    /// The link moves bytes out of local memory: [`Link::write`].
    Copy,
    /// The link reads local memory after it was handed over with [`Link::post`], until [`Link::released`] covers it.
    Posted,
}

/// How the receiver gets the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// All bytes are readable here until [`Link::release`] (an eager message).
    Eager(*const u8),
    /// All bytes are readable here until released: the sender's own memory.
    Mapped(*const u8),
    /// Bytes come in slots: [`Link::peek`], [`Link::release`].
    Staged,
    /// The link moves bytes into local memory: [`Link::read`].
    Copy,
    /// The sender writes in the place that was granted: watch [`Link::landed`].
    Landing,
}

/// The head of a message that the peer has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The peer's call; compare it before anything else.
    pub tag: Tag,
    /// Length in bytes of an eager message; for others the sender's announced length where the link carries it, else
    /// `None` (the tag then implies it).
    pub len: Option<u64>,
    /// How to get the bytes.
    pub source: Source,
}

/// Which transport a link belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Both ends are threads of one process.
    Loopback,
    /// Memory shared by two processes of one host.
    Shm,
    /// TCP sockets.
    Tcp,
    /// Queue pairs of RDMA devices: RoCE, InfiniBand.
    Verbs,
}

impl Kind {
    /// The word that users write and read.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Loopback => "loopback",
            Kind::Shm => "shm",
            Kind::Tcp => "tcp",
            Kind::Verbs => "verbs",
        }
    }
}

/// What a link holds; the same at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest eager message in bytes: what is not longer, both ends know to be eager.
    pub eager: usize,
    /// Longest message in bytes that a sender may send eagerly although its receiver has opened it with a grant, at
    /// least [`Limits::eager`]: it then comes as [`Source::Eager`], and the grant is void.
    pub unasked: usize,
    /// Longest [`Link::reserve`] in bytes; at least the engine's largest chunk.
    pub slot: usize,
}

/// Why a link does not work any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer closed its end: it ended, aborted or was killed.
    #[error("the peer closed the connection while {during}")]
    Closed {
        /// What this end was doing.
        during: &'static str,
    },
    /// The operating system refused.
    #[error("{during}: {source}")]
    Io {
        /// What this end was doing.
        during: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A device reports that a request failed, or refuses one.
    #[error("{during} on {device}{}: {what}", queue_pair.map_or(String::new(), |number| format!(", queue pair {number}")))]
    Verbs {
        /// What this end was doing.
        during: &'static str,
        /// The device.
        device: String,
        /// The number of the queue pair on its device, where one is concerned.
        queue_pair: Option<u32>,
        /// The status of the completion, or the call and its answer, with what it commonly means and what to do.
        what: String,
    },
    /// The peer sent what no peer of this version sends.
    #[error("the peer broke the protocol: {what}")]
    Protocol {
        /// What was seen.
        what: String,
    },
}

/// Result of a link's methods.
pub type Result<T> = std::result::Result<T, LinkError>;

/// One end of a link; see the [module](self) for the contract.
///
/// A link is used by one thread at a time (`Send`, not `Sync`).
///
/// # Errors
/// Every method fails with [`LinkError::Closed`] once the peer is gone, [`LinkError::Io`] when the system refuses,
/// [`LinkError::Verbs`] when a device does, and [`LinkError::Protocol`] when the peer, or this end's caller, breaks the contract.
#[allow(clippy::missing_errors_doc, reason = "said once for all methods above")]
pub trait Link: Send {
    /// Which transport it is.
    fn kind(&self) -> Kind;
    /// What it holds.
    fn limits(&self) -> Limits;

    /// Takes in what the peer has announced since the last time. Never blocks. Cheap when there is nothing: a load
    /// or two in shared memory, one system call per socket.
    fn poll(&mut self) -> Result<()>;
    /// Publishes everything that was announced so far.
    fn flush(&mut self) -> Result<()>;
    /// Whether everything that was announced and flushed has left this process. A caller that will not poll for a
    /// while polls until this is true, or the peer may wait for bytes that are stuck here.
    fn drained(&self) -> bool {
        true
    }
    /// Whether processors of this host do the link's work (a device in software), so that whoever polls without end keeps
    /// from it what it waits for, and should yield instead.
    fn in_software(&self) -> bool {
        false
    }

    // ---- sending ----

    /// Sends a whole message of at most [`Limits::unasked`] bytes. `false`: no room now, nothing happened, poll and
    /// try again.
    ///
    /// # Safety
    /// `bytes` is valid for reads of `len` bytes during the call.
    unsafe fn send_eager(&mut self, tag: Tag, bytes: *const u8, len: usize) -> Result<bool>;
    /// Opens a message of `len` bytes and grants the peer to read it from `source`, if given, until it has released
    /// all of it. A link that cannot use the place ignores it. `None`: the window is full, poll and try again.
    fn open_send(&mut self, tag: Tag, len: u64, source: Option<Place>) -> Result<Option<MessageId>>;
    /// How message `m` leaves, once the peer's grant is here.
    fn sink(&mut self, m: MessageId) -> Result<Sink>;
    /// Memory of `len` bytes (at most [`Limits::slot`]) to be filled with the next bytes of staged message `m`.
    /// `None`: all slots are in use, or an earlier message is not finished; poll and try again.
    fn reserve(&mut self, m: MessageId, len: usize) -> Result<Option<*mut u8>>;
    /// Hands the reserved slot, filled, to the peer.
    fn commit(&mut self, m: MessageId, len: usize) -> Result<()>;
    /// Moves up to `len` bytes from `bytes` to offset `at` of message `m` whose sink is [`Sink::Copy`]; returns how
    /// many went (0: not now). `at` must be what went before.
    ///
    /// # Safety
    /// `bytes` is valid for reads of `len` bytes during the call.
    unsafe fn write(&mut self, m: MessageId, at: u64, bytes: *const u8, len: usize) -> Result<usize>;
    /// Says that the first `total` bytes of message `m` are in the peer's memory ([`Sink::Mapped`] only;
    /// [`Link::write`] counts by itself).
    fn wrote(&mut self, m: MessageId, total: u64) -> Result<()>;
    /// Hands up to `len` bytes for offset `at` of message `m`, whose sink is [`Sink::Posted`], to the link; returns how
    /// many it took (0: not now). `at` must be what was taken before. What was taken stays readable and unchanged until
    /// [`Link::released`] covers it. Links that never answer [`Sink::Posted`] need not implement it.
    ///
    /// # Safety
    /// `bytes` is valid for reads of `len` bytes until `released` covers those that were taken, the message is given up
    /// by dropping the link, or the link has failed.
    unsafe fn post(&mut self, m: MessageId, at: u64, bytes: *const u8, len: usize) -> Result<usize> {
        let _ = (at, bytes, len);
        Err(LinkError::Protocol {
            what: format!("this end, not the peer: posted message {m} on a link that takes none"),
        })
    }
    /// How many bytes of message `m` the receiver has released (its sink is [`Sink::Pulled`]), or need not stay as they
    /// are any more ([`Sink::Posted`]).
    fn released(&mut self, m: MessageId) -> u64;
    /// The caller has no more to do with sent message `m`: all its bytes went out or were released. Frees its place
    /// in the window. (Eager messages are closed by themselves.)
    fn close_send(&mut self, m: MessageId);

    // ---- receiving ----

    /// Opens the next message in the receiving direction, `len` bytes long, eager or not by [`Limits::eager`] unless
    /// `eager` forces it, and grants the peer to write it to `target`, if given, from now until the message has
    /// landed. `None`: the window is full, poll and try again. A caller that gives up before drops the link, and only then
    /// uses that memory for anything else.
    fn open_recv(
        &mut self,
        tag: Tag,
        len: u64,
        eager: bool,
        target: Option<Place>,
    ) -> Result<Option<MessageId>>;
    /// The head of message `m`, once the peer has opened it. Answers the same until released.
    fn incoming(&mut self, m: MessageId) -> Result<Option<Incoming>>;
    /// The next committed slot of staged message `m` that is not released yet.
    fn peek(&mut self, m: MessageId) -> Result<Option<(*const u8, usize)>>;
    /// Moves up to `len` bytes of message `m` from offset `at` to `bytes`; returns how many came (0: not now). For
    /// byte streams `at` must be what came before; for copies out of the peer's memory it is free.
    ///
    /// # Safety
    /// `bytes` is valid for writes of `len` bytes during the call.
    unsafe fn read(&mut self, m: MessageId, at: u64, bytes: *mut u8, len: usize) -> Result<usize>;
    /// How many bytes of message `m` have landed in the granted place.
    fn landed(&mut self, m: MessageId) -> u64;
    /// The caller has used the first `total` bytes of message `m` for good; the sender may have that memory or slot
    /// back. With all bytes released (or landed, for [`Source::Landing`]) and [`Link::close_recv`] called, the
    /// message leaves the window.
    fn release(&mut self, m: MessageId, total: u64) -> Result<()>;
    /// The caller has no more to do with received message `m`.
    fn close_recv(&mut self, m: MessageId);

    // ---- waiting ----

    /// Announces that this end is about to sleep. `false`: something has arrived, poll first.
    fn arm(&mut self) -> bool;
    /// This end is awake again.
    fn disarm(&mut self);
    /// Calls `add` with every descriptor that becomes ready when this end should poll again; the flag asks for
    /// writability too.
    fn watch(&self, add: &mut dyn FnMut(BorrowedFd<'_>, bool));
}
