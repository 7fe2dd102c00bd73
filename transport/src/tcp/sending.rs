//! The window of messages that this end sends.

use super::SPAN;
use super::failure::Failure;
use crate::link::{MessageId, Tag, WINDOW};

/// One granted message, from its opening to its closing.
#[derive(Clone, Copy, Default)]
struct Sent {
    open: bool,
    tag: Tag,
    length: u64,
    /// Where it begins in the bulk stream.
    base: u64,
}

/// What the receiver has said of a message.
#[derive(Clone, Copy, Default)]
struct Grant {
    /// The message's number plus one; zero for no message.
    number: u64,
    tag: Tag,
    length: u64,
}

/// How an open message stands with its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Waiting,
    Granted,
    /// The receiver has opened a message of another call instead.
    Foreign(Tag),
}

/// Which messages were opened, granted and closed, and how many credits for eager ones are left.
pub(super) struct Sending {
    /// By number modulo [`SPAN`].
    messages: [Sent; SPAN],
    /// By number modulo [`SPAN`]: the last grant seen there. A grant may come before its message is opened, and for a
    /// message that was sent eagerly (a mismatch that the receiver's caller finds).
    grants: [Grant; SPAN],
    next: MessageId,
    /// No message before this one is open.
    oldest: MessageId,
    open: usize,
    /// Lowest number that the next grant may have.
    next_grant: MessageId,
    /// Length of all granted messages opened so far.
    stream: u64,
    eager_sent: u64,
    eager_released: u64,
}

impl Sending {
    pub(super) fn new() -> Sending {
        Sending {
            messages: [Sent::default(); SPAN],
            grants: [Grant::default(); SPAN],
            next: 0,
            oldest: 0,
            open: 0,
            next_grant: 0,
            stream: 0,
            eager_sent: 0,
            eager_released: 0,
        }
    }

    /// Messages are open.
    pub(super) fn is_busy(&self) -> bool {
        self.open > 0
    }

    /// Length of all messages opened for the bulk stream so far.
    pub(super) fn stream(&self) -> u64 {
        self.stream
    }

    /// Number of the next message, if it may be an eager one now.
    pub(super) fn eager_room(&self) -> Option<MessageId> {
        let credits = self.eager_sent - self.eager_released < WINDOW as u64;
        (credits && self.in_span()).then_some(self.next)
    }

    /// The message that [`Sending::eager_room`] numbered was sent.
    pub(super) fn sent_eager(&mut self) {
        self.eager_sent += 1;
        self.advance();
    }

    /// Number of the next message, if it may be opened now.
    pub(super) fn open_room(&self) -> Option<MessageId> {
        (self.open < WINDOW && self.in_span()).then_some(self.next)
    }

    /// The message that [`Sending::open_room`] numbered is opened.
    pub(super) fn opened(&mut self, tag: Tag, length: u64) {
        self.messages[slot(self.next)] = Sent { open: true, tag, length, base: self.stream };
        self.open += 1;
        self.stream = self.stream.wrapping_add(length);
        self.advance();
    }

    /// The peer takes `length` bytes of `message`, if it has this tag.
    pub(super) fn granted(&mut self, message: MessageId, tag: Tag, length: u64) -> Result<(), Failure> {
        let ahead = self.next.saturating_add(WINDOW as u64);
        if message < self.next_grant || message >= ahead {
            let (first, next) = (self.next_grant, self.next);
            return Err(Failure::Protocol {
                what: format!(
                    "grant of message {message}, expected {first}..{ahead} (next to be opened: {next})"
                ),
            });
        }
        self.next_grant = message + 1;
        self.grants[slot(message)] = Grant { number: message + 1, tag, length };
        Ok(())
    }

    /// The peer has released `total` eager messages since the beginning.
    pub(super) fn credited(&mut self, total: u64) -> Result<(), Failure> {
        if total < self.eager_released || total > self.eager_sent {
            let (before, sent) = (self.eager_released, self.eager_sent);
            return Err(Failure::Protocol {
                what: format!("{total} eager messages released, expected {before}..={sent}"),
            });
        }
        self.eager_released = total;
        Ok(())
    }

    /// Whether the grant of open message `m` is here, and for the same call.
    pub(super) fn standing(&self, m: MessageId) -> Standing {
        let grant = &self.grants[slot(m)];
        if grant.number != m + 1 {
            Standing::Waiting
        } else if grant.tag != self.messages[slot(m)].tag {
            Standing::Foreign(grant.tag)
        } else {
            Standing::Granted
        }
    }

    /// Position in the bulk stream of byte `at` of open message `m`, and how many bytes from there may be written;
    /// `None` without a grant for the same call.
    pub(super) fn span(&self, m: MessageId, at: u64) -> Result<Option<(u64, u64)>, Failure> {
        let message = &self.messages[slot(m)];
        if m < self.oldest || m >= self.next || !message.open {
            return Err(Failure::Misuse { what: "writing to a message that is not open" });
        }
        if self.standing(m) != Standing::Granted {
            return Ok(None);
        }
        let granted = self.grants[slot(m)].length;
        Ok(Some((message.base.wrapping_add(at), message.length.min(granted).saturating_sub(at))))
    }

    pub(super) fn close(&mut self, m: MessageId) {
        let message = &mut self.messages[slot(m)];
        if m >= self.oldest && m < self.next && message.open {
            message.open = false;
            self.open -= 1;
            self.forget_closed();
        }
    }

    fn advance(&mut self) {
        self.next += 1;
        self.forget_closed();
    }

    fn forget_closed(&mut self) {
        while self.oldest < self.next && !self.messages[slot(self.oldest)].open {
            self.oldest += 1;
        }
    }

    fn in_span(&self) -> bool {
        self.next - self.oldest < SPAN as u64
    }
}

fn slot(m: MessageId) -> usize {
    (m % SPAN as u64) as usize
}
