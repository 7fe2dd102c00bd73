//! The side socket: the connection over which both ends met, which stays open as long as the link.
//!
//! A process that dies closes it at once, while queue pairs of a dead process say nothing for seconds. It carries records
//! of this form, in little-endian:
//!
//! ```text
//!  byte  0          4          8
//!       +----------+----------+------------------+
//!       | kind     | length   | length bytes ... |
//!       +----------+----------+------------------+
//! ```
//!
//! * 1, ready: `epoch` (4). This end's queue pairs of that epoch take writes. Nothing is written to an end before it has
//!   said so, because what comes too early is lost and sent again only after a time-out.
//! * 2, move: `epoch`, `closed`, `freed`, `frames`, `pieces`, `failed`, length of a greeting (4 each), the greeting, the
//!   reason in words. This end's queue pairs of earlier epochs are destroyed; it has taken in so much; on these rails, a
//!   bit each, it has seen a queue pair fail; these are the queue pairs that it offers for the epoch, if it has any. See
//!   `moving.rs`.
//! * 3, write: an immediate (4), and bytes. What a queue pair would have written, once there is none any more.

use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::ops::Range;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::failure::Failure;
use super::frame::Counts;
use super::hello::Hello;

const HEADER: usize = 8;
const READY: u32 = 1;
const MOVE: u32 = 2;
const WRITE: u32 = 3;
/// Bytes that may wait to be sent before writes are held back.
const ROOM: usize = 256 << 10;
/// Longest reason that is told.
const WORDS: usize = 2048;

/// What one end says when its queue pairs have failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) epoch: u32,
    pub(super) counts: Counts,
    /// Rails of which this end has seen a queue pair fail, bit k for that at place k.
    pub(super) failed: u32,
    /// Queue pairs that may be used from now on.
    pub(super) offer: Option<Hello>,
    pub(super) why: String,
}

/// What was heard.
#[derive(Debug)]
pub(super) enum Record {
    Ready(u32),
    Move(Box<Move>),
    /// An immediate, and where its bytes are for [`Side::bytes`], until the next record is taken.
    Write(u32, Range<usize>),
}

pub(super) struct Side {
    socket: TcpStream,
    heard: Queue,
    unsent: Queue,
    /// Bytes of the last record that was taken.
    taken: usize,
    /// Longest record.
    longest: usize,
}

impl Side {
    /// `longest`: bytes of the longest write.
    pub(super) fn new(socket: TcpStream, longest: usize) -> Side {
        Side {
            socket,
            heard: Queue::default(),
            unsent: Queue::default(),
            taken: 0,
            longest: longest.max(WORDS) + 4096,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.unsent.rest().is_empty()
    }

    /// Whether another write finds room.
    pub(super) fn has_room(&self) -> bool {
        self.unsent.rest().len() < ROOM
    }

    pub(super) fn say_ready(&mut self, epoch: u32) {
        self.say(READY, &[&epoch.to_le_bytes()]);
    }

    pub(super) fn say_move(&mut self, told: &Move) {
        let Move { epoch, counts: Counts { closed, freed, frames, pieces }, failed, offer, why } = told;
        let offer = offer.as_ref().map(Hello::to_bytes).unwrap_or_default();
        let numbers: Vec<u8> = [*epoch, *closed, *freed, *frames, *pieces, *failed, offer.len() as u32]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let why = why.as_bytes();
        self.say(MOVE, &[&numbers, &offer, &why[..why.len().min(WORDS)]]);
    }

    /// Says what a queue pair would have written.
    pub(super) fn say_write(&mut self, immediate: u32, bytes: &[u8]) {
        self.say(WRITE, &[&immediate.to_le_bytes(), bytes]);
    }

    fn say(&mut self, kind: u32, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.unsent.push(&kind.to_le_bytes());
        self.unsent.push(&(len as u32).to_le_bytes());
        for part in parts {
            self.unsent.push(part);
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let during = "writing to the side socket";
        while !self.unsent.rest().is_empty() {
            match send(&self.socket, self.unsent.rest(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => self.unsent.drop_front(n),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Failure::Closed { during }),
                Err(errno) => return Err(Failure::System { during, errno }),
            }
        }
        Ok(())
    }

    /// Receives what the peer has said. [`Failure::Closed`] if it has closed its end; what it said before can still be
    /// taken.
    pub(super) fn listen(&mut self) -> Result<(), Failure> {
        let during = "reading from the side socket";
        while self.heard.rest().len() < self.longest {
            let mut space = [MaybeUninit::uninit(); 16 << 10];
            match recv(&self.socket, &mut space[..], RecvFlags::DONTWAIT) {
                Ok((([], _), _)) => return Err(Failure::Closed { during }),
                Ok(((heard, _), _)) => self.heard.push(heard),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(Failure::Closed { during }),
                Err(errno) => return Err(Failure::System { during, errno }),
            }
        }
        Ok(())
    }

    /// The next record that has come whole.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Failure> {
        self.heard.drop_front(std::mem::take(&mut self.taken));
        let heard = self.heard.rest();
        let Some([kind, len]) = numbers::<2>(heard) else { return Ok(None) };
        let len = len as usize;
        if len > self.longest {
            return Err(Failure::Protocol { what: format!("a record of {len} bytes on the side socket") });
        }
        let Some(body) = heard.get(HEADER..HEADER + len) else { return Ok(None) };
        let record = read(kind, body)
            .ok_or_else(|| Failure::Protocol { what: format!("a record of kind {kind} and {len} bytes") })?;
        self.taken = HEADER + len;
        Ok(Some(record))
    }

    /// The bytes of the write that was taken last.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.heard.rest()[HEADER..][range]
    }
}

fn read(kind: u32, body: &[u8]) -> Option<Record> {
    Some(match kind {
        READY => Record::Ready(numbers::<1>(body).filter(|_| body.len() == 4)?[0]),
        MOVE => {
            let [epoch, closed, freed, frames, pieces, failed, len] = numbers(body)?;
            let rest = &body[28..];
            let offer = rest.get(..len as usize)?;
            let offer = if offer.is_empty() { None } else { Some(Hello::from_bytes(offer).ok()?) };
            let why = String::from_utf8_lossy(&rest[len as usize..]).into_owned();
            let counts = Counts { closed, freed, frames, pieces };
            Record::Move(Box::new(Move { epoch, counts, failed, offer, why }))
        }
        WRITE => Record::Write(numbers::<1>(body)?[0], 4..body.len()),
        _ => return None,
    })
}

/// The first `N` numbers of four bytes.
fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u32; N]> {
    let (words, _) = bytes.as_chunks::<4>();
    Some(words.first_chunk::<N>()?.map(u32::from_le_bytes))
}

/// Bytes that are added behind and taken in front.
#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    fn push(&mut self, more: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > ROOM {
            drop(self.bytes.drain(..self.start));
            self.start = 0;
        }
        self.bytes.extend_from_slice(more);
    }

    fn drop_front(&mut self, count: usize) {
        self.start += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use std::net::TcpListener;

    fn pair() -> [Side; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        [one, listener.accept().unwrap().0].map(|socket| Side::new(socket, 1 << 20))
    }

    fn hear(side: &mut Side) -> Record {
        let begun = std::time::Instant::now();
        loop {
            side.listen().unwrap();
            if let Some(record) = side.next().unwrap() {
                return record;
            }
            assert!(begun.elapsed().as_secs() < 20, "nothing is heard");
        }
    }

    #[test]
    fn records_survive_the_socket() {
        let [mut one, mut other] = pair();
        let counts = Counts { closed: 1, freed: 2, frames: 3, pieces: u32::MAX };
        let told = Move { epoch: 7, counts, failed: 5, offer: None, why: "a cable is out".into() };
        let long: Vec<u8> = (0..100_000).map(|i| i as u8).collect();
        one.say_ready(5);
        one.say_move(&told);
        one.say_write(9, &long);
        one.say_write(10, b"");
        one.flush().unwrap();
        assert!(matches!(hear(&mut other), Record::Ready(5)));
        assert!(matches!(hear(&mut other), Record::Move(heard) if *heard == told));
        let Record::Write(9, range) = hear(&mut other) else { panic!("no write") };
        assert!(other.bytes(range) == long);
        one.flush().unwrap();
        assert!(matches!(hear(&mut other), Record::Write(10, range) if range.is_empty()));
        drop(one);
        assert!(matches!(other.listen(), Err(Failure::Closed { .. })));
    }

    #[test]
    fn random_records_never_panic() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(7);
        for _ in 0..100_000 {
            let mut body = vec![0u8; rng.random_range(0..80)];
            rng.fill(&mut body[..]);
            if body.len() >= 28 {
                body[24..28].copy_from_slice(&rng.random_range(0..60_u32).to_le_bytes());
            }
            let _ = read(rng.random_range(0..5), &body);
        }
    }
}
