//! Broadcast of bytes whose number only their root knows, in the background: for objects of other languages.
//!
//! Two calls, the number and then the bytes. Both are in the queue before the first has ended, so that calls that are made
//! meanwhile come behind them, as they do on the root; the second says how long it is when it begins.

use crate::background;
use crate::call::{Call, Collective};
use crate::communicator::Communicator;
use crate::element::DataType;
use crate::engine::{Lengths, Task};
use crate::error::{Error, Result};
use crate::flow::Todo;
use crate::stream::{self, Stream};
use crate::work::{Finish, Held, Work};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The bytes of [`Communicator::start_parcel`].
pub struct Parcel {
    length: AtomicU64,
    /// Nobody but the second call reaches them until it has ended.
    bytes: Mutex<Vec<u8>>,
    ended: AtomicBool,
}

/// Without the bytes, which may be written at the moment.
impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parcel").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Parcel {
    /// The root's bytes, once; `None` until both calls have ended, and nobody's if one of them failed.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.ended.load(Ordering::Acquire).then(|| std::mem::take(&mut *self.bytes()))
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the memory of a call until that has ended.
struct Keeps {
    parcel: Arc<Parcel>,
    is_last: bool,
    end: Arc<Held<()>>,
}

impl Finish for Keeps {
    fn finish(&self, result: Result<()>) {
        self.parcel.ended.fetch_or(self.is_last, Ordering::Release);
        self.end.finish(result);
    }
}

impl Communicator {
    /// Every rank gets the root's bytes; what the others pass is not looked at. Returns at once: the parcel has the bytes when
    /// both works have ended, that of their number and that of the bytes. With a `timeout` the calls fail on all ranks if
    /// either takes longer than this once it has begun, instead of [`Config::timeout`](crate::Config::timeout).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a root out of range,
    /// [`Error::Forked`](crate::Error::Forked) in a forked child; of the works as of a broadcast.
    pub fn start_parcel(
        &self,
        bytes: Vec<u8>,
        root: u32,
        timeout: Option<Duration>,
    ) -> Result<(Arc<Parcel>, [Work<()>; 2])> {
        self.caller().check_root(Collective::Broadcast.name(), root)?;
        self.shared().born.check()?;
        let length = AtomicU64::new(bytes.len() as u64);
        let parcel = Arc::new(Parcel { length, bytes: Mutex::new(bytes), ended: AtomicBool::new(false) });
        let number: Todo = broadcast(DataType::U64, 1, parcel.length.as_ptr().cast(), root).into();
        let (its, receives) = (parcel.clone(), self.rank() != root);
        let content = Todo::Later(Box::new(move || {
            let count = its.length.load(Ordering::Relaxed);
            let mut bytes = its.bytes();
            if receives {
                bytes.clear();
                bytes.try_reserve_exact(usize::try_from(count).unwrap_or(usize::MAX)).map_err(|error| {
                    Error::System {
                        during: format!("making room for {count} bytes that rank {root} sends"),
                        source: Arc::new(std::io::Error::new(std::io::ErrorKind::OutOfMemory, error)),
                        hint: "see whether that rank broadcasts so much, and how much memory is free".into(),
                    }
                })?;
                bytes.resize(count as usize, 0);
            }
            Ok(broadcast(DataType::U8, count, bytes.as_mut_ptr(), root))
        }));
        let ends = [false, true]
            .map(|is_last| Arc::new(Keeps { parcel: parcel.clone(), is_last, end: Held::new(()) }));
        let tasks = [number, content].into_iter().zip(&ends);
        let tasks = tasks.map(|(task, end)| (self.shared(), task, end.clone() as Arc<dyn Finish>)).collect();
        let streams: Vec<&Stream> = self.stream().into_iter().collect();
        // SAFETY: the parcel has the memory, and each end keeps that until the call has ended.
        unsafe { stream::submit(&streams, timeout, tasks) };
        if streams.iter().all(|stream| stream.is_in_background())
            && let Err(error) = background::look_after(self.shared())
        {
            tracing::warn!(%error, "asynchronous calls make progress only while they are waited for");
        }
        Ok((parcel, ends.map(|keeps| Work::new(self.clone(), keeps.end.clone()))))
    }
}

fn broadcast(dtype: DataType, count: u64, memory: *mut u8, root: u32) -> Task {
    let call = Call { collective: Collective::Broadcast, dtype, op: None, root: Some(root), count };
    Task::Collective { call, sizes: Lengths::Equal(count), input: memory, output: memory, scale: None }
}
