//! The window of messages that this end receives.

use super::SPAN;
use super::failure::Failure;
use super::inbox::Payload;
use crate::link::{MessageId, Tag, WINDOW};

/// What the peer has announced of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) tag: Tag,
    pub(super) length: u64,
    pub(super) body: Body,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// All here.
    Eager(Payload),
    /// In the bulk stream, from this position.
    Bulk(u64),
}

#[derive(Clone, Copy, Default)]
struct Received {
    head: Option<Head>,
    /// Bytes that the caller is done with: read and released.
    read: u64,
    released: u64,
    closed: bool,
}

impl Received {
    fn is_over(&self) -> bool {
        let done = self.read.max(self.released);
        self.closed && self.head.is_some_and(|head| done >= head.length)
    }
}

/// Which messages were announced by the peer and opened by the caller.
pub(super) struct Receiving {
    /// By number modulo [`SPAN`].
    messages: [Received; SPAN],
    /// Next that the peer announces.
    announced: MessageId,
    /// Next that the caller opens.
    next: MessageId,
    /// No message before this one is in use.
    oldest: MessageId,
    /// Length of all announced messages in the bulk stream.
    stream: u64,
    eager_announced: u64,
    eager_over: u64,
}

impl Receiving {
    pub(super) fn new() -> Receiving {
        Receiving {
            messages: [Received::default(); SPAN],
            announced: 0,
            next: 0,
            oldest: 0,
            stream: 0,
            eager_announced: 0,
            eager_over: 0,
        }
    }

    /// How many eager messages were released since the beginning.
    pub(super) fn eager_over(&self) -> u64 {
        self.eager_over
    }

    /// A message that was announced is not finished yet.
    pub(super) fn is_busy(&self) -> bool {
        self.oldest < self.announced
    }

    /// The peer announces a message: a whole eager one, or one for the bulk stream.
    pub(super) fn announce(
        &mut self,
        message: MessageId,
        tag: Tag,
        length: u64,
        payload: Option<Payload>,
    ) -> Result<(), Failure> {
        let expected = self.announced;
        let unreleased = self.eager_announced - self.eager_over;
        let what = if message != expected {
            format!("message {message} was announced, expected {expected}")
        } else if message - self.oldest >= SPAN as u64 {
            let oldest = self.oldest;
            format!("message {message} was announced while message {oldest} is not finished")
        } else if payload.is_some() && unreleased >= WINDOW as u64 {
            format!("eager message {message} without credit: {unreleased} are not released")
        } else {
            let body = payload.map_or(Body::Bulk(self.stream), Body::Eager);
            match body {
                Body::Eager(_) => self.eager_announced += 1,
                Body::Bulk(_) => self.stream = self.stream.wrapping_add(length),
            }
            self.messages[slot(message)].head = Some(Head { tag, length, body });
            self.announced += 1;
            return Ok(());
        };
        Err(Failure::Protocol { what })
    }

    /// Number of the next message, if the window has room for it.
    pub(super) fn room(&self) -> Option<MessageId> {
        (self.next - self.oldest < WINDOW as u64).then_some(self.next)
    }

    /// The caller has opened the message that [`Receiving::room`] numbered.
    pub(super) fn opened(&mut self) {
        self.next += 1;
    }

    /// The head of an open message, if it is announced.
    pub(super) fn head(&self, m: MessageId) -> Option<Head> {
        self.messages[slot(m)].head.filter(|_| self.is_open(m))
    }

    /// `n` bytes of `m` were read from the bulk stream.
    pub(super) fn read(&mut self, m: MessageId, n: usize) -> Option<Payload> {
        self.messages[slot(m)].read += n as u64;
        self.settle(m)
    }

    /// The caller is done with the first `total` bytes. Returns the payload that nobody needs any more, if any; so do
    /// the others that may finish a message.
    pub(super) fn release(&mut self, m: MessageId, total: u64) -> Option<Payload> {
        if !self.is_open(m) {
            return None;
        }
        let message = &mut self.messages[slot(m)];
        message.released = message.released.max(total);
        self.settle(m)
    }

    pub(super) fn close(&mut self, m: MessageId) -> Option<Payload> {
        if !self.is_open(m) {
            return None;
        }
        self.messages[slot(m)].closed = true;
        self.settle(m)
    }

    fn is_open(&self, m: MessageId) -> bool {
        m >= self.oldest && m < self.next && !self.messages[slot(m)].is_over()
    }

    fn settle(&mut self, m: MessageId) -> Option<Payload> {
        let message = &self.messages[slot(m)];
        let head = message.head.filter(|_| message.is_over())?;
        while self.oldest < self.next && self.messages[slot(self.oldest)].is_over() {
            self.messages[slot(self.oldest)] = Received::default();
            self.oldest += 1;
        }
        match head.body {
            Body::Eager(payload) => {
                self.eager_over += 1;
                Some(payload)
            }
            Body::Bulk(_) => None,
        }
    }
}

fn slot(m: MessageId) -> usize {
    (m % SPAN as u64) as usize
}
