//! Calls that are submitted together.

use crate::background;
use crate::call::{Call, Collective};
use crate::communicator::Communicator;
use crate::element::Element;
use crate::engine::{Lengths, Message, Piece, Task};
use crate::error::{Error, Result};
use crate::flow;
use crate::op::Op;
use crate::request;
use crate::stream::{self, Stream};
use crate::work::{Finish, Held, Work};
use rccl_schedule::Few;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Calls of at most this many bytes (a block) run as one, as long as together they have at most as many as a chunk of
/// the engine.
const SMALL: u64 = 8 << 10;
const TOGETHER: u64 = 64 << 10;
/// At most this many calls run as one: the control plane remembers twice as many of each rank, so that it can say which
/// of them differ.
const CALLS: usize = 8;

/// Calls to be submitted together; see [`group`].
#[derive(Default)]
pub struct Group<'env> {
    parts: Vec<Part>,
    /// Those that its calls are made on.
    streams: Vec<Stream>,
    /// The first error in an argument.
    wrong: Option<Error>,
    env: PhantomData<&'env mut &'env ()>,
}

/// The calls of one communicator.
struct Part {
    communicator: Communicator,
    collectives: Vec<Task>,
    messages: Vec<Message>,
}

/// Submits every call that `f` adds to the [`Group`] at once, on any communicators, and returns when all have ended.
///
/// Within a group the order of messages does not matter, but for those from one rank to one other, which meet in order:
/// a ring of sends and receives never waits for itself, whatever the sizes. The collectives of a communicator run in the
/// order in which they were added, which must agree on all ranks, before its messages; where their turn comes among the
/// messages does not matter. Small collectives of one kind that follow one another run as one, so every rank groups its
/// collectives alike; a rank that does not is a mismatch. Calls on streams ([`Communicator::on`]) begin together, when
/// everything on all of their streams has ended.
///
/// ```no_run
/// let communicator = rccl::Communicator::from_env()?;
/// let (rank, size) = (communicator.rank(), communicator.size());
/// let (mine, mut theirs) = (vec![rank; 1000], vec![0; 1000]);
/// rccl::group(|calls| {
///     calls.send(&communicator, &mine, (rank + 1) % size);
///     calls.recv(&communicator, &mut theirs, (rank + size - 1) % size);
/// })?;
/// # Ok::<(), rccl::Error>(())
/// ```
///
/// # Errors
/// [`Error::InvalidArgument`] if any call of the group is wrong by itself, or a message of a rank to itself has no
/// counterpart: nothing has been sent then. Else the first error of a call.
pub fn group<'env, R>(f: impl FnOnce(&mut Group<'env>) -> R) -> Result<R> {
    let mut group = Group::default();
    let result = f(&mut group);
    // SAFETY: the memory of all calls is borrowed for the environment of `f`, which outlives this function.
    unsafe { group.run() }?;
    Ok(result)
}

impl Group<'_> {
    /// What is wrong with the calls by themselves.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(error) = self.wrong.take() {
            return Err(error);
        }
        for part in &self.parts {
            part.check_own_messages()?;
            part.communicator.shared().born.check()?;
        }
        Ok(())
    }

    /// Makes the calls and blocks until they have ended.
    ///
    /// # Safety
    /// The memory of all calls is theirs until this returns.
    pub(crate) unsafe fn run(mut self) -> Result<()> {
        self.check()?;
        if let ([part], []) = (&self.parts[..], &self.streams[..]) {
            // On one communicator they run one after the other anyway.
            let communicator = part.communicator.clone();
            let mut tasks = self.parts.remove(0).into_tasks().into_iter();
            // SAFETY: the caller's promise.
            return tasks.try_for_each(|task| unsafe { communicator.execute(Ok(task)) });
        }
        // SAFETY: the caller's promise; all have ended before this returns.
        let works = unsafe { self.submit() };
        let flows: Vec<_> = works.iter().map(|(communicator, _)| &communicator.shared().flow).collect();
        flow::help(&flows, None, || works.iter().all(|(_, end)| end.is_done()));
        for (communicator, _) in &works {
            if communicator.shared().flow.is_busy() {
                background::look_after(communicator.shared())?;
            }
        }
        works.iter().try_for_each(|(_, end)| end.result())
    }

    /// Makes the calls and returns at once.
    ///
    /// # Safety
    /// The memory of all calls is theirs until they have ended.
    pub(crate) unsafe fn start(mut self) -> Result<Vec<Work<()>>> {
        self.check()?;
        let in_background = self.streams.is_empty() || self.streams.iter().any(Stream::is_in_background);
        // SAFETY: the caller's promise.
        let works = unsafe { self.submit() };
        for (communicator, _) in works.iter().filter(|_| in_background) {
            if let Err(error) = background::look_after(communicator.shared()) {
                tracing::warn!(%error, "asynchronous calls make progress only while they are waited for");
            }
        }
        Ok(works.into_iter().map(|(communicator, end)| Work::new(communicator, end)).collect())
    }

    /// Puts all calls into the queues of their communicators.
    ///
    /// # Safety
    /// The memory of all calls is theirs until they have ended.
    unsafe fn submit(self) -> Vec<(Communicator, Arc<Held<()>>)> {
        let (mut works, mut tasks) = (Vec::new(), Vec::new());
        for part in self.parts {
            let communicator = part.communicator.clone();
            for task in part.into_tasks() {
                works.push((communicator.clone(), Held::new(())));
                tasks.push(task);
            }
        }
        let tasks = works.iter().zip(tasks);
        let tasks = tasks
            .map(|((on, end), task)| (on.shared(), task.into(), end.clone() as Arc<dyn Finish>))
            .collect();
        let streams: Vec<&Stream> = self.streams.iter().collect();
        // SAFETY: the caller's promise.
        unsafe { stream::submit(&streams, None, tasks) };
        works
    }
}

impl Group<'_> {
    /// How long the calls would take, as [`Communicator::estimate`] says it of each: those of one communicator one after
    /// the other, different communicators at the same time. `None` if that is not known of one.
    pub(crate) fn estimate(&self) -> Option<Duration> {
        self.parts
            .iter()
            .map(Part::estimate)
            .try_fold(Duration::ZERO, |longest, part| Some(longest.max(part?)))
    }
}

impl Part {
    fn estimate(&self) -> Option<Duration> {
        let on = &self.communicator;
        let of = |task: &Task| match task {
            Task::Collective { call, .. } => on.estimate(call),
            Task::Fused(pieces) => pieces.iter().map(|piece| on.estimate(&piece.call)).sum(),
            Task::Messages(messages) => on.estimate_messages(messages.as_slice()),
        };
        let collectives: Option<Duration> = self.collectives.iter().map(of).sum();
        Some(collectives? + on.estimate_messages(&self.messages)?)
    }

    /// The collectives in their order, small ones together, then the messages.
    fn into_tasks(self) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mut together: Vec<Piece> = Vec::new();
        let flush = |together: &mut Vec<Piece>, tasks: &mut Vec<Task>| match &together[..] {
            [] => {}
            [Piece { call, input, output }] => {
                let sizes = Lengths::Equal(call.count);
                tasks.push(Task::Collective {
                    call: *call,
                    sizes,
                    input: *input,
                    output: *output,
                    scale: None,
                });
                together.clear();
            }
            _ => tasks.push(Task::Fused(std::mem::take(together))),
        };
        for task in self.collectives {
            let piece = match &task {
                Task::Collective { call, sizes: Lengths::Equal(_), input, output, scale: None }
                    if call.collective != Collective::Barrier && call.bytes() <= SMALL =>
                {
                    Piece { call: *call, input: *input, output: *output }
                }
                _ => {
                    flush(&mut together, &mut tasks);
                    tasks.push(task);
                    continue;
                }
            };
            let kind = |call: &Call| Call { count: 0, ..*call };
            let bytes: u64 = together.iter().map(|piece| piece.call.bytes()).sum();
            let fits = together.len() < CALLS && bytes + piece.call.bytes() <= TOGETHER;
            if together.last().is_some_and(|last| kind(&last.call) != kind(&piece.call)) || !fits {
                flush(&mut together, &mut tasks);
            }
            together.push(piece);
        }
        flush(&mut together, &mut tasks);
        match &self.messages[..] {
            [] => {}
            [message] => tasks.push(Task::Messages(Few::One(*message))),
            _ => tasks.push(Task::Messages(Few::Many(self.messages.into()))),
        }
        tasks
    }

    /// What a rank sends to itself and what it receives from itself must fit, one by one.
    fn check_own_messages(&self) -> Result<()> {
        let rank = self.communicator.rank();
        let own = |outgoing: bool| {
            self.messages.iter().filter(move |message| message.peer == rank && message.outgoing == outgoing)
        };
        let (mut sent, mut received) = (own(true), own(false));
        loop {
            let (call, what) = match (sent.next(), received.next()) {
                (None, None) => return Ok(()),
                (Some(a), Some(b)) if (a.dtype, a.count) == (b.dtype, b.count) => continue,
                (Some(a), Some(b)) => (
                    "recv",
                    format!(
                        "{} x{} from rank {rank} itself where it sends {} x{}",
                        b.dtype, b.count, a.dtype, a.count
                    ),
                ),
                (Some(_), None) => ("send", format!("rank {rank} sends to itself and does not receive that")),
                (None, Some(_)) => {
                    ("recv", format!("rank {rank} receives from itself what it does not send"))
                }
            };
            let hint = "in one group, pair every send to the own rank with a receive of its length and type";
            return Err(Error::InvalidArgument { call, what, hint: hint.into() });
        }
    }
}

impl<'env> Group<'env> {
    pub(crate) fn add(&mut self, communicator: &Communicator, task: Result<Task>) {
        let task = match task {
            Ok(task) => task,
            Err(error) => {
                self.wrong.get_or_insert(error);
                return;
            }
        };
        let same = |part: &Part| Arc::ptr_eq(part.communicator.shared(), communicator.shared());
        let number = self.parts.iter().position(same).unwrap_or_else(|| {
            let communicator = communicator.clone();
            self.parts.push(Part { communicator, collectives: Vec::new(), messages: Vec::new() });
            self.parts.len() - 1
        });
        if let Some(stream) = communicator.stream()
            && !self.streams.iter().any(|known| known.is(stream))
        {
            self.streams.push(stream.clone());
        }
        match task {
            Task::Messages(messages) => self.parts[number].messages.extend(messages.iter()),
            task => self.parts[number].collectives.push(task),
        }
    }
}

macro_rules! methods {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        /// The calls of a [`Communicator`], each on the one that is named first.
        impl<'env> Group<'env> {
            $(
                #[doc = concat!("As [`Communicator::", stringify!($name), "`].")]
                pub fn $name<T: Element>(&mut self, on: &Communicator, $($argument: $type),*) {
                    self.add(on, request::$name(on.caller(), $($argument),*));
                }
            )*
            /// As [`Communicator::send`]; also to this rank itself.
            pub fn send<T: Element>(&mut self, on: &Communicator, x: &'env [T], to: u32) {
                self.add(on, request::send(on.caller(), x, to));
            }
            /// As [`Communicator::recv`]; also from this rank itself.
            pub fn recv<T: Element>(&mut self, on: &Communicator, x: &'env mut [T], from: u32) {
                self.add(on, request::recv(on.caller(), x, from));
            }
            /// As [`Communicator::barrier`].
            pub fn barrier(&mut self, on: &Communicator) {
                self.add(on, request::barrier(on.caller()));
            }
        }
    };
}
request::for_borrowed!(methods 'env);
