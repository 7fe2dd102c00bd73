//! One-sided calls: a rank puts data into a window of another's memory, and signals that they are there.
//!
//! Every ordered pair of ranks that uses them has a hidden communicator of these two, made without a word to anybody when
//! it is first needed; so nothing that goes one way waits for what goes another. It fails when the whole one does. A put sends
//! two messages on it: where the data go ([`Destination`]), and the data. The other rank receives them when it waits for the
//! signal, the data straight into its window.
//!
//! A put is over when its data have been copied, and goes out in the background, without a deadline. It must not wait for its
//! receiver, as it would without a copy: that one may wait for the signal only behind calls which wait for this rank.

mod copies;
mod incoming;
mod window;

use crate::background;
use crate::communicator::{Communicator, Shared};
use crate::control::{Control, thread};
use crate::element::DataType;
use crate::engine::{Message, Task};
use crate::error::{Error, Result};
use crate::flow::{self, Flow};
use crate::raw::RawMemory;
use crate::stream::{self, Stage, Stream};
use crate::work::Finish;
use incoming::{Incoming, Whole};
use rccl_schedule::Few;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use window::Destination;
pub use window::Window;

/// How long a rank that leaves waits for its signals to be waited for by their receivers.
const LINGER: Duration = Duration::from_secs(5);
/// How long calls on a communicator that has failed take at most to end.
const END: Duration = Duration::from_secs(1);
/// So much goes out on the caller's thread if it can at once, which saves waking another.
const SMALL: usize = 32 << 10;

/// What a communicator has for its one-sided calls.
pub(crate) struct OneSided {
    whole: Arc<Whole>,
    /// `None`: the communicator was left.
    pairs: Mutex<Option<Pairs>>,
}

#[derive(Default)]
struct Pairs {
    /// To each rank.
    outgoing: HashMap<u32, Communicator>,
    /// From each rank.
    incoming: HashMap<u32, Arc<Incoming>>,
}

impl OneSided {
    pub fn new(control: Control, label: String, timeout: Duration) -> OneSided {
        let (windows, copies) = Default::default();
        let whole = Whole { control, label, timeout, windows, copies, deferred: AtomicUsize::new(0) };
        OneSided { whole: Arc::new(whole), pairs: Mutex::new(Some(Pairs::default())) }
    }

    /// Waits for what is under way, but not long for signals that nobody waits for; later calls are refused.
    pub fn finish(&self) {
        let (channels, incoming): (_, Vec<_>) = match &*self.pairs() {
            Some(pairs) => (pairs.channels(), pairs.incoming.values().cloned().collect()),
            None => return,
        };
        let flows = flows(&channels);
        let end = |patience| {
            flow::help(&flows, Instant::now().checked_add(patience), || {
                flows.iter().all(|flow| !flow.is_busy())
            });
        };
        flow::help(&flows, None, || {
            self.whole.deferred.load(Ordering::Acquire) == 0
                && incoming.iter().all(|incoming| incoming.is_idle())
        });
        end(LINGER);
        let left = self.pairs().take();
        let me = self.whole.rank();
        left.iter().flat_map(|pairs| &pairs.outgoing).for_each(|(&peer, to)| give_up(to.shared(), me, peer));
        // Else the process might end before they have.
        end(END);
    }

    /// Leaves the pairs' communicators; what was put goes on for as long as [`OneSided::finish`] waits.
    pub fn abandon(&self) {
        let Some(Pairs { outgoing, .. }) = self.pairs().take() else { return };
        if outgoing.is_empty() {
            return;
        }
        // The progress thread has them meanwhile, and streams may put more.
        let me = self.whole.rank();
        let mut late: Vec<_> =
            outgoing.iter().map(|(&peer, to)| (peer, Arc::downgrade(to.shared()))).collect();
        let give_up = async move {
            while !late.is_empty() {
                tokio::time::sleep(LINGER).await;
                late.retain(|(_, to)| to.strong_count() > 0);
                let left = late.clone();
                // The last handle may go there, and its end waits for the control thread.
                aside(move || {
                    left.iter().for_each(|(peer, to)| {
                        to.upgrade().iter().for_each(|to| give_up(to, me, *peer));
                    });
                });
            }
        };
        match thread::control_thread() {
            Ok(control) => drop(control.spawn(give_up)),
            Err(error) => tracing::debug!(%error, "what was put waits for its receivers for ever"),
        }
    }

    /// As [`Communicator::leave`], which it is a part of.
    pub fn leave(&self) {
        let channels = self.pairs().as_ref().map(Pairs::channels);
        channels.iter().flatten().for_each(Communicator::leave);
    }

    fn pairs(&self) -> MutexGuard<'_, Option<Pairs>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pairs {
    fn channels(&self) -> Vec<Communicator> {
        let incoming = self.incoming.values().filter_map(|incoming| incoming.channel());
        self.outgoing.values().chain(incoming).cloned().collect()
    }
}

/// Signals of a rank that are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Signals {
    /// The rank that makes them.
    pub from: u32,
    /// How many, of those that no earlier wait has counted.
    pub count: u64,
}

/// A one-sided call that has been checked and is not made yet; see [`Communicator::put_signal`].
pub struct OneSidedCall {
    communicator: Communicator,
    what: What,
}

enum What {
    Put(Put),
    Wait(Vec<(Arc<Incoming>, u64)>),
}

/// One-sided calls, for bindings of other languages. Checked first, then made at once, on a stream
/// ([`Communicator::on`]) or in a [`RawGroup`](crate::RawGroup).
impl Communicator {
    /// Registers memory of this rank's as a window that all ranks of the communicator may put into. Every rank registers one, in
    /// the same order; what one rank puts by its k-th window comes to the other's k-th. They may have different lengths, also
    /// none. Nothing is sent.
    ///
    /// # Errors
    /// As [`Communicator::register`].
    ///
    /// # Safety
    /// The memory stays valid until the window is dropped, and nobody drops it while this rank waits for signals. During
    /// such waits what the other ranks put is written to it.
    pub unsafe fn register_window(&self, memory: *mut u8, bytes: usize) -> Result<Window> {
        let start = memory;
        // SAFETY: the caller's promise.
        let memory = unsafe { RawMemory::new(start, bytes) };
        Ok(Window::new(&self.one_sided().whole.windows, start, memory, self.register(memory)?))
    }

    /// A call that writes `bytes` bytes to a rank's window of the same registration as `window`, this many bytes behind its
    /// start, and signals that. It is over when the data may be used again; the other rank has them when it has waited for the
    /// signal. What is put to one rank comes in the order in which it was made, on one stream or without; a put on a stream is
    /// made when its turn there comes. The rank may be this one.
    ///
    /// That a put fits into the other rank's window that rank finds out, and aborts the communicator if not.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a rank that does not exist, another communicator's window, or a null pointer to data;
    /// the failure that broke the communicator; [`Error::System`] when a descriptor cannot be had; [`Error::Finished`] and
    /// [`Error::Forked`].
    pub fn put_signal(
        &self,
        data: *const u8,
        bytes: usize,
        peer: u32,
        window: &Window,
        offset: u64,
    ) -> Result<OneSidedCall> {
        const CALL: &str = "put_signal";
        if !window.is_of(&self.one_sided().whole.windows) {
            return refuse(CALL, "a window of another communicator".into(), "register it with this one");
        }
        if bytes > 0 && data.is_null() {
            return refuse(CALL, format!("{bytes} bytes at a null pointer"), "pass data, or a length of 0");
        }
        let to = Destination { window: window.number().into(), offset, bytes: bytes as u64 };
        if bytes > 0 && peer == self.rank() {
            self.one_sided().whole.own_place(to)?;
        }
        self.put(CALL, peer, to, data)
    }

    /// A call that signals a rank, and nothing else.
    ///
    /// # Errors
    /// As [`Communicator::put_signal`].
    pub fn signal(&self, peer: u32) -> Result<OneSidedCall> {
        self.put("signal", peer, Destination::NOWHERE, std::ptr::null())
    }

    /// A call that is over when so many further signals of each of these ranks have come; what was put before them is
    /// there then. Waits count a rank's signals in the order in which they are made, on a stream when their turn comes.
    ///
    /// # Errors
    /// As [`Communicator::put_signal`]. The call itself fails, and the communicator on all ranks with it, when a signal does not
    /// come within the deadline of a call.
    pub fn wait_signals(&self, awaited: &[Signals]) -> Result<OneSidedCall> {
        let incoming = awaited.iter().map(|&Signals { from, count }| {
            self.check_peer("wait_signals", from)?;
            Ok((self.incoming(from)?, count))
        });
        let what = What::Wait(incoming.collect::<Result<_>>()?);
        Ok(OneSidedCall { communicator: self.clone(), what })
    }

    fn put(&self, call: &'static str, peer: u32, to: Destination, data: *const u8) -> Result<OneSidedCall> {
        self.check_peer(call, peer)?;
        let by = if peer == self.rank() {
            By::Own(self.incoming(peer)?)
        } else {
            let channel = self.outgoing(peer)?;
            let whole = &self.one_sided().whole;
            // If all of them have failed meanwhile, it says so in the numbers of all.
            let seen = |error| self.check().err().unwrap_or_else(|| whole.seen(error, [self.rank(), peer]));
            channel.check().map_err(seen)?;
            By::Channel(channel)
        };
        let what = What::Put(Put { by, to, data, whole: self.one_sided().whole.clone() });
        Ok(OneSidedCall { communicator: self.clone(), what })
    }

    fn check_peer(&self, call: &'static str, peer: u32) -> Result<()> {
        self.check()?;
        if peer < self.size() {
            return Ok(());
        }
        refuse(
            call,
            format!("rank {peer} in a communicator of {} ranks", self.size()),
            "ranks count from 0 to size - 1",
        )
    }

    fn outgoing(&self, peer: u32) -> Result<Communicator> {
        let mut pairs = self.one_sided().pairs();
        let outgoing = &mut pairs.as_mut().ok_or_else(|| self.finished())?.outgoing;
        if let Some(channel) = outgoing.get(&peer) {
            return Ok(channel.clone());
        }
        let channel = self.pair(self.rank(), peer)?;
        outgoing.insert(peer, channel.clone());
        Ok(channel)
    }

    fn incoming(&self, source: u32) -> Result<Arc<Incoming>> {
        let one_sided = self.one_sided();
        let mut pairs = one_sided.pairs();
        let incoming = &mut pairs.as_mut().ok_or_else(|| self.finished())?.incoming;
        if let Some(known) = incoming.get(&source) {
            return Ok(known.clone());
        }
        let channel = if source == self.rank() { None } else { Some(self.pair(source, self.rank())?) };
        let made = Arc::new(Incoming::new(source, one_sided.whole.clone(), channel));
        incoming.insert(source, made.clone());
        Ok(made)
    }

    fn finished(&self) -> Error {
        Error::Finished { communicator: self.label().into(), rank: self.rank() }
    }
}

impl OneSidedCall {
    /// Makes the call. Without a stream it is over when this returns; on one it takes its place there, and the stream tells
    /// what becomes of it.
    ///
    /// # Errors
    /// The failure that broke the communicator; [`Error::InvalidArgument`] when this rank puts to itself and misses its window;
    /// [`Error::System`] when there is no memory for a copy; [`Error::Forked`].
    ///
    /// # Safety
    /// What is put is valid for reads, and nobody writes to it, until the call is over. While signals are waited for the
    /// memory of the windows is as [`Communicator::register_window`] wants it.
    pub unsafe fn run(self) -> Result<()> {
        let OneSidedCall { communicator, what } = self;
        communicator.check()?;
        match (what, communicator.stream()) {
            // SAFETY: the caller's promise.
            (What::Put(put), None) => unsafe { put.make() },
            (What::Put(put), Some(stream)) => {
                // SAFETY: the caller's promise.
                let make = move |stage: &Arc<Stage>| stage.end(&unsafe { put.make() });
                in_turn(&communicator, stream, 1, &[&communicator], make);
                Ok(())
            }
            (What::Wait(list), stream) => wait(&communicator, stream, list),
        }
    }

    /// Whether it waits for others.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.what, What::Wait(_))
    }
}

fn wait(communicator: &Communicator, stream: Option<&Stream>, list: Vec<(Arc<Incoming>, u64)>) -> Result<()> {
    let channels: Vec<Communicator> =
        list.iter().filter_map(|(incoming, _)| incoming.channel().cloned()).collect();
    let (calls, timeout) = (list.len(), stream.and_then(Stream::timeout));
    let begin = move |stage: &Arc<Stage>| {
        for (incoming, signals) in &list {
            incoming.expect(*signals, stage, timeout);
        }
    };
    let Some(stream) = stream else {
        let stage = Stage::of(calls);
        begin(&stage);
        // What this rank has put goes out meanwhile, or another thread would have to be woken for it.
        let all = communicator.one_sided().pairs().as_ref().map(Pairs::channels).unwrap_or_default();
        let mut busy = flows(&all);
        busy.retain(|flow| flow.is_busy());
        flow::help(&busy, None, || stage.is_over());
        all.iter().for_each(attend);
        return stage.result();
    };
    if calls > 0 {
        let moved: Vec<&Communicator> = channels.iter().chain([communicator]).collect();
        let attended = channels.clone();
        in_turn(communicator, stream, calls, &moved, move |stage| {
            begin(stage);
            attended.iter().for_each(attend);
        });
    }
    Ok(())
}

/// Takes the next place on a stream for so many calls, which `begin` makes when everything before them has ended. Who waits for
/// them moves these communicators.
fn in_turn(
    communicator: &Communicator,
    stream: &Stream,
    calls: usize,
    moved: &[&Communicator],
    begin: impl FnOnce(&Arc<Stage>) + Send + 'static,
) {
    let stage = Stage::of(calls);
    let moved: Vec<_> = moved.iter().map(|communicator| communicator.shared()).collect();
    let whole = communicator.one_sided().whole.clone();
    whole.deferred.fetch_add(1, Ordering::Relaxed);
    let before = stream.append(&stage, &moved);
    stream::after(before, move || {
        begin(&stage);
        whole.deferred.fetch_sub(1, Ordering::Release);
    });
}

fn flows<'c>(channels: impl IntoIterator<Item = &'c Communicator>) -> Vec<&'c Flow> {
    channels.into_iter().map(|channel| &channel.shared().flow).collect()
}

/// Ends what this rank has put and that one has not waited for.
fn give_up(to: &Arc<Shared>, me: u32, peer: u32) {
    if to.flow.is_busy() && to.born.check().is_ok() {
        to.control.abort(&format!("rank {me} left before rank {peer} had waited for all of its signals"));
    }
}

/// Runs what may block on a thread of its own, and not on the control thread.
fn aside(run: impl FnOnce() + Send + 'static) {
    let _blocked = thread::SignalsBlocked::new();
    if let Err(error) = std::thread::Builder::new().name("rccl-aside".into()).spawn(run) {
        tracing::warn!(%error, "a thread cannot be started: one-sided calls end late");
    }
}

/// Has the progress thread move what goes on without its caller.
fn attend(channel: &Communicator) {
    if channel.shared().flow.is_busy()
        && channel.shared().born.check().is_ok()
        && let Err(error) = background::look_after(channel.shared())
    {
        tracing::warn!(%error, "one-sided calls make progress only while signals are waited for");
    }
}

struct Put {
    by: By,
    to: Destination,
    data: *const u8,
    whole: Arc<Whole>,
}

// SAFETY: the data may be read on any thread, as whoever makes the call promises.
unsafe impl Send for Put {}

/// How data go to their window.
enum By {
    Channel(Communicator),
    /// It is one of this rank's own.
    Own(Arc<Incoming>),
}

impl Put {
    /// # Safety
    /// The data are valid for reads.
    unsafe fn make(self) -> Result<()> {
        let Put { by, to, data, whole } = self;
        let bytes = to.bytes as usize;
        match by {
            By::Own(incoming) => {
                if bytes > 0 {
                    let place = whole.own_place(to)?;
                    // SAFETY: the data are `bytes` long, by the caller's promise, and so is what was found.
                    unsafe { std::ptr::copy(data, place, bytes) };
                }
                incoming.arrived();
            }
            By::Channel(channel) => {
                // SAFETY: the caller's promise.
                let data = unsafe { whole.copies.of(data, bytes) }?;
                send(&channel, Sent { destination: to.pack(), data, of: whole });
            }
        }
        Ok(())
    }
}

/// What is on its way, and kept until it is gone.
struct Sent {
    destination: [u64; Destination::WORDS],
    data: Vec<u8>,
    of: Arc<Whole>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.of.copies.give_back(std::mem::take(&mut self.data));
    }
}

impl Finish for Sent {
    fn finish(&self, result: Result<()>) {
        // The receiver says what is wrong, and so does the next put.
        if let Err(error) = result {
            tracing::debug!(%error, "a put was lost");
        }
    }
}

fn send(channel: &Communicator, sent: Sent) {
    let sent = Arc::new(sent);
    let message = |dtype, count: usize, memory: *const u8| Message {
        peer: 1,
        outgoing: true,
        dtype,
        count: count as u64,
        memory: memory.cast_mut(),
    };
    let announced = message(DataType::U64, Destination::WORDS, sent.destination.as_ptr().cast());
    let messages = match sent.data.len() {
        0 => Few::One(announced),
        bytes => Few::Many([announced, message(DataType::U8, bytes, sent.data.as_ptr())].into()),
    };
    let small = sent.data.len() <= SMALL;
    // SAFETY: what is sent is kept until its end is told, and nobody writes to it.
    unsafe { channel.queue(Ok(Task::Messages(messages)), Some(Duration::MAX), sent) };
    while small && channel.shared().flow.advance() {}
    attend(channel);
}

fn refuse<T>(call: &'static str, what: String, hint: &str) -> Result<T> {
    Err(Error::InvalidArgument { call, what, hint: hint.into() })
}
