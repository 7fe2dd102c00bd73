//! The sockets that carry the bytes of granted messages, and nothing else.
//!
//! Each direction is one stream of bytes: the granted messages one behind the other. The stream is dealt to the
//! sockets in pieces of a fixed length, round robin:
//!
//! ```text
//!  stream   | piece 0 | piece 1 | piece 2 | piece 3 | piece 4 | ...
//!  socket        0         1         2         0         1
//! ```
//!
//! A position in the stream therefore tells the socket, and as both ends know where each message begins (the sum of
//! the lengths before it), no headers are needed: user memory goes into the socket and out of it and nothing is copied
//! in between.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::failure::{Failure, not_now};

/// Most bytes in one system call: as long as one call copies, the other direction stands still (2 ranks, one bulk socket,
/// 4 MiB, us: broadcast 641 in calls of 256 KiB, 529 of 512 KiB, 509 of 1 MiB; all_reduce 1156, 1138, 1121).
const MOST: usize = 1 << 20;

pub(super) struct Bulk {
    sockets: Box<[OwnedFd]>,
    piece: u64,
    /// Position in the outgoing stream.
    written: u64,
    /// Position in the incoming stream.
    read: u64,
    /// The last write found the socket full.
    write_blocked: bool,
    /// The last read found the socket empty.
    read_blocked: bool,
}

impl Bulk {
    pub(super) fn new(sockets: Box<[OwnedFd]>, piece: usize) -> Bulk {
        // One socket has no use for pieces.
        let piece = if sockets.len() == 1 { u64::MAX } else { piece.max(1) as u64 };
        Bulk { sockets, piece, written: 0, read: 0, write_blocked: false, read_blocked: false }
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn read_so_far(&self) -> u64 {
        self.read
    }

    /// Writes what the sockets take of `bytes`, the next of the stream.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let mut done = 0;
        self.write_blocked = false;
        while done < bytes.len().min(MOST) && !self.write_blocked {
            let (socket, most) = self.turn(self.written, bytes.len() - done);
            let n = match send(socket, &bytes[done..done + most], flags) {
                Ok(n) => n,
                Err(errno) if not_now(errno) => 0,
                Err(errno) => return Err(Failure::of_socket("sending message bytes", errno)),
            };
            done += n;
            self.written += n as u64;
            self.write_blocked = n < most;
        }
        Ok(done)
    }

    /// Reads what has arrived into `bytes`, in order of the stream.
    pub(super) fn read(&mut self, bytes: &mut [MaybeUninit<u8>]) -> Result<usize, Failure> {
        let during = "receiving message bytes";
        let mut done = 0;
        self.read_blocked = false;
        while done < bytes.len().min(MOST) && !self.read_blocked {
            let (socket, most) = self.turn(self.read, bytes.len() - done);
            let n = match recv(socket, &mut bytes[done..done + most], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(Failure::Closed { during }),
                Ok((_, n)) => n,
                Err(errno) if not_now(errno) => 0,
                Err(errno) => return Err(Failure::of_socket(during, errno)),
            };
            done += n;
            self.read += n as u64;
            self.read_blocked = n < most;
        }
        Ok(done)
    }

    /// The socket whose turn it is at `position`, and how many of `len` bytes may go there at once.
    fn turn(&self, position: u64, len: usize) -> (BorrowedFd<'_>, usize) {
        let socket = (position / self.piece) as usize % self.sockets.len();
        let left = self.piece - position % self.piece;
        (self.sockets[socket].as_fd(), (len.min(MOST) as u64).min(left) as usize)
    }

    /// The sockets that a caller waits for: those whose turn it is, in the directions that made no progress.
    pub(super) fn watch(&self, add: &mut dyn FnMut(BorrowedFd<'_>, bool)) {
        let reading = self.turn(self.read, 1).0;
        let writing = self.turn(self.written, 1).0;
        let one = reading.as_raw_fd() == writing.as_raw_fd();
        if self.read_blocked {
            add(reading, one && self.write_blocked);
        }
        if self.write_blocked && !(one && self.read_blocked) {
            add(writing, true);
        }
    }
}
