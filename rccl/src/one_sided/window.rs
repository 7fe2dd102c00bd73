//! Memory that other ranks write to.

use crate::error::Result;
use crate::raw::RawMemory;
use crate::registered::Registered;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory of this rank's that the ranks of a communicator may put into; see
/// [`Communicator::register_window`](crate::Communicator::register_window). Dropping it deregisters it.
pub struct Window {
    number: u32,
    memory: *mut u8,
    windows: Arc<Windows>,
    _registered: Registered<RawMemory>,
}

// SAFETY: the pointer is only handed out.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    pub(super) fn new(
        windows: &Arc<Windows>,
        start: *mut u8,
        memory: RawMemory,
        registered: Registered<RawMemory>,
    ) -> Window {
        let number = windows.add(memory);
        Window { number, memory: start, windows: windows.clone(), _registered: registered }
    }

    /// Which registration of the communicator it is, from 0.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The memory that was registered.
    pub fn memory(&self) -> *mut u8 {
        self.memory
    }

    pub(super) fn is_of(&self, windows: &Arc<Windows>) -> bool {
        Arc::ptr_eq(&self.windows, windows)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.windows.all()[self.number as usize] = None;
    }
}

impl std::fmt::Debug for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Window").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The windows of one rank of a communicator, by number; those that were deregistered are empty.
#[derive(Default)]
pub(super) struct Windows(Mutex<Vec<Option<RawMemory>>>);

impl Windows {
    fn add(&self, memory: RawMemory) -> u32 {
        let mut all = self.all();
        all.push(Some(memory));
        all.len() as u32 - 1
    }

    /// Where in this rank's windows a put of `source` goes, or what is wrong with it.
    pub fn find(&self, to: Destination, source: u32, rank: u32) -> Result<*mut u8, String> {
        let Destination { window, offset, bytes } = to;
        let put = format!("rank {source} put {bytes} bytes at offset {offset} of window {window}");
        let memory = usize::try_from(window).ok().and_then(|window| *self.all().get(window)?);
        let Some(memory) = memory else {
            return Err(format!("{put}, which rank {rank} has deregistered, or never registered"));
        };
        match offset.checked_add(bytes) {
            Some(end) if end <= memory.bytes() as u64 => Ok(memory.start().wrapping_add(offset as usize)),
            _ => Err(format!("{put}, which has {} bytes on rank {rank}", memory.bytes())),
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Option<RawMemory>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a put goes, and how much it is. It travels before the data, as three words.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    /// The number of the window.
    pub window: u64,
    /// In bytes.
    pub offset: u64,
    /// None: a signal alone, whatever the window.
    pub bytes: u64,
}

impl Destination {
    pub const WORDS: usize = 3;
    /// Of a signal without data.
    pub const NOWHERE: Destination = Destination { window: u64::MAX, offset: 0, bytes: 0 };

    pub fn pack(self) -> [u64; Destination::WORDS] {
        [self.window, self.offset, self.bytes]
    }

    pub fn unpack([window, offset, bytes]: [u64; Destination::WORDS]) -> Destination {
        Destination { window, offset, bytes }
    }
}
