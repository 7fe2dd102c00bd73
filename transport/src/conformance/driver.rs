//! A small engine that moves whole messages over a link, whatever way the link offers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{DEADLINE, Pair};
use crate::link::{Link, MessageId, Place, Result, Sink, Source, Tag, WINDOW};
use crate::memory::{Region, RegionTable};

/// Which place an end grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grant {
    None,
    Plain,
    Region,
}

pub(super) const GRANTS: [Grant; 3] = [Grant::None, Grant::Plain, Grant::Region];

/// One message as both ends know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) tag: Tag,
    pub(super) len: usize,
    pub(super) source: Grant,
    pub(super) target: Grant,
    /// Bytes moved at a time by the sender and by the receiver.
    pub(super) pieces: [usize; 2],
}

impl Message {
    pub(super) fn plain(number: u32, len: usize) -> Message {
        let tag = Tag { sequence: number, call: [u64::from(number) << 33, !u64::from(number)] };
        Message { tag, len, source: Grant::None, target: Grant::None, pieces: [usize::MAX; 2] }
    }
    /// Byte `i` of this message: differs between neighbours and between messages.
    fn byte(&self, i: usize) -> u8 {
        (i as u64 ^ (i as u64 >> 8) ^ u64::from(self.tag.sequence).wrapping_mul(0x9e37_79b9) >> 3) as u8
    }
}

/// Memory of one message at one end.
enum Bytes {
    Plain(Vec<u8>),
    Region(Region),
}

impl Bytes {
    fn new(len: usize, grant: Grant, regions: Option<&Arc<RegionTable>>) -> (Bytes, Option<Place>) {
        match (grant, regions) {
            (Grant::Region, Some(table)) => {
                let bytes = Bytes::Region(table.alloc(len).expect("memory for a test"));
                let place = table.lookup(bytes.pointer(), len);
                assert!(place.is_some(), "registered memory has a place");
                (bytes, place)
            }
            _ => {
                let bytes = Bytes::Plain(vec![0; len]);
                let place = (grant != Grant::None).then(|| Place::at_address(bytes.pointer()));
                (bytes, place)
            }
        }
    }
    fn pointer(&self) -> *mut u8 {
        match self {
            Bytes::Plain(bytes) => bytes.as_ptr().cast_mut(),
            Bytes::Region(region) => region.as_ptr(),
        }
    }
    /// # Safety
    /// The peer does not touch the memory now.
    unsafe fn slice(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: both kinds hold at least `len` initialised bytes that nobody else uses now.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(), len) }
    }
}

enum State {
    New,
    Open(MessageId),
    Done,
}

struct Transfer {
    message: Message,
    bytes: Bytes,
    place: Option<Place>,
    state: State,
    moved: usize,
    /// Bytes that were posted, and may not be touched before the link has released them.
    posted: usize,
}

/// One direction at one end: messages that are to be sent, or to be received, in order.
pub(super) struct Stream {
    sends: bool,
    waiting: VecDeque<Message>,
    active: VecDeque<Transfer>,
    regions: Option<Arc<RegionTable>>,
}

impl Stream {
    pub(super) fn sender(messages: &[Message], regions: Option<&Arc<RegionTable>>) -> Stream {
        Stream::new(true, messages, regions)
    }
    pub(super) fn receiver(messages: &[Message], regions: Option<&Arc<RegionTable>>) -> Stream {
        Stream::new(false, messages, regions)
    }
    fn new(sends: bool, messages: &[Message], regions: Option<&Arc<RegionTable>>) -> Stream {
        let waiting = messages.iter().copied().collect();
        Stream { sends, waiting, active: VecDeque::new(), regions: regions.cloned() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.active.is_empty()
    }

    /// Does whatever can be done now; `true` if something moved.
    pub(super) fn step(&mut self, link: &mut dyn Link) -> Result<bool> {
        while self.active.len() < WINDOW
            && let Some(message) = self.waiting.pop_front()
        {
            let grant = if self.sends { message.source } else { message.target };
            let (mut bytes, place) = Bytes::new(message.len, grant, self.regions.as_ref());
            // SAFETY: the memory was not granted yet.
            for (i, byte) in unsafe { bytes.slice(message.len) }.iter_mut().enumerate() {
                *byte = if self.sends { message.byte(i) } else { !message.byte(i) };
            }
            self.active.push_back(Transfer { message, bytes, place, state: State::New, moved: 0, posted: 0 });
        }
        let mut moved = false;
        for transfer in &mut self.active {
            let went = if self.sends { transfer.send(link)? } else { transfer.receive(link)? };
            moved |= went;
            // The next message must not be opened before this one.
            if matches!(transfer.state, State::New) {
                break;
            }
        }
        self.active.retain(|transfer| !matches!(transfer.state, State::Done));
        Ok(moved)
    }

    pub(super) fn describe(&self) -> String {
        let first = self.active.front().map(|transfer| {
            let state = match transfer.state {
                State::New => "not opened",
                State::Open(_) => "open",
                State::Done => "done",
            };
            format!("{:?}, {state}, {} bytes moved", transfer.message, transfer.moved)
        });
        let verb = if self.sends { "send" } else { "receive" };
        format!("{} to {verb}, first: {first:?}", self.waiting.len() + self.active.len())
    }
}

impl Transfer {
    fn send(&mut self, link: &mut dyn Link) -> Result<bool> {
        let Message { tag, len, pieces: [piece, _], .. } = self.message;
        let State::Open(m) = self.state else {
            if len <= link.limits().eager {
                // SAFETY: the bytes are this transfer's.
                if unsafe { link.send_eager(tag, self.bytes.pointer(), len) }? {
                    self.state = State::Done;
                    return Ok(true);
                }
            } else if let Some(m) = link.open_send(tag, len as u64, self.place)? {
                self.state = State::Open(m);
                return Ok(true);
            }
            return Ok(false);
        };
        let before = self.moved;
        let rest = (len - self.moved).min(piece);
        let from = self.bytes.pointer().wrapping_add(self.moved);
        match link.sink(m)? {
            Sink::Waiting => {}
            Sink::Foreign(other) => panic!("{tag:?} met {other:?}"),
            Sink::Pulled => {
                assert!(self.place.is_some(), "pulled from a place that was not granted");
                let released = link.released(m) as usize;
                assert!((self.moved..=len).contains(&released), "released {released} of {len}");
                self.moved = released;
            }
            Sink::Mapped(to) => {
                // SAFETY: the receiver granted `len` bytes at `to`.
                unsafe { std::ptr::copy_nonoverlapping(from, to.wrapping_add(self.moved), rest) };
                self.moved += rest;
                link.wrote(m, self.moved as u64)?;
            }
            Sink::Staged => {
                let rest = rest.min(link.limits().slot);
                if let Some(to) = link.reserve(m, rest)? {
                    // SAFETY: the slot has `rest` bytes.
                    unsafe { std::ptr::copy_nonoverlapping(from, to, rest) };
                    link.commit(m, rest)?;
                    self.moved += rest;
                }
            }
            Sink::Copy => {
                // SAFETY: `rest` bytes of this transfer begin there.
                self.moved += unsafe { link.write(m, self.moved as u64, from, rest) }?;
            }
            Sink::Posted => {
                let from = self.bytes.pointer().wrapping_add(self.posted);
                let rest = (len - self.posted).min(piece);
                // SAFETY: `rest` bytes of this transfer begin there, and stay as they are until they are released.
                self.posted += unsafe { link.post(m, self.posted as u64, from, rest) }?;
                let released = link.released(m) as usize;
                assert!(
                    (self.moved..=self.posted).contains(&released),
                    "released {released} of {}",
                    self.posted
                );
                // The caller may use this memory for something else now; that must not show at the receiver.
                let free = self.bytes.pointer().wrapping_add(self.moved);
                // SAFETY: these bytes of this transfer are not the link's any more.
                unsafe { free.write_bytes(0xee, released - self.moved) };
                self.moved = released;
            }
        }
        if self.moved == len {
            link.close_send(m);
            self.state = State::Done;
        }
        Ok(self.moved != before)
    }

    fn receive(&mut self, link: &mut dyn Link) -> Result<bool> {
        let Message { tag, len, pieces: [_, piece], .. } = self.message;
        let State::Open(m) = self.state else {
            if let Some(m) = link.open_recv(tag, len as u64, false, self.place)? {
                self.state = State::Open(m);
                return Ok(true);
            }
            return Ok(false);
        };
        let Some(head) = link.incoming(m)? else { return Ok(false) };
        assert_eq!(head.tag, tag, "the order of messages");
        if let Some(announced) = head.len {
            assert_eq!(announced, len as u64, "length of {tag:?}");
        }
        let before = self.moved;
        let rest = (len - self.moved).min(piece);
        let to = self.bytes.pointer().wrapping_add(self.moved);
        match head.source {
            Source::Eager(from) => {
                assert!(len <= link.limits().eager && head.len == Some(len as u64));
                // SAFETY: all bytes are readable until released.
                unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
                self.moved = len;
                link.release(m, len as u64)?;
            }
            Source::Mapped(from) => {
                // SAFETY: all bytes are readable until released.
                unsafe { std::ptr::copy_nonoverlapping(from.wrapping_add(self.moved), to, rest) };
                self.moved += rest;
                link.release(m, self.moved as u64)?;
            }
            Source::Staged => {
                if let Some((from, held)) = link.peek(m)? {
                    assert!(held > 0 && held <= link.limits().slot && self.moved + held <= len);
                    let rest = held.min(piece);
                    // SAFETY: `held` bytes are readable until released.
                    unsafe { std::ptr::copy_nonoverlapping(from, to, rest) };
                    self.moved += rest;
                    link.release(m, self.moved as u64)?;
                }
            }
            Source::Copy => {
                // SAFETY: `rest` bytes of this transfer begin there.
                self.moved += unsafe { link.read(m, self.moved as u64, to, rest) }?;
                if self.moved != before {
                    link.release(m, self.moved as u64)?;
                }
            }
            Source::Landing => {
                assert!(self.place.is_some(), "landed where nothing was granted");
                let landed = link.landed(m) as usize;
                assert!((self.moved..=len).contains(&landed), "landed {landed} of {len}");
                self.moved = landed;
            }
        }
        if self.moved < len {
            return Ok(self.moved != before);
        }
        let message = self.message;
        // SAFETY: the message is whole, so the peer is done with the memory.
        let wrong = unsafe { self.bytes.slice(len) }.iter().enumerate().find(|&(i, b)| *b != message.byte(i));
        assert!(wrong.is_none(), "byte {wrong:?} of {message:?}, from {:?}", head.source);
        link.close_recv(m);
        self.state = State::Done;
        Ok(true)
    }
}

/// Both streams of one end.
pub(super) struct Station {
    pub(super) streams: [Stream; 2],
}

impl Station {
    /// Both stations for messages from end 0 to end 1, and from 1 to 0.
    pub(super) fn both(pair: &Pair, forth: &[Message], back: &[Message]) -> [Station; 2] {
        let [here, there] = [pair.regions[0].as_ref(), pair.regions[1].as_ref()];
        [
            Station { streams: [Stream::sender(forth, here), Stream::receiver(back, here)] },
            Station { streams: [Stream::sender(back, there), Stream::receiver(forth, there)] },
        ]
    }
    pub(super) fn is_done(&self) -> bool {
        self.streams.iter().all(Stream::is_done)
    }
    pub(super) fn step(&mut self, link: &mut dyn Link) -> Result<bool> {
        link.poll()?;
        let mut moved = false;
        for stream in &mut self.streams {
            moved |= stream.step(link)?;
        }
        link.flush()?;
        Ok(moved)
    }
    pub(super) fn describe(&self) -> String {
        self.streams.each_ref().map(Stream::describe).join("; ")
    }
}

/// Moves all messages, both ends by turns on this thread.
pub(super) fn exchange(pair: &mut Pair, forth: &[Message], back: &[Message]) {
    let mut stations = Station::both(pair, forth, back);
    let start = Instant::now();
    while !stations.iter().all(Station::is_done) {
        for (station, link) in stations.iter_mut().zip(&mut pair.links) {
            station.step(link.as_mut()).expect("a healthy link");
        }
        (pair.service)();
        assert!(
            start.elapsed() < DEADLINE,
            "stuck: {}",
            stations.each_ref().map(Station::describe).join(" | ")
        );
    }
}

/// A small generator of numbers, the same in every run (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % end as u64) as usize
    }
}
