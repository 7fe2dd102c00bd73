//! Frames: what the two ends tell each other beside the bytes of granted messages.
//!
//! A frame is written into the receiver's memory by one RDMA write, whose immediate says that it is there and of which
//! kind it is. All integers are little-endian.
//!
//! ```text
//!  byte  0      2      3     4           8                16               24               32
//!       +------+------+-----+-----------+----------------+----------------+----------------+
//!       | magic| kind |  0  | sequence  | message        | length         | call[0]        |
//!       +------+------+-----+-----+-----+----+-----------+----+-----------+----------------+
//!       | call[1]           | closed    | freed  | frames    | pieces     | address         |
//!       +-------------------+-----------+--------+-----------+------------+----------------+
//!       32                  40          44       48          52           56               64
//!       | keys[0]   | keys[1]   | ...  | keys[7]   |    (grants only)
//!       +-----------+-----------+------+-----------+
//!       64          68                              96
//! ```
//!
//! * `magic` is 0x7C5B.
//! * `kind`: 1 eager (its `length` bytes follow from byte 64 on), 2 open, 3 grant, 4 credit.
//! * `sequence` and `call` are the [`Tag`] of the sender's message, in a grant that of the receiver's; zero in a credit.
//! * `message` numbers the message in the direction from the sender of an eager or open frame to its receiver; in a
//!   grant it is a message of the other direction. `length` is its length in bytes. Both are zero in a credit.
//! * `closed`, `freed`, `frames` and `pieces` are what the sender of this frame has received and is done with, counted
//!   since the link began, their low 32 bits: messages that left its window, slots that are free again, frames that were
//!   taken, pieces that were counted. Every frame carries them, so that a credit is needed only where nothing else flows.
//! * `address` and `keys`, in a grant: where the bytes are wanted, and the remote key of that memory for each rail. Zero
//!   for no place: then the bytes come through slots.
//!
//! The immediate:
//!
//! ```text
//!  31    30 29          25 24                                                0
//! +--------+--------------+--------------------------------------------------+
//! | kind   | message      | number of the frame or of the piece, modulo 2^25 |
//! +--------+--------------+--------------------------------------------------+
//! ```
//!
//! * kind 0: a frame in the ring, whose entry is its number modulo [`RING`]; message is zero.
//! * kind 1: an eager message with its frame, in the home of its message. It takes a number among the frames.
//! * kind 2: a piece of a message in a slot. Slots are used in turn.
//! * kind 3: a piece of a message in its granted place.
//!
//! `message` is a number modulo [`WINDOW`]: no more are under way at a time.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MOST_RAILS;
use crate::link::{MessageId, Tag, WINDOW};

/// Bytes before the payload of an eager message; the whole of other frames but grants.
pub(super) const HEADER: usize = 64;
/// Bytes of a grant with the most keys, and of an entry of the ring.
pub(super) const ENTRY: usize = 128;
/// Entries of the ring of frames.
pub(super) const RING: usize = 128;

const MAGIC: u16 = 0x7C5B;

/// What a frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole message whose bytes follow the header.
    Eager,
    /// The sender has opened a message and waits for the grant.
    Open,
    /// The receiver takes a message, if it has this tag.
    Grant,
    /// Nothing but the counts.
    Credit,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Eager, Kind::Open, Kind::Grant, Kind::Credit];
}

/// What is not sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) closed: u32,
    pub(super) freed: u32,
    pub(super) frames: u32,
    pub(super) pieces: u32,
}

/// Where granted bytes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) address: u64,
    /// By rail of the link.
    pub(super) keys: [u32; MOST_RAILS],
}

/// A frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) message: MessageId,
    pub(super) tag: Tag,
    pub(super) length: u64,
    pub(super) counts: Counts,
    pub(super) target: Option<Target>,
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
    closed: U32,
    freed: U32,
    frames: U32,
    pieces: U32,
    address: U64,
    keys: [U32; MOST_RAILS],
    rest: [u8; ENTRY - HEADER - 4 * MOST_RAILS],
}

const _: () = assert!(size_of::<Wire>() == ENTRY);

/// The bytes of a frame, and how many of them need to be sent.
pub(super) fn encode(frame: &Frame) -> ([u8; ENTRY], usize) {
    let Frame { kind, message, tag, length, counts, target } = *frame;
    let bytes = zerocopy::transmute!(Wire {
        magic: MAGIC.into(),
        kind: kind as u8 + 1,
        zero: 0,
        sequence: tag.sequence.into(),
        message: message.into(),
        length: length.into(),
        call: tag.call.map(U64::new),
        closed: counts.closed.into(),
        freed: counts.freed.into(),
        frames: counts.frames.into(),
        pieces: counts.pieces.into(),
        address: target.map_or(0, |target| target.address).into(),
        keys: target.map_or([0; MOST_RAILS], |target| target.keys).map(U32::new),
        rest: [0; ENTRY - HEADER - 4 * MOST_RAILS],
    });
    (bytes, if target.is_some() { HEADER + 4 * MOST_RAILS } else { HEADER })
}

/// Reads a frame. Of frames without a target, what follows byte 64 is not looked at. An error says what was seen.
pub(super) fn decode(bytes: &[u8; ENTRY], eager: usize) -> Result<Frame, String> {
    let wire: &Wire = zerocopy::transmute_ref!(bytes);
    if wire.magic.get() != MAGIC || wire.zero != 0 {
        return Err(format!(
            "a frame starts with bytes {:02x?}, not with {:02x?}: the peer is no link of this library, or wrote elsewhere",
            &bytes[..4],
            MAGIC.to_le_bytes()
        ));
    }
    let Some(&kind) = Kind::ALL.get(usize::from(wire.kind.wrapping_sub(1))) else {
        return Err(format!("a frame of unknown kind {}", wire.kind));
    };
    let (message, length) = (wire.message.get(), wire.length.get());
    if kind == Kind::Eager && length > eager as u64 {
        return Err(format!("eager message {message} of {length} bytes, but the limit is {eager}"));
    }
    let address = wire.address.get();
    let target =
        (kind == Kind::Grant && address != 0).then(|| Target { address, keys: wire.keys.map(U32::get) });
    Ok(Frame {
        kind,
        message,
        tag: Tag { sequence: wire.sequence.get(), call: wire.call.map(U64::get) },
        length,
        counts: Counts {
            closed: wire.closed.get(),
            freed: wire.freed.get(),
            frames: wire.frames.get(),
            pieces: wire.pieces.get(),
        },
        target,
    })
}

/// What an immediate announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// A frame in the ring.
    Frame,
    /// An eager message in the home of this message, modulo [`WINDOW`].
    Eager(usize),
    /// Bytes of this message, modulo [`WINDOW`], in the next slot.
    Slot(usize),
    /// Bytes of this message, modulo [`WINDOW`], in its place.
    Landed(usize),
}

const NUMBER_BITS: u32 = 25;
const NUMBER: u32 = (1 << NUMBER_BITS) - 1;

/// The immediate of frame or piece `number`.
pub(super) fn immediate(arrival: Arrival, number: u64) -> u32 {
    let (kind, message) = match arrival {
        Arrival::Frame => (0, 0),
        Arrival::Eager(message) => (1, message),
        Arrival::Slot(message) => (2, message),
        Arrival::Landed(message) => (3, message),
    };
    kind << 30 | (message as u32) << NUMBER_BITS | (number as u32 & NUMBER)
}

/// What an immediate says, and its number, which is the one nearest to and not before `next`.
pub(super) fn announced(immediate: u32, next: impl Fn(Arrival) -> u64) -> (Arrival, u64) {
    let message = (immediate >> NUMBER_BITS) as usize % WINDOW;
    let arrival = match immediate >> 30 {
        0 => Arrival::Frame,
        1 => Arrival::Eager(message),
        2 => Arrival::Slot(message),
        _ => Arrival::Landed(message),
    };
    let next = next(arrival);
    let ahead = immediate.wrapping_sub(next as u32) & NUMBER;
    (arrival, next + u64::from(ahead))
}

/// The number before `next` that [`announced`] has taken for one far behind it, if `number` is that far.
pub(super) fn before(number: u64, next: u64) -> Option<u64> {
    let behind = (1 << NUMBER_BITS) - number.checked_sub(next)?;
    if behind <= 1 << (NUMBER_BITS - 1) { next.checked_sub(behind) } else { None }
}

const _: () = assert!(WINDOW == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    const TAG: Tag = Tag { sequence: 0x0102_0304, call: [5, u64::MAX] };
    const COUNTS: Counts = Counts { closed: 1, freed: 2, frames: 3, pieces: u32::MAX };

    #[test]
    fn frames_survive_the_wire() {
        let target = Target { address: 1 << 40, keys: [9; MOST_RAILS] };
        for (kind, target, len) in [
            (Kind::Eager, None, 64),
            (Kind::Open, None, 64),
            (Kind::Grant, Some(target), 96),
            (Kind::Grant, None, 64),
            (Kind::Credit, None, 64),
        ] {
            let frame = Frame { kind, message: 7, tag: TAG, length: 100, counts: COUNTS, target };
            let (bytes, used) = encode(&frame);
            assert_eq!((decode(&bytes, 100), used), (Ok(frame), len));
        }
    }

    #[test]
    fn layout_is_as_drawn() {
        let frame =
            Frame { kind: Kind::Grant, message: 6, tag: TAG, length: 7, counts: COUNTS, target: None };
        let (bytes, _) = encode(&frame);
        assert_eq!(bytes[..8], [0x5B, 0x7C, 3, 0, 4, 3, 2, 1]);
        assert_eq!([8, 16, 24, 32, 40, 44, 48, 52].map(|at| bytes[at]), [6, 7, 5, 255, 1, 2, 3, 255]);
    }

    #[test]
    fn immediates_name_kind_message_and_number() {
        for next in [0u64, 5, (1 << 25) - 1, 1 << 25, (1 << 40) + 3] {
            for ahead in [0u64, 1, 4000] {
                for arrival in [Arrival::Frame, Arrival::Eager(31), Arrival::Slot(0), Arrival::Landed(17)] {
                    let seen = announced(immediate(arrival, next + ahead), |_| next);
                    assert_eq!(seen, (arrival, next + ahead));
                }
            }
        }
    }

    #[test]
    fn numbers_that_have_been_are_known() {
        for next in [1u64, 5, 1 << 25, (1 << 40) + 3] {
            for behind in [1u64, 4000].into_iter().filter(|&behind| behind <= next) {
                let (_, number) = announced(immediate(Arrival::Frame, next - behind), |_| next);
                assert_eq!(before(number, next), Some(next - behind));
            }
            assert_eq!([before(next, next), before(next + 4000, next)], [None; 2]);
        }
        // There is no number before the first.
        assert_eq!(before((1 << 25) - 1, 0), None);
    }

    #[test]
    fn random_frames_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        for _ in 0..100_000 {
            let mut bytes = [0u8; ENTRY];
            rng.fill(&mut bytes);
            if rng.random_bool(0.9) {
                bytes[..4].copy_from_slice(&[0x5B, 0x7C, rng.random_range(0..7), 0]);
            }
            let _ = decode(&bytes, 1 << 13);
        }
    }
}
