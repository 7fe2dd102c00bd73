//! The public face: a communicator and its collectives.

use crate::bootstrap::{Meeting, UniqueId};
use crate::buffer::Buffer;
use crate::call::{Call, Collective};
use crate::config::Config;
use crate::control::{Control, JoinOptions};
use crate::element::{DataType, Element, ReduceOp};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::fork;
use crate::meet;
use rccl_transport::memory::RegionTable;
use std::sync::{Arc, Mutex, PoisonError};

/// A group of ranks that call collectives together.
///
/// A handle: clones are the same communicator. Every rank must make the same calls in the same order, with the same
/// type, count, operator and root; a rank that does otherwise gets [`Failure::Mismatch`](crate::Failure::Mismatch), and so does
/// every other rank. Threads that share a communicator are served one at a time; the order of their calls must then
/// agree on all ranks.
///
/// Calls block until this rank's part is done: its result is there, and its memory is no longer read by anybody. Every
/// call has a deadline ([`Config::timeout`]). After a failure the communicator is broken on all ranks: every call
/// returns the same first cause.
///
/// Dropping the last handle says goodbye to the other ranks and never blocks for long.
#[derive(Clone)]
pub struct Communicator {
    shared: Arc<Shared>,
}

struct Shared {
    rank: u32,
    size: u32,
    label: String,
    control: Control,
    regions: Arc<RegionTable>,
    engine: Mutex<Engine>,
    born: fork::Generation,
}

/// What [`Communicator::builder`] collects.
pub struct Builder {
    config: Config,
    label: String,
}

impl Builder {
    /// Uses these settings instead of the environment's.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }
    /// Names the communicator in errors and logs.
    pub fn label(mut self, label: impl Into<String>) -> Builder {
        self.label = label.into();
        self
    }
    /// Joins as [`Communicator::new`] does.
    ///
    /// # Errors
    /// As [`Communicator::new`].
    pub fn connect(self, id: &UniqueId, rank: u32, size: u32) -> Result<Communicator> {
        Communicator::join(&Meeting::Id(*id), rank, size, &self.config, self.label)
    }
    /// Joins as [`Communicator::from_env`] does.
    ///
    /// # Errors
    /// As [`Communicator::from_env`].
    pub fn from_env(self) -> Result<Communicator> {
        let invitation = meet::ask_launcher(&self.config)?;
        let joined = Communicator::join(
            &invitation.meeting,
            invitation.rank,
            invitation.size,
            &self.config,
            self.label,
        );
        drop(invitation.exchange);
        joined
    }
}

impl Communicator {
    /// Joins the job that the launcher started this process in (`mpirun`, `mpiexec`, `srun`, `torchrun`, `rccl run`, or
    /// plain `RANK` and `WORLD_SIZE` variables; without any, a communicator of one rank). Blocks until all ranks have
    /// joined, at most [`Config::init_timeout`].
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a setting that cannot be used; [`Error::Join`] when the ranks do not come together,
    /// with who is missing or who was refused and why.
    pub fn from_env() -> Result<Communicator> {
        Builder { config: Config::from_env()?, label: "world".into() }.from_env()
    }

    /// Joins rank `rank` of `size` to the communicator that `id` names; every rank passes the same id, made by
    /// [`UniqueId::create`] in one process that takes part or lives as long. Blocks until all ranks have joined.
    ///
    /// # Errors
    /// As [`Communicator::from_env`], and [`Error::InvalidArgument`] when `rank >= size`.
    pub fn new(id: &UniqueId, rank: u32, size: u32) -> Result<Communicator> {
        Communicator::join(&Meeting::Id(*id), rank, size, &Config::from_env()?, "world".into())
    }

    /// Starts with the environment's settings.
    ///
    /// # Errors
    /// [`Error::InvalidSetting`] for a setting that cannot be used.
    pub fn builder() -> Result<Builder> {
        Ok(Builder { config: Config::from_env()?, label: "world".into() })
    }

    fn join(meeting: &Meeting, rank: u32, size: u32, config: &Config, label: String) -> Result<Communicator> {
        if rank >= size {
            return Err(Error::InvalidArgument {
                call: "Communicator::new",
                what: format!("rank {rank} of {size} ranks"),
                hint: "ranks count from 0 to size - 1".into(),
            });
        }
        let regions = registered_memory();
        let control = Control::join(meeting, rank, size, JoinOptions::new(config, regions.clone()))?;
        let engine = Engine::new(control.clone(), regions.clone(), label.clone(), config, rank)?;
        let engine = Mutex::new(engine);
        let born = fork::Generation::now();
        Ok(Communicator { shared: Arc::new(Shared { rank, size, label, control, regions, engine, born }) })
    }

    /// This process's number, `0..size`.
    pub fn rank(&self) -> u32 {
        self.shared.rank
    }

    /// How many ranks there are.
    pub fn size(&self) -> u32 {
        self.shared.size
    }

    /// Reduces `x` elementwise over all ranks; every rank's `x` becomes the result, the same bits on each.
    ///
    /// # Errors
    /// [`Error::Failed`] with the first cause when a rank called something else, died, aborted or timed out;
    /// [`Error::Forked`] in a forked child. The contents of `x` are then unspecified.
    #[inline]
    pub fn all_reduce<T: Element>(&self, x: &mut [T], op: ReduceOp) -> Result<()> {
        let call = reduction(T::TYPE, x.len(), op);
        let memory = x.as_mut_ptr().cast::<u8>();
        // SAFETY: `x` is borrowed for the whole call, and all types of elements accept any bits.
        unsafe { self.execute(&call, memory, memory) }
    }

    /// Reduces `x` elementwise over all ranks into every rank's `out`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the lengths differ; else as [`Communicator::all_reduce`].
    #[inline]
    pub fn all_reduce_into<T: Element>(&self, x: &[T], out: &mut [T], op: ReduceOp) -> Result<()> {
        same_length("all_reduce_into", x.len(), out.len())?;
        let call = reduction(T::TYPE, x.len(), op);
        // SAFETY: both slices are borrowed for the whole call and cannot overlap.
        unsafe { self.execute(&call, x.as_ptr().cast(), out.as_mut_ptr().cast()) }
    }

    /// Gives the root's `x` to every rank.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `root >= size`; else as [`Communicator::all_reduce`].
    #[inline]
    pub fn broadcast<T: Element>(&self, x: &mut [T], root: u32) -> Result<()> {
        let call = self.rooted(T::TYPE, x.len(), root)?;
        let memory = x.as_mut_ptr().cast::<u8>();
        // SAFETY: as in `all_reduce`.
        unsafe { self.execute(&call, memory, memory) }
    }

    /// Gives the root's `x` to every rank's `out`; the other ranks' `x` is not looked at, but has the same length.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when `root >= size` or the lengths differ; else as [`Communicator::all_reduce`].
    #[inline]
    pub fn broadcast_into<T: Element>(&self, x: &[T], out: &mut [T], root: u32) -> Result<()> {
        same_length("broadcast_into", x.len(), out.len())?;
        let call = self.rooted(T::TYPE, x.len(), root)?;
        // SAFETY: as in `all_reduce_into`.
        unsafe { self.execute(&call, x.as_ptr().cast(), out.as_mut_ptr().cast()) }
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn barrier(&self) -> Result<()> {
        let call =
            Call { collective: Collective::Barrier, dtype: DataType::U8, op: None, root: None, count: 0 };
        let nothing = std::ptr::NonNull::<u8>::dangling().as_ptr();
        // SAFETY: the call moves no elements.
        unsafe { self.execute(&call, nothing, nothing) }
    }

    /// All_reduce or broadcast on raw memory, for bindings of other languages.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a root out of range, a null pointer with a count above 0, a size that does not
    /// fit an address space, or memory that overlaps without being the same; else as [`Communicator::all_reduce`].
    ///
    /// # Safety
    /// `input` is valid for reads and `output` for writes of `call.count` elements until this returns, and nobody else
    /// uses them meanwhile.
    pub unsafe fn call_raw(&self, call: &Call, input: *const u8, output: *mut u8) -> Result<()> {
        let invalid = |what: String, hint: &str| {
            Err(Error::InvalidArgument { call: call.collective.name(), what, hint: hint.into() })
        };
        let Some(bytes) =
            call.count.checked_mul(call.dtype.size() as u64).filter(|&bytes| bytes <= isize::MAX as u64)
        else {
            return invalid(format!("{} elements", call.count), "no memory is that large");
        };
        if call.root.is_some_and(|root| root >= self.size()) {
            self.rooted(call.dtype, 0, call.root.unwrap_or(0))?;
        }
        if bytes > 0 && (input.is_null() || output.is_null()) {
            return invalid("a null pointer".into(), "pass memory for all elements, or a count of 0");
        }
        let apart = (input as u64).abs_diff(output as u64);
        if apart != 0 && apart < bytes {
            return invalid(
                format!(
                    "send and receive buffers overlap: they start {apart} bytes apart and are {bytes} bytes long"
                ),
                "pass the same pointer twice to work in place, or disjoint buffers",
            );
        }
        // SAFETY: the caller's promise; the ranges are the same or disjoint.
        unsafe { self.execute(call, input, output) }
    }

    /// Memory that the other ranks of this host can map: collectives on it move data without a copy between. Zeroed.
    ///
    /// # Errors
    /// [`Error::System`] when the memory cannot be had, with the need and the limit; [`Error::Forked`] in a forked
    /// child.
    pub fn alloc<T: Element>(&self, n: usize) -> Result<Buffer<T>> {
        self.shared.born.check()?;
        Buffer::new(&self.shared.regions, n)
    }

    /// Gives up on purpose: every rank's current and later calls fail with `why`. Returns at once, from any thread.
    /// Does nothing in a forked child.
    pub fn abort(&self, why: &str) {
        if self.shared.born.check().is_ok() {
            self.shared.control.abort(why);
        }
    }

    /// Leaves the communicator, after this rank's last call.
    ///
    /// # Errors
    /// The failure that broke the communicator, if one did; [`Error::Forked`] in a forked child.
    pub fn finish(self) -> Result<()> {
        self.shared.born.check()?;
        let broken = self.engine().broken();
        self.shared.control.goodbye();
        broken.map_or(Ok(()), Err)
    }

    /// The name in errors and logs.
    pub fn label(&self) -> &str {
        &self.shared.label
    }

    /// The word of the algorithm that `call` takes here.
    pub fn algorithm(&self, call: &Call) -> &'static str {
        self.engine().algorithm(call).word()
    }

    /// The program that this rank runs for `call`, one operation a line.
    pub fn explain(&self, call: &Call) -> String {
        self.engine().explain_program(call)
    }

    /// How each rank that was met so far is reached, and why so: (rank, transport, reason). Nothing in a forked child.
    pub fn transports(&self) -> Vec<(u32, String, String)> {
        if self.shared.born.check().is_err() {
            return Vec::new();
        }
        let engine = self.engine();
        let reached = engine.reached().iter();
        reached.map(|peer| (peer.peer, peer.kind.word().to_string(), peer.reason.clone())).collect()
    }

    fn rooted(&self, dtype: DataType, count: usize, root: u32) -> Result<Call> {
        if root >= self.size() {
            return Err(Error::InvalidArgument {
                call: "broadcast",
                what: format!("root {root} in a communicator of {} ranks", self.size()),
                hint: "ranks count from 0 to size - 1".into(),
            });
        }
        Ok(Call { collective: Collective::Broadcast, dtype, op: None, root: Some(root), count: count as u64 })
    }

    /// # Safety
    /// As [`Engine::execute`].
    #[inline]
    unsafe fn execute(&self, call: &Call, input: *const u8, output: *mut u8) -> Result<()> {
        self.shared.born.check()?;
        // SAFETY: the caller's promise.
        unsafe { self.engine().execute(call, input, output) }
    }

    fn engine(&self) -> std::sync::MutexGuard<'_, Engine> {
        // A panic inside a call has no broken invariant to hide: the engine marks itself broken on errors.
        self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process's registered memory, which all its communicators share.
fn registered_memory() -> Arc<RegionTable> {
    static REGIONS: Mutex<Option<(fork::Generation, Arc<RegionTable>)>> = Mutex::new(None);
    let mut regions = REGIONS.lock().unwrap_or_else(PoisonError::into_inner);
    match &*regions {
        Some((born, regions)) if born.check().is_ok() => regions.clone(),
        // A forked child shares the pages of its parent's regions, and must not use them for its own.
        _ => regions.insert((fork::Generation::now(), RegionTable::new())).1.clone(),
    }
}

#[inline]
fn reduction(dtype: DataType, count: usize, op: ReduceOp) -> Call {
    Call { collective: Collective::AllReduce, dtype, op: Some(op), root: None, count: count as u64 }
}

fn same_length(call: &'static str, input: usize, output: usize) -> Result<()> {
    if input == output {
        return Ok(());
    }
    Err(Error::InvalidArgument {
        call,
        what: format!("input of {input} elements, output of {output}"),
        hint: "both need the same length".into(),
    })
}
