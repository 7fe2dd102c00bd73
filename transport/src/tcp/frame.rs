//! The frames of the control socket.
//!
//! Every frame starts with the same 48 bytes, all integers little-endian:
//!
//! ```text
//!  byte  0      2     3     4          8                16               24
//!       +------+-----+-----+----------+----------------+----------------+
//!       | magic| kind| 0   | sequence | message        | length         |
//!       +------+-----+-----+----------+----------------+----------------+
//!       | call[0]                     | call[1]        | released       |
//!       +-----------------------------+----------------+----------------+
//!       24                            32               40               48
//! ```
//!
//! * `magic` is 0x7C52.
//! * `kind`: 1 eager (its `length` payload bytes follow), 2 open, 3 grant, 4 credit. Only an eager frame has a payload.
//! * `sequence` and `call` are the [`Tag`] of the sender's message, in a grant that of the receiver's; zero in a credit
//!   frame.
//! * `message` numbers the message in the direction from the sender of an eager or open frame to its receiver; in a
//!   grant it is a message of the other direction. Zero in a credit frame.
//! * `length` is the length of the message, in bytes.
//! * `released` is how many eager messages the sender of this frame has received and released since the link began.
//!   Every frame carries it, so that a credit frame is needed only where nothing else flows back.
//!
//! One size for all frames costs an eager message of 8 bytes about 16 bytes more than a compact form would; the
//! system call around them costs a hundred times as much.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::link::{MessageId, Tag};

/// Bytes before the payload of any frame.
pub(super) const HEADER: usize = 48;

const MAGIC: u16 = 0x7C52;
const EAGER: u8 = 1;
const OPEN: u8 = 2;
const GRANT: u8 = 3;
const CREDIT: u8 = 4;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A whole message whose `length` bytes follow the header.
    Eager { message: MessageId, tag: Tag, length: u64 },
    /// The sender has opened a message of `length` bytes and waits for the grant.
    Open { message: MessageId, tag: Tag, length: u64 },
    /// The receiver takes `length` bytes of a message, if it has this tag.
    Grant { message: MessageId, tag: Tag, length: u64 },
    /// Nothing but the count of released eager messages.
    Credit,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: U16,
    kind: u8,
    zero: u8,
    sequence: U32,
    message: U64,
    length: U64,
    call: [U64; 2],
    released: U64,
}

const _: () = assert!(size_of::<Wire>() == HEADER);

/// The 48 bytes of `frame`, with the count of eager messages released so far.
pub(super) fn encode(frame: Frame, released: u64) -> [u8; HEADER] {
    let (kind, message, tag, length) = match frame {
        Frame::Eager { message, tag, length } => (EAGER, message, tag, length),
        Frame::Open { message, tag, length } => (OPEN, message, tag, length),
        Frame::Grant { message, tag, length } => (GRANT, message, tag, length),
        Frame::Credit => (CREDIT, 0, Tag::default(), 0),
    };
    zerocopy::transmute!(Wire {
        magic: MAGIC.into(),
        kind,
        zero: 0,
        sequence: tag.sequence.into(),
        message: message.into(),
        length: length.into(),
        call: tag.call.map(U64::new),
        released: released.into(),
    })
}

/// Reads a header; also returns the count of released eager messages.
///
/// `eager` is this end's limit: a longer eager message is refused here, before anyone looks for its payload.
/// An error says what was seen.
pub(super) fn decode(bytes: &[u8; HEADER], eager: usize) -> Result<(Frame, u64), String> {
    let wire: &Wire = zerocopy::transmute_ref!(bytes);
    if wire.magic.get() != MAGIC || wire.zero != 0 {
        return Err(format!(
            "a frame starts with bytes {:02x?}, not with {:02x?}: this is not a link of this library, or bytes were lost",
            &bytes[..4],
            MAGIC.to_le_bytes()
        ));
    }
    let message = wire.message.get();
    let length = wire.length.get();
    let tag = Tag { sequence: wire.sequence.get(), call: wire.call.map(U64::get) };
    let frame = match wire.kind {
        EAGER if length > eager as u64 => {
            return Err(format!(
                "eager message {message} of {length} bytes, but the limit at this end is {eager}: both ends must be \
                 configured with the same eager limit"
            ));
        }
        EAGER => Frame::Eager { message, tag, length },
        OPEN => Frame::Open { message, tag, length },
        GRANT => Frame::Grant { message, tag, length },
        CREDIT => Frame::Credit,
        kind => return Err(format!("a frame of unknown kind {kind}")),
    };
    Ok((frame, wire.released.get()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    const TAG: Tag = Tag { sequence: 0x0102_0304, call: [5, u64::MAX] };

    #[test]
    fn frames_survive_the_wire() {
        for frame in [
            Frame::Eager { message: 7, tag: TAG, length: 100 },
            Frame::Open { message: u64::MAX, tag: TAG, length: 1 << 40 },
            Frame::Grant { message: 3, tag: TAG, length: 9 },
            Frame::Credit,
        ] {
            assert_eq!(decode(&encode(frame, 11), 100), Ok((frame, 11)));
        }
    }

    #[test]
    fn layout_is_as_drawn() {
        let bytes = encode(Frame::Open { message: 6, tag: TAG, length: 7 }, 8);
        assert_eq!(bytes[..8], [0x52, 0x7C, 2, 0, 4, 3, 2, 1]);
        assert_eq!((bytes[8], bytes[16], bytes[24], bytes[32], bytes[40]), (6, 7, 5, 255, 8));
    }

    #[test]
    fn long_eager_message_is_refused() {
        let bytes = encode(Frame::Eager { message: 7, tag: TAG, length: 101 }, 0);
        assert!(decode(&bytes, 100).unwrap_err().contains("101"));
    }

    #[test]
    fn random_headers_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        for _ in 0..100_000 {
            let mut bytes = [0u8; HEADER];
            rng.fill(&mut bytes);
            if rng.random_bool(0.9) {
                bytes[..4].copy_from_slice(&[0x52, 0x7C, rng.random_range(0..6), 0]);
            }
            let _ = decode(&bytes, 1 << 15);
        }
    }
}
