//! What stands in a line.
//!
//! ```text
//!  word 0    63          32 31        16 15         0
//!           +--------------+------------+------------+
//!           | tag.sequence | shape      | stamp      |   stored last
//!           +--------------+------------+------------+
//!  word 1-2 | tag.call                               |
//!           +----------------------------------------+
//!  word 3-  | shape begins with INLINE:  the bytes of an eager message, at most 232
//!           | else, word 3:     low 16 bits of the message number of each record, first record lowest
//!           |       word 4-7:   the argument of each record
//!
//!  shape, records:  15 14..12  11..9    8..6     5..3     2..0
//!                   0  0       record 3 record 2 record 1 record 0
//!  shape, inline:   bits 2..0 INLINE, bits 10..3 length
//!
//!  argument of SLOT and CHUNK:  63      48 47      24 23      0
//!                              | index   | offset   | length  |   in the staging area
//!  argument of SEND_AT, RECV_AT: the bits of a `Place`
//! ```

use super::wire::LINE_WORDS;
use crate::link::Tag;

/// Longest eager message that travels inside a line.
pub(super) const INLINE_BYTES: usize = 8 * (LINE_WORDS - 3);
/// Records in a line.
const RECORDS: u32 = 4;

/// What a record announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Record {
    /// The writer opened a sent message.
    Send = 1,
    /// As `Send`, and the reader may pull it from a place.
    SendAt = 2,
    /// The writer opened a received message.
    Recv = 3,
    /// As `Recv`, and the reader may land it in a place.
    RecvAt = 4,
    /// A whole eager message, in this line.
    Inline = 5,
    /// A whole eager message, in a slot.
    Slot = 6,
    /// The next bytes of a staged message, in a slot.
    Chunk = 7,
}

impl Record {
    fn from_bits(bits: u64) -> Option<Record> {
        use Record::*;
        [None, Some(Send), Some(SendAt), Some(Recv), Some(RecvAt), Some(Inline), Some(Slot), Some(Chunk)]
            [bits as usize & 7]
    }
}

/// Head of a line that holds an eager message of `len` bytes.
#[inline]
pub(super) fn inline_head(tag: Tag, len: usize) -> u64 {
    u64::from(tag.sequence) << 32 | (len as u64) << 19 | (Record::Inline as u64) << 16
}

/// Length of the eager message in a line, if it holds one.
#[inline]
pub(super) fn inline_len(head: u64) -> Option<usize> {
    ((head >> 16) & 7 == Record::Inline as u64).then_some((head >> 19) as usize & 0xff)
}

/// Sequence number in a head.
#[inline]
pub(super) fn sequence(head: u64) -> u32 {
    (head >> 32) as u32
}

/// Record `index` of a head.
#[inline]
pub(super) fn record(head: u64, index: usize) -> Option<Record> {
    Record::from_bits(head >> (16 + 3 * index))
}

/// Argument of [`Record::Slot`] and [`Record::Chunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotAt {
    pub(super) index: u16,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl SlotAt {
    pub(super) fn to_bits(self) -> u64 {
        u64::from(self.index) << 48 | u64::from(self.offset) << 24 | u64::from(self.len)
    }
    pub(super) fn from_bits(bits: u64) -> SlotAt {
        SlotAt {
            index: (bits >> 48) as u16,
            offset: (bits >> 24) as u32 & 0xff_ffff,
            len: bits as u32 & 0xff_ffff,
        }
    }
}

/// A line under construction: records with one tag, collected until the flush.
pub(super) struct Pending {
    tag: Tag,
    shape: u64,
    count: u32,
    /// Word 3 and the arguments.
    pub(super) words: [u64; 5],
}

impl Pending {
    pub(super) fn new() -> Pending {
        Pending { tag: Tag::default(), shape: 0, count: 0, words: [0; 5] }
    }
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// Whether a record with this tag may join the ones here.
    #[inline]
    pub(super) fn takes(&self, tag: Tag) -> bool {
        self.count < RECORDS && (self.count == 0 || self.tag == tag)
    }
    #[inline]
    pub(super) fn push(&mut self, tag: Tag, record: Record, number: u64, argument: u64) {
        let index = self.count;
        self.tag = tag;
        self.shape |= (record as u64) << (3 * index);
        self.words[0] |= u64::from(number as u16) << (16 * index);
        self.words[1 + index as usize] = argument;
        self.count += 1;
    }
    /// Head, call and words of the line.
    #[inline]
    pub(super) fn line(&self) -> (u64, [u64; 2], &[u64]) {
        let head = u64::from(self.tag.sequence) << 32 | self.shape << 16;
        (head, self.tag.call, &self.words[..1 + self.count as usize])
    }
    #[inline]
    pub(super) fn clear(&mut self) {
        self.shape = 0;
        self.count = 0;
        self.words[0] = 0;
    }
}

/// The number nearest to `near` whose low 16 bits are `low`.
#[inline]
pub(super) fn nearest(near: u64, low: u16) -> u64 {
    near.wrapping_add_signed(i64::from(low.wrapping_sub(near as u16) as i16))
}

/// Copies `len` bytes (at most [`INLINE_BYTES`]) into words, zero-padded; returns how many words they fill.
///
/// # Safety
/// `bytes` is valid for reads of `len` bytes.
#[inline]
pub(super) unsafe fn pack(bytes: *const u8, len: usize, words: &mut [u64; INLINE_BYTES / 8]) -> usize {
    debug_assert!(len <= INLINE_BYTES);
    let whole = len / 8;
    for (i, word) in words[..whole].iter_mut().enumerate() {
        // SAFETY: bytes 8i..8i+8 are among the `len` readable ones.
        let source = unsafe { bytes.add(8 * i) }.cast::<u64>();
        // SAFETY: as above; no alignment is asked for.
        *word = unsafe { source.read_unaligned() };
    }
    if len.is_multiple_of(8) {
        return whole;
    }
    let mut rest = [0u8; 8];
    for (i, byte) in rest[..len % 8].iter_mut().enumerate() {
        // SAFETY: the byte's index is below `len`.
        let source = unsafe { bytes.add(8 * whole + i) };
        // SAFETY: as above.
        *byte = unsafe { source.read() };
    }
    words[whole] = u64::from_ne_bytes(rest);
    whole + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in() {
        let tag = Tag { sequence: 0xdead_beef, call: [1, 2] };
        let mut line = Pending::new();
        let records = [Record::SendAt, Record::Recv, Record::Send, Record::RecvAt];
        for (i, &kind) in records.iter().enumerate() {
            assert!(line.takes(tag));
            line.push(tag, kind, 70_000 + i as u64, 10 + i as u64);
        }
        assert!(!line.takes(tag));
        let (head, call, words) = line.line();
        assert_eq!((sequence(head), call, head as u16), (tag.sequence, tag.call, 0));
        for (i, &kind) in records.iter().enumerate() {
            assert_eq!(record(head, i), Some(kind));
            assert_eq!(nearest(69_990, (words[0] >> (16 * i)) as u16), 70_000 + i as u64);
            assert_eq!(words[1 + i], 10 + i as u64);
        }
        line.clear();
        assert!(line.is_empty() && line.takes(Tag::default()));
    }

    #[test]
    fn numbers_are_found_on_both_sides_of_a_wrap() {
        for real in [0u64, 5, 65_530, 65_536, 1 << 40] {
            for off in 0..200u64 {
                assert_eq!(nearest(real + 100, (real + off) as u16), real + off);
            }
        }
    }

    #[test]
    fn a_slot_keeps_its_extremes() {
        for slot in [
            SlotAt { index: 0, offset: 0, len: 0 },
            SlotAt { index: u16::MAX, offset: (1 << 24) - 64, len: (1 << 22) - 1 },
        ] {
            assert_eq!(SlotAt::from_bits(slot.to_bits()), slot);
        }
    }

    #[test]
    fn every_inline_length_packs() {
        let bytes: Vec<u8> = (1..=INLINE_BYTES as u8).collect();
        for len in 0..=INLINE_BYTES {
            let head = inline_head(Tag { sequence: 9, call: [0; 2] }, len);
            assert_eq!((inline_len(head), sequence(head)), (Some(len), 9));
            let mut words = [0; INLINE_BYTES / 8];
            // SAFETY: `bytes` holds as many bytes.
            let used = unsafe { pack(bytes.as_ptr(), len, &mut words) };
            assert_eq!(used, len.div_ceil(8));
            let unpacked: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).take(len).collect();
            assert_eq!(unpacked, bytes[..len]);
        }
    }
}
