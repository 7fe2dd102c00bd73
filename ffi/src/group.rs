//! Groups: calls between rcclGroupStart and rcclGroupEnd of one thread are made together, and so are joins.

use crate::error::{Answer, Refusal, answer};
use crate::{comm, config, out};
use rccl::{Communicator, OneSidedCall, Raw, RawGroup};
use std::cell::{Cell, RefCell};
use std::ffi::c_uint;

/// What blocks until other ranks do the same.
pub(crate) type Join<T> = Box<dyn FnOnce() -> rccl::Result<T> + Send>;

/// A communicator that is made at the end of its group, by a join, a split or growth; a split may give none.
struct Later {
    place: *mut comm::Handle,
    /// Which one is split or grows.
    of: Option<comm::Handle>,
    make: Join<Option<Communicator>>,
}

#[derive(Default)]
struct Open {
    calls: RawGroup,
    /// A call is on no stream, so the end of the group is the end of the calls.
    blocks: bool,
    later: Vec<Later>,
    /// What the first call that was wrong said when it was made.
    wrong: Option<(Answer, String)>,
}

thread_local! {
    /// How many groups are open, one in another; only the outermost counts. Every call looks here.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static OPEN: RefCell<Open> = RefCell::default();
}

/// Whether this thread has a group open.
#[inline]
pub(crate) fn is_open() -> bool {
    DEPTH.get() > 0
}

/// Refuses what has no place in a group.
pub(crate) fn refuse(function: &str) -> Result<(), Refusal> {
    if is_open() { Err(Refusal::usage(format!("{function} in a group: end that first"))) } else { Ok(()) }
}

/// Runs what is no part of the group that this thread may have open.
pub(crate) fn outside<T>(run: impl FnOnce() -> T) -> T {
    let depth = DEPTH.take();
    if depth == 0 {
        return run(); // also where a thread's end has taken what is open
    }
    let open = OPEN.take();
    let value = run();
    DEPTH.set(depth);
    OPEN.set(open);
    value
}

/// Adds a call to the open group.
pub(crate) fn add(on: &Communicator, call: Raw, blocks: bool) {
    OPEN.with(|open| {
        let mut open = open.borrow_mut();
        open.calls.add(on, Ok(call));
        open.blocks |= blocks;
    });
}

/// As [`add`]; the end of the group is its end, too, if it is on no stream.
pub(crate) fn add_one_sided(call: OneSidedCall) {
    OPEN.with(|open| open.borrow_mut().calls.add_one_sided(call));
}

/// What came of a call that may be of an open group, which does nothing then if the call was refused.
#[inline]
pub(crate) fn part<T>(made: Result<T, Refusal>) -> Result<T, Refusal> {
    if let Err(refusal) = &made
        && is_open()
    {
        spoil(refusal);
    }
    made
}

#[cold]
fn spoil(refusal: &Refusal) {
    OPEN.with(|open| {
        open.borrow_mut().wrong.get_or_insert_with(|| (refusal.answer, refusal.words.clone()));
    });
}

/// Makes a communicator at the end of the group, together with the others; the handle comes then. `of`: the communicator
/// whose ranks agree on it.
pub(crate) fn make_later(
    place: *mut comm::Handle,
    of: Option<comm::Handle>,
    make: Join<Option<Communicator>>,
) -> Result<(), Refusal> {
    OPEN.with(|open| {
        let later = &mut open.borrow_mut().later;
        // They are made at once, so the ranks might do two in different orders.
        if of.is_some() && later.iter().any(|other| other.of == of) {
            return Err(Refusal::usage(
                "one communicator is split or grown a second time in a group: end the group between them",
            ));
        }
        later.push(Later { place, of, make });
        Ok(())
    })
}

/// Joins all at once: each may wait for the others.
pub(crate) fn join_all<T: Send>(joins: Vec<Join<T>>) -> Vec<rccl::Result<T>> {
    std::thread::scope(|scope| {
        let blocked = rccl::SignalsBlocked::new();
        let threads: Vec<_> = joins.into_iter().map(|join| scope.spawn(join)).collect();
        drop(blocked);
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|joined| joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// # Safety
/// Always.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGroupStart() -> Answer {
    answer(|| {
        DEPTH.set(DEPTH.get() + 1);
        Ok(())
    })
}

/// Ends a group; what was in it, if it was the outermost one and nothing of it was refused.
fn close(function: &str) -> Result<Option<Open>, Refusal> {
    let Some(left) = DEPTH.get().checked_sub(1) else {
        return Err(Refusal::usage(format!("{function} without rcclGroupStart on this thread")));
    };
    DEPTH.set(left);
    if left > 0 {
        return Ok(None);
    }
    let open = OPEN.take();
    match open.wrong {
        Some((answer, words)) => {
            Err(Refusal { answer, words: format!("nothing of the group was done: {words}") })
        }
        None => Ok(Some(open)),
    }
}

/// `rcclSimInfo_t`.
#[repr(C)]
pub struct Estimate {
    size: usize,
    magic: c_uint,
    version: c_uint,
    /// In microseconds.
    time: f32,
}

/// # Safety
/// `info` is NULL or as RCCL_SIM_INFO_INITIALIZER made it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGroupSimulateEnd(info: *mut Estimate) -> Answer {
    answer(|| {
        // The group has ended, whatever is wrong with `info`.
        let open = close("rcclGroupSimulateEnd")?;
        let info = out(info, "simInfo")?;
        // SAFETY: the caller's promise: every version begins with this.
        let size = unsafe { (*info).size };
        // SAFETY: and with this.
        let magic = unsafe { (*info).magic };
        if magic != config::MAGIC || size < size_of::<Estimate>() {
            return Err(Refusal::argument(
                "simInfo was not initialised: begin with RCCL_SIM_INFO_INITIALIZER",
            ));
        }
        let Some(open) = open else { return Ok(()) };
        let time = open.calls.estimate().ok_or_else(|| {
            let why = "how long the group takes is not known: only other ranks know the lengths of a call, they are more than 512, or a call is one-sided";
            Refusal::usage(why)
        })?;
        // SAFETY: the caller's promise, and its size was looked at.
        unsafe { (*info).time = (time.as_secs_f64() * 1e6) as f32 };
        Ok(())
    })
}

/// # Safety
/// The memory of every call of the group is as the call wants it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGroupEnd() -> Answer {
    answer(|| {
        let Some(Open { calls, blocks, later, .. }) = close("rcclGroupEnd")? else { return Ok(()) };
        // Few groups join, and threads for none still cost memory and time.
        if !later.is_empty() {
            let (places, joins): (Vec<_>, Vec<_>) =
                later.into_iter().map(|Later { place, make, .. }| (place, make)).unzip();
            let mut failed = None;
            for (place, made) in places.into_iter().zip(join_all(joins)) {
                let handle = made.map_err(Refusal::from).and_then(|made| made.map(comm::insert).transpose());
                match handle {
                    // SAFETY: the promise of who called rcclCommInitRank, rcclCommSplit or rcclCommGrow.
                    Ok(Some(handle)) => unsafe { place.write(handle) },
                    Ok(None) => {}
                    Err(refusal) => failed = failed.or(Some(refusal)),
                }
            }
            // What was made is the caller's all the same, where the others are NULL.
            if let Some(refusal) = failed {
                return Err(refusal);
            }
        }
        if blocks {
            // SAFETY: the caller's promise.
            unsafe { calls.run() }?;
        } else {
            // Streams tell what became of the calls.
            // SAFETY: the caller's promise.
            drop(unsafe { calls.start() }?);
        }
        Ok(())
    })
}
