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
//! * kind 1, ready: this end's queue pairs take writes. Nothing is written to an end before it has said so, because what
//!   comes too early is lost and sent again only after a time-out. No bytes follow.

use std::mem::MaybeUninit;
use std::net::TcpStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::failure::Failure;

const HEADER: usize = 8;
const READY: u32 = 1;
/// Longest record.
const LONGEST: usize = 4096;

pub(super) struct Side {
    socket: TcpStream,
    /// Received and not parsed.
    heard: Vec<u8>,
    /// To be sent.
    unsent: Vec<u8>,
    /// The peer's queue pairs take writes.
    pub(super) ready: bool,
}

impl Side {
    pub(super) fn new(socket: TcpStream) -> Side {
        Side { socket, heard: Vec::new(), unsent: Vec::new(), ready: false }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Says that this end's queue pairs take writes.
    pub(super) fn say_ready(&mut self) -> Result<(), Failure> {
        self.unsent.extend(READY.to_le_bytes());
        self.unsent.extend(0_u32.to_le_bytes());
        self.push_out()
    }

    fn push_out(&mut self) -> Result<(), Failure> {
        let during = "writing to the side socket";
        while !self.unsent.is_empty() {
            match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(Failure::Closed { during }),
                Err(errno) => return Err(Failure::System { during, errno }),
            }
        }
        Ok(())
    }

    /// Takes in what the peer has said. [`Failure::Closed`] if it has closed its end.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        self.push_out()?;
        let during = "reading from the side socket";
        loop {
            let mut space = [MaybeUninit::uninit(); 512];
            match recv(&self.socket, &mut space[..], RecvFlags::DONTWAIT) {
                Ok((([], _), _)) => return Err(Failure::Closed { during }),
                Ok(((heard, _), _)) => self.heard.extend_from_slice(heard),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(Errno::CONNRESET | Errno::PIPE) => return Err(Failure::Closed { during }),
                Err(errno) => return Err(Failure::System { during, errno }),
            }
        }
        self.parse()
    }

    fn parse(&mut self) -> Result<(), Failure> {
        while let Some(&[a, b, c, d, e, f, g, h]) = self.heard.first_chunk::<HEADER>() {
            let kind = u32::from_le_bytes([a, b, c, d]);
            let len = u32::from_le_bytes([e, f, g, h]) as usize;
            if len > LONGEST || kind != READY || len != 0 {
                return Err(Failure::Protocol {
                    what: format!("a record of kind {kind} and {len} bytes on the side socket"),
                });
            }
            self.ready = true;
            self.heard.drain(..HEADER + len);
        }
        Ok(())
    }
}
