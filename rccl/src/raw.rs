//! Calls on raw memory, for bindings of other languages: checked as far as that can be, then made at once, in the background,
//! on a stream ([`Communicator::on`]) or together with others.

use crate::call::{Call, Collective};
use crate::communicator::Communicator;
use crate::element::ReduceOp;
use crate::engine::{Cross, Lengths, Message, Task};
use crate::error::{Error, Result};
use crate::flow::Tried;
use crate::group::Group;
use crate::one_sided::OneSidedCall;
use crate::request::{self, check_operator, digest};
use crate::work::{Finish, Held, OwnedBuf, Work};
use rccl_kernels::Scale;
use rccl_schedule::{Few, Window};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A call on raw memory that has been checked and is not made yet; see [`Communicator::raw`].
pub struct Raw {
    task: Task,
    timeout: Option<Duration>,
}

impl Raw {
    /// The call, which fails on all ranks if it takes longer than this here, instead of
    /// [`Config::timeout`](crate::Config::timeout). Calls in groups take no notice of it.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Raw {
        Raw { timeout: Some(timeout), ..self }
    }
}

/// How long the blocks of a raw call are.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum RawSizes<'a> {
    /// All have [`Call::count`] elements. Also of gather_v and scatter_v where this rank is not the root: it knows the length
    /// of its own block only.
    Equal,
    /// By rank: of all_gather_v, reduce_scatter_v, and the root's of gather_v and scatter_v. [`Call::count`] means nothing.
    Counts(&'a [usize]),
    /// Of all_to_all_v: what is sent to each rank, and what is received from each. [`Call::count`] means nothing.
    Cross {
        /// By receiver.
        sent: &'a [usize],
        /// By sender.
        received: &'a [usize],
    },
}

/// Memory that somebody else owns, as bytes.
#[derive(Clone, Copy, Debug)]
pub struct RawMemory {
    start: *mut u8,
    bytes: usize,
}

// SAFETY: whoever made it promises that the memory may be used from any thread.
unsafe impl Send for RawMemory {}
// SAFETY: as above.
unsafe impl Sync for RawMemory {}

impl RawMemory {
    /// # Safety
    /// The memory is initialised and valid, from any thread, as long as this value or a copy of it is used: handed to calls, or
    /// registered. While one of them is handed to a call nobody else reaches the memory, by a copy of this neither.
    pub unsafe fn new(start: *mut u8, bytes: usize) -> RawMemory {
        let start = if bytes == 0 { std::ptr::dangling_mut() } else { start };
        RawMemory { start, bytes }
    }

    pub(crate) fn start(self) -> *mut u8 {
        self.start
    }

    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }
}

// SAFETY: the memory stays where it is, by the promise of whoever made the value.
unsafe impl OwnedBuf for RawMemory {
    type Item = u8;
    fn elements(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

/// Calls on raw memory that are submitted together, as those of [`group`](crate::group()) are, whose calls are added one by
/// one.
#[derive(Default)]
pub struct RawGroup {
    calls: Group<'static>,
    one_sided: Vec<OneSidedCall>,
}

impl Communicator {
    /// Checks a call on raw memory, a message among them ([`Call::root`] is the peer then; it may be this rank itself, in a
    /// group). `input` and `output` point to as many elements as the collective and `sizes` say; a message uses one of them.
    /// In place, where the blocks have one length, they are the same pointer, or one is this rank's block of the other as
    /// NCCL defines it. `scalar`: one element, which operands are multiplied by
    /// ([`ReduceOp::PreMulSum`](crate::ReduceOp::PreMulSum)), in this machine's order of bytes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a root out of range, a null pointer where elements are needed, sizes that do not fit an
    /// address space or are not those that the collective takes, memory that overlaps in any other way, an operator that does
    /// not suit the type, or a scalar without that operator or of another length.
    pub fn raw(
        &self,
        call: &Call,
        sizes: RawSizes<'_>,
        scalar: Option<&[u8]>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Raw> {
        Ok(Raw { task: self.raw_task(call, sizes, scalar, input, output)?, timeout: None })
    }

    #[inline]
    fn raw_task(
        &self,
        call: &Call,
        sizes: RawSizes<'_>,
        scalar: Option<&[u8]>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Task> {
        if let Some(root) = call.root {
            self.caller().check_root(call.collective.name(), root)?;
        }
        check_operator(call)?;
        let scale = match scalar {
            Some(_) if call.op != Some(ReduceOp::PreMulSum) => {
                return refuse(call, "a scalar".into(), "only the pre-multiplied sum has one");
            }
            Some(bytes) => match Scale::from_bytes(call.dtype, bytes) {
                None => {
                    let what =
                        format!("a scalar of {} bytes for elements of type {}", bytes.len(), call.dtype);
                    return refuse(call, what, "it is one element");
                }
                scale => scale,
            },
            None => None,
        };
        match (call.collective, sizes) {
            (Collective::Send | Collective::Recv, RawSizes::Equal) => self.raw_message(call, input, output),
            (Collective::Barrier, RawSizes::Equal) => request::barrier(self.caller()),
            (Collective::GatherV | Collective::ScatterV, _) => self.raw_own(call, sizes, input, output),
            (Collective::AllGatherV | Collective::ReduceScatterV, RawSizes::Counts(counts)) => {
                self.raw_counts(call, counts, scale, input, output)
            }
            (Collective::AllToAllV, RawSizes::Cross { sent, received }) => {
                self.raw_cross(call, sent, received, input, output)
            }
            (collective, RawSizes::Equal) if !collective.has_counts() && collective != Collective::Fused => {
                self.check_equal(call, input, output)?;
                Ok(Task::Collective { call: *call, sizes: Lengths::Equal(call.count), input, output, scale })
            }
            _ => refuse(
                call,
                "sizes of another kind of call".into(),
                "pass counts to the forms with counts, and to no other",
            ),
        }
    }

    /// Checks a call as [`Communicator::raw`] does, makes it and blocks until it has ended: as [`Communicator::run_raw`],
    /// without a value in between to be made and moved.
    ///
    /// # Errors
    /// Of both.
    ///
    /// # Safety
    /// `input` is valid for reads and `output` for writes of the call's elements until this returns, and nobody else uses
    /// them meanwhile.
    pub unsafe fn run_raw_call(
        &self,
        call: &Call,
        sizes: RawSizes<'_>,
        scalar: Option<&[u8]>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<()> {
        if let (Collective::Send | Collective::Recv, Some(peer)) = (call.collective, call.root) {
            self.caller().check_another(call.collective.name(), peer)?;
        }
        let task = self.raw_task(call, sizes, scalar, input, output);
        // SAFETY: the caller's promise; the ranges are those of a call in place, or apart.
        unsafe { self.execute(task) }
    }

    /// Makes a call and blocks until it has ended.
    ///
    /// # Errors
    /// As the methods; [`Error::InvalidArgument`] for a message to this rank itself, which only a group can have.
    ///
    /// # Safety
    /// `input` is valid for reads and `output` for writes of the call's elements until this returns, and nobody else uses
    /// them meanwhile. The call was checked by this communicator.
    pub unsafe fn run_raw(&self, raw: Raw) -> Result<()> {
        if raw.timeout.is_some() {
            // SAFETY: the caller's promise.
            return unsafe { self.run_raw_watched(raw, Duration::MAX, || None) };
        }
        let task = self.alone(raw);
        // SAFETY: the caller's promise; the ranges are those of a call in place, or apart.
        unsafe { self.execute(task) }
    }

    /// As [`Communicator::run_raw`], and asks `gives_up` again and again meanwhile, when so much time has passed: for
    /// interpreters, which have signals to attend to. If there is a reason to give up, the communicator is aborted with it.
    ///
    /// # Errors
    /// As [`Communicator::run_raw`].
    ///
    /// # Safety
    /// As for [`Communicator::run_raw`].
    pub unsafe fn run_raw_watched(
        &self,
        raw: Raw,
        every: Duration,
        mut gives_up: impl FnMut() -> Option<String>,
    ) -> Result<()> {
        let timeout = raw.timeout;
        let task = self.alone(raw);
        let mut told = None;
        let told_when_over = || -> Arc<dyn Finish> { told.insert(Held::new(())).clone() };
        let tried = match &task {
            // SAFETY: the caller's promise; it has ended before this returns.
            Ok(task) if timeout.is_none() => unsafe { self.execute_for(task, every, told_when_over) }?,
            _ => Tried::Not,
        };
        let mut look = |end: &Held<()>| {
            if !end.is_done()
                && let Some(why) = gives_up()
            {
                self.abort(&why);
            }
        };
        if let Tried::Ended(result) = tried {
            return result;
        }
        let end = match told {
            Some(end) => {
                look(&end);
                end
            }
            None => {
                let end = Held::new(());
                // SAFETY: as above.
                unsafe { self.queue(task, timeout, end.clone()) };
                end
            }
        };
        while !end.is_done() {
            self.help_until(Instant::now().checked_add(every), || end.is_done());
            look(&end);
        }
        end.result()
    }

    /// Makes a call and returns at once. What it answers may be dropped.
    ///
    /// # Errors
    /// Of the work, or of its stream: as [`Communicator::run_raw`].
    ///
    /// # Safety
    /// As for [`Communicator::run_raw`], until the work has ended, dropped or not.
    pub unsafe fn start_raw(&self, raw: Raw) -> Work<()> {
        let end = Held::new(());
        let timeout = raw.timeout;
        let task = self.alone(raw);
        // SAFETY: the caller's promise.
        unsafe { self.submit_within(task, timeout, end.clone()) };
        Work::new(self.clone(), end)
    }

    /// A task that nothing else goes with.
    #[inline]
    fn alone(&self, Raw { task, .. }: Raw) -> Result<Task> {
        if let Task::Messages(messages) = &task {
            for message in messages.as_slice() {
                let name = if message.outgoing { "send" } else { "recv" };
                self.caller().check_another(name, message.peer)?;
            }
        }
        Ok(task)
    }

    fn raw_message(&self, call: &Call, input: *const u8, output: *mut u8) -> Result<Task> {
        let Some(peer) = call.root else {
            return refuse(call, "no peer".into(), "say which rank is at the other end");
        };
        let outgoing = call.collective == Collective::Send;
        let memory = if outgoing { input.cast_mut() } else { output };
        extent(call, call.count, memory)?;
        let message = Message { peer, outgoing, dtype: call.dtype, count: call.count, memory };
        Ok(Task::Messages(Few::One(message)))
    }

    /// Of gather_v and scatter_v: the root has a block of each rank, the others their own.
    fn raw_own(&self, call: &Call, sizes: RawSizes<'_>, input: *const u8, output: *mut u8) -> Result<Task> {
        let Some(root) = call.root else {
            return refuse(call, "no root".into(), "say which rank is the root");
        };
        let (rank, size) = (self.rank() as usize, self.size() as usize);
        let mut blocks = vec![0; size];
        match sizes {
            RawSizes::Counts(counts) if self.rank() == root => {
                blocks = self.caller().counts(call.collective.name(), "the root's counts", counts)?;
            }
            RawSizes::Equal if self.rank() != root => blocks[rank] = call.count,
            _ => {
                let hint =
                    "the root passes counts, by rank, and every other rank the length of its own block";
                return refuse(call, "sizes of the wrong kind for this rank".into(), hint);
            }
        }
        let (own, all) = (blocks[rank], blocks.iter().sum());
        let (read, written) = match call.collective {
            Collective::GatherV => (own, if self.rank() == root { all } else { 0 }),
            _ => (if self.rank() == root { all } else { 0 }, own),
        };
        let call = Call { count: Call::VARYING, ..*call };
        apart(&call, (input, read), (output, written))?;
        Ok(Task::Collective { call, sizes: Lengths::Blocks(blocks), input, output, scale: None })
    }

    /// Of all_gather_v and reduce_scatter_v: every rank knows the lengths of all blocks.
    fn raw_counts(
        &self,
        call: &Call,
        counts: &[usize],
        scale: Option<Scale>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Task> {
        let blocks = self.caller().counts(call.collective.name(), "counts", counts)?;
        let (own, all) = (blocks[self.rank() as usize], blocks.iter().sum());
        let gathers = call.collective == Collective::AllGatherV;
        let (read, written) = if gathers { (own, all) } else { (all, own) };
        apart(call, (input, read), (output, written))?;
        let call = Call { root: Some(digest(&blocks)), count: all, ..*call };
        Ok(Task::Collective { call, sizes: Lengths::Blocks(blocks), input, output, scale })
    }

    fn raw_cross(
        &self,
        call: &Call,
        sent: &[usize],
        received: &[usize],
        input: *const u8,
        output: *mut u8,
    ) -> Result<Task> {
        let (rank, name) = (self.rank(), call.collective.name());
        let row = self.caller().counts(name, "the counts of what is sent", sent)?;
        let column = self.caller().counts(name, "the counts of what is received", received)?;
        let (to_self, from_self) = (row[rank as usize], column[rank as usize]);
        if to_self != from_self {
            let what =
                format!("this rank sends {to_self} elements to itself and receives {from_self} from itself");
            return refuse(call, what, "its entries in both lists are the same number");
        }
        apart(call, (input, row.iter().sum()), (output, column.iter().sum()))?;
        let call = Call { count: Call::VARYING, ..*call };
        let sizes = Lengths::Cross(Box::new(Cross { rank, row, column }));
        Ok(Task::Collective { call, sizes, input, output, scale: None })
    }

    /// Checks a call whose blocks have one length.
    #[inline]
    fn check_equal(&self, call: &Call, input: *const u8, output: *mut u8) -> Result<()> {
        let (rank, ranks) = (self.rank(), self.size());
        let Some(block) = call.count.checked_mul(call.dtype.size() as u64) else {
            return refuse(call, format!("{} elements", call.count), "no memory is that large");
        };
        let Some(collective) = call.collective.schedule(call.root.unwrap_or(0)) else {
            return refuse(call, "a call that is none".into(), "submit calls in groups of your own");
        };
        if collective.root().is_some() && call.root.is_none() {
            return refuse(call, "no root".into(), "say which rank is the root");
        }
        let (read, written) = (collective.input(rank, ranks), collective.output(rank, ranks));
        let elements = |blocks: u32| call.count.saturating_mul(blocks.into());
        let (reads, writes) =
            (extent(call, elements(read.len()), input)?, extent(call, elements(written.len()), output)?);
        let (first, second) = (input as u64, output as u64);
        let overlap = reads > 0 && writes > 0 && first < second + writes && second < first + reads;
        // The first block that both have lies at one place if the call is in place. Both have some, as they overlap.
        let in_place = || {
            let shared = read.at(0).max(written.at(0));
            let offset = |window: &Window| window.position(shared).map(|p| u64::from(p) * block);
            collective.has_in_place_form()
                && match (offset(&read), offset(&written)) {
                    (Some(a), Some(b)) => first + a == second + b,
                    _ => false,
                }
        };
        if overlap && !in_place() {
            return refuse(
                call,
                format!(
                    "input and output overlap: they start {} bytes apart and are {reads} and {writes} bytes long",
                    first.abs_diff(second)
                ),
                if collective.has_in_place_form() {
                    "work in place (one array, or this rank's block of it), or on disjoint arrays"
                } else {
                    "it does not work in place: pass disjoint arrays"
                },
            );
        }
        Ok(())
    }
}

impl RawGroup {
    /// A group without calls.
    pub fn new() -> RawGroup {
        RawGroup::default()
    }

    /// Adds a call that `on` has checked; what was wrong with it keeps the whole group from being made.
    pub fn add(&mut self, on: &Communicator, call: Result<Raw>) {
        self.calls.add(on, call.map(|raw| raw.task));
    }

    /// Adds a one-sided call. Of a group first comes what is put and signalled, in the order in which it was added, then its
    /// other calls, and last its waits for signals.
    pub fn add_one_sided(&mut self, call: OneSidedCall) {
        self.one_sided.push(call);
    }

    /// How long the calls would take, as [`Communicator::estimate`] says it of each: those of one communicator one after
    /// the other, different communicators at the same time. `None` if that is not known of one, as of one-sided calls.
    pub fn estimate(&self) -> Option<Duration> {
        if self.one_sided.is_empty() { self.calls.estimate() } else { None }
    }

    /// Makes all calls and blocks until all have ended; one-sided calls on streams may go on.
    ///
    /// # Errors
    /// As [`group`](crate::group()).
    ///
    /// # Safety
    /// As for [`Communicator::run_raw`] and [`OneSidedCall::run`], of every call.
    pub unsafe fn run(self) -> Result<()> {
        // SAFETY: the caller's promise.
        let make = |calls: Group<'static>| unsafe { calls.run() };
        // SAFETY: as above.
        unsafe { self.make(make) }
    }

    /// Makes all calls and returns at once, but for one-sided calls on no stream. What each of the others answers may be dropped.
    ///
    /// # Errors
    /// Where nothing has been sent: as [`group`](crate::group()). The works, or their streams, have the calls' own.
    ///
    /// # Safety
    /// As for [`Communicator::start_raw`] and [`OneSidedCall::run`], of every call.
    pub unsafe fn start(self) -> Result<Vec<Work<()>>> {
        // SAFETY: the caller's promise.
        let make = |calls: Group<'static>| unsafe { calls.start() };
        // SAFETY: as above.
        unsafe { self.make(make) }
    }

    /// # Safety
    /// As for [`OneSidedCall::run`].
    unsafe fn make<T>(mut self, make: impl FnOnce(Group<'static>) -> Result<T>) -> Result<T> {
        if self.one_sided.is_empty() {
            return make(self.calls);
        }
        self.calls.check()?;
        let (waits, puts): (Vec<_>, Vec<_>) = self.one_sided.into_iter().partition(OneSidedCall::waits);
        for put in puts {
            // SAFETY: the caller's promise.
            unsafe { put.run() }?;
        }
        let made = make(self.calls)?;
        for wait in waits {
            // SAFETY: as above.
            unsafe { wait.run() }?;
        }
        Ok(made)
    }
}

#[cold]
fn refuse<T>(call: &Call, what: String, hint: &str) -> Result<T> {
    Err(Error::InvalidArgument { call: call.collective.name(), what, hint: hint.into() })
}

/// The bytes of so many elements, which lie at a pointer.
#[inline]
fn extent(call: &Call, count: u64, memory: *const u8) -> Result<u64> {
    let bytes = count.checked_mul(call.dtype.size() as u64).filter(|&bytes| bytes <= isize::MAX as u64);
    match bytes {
        None => refuse(call, format!("{count} elements"), "no memory is that large"),
        Some(1..) if memory.is_null() => {
            refuse(call, "a null pointer".into(), "pass memory for all elements, or a count of 0")
        }
        Some(bytes) => Ok(bytes),
    }
}

/// Checks that what is read and what is written, pointers and numbers of elements, do not overlap.
fn apart(call: &Call, read: (*const u8, u64), written: (*mut u8, u64)) -> Result<()> {
    let (reads, writes) = (extent(call, read.1, read.0)?, extent(call, written.1, written.0)?);
    let (first, second) = (read.0 as u64, written.0 as u64);
    if reads > 0 && writes > 0 && first < second + writes && second < first + reads {
        return refuse(
            call,
            format!(
                "input and output overlap: they start {} bytes apart and are {reads} and {writes} bytes long",
                first.abs_diff(second)
            ),
            "work on disjoint arrays",
        );
    }
    Ok(())
}
