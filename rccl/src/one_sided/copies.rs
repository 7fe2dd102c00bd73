//! Copies of what is put, whose memory is used again: new memory of 64 MiB costs 45 ms of page faults, a copy into it 10.

use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shorter ones are left to the allocator, which keeps such memory itself.
const LONG: usize = 64 << 10;
/// So much memory is kept at most.
const KEPT: usize = 256 << 20;

/// Memory that waits for the next copy.
#[derive(Default)]
pub(super) struct Copies(Mutex<Vec<Vec<u8>>>);

impl Copies {
    /// # Errors
    /// There is no memory for it.
    ///
    /// # Safety
    /// So many bytes at `data` are valid for reads.
    pub unsafe fn of(&self, data: *const u8, bytes: usize) -> Result<Vec<u8>> {
        let mut copy = self.memory(bytes)?;
        if bytes > 0 {
            // SAFETY: the caller's promise; the vector has room for as many, and nobody else has it.
            unsafe { std::ptr::copy_nonoverlapping(data, copy.as_mut_ptr(), bytes) };
        }
        // SAFETY: all of them were written.
        unsafe { copy.set_len(bytes) };
        Ok(copy)
    }

    /// Memory for so many bytes, not much longer.
    fn memory(&self, bytes: usize) -> Result<Vec<u8>> {
        if bytes >= LONG {
            let mut kept = self.kept();
            let fits = |copy: &Vec<u8>| (bytes..=2 * bytes).contains(&copy.capacity());
            if let Some(at) = kept.iter().rposition(fits) {
                return Ok(kept.swap_remove(at));
            }
        }
        let mut memory = Vec::new();
        memory.try_reserve_exact(bytes).map_err(|error| Error::System {
            during: format!("copying {bytes} bytes that are put"),
            source: Arc::new(std::io::Error::other(error)),
            hint: "free memory, or put less at a time".into(),
        })?;
        Ok(memory)
    }

    pub fn give_back(&self, copy: Vec<u8>) {
        if copy.capacity() < LONG {
            return;
        }
        let mut kept = self.kept();
        kept.push(copy);
        // The oldest go: their lengths may have gone out of use.
        let mut all: usize = kept.iter().map(Vec::capacity).sum();
        while all > KEPT {
            all -= kept.remove(0).capacity();
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_not_hoarded() {
        let copies = Copies::default();
        let data = vec![7; 3 * LONG];
        // SAFETY: there are as many.
        let copy = |bytes| unsafe { copies.of(data.as_ptr(), bytes) }.unwrap();
        let (first, short) = (copy(2 * LONG), copy(9));
        let place = first.as_ptr();
        copies.give_back(first);
        copies.give_back(short);
        let again = copy(2 * LONG - 5);
        assert_eq!((again.as_ptr(), again.len()), (place, 2 * LONG - 5));
        assert!(again.iter().all(|&byte| byte == 7));
        copies.give_back(again);
        let longer = copy(3 * LONG);
        assert!(longer.as_ptr() != place && longer.len() == 3 * LONG, "it would be too short");
        drop(longer);
        for _ in 0..3 {
            copies.give_back(Vec::with_capacity(KEPT / 2));
        }
        assert_eq!(copies.kept().len(), 2);
        copies.give_back(Vec::with_capacity(KEPT + 1));
        assert!(copies.kept().is_empty());
        let error = copies.memory(usize::MAX).unwrap_err().to_string();
        assert!(error.contains("bytes that are put"), "{error}");
    }
}
