//! Stores that go past the caches, for results that nobody reads soon and that would first be fetched from memory only
//! to be overwritten.
//!
//! The kernels themselves store as usual, into a block that stays in the first-level cache; from there the block is
//! streamed to every output. So no kernel is compiled twice, and every type profits.

#[cfg(target_arch = "x86_64")]
use super::select::InstructionSet;

/// Bytes of the block: from 2 to 64 MiB, 512 and 1,024 were alike, 4,096 up to 15 % slower
/// (medians of five runs each).
pub(super) const BLOCK: usize = 512;

/// A block at the alignment of a cache line.
#[repr(align(64))]
pub(super) struct Block(pub [u8; BLOCK]);

/// Copies `len` bytes past the caches. Follow the last one by [`drain`].
///
/// # Safety
/// `from` has `len` readable bytes, `to` as many writable ones, and they do not overlap.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    if InstructionSet::best() == InstructionSet::Avx512 {
        // SAFETY: the CPU has the instructions; the rest is the caller's promise.
        unsafe { copy_lines(from, to, len) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { copy_words(from, to, len) }
    }
}

/// [`copy`] a cache line at a time.
///
/// # Safety
/// As for [`copy`], and the CPU has AVX-512 F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn copy_lines(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_stream_si512};
    let stream = |from: *const u8, to: *mut u8| {
        // SAFETY: `copy_by` passes 64 readable bytes, at any alignment.
        let line = unsafe { _mm512_loadu_si512(from.cast::<__m512i>()) };
        // SAFETY: and as many writable ones, aligned.
        unsafe { _mm512_stream_si512(to.cast::<__m512i>(), line) };
    };
    // SAFETY: the caller's promise.
    unsafe { copy_by::<64>(from, to, len, stream) };
}

/// [`copy`] with what every x86-64 CPU has.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy_words(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    let stream = |from: *const u8, to: *mut u8| {
        // SAFETY: `copy_by` passes 16 readable bytes, at any alignment.
        let word = unsafe { _mm_loadu_si128(from.cast::<__m128i>()) };
        // SAFETY: and as many writable ones, aligned.
        unsafe { _mm_stream_si128(to.cast::<__m128i>(), word) };
    };
    // SAFETY: the caller's promise.
    unsafe { copy_by::<16>(from, to, len, stream) };
}

/// Copies `len` bytes, `N` at a time by `stream` where the target is aligned to `N`, and the ends as usual.
///
/// # Safety
/// As for [`copy`]; `stream` copies `N` bytes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_by<const N: usize>(
    from: *const u8,
    to: *mut u8,
    len: usize,
    stream: impl Fn(*const u8, *mut u8),
) {
    let head = to.align_offset(N).min(len);
    // SAFETY: `head` bytes are a part of what the caller promises.
    unsafe { to.copy_from_nonoverlapping(from, head) };
    let mut done = head;
    while len - done >= N {
        stream(from.wrapping_add(done), to.wrapping_add(done));
        done += N;
    }
    // SAFETY: the rest of what the caller promises.
    unsafe { to.wrapping_add(done).copy_from_nonoverlapping(from.wrapping_add(done), len - done) };
}

/// Copies `len` bytes; this architecture has no better way.
///
/// # Safety
/// As on x86-64.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { to.copy_from_nonoverlapping(from, len) };
}

/// Orders all streamed stores before later ones, so that a flag that is set afterwards vouches for them.
pub(super) fn drain() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a fence touches no memory, and every x86-64 CPU has it.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
