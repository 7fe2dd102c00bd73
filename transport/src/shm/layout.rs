//! How large the parts of a segment are and where each begins.

use std::mem::size_of;

use super::wire::{Control, Line};
use crate::link::Limits;

/// Slots of a staging area that may be in use at a time, whatever their length.
pub(super) const SLOTS: usize = 64;
/// Where a slot may begin: a cache line of its own.
pub(super) const SLOT_ALIGN: usize = 64;
/// The first eight bytes of a segment.
const MAGIC: u64 = u64::from_le_bytes(*b"rcclshm2");
/// Bytes of the preamble that both ends compare.
pub(super) const PREAMBLE: usize = 24;
const PAGE: usize = 4096;

/// What a pair of ends agrees on before its memory is made. Both ends must use the same values; `ShmLink::map`
/// refuses a segment that was made with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Lines of each ring: a power of two from 64 to 4096, so that both windows can open without a poll.
    pub lines: u32,
    /// Bytes of each staging area: a multiple of 64, less than 16 MiB.
    pub staging_bytes: usize,
    /// Longest slot in bytes: at most a quarter of `staging_bytes`.
    pub slot: usize,
    /// Longest eager message in bytes: at most `slot`.
    pub eager: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { lines: 64, staging_bytes: 128 << 10, slot: 32 << 10, eager: 256 }
    }
}

impl Options {
    /// What a link made with these options holds.
    pub fn limits(&self) -> Limits {
        Limits { eager: self.eager, unasked: self.eager.max(self.slot / 4), slot: self.slot }
    }

    /// Says which value is out of its range, if one is.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !self.lines.is_power_of_two() || !(64..=4096).contains(&self.lines) {
            return Err(format!("{} lines: must be a power of two from 64 to 4096", self.lines));
        }
        if !self.staging_bytes.is_multiple_of(SLOT_ALIGN) || self.staging_bytes >= 1 << 24 {
            return Err(format!(
                "{} staging bytes: must be a multiple of 64 below 16 MiB",
                self.staging_bytes
            ));
        }
        if self.slot == 0 || self.slot > self.staging_bytes / 4 {
            return Err(format!(
                "slots of {} bytes: must be from 1 to a quarter of the {} staging bytes",
                self.slot, self.staging_bytes
            ));
        }
        if self.eager > self.slot {
            return Err(format!("eager messages of {} bytes: longest slot is {}", self.eager, self.slot));
        }
        Ok(())
    }

    /// The preamble: magic, lines, staging bytes, slot, eager; little-endian.
    pub(super) fn preamble(&self) -> [u8; PREAMBLE] {
        let mut bytes = [0; PREAMBLE];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        let sizes = [self.lines, self.staging_bytes as u32, self.slot as u32, self.eager as u32];
        for (field, size) in bytes[8..].chunks_exact_mut(4).zip(sizes) {
            field.copy_from_slice(&size.to_le_bytes());
        }
        bytes
    }

    /// Offset of the control block of `end` (0: the creator); its lines follow it.
    pub(super) fn control_at(&self, end: usize) -> usize {
        PAGE + end * self.wire_bytes()
    }
    /// Offset of the staging area that `end` writes.
    pub(super) fn staging_at(&self, end: usize) -> usize {
        PAGE + 2 * self.wire_bytes() + end * self.staging_bytes.next_multiple_of(PAGE)
    }
    /// Bytes of the whole segment.
    pub(crate) fn segment_bytes(&self) -> usize {
        self.staging_at(2)
    }
    fn wire_bytes(&self) -> usize {
        (size_of::<Control>() + self.lines as usize * size_of::<Line>()).next_multiple_of(PAGE)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_a_segment_is_small() {
        let options = Options::default();
        options.check().unwrap();
        assert!(options.segment_bytes() <= 300 << 10, "{}", options.segment_bytes());
        assert!(options.control_at(1) >= options.control_at(0) + 768 + 64 * 256);
    }

    #[test]
    fn each_bad_value_is_named() {
        let good = Options::default();
        for (bad, word) in [
            (Options { lines: 100, ..good }, "100 lines"),
            (Options { staging_bytes: 100, ..good }, "100 staging"),
            (Options { slot: 64 << 10, ..good }, "slots of 65536"),
            (Options { eager: 40 << 10, ..good }, "eager messages of 40960"),
        ] {
            assert!(bad.check().unwrap_err().contains(word));
        }
    }
}
