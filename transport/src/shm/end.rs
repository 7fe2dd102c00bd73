//! One end of a link over two wires: the [`Link`] contract on top of lines, credit and slots.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::announce::Announcer;
use super::credit::{Credit, Reporter};
use super::layout::Options;
use super::line::{self, INLINE_BYTES, Record, SlotAt};
use super::reach::{Found, Reach};
use super::receiving::{Arrival, Inbound, Receiving};
use super::ring::LineReader;
use super::sending::{FREE, Grant, Outbound, Reserved, Sending, at};
use super::staging::NO_SLOT;
use super::wake::{self, Doorbell, Fences};
use super::wire::{Line, Moved, Wire};
use crate::link::{
    Incoming, Kind, Limits, Link, LinkError, MessageId, Place, Result, Sink, Source, Tag, WINDOW,
};
use crate::sync::{AtomicU64, Ordering};

/// Bits of a counter's total; the rest is the lap of the window that it belongs to.
const TOTAL_BITS: u32 = 48;

/// One end of a link whose two ends share memory; `R` says what a place means between them. Used through
/// [`ShmLink`](super::ShmLink) and [`Loopback`](crate::loopback::Loopback).
pub struct End<R> {
    ours: Wire,
    theirs: Wire,
    announcer: Announcer,
    reader: LineReader,
    sending: Sending,
    receiving: Receiving,
    reporter: Reporter,
    /// The peer's credit as last taken in.
    credit: u64,
    /// The peer's counters when they were last looked at, for [`Link::arm`].
    seen_released: [u64; WINDOW],
    seen_landed: [u64; WINDOW],
    armed: bool,
    fences: Fences,
    bell: Arc<Doorbell>,
    peer_bell: Doorbell,
    late_bytes: u32,
    limits: Limits,
    reach: R,
}

impl<R: Reach> End<R> {
    /// # Safety
    /// `ours` is written by nobody else, `theirs` by the peer only, both made with `options`; they stay valid as long
    /// as `reach` lives.
    pub(crate) unsafe fn new(
        [ours, theirs]: [Wire; 2],
        options: &Options,
        bell: Arc<Doorbell>,
        peer_bell: Doorbell,
        reach: R,
    ) -> End<R> {
        let fences = Fences::of_process();
        wake::introduce(&ours.control().sleep.0, fences);
        End {
            ours,
            theirs,
            announcer: Announcer::new(ours),
            reader: LineReader::new(),
            sending: Sending::new(options.staging_bytes),
            receiving: Receiving::new(options.staging_bytes),
            reporter: Reporter::new(options),
            credit: 0,
            seen_released: [0; WINDOW],
            seen_landed: [0; WINDOW],
            armed: false,
            fences,
            bell,
            peer_bell,
            late_bytes: options.staging_bytes as u32 / 8,
            limits: options.limits(),
            reach,
        }
    }

    /// Takes in one line of the peer.
    #[inline]
    fn take(&mut self, head: u64, line: &Line) -> Result<()> {
        let word = |index: usize| line.words[index].load(Ordering::Relaxed);
        let tag = Tag { sequence: line::sequence(head), call: [word(1), word(2)] };
        if let Some(len) = line::inline_len(head) {
            let Some(message) = self.receiving.arrive(tag, Arrival::Inline(len as u8)) else {
                return Err(broken("it opened more messages than the window holds"));
            };
            if len > INLINE_BYTES {
                return Err(broken("an inline message is longer than a line"));
            }
            for (i, to) in message.inline[..len.div_ceil(8)].iter_mut().enumerate() {
                *to = word(3 + i);
            }
            self.receiving.leave();
            return Ok(());
        }
        for index in 0..4 {
            let Some(record) = line::record(head, index) else { break };
            let low = (word(3) >> (16 * index)) as u16;
            self.take_record(tag, record, low, word(4 + index))?;
        }
        Ok(())
    }

    fn take_record(&mut self, tag: Tag, record: Record, low: u16, argument: u64) -> Result<()> {
        let place = match record {
            Record::SendAt | Record::RecvAt => Place::from_bits(argument),
            _ => None,
        };
        match record {
            Record::Send | Record::SendAt => self.arrive(tag, Arrival::Granted(place), low)?,
            Record::Slot => {
                let slot = SlotAt::from_bits(argument);
                let Some(held) = self.receiving.slots.enter(slot) else {
                    return Err(broken("an eager message lies in a slot that is in use or out of bounds"));
                };
                self.arrive(tag, Arrival::Slot(held), low)?;
            }
            Record::Chunk => {
                let m = line::nearest(self.receiving.base, low);
                if self.receiving.append(m, SlotAt::from_bits(argument)).is_none() {
                    return Err(broken("a chunk belongs to no staged message or lies out of bounds"));
                }
            }
            Record::Recv | Record::RecvAt => {
                let number = line::nearest(self.sending.next, low);
                self.sending.enter(Grant { number, tag, place });
            }
            Record::Inline => return Err(broken("an inline message shares its line")),
        }
        Ok(())
    }

    fn arrive(&mut self, tag: Tag, arrival: Arrival, low: u16) -> Result<()> {
        if low != self.receiving.arrived as u16 {
            return Err(broken("a message is missing"));
        }
        if self.receiving.arrive(tag, arrival).is_none() {
            return Err(broken("it opened more messages than the window holds"));
        }
        self.receiving.leave();
        Ok(())
    }

    /// Takes in the peer's credit word.
    fn take_credit(&mut self, bits: u64) -> Result<()> {
        let credit = Credit::from_bits(bits);
        if !self.announcer.lines.credit(credit.taken)
            || !self.sending.credit(credit.closed)
            || !self.sending.slots.credit(credit.freed)
        {
            return Err(broken("it gives back more than it got"));
        }
        self.credit = bits;
        Ok(())
    }

    #[inline]
    fn credit_now(&self) -> Credit {
        Credit {
            taken: self.reader.taken,
            closed: self.receiving.base as u16,
            freed: self.receiving.slots.freed,
        }
    }

    /// Tells the peer what it has back.
    fn report(&mut self) {
        let now = self.credit_now();
        self.ours.control().credit.0.store(now.to_bits(), Ordering::Release);
        self.reporter.reported(now);
        self.receiving.late_bytes = 0;
        self.announcer.dirty = true;
    }

    /// Reports when enough has come together.
    #[inline]
    fn report_if_due(&mut self) {
        if self.reporter.is_due(self.credit_now()) || self.receiving.late_bytes > self.late_bytes {
            self.report();
        }
    }

    /// Rings for the peer if it sleeps and anything was published since the last time.
    #[inline]
    fn wake_peer(&mut self) -> Result<()> {
        if !self.announcer.dirty {
            return Ok(());
        }
        self.announcer.dirty = false;
        if wake::claim_sleeper(&self.theirs.control().sleep.0, self.fences) {
            self.peer_bell.ring().map_err(|source| LinkError::Io { during: "waking the peer", source })?;
        }
        Ok(())
    }

    /// Whether anything came that [`Link::poll`] or a query would show.
    fn has_news(&mut self) -> bool {
        let control = self.theirs.control();
        let mut news = self.reader.look(&self.theirs).is_some()
            || control.credit.0.load(Ordering::Acquire) != self.credit;
        let seen = self.seen_released.iter_mut().zip(&mut self.seen_landed);
        for (moved, (released, landed)) in control.moved.0.iter().zip(seen) {
            let now = [moved.released.load(Ordering::Acquire), moved.landed.load(Ordering::Acquire)];
            news |= now != [*released, *landed];
            [*released, *landed] = now;
        }
        news
    }

    /// How far message `m` has come, as we tell the peer.
    #[inline]
    fn our(&self, m: MessageId) -> &Moved {
        &self.ours.control().moved.0[at(m)]
    }

    /// Publishes how far message `m` has come.
    #[inline]
    fn count(counter: &AtomicU64, m: MessageId, total: u64) {
        counter.store(lap(m) << TOTAL_BITS | total, Ordering::Release);
    }

    /// Reads how far the peer has come with message `m`.
    #[inline]
    fn counted(counter: &AtomicU64, seen: &mut [u64; WINDOW], m: MessageId) -> u64 {
        let now = counter.load(Ordering::Acquire);
        seen[at(m)] = now;
        if now >> TOTAL_BITS == lap(m) { now & ((1 << TOTAL_BITS) - 1) } else { 0 }
    }

    /// The way of a message whose receiver's grant is here, or `None` while a mapping is on its way.
    fn decide(&self, m: MessageId, len: u64, grant: Grant) -> Result<Option<(Sink, u64)>> {
        let Some(place) = grant.place else { return Ok(Some((Sink::Staged, 0))) };
        debug_assert_eq!(grant.number, m);
        Ok(match self.reach.find(place, len)? {
            Found::Mapped(pointer) => Some((Sink::Mapped(pointer), 0)),
            Found::Copy(address) => Some((Sink::Copy, address)),
            Found::Pending => None,
        })
    }
}

/// Which time round the window message `m` belongs to, in 16 bits.
#[inline]
fn lap(m: MessageId) -> u64 {
    (m / WINDOW as u64) & 0xffff
}

fn broken(what: &str) -> LinkError {
    LinkError::Protocol { what: what.into() }
}

#[cold]
fn misuse(what: &str, m: MessageId) -> LinkError {
    LinkError::Protocol { what: format!("this end, not the peer: {what} (message {m})") }
}

impl<R: Reach> Link for End<R> {
    fn kind(&self) -> Kind {
        R::KIND
    }
    fn limits(&self) -> Limits {
        self.limits
    }

    #[inline]
    fn poll(&mut self) -> Result<()> {
        let theirs = self.theirs;
        let credit = theirs.control().credit.0.load(Ordering::Acquire);
        let mut news = false;
        while let Some((head, line)) = self.reader.look(&theirs) {
            self.take(head, line)?;
            self.reader.advance();
            news = true;
        }
        if credit != self.credit {
            self.take_credit(credit)?;
        }
        if news {
            self.report_if_due();
        } else if self.reporter.is_idle(self.credit_now()) {
            self.report();
        }
        Ok(())
    }

    #[inline]
    fn flush(&mut self) -> Result<()> {
        self.announcer.publish();
        self.wake_peer()
    }

    #[inline]
    unsafe fn send_eager(&mut self, tag: Tag, bytes: *const u8, len: usize) -> Result<bool> {
        if !self.sending.window_is_open() || !self.announcer.has_line() {
            return Ok(false);
        }
        let m = self.sending.next;
        if len <= INLINE_BYTES {
            let mut words = [0; INLINE_BYTES / 8];
            // SAFETY: `bytes` is readable for `len` bytes, as the caller promises.
            let used = unsafe { line::pack(bytes, len, &mut words) };
            self.announcer.inline(tag, len, &words[..used]);
        } else {
            if len > self.limits.unasked {
                return Err(misuse("an eager message is longer than the limit", m));
            }
            let Some(slot) = self.sending.slots.take(len) else { return Ok(false) };
            // SAFETY: the slot lies in the staging area.
            let to = unsafe { self.ours.staging().add(slot.offset as usize) };
            // SAFETY: `bytes` is readable as the caller promises; the slot holds `len` bytes, and the peer reads it only
            // after the line below is published.
            unsafe { std::ptr::copy_nonoverlapping(bytes, to, len) };
            self.announcer.add(tag, Record::Slot, m, slot.to_bits());
            self.announcer.publish();
        }
        self.sending.next += 1;
        Ok(true)
    }

    fn open_send(&mut self, tag: Tag, len: u64, source: Option<Place>) -> Result<Option<MessageId>> {
        let m = self.sending.next;
        if len >> TOTAL_BITS != 0 {
            return Err(misuse("a message is longer than 256 TiB", m));
        }
        if !self.sending.window_is_open() || !self.sending.has_place() || !self.announcer.has_room(tag) {
            return Ok(None);
        }
        let offered = source.and_then(|place| self.reach.offer(place));
        match offered {
            Some(place) => self.announcer.add(tag, Record::SendAt, m, place.to_bits()),
            None => self.announcer.add(tag, Record::Send, m, 0),
        }
        let pulled = offered.is_some();
        self.sending.messages[at(m)] =
            Outbound { number: m, tag, len, done: 0, pulled, sink: None, address: 0 };
        self.sending.next += 1;
        Ok(Some(m))
    }

    fn sink(&mut self, m: MessageId) -> Result<Sink> {
        let Some(&mut Outbound { tag, len, pulled, sink, .. }) = self.sending.message(m) else {
            return Err(misuse("asked for the sink of a message that is not open", m));
        };
        if let Some(sink) = sink {
            return Ok(sink);
        }
        let sink = match self.sending.grant(m) {
            Some(grant) if grant.tag != tag => return Ok(Sink::Foreign(grant.tag)),
            _ if pulled => return Ok(Sink::Pulled),
            None => return Ok(Sink::Waiting),
            Some(grant) => match self.decide(m, len, grant)? {
                Some(sink) => sink,
                None => return Ok(Sink::Waiting),
            },
        };
        let message = &mut self.sending.messages[at(m)];
        (message.sink, message.address) = (Some(sink.0), sink.1);
        Ok(sink.0)
    }

    fn reserve(&mut self, m: MessageId, len: usize) -> Result<Option<*mut u8>> {
        if len > self.limits.slot {
            return Err(misuse("a slot is longer than the limit", m));
        }
        let staged = self.sending.message(m).is_some_and(|message| message.sink == Some(Sink::Staged));
        if !staged {
            return Err(misuse("reserved a slot for a message that is not staged", m));
        }
        if self.sending.reserved.is_some() || !self.announcer.has_line() || !self.sending.may_stage(m) {
            return Ok(None);
        }
        let Some(slot) = self.sending.slots.take(len) else { return Ok(None) };
        self.sending.reserved = Some(Reserved { message: m, slot });
        self.announcer.promised = 1;
        // SAFETY: the slot lies in the staging area.
        Ok(Some(unsafe { self.ours.staging().add(slot.offset as usize) }))
    }

    fn commit(&mut self, m: MessageId, len: usize) -> Result<()> {
        let Some(Reserved { message, slot }) = self.sending.reserved else {
            return Err(misuse("committed without a reservation", m));
        };
        if message != m || len > slot.len as usize {
            return Err(misuse("committed another message or more bytes than were reserved", m));
        }
        self.sending.reserved = None;
        self.announcer.promised = 0;
        let outbound = &mut self.sending.messages[at(m)];
        outbound.done += len as u64;
        let slot = SlotAt { len: len as u32, ..slot };
        self.announcer.add(outbound.tag, Record::Chunk, m, slot.to_bits());
        self.announcer.publish();
        Ok(())
    }

    unsafe fn write(&mut self, m: MessageId, at: u64, bytes: *const u8, len: usize) -> Result<usize> {
        let Some(&mut Outbound { sink: Some(Sink::Copy), address, len: whole, .. }) = self.sending.message(m)
        else {
            return Err(misuse("wrote to a message whose sink is no copy", m));
        };
        let len = len.min(usize::try_from(whole.saturating_sub(at)).unwrap_or(usize::MAX));
        // SAFETY: `bytes` is readable for `len` bytes, as the caller promises; the peer granted this range.
        let went = unsafe { self.reach.copy_in(address + at, bytes, len) }?;
        self.wrote(m, at + went as u64)?;
        Ok(went)
    }

    #[inline]
    fn wrote(&mut self, m: MessageId, total: u64) -> Result<()> {
        let Some(message) = self.sending.message(m) else {
            return Err(misuse("counted a message that is not open", m));
        };
        message.done = total;
        Self::count(&self.our(m).landed, m, total);
        self.announcer.dirty = true;
        Ok(())
    }

    #[inline]
    fn released(&mut self, m: MessageId) -> u64 {
        Self::counted(&self.theirs.control().moved.0[at(m)].released, &mut self.seen_released, m)
    }

    fn close_send(&mut self, m: MessageId) {
        if let Some(message) = self.sending.message(m) {
            message.number = FREE;
        }
    }

    fn open_recv(
        &mut self,
        tag: Tag,
        len: u64,
        eager: bool,
        target: Option<Place>,
    ) -> Result<Option<MessageId>> {
        if len >> TOTAL_BITS != 0 {
            return Err(misuse("a message is longer than 256 TiB", self.receiving.opened));
        }
        let eager = eager || len <= self.limits.eager as u64;
        if !eager && !self.announcer.has_room(tag) {
            return Ok(None);
        }
        let offered = if eager { None } else { target.and_then(|place| self.reach.offer(place)) };
        let Some(m) = self.receiving.open(len, offered.is_some()) else { return Ok(None) };
        match offered {
            _ if eager => {}
            Some(place) => self.announcer.add(tag, Record::RecvAt, m, place.to_bits()),
            None => self.announcer.add(tag, Record::Recv, m, 0),
        }
        Ok(Some(m))
    }

    #[inline]
    fn incoming(&mut self, m: MessageId) -> Result<Option<Incoming>> {
        if !self.receiving.is_open(m) {
            return Err(misuse("asked for the head of a message that is not open", m));
        }
        if m >= self.receiving.arrived {
            return Ok(None);
        }
        let staging = self.theirs.staging();
        let message = self.receiving.message(m);
        let Inbound { arrival, source, len, lands, .. } = *message;
        let (source, eager_len) = match (arrival, source) {
            (Arrival::Inline(len), _) => {
                (Source::Eager(message.inline.as_ptr().cast()), Some(u64::from(len)))
            }
            (Arrival::Slot(NO_SLOT), source) => (source.unwrap_or(Source::Eager(staging)), Some(len)),
            (Arrival::Slot(place), _) => {
                let (offset, len) = self.receiving.slots.span(place);
                // SAFETY: offset and length were checked against the staging area on arrival.
                (Source::Eager(unsafe { staging.add(offset as usize) }), Some(u64::from(len)))
            }
            (_, Some(source)) => (source, None),
            (Arrival::Granted(Some(place)), None) => match self.reach.find(place, len)? {
                Found::Mapped(pointer) => (Source::Mapped(pointer), None),
                Found::Copy(address) => {
                    self.receiving.message(m).address = address;
                    (Source::Copy, None)
                }
                Found::Pending => return Ok(None),
            },
            (Arrival::Granted(None), None) if lands => (Source::Landing, None),
            (Arrival::Granted(None) | Arrival::None, None) => (Source::Staged, None),
        };
        let message = self.receiving.message(m);
        message.source = Some(source);
        Ok(Some(Incoming { tag: message.tag, len: eager_len, source }))
    }

    fn peek(&mut self, m: MessageId) -> Result<Option<(*const u8, usize)>> {
        if !self.receiving.is_open(m) {
            return Err(misuse("looked for a slot of a message that is not open", m));
        }
        Ok(self.receiving.front(m).map(|(offset, len)| {
            // SAFETY: offset and length were checked against the staging area on arrival.
            let bytes = unsafe { self.theirs.staging().add(offset as usize) };
            (bytes.cast_const(), len as usize)
        }))
    }

    unsafe fn read(&mut self, m: MessageId, at: u64, bytes: *mut u8, len: usize) -> Result<usize> {
        if !self.receiving.is_open(m) || self.receiving.message(m).source != Some(Source::Copy) {
            return Err(misuse("read from a message whose source is no copy", m));
        }
        let message = self.receiving.message(m);
        let len = len.min(usize::try_from(message.len.saturating_sub(at)).unwrap_or(usize::MAX));
        let address = message.address + at;
        // SAFETY: `bytes` is writable for `len` bytes, as the caller promises; the peer granted this range.
        unsafe { self.reach.copy_out(address, bytes, len) }
    }

    #[inline]
    fn landed(&mut self, m: MessageId) -> u64 {
        Self::counted(&self.theirs.control().moved.0[at(m)].landed, &mut self.seen_landed, m)
    }

    #[inline]
    fn release(&mut self, m: MessageId, total: u64) -> Result<()> {
        if !self.receiving.is_open(m) {
            return Err(misuse("released a message that is not open", m));
        }
        let message = self.receiving.message(m);
        let more = total.saturating_sub(message.released);
        message.released += more;
        match message.arrival {
            Arrival::None | Arrival::Inline(_) => {}
            Arrival::Slot(place) => {
                if place != NO_SLOT && total >= u64::from(self.receiving.slots.span(place).1) {
                    let len = u64::from(self.receiving.slots.span(place).1);
                    self.receiving.message(m).len = len;
                    self.receiving.free_eager(m);
                    self.report_if_due();
                }
            }
            Arrival::Granted(Some(_)) => {
                if more > 0 {
                    Self::count(&self.our(m).released, m, total);
                    self.announcer.dirty = true;
                }
            }
            Arrival::Granted(None) => {
                let before = self.receiving.slots.freed;
                self.receiving.consume(m, more);
                // A sender that stages waits for its slots: it hears at once.
                if self.receiving.slots.freed != before {
                    self.report();
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn close_recv(&mut self, m: MessageId) {
        if self.receiving.is_open(m) {
            self.receiving.close(m);
            self.report_if_due();
        }
    }

    fn arm(&mut self) -> bool {
        if self.reporter.is_behind(self.credit_now()) {
            self.report();
        }
        if self.wake_peer().is_err() {
            return false;
        }
        self.armed = true;
        wake::fall_asleep(&self.ours.control().sleep.0, self.fences);
        if self.has_news() {
            wake::wake_up(&self.ours.control().sleep.0);
            self.armed = false;
        }
        self.armed
    }

    fn disarm(&mut self) {
        if self.armed {
            self.armed = false;
            wake::wake_up(&self.ours.control().sleep.0);
            self.bell.silence();
        }
    }

    fn watch(&self, add: &mut dyn FnMut(BorrowedFd<'_>, bool)) {
        add(self.bell.as_fd(), false);
    }
}
