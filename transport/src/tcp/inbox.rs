//! Memory for what arrives on the control socket: frames are parsed, and eager payloads read, where they were received.
//!
//! The memory is cut into [`BLOCKS`] blocks. Bytes are received at the end of the *current* block; a payload that the
//! caller still reads *pins* its block. When the rest of the current block is too short for the longest frame, a free
//! block becomes current (the beginning of an unfinished frame is copied over; nothing else ever is), and a block is
//! free again when its last payload is unpinned.
//!
//! ```text
//!  block    0           1           2 = current
//!         +-----------+-----------+------------------------------+
//!         | E  g g  E |  (free)   | g E o | part of a |          |
//!         +-----------+-----------+-------+-----------+----------+
//!           ^       ^                      ^ start     ^ end
//!           pinned payloads                  received, not parsed
//! ```
//!
//! There is always a free block when one is needed: at most [`WINDOW`] eager messages are unreleased at a time (their
//! sender has no more credits), each pins one block, and there are two blocks more than that. So control frames never
//! wait behind a payload that the caller keeps.
//!
//! In the usual case, everything parsed and released, the current block starts again from its beginning, so that a
//! link that is used for short messages touches one or two pages of all this.

use std::ptr::NonNull;

use rustix::mm;

use super::frame::{Frame, HEADER, decode};
use crate::link::WINDOW;

const BLOCKS: usize = WINDOW + 2;
const PAGE: usize = 4096;

/// Where an eager payload lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    block: u8,
    offset: u32,
}

pub(super) struct Inbox {
    pages: Pages,
    block_len: usize,
    eager: usize,
    /// How many payloads pin each block.
    pins: [u8; BLOCKS],
    current: usize,
    /// First byte of the current block that is not parsed.
    start: usize,
    /// End of what was received in the current block.
    end: usize,
    /// Stack of blocks that are neither current nor pinned; the last freed is used first, it is warm in the cache.
    free: [u8; BLOCKS],
    free_len: usize,
}

impl Inbox {
    /// Room for [`WINDOW`] eager messages of at most `eager` bytes. The memory is reserved here and becomes resident
    /// as it is used.
    pub(super) fn new(eager: usize) -> rustix::io::Result<Inbox> {
        let block_len = (2 * (HEADER + eager)).next_multiple_of(PAGE);
        let mut free = [0; BLOCKS];
        // Block 0 is current; the free stack pops block 1 first.
        for (slot, block) in free.iter_mut().zip((1..BLOCKS as u8).rev()) {
            *slot = block;
        }
        Ok(Inbox {
            pages: Pages::new(BLOCKS * block_len)?,
            block_len,
            eager,
            pins: [0; BLOCKS],
            current: 0,
            start: 0,
            end: 0,
            free,
            free_len: BLOCKS - 1,
        })
    }

    /// Where the next bytes are to be received; room for what is missing of the longest frame at least. Zero long
    /// only if the peer has ignored its credits.
    pub(super) fn space(&mut self) -> (*mut u8, usize) {
        if self.start == self.end && self.pins[self.current] == 0 {
            (self.start, self.end) = (0, 0);
        } else if self.block_len - self.start < HEADER + self.eager {
            self.change_block();
        }
        (self.pages.at(self.current * self.block_len + self.end), self.block_len - self.end)
    }

    /// `n` bytes were received in [`Inbox::space`].
    pub(super) fn filled(&mut self, n: usize) {
        debug_assert!(n <= self.block_len - self.end);
        self.end += n;
    }

    /// The next frame that has arrived whole, with the peer's count of released eager messages; the payload of an
    /// eager frame is pinned. An error says what was wrong with the bytes.
    pub(super) fn next(&mut self) -> Result<Option<(Frame, u64, Payload)>, String> {
        if self.end - self.start < HEADER {
            return Ok(None);
        }
        let at = self.current * self.block_len + self.start;
        // SAFETY: `start + HEADER <= end`, all of it inside the current block and received before.
        let header = unsafe { self.pages.at(at).cast::<[u8; HEADER]>().read() };
        let (frame, released) = decode(&header, self.eager)?;
        let mut payload = Payload { block: self.current as u8, offset: 0 };
        if let Frame::Eager { length, .. } = frame {
            let total = HEADER + length as usize;
            if self.end - self.start < total {
                return Ok(None);
            }
            payload.offset = (self.start + HEADER) as u32;
            self.pins[self.current] = self.pins[self.current].saturating_add(1);
            self.start += total;
        } else {
            self.start += HEADER;
        }
        Ok(Some((frame, released, payload)))
    }

    /// Address of the first byte of a pinned payload.
    pub(super) fn pointer(&self, payload: Payload) -> *const u8 {
        self.pages.at(usize::from(payload.block) * self.block_len + payload.offset as usize)
    }

    /// The caller reads `payload` no longer. Once per payload.
    pub(super) fn unpin(&mut self, payload: Payload) {
        let block = usize::from(payload.block);
        self.pins[block] -= 1;
        if self.pins[block] == 0 && block != self.current {
            self.set_free(block);
        }
    }

    fn change_block(&mut self) {
        let Some(last) = self.free_len.checked_sub(1) else { return };
        let next = usize::from(self.free[last]);
        self.free_len = last;
        let old = self.current;
        let rest = self.end - self.start;
        let from = self.pages.at(old * self.block_len + self.start);
        let to = self.pages.at(next * self.block_len);
        // SAFETY: both ranges are inside the mapping, in two different blocks; the target block is free, so nobody
        // reads it.
        unsafe { std::ptr::copy_nonoverlapping(from, to, rest) };
        self.current = next;
        (self.start, self.end) = (0, rest);
        if self.pins[old] == 0 {
            self.set_free(old);
        }
    }

    fn set_free(&mut self, block: usize) {
        self.free[self.free_len] = block as u8;
        self.free_len += 1;
    }
}

/// Anonymous pages that become resident when they are touched.
struct Pages {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Pages {}

impl Pages {
    fn new(len: usize) -> rustix::io::Result<Pages> {
        let (protection, flags) = (mm::ProtFlags::READ | mm::ProtFlags::WRITE, mm::MapFlags::PRIVATE);
        // SAFETY: a new mapping at an address that the kernel chooses; no existing memory is touched.
        let base = unsafe { mm::mmap_anonymous(std::ptr::null_mut(), len, protection, flags) }?;
        // Huge pages would make a link of a few short messages resident by megabytes. Where the kernel has none,
        // the advice fails and is not needed.
        // SAFETY: the range is the mapping made above; this advice changes no contents.
        let _ = unsafe { mm::madvise(base, len, mm::Advice::LinuxNoHugepage) };
        let base = NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Pages { base, len })
    }

    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len);
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length and nobody else knows of it.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::encode;
    use super::*;
    use crate::link::Tag;
    use rand::{Rng, SeedableRng};

    fn receive(inbox: &mut Inbox, bytes: &[u8]) -> usize {
        let (space, len) = inbox.space();
        let n = len.min(bytes.len());
        // SAFETY: `space` is valid for writes of `len >= n` bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), space, n) };
        inbox.filled(n);
        n
    }

    fn bytes_of(inbox: &Inbox, payload: Payload, length: u64) -> Vec<u8> {
        // SAFETY: a pinned payload of `length` bytes lies at the pointer and nothing writes there.
        unsafe { std::slice::from_raw_parts(inbox.pointer(payload), length as usize) }.to_vec()
    }

    /// Frames in random pieces, payloads held for random times up to the credits: all come out whole and in order,
    /// and what is held never changes.
    #[test]
    fn held_payloads_stay_and_nothing_stalls() {
        const LIMIT: usize = 3000;
        let mut rng = rand::rngs::StdRng::seed_from_u64(2);
        let mut inbox = Inbox::new(LIMIT).unwrap();
        let mut held: Vec<(Payload, Vec<u8>)> = Vec::new();
        for message in 0..5000 {
            let eager = held.len() < WINDOW && rng.random_bool(0.5);
            let length = if eager { rng.random_range(0..=LIMIT as u64) } else { 1 << 40 };
            let tag = Tag { sequence: message as u32, call: [1, 2] };
            let frame = if eager {
                Frame::Eager { message, tag, length }
            } else {
                Frame::Open { message, tag, length }
            };
            let mut bytes = encode(frame, message).to_vec();
            if eager {
                bytes.extend((0..length).map(|_| rng.random::<u8>()));
            }
            let mut sent = 0;
            let (seen, released, payload) = loop {
                if let Some(found) = inbox.next().unwrap() {
                    break found;
                }
                let piece = rng.random_range(1..=bytes.len() - sent);
                let n = receive(&mut inbox, &bytes[sent..sent + piece]);
                assert!(n > 0, "no room although credits were kept");
                sent += n;
            };
            assert_eq!((seen, released, sent), (frame, message, bytes.len()));
            if eager {
                held.push((payload, bytes[HEADER..].to_vec()));
            }
            while !held.is_empty() && rng.random_bool(0.4) {
                let (payload, expected) = held.swap_remove(rng.random_range(0..held.len()));
                assert_eq!(bytes_of(&inbox, payload, expected.len() as u64), expected);
                inbox.unpin(payload);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        for _ in 0..200 {
            let mut inbox = Inbox::new(500).unwrap();
            'stream: for _ in 0..200 {
                let mut bytes = vec![0u8; rng.random_range(1..400)];
                rng.fill(&mut bytes[..]);
                if rng.random_bool(0.95) {
                    let length = rng.random_range(0..600);
                    let frame = Frame::Eager { message: rng.random(), tag: Tag::default(), length };
                    bytes.splice(..0, encode(frame, rng.random()));
                    bytes.truncate(HEADER + length as usize);
                }
                let mut sent = 0;
                while sent < bytes.len() {
                    let n = receive(&mut inbox, &bytes[sent..]);
                    if n == 0 {
                        break 'stream; // never released: credits ignored, no room, and that is all
                    }
                    sent += n;
                    loop {
                        match inbox.next() {
                            Ok(Some(_)) => {}
                            Ok(None) => break,
                            Err(_) => break 'stream,
                        }
                    }
                }
            }
        }
    }
}
