//! Bounce buffers: memory of the engine for bytes that cannot go straight to where they are wanted.

use super::run::CHUNK;

/// Buffers of one size, made when first needed and kept: a warm call takes and returns them without allocating.
#[derive(Default)]
pub(crate) struct Pool {
    buffers: Vec<Box<[u64]>>,
    free: Vec<u32>,
}

impl Pool {
    /// Bytes in a buffer: a few chunks, so that a slow send does not stop the receive behind it at once.
    pub const BUFFER: usize = 4 * CHUNK as usize;

    /// A free buffer's number.
    pub fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.buffers.push(vec![0; Self::BUFFER / 8].into_boxed_slice());
            (self.buffers.len() - 1) as u32
        })
    }

    /// Returns what [`Pool::take`] gave.
    pub fn give_back(&mut self, buffer: Option<u32>) {
        if let Some(buffer) = buffer {
            self.free.push(buffer);
        }
    }

    /// Start of a taken buffer.
    pub fn buffer(&self, number: u32) -> *mut u8 {
        self.buffers[number as usize].as_ptr().cast_mut().cast()
    }
}
