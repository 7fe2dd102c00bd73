//! Communicators: `rcclComm_t`.

use crate::config::{self, Settings};
use crate::error::{Answer, Refusal, answer, answer_or, fault, number};
use crate::group;
use crate::handle::Table;
use crate::op::Created;
use crate::{memory, one_sided, out};
use rccl::{Communicator, UniqueId};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// `rcclComm_t`.
pub(crate) type Handle = *mut c_void;

/// `rcclUniqueId`, passed by value.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RawId {
    /// Opaque.
    pub internal: [u8; UniqueId::BYTES],
}

/// What a handle stands for.
pub(crate) struct Comm {
    /// Empty while a communicator that does not block is joined.
    joined: OnceLock<Result<Communicator, Refusal>>,
    /// Given up before it was joined.
    given_up: AtomicBool,
    /// Left by rcclCommFinalize.
    left: AtomicBool,
    /// Operators that were created for it.
    pub created: Mutex<Created>,
}

static COMMS: Table<Comm> = Table::new(1);

/// The communicator of a handle, whether it was joined or not.
#[inline]
pub(crate) fn get(comm: Handle) -> Result<Arc<Comm>, Refusal> {
    COMMS.get(comm).ok_or_else(|| nobody(comm))
}

#[cold]
fn nobody(comm: Handle) -> Refusal {
    Refusal::argument(if comm.is_null() {
        "the communicator is NULL"
    } else {
        "no communicator has this handle: it was destroyed or aborted, or never made"
    })
}

impl Comm {
    fn new() -> Comm {
        Comm {
            joined: OnceLock::new(),
            given_up: AtomicBool::new(false),
            left: AtomicBool::new(false),
            created: Mutex::default(),
        }
    }

    fn of(communicator: Communicator) -> Comm {
        let comm = Comm::new();
        let _ = comm.joined.set(Ok(communicator));
        comm
    }

    /// What it stands for, once it was joined.
    #[inline]
    pub fn communicator(&self) -> Result<&Communicator, Refusal> {
        match self.joined.get() {
            Some(Ok(communicator)) => Ok(communicator),
            other => Err(not_joined(other.and_then(|joined| joined.as_ref().err()))),
        }
    }
}

#[cold]
fn not_joined(failed: Option<&Refusal>) -> Refusal {
    failed.cloned().unwrap_or_else(|| {
        let words = "the communicator is being joined: wait until rcclCommGetAsyncError says no longer rcclInProgress";
        Refusal { answer: Answer::InProgress, words: words.into() }
    })
}

/// Makes the handle of a communicator that another one gave.
pub(crate) fn insert(communicator: Communicator) -> Result<Handle, Refusal> {
    put(Comm::of(communicator))
}

fn put(comm: Comm) -> Result<Handle, Refusal> {
    COMMS.insert(comm).ok_or_else(|| Refusal::usage("there are 16 million communicators already"))
}

/// # Safety
/// `id` is NULL or has room for an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclGetUniqueId(id: *mut RawId) -> Answer {
    answer(|| {
        let id = out(id, "id")?;
        let made = UniqueId::create(&config::environment()?)?;
        // SAFETY: the caller's promise.
        unsafe { id.write(RawId { internal: made.to_bytes() }) };
        Ok(())
    })
}

/// # Safety
/// `id` is NULL or has room for an id.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommGetUniqueId(comm: Handle, id: *mut RawId) -> Answer {
    answer(|| {
        let (comm, id) = (get(comm)?, out(id, "id")?);
        let made = comm.communicator()?.unique_id()?;
        // SAFETY: the caller's promise.
        unsafe { id.write(RawId { internal: made.to_bytes() }) };
        Ok(())
    })
}

/// # Safety
/// `comm` is NULL or has room for a handle, until the outermost group ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommInitRank(
    comm: *mut Handle,
    nranks: c_int,
    id: RawId,
    rank: c_int,
) -> Answer {
    // SAFETY: the caller's promise.
    unsafe { rcclCommInitRankConfig(comm, nranks, id, rank, std::ptr::null()) }
}

/// # Safety
/// `comm` is NULL or has room for a handle, until the outermost group ends; `config` is NULL or a config as
/// RCCL_CONFIG_INITIALIZER made it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommInitRankConfig(
    comm: *mut Handle,
    nranks: c_int,
    id: RawId,
    rank: c_int,
    config: *const config::Config,
) -> Answer {
    // SAFETY: the caller's promise.
    answer_or(|| group::part(unsafe { join(comm, nranks, id, rank, config) }))
}

/// # Safety
/// As for rcclCommInitRankConfig.
unsafe fn join(
    comm: *mut Handle,
    nranks: c_int,
    id: RawId,
    rank: c_int,
    config: *const config::Config,
) -> Result<Answer, Refusal> {
    let place = out(comm, "comm")?;
    // SAFETY: the caller's promise. Whoever looks before it was joined finds nothing.
    unsafe { place.write(std::ptr::null_mut()) };
    // SAFETY: the caller's promise.
    let settings = unsafe { config::read(config) }?;
    let id = UniqueId::from_bytes(id.internal)?;
    let (Ok(rank), Ok(size)) = (u32::try_from(rank), u32::try_from(nranks)) else {
        return Err(Refusal::argument(format!("rank {rank} of {nranks} ranks")));
    };
    if rank >= size {
        return Err(Refusal::argument(format!(
            "rank {rank} of {nranks} ranks: they count from 0 to {}",
            size - 1
        )));
    }
    let Settings { config, label, blocks } = settings;
    let join = move || Communicator::builder()?.config(config).label(label).connect(&id, rank, size);
    // SAFETY: the caller's promise.
    unsafe { made(place, None, blocks, join) }
}

/// Makes a communicator, perhaps of the ranks of another: in the background, at the end of the open group, or at once.
///
/// # Safety
/// `place` has room for a handle, until the outermost group ends.
unsafe fn made(
    place: *mut Handle,
    of: Option<Handle>,
    blocks: bool,
    join: impl FnOnce() -> rccl::Result<Communicator> + Send + 'static,
) -> Result<Answer, Refusal> {
    if !blocks {
        let handle = put(Comm::new())?;
        in_background(handle, join)?;
        // SAFETY: the caller's promise.
        unsafe { place.write(handle) };
        return Ok(Answer::InProgress);
    }
    if group::is_open() {
        group::make_later(place, of, Box::new(move || join().map(Some)))?;
        return Ok(Answer::Success);
    }
    let handle = insert(join()?)?;
    // SAFETY: the caller's promise.
    unsafe { place.write(handle) };
    Ok(Answer::Success)
}

/// # Safety
/// `comm` is NULL or has room for a handle; `config` as for rcclCommInitRankConfig.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommInitEnv(comm: *mut Handle, config: *const config::Config) -> Answer {
    answer_or(|| {
        let place = out(comm, "comm")?;
        // SAFETY: the caller's promise.
        unsafe { place.write(std::ptr::null_mut()) };
        group::refuse("rcclCommInitEnv")?;
        // SAFETY: the caller's promise.
        let Settings { config, label, blocks } = unsafe { config::read(config) }?;
        let join = move || Communicator::builder()?.config(config).label(label).from_env();
        let (handle, answer) = if blocks {
            (insert(join()?)?, Answer::Success)
        } else {
            let handle = put(Comm::new())?;
            in_background(handle, join)?;
            (handle, Answer::InProgress)
        };
        // SAFETY: the caller's promise.
        unsafe { place.write(handle) };
        Ok(answer)
    })
}

/// Joins on a thread of its own.
fn in_background(
    handle: Handle,
    join: impl FnOnce() -> rccl::Result<Communicator> + Send + 'static,
) -> Result<(), Refusal> {
    let comm = get(handle)?;
    let blocked = rccl::SignalsBlocked::new();
    let thread = std::thread::Builder::new().name("rccl-join".into()).spawn(move || {
        let joined = catch_unwind(AssertUnwindSafe(join));
        let joined = joined.map_or_else(|panic| Err(fault(&*panic)), |joined| joined.map_err(Refusal::from));
        let _ = comm.joined.set(joined);
        // Who gives it up says so, and then looks whether it was joined.
        if let (Ok(communicator), true) = (comm.communicator(), comm.given_up.load(Ordering::SeqCst)) {
            communicator.abort("it was aborted before it was joined");
        }
    });
    drop(blocked);
    thread.map(drop).map_err(|error| Refusal {
        answer: Answer::SystemError,
        words: format!("a thread that joins cannot be started: {error}"),
    })
}

/// All ranks in this process, as programs for one host with several devices have them.
///
/// # Safety
/// `comms` is NULL or has room for `ndev` handles; `devlist` is not read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommInitAll(comms: *mut Handle, ndev: c_int, devlist: *const c_int) -> Answer {
    let _ = devlist;
    answer(|| {
        let place = out(comms, "comms")?;
        let size = u32::try_from(ndev).ok().filter(|&size| (1..=4096).contains(&size));
        let size =
            size.ok_or_else(|| Refusal::argument(format!("{ndev} devices, where 1 to 4096 are possible")))?;
        let config = config::environment()?;
        let id = UniqueId::create(&config)?;
        let joins: Vec<group::Join<Communicator>> = (0..size)
            .map(|rank| {
                let config = config.clone();
                Box::new(move || Communicator::builder()?.config(config).connect(&id, rank, size))
                    as group::Join<Communicator>
            })
            .collect();
        // SAFETY: the caller's promise.
        let places =
            unsafe { std::slice::from_raw_parts_mut(place.cast::<MaybeUninit<Handle>>(), size as usize) };
        places.fill(MaybeUninit::new(std::ptr::null_mut()));
        // All or none: those that were made are left again.
        let joined: Vec<Communicator> = group::join_all(joins).into_iter().collect::<rccl::Result<_>>()?;
        for (place, communicator) in places.iter_mut().zip(joined) {
            place.write(insert(communicator)?);
        }
        Ok(())
    })
}

/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommFinalize(comm: Handle) -> Answer {
    answer(|| {
        let comm = get(comm)?;
        let communicator = comm.communicator()?;
        if comm.left.swap(true, Ordering::AcqRel) {
            return Err(Refusal::usage("the communicator was finalized before"));
        }
        Ok(communicator.clone().finish()?)
    })
}

/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommDestroy(comm: Handle) -> Answer {
    answer(|| {
        get(comm)?;
        let Some(removed) = COMMS.remove(comm) else { return Ok(()) };
        match removed.joined.get() {
            // Its failure was told before, by calls or rcclCommGetAsyncError.
            Some(Ok(communicator)) if !removed.left.swap(true, Ordering::AcqRel) => {
                drop(communicator.clone().finish())
            }
            Some(_) => {}
            None => removed.given_up.store(true, Ordering::SeqCst),
        }
        one_sided::deregister_all(comm);
        memory::deregister_all(comm);
        Ok(())
    })
}

/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommAbort(comm: Handle) -> Answer {
    answer(|| {
        get(comm)?;
        let Some(removed) = COMMS.remove(comm) else { return Ok(()) };
        removed.given_up.store(true, Ordering::SeqCst);
        if let Some(Ok(communicator)) = removed.joined.get() {
            communicator.abort("rcclCommAbort was called");
        }
        one_sided::deregister_all(comm);
        memory::deregister_all(comm);
        Ok(())
    })
}

/// # Safety
/// Any value is safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommRevoke(comm: Handle) -> Answer {
    answer(|| {
        get(comm)?.communicator()?.abort("rcclCommRevoke was called");
        Ok(())
    })
}

/// # Safety
/// `why` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommRevokeBecause(comm: Handle, why: *const c_char) -> Answer {
    if why.is_null() {
        // SAFETY: any value is.
        return unsafe { rcclCommRevoke(comm) };
    }
    answer(|| {
        // SAFETY: the caller's promise.
        let why = unsafe { CStr::from_ptr(why) }.to_string_lossy();
        get(comm)?.communicator()?.abort(&why);
        Ok(())
    })
}

/// # Safety
/// `error` is NULL or has room for a result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommGetAsyncError(comm: Handle, error: *mut Answer) -> Answer {
    answer(|| {
        let (comm, error) = (get(comm)?, out(error, "error")?);
        let now = match comm.joined.get() {
            None => Answer::InProgress,
            Some(Err(failed)) => failed.answer,
            Some(Ok(communicator)) => communicator.check().as_ref().map_or_else(number, |()| Answer::Success),
        };
        // SAFETY: the caller's promise.
        unsafe { error.write(now) };
        Ok(())
    })
}

/// # Safety
/// `count` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommCount(comm: Handle, count: *mut c_int) -> Answer {
    answer(|| {
        let (comm, count) = (get(comm)?, out(count, "count")?);
        let size = comm.communicator()?.size();
        // SAFETY: the caller's promise.
        unsafe { count.write(size as c_int) };
        Ok(())
    })
}

/// # Safety
/// `rank` is NULL or has room for a number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommUserRank(comm: Handle, rank: *mut c_int) -> Answer {
    answer(|| {
        let (comm, rank) = (get(comm)?, out(rank, "rank")?);
        let own = comm.communicator()?.rank();
        // SAFETY: the caller's promise.
        unsafe { rank.write(own as c_int) };
        Ok(())
    })
}

/// # Safety
/// `newcomm` is NULL or has room for a handle; `config` as for rcclCommInitRankConfig.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommSplit(
    comm: Handle,
    color: c_int,
    key: c_int,
    newcomm: *mut Handle,
    config: *const config::Config,
) -> Answer {
    // SAFETY: the caller's promise.
    answer(|| group::part(unsafe { split(comm, color, key, newcomm, config) }))
}

/// # Safety
/// As for rcclCommSplit.
unsafe fn split(
    handle: Handle,
    color: c_int,
    key: c_int,
    newcomm: *mut Handle,
    config: *const config::Config,
) -> Result<(), Refusal> {
    let (comm, place) = (get(handle)?, out(newcomm, "newcomm")?);
    // SAFETY: the caller's promise.
    unsafe { place.write(std::ptr::null_mut()) };
    // SAFETY: the caller's promise. What it says was decided when the parent was joined.
    unsafe { config::read(config) }?;
    // RCCL_SPLIT_NOCOLOR
    let color = match color {
        -1 => None,
        color => Some(u32::try_from(color).map_err(|_| {
            Refusal::argument(format!("colour {color}: colours are 0 or more, or RCCL_SPLIT_NOCOLOR"))
        })?),
    };
    let communicator = comm.communicator()?;
    if group::is_open() {
        let communicator = communicator.clone();
        return group::make_later(place, Some(handle), Box::new(move || communicator.split(color, key)));
    }
    if let Some(part) = communicator.split(color, key)? {
        let handle = insert(part)?;
        // SAFETY: the caller's promise.
        unsafe { place.write(handle) };
    }
    Ok(())
}

/// # Safety
/// `excluded` has `count` numbers; `newcomm` is NULL or has room for a handle; `config` as for rcclCommInitRankConfig.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommShrink(
    comm: Handle,
    excluded: *const c_int,
    count: c_int,
    newcomm: *mut Handle,
    config: *const config::Config,
    flags: c_int,
) -> Answer {
    // SAFETY: the caller's promise.
    answer(|| group::part(unsafe { shrink(comm, excluded, count, newcomm, config, flags) }))
}

/// # Safety
/// As for rcclCommShrink.
unsafe fn shrink(
    comm: Handle,
    excluded: *const c_int,
    count: c_int,
    newcomm: *mut Handle,
    config: *const config::Config,
    flags: c_int,
) -> Result<(), Refusal> {
    let (comm, place) = (get(comm)?, out(newcomm, "newcomm")?);
    // SAFETY: the caller's promise.
    unsafe { place.write(std::ptr::null_mut()) };
    // SAFETY: the caller's promise.
    unsafe { config::read(config) }?;
    if !(0..=1).contains(&flags) {
        return Err(Refusal::argument(format!("flags {flags}: RCCL_SHRINK_DEFAULT or RCCL_SHRINK_ABORT")));
    }
    // SAFETY: the caller's promise.
    let excluded = unsafe { crate::list(excluded, count, "excluded") }?;
    let excluded: Result<Vec<u32>, _> = excluded.iter().map(|&rank| u32::try_from(rank)).collect();
    let excluded = excluded.map_err(|_| Refusal::argument("a rank to be excluded is below 0"))?;
    let handle = insert(comm.communicator()?.shrink(&excluded)?)?;
    // SAFETY: the caller's promise.
    unsafe { place.write(handle) };
    Ok(())
}

/// # Safety
/// `id` is NULL or an id; `newcomm` is NULL or has room for a handle, until the outermost group ends; `config` as for
/// rcclCommInitRankConfig.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rcclCommGrow(
    comm: Handle,
    nranks: c_int,
    id: *const RawId,
    rank: c_int,
    newcomm: *mut Handle,
    config: *const config::Config,
) -> Answer {
    // SAFETY: the caller's promise.
    answer_or(|| group::part(unsafe { grow(comm, nranks, id, rank, newcomm, config) }))
}

/// # Safety
/// As for rcclCommGrow.
unsafe fn grow(
    handle: Handle,
    nranks: c_int,
    id: *const RawId,
    rank: c_int,
    newcomm: *mut Handle,
    config: *const config::Config,
) -> Result<Answer, Refusal> {
    // SAFETY: the caller's promise.
    let id = unsafe { id.as_ref() }.copied();
    if handle.is_null() {
        // A new rank joins as all do.
        let id = id.ok_or_else(|| Refusal::argument("id is NULL: a new rank needs that of the others"))?;
        // SAFETY: the caller's promise.
        return unsafe { join(newcomm, nranks, id, rank, config) };
    }
    let (comm, place) = (get(handle)?, out(newcomm, "newcomm")?);
    // SAFETY: the caller's promise.
    unsafe { place.write(std::ptr::null_mut()) };
    // SAFETY: the caller's promise. Of what it says only this is not decided by the parent.
    let blocks = unsafe { config::read(config) }?.blocks;
    let communicator = comm.communicator()?.clone();
    if rank != -1 {
        return Err(Refusal::argument(format!(
            "rank {rank}: ranks of the communicator keep theirs and pass -1; new ones pass NULL as comm"
        )));
    }
    let size = u32::try_from(nranks).map_err(|_| Refusal::argument(format!("{nranks} ranks")))?;
    let id = id.map(|id| UniqueId::from_bytes(id.internal)).transpose()?;
    if blocks || group::is_open() {
        let grow = move || communicator.grow(size, id.as_ref());
        // SAFETY: the caller's promise.
        return unsafe { made(place, Some(handle), true, grow) };
    }
    // On this thread, or other calls on the communicator might come before it.
    let growth = communicator.growth(size, id.as_ref())?;
    // SAFETY: as above.
    unsafe { made(place, None, false, move || growth.join()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_panic_while_it_is_joined_is_told() {
        let handle = put(Comm::new()).ok().unwrap();
        in_background(handle, || panic!("on purpose")).ok().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut now = Answer::InProgress;
        while now == Answer::InProgress {
            assert!(Instant::now() < deadline, "it is joined for ever");
            std::thread::sleep(Duration::from_millis(1));
            // SAFETY: there is room for a result.
            assert_eq!(unsafe { rcclCommGetAsyncError(handle, &mut now) }, Answer::Success);
        }
        assert_eq!(now, Answer::InternalError);
        let refusal = get(handle).ok().unwrap().communicator().err().unwrap();
        assert_eq!(refusal.words, "a fault of rccl: on purpose");
        // SAFETY: any value is.
        assert_eq!(unsafe { rcclCommDestroy(handle) }, Answer::Success);
    }
}
